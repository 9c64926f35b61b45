import csv
import json
import shutil
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml

from semconv.commands import compare as compare_command
from semconv.commands import study as study_command
from semconv.comparison.best import best_run
from semconv.comparison.declared import declared_by
from semconv.comparison.recorded import load, load_rows, row_of, save
from semconv.comparison.run import FinishedRun
from semconv.comparison.runs import find_runs
from semconv.metrics import NUM_TEST_IMAGES
from semconv.shipped import HOME
from semconv.study.arms import Arm, Point
from semconv.study.file import read_study
from semconv.study.plan import seconds_of
from semconv.study.results import keep_recorded, save_runs
from semconv.study.rounds import Rounds, Unfinished, check_folder
from semconv.study.stages import measure
from semconv.sweeping.processes import Here
from tests.comparison.test_command import write_run
from tests.study.conftest import GAIN, train
from tests.study.test_stages import whole, words

pytestmark = pytest.mark.usefixtures("quick_runs")
MEASURING = ["measure", "measure-controls"]


def compared(capsys, *arguments):
    """The comparison that the command writes as JSON, and its output."""
    compare_command.main([str(argument) for argument in arguments])
    return capsys.readouterr().out


def test_a_table_of_runs_gives_the_comparison_of_their_folders(write_study, conduct, tmp_path, capsys):
    path = write_study(
        settings={"zero": ["ZeroFill.yaml"], "camouflage": ["CamouflageFill.yaml"]}, screen={"seeds": [200, 201], "keep": 2}
    )
    rounds, log = conduct(path)
    _, tuned, _, _ = whole(rounds)
    table = rounds.folder / "results.csv"
    save_runs(rounds, table)
    rows = list(csv.DictReader(table.read_text().splitlines()))
    assert len(rows) == log.runs - sum(len(rounds.finished(name)) for name in MEASURING)
    assert {row["stage"] for row in rows} == {"tune", "screen", "confirm"}
    assert {row["setting"] for row in rows} == {"zero", "camouflage"}
    chosen = {(arm.setting, arm.variant): each.value for arm, each in tuned.items() if not arm.control}
    for row in rows:
        if row["stage"] == "confirm" and row["control"] in ("", "zero", "shuffled"):
            assert float(row["value"]) == chosen[row["setting"], row["variant"]]
    folders = [place for place in rounds.folder.glob("confirm-*") if place.is_dir()]
    compared(capsys, *folders, "--metric", "test/masked_mse", "--output", tmp_path / "a")
    compared(capsys, table, "--metric", "test/masked_mse", "--output", tmp_path / "b")
    one, other = (json.loads((tmp_path / name / "comparison.json").read_text()) for name in "ab")
    for found in (one, other):
        for variant in found["variants"]:
            del variant["runs"]
    by_name = sorted(one["variants"], key=str), sorted(other["variants"], key=str)
    assert by_name[0] == by_name[1]
    assert sorted(one["family"]) == sorted(other["family"])
    for key in ("protocol", "factors", "endpoints"):
        assert one[key] == other[key]
    assert sorted(one["verdicts"], key=str) == sorted(other["verdicts"], key=str)
    assert len(find_runs([f"{table}:screen"]).runs) == sum(row["stage"] == "screen" for row in rows)
    tuning = compared(capsys, f"{table}:tune", "--metric", "val/masked_mse")
    assert "factor model.base_lr: " in tuning
    assert "cnn_good" in tuning


