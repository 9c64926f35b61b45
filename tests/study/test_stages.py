import json
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from semconv.comparison.recorded import load_rows
from semconv.study.arms import Arm, main_arms
from semconv.study.file import read_study, rungs
from semconv.study.results import save_runs
from semconv.study.rounds import Unfinished
from semconv.study.stages import decide, measure, point, screen, screened, try_controls, tune
from semconv.tracking.folder import RunFolder
from tests.pairwise import together
from tests.study import conftest
from tests.study.conftest import GAIN

HALVED = {"key": "a.b", "values": [1, 2, 3, 4, 5], "seeds": [100], "halving": 2}


def whole(rounds):
    """All stages: what was measured, tuned, screened and confirmed."""
    measured = measure(rounds)
    try_controls(rounds, measured)
    return measured, *decide(rounds, measured)


def words(comparison):
    return {judged.variant.label: judged.verdict.word for judged in comparison.judged}


def runs_of(comparison):
    return {variant.label: len(variant.runs) for variant in comparison.groups.variants}


def test_every_arm_is_tuned_alike_and_confirmed_until_it_is_settled(write_study, conduct):
    rounds, log = conduct(write_study())
    measured, tuned, _, comparison = whole(rounds)
    wide = Arm("", "cnn_good", "plain_wide")
    assert {arm: list(needed) for arm, needed in measured.needed.items()} == {
        Arm("", "cnn_good"): ["shuffled", "zero", "plain_wide"],  # only it takes more operations than plain
        Arm("", "cnn_same"): ["shuffled", "zero"],
        Arm("", "cnn_bad"): ["shuffled", "zero"],
    }
    assert set(tuned) == {Arm("", name) for name in ("cnn_plain", "cnn_good", "cnn_same", "cnn_bad")} | {wide}
    assert all({0.004, 0.008, 0.016} <= set(each.curve) for each in tuned.values())
    assert {arm.label: each.value for arm, each in tuned.items() if not arm.control} == {
        "cnn_plain": 0.008,
        "cnn_good": 0.016,
        "cnn_same": 0.008,
        "cnn_bad": 0.001,  # two values beyond the grid
    }
    assert set(tuned[Arm("", "cnn_good")].curve) == {0.004, 0.008, 0.016, 0.032}
    assert set(tuned[Arm("", "cnn_bad")].curve) == {0.0005, 0.001, 0.002, 0.004, 0.008, 0.016}
    assert not any(each.at_edge for each in tuned.values() if each is not tuned[wide])
    assert words(comparison) == {"cnn_good": "beneficial", "cnn_same": "equivalent", "cnn_bad": "harmful"}
    counts = runs_of(comparison)
    assert counts["cnn_good"] == counts["cnn_bad"] == 4
    assert counts["cnn_plain"] == max(counts.values())
    assert log.sweeps[:3] == ["measure", "measure-controls", "tune-1"]
    assert log.sweeps[-1] in ("confirm-4", "confirm-8")
    used = {run.protocol["model.base_lr"] for variant in comparison.groups.variants for run in variant.runs.values()}
    assert used == {each.value for each in tuned.values()}
    zero = next(variant for variant in comparison.groups.variants if variant.label == "cnn_good-zero")
    assert {run.protocol["model.base_lr"] for run in zero.runs.values()} == {0.016}  # a control takes its variant's value


def test_extra_controls_are_trained_beside_their_candidate_alone(write_study, conduct):
    for kind in ("gradual_learned", "fixed"):
        Path(f"{kind}.yaml").write_text(yaml.safe_dump({"control": kind}))
    path = write_study(
        extra_controls={"cnn_same": ["gradual_learned", "fixed", "zero"]},
        controls={name: f"{name}.yaml" for name in ("zero", "shuffled", "plain_wide", "gradual_learned", "fixed")},
    )
    rounds, _ = conduct(path)
    measured, tuned, _, comparison = whole(rounds)
    same, good = Arm("", "cnn_same"), Arm("", "cnn_good")
    assert [arm.control for arm in measured.arms(same)] == ["", "shuffled", "zero", "fixed", "gradual_learned"]
    assert measured.needed[same] == ["shuffled", "zero", "fixed"]  # no verdict rests on other shares of attention
    assert measured.controls[good] == measured.needed[good] == ["shuffled", "zero", "plain_wide"]
    counts = runs_of(comparison)
    assert counts["cnn_same-gradual_learned"] == counts["cnn_same-fixed"] == counts["cnn_same"]
    (judged,) = [each for each in comparison.judged if each.variant.label == "cnn_same"]
    assert set(judged.evidence.against) == {"plain", "shuffled", "zero", "fixed"}
    learned = next(variant for variant in comparison.groups.variants if variant.label == "cnn_same-gradual_learned")
    assert {run.protocol["model.base_lr"] for run in learned.runs.values()} == {tuned[same].value}


