"""What results/*.csv say is what the documents say."""

import re
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import pytest

from results import fill, reasons, tables, verdicts
from semconv.study.results import save_runs
from semconv.study.rounds import Unfinished
from tests.study.test_stages import whole

MEASURED = 2 * (4 + 7)  # two settings: plain with three candidates, and seven controls


def test_the_documents_say_what_the_tables_say():
    """After `make results`."""
    for path, text in fill.renewed().items():
        assert path.read_text(encoding="utf-8") == text, path
        assert re.findall("^ +<!--", text, flags=re.MULTILINE) == []  # it would end the list that it stands in
    readme = (tables.ROOT / "README.md").read_text(encoding="utf-8")
    number = re.findall(r"\.\d{4} ±", readme)[0]
    assert fill.filled(readme.replace(number, ".0000 ±", 1)) == readme


@pytest.fixture
def study(write_study, conduct, tmp_path, monkeypatch):
    """A study in two settings, with changes, as far as it is given a number of runs: its name."""

    def make(stop_after=None, **changes):
        path = write_study(
            settings={"zero": ["ZeroFill.yaml"], "camouflage": ["CamouflageFill.yaml"]},
            screen={"seeds": [200, 201, 202], "keep": 2},
            **changes,
        )
        rounds, _ = conduct(path, stop_after=stop_after)
        with pytest.raises(Unfinished) if stop_after else nullcontext():
            whole(rounds)
        (tmp_path / "results").mkdir()
        save_runs(rounds, tmp_path / "results" / f"{path.stem}.csv")
        monkeypatch.setattr(tables, "STUDIES", tmp_path)
        monkeypatch.setattr(tables, "RESULTS", tmp_path / "results")
        monkeypatch.setattr(
            verdicts,
            "QUESTIONS",
            [verdicts.Question("Good?", (path.stem,), ("cnn_good",)), verdicts.Question("Bad?", (path.stem,), ("cnn_bad",))],
        )
        monkeypatch.setattr(fill, "PICTURED", ["none", path.stem])
        tables.table.cache_clear()
        return path.stem

    yield make
    tables.table.cache_clear()


def test_verdicts_gains_and_numbers_of_seeds_stand_in_the_places(study):
    name = study()
    answers = verdicts.answers().splitlines()
    good = next(line for line in answers if line.startswith("| Good? | `cnn_good` | beneficial for reconstruction (zero) | +.0"))
    assert re.search(rf"\) \| \+\.0\d+ \(.*?\) \| 4 \| zero fill, scenes at 32 px, 1 epoch, ratio .75 \| `{name}` \|$", good)
    bad = "| Bad? | `cnn_bad` | screened under camouflage, no verdict; not kept | -.0"
    assert any(line.startswith(bad) for line in verdicts.other_answers().splitlines())
    assert not any("screened" in line for line in answers)
    (wide,) = (line for line in verdicts.verdicts(name).splitlines() if line.startswith("| `cnn_good-plain_wide` | zero |"))
    assert "| nothing, at equal FLOPs |" in wide
    assert wide.endswith(" | 1.10 |")
    assert "cnn_good under zero 0.016; " in verdicts.caption(name)
    found = tables.table(name)
    assert found is not None
    fewer = [run for run in found.runs["tune"] if run.settings["model.base_lr"] <= 0.016]
    assert "cnn_good under zero 0.016 (the largest tried); " in verdicts._chosen(replace(found, runs={**found.runs, "tune": fewer}))
    fixed = 88 + 2 * (1 + 3 * 4) * 8  # the search; plain, and candidates with three controls, under two fills, 8 seeds
    assert f"| 88 | 24 | 96 | 208 / {fixed} = .70 | c0ffee |" in verdicts.state()
    first = [run for run in found.runs["confirm"] if run.summary["seed"] < 4 or run.summary["experiment"] == "cnn_plain"]
    on_its_way = verdicts._share(replace(found, runs={**found.runs, "confirm": first}))  # of a second look: plain's runs
    of_looks = sum(run.summary["seed"] < 4 for run in first)  # plain's others wait for the candidates'
    assert on_its_way.startswith(f"{88 + 24 + of_looks} / {88 + 2 * (1 + 3 * 4) * 4} = ")
    assert "`cnn_good` (camouflage) beneficial for reconstruction, +.0" in verdicts.outcome(name)
    chosen = {tuple(cells[:3]) for line in verdicts.search(name).splitlines()[2:] if (cells := line.strip("| ").split(" | "))}
    assert {("cnn_plain", "zero", "0.008"), ("cnn_good", "camouflage", "0.016"), ("cnn_bad", "zero", "0.001")} < chosen
    assert fill.headed("# a\n# Came out: old.\nb: 1\n", name).startswith("# a\n# Came out: cnn_")
    rows = sum(len(each.evidence.against) for each in found.candidates)
    assert len(ElementTree.fromstring(fill.picture()).findall(".//{*}circle")) == rows == 4 * 3 + 2
    assert re.search(r"`cnn_good` \(zero\) gains .*\+\.0\S+ \(.*?\) over plain_wide", verdicts.margins(name))
    assert fill.filled(f"<!-- results: outcome {name} -->old<!-- end of results -->!").endswith("<!-- end of results -->!")


