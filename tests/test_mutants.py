import ast
import json
import sys
from types import SimpleNamespace

import pytest

from tests.mutants import trial
from tests.mutants.comparison import compare
from tests.mutants.lines import Measured, add_probes
from tests.mutants.sites import Mutant, draw, find_mutants, mutate
from tests.mutants.trial import Choice, choose
from tests.pairwise import together

SOURCE = '''
"""A module: 1 + 1."""

LEAST: int = 3


class Sum:
    """Adds 2 < 3."""

    def __init__(self, start: int = 4) -> None:
        if start < 0:
            raise ValueError(f"start is {start - 1}")
        self.start = start

    def __repr__(self) -> str:
        return "Sum" * 7

    def add(self, x, y):
        if x:
            return self.start + x
        return self.start + x + (self.start + x)
'''


@together(
    "line, faults",
    [
        ("y = a < b", {"y = a <= b", "y = a >= b"}),
        ("y = a is b in c", {"y = a is not b in c", "y = a is b not in c"}),
        ("y = a * b", {"y = a / b"}),
        ("y += a", {"y -= a", "pass"}),
        ("y = a and b", {"y = a or b"}),
        ("y = not a", {"y = a"}),
        ("y = ~a", {"y = a"}),
        ("y = -a", {"y = a"}),
        ("y = 5", {"y = 6", "y = 4"}),
        ("y = True", {"y = False"}),
        ("y = 0.5", {"y = 1.0"}),
        ("y = 0.0", {"y = 1.0"}),
        ("y = a if b else c", {"y = a if not b else c", "y = c if b else a"}),
        ("y = torch.where(a, b, c)", {"y = torch.where(a, c, b)"}),
        ("y = max(a, b)", {"y = min(a, b)"}),
        ("y = a.sum(b)", {"y = a.mean(b)"}),
        ("y = a.clamp(b)", {"y = a"}),
        ("y = f(a, b=c)", {"y = f(a)"}),
        ("y = f(a, device=c)", set()),
        ("f(a)", {"pass"}),
        ("a = f(a)", {"pass"}),
        ("raise f(a + b)", {"pass"}),
        ("if a:\n    f = b", {"if not a:\n    f = b"}),
    ],
)
def test_an_operator_makes_its_faults(line, faults):
    mutants = find_mutants(line, "a.py")
    assert {mutate(line, mutant) for mutant in mutants} == faults
    assert len(mutants) == len(faults)


def test_returns_lose_their_value():
    source = "def f(a):\n    return a"
    assert [mutate(source, mutant) for mutant in find_mutants(source, "a.py")] == ["def f(a):\n    return None"]


def test_documentation_types_messages_and_representations_stay():
    changed = {mutate(SOURCE, mutant) for mutant in find_mutants(SOURCE, "a.py")}
    assert not [source for source in changed if "1 + 1" not in source or "2 < 3" not in source]
    assert not [source for source in changed if "start - 1" not in source and "raise" in source]
    assert not [source for source in changed if "'Sum' * 7" not in source or "LEAST: int" not in source]


def test_each_mutant_has_its_own_name_and_changes_one_place():
    mutants = find_mutants(SOURCE, "a.py")
    assert len({mutant.name for mutant in mutants}) == len({mutate(SOURCE, mutant) for mutant in mutants}) == len(mutants)
    original = ast.unparse(ast.parse(SOURCE)).splitlines()
    for mutant in mutants:
        lines = mutate(SOURCE, mutant).splitlines()
        assert sum(a != b for a, b in zip(original, lines, strict=True)) == 1


def test_names_and_sample_stay_where_code_moves():
    moved = (
        SOURCE.replace('"""A module', '"""Longer.\n\nA module').replace("LEAST", "\n# why\nLEAST").replace("(x, y)", "(\n  x, y)")
    )
    before, after = find_mutants(SOURCE, "a.py"), find_mutants(moved, "a.py")
    assert [mutant.name for mutant in before] == [mutant.name for mutant in after]
    assert [mutant.name for mutant in draw(before, 5, 0)] == [mutant.name for mutant in draw(after, 5, 0)]
    assert [mutant.lines for mutant in before] != [mutant.lines for mutant in after]