def test_a_study_that_was_stopped_anywhere_loses_and_repeats_nothing(write_study, conduct):
    path = write_study()
    whole_rounds, whole_log = conduct(path, "whole")
    expected = whole(whole_rounds)[-1]
    stops = range(1, whole_log.runs, 7)
    done = 0
    for stop in stops:
        rounds, log = conduct(path, "stopped", stop_after=7)
        with pytest.raises(Unfinished) as end:
            whole(rounds)
        assert end.value.code == 130
        done += log.runs
        if done + 7 >= whole_log.runs or stop > whole_log.runs:
            break
    rounds, log = conduct(path, "stopped")
    assert words(whole(rounds)[-1]) == words(expected)
    assert done + log.runs == whole_log.runs
    again, log = conduct(path, "stopped")
    whole(again)
    assert (log.runs, log.sweeps) == (0, [])


def test_a_run_that_is_left_out_is_named_once(write_study, conduct, capsys):
    path = write_study()
    rounds, _ = conduct(path, stop_after=10)
    with pytest.raises(Unfinished):
        whole(rounds)
    run = next((rounds.folder / "measure").glob("*/*/summary.json"))
    run.write_text(json.dumps({**json.loads(run.read_text()), "status": "terminated"}))
    rounds, _ = conduct(path)
    with pytest.raises(ValueError, match="has finished, and is deleted or damaged: restore it"):  # it is never trained again here
        whole(rounds)
    rounds.finished("measure")
    assert capsys.readouterr().err == f"left out: {run.parent}: it is terminated\n"


def test_a_control_that_cannot_be_trained_ends_a_study_at_once(write_study, conduct, monkeypatch):
    path = write_study()
    rounds, log = conduct(path, "failed", stop_after=4)  # the networks; then no control
    with pytest.raises(Unfinished):
        whole(rounds)
    assert log.sweeps == ["measure", "measure-controls"]
    given = yaml.safe_load((rounds.folder / "measure-controls" / "sweep.yaml").read_text())["parameters"]
    assert (given["trainer.max_steps"], given["evaluation"]) == ({"value": 1}, {"value": "none"})
    train = conftest.train

    def diverge(point, place):
        number = train(point, place)
        for folder in place.glob("*/zero-*"):
            RunFolder(folder).summarise({**json.loads((folder / "summary.json").read_text()), "status": "diverged"})
        return number

    monkeypatch.setattr(conftest, "train", diverge)
    with pytest.raises(ValueError, match=r"zero.* has diverged within a few steps"):
        whole(conduct(path, "diverged")[0])


def test_a_grid_of_whole_numbers_is_extended_by_whole_numbers(write_study, conduct):
    rounds, log = conduct(write_study(tune={"key": "data.batch_size", "values": [2, 3], "seeds": [100]}))
    _, tuned, _, _ = whole(rounds)  # all sizes are as good, so the least is best
    plain = tuned[Arm("", "cnn_plain")]
    assert (sorted(map(repr, plain.curve)), plain.at_edge) == (["1", "2", "3"], True)
    assert "tune-beyond-2" not in log.sweeps  # no whole number is below 1
    table = rounds.folder / "results.csv"
    save_runs(rounds, table)
    values = {(repr(row["value"]), repr(run.protocol["data.batch_size"])) for row, run in load_rows(table)}
    assert values == {(size, size) for size in "123"}


def test_a_value_that_no_run_accepts_ends_a_grid(write_study, conduct):
    rounds, _ = conduct(write_study())
    rounds.accepts = lambda point: point.value < 0.03
    _, tuned, _, _ = whole(rounds)
    good = tuned[Arm("", "cnn_good")]
    assert (set(good.curve), good.at_edge) == ({0.004, 0.008, 0.016}, True)
    assert tuned[Arm("", "cnn_bad")].value == 0.001  # still two values beyond the grid


