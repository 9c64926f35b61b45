"""Folders of others: what they name is not executed, and what is damaged is named."""

import json
import os
import zipfile
from collections.abc import Callable
from typing import Any

import pytest
import yaml
from lightning.pytorch import LightningModule

from semconv import load_run
from semconv.commands.train import main, parse
from semconv.comparison.tables import Sheet, to_markdown
from semconv.configuration import bare
from semconv.data.streams import _iterate_tars, open_webdataset
from semconv.encoders import Encoder, Geometry
from semconv.encoders.sizes import SizeName
from semconv.tracking.checkpoints import read_checkpoint
from semconv.tracking.folder import RunFolder, newest_checkpoint
from semconv.trained.run import TRUSTED, build_parts, check_classes
from tests.comparison.test_command import run as compare
from tests.comparison.test_command import write_family, write_run
from tests.experiments import arguments
from tests.pairwise import together
from tests.recording import SHORT

pytestmark = pytest.mark.usefixtures("quick_runs")


@pytest.mark.parametrize("text", ["pipe:touch {}", "http://a/b';touch {};'", "s3://a/$(touch {})", "x;touch {}"])
def test_a_source_runs_no_command(text, tmp_path):
    made = tmp_path / "made"
    command = text.format(made)
    for folder, split in ((command, "train"), (f"{command}://", "train"), (str(tmp_path), f"{command}|10")):
        with pytest.raises(ValueError, match="runs a command of the shell: read it, and set SEMCONV_ALLOW_PIPE=1"):
            open_webdataset(folder, split, 3, 10)
    with pytest.raises(ValueError, match="runs a command"):
        list(_iterate_tars([command]))
    assert not made.exists()


def test_weights_are_loaded_without_opening_their_data(tmp_path):
    options = [*SHORT, "--trainer.max_steps=1", f"--runs={tmp_path}", "--data.mean=[0.1,0.2,0.3]"]
    main(["fit", *arguments("cnn_plain", *options)])
    (run,) = tmp_path.glob("*/*")
    config = yaml.safe_load((run / "config.yaml").read_text())
    expected = RunFolder(run).summary["data/mean"], RunFolder(run).summary["data/std"]
    assert expected[0] == [0.1, 0.2, 0.3]
    config["data"]["init_args"] |= {"source": ["wds/pipe:touch x", "scenes"], "mean": None}
    (run / "config.yaml").write_text(yaml.safe_dump(config))
    assert tuple(map(list, load_run(run).data.moments)) == expected  # type: ignore[attr-defined]


@pytest.mark.filterwarnings("ignore")
@together("key", ["model.encoder", "model.decoder", "model.optimizer", "model.schedule", "model.encoder.init_args.mechanism"])
def test_a_function_is_not_called_in_place_of_a_class(key, tmp_path, monkeypatch, capsys):
    function = "own_functions.make"
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "own_functions.py").write_text("from os import mkdir\ndef make(path):\n    mkdir(path)\n")
    content: Any = {"class_path": function, "init_args": {"path": str(tmp_path / "made")}}
    for name in reversed(key.replace("model.", "model.init_args.", 1).split(".")):
        content = {name: content}
    (tmp_path / "given.yaml").write_text(yaml.safe_dump(content))
    with pytest.raises(SystemExit) as ended:
        main(["fit", *arguments("cnn_channels", "-c", str(tmp_path / "given.yaml"))])
    said = capsys.readouterr().err
    assert ended.value.code == 2
    assert said == f"semconv: error: {bare(key)} is {function}, which is no class and is not called: give a class\n"
    assert not (tmp_path / "made").exists()


def module(tmp_path, monkeypatch, name, content="class Enc: pass\n"):
    """A module of a user's own; the folder `imported` is there once it is imported."""
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / f"{name}.py").write_text(f"import os\nos.mkdir({str(tmp_path / 'imported')!r})\n{content}")
    return tmp_path / "imported"