def test_a_table_that_is_none_is_refused_in_a_line(write_study, conduct, tmp_path, capsys):
    rounds, _ = conduct(write_study())
    whole(rounds)
    table = rounds.folder / "results.csv"
    save_runs(rounds, table)
    for place, message in (
        (f"{table}:screen", "has no runs of screen: give "),
        (tmp_path / "none.csv", "there is no"),
    ):
        with pytest.raises(SystemExit) as end:
            compare_command.main([str(place)])
        error = capsys.readouterr().err
        assert (end.value.code, len(error.splitlines())) == (2, 1)
        assert message in error
    header, *rows = table.read_text().splitlines()
    table.write_text("\n".join([f"{header},test/masked_mse", *(f"{row},0.1" for row in rows)]))
    with pytest.raises(ValueError, match="two columns test/masked_mse: take one out"):
        load(table)
    table.write_text("\n".join([header, *rows]))
    shared = yaml.safe_load(table.with_suffix(".yaml").read_text())
    table.with_suffix(".yaml").write_text(yaml.safe_dump({**shared, "environments": [None] * len(shared["environments"])}))
    with pytest.raises(ValueError, match=r"line \d+: it does not fit"):
        load(table)
    table.with_suffix(".yaml").write_text("{}")
    with pytest.raises(ValueError, match="are no table of runs"):
        load(table)


@pytest.fixture
def finished(write_study, conduct):
    """A study that has ended, its table, and the number of runs that it took."""
    settings = {"zero": ["ZeroFill.yaml"], "camouflage": ["CamouflageFill.yaml"]}
    tune = {"key": "model.init_args.base_lr", "values": [0.004, 0.008, 0.016, 0.064], "seeds": [101], "halving": 2}
    content = {"settings": settings, "screen": {"seeds": [200, 201], "keep": 2}, "tune": tune}
    rounds, log = conduct(write_study(**content), "first")
    results = whole(rounds)
    table = rounds.folder / "results.csv"
    save_runs(rounds, table)
    return content, results, table, log.runs


def test_a_study_goes_on_from_its_table_alone(finished, write_study, conduct):
    content, expected, table, num_runs = finished
    path, rows = write_study(**content), load_rows(table)
    again, log = conduct(path, "again", recorded=rows)
    found = whole(again)
    assert log.sweeps == MEASURING
    assert (found[1], found[2], words(found[3])) == (expected[1], expected[2], words(expected[3]))
    assert save_runs(again, again.folder / "results.csv", is_over=True) == 0
    for suffix in (".csv", ".yaml"):
        assert (again.folder / f"results{suffix}").read_text() == table.with_suffix(suffix).read_text()
    for number in (5, len(rows) - 30):  # in the search, in the confirmation
        part, log = conduct(path, f"part-{number}", recorded=rows[:number])
        assert words(whole(part)[3]) == words(expected[3])
        assert log.runs == num_runs - number
        save_runs(part, part.folder / "results.csv")
        assert len(load_rows(part.folder / "results.csv")) == len(rows)


def test_rows_that_no_round_asks_for_are_left_out_at_the_end(finished, write_study, conduct):
    content, _, table, _ = finished
    rows = load_rows(table)
    fewer = {**content, "screen": {"seeds": [200, 201], "keep": 1}}
    rounds, _ = conduct(write_study(**fewer), "fewer", recorded=rows)
    comparison = whole(rounds)[3]
    assert save_runs(rounds, rounds.folder / "results.csv") == 0
    left_out = save_runs(rounds, rounds.folder / "results.csv", is_over=True)
    kept = load_rows(rounds.folder / "results.csv")
    assert len(kept) == len(rows) - left_out < len(rows)
    assert sum(row["stage"] == "confirm" for row, _ in kept) == sum(len(variant.runs) for variant in comparison.groups.variants)


def test_an_extra_control_may_be_a_network_of_its_own(write_study, conduct):
    Path("gradual_learned.yaml").write_text("control: gradual_learned")
    kinds = ("zero", "shuffled", "plain_wide", "gradual_learned")
    extra = {"extra_controls": {"cnn_good": ["gradual_learned"]}, "controls": {kind: f"{kind}.yaml" for kind in kinds}}
    rounds, _ = conduct(write_study(**extra))
    expected = whole(rounds)
    save_runs(rounds, rounds.folder / "results.csv")
    rows = [
        (row, _with_depth(run, 9) if row["control"] == "gradual_learned" else run)
        for row, run in load_rows(rounds.folder / "results.csv")
    ]
    again, log = conduct(write_study(**extra), "again", recorded=rows)
    assert words(whole(again)[3]) == words(expected[3])
    assert log.sweeps == MEASURING


