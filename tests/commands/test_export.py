import json
import shutil
from functools import cache
from typing import Any

import huggingface_hub
import pytest
import timm
import torch
import yaml
from einops import rearrange
from PIL import Image

from semconv import load_exported, load_run
from semconv.data import ImageData
from semconv.evaluation.features import everything, pool
from semconv.finetuning import FineTune
from semconv.tracking.folder import RunFolder
from semconv.trained.export import PLAIN
from tests.experiments import FOLDER
from tests.hub_server import hub

pytestmark = pytest.mark.usefixtures("quick_runs")

PIXELS = torch.randn((2, 3, 32, 32), generator=torch.Generator().manual_seed(0))


# of a run that several tests export
loaded = cache(load_run)


def told(run: Any, pixels: torch.Tensor = PIXELS, cell: int = 4) -> Any:
    """What the run's own encoder says of images of which nothing is masked."""
    task: Any = loaded(run).task
    with torch.no_grad():
        return task.encoder(everything(pixels, cell))


SIZE = "vit: {width: 40, depth: 5, heads: 5}, cnn: {widths: [16, 24, 40, 64], depths: [1, 2, 1, 1]}"
SIZE = "--model.size={%s, decoder: {width: 24, depth: 3, heads: 2}}" % SIZE  # noqa: UP031


