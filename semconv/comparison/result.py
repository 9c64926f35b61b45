"""A comparison as data, which tables, files and reports present."""

import statistics
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

from semconv.comparison.declared import WIDE, Declared
from semconv.comparison.grouping import Groups, Level, Variant, alike, controls_of, setting, shared_protocol
from semconv.comparison.sequential import level_of
from semconv.comparison.statistics import ALPHA, Paired, interaction, paired
from semconv.comparison.verdicts import CANDIDATE, PLAIN, Claims, Evidence, Verdict, gather, in_units, judge
from semconv.metrics import CLASSICAL, MASKED_MSE, NUM_TEST_IMAGES, SHARE_OF_IMAGES, SPEED, UNTRAINED, Metric, of_section

if TYPE_CHECKING:
    from pandas import DataFrame

COSTS = of_section("costs")
OPERATIONS = ("cost/train_flops", "cost/flops")  # of a training step, which a wide plain is matched by; else of a forward pass
PARAMETERS = "cost/encoder_parameters"
NO_OPPONENTS = ("noise", "plain_slow")  # diagnostics
MATCHED = 1.03  # networks are matched in parameters up to this ratio
STEADY = 1.1  # runs of one network are as fast as each other up to this ratio, or their speed is that of a busy machine
SAME_COST = 1.02  # plain of equal compute is needed where the variant takes more than this share of plain's


class Judged(NamedTuple):
    """A candidate by one endpoint."""

    variant: Variant
    endpoint: Metric
    evidence: Evidence
    verdict: Verdict | None  # None outside the family


class Interaction(NamedTuple):
    """A test whether a candidate's gain over plain depends on the level."""

    label: str
    endpoint: Metric
    statistic: float  # F
    p: float


class Comparison(NamedTuple):
    """All results of comparing some runs."""

    groups: Groups
    endpoints: list[Metric]
    judged: list[Judged]
    references: list[tuple[Variant, Metric, Paired]]  # other networks against plain
    interactions: list[Interaction]
    undominated: dict[tuple[str, str], list[Variant]]  # by endpoint and cost, without parameters where they are matched
    baseline: str
    family: list[str]

    @property
    def results(self) -> "DataFrame":
        """One row per variant and level: n, mean and deviation of each endpoint, verdicts, costs."""
        from semconv.comparison import frames

        return frames.results(self)

    @property
    def verdicts(self) -> "DataFrame":
        """One row per candidate and endpoint."""
        from semconv.comparison import frames

        return frames.verdicts(self)

    @property
    def differences(self) -> "DataFrame":
        """One row per paired comparison: against plain, each control, plain of equal compute, and the untrained network."""
        from semconv.comparison import frames

        return frames.differences(self)

    def __repr__(self) -> str:
        """Results and verdicts as text."""
        shown = [table.drop(columns="reason", errors="ignore") for table in (self.results.reset_index(), self.verdicts)]
        return "\n\n".join(table.to_string(index=False) for table in shown if len(table))

    def _repr_html_(self) -> str:
        """The report, as a notebook shows it."""
        from semconv.comparison.report.page import inline

        return inline(self)


def compare(groups: Groups, endpoints: Sequence[Metric], baseline: str, declared: Declared) -> Comparison:
    """Judge every candidate by every endpoint.

    Args:
        groups: the variants.
        endpoints: metrics that they are judged by, each with a family of its own.
        baseline: the experiment without conditioning.
        declared: the family over which Holm's correction goes (empty: all candidates, at all levels), the looks, and the share of
            the margin that is negligible.
    """
    candidates = [variant for variant in groups.variants if variant.kind == "candidate"]
    members = [variant for variant in candidates if not declared.family or variant.experiment in declared.family]
    absent = [name for name in declared.family if all(variant.experiment != name for variant in members)]
    levels = len({variant.level for variant in members}) or 1
    judged: list[Judged] = []
    references: list[tuple[Variant, Metric, Paired]] = []
    for endpoint in endpoints:
        if any(variant.values(endpoint.key) or variant.failed(endpoint.key) for variant in candidates):
            judged += _judged(candidates, members, len(absent) * levels, endpoint, groups.variants, declared)
        for variant in groups.variants:
            differences = _against_plain(variant, endpoint, groups.variants) if variant.kind in ("reference", "oracle") else {}
            if differences:
                plain = plain_of(variant, groups.variants)
                values = list(plain.values(endpoint.key).values()) if plain else []
                _, resolution = in_units(_resolved(endpoint, variant), values)
                level = level_of(declared.looks, len(variant.runs))
                references.append((variant, endpoint, paired(list(differences.values()), resolution, level)))
    return Comparison(
        groups,
        list(endpoints),
        judged,
        references,
        [found for endpoint in endpoints for found in _interactions(candidates, endpoint, groups)],
        {
            (endpoint.key, cost.key): _pareto(groups.variants, endpoint, cost)
            for endpoint in endpoints
            for cost in COSTS
            if not _matched(groups.variants, cost)
        },
        baseline,
        [*(variant.label for variant in members), *absent * levels],
    )