def _with_depth(run: FinishedRun, depth: int) -> FinishedRun:
    """A run of another network."""
    variant = run.summary["variant"]
    changed = {**variant, "encoder": {**variant["encoder"], "depth": depth}}
    return replace(run, summary={**run.summary, "variant": changed})


def test_rows_that_the_study_would_not_give_are_refused(write_study, conduct, tmp_path):
    rounds, _ = conduct(write_study())
    whole(rounds)
    save_runs(rounds, rounds.folder / "results.csv")
    rows = load_rows(rounds.folder / "results.csv")
    (tmp_path / "told.yaml").write_text("model: {init_args: {decoder: {init_args: {told: true}}}}")
    family = {name: [f"{name}.yaml"] for name in ("cnn_good", "cnn_same", "cnn_bad")}
    confirm = {"looks": [4, 8], "spending": "pocock", "first_seed": 2}
    control = next(number for number, (row, _) in enumerate(rows) if row["control"] == "zero")
    unknown_control = {**rows[control][1].summary, "control": "fixed"}
    protocol = rows[0][1].summary["protocol"]
    cropped = {**rows[0][1].summary, "protocol": {**protocol, "data": {**protocol["data"], "crop_scale": [0.2, 1.0]}}}
    wrong: tuple[tuple[dict[str, Any], list[Any], str], ...] = (
        ({"options": {"trainer.max_steps": 90}}, rows, "csv:2 and the study .* differ in trainer.max_steps: 60 there, 90 now"),
        ({"family": {"cnn_good": family["cnn_good"]}}, rows, "is no run of the study"),
        ({"family": {**family, "cnn_bad": ["cnn_bad.yaml", "told.yaml"]}}, rows, "differ in variant"),
        ({"confirm": confirm}, rows, "has seed 0, which is none of the study's confirm"),
        ({}, [(rows[control][0], _with_depth(rows[control][1], 9))], "differ in variant"),
        ({}, [(rows[control][0], replace(rows[control][1], summary=unknown_control))], "is a control that cnn_.* does not have"),
        ({}, [(rows[0][0], replace(rows[0][1], summary=cropped))], r"differ in data.crop_scale: '\[0.2, 1.0\]' there, None now"),
    )
    for number, (changes, given, message) in enumerate(wrong):
        changed, log = conduct(write_study(**changes), f"changed-{number}", recorded=given)
        with pytest.raises(ValueError, match=message):
            whole(changed)
        assert log.sweeps == ["measure"]


@pytest.fixture
def study(monkeypatch, capsys):
    """The command over runs that only seem to train: its output, its errors and its exit code."""

    def run_trials(sweep, place, jobs, failures, done):
        place.mkdir(parents=True, exist_ok=True)
        (place / "sweep.yaml").write_text(json.dumps(dict(sweep.content)))
        for point in sweep.grid:
            if not any(part.items() <= point.items() for part in done):
                train(point, place)
        return 0, True

    monkeypatch.setattr(study_command, "run_trials", run_trials)

    def run(*arguments):
        with pytest.raises(SystemExit) as end:
            study_command.main([str(argument) for argument in arguments])
        output = capsys.readouterr()
        return output.out, output.err, end.value.code

    return run