@together(
    "content, said",
    [
        ({"model": {"init_args": {"encoder": "stranger_a.Enc"}}}, "model.encoder: stranger_a.Enc stands in a text"),
        ({"model.init_args.encoder": "stranger_a.Enc"}, "model.encoder: stranger_a.Enc stands in a text"),
        (
            {"model": {"init_args": {"encoder": {"init_args": {"mechanism": "stranger_a.Enc"}}}}},
            "mechanism: stranger_a",
        ),
        ({"model": {"init_args": {"encoder": '{"class_path": "stranger_a.Enc"}'}}}, "model.encoder: stranger_a.Enc stands in"),
        ({"experiment": "stranger_a.Enc", "model": {"init_args": {"encoder": "${experiment}"}}}, "is no class: give"),
        ({"model": {"init_args": {"encoder": "FILE"}}}, " is no class: give a class"),
        ({"trainer": {"callbacks": ["stranger_a.Enc"]}}, "trainer.callbacks: stranger_a.Enc stands in a text"),
        ({"trainer": "FILE"}, "part.yaml: write its keys and values here, or give the file by -c"),
        ({"data": "FILE"}, " is no class: give a class"),
        ({"model": {"init_args": {"encoder": {"class_path": "os.mkdir"}}}}, "model.encoder: os.mkdir is of Python's own library"),
        ({"data": "stranger_a.Enc"}, "data: stranger_a.Enc stands in a text"),
    ],
)
def test_text_and_paths_import_nothing_where_a_class_is_expected(content, said, tmp_path, monkeypatch, capsys):
    imported = module(tmp_path, monkeypatch, "stranger_a")
    (tmp_path / "part.yaml").write_text("class_path: stranger_a.Enc\n")
    (tmp_path / "given.yaml").write_text(yaml.safe_dump(content).replace("FILE", str(tmp_path / "part.yaml")))
    with pytest.raises(SystemExit) as ended:
        main(["fit", *arguments("cnn_channels", "-c", str(tmp_path / "given.yaml"))])
    (line,) = capsys.readouterr().err.splitlines()
    assert ended.value.code == 2
    assert said in line
    assert not imported.exists()


def test_a_run_to_start_from_imports_no_code_of_others(tmp_path, monkeypatch, capsys):
    imported = module(tmp_path, monkeypatch, "stranger_b")
    for number, data in enumerate(({"class_path": "stranger_b.Enc"}, str(tmp_path / "part.yaml"), "stranger_b.Enc")):
        run = tmp_path / str(number)
        run.mkdir()
        (run / "config.yaml").write_text(yaml.safe_dump({"experiment": "a", "seed_everything": 0, "model": {}, "data": data}))
        with pytest.raises(SystemExit) as ended:
            main(["run", "--pretrained", str(run), "-c", "base", "-c", "evaluation/linear_probe"])
        assert (ended.value.code, capsys.readouterr().err.partition(" the run ")[0]) == (2, "semconv: error:")
    assert not imported.exists()


def test_a_class_path_in_a_users_own_file_may_name_what_another_module_holds(tmp_path, monkeypatch):
    module(tmp_path, monkeypatch, "kept_elsewhere", "from semconv.mechanisms import Channels\nclass Own(Channels): pass\n")
    (tmp_path / "own_parts.py").write_text("from kept_elsewhere import Own\n")
    part = {"class_path": "semconv.encoders.SemanticCNN", "init_args": {"mechanism": {"class_path": "own_parts.Own"}}}
    (tmp_path / "own.yaml").write_text(yaml.safe_dump({"model": {"init_args": {"encoder": part}}}))
    for words in (["-c", str(tmp_path / "own.yaml")], ["--model.encoder.mechanism=own_parts.Own"]):
        config = parse(arguments("cnn_channels", *words))
        assert config["model"]["init_args"]["encoder"]["init_args"]["mechanism"]["class_path"] == "kept_elsewhere.Own"


def test_a_run_calls_no_function_of_semconv_either(tmp_path):
    part = {"class_path": "semconv.files.write_text", "init_args": {"path": str(tmp_path / "made"), "text": "x"}}
    check_classes(part, TRUSTED)
    with pytest.raises(ValueError, match=r"encoder is semconv\.files\.write_text, which is no class and is not called"):
        build_parts({"encoder": part}, tmp_path / "config.yaml", {"encoder": Callable[[Geometry, SizeName], Encoder]})
    with pytest.raises(ValueError, match=r"model is semconv\.files\.write_text, which is no class and is not called"):
        build_parts({"model": part}, tmp_path / "config.yaml", {"model": LightningModule})
    assert not (tmp_path / "made").exists()


@together(
    "part",
    [
        "os.system",
        {"class_path": "os.system"},
        '{"class_path": "os.system"}',
        "class_path: os.system",
        "parts.yaml",
        "folder/parts.JSON",
        [{"init_args": {"x": {"class_path": "subprocess.Popen"}}}],
    ],
)
def test_a_run_names_no_code_of_others_in_any_form(part):
    with pytest.raises(ValueError, match=r"the run (names|gives)"):
        check_classes({"model": {"init_args": {"masker": part}}}, TRUSTED)


@together("name", ["../../x", "/tmp/x", "", ".", "..", ".hidden", "a/b", "a\nb"])
def test_the_name_of_an_experiment_stays_inside_runs(name, tmp_path):
    with pytest.raises(ValueError, match=r"experiment is .*: give a name of letters"):
        RunFolder.new(tmp_path, name)