def test_a_diverged_value_is_the_worst(write_study, conduct):
    path = write_study(tune={"key": "model.init_args.base_lr", "values": [0.008, 0.016, 0.064], "seeds": [100], "extensions": 0})
    _, tuned, _, _ = whole(conduct(path)[0])
    assert tuned[Arm("", "cnn_plain")].curve[0.064] == {100: float("inf")}
    assert tuned[Arm("", "cnn_plain")].value == 0.008
    assert tuned[Arm("", "cnn_bad")].at_edge


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"tune": {"key": "model.init_args.typo", "values": [1, 2], "seeds": [100]}}, "is no key of the protocol"),
        ({"endpoints": ["probe/linear_top1"]}, "no run has probe/linear_top1; it needs --evaluation quick"),
        ({"family": {"cnn_good": ["cnn_good.yaml", "CamouflageFill.yaml"]}}, "differ in model.corruption.fill"),
        ({"controls": {"zero": "none.yaml"}}, "has to beat (zero|shuffled), of which there is no file"),
        (
            {"references": {"cnn_same": ["cnn_same.yaml", "zero.yaml"]}, "family": {"cnn_good": ["cnn_good.yaml"]}},
            r"none counts as cnn_same: one of its files makes it a control \(zero\)",
        ),
        (
            {
                "settings": {"zero": ["ZeroFill.yaml"], "camouflage": ["CamouflageFill.yaml"]},
                "family": {"cnn_good": ["cnn_good.yaml", "CamouflageFill.yaml"]},
            },
            r"none counts as cnn_good \(zero\): one of its files sets what its setting sets",
        ),
    ],
)
def test_what_cannot_be_is_refused_after_the_first_steps(changes, message, write_study, conduct):
    rounds, log = conduct(write_study(**changes))
    with pytest.raises(ValueError, match=message):
        whole(rounds)
    assert log.sweeps == ["measure"]


def test_screening_drops_a_candidate_without_a_finite_value(write_study, conduct, monkeypatch):
    rounds, _ = conduct(write_study(screen={"seeds": [200, 201], "keep": 3}))
    measure(rounds)
    tuned = tune(rounds, main_arms(rounds.study))
    monkeypatch.setattr("semconv.comparison.run.finite", lambda value: None)
    assert screen(rounds, tuned) == {}


def test_a_metric_that_no_run_has_chooses_no_value(write_study, conduct):
    rounds, _ = conduct(
        write_study(tune={"key": "model.init_args.base_lr", "values": [1, 2], "seeds": [100], "metric": "val/top1"})
    )
    with pytest.raises(ValueError, match="has no val/top1, by which values are chosen"):
        whole(rounds)


def test_a_screening_keeps_the_largest_gains(write_study, conduct):
    rounds, log = conduct(write_study(screen={"seeds": [200, 201, 202], "keep": 2}))
    _, _, screened, comparison = whole(rounds)
    assert {arm.variant: each.kept for arm, each in screened.items()} == {"cnn_good": True, "cnn_same": True, "cnn_bad": False}
    assert set(words(comparison)) == {"cnn_good", "cnn_same"}
    seeds = {seed for variant in comparison.groups.variants for seed in variant.runs}
    assert seeds <= set(range(8))  # none of the other stages'
    assert "screen" in log.sweeps


def test_a_screening_looks_at_no_test_image(write_study, conduct):
    rounds, _ = conduct(write_study(screen={"seeds": [200, 201, 202], "keep": 1}))
    measure(rounds)
    study, tuned = rounds.study, tune(rounds, main_arms(rounds.study))
    points = [point(arm, tuned) for arm in main_arms(study)]
    found = {}
    for each, runs in rounds.run("screen", points, [200, 201, 202]).items():
        best_of_test = {"test/masked_mse": float(each.arm.variant != "cnn_bad")}
        found[each] = {seed: replace(run, summary={**run.summary, **best_of_test}) for seed, run in runs.items()}
    assert [arm.variant for arm, each in screened(study, found).items() if each.kept] == ["cnn_good"]


def test_plain_of_equal_compute_is_searched_for_candidates_that_the_screening_kept(write_study, conduct, monkeypatch):
    path = write_study(screen={"seeds": [200, 201, 202], "keep": 1})
    rounds, log = conduct(path, "kept")
    _, tuned, _, _ = whole(rounds)
    assert log.sweeps.index("screen") < log.sweeps.index("tune-wide-1")
    assert Arm("", "cnn_good", "plain_wide") in tuned
    monkeypatch.setitem(GAIN, "cnn_good", -0.05)
    rounds, log = conduct(path, "dropped")
    _, tuned, _, comparison = whole(rounds)
    assert set(words(comparison)) == {"cnn_same"}
    assert not any(arm.control for arm in tuned)
    assert not any(name.startswith("tune-wide") for name in log.sweeps)