def test_the_command_plans_runs_and_reports(write_study, study, tmp_path, monkeypatch):
    path, folder = write_study(screen={"seeds": [200, 201, 202], "keep": 2}), tmp_path / "runs" / "studies" / "a_study"
    out, _, code = study(path, "--plan", "--jobs", "2")
    assert code == 0
    plan, networks = out.split("Networks of each stage")
    rows = {words[0]: words[1:] for line in plan.splitlines() if (words := line.split())}
    # 12 steps of 64 images have taken 3 s, and each of the other 48 takes a second: 51 s a run
    assert rows["tune"] == ["4", "24", "to", "48", "0.17", "to", "0.34"]  # 3 to 6 values, 2 seeds
    summary: dict[str, Any] = {"trainer/num_training_batches": 10, "trainer/seconds": 3.0, "cost/train_images_per_second": 64.0}
    summary["protocol"] = {"data": {"batch_size": 64}, "trainer": {"accumulate_grad_batches": 4}}
    measured: Any = SimpleNamespace(runs={Arm("", "cnn_good"): SimpleNamespace(summary=summary)})
    # three steps an epoch, of 4, 4 and 2 batches: 200 batches, of which 40 have taken 3 s
    assert seconds_of(read_study(path), measured, Arm("", "cnn_good")) == 3 + 160
    assert rows["tune,"][2:6] == ["1", "0", "to", "12"]  # "tune, equal FLOPs": one candidate takes more than plain, if it is kept
    assert "tune, equal FLOPs  cnn_good-plain_wide" in networks
    assert rows["screen"][:2] == ["4", "12"]
    assert rows["confirm"][:4] == ["8", "32", "to", "64"]  # plain, the dearest candidate with three others, another with two
    confirmed = networks[networks.index("confirm") : networks.index("Simulated")].split("\n")
    named = [line.removeprefix("confirm").strip() for line in confirmed]
    assert named[:3] == ["cnn_plain", "cnn_good and its shuffled, zero, plain_wide", "cnn_bad and its shuffled, zero"]
    assert "Simulated confirmation: family of 2, looks at 4, 8 seeds (pocock)" in out
    (errors,) = [line.split() for line in out.splitlines() if line.startswith("error: no candidate differs")]
    assert float(errors[-1]) > 7.8  # nobody is found equivalent and stops at the first look
    assert sorted(place.name for place in folder.glob("*/") if (place / "sweep.yaml").exists()) == MEASURING
    check_folder(read_study(path), folder, resume=False)  # a plan is no beginning
    out, _, code = study(path, "--prepare")
    first = "runs/studies/a_study/tune-1/sweep.yaml"
    assert (code, f"24 runs to do: wandb sweep {first}, or semconv sweep {first} --resume" in out) == (0, True)
    out, _, code = study(path, "--resume")
    assert code == 0
    assert out.splitlines()[-1] == "runs/studies/a_study/report/comparison.html"
    page = (folder / "report" / "comparison.html").read_text()
    assert "Tuning" in page
    assert "Chosen values: mean val/masked_mse by value, n = 2" in page
    assert "Screening on val/masked_mse" in page
    text = (folder / "report" / "comparison.md").read_text()
    assert "beneficial for reconstruction under zero fill" in text
    assert "| cnn_bad | 3 |" in text
    assert (folder / "results.csv").exists()
    _, err, code = study(path)
    assert (code, "continue it by --resume" in err) == (2, True)
    assert study(path, "--resume")[2] == 0
    (environment := next((folder / "confirm-4").glob("*/*")) / "environment.json").write_text('{"sessions": [{"code": "other"}]}')
    assert "the code has changed since runs of confirm-4 were trained: delete " in study(path, "--resume")[1]
    environment.unlink()
    row = ("--table", folder / "results.csv", "--only", "cnn_good-zero", "--seed", "3")
    out, _, code = study(path, *row)
    assert (code, out.startswith("the same to the last bit as the row of")) == (0, True)
    monkeypatch.setitem(GAIN, "cnn_bad", 0.1)
    out, _, code = study(path, *row[:3], "cnn_bad", "--seed", "200")
    assert (code, out.startswith("5 numbers differ"), "the first is val/masked_mse: " in out) == (1, True, True)
    for option in ("--plan", "--prepare", "--resume"):
        _, err, code = study(path, *row, option)
        assert (code, f"{option} is of a whole study, and --only runs one row" in err) == (2, True)
    assert study(path, *row, "--output", tmp_path / "again")[2] == 0
    _, err, code = study(path, *row, "--output", tmp_path / "again")
    assert (code, "again holds a row that was run again before" in err) == (2, True)
    wrong = {("cnn_god", "3"): "did you mean cnn_good?", ("cnn_good", "55"): "has no seed 55", ("cnn_good", "100"): "of the search"}
    for (name, seed), message in wrong.items():
        _, err, code = study(path, *row[:3], name, "--seed", seed)
        assert (code, message in err) == (2, True)
    write_study()
    _, err, code = study(path, "--resume")
    assert (code, "holds another study" in err) == (2, True)
    _, err, code = study(tmp_path / "none.yaml")
    assert (code, len(err.splitlines()), "there is no study file" in err) == (2, 1, True)