def damaged(folder):
    """Summaries that are none, by name, each beside a whole family of runs."""
    deep = json.dumps({"a": 1}).replace("1", "[" * 100_000 + "]" * 100_000)
    nested: dict = {}
    for _ in range(700):
        nested = {"a": nested}
    good = json.loads((folder / "told" / "0" / "summary.json").read_text())
    yield "deep", deep
    yield "binary", b"\x00\xff\xfe"
    yield "list", "[1, 2]"
    yield "empty", ""
    yield "half", json.dumps(good)[:100]
    yield "nested", json.dumps({**good, "protocol": nested})
    for key, value in (
        ("variant", {"encoder": {"class_path": 3}}),
        ("variant", {"encoder": {"class_path": "A", "init_args": [1]}}),
    ):
        yield f"{key}{value}"[:20].replace("/", "-") + str(len(str(value))), json.dumps({**good, key: value})
    yield "mechanism", json.dumps({**good, "variant": {"encoder": {"class_path": "A", "init_args": {"mechanism": [3]}}}})
    yield "conveys", json.dumps({**good, "conveys": 3})
    yield "seed", json.dumps({**good, "seed": [1]})
    yield "time", json.dumps({**good, "started": {"a": 1}, "seed": "x"})


def test_damaged_runs_are_named_and_left_out(tmp_path, capsys):
    write_family(tmp_path / "runs")
    cases = list(damaged(tmp_path / "runs"))
    for name, content in cases:
        place = tmp_path / "runs" / "damaged" / name
        place.mkdir(parents=True)
        (place / "summary.json").write_bytes(content if isinstance(content, bytes) else content.encode())
    (tmp_path / "runs" / "fifo").mkdir()
    os.mkfifo(tmp_path / "runs" / "fifo" / "summary.json")
    (tmp_path / "runs" / "link").mkdir()
    (tmp_path / "runs" / "link" / "summary.json").symlink_to("nowhere")
    out, err, code = compare(capsys, tmp_path / "runs", "--metric", "test/masked_mse")
    assert code == 0
    assert "beneficial" in out
    left = [line for line in err.splitlines() if line.startswith("left out: ")]
    assert len(left) == len(cases) + 1, err


@pytest.mark.parametrize("file", ["config.yaml", "summary.json"])
@pytest.mark.parametrize("content", [b"\x00\xff", b"[1]", b"{" * 5000, b"a: &a [*a", b""])
def test_a_damaged_file_of_a_run_is_one_line(file, content, tmp_path, capsys):
    run = tmp_path / "run"
    run.mkdir()
    (run / "config.yaml").write_text("experiment: a\nmodel: {}\ndata: {}\n")
    (run / file).write_bytes(content)
    with pytest.raises(SystemExit) as ended:
        main(["run", "--resume", str(run)])
    err = capsys.readouterr().err
    assert (ended.value.code, len(err.splitlines())) == (2, 1), err


@pytest.mark.parametrize("kind", ["a FIFO", "a folder", "a loop", "a header of an unknown method", "an encrypted header"])
def test_what_is_no_checkpoint_is_none(kind, tmp_path):
    path = tmp_path / "last.ckpt"
    if kind == "a FIFO":
        os.mkfifo(path)
    elif kind == "a folder":
        path.mkdir()
    elif kind == "a loop":
        path.symlink_to(path)
    else:
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("data.pkl", b"x" * 100)
        content = bytearray(path.read_bytes())
        place = content.index(b"PK\x01\x02")  # of the central directory
        content[place + 10 if "method" in kind else place + 8] ^= 0x63 if "method" in kind else 1
        path.write_bytes(content)
    assert newest_checkpoint(tmp_path) is None
    with pytest.raises(ValueError, match=r"does not exist|is not a complete checkpoint"):
        read_checkpoint(path)


def test_names_are_text_in_tables(tmp_path, capsys):
    for seed in range(3):
        write_run(tmp_path / f"p{seed}", "cnn_plain", 0.8, seed, mechanism="Plain")
        write_run(tmp_path / f"t{seed}", "=HYPERLINK(1)", 0.7, seed)
    _, _, code = compare(capsys, tmp_path, "--metric", "test/masked_mse", "--output", tmp_path / "out")
    assert code == 0
    assert "\n'=HYPERLINK(1)," in (tmp_path / "out" / "comparison.csv").read_text()
    cell = "<img src=x onerror=alert(1)>|[a](javascript:b)"
    assert r"| &lt;img src=x onerror=alert(1)>\|[a\](javascript:b) |" in to_markdown(Sheet("t", ["c"], [[cell]]))