def test_a_sample_has_some_of_every_file_and_follows_its_seed():
    mutants = [mutant for file in ("a.py", "b.py") for mutant in find_mutants(SOURCE, file)] + find_mutants("y = a < b + 1", "c.py")
    sample = draw(mutants, 20, 0)
    assert len({mutant.name for mutant in sample}) == 20
    assert {file: sum(mutant.file == file for mutant in sample) for file in ("a.py", "b.py", "c.py")} == {
        "a.py": 9,
        "b.py": 8,
        "c.py": 3,
    }
    assert sample != draw(mutants, 20, 1)
    assert len({mutant.operator for mutant in sample if mutant.file == "a.py"}) > 5


def test_another_source_has_no_such_mutant():
    (mutant,) = find_mutants("y = -a", "a.py")
    with pytest.raises(ValueError, match="no mutant a"):
        mutate("y = a", mutant)


def test_probes_tell_the_lines_that_run(monkeypatch):
    seen: list[str] = []
    monkeypatch.setitem(sys.modules, "line_probe", SimpleNamespace(seen=seen.append))
    scope: dict = {}
    exec(add_probes(SOURCE, "a.py"), scope)
    assert scope["__doc__"] == "A module: 1 + 1."
    assert seen == [f"a.py:{line}" for line in (4, 7, 10, 15, 18)]
    seen.clear()
    assert scope["Sum"](1).add(2, 0) == 3
    assert seen == [f"a.py:{line}" for line in (11, 13, 19, 20)]


def test_tests_that_run_the_line_come_first_and_those_near_it_before_others():
    mutant = Mutant("mechanisms/film.py", "f", "", "", "", 0, (5, 5))
    line = {"mechanisms/film.py": [5, 9]}
    measured = {
        "tests/test_far.py": Measured({}, {"far": (0.1, line)}, []),
        "tests/mechanisms/test_every.py": Measured({}, {"every": (0.1, line)}, []),
        "tests/mechanisms/test_film.py": Measured({}, {"slow": (2.0, line), "fast": (1.0, line), "kept": (0.0, {})}, []),
        "tests/test_other.py": Measured(line, {"imports": (0.0, {"mechanisms/film.py": [4, 6]})}, []),
        "tests/test_none.py": Measured({}, {"none": (0.0, {"masking.py": [5]})}, []),
    }
    assert [choice.test for choice in choose(mutant, measured)] == ["fast", "slow", "every", "far", "imports", "kept"]


def test_a_mutant_that_no_conftest_can_import_is_killed(monkeypatch, tmp_path):
    def end(error):
        def run(*_, **__):
            raise RuntimeError(error)

        monkeypatch.setattr(trial, "run_tests", run)

    chosen = [Choice(0, 0.1, "a", "a.py")]
    end("pytest ended with 4: ImportError while loading conftest 'tests/commands/conftest.py'")
    assert trial._run_round(tmp_path, chosen, 1.0) == ("killed", "conftest.py", 0)
    end("pytest ended with 4: file or directory not found: a.py")
    with pytest.raises(RuntimeError, match="not found"):
        trial._run_round(tmp_path, chosen, 1.0)


@pytest.fixture
def write(tmp_path):
    def write(name, statuses, sources="a"):
        mutants = [{"name": f"a.py | {i}", "status": status, "test": "t", "tests": 1} for i, status in enumerate(statuses)]
        path = tmp_path / f"{name}.json"
        path.write_text(json.dumps({"sources": sources, "mutants": mutants}))
        return path

    return write


def test_a_suite_is_strong_that_kills_nine_in_ten_and_loses_none(write):
    before = write("before", ["killed"] * 8 + ["survived"] * 2)
    assert compare(before, write("after", ["killed"] * 8 + ["timed out", "unfinished"]))[1]
    assert not compare(before, write("weak", ["killed"] * 8 + ["survived"] * 2))[1]
    said, strong = compare(before, write("lost", ["survived"] + ["killed"] * 9))
    assert not strong
    assert said.splitlines()[-1] == "- `a.py | 0`, which t has killed"


def test_other_mutants_are_not_compared(write):
    with pytest.raises(ValueError, match="different mutants"):
        compare(write("before", ["killed"]), write("after", ["killed"], sources="b"))