def test_a_grid_ends_before_a_value_that_the_command_line_refuses(write_study, study, tmp_path, monkeypatch):
    tune = {"key": "model.warmup", "values": [0.1, 0.4], "seeds": [100]}
    base, plain, channels = ([f"{HOME}/experiments/{name}.yaml"] for name in ("base", "cnn_plain", "cnn_channels"))
    real = read_study(write_study(protocol=base, plain=plain, family={"cnn_channels": channels}, tune=tune))
    rounds = Rounds(real, tmp_path / "real", lambda *_: 0)
    said = [study_command._refused(rounds, Point(Arm("", "cnn_plain"), value)) for value in (1.6, 0.025)]
    assert ("warmup is 1.6: give a number of 0 or more and at most 1" in said[0], said[1]) == (True, "")
    monkeypatch.setattr(study_command, "_refused", lambda _, point: "it is large" if point.value > 0.03 else "")
    out, _, code = study(write_study())
    assert (code, out.count("the grid of model.init_args.base_lr ends before 0.032: it is large\n")) == (0, 1)
    assert "0.016 (edge)" in out


def test_a_table_keeps_the_number_of_test_images_below_which_accuracies_do_not_differ(tmp_path):
    write_run(tmp_path / "runs" / "0", "told", 0.7, more={NUM_TEST_IMAGES: 60})
    (run,) = find_runs([str(tmp_path / "runs")]).runs
    save(tmp_path / "results.csv", [(row_of(run, "confirm", "", None, 1), run)], None, "")
    (again,) = load(tmp_path / "results.csv").runs
    assert again.summary[NUM_TEST_IMAGES] == 60


def test_a_row_names_all_code_that_has_trained_its_run(tmp_path):
    folder = tmp_path / "runs" / "0"
    write_run(folder, "told", 0.7)
    for sessions, code in (([{"code": "a"}, {"code": "b"}, {"code": "b"}], "a+b"), ([{}], "unknown"), ([], "unknown")):
        (folder / "environment.json").write_text(json.dumps({"sessions": sessions}))
        (run,) = find_runs([str(tmp_path / "runs")]).runs
        assert row_of(run, "confirm", "", None, 1)["code"] == code


def test_a_plan_that_was_changed_after_its_results_is_refused(write_study, study, tmp_path):
    path, folder = write_study(), tmp_path / "runs" / "studies" / "a_study"
    assert study(path)[2] == 0
    plan = {"looks": [4, 8], "spending": "pocock", "first_seed": 0}
    changes: tuple[tuple[dict[str, Any], str], ...] = (
        ({"confirm": {**plan, "looks": [4, 8, 12]}}, "was confirmed with looks at 4 8 (pocock), and the study has 4 8 12 (pocock)"),
        ({"confirm": {**plan, "spending": "obrien_fleming"}}, "and the study has 4 8 (obrien_fleming)"),
        ({"negligible": 0.5}, "was confirmed with negligible: 1, and the study has 0.5"),
        (
            {"endpoints": ["test/masked_mse", "val/masked_mse"]},
            "was confirmed by test/masked_mse, and the study has test/masked_mse val",
        ),
    )
    for number, (change, message) in enumerate(changes):
        options = ("--output", tmp_path / str(number), "--resume", "--table", folder / "results.csv")
        _, err, code = study(write_study(**change), *options)
        assert (code, len(err.splitlines()), message in err) == (2, 1, True), err
        assert not (tmp_path / str(number)).exists()


