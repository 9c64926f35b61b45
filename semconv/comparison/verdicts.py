"""Verdicts on a variant: against plain, against its controls, and against plain of equal compute."""

import statistics
from collections.abc import Callable, Collection, Mapping, Sequence
from itertools import takewhile
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from semconv.comparison.declared import FEWEST_SEEDS, Looks
from semconv.comparison.sequential import level_of, repeated_p
from semconv.comparison.statistics import (
    ALPHA,
    FINEST,
    Paired,
    holm,
    p_above,
    p_inside,
    paired,
    seeds_for_equivalence,
    seeds_needed,
    spread,
)
from semconv.metrics import Metric

Word = Literal["beneficial", "harmful", "equivalent", "inconclusive"]
Seeds = Mapping[int, float]  # values by seed
PLAIN, CANDIDATE = "plain", "it"


class Claims(NamedTuple):
    """p values of the claims about a candidate; 1 where a claim cannot be tested."""

    beneficial: float = 1.0
    harmful: float = 1.0
    equivalent: float = 1.0


class Evidence(NamedTuple):
    """All comparisons of one candidate by one endpoint, over the seeds that all of them have."""

    against: Mapping[str, Paired]  # plain, controls by name, plain_wide; empty without a common seed
    p: Claims
    margin: float = 0.0  # of equivalence to plain, in the endpoint's units
    negligible: float = 0.0  # a gain or loss up to this size is called negligible
    sd: float = 0.0  # of the differences to plain
    lacking: Mapping[str, Sequence[int]] = {}  # seeds that the candidate has, or has lost, by the network that lacks them
    missing: Sequence[str] = ()  # what beneficial needs and was not run
    refusal: str = ""  # a reason to refuse a verdict
    next_look: int | None = None  # number of seeds at which the results are looked at next
    reached: bool = False  # a look has been reached
    unused: Sequence[int] = ()  # seeds after the look that is judged


class Verdict(NamedTuple):
    """One word on a candidate by one endpoint, and the reason."""

    word: Word
    negligible: bool
    p: float | None  # of the claim (inconclusive: that it is beneficial), adjusted over the family; None where it was not tested
    hardest: str | None  # the comparison of the largest p
    reason: str
    seeds: int | None  # number that would settle it

    @property
    def text(self) -> str:
        return f"{self.word}, but negligible" if self.negligible else self.word


def gather(
    endpoint: Metric,
    candidate: Seeds,
    others: Mapping[str, Seeds],
    *,
    negligible: float = 1.0,
    missing: Sequence[str] = (),
    refuse: Callable[[Sequence[int]], str] | None = None,
    lost: Mapping[str, Collection[int]] = {},
    looks: Looks | None = None,
    num_looks: int | None = None,
) -> Evidence:
    """Compare a candidate with everything that it has to beat, over the seeds that all have.

    A network without a seed in common with the candidate counts as missing, so that it blocks no comparison with plain.

    Args:
        endpoint: what is judged.
        candidate: its values by seed.
        others: values of plain, of the candidate's controls, and of plain of equal compute, by name; all finite.
        negligible: share of the margin up to which a gain or loss is negligible.
        missing: what a variant has to beat and was not run.
        refuse: gives, for the seeds that are judged, a reason to refuse a verdict, or none.
        lost: seeds that a network was run with and has no finite value of, by its name (`CANDIDATE`: the candidate).
        looks: plan of a confirmation. A look is reached once all networks have been run with each of so many seeds, the first of
            all in rising order; those of them that a network has lost are left out, and later ones do not replace them. None: all
            seeds, once.
        num_looks: number of looks that are taken, at most; None: all.
    """
    apart = [name for name, values in others.items() if name != PLAIN and not any(seed in values for seed in candidate)]
    present = {name: values for name, values in others.items() if name not in apart}
    run = {name: {*values, *lost.get(name, ())} for name, values in {CANDIDATE: candidate, **present}.items()}
    order = sorted({seed for name, seeds in run.items() if name != PLAIN for seed in seeds})
    reached, following = [len(order)], None
    if looks:
        reached = list(
            takewhile(lambda look: len(order) >= look and all(map(set(order[:look]).issubset, run.values())), looks.seeds)
        )
        following = next(iter(looks.seeds[len(reached) :]), None)
        reached = reached[:num_looks]
    order, unused = (order[: reached[-1]], order[reached[-1] :]) if reached else (order, [])
    lacking = {name: [seed for seed in order if seed not in values] for name, values in {CANDIDATE: candidate, **others}.items()}
    lacking = {name: seeds for name, seeds in lacking.items() if seeds}
    missing, refusal = [*missing, *apart], refuse(order) if refuse else ""
    used = [seed for seed in order if seed in candidate and all(seed in values for values in present.values())]
    if not used or PLAIN not in present:
        return Evidence({}, Claims(), lacking=lacking, missing=missing, refusal=refusal, next_look=following, unused=unused)
    margin, resolution = in_units(endpoint, [present[PLAIN][seed] for seed in used])
    differences = {
        name: {seed: endpoint.sign * (candidate[seed] - values[seed]) for seed in used} for name, values in present.items()
    }
    p_values = []
    for look in reached:
        seeds = [seed for seed in order[:look] if seed in used]
        at_look = {name: [each[seed] for seed in seeds] for name, each in differences.items()}
        p_values.append(claims(at_look, margin, resolution) if len(seeds) >= FEWEST_SEEDS else np.ones(len(Claims._fields)))
    p = Claims()
    if reached:
        at_looks = np.stack(p_values, axis=-1)
        p = Claims(*(repeated_p(at_looks, looks) if looks else at_looks)[:, -1].tolist())
    level = level_of(looks, reached[-1] if reached else 0)
    own_differences = list(differences[PLAIN].values())
    return Evidence(
        {name: paired(list(each.values()), resolution, level) for name, each in differences.items()},
        p._replace(beneficial=1.0) if missing else p,
        margin,
        negligible * margin,
        statistics.stdev(own_differences) if len(used) > 1 else 0.0,
        lacking,
        missing,
        refusal,
        following,
        bool(reached),
        unused,
    )