def by_level(variants: Sequence[Variant]) -> dict[Level, list[Variant]]:
    """The variants of each level."""
    levels: dict[Level, list[Variant]] = {}
    for variant in variants:
        levels.setdefault(variant.level, []).append(variant)
    return levels


def plain_of(variant: Variant, variants: Sequence[Variant]) -> Variant | None:
    """The baseline at a variant's level, of its decoder where there is one.

    Raises:
        ValueError: see `alike`.
    """
    return alike(variant, [other for other in variants if other.kind == "baseline" and other.level == variant.level])


def classical(key: str, variants: Sequence[Variant]) -> dict[str, float]:
    """What baselines without a network give in place of a metric, by their names: means over the runs that have measured them."""
    values = {
        name: [value for variant in variants for value in variant.values(keys.get(key, "")).values()]
        for name, keys in CLASSICAL.items()
    }
    return {name: statistics.fmean(found) for name, found in values.items() if found}


def beside_baseline(variant: Variant, endpoint: Metric, seeds: Iterable[int] | None = None) -> list[tuple[float, float]]:
    """An endpoint of a variant and that of the same network untrained, or from scratch, for each seed that has both; of some
    seeds, or of all."""
    own, baseline = variant.values(endpoint.key), variant.values(endpoint.baseline)
    among = own.keys() & baseline.keys()
    return [(own[seed], baseline[seed]) for seed in sorted(among if seeds is None else among & set(seeds))]


def against_baseline(variant: Variant, endpoint: Metric, seeds: Iterable[int] | None = None) -> Paired | None:
    """A variant against the same network untrained, or from scratch, paired by seed; None where no seed has both."""
    pairs = beside_baseline(variant, endpoint, seeds)
    _, resolution = in_units(_resolved(endpoint, variant), [baseline for _, baseline in pairs])
    return paired([endpoint.sign * (own - baseline) for own, baseline in pairs], resolution) if pairs else None


def refusal(variant: Variant, endpoint: Metric, seeds: Sequence[int]) -> str:
    """The reason why there is no verdict on a variant by an endpoint of its features; empty where there may be one.

    Features that do not beat those of the untrained network say nothing about what was learned.

    Args:
        variant: the variant.
        endpoint: the endpoint.
        seeds: those of the look that is judged.
    """
    if not endpoint.baseline.startswith(f"{UNTRAINED}/"):
        return ""
    found = against_baseline(variant, endpoint, seeds)
    if found is None:
        return "not compared with its untrained self"
    if found.difference > 0 and found.p is not None and found.p < ALPHA:
        return ""
    pairs = beside_baseline(variant, endpoint, seeds)
    own, untrained = (f"{statistics.fmean(values):.3f}" for values in zip(*pairs, strict=True))
    chance = f"; p = {found.p:.2g}" if found.difference > 0 and found.p is not None else ""
    return f"does not beat its untrained self ({own} against {untrained}){chance}"


def _judged(
    candidates: Sequence[Variant],
    members: Sequence[Variant],
    num_absent: int,
    endpoint: Metric,
    variants: Sequence[Variant],
    declared: Declared,
) -> list[Judged]:
    """Evidence on all candidates, and verdicts on the members of the family.

    With a plan of looks, verdicts are given look by look. A candidate whose verdict is settled keeps the evidence of that look,
    whatever later seeds say: the plan would have trained none.
    """
    absent = [Evidence({}, Claims())] * num_absent
    evidence: dict[Variant, Evidence] = {}
    words: dict[Variant, Verdict] = {}
    for number in range(1, len(declared.looks.seeds) + 1) if declared.looks else [None]:
        for variant in candidates:
            if variant not in words or words[variant].word == "inconclusive":
                evidence[variant] = _evidence(variant, endpoint, variants, declared, number)
        found = judge([*(evidence[variant] for variant in members), *absent])
        words = dict(zip(members, found, strict=False))
    return [Judged(variant, endpoint, found, words.get(variant)) for variant, found in evidence.items()]