def test_a_table_without_its_runs_is_not_lost(write_study, study, tmp_path, monkeypatch):
    path, folder = write_study(), tmp_path / "runs" / "studies" / "a_study"
    assert study(path)[2] == 0
    text, shared = ((folder / name).read_text() for name in ("results.csv", "results.yaml"))
    shutil.rmtree(folder)
    folder.mkdir()
    (folder / "results.csv").write_text(text)
    (folder / "results.yaml").write_text(shared)
    _, err, code = study(path, "--resume")
    advice = "give --resume --table runs/studies/a_study/results.csv to keep them"
    assert (code, len(err.splitlines()), advice in err) == (2, 1, True)
    with monkeypatch.context() as patch:
        patch.setattr("semconv.study.stages.measure", interrupt)
        assert study(path, "--resume", "--table", folder / "results.csv")[2] == 130
    (folder / "measure").mkdir()
    (folder / "measure" / "sweep.yaml").write_text("{}")
    assert study(path, "--resume")[2] == 2  # the table has not been kept yet
    shutil.rmtree(folder / "measure")
    assert (folder / "results.csv").read_text() == text
    assert study(path, "--resume", "--table", folder / "results.csv")[2] == 0


def test_a_diverged_row_is_compared_by_its_end(write_study, study, tmp_path):
    path, folder = write_study(), tmp_path / "runs" / "studies" / "a_study"
    assert study(path)[2] == 0
    table = folder / "results.csv"
    rows = list(csv.DictReader(table.read_text().splitlines()))
    found = next(
        row for row in rows if (row["stage"], row["variant"], row["control"], row["seed"]) == ("confirm", "cnn_good", "", "1")
    )
    before = ",".join(found.values())
    table.write_text(table.read_text().replace(before, before.replace(",finished,", ",diverged,")))
    out, _, code = study(path, "--table", table, "--only", "cnn_good", "--seed", "1")
    assert (code, "has diverged, and the run has finished here" in out) == (1, True)


def test_a_screening_that_keeps_nobody_ends_a_study(write_study, study, tmp_path, monkeypatch):
    for name in ("cnn_good", "cnn_same"):
        monkeypatch.setitem(GAIN, name, -0.1)
    path, folder = write_study(screen={"seeds": [200, 201, 202], "keep": 2}), tmp_path / "runs" / "studies" / "a_study"
    out, _, code = study(path)
    assert (code, "the screening keeps no candidate" in out, "cnn_good" in out) == (0, True, True)
    assert sorted({row["stage"] for row, _ in load_rows(folder / "results.csv")}) == ["screen", "tune"]


def test_every_table_and_round_of_a_confirmation_names_all_that_it_confirms(write_study, conduct, tmp_path):
    path = write_study(screen={"seeds": [200, 201, 202], "keep": 2})
    rounds, _ = conduct(path)
    whole(rounds)
    save_runs(rounds, tmp_path / "results.csv")
    family = load(tmp_path / "results.csv").declared.family
    assert len(family) == 2
    assert load(tmp_path / "results.csv").declared.endpoints == ("test/masked_mse",)
    assert load(tmp_path / "results.csv", "screen").declared.family == ()  # which is all of it
    for name in ("confirm-4", "confirm-8"):
        assert declared_by(yaml.safe_load((rounds.folder / name / "sweep.yaml").read_text())).family == family
    rows = load_rows(tmp_path / "results.csv")
    for place, recorded in (("study", ()), ("continued", rows)):  # as --plan leaves both
        planned, _ = conduct(path, place, recorded=recorded)
        measure(planned)
        keep_recorded(planned)
        save_runs(planned, tmp_path / "planned.csv")
        assert load(tmp_path / "planned.csv").declared.family == family
    assert load(planned.folder / "continued.csv").declared.family == family
    first = sum(row["stage"] != "confirm" for row, _ in rows) + len(rounds.finished("measure"))
    part, _ = conduct(path, "part", stop_after=first + len(rounds.finished("measure-controls")) + 5)
    with pytest.raises(Unfinished):
        whole(part)
    save_runs(part, tmp_path / "part.csv")
    assert len({row["variant"] for row, _ in load_rows(tmp_path / "part.csv") if row["stage"] == "confirm"} - {"cnn_plain"}) == 1
    assert load(tmp_path / "part.csv").declared.family == family