@pytest.mark.parametrize("run", [("mae_vit",), ("simmim_vit", SIZE)], ids=["mae_vit", "simmim_vit of its own size"])
def test_timm_loads_a_vit_strictly_with_the_same_features(run, make_run, semconv, tmp_path):
    run = make_run(*run)
    code, out, _ = semconv("export", run, "--output", tmp_path / "out")
    assert code == 0
    assert "as timm's vit_tiny_patch16_224" in out
    model = timm.create_model(f"local-dir:{tmp_path / 'out'}", pretrained=True).eval()
    with torch.no_grad():
        tokens = model.forward_features(PIXELS)
    encoding = told(run)
    # the same weights, in another order of operations
    torch.testing.assert_close(tokens[:, 1:], rearrange(encoding.features, "b d h w -> b (h w) d"), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(tokens[:, :1], encoding.prefix, rtol=1e-5, atol=1e-5)
    assert (model.pretrained_cfg["mean"], model.pretrained_cfg["std"]) == tuple(map(list, moments(run)))
    assert tuple(model.pretrained_cfg["input_size"]) == (3, 32, 32)
    assert model.num_classes == 0


def moments(run):
    data = loaded(run).data
    assert isinstance(data, ImageData)
    return data.moments


def any_cnn(*options):
    words = ["class_path: semconv.encoders.TimmEncoder", "init_args: {name: %s, depth: all, %s}" % options]  # noqa: UP031
    return ["-c", "model: {init_args: {encoder: {%s}}}" % ", ".join(words)]  # noqa: UP031


MASK = "indicators: [{class_path: semconv.indicators.Mask}]"
PLACE = "indicators: [{class_path: semconv.indicators.Mask}, {class_path: semconv.indicators.Coordinates}]"


def by(mechanism):
    return "mechanism: {class_path: semconv.mechanisms.%s}" % mechanism  # noqa: UP031


EXPORTS = [
    pytest.param("test_resnet", "Channels", id="test_resnet"),
    pytest.param("resnet18", "Channels", id="resnet18", marks=pytest.mark.slow),
    pytest.param("resnet18", "FiLM", id="resnet18 FiLM", marks=pytest.mark.slow),
    pytest.param("resnet18", "Partial", id="partial resnet18", marks=pytest.mark.slow),
    pytest.param("convnext_tiny", "OverlayAdd", id="convnext_tiny", marks=pytest.mark.slow),
    pytest.param("convnextv2_nano", "MaskToken", id="convnextv2_nano", marks=pytest.mark.slow),
    pytest.param("efficientnet_b0", "AppendedValues", id="efficientnet_b0", marks=pytest.mark.slow),
    pytest.param("mobilenetv3_large_100", "Channels", id="mobilenetv3_large_100", marks=pytest.mark.slow),
    pytest.param("regnety_008", "OverlayReplace", id="regnety_008", marks=pytest.mark.slow),
    pytest.param("resnet18", "Sparse", id="sparse resnet18", marks=pytest.mark.slow),
    pytest.param("densenet121", "Channels", id="densenet121", marks=pytest.mark.slow),
    pytest.param("resnet50", "AppendedValues", id="resnet50", marks=pytest.mark.slow),
]


@pytest.mark.parametrize(("name", "mechanism"), EXPORTS)
def test_timm_loads_a_cnn_told_of_the_mask_strictly_with_the_same_features(name, mechanism, make_run, semconv, tmp_path):
    run = make_run("cnn_plain", *any_cnn(name, f"{by(mechanism)}, {MASK}"), "--model.cell=32", "--data.size=[64,64]")
    code, out, _ = semconv("export", run, "--output", tmp_path / "out")
    assert code == 0
    assert f"as timm's {name}:" in out
    model = timm.create_model(f"local-dir:{tmp_path / 'out'}", pretrained=True, global_pool="").eval()
    pixels = PIXELS.repeat(1, 1, 2, 2)
    with torch.no_grad():
        torch.testing.assert_close(model(pixels), told(run, pixels, 32).features, rtol=1e-5, atol=1e-5)


MADE = {
    "mae_vit": ("mae_vit",),
    "cnn_plain": ("cnn_plain",),
    "cnn_sparse": ("cnn_sparse",),
    "any_cnn": ("any_cnn/resnet18", f"-c={FOLDER / 'any_cnn' / 'appended.yaml'}", "--model.encoder.name=test_resnet"),
}


@pytest.mark.parametrize("name", MADE)
def test_timm_puts_other_classes_and_channels_there_by_the_documented_calls(name, make_run, semconv, tmp_path):
    run, folder = make_run(*MADE[name]), tmp_path / "out"
    code, out, _ = semconv("export", run, "--output", folder)
    assert code == 0
    assert f'timm.create_model("local-dir:{folder}", pretrained=True)' in out
    own = timm.create_model(f"local-dir:{folder}", pretrained=True, global_pool="").eval()
    other = timm.create_model(f"local-dir:{folder}", pretrained=True, num_classes=5).eval()
    grey = timm.create_model(f"local-dir:{folder}", pretrained=True, in_chans=1).eval()
    with torch.no_grad():
        expected = own.forward_features(PIXELS)
        torch.testing.assert_close(other.forward_features(PIXELS), expected)
        assert other(PIXELS).shape == (2, 5)
        assert other.get_classifier().out_features == 5
        # timm adds up the weights of the colours
        same = PIXELS[:, :1].expand(-1, 3, -1, -1)
        torch.testing.assert_close(grey.forward_features(same[:, :1]), own.forward_features(same), rtol=1e-4, atol=1e-4)


@pytest.fixture
def uploads(monkeypatch):
    """A Hub, with the account of a user."""
    with hub() as server:
        monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", server.url)
        template = server.url + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr(huggingface_hub.constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        monkeypatch.setenv("HF_TOKEN", "hf_secret")
        yield server


def test_what_is_pushed_comes_back_by_timms_own_call(uploads, make_run, semconv, tmp_path):
    run, folder = make_run("cnn_plain"), tmp_path / "out"
    folder.mkdir()
    (folder / "diary.txt").write_text("mine")
    code, out, err = semconv("export", run, "--output", folder, "--overwrite", "--push", "somebody/net")
    assert code == 0, err
    assert 'timm.create_model("hf-hub:somebody/net", pretrained=True)' in out
    files = uploads.files["somebody/net"]
    assert sorted(files) == ["README.md", "config.json", "export.json", "model.safetensors", "semantic_cnn.py"]
    assert files["README.md"].decode().startswith("---\nlibrary_name: timm\n")
    assert b"hf-hub:somebody/net" in files["README.md"]
    assert uploads.private == {"somebody/net": True}
    assert uploads.tokens == {"Bearer hf_secret"}
    model = timm.create_model("hf-hub:somebody/net", pretrained=True, num_classes=5, cache_dir=tmp_path / "cache").eval()
    with torch.no_grad():
        torch.testing.assert_close(model.forward_features(PIXELS), told(run).features, rtol=1e-5, atol=1e-5)


def test_a_wrapper_that_is_pushed_comes_back_by_the_lines_that_are_printed(uploads, make_run, semconv, tmp_path, monkeypatch):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    run = make_run("cnn_channels")
    code, out, err = semconv("export", run, "--output", tmp_path / "out", "--push", "somebody/map")
    assert code == 0, err
    usage = [line.strip() for line in out.splitlines() if line.startswith("  ")]
    assert all(line in uploads.files["somebody/map"]["README.md"].decode() for line in usage)
    found: dict = {}
    exec("\n".join(usage), found)
    with torch.no_grad():
        assert torch.equal(found["model"](PIXELS), told(run).features)


@pytest.mark.parametrize(
    ("endpoint", "offline"), [("http://127.0.0.1:9", False), ("http://127.0.0.1:9", True)], ids=["silent", "off"]
)
def test_a_hub_that_cannot_be_reached_is_told_in_one_line(endpoint, offline, make_run, semconv, tmp_path, monkeypatch):
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", endpoint)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", offline)
    code, _, err = semconv("export", make_run("cnn_plain"), "--output", tmp_path / "out", "--push", "somebody/net")
    assert code == 2
    assert err.count("\n") == 1
    assert f"{tmp_path / 'out'} is written, but could not be uploaded to somebody/net: " in err


def test_a_name_that_the_hub_cannot_have_is_refused(make_run, semconv, tmp_path):
    code, _, err = semconv("export", make_run("cnn_plain"), "--output", tmp_path / "out", "--push", "a/b/c")
    assert code == 2
    assert err.count("\n") == 1


def test_a_cnn_of_timm_told_of_places_is_a_wrapper(make_run, semconv, tmp_path):
    torch.save(timm.create_model("test_resnet").state_dict(), file := tmp_path / "given.pth")
    options = any_cnn("test_resnet", f"output_stride: 8, checkpoint_path: {file}, {by('Channels')}, {PLACE}")
    run = make_run("cnn_plain", *options)
    file.unlink()  # a run and its export hold all weights, but for those that it started from
    with pytest.raises(ValueError, match=f"there is no file of weights {file}: correct checkpoint_path, or leave it out"):
        FineTune(str(run), scratch=True)
    code, out, _ = semconv("export", run, "--output", tmp_path / "out")
    assert code == 0
    assert "not for timm: its test_resnet is conditioned on Coordinates by Channels" in out
    with torch.no_grad():
        torch.testing.assert_close(load_exported(tmp_path / "out")(PIXELS), told(run).features, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("options", [[], ["--model.control=semconv.controls.Constant", SIZE]], ids=["told", "control"])
def test_a_wrapper_stands_alone_with_the_same_features(options, make_run, semconv, tmp_path):
    run = make_run("cnn_overlay_add", *options)
    code, out, _ = semconv("export", run, "--output", tmp_path / "out")
    assert code == 0
    assert f"not for timm: its SemanticCNN {'has a control' if options else 'is conditioned on Coordinates by OverlayAdd'}" in out
    shutil.move(tmp_path / "out", tmp_path / "elsewhere")
    model = load_exported(tmp_path / "elsewhere")
    encoding = told(run)
    with torch.no_grad():
        torch.testing.assert_close(model(PIXELS), encoding.features, rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(model(PIXELS, pooled=True), pool(encoding), rtol=1e-5, atol=1e-5)
    assert (model.mean, model.std) == moments(run)
    with pytest.raises(ValueError, match="multiples of 4"):
        model(PIXELS[:, :, :30])
    readme = (tmp_path / "elsewhere" / "README.md").read_text()
    assert "b 64 8 8" in readme
    assert "It is no model of timm's: its SemanticCNN" in readme


def test_an_export_goes_into_its_folder_alone_and_over_itself_alone(make_run, semconv, tmp_path):
    first, second = make_run("mae_vit"), make_run("cnn_overlay_add")
    before = {path: path.stat().st_mtime_ns for path in first.rglob("*")}
    for _ in range(2):  # again over its own
        assert semconv("export", first, "--output", tmp_path / "out")[0] == 0
    assert {path: path.stat().st_mtime_ns for path in first.rglob("*")} == before
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    code, _, err = semconv("export", second, "--output", tmp_path / "out")
    assert code == 2
    assert f"{tmp_path / 'out'} is not empty and holds no export of {second.name}" in err
    assert semconv("export", second, "--output", tmp_path / "out", "--overwrite")[0] == 0
    assert not (tmp_path / "out" / "config.json").exists()  # the first one's
    assert json.loads((tmp_path / "out" / "export.json").read_text())["run"] == second.name


def content(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_an_export_destroys_no_run(make_run, semconv, tmp_path):
    made = make_run("mae_vit")
    run = shutil.copytree(made, tmp_path / "run")
    (tmp_path / "link").symlink_to(run)
    (tmp_path / "tested").mkdir()
    (tmp_path / "tested" / "summary.json").write_text("{}")
    (tmp_path / "started" / "checkpoints").mkdir(parents=True)
    before = content(tmp_path)
    for source, output in ((run, "run"), (run, "link"), (made, "run"), (made, "tested"), (made, "started")):
        for options in ([], ["--overwrite"]):
            code, _, err = semconv("export", source, "--output", tmp_path / output, *options)
            assert (code, err.count("\n")) == (2, 1)
            assert "is the folder of a run, which an export would destroy: give another folder\n" in err
    assert content(tmp_path) == before


def test_what_no_export_wrote_stays_on_this_machine(uploads, make_run, semconv, tmp_path):
    folder = tmp_path / "out"
    folder.mkdir()
    (folder / "config.yaml").write_text("mine")
    (folder / "export.json").write_bytes(b"\xff")
    run = make_run("mae_vit")
    code, _, err = semconv("export", run, "--output", folder)
    assert code == 2
    assert "holds no export of" in err
    (folder / "export.json").unlink()
    assert semconv("export", run, "--output", folder, "--overwrite", "--push", "somebody/net")[0] == 0
    assert (folder / "config.yaml").read_text() == "mine"
    assert "config.yaml" not in uploads.files["somebody/net"]


def test_data_that_do_not_say_their_moments_are_told_and_an_earlier_export_stays(make_run, semconv, tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "own_data.py").write_text(
        "from lightning.pytorch import LightningDataModule\nclass Data(LightningDataModule): pass\n"
    )
    run = shutil.copytree(make_run("mae_vit"), tmp_path / "run")
    images = tmp_path / "images"
    images.mkdir()
    Image.new("RGB", (40, 40)).save(images / "a.png")
    assert semconv("export", run, "--output", tmp_path / "out")[0] == 0
    before = content(tmp_path / "out")
    config = RunFolder(run).config | {"data": {"class_path": "own_data.Data"}}
    (run / "config.yaml").write_text(yaml.safe_dump(config))
    for words in (
        ["export", run, "--output", tmp_path / "out"],
        ["predict", run, "--images", images, "--output", tmp_path / "seen"],
    ):
        code, _, err = semconv(*words, "--trust", "own_data")
        assert (code, err.count("\n")) == (2, 1), err
        assert "its data, Data, have no moments: give Data a property of mean and deviation" in err
    assert content(tmp_path / "out") == before


def cut_off(run, folder):
    """A copy whose checkpoint was half-written."""
    shutil.copytree(run, folder)
    checkpoint = folder / "checkpoints" / "last.ckpt"
    checkpoint.write_bytes(checkpoint.read_bytes()[:1000])
    return folder


def test_what_cannot_be_exported_is_told_in_one_line(make_run, semconv, tmp_path):
    run = make_run("mae_vit")
    untrained = tmp_path / "untrained"
    shutil.copytree(run, untrained, ignore=shutil.ignore_patterns("checkpoints"))
    (tmp_path / "file").write_text("")
    (tmp_path / "empty").mkdir()
    for source, output, expected in [
        (tmp_path / "empty", "out", "has ended with a test: give the folder of a run"),
        (untrained, "out", "has no whole checkpoint"),
        (cut_off(run, tmp_path / "cut"), "out", "has no whole checkpoint"),
        (run, "file", "is a file: give a folder"),
    ]:
        code, _, err = semconv("export", source, "--output", tmp_path / output)
        assert code == 2
        assert err.startswith("semconv: error:")
        assert expected in err
        assert err.count("\n") == 1
        assert not (tmp_path / "out").exists()


def test_what_is_no_wrapper_is_refused_with_a_remedy(make_run, semconv, tmp_path):
    with pytest.raises(ValueError, match="give the folder that semconv export wrote"):
        load_exported(tmp_path)
    semconv("export", make_run("mae_vit"), "--output", tmp_path / "vit")
    with pytest.raises(ValueError, match=r"timm.create_model\(\"local-dir:"):
        load_exported(tmp_path / "vit")
    semconv("export", make_run("cnn_overlay_add"), "--output", tmp_path / "cnn")
    config = tmp_path / "cnn" / "config.yaml"
    config.write_text(config.read_text().replace("semconv.mechanisms.OverlayAdd", "subprocess.Popen"))
    with pytest.raises(ValueError, match=r"names subprocess.Popen"):
        load_exported(tmp_path / "cnn")


def test_a_wrapper_whose_configuration_is_damaged_is_to_be_exported_again(make_run, semconv, tmp_path):
    semconv("export", make_run("cnn_overlay_add"), "--output", tmp_path)
    file = tmp_path / "config.yaml"
    good = yaml.safe_load(file.read_text())
    damaged = [b"", b"[1]", b"a: [", b"\xff", *(yaml.safe_dump({**good, key: "x"}).encode() for key in PLAIN)]
    damaged += [yaml.safe_dump({other: good[other] for other in good if other != key}).encode() for key in PLAIN]
    damaged += [yaml.safe_dump({**good, "cell": 0}).encode()]
    for text in damaged:
        file.write_bytes(text)
        with pytest.raises(ValueError, match=r"config\.yaml is damaged: export the run again \(") as caught:
            load_exported(tmp_path)
        assert "\n" not in str(caught.value)
    for key in ("encoder", "control", "size"):
        for change in ({key: 5}, {key: [1]}, {key: {"class_path": 3}}):
            file.write_text(yaml.safe_dump({**good, **change}))
            with pytest.raises(ValueError, match=r"cannot be built|the run names"):
                load_exported(tmp_path)
        file.write_text(yaml.safe_dump({other: good[other] for other in good if other != key}))
        with pytest.raises(ValueError, match=f"cannot be built: .*{key}"):
            load_exported(tmp_path)