def _evidence(variant: Variant, endpoint: Metric, variants: Sequence[Variant], declared: Declared, look: int | None) -> Evidence:
    others, missing = opponents(variant, variants)
    return gather(
        _resolved(endpoint, variant),
        variant.values(endpoint.key),
        {name: other.values(endpoint.key) for name, other in others.items()},
        negligible=1.0 if declared.negligible is None else declared.negligible,
        missing=missing,
        refuse=partial(refusal, variant, endpoint),
        looks=declared.looks,
        num_looks=look,
        lost={name: each.runs.keys() - each.values(endpoint.key).keys() for name, each in {CANDIDATE: variant, **others}.items()},
    )


def _resolved(endpoint: Metric, variant: Variant) -> Metric:
    """An endpoint with the resolution that a variant's test images give it: shares of images are known to one image."""
    images = variant.mean(NUM_TEST_IMAGES)
    if endpoint.unit != SHARE_OF_IMAGES or not images:
        return endpoint
    return endpoint._replace(resolution=max(endpoint.resolution, 1 / images))


def opponents(variant: Variant, variants: Sequence[Variant]) -> tuple[dict[str, Variant], list[str]]:
    """All networks that a candidate has to beat, by name, and the names of those that it has to beat and that have no runs.

    They are plain, each control that its indicators declare or that was run, and plain of equal compute where the variant costs
    more than plain. A zero control that computes what plain computes, or a wide plain that is plain, adds nothing and is left out.
    A wide plain of fewer operations than the variant does not count.
    """
    plain, own = plain_of(variant, variants), controls_of(variant, variants)
    operations = operations_of(*(each.mean for each in (variant, plain, own.get(WIDE)) if each))
    cost, cost_of_plain = variant.mean(operations), plain.mean(operations) if plain else None
    wider = cost is None or cost_of_plain is None or cost > SAME_COST * cost_of_plain
    needed = [PLAIN, *variant.controls, *([WIDE] if wider else [])]
    if WIDE in own and wider and cost is not None and (own[WIDE].mean(operations) or cost) * SAME_COST < cost:
        del own[WIDE]
    ran = {name: other for name, other in own.items() if is_opponent(name)}
    found = {PLAIN: plain, **ran} if plain else ran
    same = {name for name, other in ran.items() if plain and same_errors(other, plain, variant.runs)}
    return {name: other for name, other in found.items() if name not in same}, [name for name in needed if name not in found]


def is_opponent(control: str) -> bool:
    """True for a kind of control that its variant has to beat, where it was run; the others are there to be looked at."""
    return control not in NO_OPPONENTS and not control.startswith("gradual_")


def operations_of(*values: Callable[[str], float | None]) -> str:
    """The metric by which operations of networks are compared: the first of `OPERATIONS` that all of them have.

    Args:
        values: for each network, from the key of a metric to its value.
    """
    return next((key for key in OPERATIONS if all(value(key) is not None for value in values)), OPERATIONS[-1])


def same_errors(variant: Variant, other: Variant, seeds: Iterable[int]) -> bool:
    """True if the errors of two variants agree to the last bit at every one of some seeds: they compute the same."""
    ours, theirs = variant.values(MASKED_MSE), other.values(MASKED_MSE)
    return all(seed in ours and ours[seed] == theirs.get(seed) for seed in seeds)


def _against_plain(variant: Variant, endpoint: Metric, variants: Sequence[Variant]) -> dict[int, float]:
    plain = plain_of(variant, variants)
    theirs = plain.values(endpoint.key) if plain else {}
    return {seed: endpoint.sign * (value - theirs[seed]) for seed, value in variant.values(endpoint.key).items() if seed in theirs}


def _interactions(candidates: Sequence[Variant], endpoint: Metric, groups: Groups) -> list[Interaction]:
    found = []
    plain = [value for each in groups.variants if each.kind == "baseline" for value in each.values(endpoint.key).values()]
    if groups.factors:
        for label, variant in {variant.label: variant for variant in candidates}.items():
            levels = {
                str(each.level): _against_plain(each, endpoint, groups.variants) for each in candidates if each.label == label
            }
            _, resolution = in_units(_resolved(endpoint, variant), plain)
            tested = interaction({level: values for level, values in levels.items() if values}, resolution)
            if tested:
                found.append(Interaction(label, endpoint, *tested))
    return found


