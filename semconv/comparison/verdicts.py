"""Verdicts on a variant: against plain, against its controls, and against plain of equal compute."""

import statistics
from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple

from semconv.comparison.statistics import (
    ALPHA,
    Paired,
    equivalence,
    holm,
    paired,
    seeds_for_equivalence,
    seeds_needed,
)
from semconv.metrics import Metric

Word = Literal["beneficial", "equivalent", "inconclusive"]
PLAIN, WIDE = "plain", "plain_wide"
CONTROLS = ("zero", "constant", "fixed", "shuffled")


class Evidence(NamedTuple):
    """All comparisons of one candidate by one endpoint."""

    against: Mapping[str, Paired]  # plain, controls by name, plain_wide; without those that have no runs
    p_equivalent: float | None  # to plain
    margin: float  # in the endpoint's units
    sd: float  # of the differences to plain
    refusal: str = ""  # why there is to be no verdict


class Verdict(NamedTuple):
    """One word on a candidate by one endpoint, and the reason."""

    word: Word
    p: float | None  # adjusted over the family; None where it could not be tested
    hardest: str | None  # the comparison of the largest p
    reason: str
    seeds: int | None  # number that would settle it


def gather(
    endpoint: Metric,
    candidate: Mapping[int, float],
    plain: Mapping[int, float],
    controls: Mapping[str, Mapping[int, float]],
    wide: Mapping[int, float] | None,
) -> Evidence:
    """Compare a candidate with everything that it has to beat, seed by seed.

    Args:
        endpoint: what is judged.
        candidate: its values by seed.
        plain: values of the baseline.
        controls: values of the candidate's controls, by name.
        wide: values of plain of equal compute.
    """
    others = {PLAIN: plain, **controls, **({WIDE: wide} if wide is not None else {})}
    differences = {name: _differences(endpoint.sign, candidate, values) for name, values in others.items()}
    against = {name: paired(values) for name, values in differences.items() if values}
    own = differences[PLAIN]
    margin = endpoint.margin
    if endpoint.relative and own:
        margin *= abs(statistics.fmean(plain[seed] for seed in candidate if seed in plain))
    sd = statistics.stdev(own) if len(own) > 1 else 0.0
    return Evidence(against, equivalence(own, margin) if own else None, margin, sd)


def judge(family: Sequence[Evidence]) -> list[Verdict]:
    """Verdicts on a family of candidates.

    The p value of a candidate is the largest of its comparisons' (intersection-union; Berger, 1982), as it has to win all of them;
    to beat the best of the controls is to beat each. Holm's step-down over the family. A candidate that lacks a kind of comparison
    or is refused a verdict is not tested, but counts in the family.
    """
    tested = [_largest(evidence) if not (evidence.refusal or _missing(evidence)) else None for evidence in family]
    p_values = [p if p is not None else 1.0 for p in tested]
    return [
        _verdict(evidence, None if p is None else adjusted, len(family))
        for evidence, p, adjusted in zip(family, tested, holm(p_values), strict=True)
    ]


def _verdict(evidence: Evidence, p: float | None, family: int) -> Verdict:
    hardest = max(evidence.against, key=lambda name: _p(evidence.against[name]), default=None)
    missing = _missing(evidence)
    if evidence.refusal:
        return Verdict("inconclusive", p, hardest, evidence.refusal, None)
    if p is not None and p < ALPHA:
        return Verdict("beneficial", p, hardest, f"beats all; hardest: {hardest}", None)
    if evidence.p_equivalent is not None and evidence.p_equivalent < ALPHA:
        return Verdict("equivalent", p, hardest, f"to plain, within {evidence.margin:.2g} (p = {evidence.p_equivalent:.2g})", None)
    plain = evidence.against.get(PLAIN)
    if plain is None:
        return Verdict("inconclusive", p, hardest, "no seed in common with plain", None)
    if plain.p is None:
        return Verdict("inconclusive", p, hardest, "one seed: no interval", None)
    effects = [found.effect for found in evidence.against.values() if found.effect is not None]
    seeds = seeds_needed(min(effects), ALPHA / family)
    settled = f"{seeds} seeds would settle it" if seeds else "more than 1,000 seeds"
    if plain.high is not None and plain.high < 0:
        return Verdict("inconclusive", p, hardest, f"worse than plain (p = {1 - plain.p:.2g})", None)
    if min(effects) <= 0:
        seeds = seeds_for_equivalence(evidence.sd, evidence.margin)
        settled = (
            f"does not beat {hardest}; equivalence to plain would take {f'{seeds} seeds' if seeds else 'more than 1,000 seeds'}"
        )
    if missing:
        return Verdict("inconclusive", p, hardest, f"not compared with {' and '.join(missing)}", seeds)
    return Verdict("inconclusive", p, hardest, settled, seeds)


def _missing(evidence: Evidence) -> list[str]:
    """The kinds of comparison that cannot be made."""
    tested = {name for name, found in evidence.against.items() if found.p is not None}
    kinds = {"plain": {PLAIN}, "a control": set(CONTROLS), WIDE: {WIDE}}
    return [kind for kind, names in kinds.items() if not tested & names]


def _largest(evidence: Evidence) -> float:
    return max(_p(found) for found in evidence.against.values())


def _p(found: Paired) -> float:
    return 1.0 if found.p is None else found.p


def _differences(sign: int, ours: Mapping[int, float], theirs: Mapping[int, float]) -> list[float]:
    return [sign * (ours[seed] - theirs[seed]) for seed in sorted(ours) if seed in theirs]