def test_each_setting_is_tuned_and_judged_by_itself(write_study, conduct):
    rounds, _ = conduct(write_study(settings={"zero": ["ZeroFill.yaml"], "camouflage": ["CamouflageFill.yaml"]}))
    _, tuned, _, comparison = whole(rounds)
    assert {arm.setting for arm in tuned} == {"zero", "camouflage"}
    assert list(comparison.groups.factors) == ["model.corruption.fill"]
    assert len(comparison.judged) == 6
    assert len(comparison.family) == 6


def test_a_setting_gives_values_also_of_the_decoder(write_study, conduct):
    told, crop = "model.init_args.decoder.init_args.told", "data.init_args.crop_scale"
    settings = {"whole": {told: False, crop: None}, "crops": ["base.yaml", {told: True, crop: [0.2, 1.0]}]}
    rounds, _ = conduct(write_study(settings=settings, tune=None))
    *_, comparison = whole(rounds)
    assert comparison.groups.factors == {"data.crop_scale": ["[0.2, 1.0]", None], "model.decoder.told": [True, False]}
    assert {judged.variant.level for judged in comparison.judged} == {
        (("data.crop_scale", None), ("model.decoder.told", False)),
        (("data.crop_scale", "[0.2, 1.0]"), ("model.decoder.told", True)),
    }
    assert len(comparison.judged) == 6
    assert not any(judged.evidence.missing for judged in comparison.judged)  # plain and controls of its own level
    masker = "model.init_args.masker"
    classes = {name: {f"{masker}.init_args.ratio": 0.5, masker: f"semconv.masking.{name}"} for name in ("Block", "Random")}
    assert read_study(write_study(settings=classes)).factors["Block"] == {"model.masker": "Block", "model.masker.ratio": 0.5}


def test_halving_spends_less_on_poor_values(write_study, conduct):
    values = [0.001, 0.002, 0.004, 0.008, 0.016]
    rounds, log = conduct(write_study(tune={"key": "model.init_args.base_lr", "values": values, "seeds": [100], "halving": 2}))
    _, tuned, _, _ = whole(rounds)
    assert rungs(rounds.study) == [(4, 5), (2, 3), (1, 2)]
    assert [name for name in log.sweeps if name.startswith("tune-")][:3] == ["tune-1", "tune-2", "tune-3"]
    points = rounds.finished("tune-1"), rounds.finished("tune-2"), rounds.finished("tune-3")
    assert [sum(point.arm == Arm("", "cnn_plain") for point in found) for found in points] == [5, 3, 2]
    steps = [{run.protocol["trainer.max_steps"] for runs in found.values() for run in runs.values()} for found in points]
    assert steps == [{15}, {30}, {60}]
    assert tuned[Arm("", "cnn_plain")].value == 0.008