def test_what_networks_use_and_show_stands_in_tables(study):
    name = study()
    rows = reasons.importance(name).splitlines()
    assert len(rows) == 2 + 3 * 2
    assert "| `cnn_good (zero)` | `Mask` | +.050 ± .000 | +.100 ± .000 | | 4 |" in rows
    assert "| `cnn_bad (camouflage)` | `Mask` | -.050 ± .000 | -.100 ± .000 | | 3 |" in rows  # screened alone
    assert reasons.mask_auc(name).splitlines()[0] == "| network | stage 0 | n |"
    assert "| `cnn_plain (zero)` | .750 (.500) | 8 |" in reasons.mask_auc(name).splitlines()
    (gain,) = re.findall(r"`cnn_good-zero` \(camouflage\) ([+-]\.\d+) \(.*?\), n = 4", verdicts.control_gains(name))
    assert abs(float(gain)) < 0.01  # as good as plain
    shares = reasons.layers(name).splitlines()
    assert shares[0] == "| network | value | stem | stages.0 | n |"
    assert "| `cnn_good (zero)` | gate at masked sites | .500 | .750 | 4 |" in shares
    assert "| `cnn_good (zero)` | share of attention | | .250 | 4 |" in shares
    assert not any("cnn_plain" in row for row in shares)
    assert reasons.position_r2(name).startswith("Not yet measured: ")
    assert reasons.mask_auc(name, name, "none") == reasons.mask_auc("none", name) == reasons.mask_auc(name)
    assert not any("cnn_good-zero" in row and "attention" in row for row in shares)


def test_an_extra_control_shows_what_it_has_learned_and_counts_for_no_verdict(study, monkeypatch):
    Path("gradual_learned.yaml").write_text("control: gradual_learned")
    kinds = ("zero", "shuffled", "plain_wide", "gradual_learned")
    name = study(extra_controls={"cnn_good": ["gradual_learned"]}, controls={kind: f"{kind}.yaml" for kind in kinds})
    assert "| `cnn_good-gradual_learned (zero)` | share of attention | | .250 | 4 |" in reasons.layers(name).splitlines()
    assert "| `cnn_good-gradual_learned` | zero | as its variant, with learned shares of attention |" in verdicts.verdicts(name)
    learned = verdicts.Question("Learned?", (name,), ("cnn_good-gradual_learned",))
    monkeypatch.setattr(verdicts, "QUESTIONS", [learned])
    first = verdicts.other_answers().splitlines()[2]
    assert first.startswith("| Learned? | `cnn_good-gradual_learned` | an extra control, no verdict: masked MSE (")
    assert "gradual_learned" not in verdicts.margins(name)
    assert "gradual_learned" not in verdicts.control_gains(name)
    assert re.search(
        r"`cnn_good-gradual_learned` \(zero\) \S+ \(.*?\) over plain, \S+ \(.*?\) over `cnn_good`, n = 4",
        verdicts.extra_gains(name),
    )
    assert f"| 88 | 24 | 104 | 208 / {88 + 2 * (1 + 3 * 4) * 8} = .70 | c0ffee |" in verdicts.state()


def test_an_unfinished_study_says_what_is_missing(study):
    name = study(stop_after=MEASURED + 2 * 4 * 2 * 3 + 30)  # measured, searched, and on the way
    assert verdicts.verdicts(name).startswith("Not yet measured: `semconv study ")
    assert verdicts.answers().splitlines()[2:] == []
    others = verdicts.other_answers().splitlines()[2:]
    assert all(line.count("not yet measured") or "screened" in line for line in others)
    assert fill.headed("# a\nb: 1\n", name) == "# a\nb: 1\n"


def test_a_screening_on_its_way_shows_nothing(study):
    name = study(stop_after=MEASURED + 2 * 4 * 2 * 3 + 26)
    found = tables.table(name)
    assert found is not None
    assert len(found.runs.get("screen", [])) > 0
    assert verdicts.screening(name).startswith("Not yet measured: ")
    assert not any("screened" in line for line in verdicts.other_answers().splitlines())


def test_a_search_shows_the_networks_that_are_done(study):
    name = study(stop_after=MEASURED + 10)  # measured; plain at three values, and another network at two, on two seeds
    rows = [line.strip("| ").split(" | ") for line in verdicts.search(name).splitlines()[2:]]
    assert [row[:3] for row in rows] == [["cnn_plain", "camouflage", "0.008"]]
    assert verdicts.search("none").startswith("Not yet measured: ")


def test_tables_name_no_folder_of_a_machine():
    for path in (tables.ROOT / "results").glob("*.yaml"):
        assert not re.findall(r"/(?:home|root|tmp|work|Users|mnt)/\S*", path.read_text(encoding="utf-8")), path