def interrupt(*_: object) -> None:
    raise Unfinished(130)


def test_the_command_continues_a_table(write_study, study, tmp_path, monkeypatch):
    path, folder = write_study(), tmp_path / "runs" / "studies" / "a_study"
    assert study(path)[2] == 0
    table, elsewhere = folder / "results.csv", tmp_path / "elsewhere"
    given = (path, "--output", elsewhere)
    for options in ((), ("--prepare",), ("--resume", "--prepare")):
        _, err, code = study(*given, *options, "--table", table)
        assert (code, len(err.splitlines()), "--table goes with " in err) == (2, 1, True)
    with monkeypatch.context() as patch:
        patch.setattr("semconv.study.stages.measure", interrupt)
        patch.setattr(study_command, "placed", lambda _: nullcontext(Here()))
        out, _, _ = study(path, "--output", tmp_path / "a plan", "--plan", "--cluster", "slurm", "--slurm", "mem=9GB")
    assert f"semconv study {path} --output 'a plan' --plan --cluster slurm --slurm mem=9GB continues" in out
    for stage, option in (("measure", f" --table {table} "), ("try_controls", " ")):  # then the folder keeps the table
        with monkeypatch.context() as patch:
            patch.setattr(f"semconv.study.stages.{stage}", interrupt)
            out, _, code = study(*given, "--resume", "--table", table, "--accept-code", "0123456789ab")
        assert (code, f"--output elsewhere --resume{option}--accept-code 0123456789ab continues" in out) == (130, True)
    _, _, code = study(*given, "--resume")
    assert (code, sorted(place.parent.name for place in elsewhere.glob("*/sweep.yaml"))) == (0, MEASURING)
    assert (elsewhere / "results.csv").read_text() == table.read_text()
    out, _, code = study(*given, "--resume")
    assert (code, "semconv export" in out) == (0, False)  # the folder keeps the table, which has no weights
    assert not (elsewhere / "tune-1").exists()
    with pytest.raises(ValueError, match="continues a table, which has no weights"):
        best_run(elsewhere, "test/masked_mse")
    _, err, code = study(*given, "--prepare")
    assert (code, "continue it by --resume" in err) == (2, True)
    lines = table.read_text().splitlines(keepends=True)
    part = tmp_path / "part.csv"
    part.write_text("".join(lines[:-3]))
    part.with_suffix(".yaml").write_text(table.with_suffix(".yaml").read_text())
    _, err, code = study(*given, "--resume", "--table", part)
    assert (code, "continues another table already: leave out --table" in err) == (2, True)
    out, _, code = study(path, "--output", tmp_path / "third", "--resume", "--table", part)
    assert (code, [line for line in out.splitlines() if line.endswith("runs")][2:]) == (0, ["confirm-8: 3 runs"])
    assert study(path, "--resume", "--table", table)[2] == 0  # of its own runs: the folder has them
    assert not (folder / "continued.csv").exists()


def test_a_table_that_is_saved_on_the_way_loses_rows_that_no_stage_can_ask_for_any_more(write_study, conduct, tmp_path):
    path, table = write_study(), tmp_path / "results.csv"
    rounds, _ = conduct(path)
    whole(rounds)
    save_runs(rounds, table)
    rows = load_rows(table)
    row, run = next(each for each in rows if each[0]["stage"] == "tune")
    rows = [({**row, "value": 0.5}, replace(run, folder="unused")), *rows[:-3]]

    def saved(name, stop_after):
        rounds, _ = conduct(path, name, stop_after, rows)
        with pytest.raises(Unfinished):
            whole(rounds)
        left_out = save_runs(rounds, tmp_path / f"{name}.csv")
        return left_out, {each["value"] for each, _ in load_rows(tmp_path / f"{name}.csv")}

    left_out, values = saved("early", 10)  # of the eleven short runs that measure
    assert (left_out, 0.5 in values) == (0, True)
    left_out, values = saved("late", 12)
    assert (left_out, 0.5 in values) == (1, False)