def in_units(endpoint: Metric, plain: Sequence[float]) -> tuple[float, float]:
    """Margin and resolution of an endpoint in its own unit: shares of the mean of plain's values where they are relative."""
    unit = abs(statistics.fmean(plain)) if endpoint.relative and plain else 1.0
    return endpoint.margin * unit, max(endpoint.resolution * unit, FINEST)


def claims(differences: Mapping[str, ArrayLike], margin: float, resolution: float = FINEST) -> NDArray:
    """p values of all claims about a candidate, in the order of `Claims` on the first axis.

    That of *beneficial* is the largest of its comparisons' (intersection-union; Berger, 1982), as it has to win all of them.

    Args:
        differences: to plain and the others, by name; seeds on the last axis.
        margin: of equivalence to plain.
        resolution: least standard deviation of the differences.
    """
    values = {name: spread(each, resolution) for name, each in differences.items()}
    plain = values[PLAIN]
    return np.stack([np.max([p_above(each) for each in values.values()], axis=0), p_above(-plain), p_inside(plain, margin)])


def judge(family: Sequence[Evidence]) -> list[Verdict]:
    """Verdicts on a family of candidates: each claim has Holm's step-down over the family.

    A candidate that cannot be tested counts in the family.
    """
    tested = [Claims() if evidence.refusal else evidence.p for evidence in family]
    adjusted = holm(np.array(tested).reshape(-1, len(Claims._fields)).T).T.tolist()
    return [_verdict(evidence, Claims(*p), len(family)) for evidence, p in zip(family, adjusted, strict=True)]


def _verdict(evidence: Evidence, p: Claims, family: int) -> Verdict:
    against, plain = evidence.against, evidence.against.get(PLAIN)
    hardest = max(against, key=lambda name: _p(against[name]), default=None)
    if plain is None:
        return Verdict("inconclusive", False, None, None, _with_losses("no seed that all networks have", evidence), None)
    small = abs(plain.difference) <= evidence.negligible
    inside = f"; the margin is {evidence.margin:.2g}" if small else ""
    untested = evidence.missing or evidence.refusal or plain.n < FEWEST_SEEDS or not evidence.reached
    found = Verdict("inconclusive", False, None if untested else p.beneficial, hardest, "", None)
    if p.beneficial < ALPHA:
        found = found._replace(word="beneficial", negligible=small, reason=f"beats all; hardest: {hardest}{inside}")
    elif p.harmful < ALPHA:
        found = found._replace(word="harmful", negligible=small, p=p.harmful, hardest=PLAIN, reason=f"worse than plain{inside}")
    elif p.equivalent < ALPHA:
        reason = f"to plain, within {evidence.margin:.2g}"
        found = found._replace(word="equivalent", p=p.equivalent, hardest=PLAIN, reason=reason)
    else:
        reason, seeds = _open(evidence, plain, family)
        found = found._replace(reason=reason, seeds=seeds)
    return found._replace(reason=_with_losses(found.reason, evidence))


def _open(evidence: Evidence, plain: Paired, family: int) -> tuple[str, int | None]:
    """The reason of an inconclusive verdict, and the number of seeds that would settle it."""
    if evidence.refusal:
        return evidence.refusal, None
    if plain.n < FEWEST_SEEDS:
        return f"a verdict takes at least {FEWEST_SEEDS} seeds", None
    effects = {name: found.effect for name, found in evidence.against.items() if found.effect is not None}
    least = min(effects, key=lambda name: effects[name])
    if effects[least] > 0:
        seeds = seeds_needed(effects[least], ALPHA / family)
        reason = f"{seeds} seeds would settle it" if seeds else "more than 1,000 seeds"
    elif evidence.margin == 0:
        return f"does not beat {least}; there is no margin of equivalence, as the mean of plain is 0", None
    else:
        seeds = seeds_for_equivalence(evidence.sd, evidence.margin, ALPHA / family)
        reason = f"does not beat {least}; equivalence to plain would take {f'{seeds} seeds' if seeds else 'more than 1,000 seeds'}"
    if evidence.next_look:
        reason = f"next look at {evidence.next_look} seeds; {reason}"
    if evidence.missing:
        *first, last = evidence.missing
        reason = f"not compared with {' and '.join(filter(None, (', '.join(first), last)))}"
    return reason, seeds


def _with_losses(reason: str, evidence: Evidence) -> str:
    """The reason, and the seeds that were left out: those that a network lacks, and those after the look that is judged."""
    losses = [f"{name} lacks {_seeds(seeds)}" for name, seeds in evidence.lacking.items()]
    late = [f"not used, as later than the look: {_seeds(evidence.unused)}"] if evidence.unused else []
    return "; ".join([reason, *losses, *late])


def _seeds(seeds: Sequence[int]) -> str:
    return f"seed{'s' * (len(seeds) > 1)} {', '.join(map(str, seeds))}"


def _p(found: Paired) -> float:
    """p of the claim that a comparison is won."""
    return 1.0 if found.p is None or found.difference <= 0 else found.p