def _matched(variants: Sequence[Variant], cost: Metric) -> bool:
    """True for parameters that all variants but controls have in common, as the protocol has it: they compare nothing."""
    found = [value for variant in variants if variant.kind != "control" and (value := variant.mean(cost.key))]
    return cost.key == PARAMETERS and len(found) > 1 and max(found) <= MATCHED * min(found)


def unsteady(variants: Iterable[Variant], cost: Metric) -> float | None:
    """The largest ratio between the speeds of two runs of one network, where it is so large that it says more of the machine."""
    found = [list(variant.values(cost.key).values()) for variant in variants if cost.unit == SPEED]
    ratio = max((max(values) / min(values) for values in found if values and min(values) > 0), default=1.0)
    return ratio if ratio > STEADY else None


def _pareto(variants: Sequence[Variant], endpoint: Metric, cost: Metric) -> list[Variant]:
    """The Pareto front of each level: variants that no other one beats by endpoint or cost without being worse by the other.

    Oracles and controls do not take part. Empty for a speed that is not steady.
    """
    if unsteady(variants, cost):
        return []
    points = []
    for variant in variants:
        quality, price = variant.mean(endpoint.key), variant.mean(cost.key)
        if variant.kind not in ("oracle", "control") and quality is not None and price is not None:
            points.append((variant, endpoint.sign * quality, cost.sign * price))
    return [
        variant
        for variant, quality, price in points
        if not any(
            other.level == variant.level and q >= quality and c >= price and (q > quality or c > price) for other, q, c in points
        )
    ]


def as_data(comparison: Comparison) -> dict[str, Any]:
    """The whole comparison as plain values, for JSON."""
    return {
        "baseline": comparison.baseline,
        "protocol": shared_protocol(comparison.groups.variants),
        "family": comparison.family,
        "factors": comparison.groups.factors,
        "allowed": comparison.groups.allowed,
        "endpoints": [endpoint._asdict() for endpoint in comparison.endpoints],
        "variants": [_variant_data(variant, comparison) for variant in comparison.groups.variants],
        "verdicts": [
            {
                **_place(judged.variant),
                "endpoint": judged.endpoint.key,
                "under": setting(judged.variant.first),
                "against": {name: found._asdict() for name, found in judged.evidence.against.items()},
                "p": judged.evidence.p._asdict(),
                "margin": judged.evidence.margin,
                "missing": list(judged.evidence.missing),
                "lacking": dict(judged.evidence.lacking),
                "verdict": judged.verdict._asdict() if judged.verdict else None,
            }
            for judged in comparison.judged
        ],
        "references": [
            {**_place(variant), "endpoint": endpoint.key, "against": {PLAIN: found._asdict()}}
            for variant, endpoint, found in comparison.references
        ],
        "interactions": [{**found._asdict(), "endpoint": found.endpoint.key} for found in comparison.interactions],
        "classical": [
            {"level": dict(level), "endpoint": endpoint.key, "means": classical(endpoint.key, here)}
            for level, here in by_level(comparison.groups.variants).items()
            for endpoint in comparison.endpoints
        ],
        "undominated": [
            {"endpoint": endpoint, "cost": cost, "variants": [_place(variant) for variant in variants]}
            for (endpoint, cost), variants in comparison.undominated.items()
        ],
    }


def _variant_data(variant: Variant, comparison: Comparison) -> dict[str, Any]:
    keys = [*(metric.key for metric in (*comparison.endpoints, *COSTS))]
    keys += [endpoint.baseline for endpoint in comparison.endpoints if endpoint.baseline]
    return {
        **_place(variant),
        "kind": variant.kind,
        "seeds": sorted(variant.runs),
        "failed_seeds": {metric.key: sorted(variant.failed(metric.key)) for metric in comparison.endpoints},
        "runs": [run.folder for _, run in sorted(variant.runs.items())],
        "values": {key: {str(seed): value for seed, value in variant.values(key).items()} for key in keys},
    }


def _place(variant: Variant) -> dict[str, Any]:
    return {"variant": variant.label, "level": dict(variant.level)}