def test_the_command_refuses_a_damaged_table_and_keeps_nothing_of_it(write_study, study, tmp_path):
    path, folder = write_study(), tmp_path / "runs" / "studies" / "a_study"
    assert study(path)[2] == 0
    text, shared = ((folder / name).read_text() for name in ("results.csv", "results.yaml"))
    head, first, *others = text.splitlines(keepends=True)
    cells = dict(zip(head.strip().split(","), first.strip().split(","), strict=True))

    def with_cell(name, value):
        return ",".join({**cells, name: value}.values()) + "\n"

    faults = {
        head
        + with_cell(
            "code", "0123456789ab"
        ): "has runs of other code, 0123456789ab of commit c0ffee: continue it by that code, leave out --table",
        head + with_cell("code", "0123456789ab").replace("c0ffee", ""): "has runs of other code, 0123456789ab: continue it by",
        head
        + with_cell("code", "0123456789ab")
        + others[0].replace(cells["code"], "ba9876543210"): "--accept-code 0123456789ab ba9876543210 if",
        head + first + first: ":3 is the run of 2 again",
        head + first + others[0][:-20]: "line 3: it is no whole row",
        head + with_cell("status", "running"): "line 2: it is no finished run",
        head + with_cell("test/masked_mse", ""): "line 2: it is no finished run",
        head + with_cell("fraction", "0"): "line 2: it does not fit",
        head + with_cell("variant", "cnn_good"): "line 2: it does not fit",
        head + with_cell("setting", "zero"): ":2 is no run of the study",
        head + with_cell("seed", "77"): ":2 has seed 77, which is none of the study's tune",
    }
    table, elsewhere = tmp_path / "table.csv", tmp_path / "elsewhere"
    table.with_suffix(".yaml").write_text(shared)
    for content, message in faults.items():
        table.write_text(content)
        _, err, code = study(path, "--output", elsewhere, "--resume", "--table", table)
        assert (code, len(err.splitlines()), message in err) == (2, 1, True), err
    table.write_text(head + with_cell("code", "0123456789ab") + "".join(others))
    assert study(path, "--output", tmp_path / "accepted", "--resume", "--table", table, "--accept-code", "0123456789ab")[2] == 0
    assert load_rows(tmp_path / "accepted" / "results.csv")[0][0]["code"] == "0123456789ab"
    table.write_text(head + with_cell("code", f"0123456789ab+{cells['code']}") + "".join(others))
    for accepted, expected in ((), 2), (("--accept-code", f"0123456789ab+{cells['code']}"), 0):
        options = ("--output", tmp_path / f"mixed-{expected}", "--resume", "--table", table)
        _, err, code = study(path, *options, *accepted)
        assert (code, "runs of other code, 0123456789ab: continue it by" in err) == (expected, bool(expected))
    table.write_text(text)
    for network in ("text", "{variant: {encoder: {}}}", "{experiment: cnn_plain, variant: null}"):
        damaged = yaml.safe_load(shared)
        damaged["networks"][0] = yaml.safe_load(network)
        table.with_suffix(".yaml").write_text(yaml.safe_dump(damaged))
        _, err, code = study(path, "--output", elsewhere, "--resume", "--table", table)
        assert (code, len(err.splitlines()), "does not fit" in err) == (2, 1, True), err
    for wrong in ("", ".", tmp_path / "none.csv"):
        assert study(path, "--output", elsewhere, "--resume", "--table", wrong)[2] == 2
    assert not {path.name for path in elsewhere.glob("*.csv")}
