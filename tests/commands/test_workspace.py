"""The W&B dashboard: what it is made of, that runs log what it shows, and that it arrives."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest

from semconv.commands import workspace as dashboard
from semconv.commands.train import main as train
from semconv.commands.workspace import main
from semconv.comparison.report import strips
from semconv.metrics import find
from semconv.tracking.folder import RunFolder
from tests.comparison.test_command import write_family
from tests.experiments import arguments
from tests.processes import Forked
from tests.tracking.test_wandb_record import KEY, SMALL, inspect
from tests.wandb_server import ANSWERS, serve

pytest.importorskip("wandb_workspaces", reason="needs pip install wandb-workspaces")
pytestmark = [
    pytest.mark.filterwarnings("ignore:Pydantic V1 style:DeprecationWarning"),  # of wandb-workspaces' own code
    pytest.mark.filterwarnings("ignore::ResourceWarning"),  # of W&B's
]

CURVE = ("xAxis", "metrics", "groupBy", "groupAgg", "groupArea")
KEYS = {
    "Run History Line Plot": CURVE,
    "Bar Chart": ("metrics", "groupBy", "groupAgg", "groupArea"),
    "Scatter Plot": ("xAxis", "yAxis", "xAxisLogScale"),
    "Parallel Coordinates Plot": ("columns",),
    "Parameter Importance": ("targetKey",),
    "Media Browser": ("mediaKeys",),
    "Weave": ("panel2Config",),
    "Run Comparer": ("diffOnly",),
}


def dry_run(capsys, *more):
    main(["--entity", "somebody", "--project", "vision", "--dry-run", *map(str, more)])
    return json.loads(capsys.readouterr().out)


def sections(made):
    return made["workspace"]["spec"]["section"]["panelBankConfig"]["sections"]


def test_the_workspace_has_its_structure(capsys):
    made = dry_run(capsys)
    assert list(made) == ["workspace"]
    assert {key: made["workspace"][key] for key in ("entity", "project", "displayName")} == {
        "entity": "somebody",
        "project": "vision",
        "displayName": "semconv",
    }
    found = {part["name"]: [(panel["viewType"], panel["config"]) for panel in part["panels"]] for part in sections(made)}
    by_variant = {"groupBy": "variant.value", "groupAgg": "mean"}
    curves = ("val/masked_mse", "train/loss", "train/gradient_norm", "train/learning_rate")
    assert found["Curves by variant"] == [
        (
            "Run History Line Plot",
            {"chartTitle": key, "xAxis": "samples_seen", "metrics": [key], "groupArea": "minmax", "aggregate": True, **by_variant},
        )
        for key in curves
    ]
    (kind, _), *bars = found["Endpoints"]
    assert kind == "Weave"
    assert [config["metrics"] for _, config in bars[:2]] == [
        ["test/masked_mse", "test/mean_fill_mse"],
        ["probe/linear_top1", "untrained/probe/linear_top1", "pixels/linear_top1"],
    ]
    assert all(by_variant.items() <= config.items() for _, config in bars)
    assert len(found["Quality against cost"]) == 8
    assert [kind for kind, _ in found["Factors"]] == ["Parallel Coordinates Plot", "Parameter Importance"]
    assert [config["gridSettings"] for _, config in found["Pictures"]] == [{"xAxis": "run", "yAxis": "index"}] * 2
    assert [kind for kind, _ in found["Runs side by side"]] == ["Run Comparer"]
    (runs,) = made["workspace"]["spec"]["section"]["runSets"]
    assert runs["grouping"] == [{"section": "config", "name": "variant.value"}]
    assert list(runs["runFeed"]["columnPinned"]) == ["run:displayName", "summary:test/masked_mse", "summary:probe/linear_top1"]


@pytest.fixture(scope="module")
def real_run(tmp_path_factory, quick_probes):
    """A run of semconv, recorded by W&B offline, with everything that may be asked for."""
    folder = tmp_path_factory.mktemp("run")
    with pytest.MonkeyPatch.context() as patch:
        for name in ("WANDB_DATA_DIR", "WANDB_CACHE_DIR", "XDG_CACHE_HOME"):  # artifacts are kept there
            patch.setenv(name, str(folder / name.lower()))
        options = (
            "--wandb.mode=offline",
            "--wandb.per_image_errors=true",
            "--wandb.checkpoint_artifact=true",
            "--trainer.accelerator=cpu",
        )
        more = (
            "--data.num_images=72",
            "--data.batch_size=8",
            "--model.size=micro",
            "--evaluation=full",
            "--evaluation_images=40",
            "--trainer.enable_progress_bar=false",
        )
        train(["run", *arguments("cnn_channels", *SMALL, *options, *more, f"--runs={folder / 'runs'}")])
    (run,) = (folder / "runs").glob("*/*")
    return RunFolder(run)


@pytest.fixture(scope="module")
def recorded(real_run):
    """Its configuration and summary as W&B has them, and its folder there."""
    return inspect(real_run)


def test_what_panels_show_is_what_runs_log(recorded, real_run, capsys):
    found, run = recorded
    history = {key for row in real_run.rows() for key in row}
    summary = {key for key, value in found["summary"].items() if isinstance(value, int | float)}
    media = {f"{path.parent.name}/{path.name.partition('_')[0]}" for path in run.glob("files/media/images/panels/*.png")}
    for part in sections(dry_run(capsys)):
        for panel in part["panels"]:
            config = panel["config"]
            match panel["viewType"]:
                case "Run History Line Plot":
                    assert {config["xAxis"], *config["metrics"]} <= history
                case "Bar Chart":
                    assert set(config["metrics"]) <= summary
                case "Scatter Plot":
                    assert {config["xAxis"].removeprefix("summary:"), config["yAxis"].removeprefix("summary:")} <= summary
                case "Parallel Coordinates Plot":
                    for column in config["columns"]:
                        where, _, key = column["accessor"].partition(":")
                        assert key.removesuffix(".value") in (found["config"] if where == "config" else summary)
                case "Parameter Importance":
                    assert config["targetKey"] in summary
                case "Media Browser":
                    assert set(config["mediaKeys"]) <= media
                case "Weave":
                    assert [path.name.partition("_")[0] for path in run.glob("files/media/table/*.json")] == ["endpoints"]
                    assert '"endpoints"' in json.dumps(config)
            if "groupBy" in config:
                assert config["groupBy"].removesuffix(".value") in found["config"]


def test_each_run_has_a_row_of_its_endpoints(recorded, real_run):
    _, run = recorded
    (path,) = run.glob("files/media/table/endpoints_*.json")
    table = json.loads(path.read_text())
    (row,) = table["data"]
    found = dict(zip(table["columns"], row, strict=True))
    assert (found["variant"], found["run"], found["seed"]) == ("cnn_channels", real_run.path.name, 0)
    for key in ("test/masked_mse", "probe/linear_top1", "cost/flops"):
        assert found[key] == pytest.approx(real_run.summary[key])


def test_each_test_image_has_its_error_the_largest_first(recorded, real_run):
    _, run = recorded
    (path,) = run.glob("files/media/table/errors/*.json")
    table = json.loads(path.read_text())
    assert table["columns"] == ["number", "label", "masked_mse"]
    numbers, _, errors = zip(*table["data"], strict=True)
    assert sorted(numbers) == list(range(9))
    assert list(errors) == sorted(errors, reverse=True)
    assert sum(errors) / 9 == pytest.approx(real_run.summary["test/masked_mse"], rel=1e-5)


def test_a_run_saves_the_pictures_that_a_report_shows(real_run):
    pictures = strips.read(real_run.media / "test")
    assert pictures is not None
    assert list(pictures) == ["original", "seen", "pasted"]
    assert {image.size for images in pictures.values() for image in images.values()} == {(32, 32)}
    # visible pixels stay as they were
    number = next(iter(pictures["seen"]))
    seen, pasted = (np.asarray(pictures[kind][number]).reshape(-1, 3) for kind in ("seen", "pasted"))
    assert 0.2 < (seen == pasted).all(1).mean() < 0.5


def test_every_number_that_a_run_records_is_in_the_table_of_metrics(real_run):
    summary = real_run.summary
    recorded = {key for row in (summary, *real_run.rows()) for key, value in row.items() if isinstance(value, int | float)}
    recorded |= {key.removesuffix("/reason") for key in summary if key.endswith("/reason")}
    assert {"full/rankme", "importance/Mask/zeroed", "test/psnr", "cost/flops"} <= recorded
    assert {key for key in recorded if find(key) is None} == {"seed", "step", "epoch", "time"}


def test_the_checkpoint_is_an_artifact(recorded, real_run):
    _, run = recorded
    kept = next(run.glob("run-*.wandb")).read_bytes()
    assert f"checkpoint-{real_run.path.name}".encode() in kept
    (copy,) = [
        path for path in real_run.path.parents[2].glob("wandb_data_dir/**/*") if path.is_file() and path.stat().st_size > 10_000
    ]
    assert copy.read_bytes() == (real_run.checkpoints / "last.ckpt").read_bytes()


def test_a_report_has_the_comparisons_text_and_tables(tmp_path, capsys):
    write_family(tmp_path)
    made = dry_run(capsys, "--report", tmp_path)["report"]
    assert made["displayName"] == "semconv: 5 variants, 25 runs"
    blocks = made["spec"]["blocks"]
    written = json.dumps(blocks)
    assert "beneficial for reconstruction under zero fill: told" in written
    tables = [block["content"] for block in blocks if block["type"] == "markdown-block"]
    assert any("| told | 5 | beneficial for reconstruction" in table for table in tables)
    (grid,) = [block for block in blocks if block["type"] == "panel-grid"]
    assert len(grid["metadata"]["panelBankSectionConfig"]["panels"]) == sum(map(len, dashboard.make_panels().values()))


def account(server):
    """The environment variables of somebody who has one."""
    own = {key: value for key, value in os.environ.items() if not key.startswith("WANDB_")}
    return {**own, "WANDB_API_KEY": KEY, "WANDB_BASE_URL": server.url}


def test_both_arrive_at_the_server(tmp_path):
    write_family(tmp_path)
    words = ["semconv", "workspace", "--entity", "somebody", "--name", "mine", "--report", str(tmp_path)]
    code = f"import sys; sys.argv = {words}; from semconv.__main__ import main; main(); assert 'torch' not in sys.modules"
    with serve() as server:
        done = subprocess.run(
            [sys.executable, "-c", code],
            env=account(server),
            capture_output=True,
            text=True,
            timeout=120,
            stdin=subprocess.DEVNULL,
        )
        assert done.returncode == 0, done.stderr
        sent = [json.loads(body)["variables"] for path, body in server.requests if path == "/graphql" and b"upsertView(" in body]
    assert [line.partition(": ")[0] for line in done.stdout.splitlines()] == ["workspace saved", "report saved"]
    assert f"{server.url}/somebody/semconv" in done.stdout
    workspace, report = sent
    assert (workspace["entityName"], workspace["projectName"], workspace["displayName"]) == ("somebody", "semconv", "mine")
    assert json.loads(workspace["spec"])["section"]["panelBankConfig"]["sections"][0]["name"] == "Curves by variant"
    assert report["displayName"].startswith("semconv: ")
    assert "beneficial for reconstruction" in report["spec"]


def test_a_server_that_does_not_take_it_is_one_line(tmp_path, monkeypatch):
    monkeypatch.delitem(ANSWERS, "UpsertView2")
    with serve() as server:
        done = Forked(["workspace", "--entity", "somebody"], tmp_path, account(server)).wait()
    assert done.returncode == 2
    assert "does not take it" in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr


def refused(capsys, *arguments):
    with pytest.raises(SystemExit) as stop:
        main(list(arguments))
    assert stop.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    return line


def test_without_account_or_package_the_remedy_is_one_line(capsys, monkeypatch):
    assert "wandb login" in refused(capsys, "--entity", "somebody")
    monkeypatch.setitem(sys.modules, "wandb_workspaces", None)
    assert "pip install wandb-workspaces" in refused(capsys, "--entity", "somebody", "--dry-run")