@together(
    "changes, message",
    [
        ({"famly": {}}, "a study has no famly: did you mean family?"),
        ({"plain": None}, "it has no plain"),
        ({"plain": ["no.yaml"]}, "plain: there is no configuration file no.yaml"),
        ({"family": {"a": "no.yaml"}}, "family.a: there is no configuration file no.yaml"),
        ({"family": ["base.yaml"]}, "family is"),
        ({"endpoints": ["test/masked_mes"]}, "did you mean test/masked_mse?"),
        ({"endpoints": ["test/mean_fill_mse"]}, "no metric of which higher or lower is better"),
        ({"negligible": 2}, "negligible is 2"),
        ({"endpoints": []}, "give at least one"),
        ({"description": "looks: good"}, "a line of the description begins with looks:"),
        ({"description": "Look: good"}, "a line of the description begins with 'Look': write looks:"),
        ({"options": {"seed_everything": 5}}, "seed_everything is set by the study itself"),
        ({"options": {"model.base_lr": 5}}, "model.base_lr is set by the study itself"),
        ({"options": {"a": None}}, "options.a is None"),
        ({"controls": {"zero": 5}}, "controls is"),
        ({"extra_controls": {"cnn_none": ["zero"]}}, "extra_controls: cnn_none is not in the family"),
        ({"extra_controls": {"cnn_good": "zero"}}, "extra_controls.cnn_good is 'zero': give a list"),
        ({"extra_controls": {"cnn_good": ["gradual"]}}, "there is no file experiments/controls/gradual.yaml"),
        ({"family": {"../x": ["base.yaml"]}}, "is no name for a network"),
        ({"family": {"cnn_plain": ["base.yaml"]}}, "is no name for a network"),
        ({"settings": {"a": ["ZeroFill.yaml"], "b": ["base.yaml"]}}, "settings do not all set the same keys"),
        ({"settings": {"a": ["ZeroFill.yaml"], "b": ["ZeroFill.yaml"]}}, "two settings set the same values"),
        ({"settings": {"a": {"model.cell": 4}, "b": {"model.cell": 8}}}, "settings.a has model.cell: give a whole dotted key"),
        (
            {
                "settings": {"a": {"model.init_args.base_lr": 0.1}, "b": {"model.init_args.base_lr": 0.2}},
                "tune": {"key": "model.init_args.base_lr", "values": [1, 2], "seeds": [100]},
            },
            "settings set model.init_args.base_lr, and so does tune: set it in one place",
        ),
        (
            {"settings": {"a": ["ZeroFill.yaml"], "b": ["CamouflageFill.yaml"]}, "options": {"model.corruption.fill": "NoiseFill"}},
            "settings set model.corruption.fill, and so do the options",
        ),
        (
            {"options": {"trainer.max_steps": -1, "trainer.max_epochs": "-1"}, "tune": {**HALVED, "values": [1, 2]}},
            "tune.halving takes a part of the budget, and there is none",
        ),
        (
            {"options": {"trainer.max_steps": "1e0"}, "tune": HALVED},
            "trainer.max_steps is 1, and the first round of tune takes 1/4",
        ),
        ({"tune": {"key": "a.b", "values": [1, float("inf")], "seeds": [100]}}, "two or more rising numbers"),
        ({"tune": {"key": "a.b", "values": [1, 10**400], "seeds": [100]}}, "two or more rising numbers"),
        (
            {
                "options": {"trainer.max_epochs": 3},
                "tune": HALVED,
            },
            "trainer.max_epochs is 3, and the first round of tune takes 1/4 of it: give 4 or more, or trainer.max_epochs -1 and",
        ),
        ({"confirm": {"looks": [5], "first_seed": 2**32}}, "confirm.first_seed is"),
        ({"references": {"cnn_good": ["base.yaml"]}}, "cnn_good is in the family and among the references"),
        ({"tune": {"key": "base_lr", "values": [1, 2], "seeds": [100]}}, "give model.base_lr, or another whole dotted key"),
        ({"tune": {"key": "model.encoder.depth", "values": [1, 2], "seeds": [100]}}, "another whole dotted key with its init_args"),
        ({"tune": {"key": "trainer.a", "values": [2, 1], "seeds": [100]}}, "two or more rising numbers"),
        ({"tune": {"key": "trainer.a", "values": [1, 2], "seeds": [3]}}, "seed 3 is used by tune and by confirm"),
        ({"tune": {"key": "trainer.a", "values": [1, 2], "seeds": []}}, "tune.seeds are []"),
        (
            {"tune": {"key": "trainer.a", "values": [1, 2], "seeds": [9], "metric": "test/masked_mse"}},
            "metric of validation images",
        ),
        ({"tune": {"key": "trainer.a", "values": [1, 2], "seeds": [9], "halving": 1}}, "tune.halving is 1"),
        ({"screen": {"seeds": [9], "keep": 1}}, "give at least two"),
        ({"screen": {"seeds": [9, 10], "keep": 0}}, "screen.keep is 0"),
        ({"confirm": {"looks": [5, 4], "first_seed": 0}}, "give rising numbers of seeds"),
        ({"confirm": {"looks": [5], "first_seed": 0, "spending": "all"}}, "give obrien_fleming or pocock"),
        ({"confirm": {"looks": [5]}}, "confirm.first_seed is None"),
    ],
)
def test_what_is_no_study_is_refused_in_a_line(changes, message, write_study):
    with pytest.raises(ValueError, match=r"a_study\.yaml: ") as refused:
        read_study(write_study(**changes))
    assert message in str(refused.value)
    assert "\n" not in str(refused.value)


def test_our_studies_can_be_read(monkeypatch):
    root = Path(__file__).parents[2]
    monkeypatch.chdir(root)
    files = sorted((root / "sweeps" / "studies").glob("*.yaml"))
    assert files
    for path in files:
        command, question = path.read_text().splitlines()[:2]
        assert command.startswith(f"# semconv study sweeps/studies/{path.name}")
        assert question.endswith("?")
        assert read_study(path).family
