"""The faults: where a source file can be changed, and into what."""

import ast
import hashlib
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import zip_longest
from pathlib import Path
from typing import NamedTuple

from tests.mutants.operators import replacements

TARGETS = (
    "masking.py",
    "corruption.py",
    "indicators",
    "mechanisms",
    "convolution.py",
    "objective.py",
    "decoders.py",
    "comparison/statistics.py",
    "comparison/verdicts.py",
)
# what is not behaviour: types, and what is printed
SKIPPED_FIELDS = {"annotation", "returns", "decorator_list", "bases", "exc", "msg"}
SKIPPED_NODES = (ast.JoinedStr, ast.Import, ast.ImportFrom)
SKIPPED_FUNCTIONS = {"__repr__", "__str__", "extra_repr"}
# that a tensor stands on another device shows on a GPU alone, and `strict` is an assertion
SKIPPED_KEYWORDS = {"device", "non_blocking", "strict"}
SMALL_NODES = (ast.Constant, ast.UnaryOp, ast.Slice)


class Mutant(NamedTuple):
    """One fault. All fields but `lines` make its name, so that code that moves keeps its mutants."""

    file: str  # below the package
    function: str  # qualified; empty at the level of the module
    operator: str
    before: str
    after: str
    ordinal: int  # among those that are otherwise equal
    lines: tuple[int, int]  # first and last of what a test runs that notices the fault

    @property
    def name(self) -> str:
        ordinal = f" #{self.ordinal}" if self.ordinal else ""
        return f"{self.file} | {self.function} | {self.operator} | {self.before} -> {self.after}{ordinal}"


class _Scope(NamedTuple):
    """Where a node stands."""

    function: str
    lines: tuple[int, int]
    in_function: bool

    def enter(self, node: ast.AST) -> "_Scope":
        """The scope of what stands in a node."""
        if isinstance(node, ast.ClassDef | ast.FunctionDef):
            # a changed default shows where the body runs
            first = node.body[0].lineno if isinstance(node, ast.FunctionDef) else node.lineno
            name = f"{self.function}.{node.name}".lstrip(".")
            return _Scope(name, (first, node.end_lineno or first), isinstance(node, ast.FunctionDef))
        if isinstance(node, ast.stmt) and self.in_function:
            return self._replace(lines=(node.lineno, node.lineno))
        return self


class _Slot(NamedTuple):
    """A place in a syntax tree."""

    parent: ast.AST
    field: str
    place: int | None  # where the field is a list
    scope: _Scope
    shown: ast.AST | None  # what surrounds a constant, which alone says little

    @property
    def node(self) -> ast.AST:
        value = getattr(self.parent, self.field)
        return value if self.place is None else value[self.place]

    @contextmanager
    def filled(self, node: ast.AST | None) -> Iterator[None]:
        """Put a node here for a while; None takes the item out of its list."""
        kept = getattr(self.parent, self.field)
        i = self.place
        setattr(self.parent, self.field, node if i is None else [*kept[:i], *([] if node is None else [node]), *kept[i + 1 :]])
        yield
        setattr(self.parent, self.field, kept)


def find_files(package: Path) -> list[str]:
    """The files that are mutated, below the package."""
    found = [
        path for target in TARGETS for path in ([package / target] if target.endswith(".py") else (package / target).glob("*.py"))
    ]
    return sorted(path.relative_to(package).as_posix() for path in found)


def find_mutants(source: str, file: str) -> list[Mutant]:
    """All mutants of a source file."""
    return [mutant for mutant, _, _ in _candidates(ast.parse(source), file)]


def mutate(source: str, mutant: Mutant) -> str:
    """The source with one fault.

    Raises:
        ValueError: the source has no such mutant.
    """
    tree = ast.parse(source)
    for found, slot, replacement in _candidates(tree, mutant.file):
        if found.name == mutant.name:
            with slot.filled(replacement):
                return ast.unparse(tree)
    raise ValueError(f"no mutant {mutant.name}: draw the sample from the same source")


def draw(mutants: Sequence[Mutant], size: int, seed: int, least: int = 3) -> list[Mutant]:
    """A sample in which each file has its share, at least `least`, and its kinds of faults take turns.

    The order is that of a hash of seed and name, so that a change elsewhere in a file leaves its mutants in the sample.
    """
    files: dict[str, dict[str, list[Mutant]]] = {}
    for mutant in sorted(mutants, key=lambda mutant: hashlib.sha256(f"{seed} {mutant.name}".encode()).digest()):
        files.setdefault(mutant.file, {}).setdefault(mutant.operator, []).append(mutant)
    in_turns = {
        file: [one for turn in zip_longest(*kinds.values()) for one in turn if one] for file, kinds in sorted(files.items())
    }
    shares = _share_out({file: len(found) for file, found in in_turns.items()}, size, least)
    return [mutant for file, found in in_turns.items() for mutant in found[: shares[file]]]


def _share_out(numbers: dict[str, int], size: int, least: int) -> dict[str, int]:
    """`size` in proportion to the numbers: one after the other to the file that is furthest below its share."""
    shares = {file: min(least, number) for file, number in numbers.items()}
    for _ in range(min(size, sum(numbers.values())) - sum(shares.values())):
        open_files = [file for file in numbers if shares[file] < numbers[file]]
        shares[min(open_files, key=lambda file: (shares[file] + 1) / numbers[file])] += 1
    return shares


def _candidates(tree: ast.Module, file: str) -> Iterator[tuple[Mutant, _Slot, ast.AST | None]]:
    """Mutants, each with its place in the tree and what comes there; the tree is the caller's to change."""
    seen: Counter[tuple[str, ...]] = Counter()
    whole = _Scope("", (1, max((node.end_lineno or 1 for node in tree.body), default=1)), in_function=False)
    for slot in list(_slots(tree, whole, None)):
        for operator, replacement in replacements(slot.node, slot.field):
            before = _text(slot)
            with slot.filled(replacement):
                after = "" if replacement is None else _text(slot)
            key = (slot.scope.function, operator, before, after)
            if before != after:
                yield Mutant(file, *key, seen[key], slot.scope.lines), slot, replacement
            seen[key] += 1


def _slots(node: ast.AST, scope: _Scope, context: ast.AST | None) -> Iterator[_Slot]:
    """Places of all nodes that are behaviour, in the order of the source."""
    for field, value in ast.iter_fields(node):
        if field in SKIPPED_FIELDS:
            continue
        for index, child in enumerate(value) if isinstance(value, list) else [(None, value)]:
            if isinstance(child, ast.AST) and not _is_skipped(child):
                inside = scope.enter(child)
                shown = context if isinstance(child, SMALL_NODES) else None
                yield _Slot(node, field, index, inside, shown)
                yield from _slots(child, inside, shown or (None if hasattr(child, "body") else child))


def _is_skipped(node: ast.AST) -> bool:
    match node:
        case ast.FunctionDef(name):
            return name in SKIPPED_FUNCTIONS
        case ast.keyword(arg):
            return arg in SKIPPED_KEYWORDS
        case _:
            return isinstance(node, SKIPPED_NODES)


def _text(slot: _Slot) -> str:
    """How a place reads in a name: one line, and of compound statements the head alone."""
    parent = slot.parent
    if isinstance(parent, ast.arguments):
        names = parent.kwonlyargs if slot.field == "kw_defaults" else [*parent.posonlyargs, *parent.args][-len(parent.defaults) :]
        return f"{names[slot.place or 0].arg}={ast.unparse(slot.node)}"
    shown = slot.shown or slot.node
    return ast.unparse(shown).strip().partition("\n")[0]
