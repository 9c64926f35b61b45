"""Declarations of a sweep that a comparison reads: factors, family, looks."""

from collections.abc import Iterable, Mapping, Sequence
from difflib import get_close_matches
from itertools import chain
from typing import Any, Literal, NamedTuple, get_args

from semconv.configuration import bare

# parameters of a sweep that identify a run and are no part of its protocol
NO_FACTORS = ("config", "c", "seed_everything", "experiment")
FEWEST_SEEDS, MOST_LOOKED_AT = 3, 10_000  # of a verdict
WIDE = "plain_wide"  # kind of control: plain of equal compute
DECLARATIONS = ("factors", "family", "tuned", "looks", "spending", "negligible", "endpoints")  # lines of a description
Spending = Literal["obrien_fleming", "pocock"]


class Looks(NamedTuple):
    """A plan of looks.

    Args:
        seeds: numbers of seeds at which the results are looked at, rising.
        spending: error-spending function. `obrien_fleming` spends little early, so the last look tests almost at the whole level;
            `pocock` spends evenly, so that large effects stop early.
    """

    seeds: tuple[int, ...]
    spending: Spending = "obrien_fleming"

    @classmethod
    def of(cls, seeds: Sequence[int], spending: str = "obrien_fleming") -> "Looks":
        """Make a plan from a user's input.

        Raises:
            ValueError: it is none.
        """
        if spending not in get_args(Spending):
            raise ValueError(f"spending is {spending}: give {' or '.join(get_args(Spending))}")
        if not seeds or seeds[0] < FEWEST_SEEDS or seeds[-1] > MOST_LOOKED_AT or sorted(set(seeds)) != list(seeds):
            raise ValueError(
                f"looks are {' '.join(map(str, seeds))}: give rising numbers of seeds, from {FEWEST_SEEDS} to {MOST_LOOKED_AT}"
            )
        return cls(tuple(seeds), spending)  # type: ignore[arg-type]

    def reached(self, num_seeds: int) -> list[int]:
        """The looks for which there are enough seeds."""
        return [look for look in self.seeds if look <= num_seeds]


class Declared(NamedTuple):
    """Declarations of sweeps.

    Args:
        factors: dotted keys, without init_args, that were varied on purpose.
        family: experiments that are judged together.
        tuned: dotted keys that each variant has at its own value.
        looks: plan of a confirmation.
        negligible: share of the margin up to which a gain or loss is negligible; None: not declared.
        endpoints: metrics that candidates are judged by.
    """

    factors: tuple[str, ...] = ()
    family: tuple[str, ...] = ()
    tuned: tuple[str, ...] = ()
    looks: Looks | None = None
    negligible: float | None = None
    endpoints: tuple[str, ...] = ()


def control_file(name: str) -> str:
    """The name of the experiment that makes a kind of control of a variant."""
    return "controls/cnn_plain_wide" if name == WIDE else f"controls/{name}"


def declared_by(sweep: Mapping[str, Any]) -> Declared:
    """The declarations of a sweep in W&B's schema.

    Factors are the parameters that it varies. W&B's schema takes no keys of ours, and keeps the description as it is: its lines
    `factors:` (keys that its configuration files vary), `family:`, `tuned:`, `looks:` (numbers of seeds), `spending:`,
    `negligible:` and `endpoints:` are read.

    Raises:
        ValueError: a line holds something else, or begins with a word that is nearly a declaration.
    """
    parameters = sweep.get("parameters")
    parameters = parameters if isinstance(parameters, Mapping) else {}
    varied = [bare(key) for key, spec in parameters.items() if isinstance(key, str) and isinstance(spec, Mapping) and _varies(spec)]
    lines = _described(sweep)
    tuned = lines.get("tuned", ())
    factors = [key for key in varied if key.lstrip("-") not in NO_FACTORS and key not in tuned]
    return Declared(
        (*factors, *lines.get("factors", ())),
        lines.get("family", ()),
        tuned,
        _looks(lines),
        _share(lines["negligible"]) if "negligible" in lines else None,
        lines.get("endpoints", ()),
    )


def joined(declarations: Iterable[Declared]) -> Declared:
    """The declarations of several sweeps as one.

    Raises:
        ValueError: they contradict each other.
    """
    given = list(declarations)
    plans = list(dict.fromkeys(each.looks for each in given if each.looks))
    shares = list(dict.fromkeys(each.negligible for each in given if each.negligible is not None))
    if len(plans) > 1 or len(shares) > 1:
        raise ValueError("the sweeps declare different looks, or different shares of the margin: compare them one by one")
    return Declared(
        _distinct(each.factors for each in given),
        _distinct(each.family for each in given),
        _distinct(each.tuned for each in given),
        plans[0] if plans else None,
        shares[0] if shares else None,
        _distinct(each.endpoints for each in given),
    )


def _distinct(lists: Iterable[tuple[str, ...]]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(chain.from_iterable(lists)))


def _described(sweep: Mapping[str, Any]) -> dict[str, tuple[str, ...]]:
    found: dict[str, tuple[str, ...]] = {}
    for line in str(sweep.get("description") or "").splitlines():
        key, colon, rest = line.partition(":")
        if colon and key not in DECLARATIONS and (meant := get_close_matches(key.strip().lower(), DECLARATIONS, n=1, cutoff=0.8)):
            raise ValueError(
                f"a line of the description begins with {key!r}: write {meant[0]}: if it is to declare it, else word it otherwise"
            )
        if colon and key in DECLARATIONS and "," in rest:
            raise ValueError(f"{key}:{rest} holds a comma: separate names and numbers by spaces")
        if colon:
            found[key] = (*found.get(key, ()), *rest.split())
    return found


def _looks(lines: Mapping[str, tuple[str, ...]]) -> Looks | None:
    if "looks" not in lines:
        return None
    try:
        seeds = [int(word) for word in lines["looks"]]
    except ValueError:
        raise ValueError(f"looks: {' '.join(lines['looks'])} is no list of numbers of seeds: give such as 5 10 20") from None
    return Looks.of(seeds, *([" ".join(lines["spending"])] if "spending" in lines else []))


def _share(words: tuple[str, ...]) -> float:
    try:
        (share,) = map(float, words)
    except ValueError:
        share = -1.0
    if not 0 <= share <= 1:
        raise ValueError(f"negligible: {' '.join(words)} is no share of the margin: give a number from 0 to 1")
    return share


def _varies(spec: Mapping[str, Any]) -> bool:
    values = spec.get("values")
    return len(values) > 1 if isinstance(values, list) else "value" not in spec
