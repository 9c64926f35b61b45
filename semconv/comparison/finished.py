"""Finished runs compared: what `semconv compare` and `semconv.compare` have in common."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from semconv import shipped
from semconv.comparison import result
from semconv.comparison.declared import control_file
from semconv.comparison.grouping import Variant, differences, group, shared_protocol, tuned_values
from semconv.comparison.result import Comparison, plain_of, same_errors
from semconv.comparison.run import FinishedRun, leave_out
from semconv.comparison.runs import find_runs
from semconv.comparison.verdicts import PLAIN, Word
from semconv.configuration import flatten, nearest
from semconv.metrics import METRICS, PRIMARY, Direction, Metric, find

NOT_FINITE = ("NaN", "Infinity", "-Infinity")  # as W&B writes these numbers
OUTCOMES: dict[Word, str] = {"equivalent": "equivalent to it", "harmful": "worse", "inconclusive": "not settled"}


def compare(
    runs: str | Path | Sequence[str | Path],
    *,
    baseline: str = "cnn_plain",
    metrics: Sequence[str] = (),
    direction: Direction | None = None,
    family: Sequence[str] = (),
    factors: Sequence[str] = (),
    allow: Sequence[str] = (),
    negligible: float | None = None,
) -> Comparison:
    """Compare finished runs, as `semconv compare` does. A notebook shows the result as the report.

    Args:
        runs: run folders, folders or sweep folders that hold some, globs, `results.csv[:stage]` of a study, or
            `wandb:entity/project[/sweep]`.
        baseline: experiment without conditioning.
        metrics: keys to judge by; by default those that a sweep or a study declares, else the two primary endpoints.
        direction: values that are better, for metrics of which semconv does not know it.
        family: experiments over which Holm's correction goes; what a sweep declares, else all conditioned networks.
        factors: keys that were varied on purpose.
        allow: keys that may differ.
        negligible: share of the margin up to which a gain or loss is called negligible.

    Raises:
        ValueError: there are no such runs, or they cannot be compared.
    """
    places = [runs] if isinstance(runs, str | Path) else runs
    found = find_runs([str(place) for place in places])
    if not found.runs:
        raise ValueError("no tested run in the given folders: semconv run leaves one in runs/<experiment>/<run>")
    experiments = sorted({run.summary["experiment"] for run in found.runs})
    for name in family:
        if name not in experiments:
            raise ValueError(f"--family {name}: there are runs of {', '.join(experiments)}")
    if baseline not in experiments and baseline != "cnn_plain":
        raise ValueError(f"--baseline {baseline}: there are runs of {', '.join(experiments)}")
    _require_keys("--factor", factors, [run.settings for run in found.runs])
    _require_keys("--allow", allow, [run.protocol for run in found.runs])
    declared = found.declared
    named = dict.fromkeys(metrics or declared.endpoints)
    origin = "--metric" if metrics else "endpoints:"
    endpoints = [_endpoint(key, origin, direction, found.runs) for key in named] or list(PRIMARY)
    _require_use(direction, endpoints)
    groups = group(found.runs, baseline, [*declared.factors, *factors], allow, declared.tuned)
    members = tuple(family) or declared.family
    for name in members:
        kinds = {variant.kind for variant in groups.variants if variant.experiment == name} - {"control"}
        if kinds and "candidate" not in kinds:
            raise ValueError(f"{name} is in the family and is no candidate, but a {kinds.pop()}: take it out of the family")
    share = declared.negligible if negligible is None else negligible
    compared = result.compare(groups, endpoints, baseline, declared._replace(family=members, negligible=share))
    _name_lost(compared)
    return compared


def missing_runs(comparison: Comparison) -> Iterator[str]:
    """The commands that run what verdicts lack: controls, and plain of equal compute, of runs whose folders are at hand."""
    lacking = {each.variant: each.evidence.missing for each in comparison.judged if each.evidence.missing}
    for variant, missing in lacking.items():
        files = [control_file(name) for name in missing if name != PLAIN]
        files = [file for file in files if shipped.look(file, "experiments")]
        config = Path(variant.first.folder) / "config.yaml"
        if files and config.is_file():
            seeds = ",".join(map(str, sorted(variant.runs)))
            yield f"{variant.title} is not compared with {' and '.join(missing)}. This runs it:"
            yield f"  semconv run {' '.join(f'{config},{file}' for file in files)} --seeds {seeds}"


def headlines(comparison: Comparison) -> Iterator[str]:
    """The outcome of each endpoint in a sentence."""
    for endpoint in comparison.endpoints:
        judged = [each for each in comparison.judged if each.endpoint == endpoint and each.verdict]
        words = Counter(each.verdict.word for each in judged if each.verdict)
        best = max(
            (each for each in judged if each.verdict and each.verdict.word == "beneficial"),
            key=lambda each: each.evidence.against[PLAIN].difference,
            default=None,
        )
        if best is not None:
            found, more = best.evidence.against[PLAIN], words["beneficial"] - 1
            interval = "" if found.low is None or found.high is None else f"95 % interval {found.low:.4f} to {found.high:.4f}, "
            small = ". The gain is negligible" if best.verdict and best.verdict.negligible else ""
            also = f". So {'are' if more > 1 else 'is'} {more} more" if more else ""
            yield (
                f"{best.variant.title} is better than {comparison.baseline} for {endpoint.name}: its {endpoint.label} is "
                f"{endpoint.direction} by {found.difference:.4f} ({interval}n = {found.n}), and it beats its controls{small}{also}."
            )
        elif judged:
            counts = [f"{words[word]} {said}" for word, said in OUTCOMES.items() if words[word]]
            yield f"No variant is shown to be better than {comparison.baseline} for {endpoint.name}: {', '.join(counts)}."


def notes_on(comparison: Comparison) -> list[str]:
    """Lines above the tables: the shared protocol, the factors, the keys that may differ, decoders that plain does not have, a
    baseline that is missing, and in what the family is not that of the runs."""
    groups = comparison.groups
    shared = ", ".join(filter(None, (shared_protocol(groups.variants), *tuned_values(groups))))
    notes = [f"protocol: {shared}"] if shared else []
    notes += [f"factor {key}: {', '.join(map(str, values))}" for key, values in groups.factors.items()]
    allowed = {key: values for key, values in groups.allowed.items() if key not in groups.tuned}
    notes += [f"allowed to differ: {key}: {', '.join(map(str, values))}" for key, values in allowed.items()]
    candidates = [variant for variant in groups.variants if variant.kind == "candidate"]
    notes += dict.fromkeys(line for variant in candidates if (line := _other_decoder(variant, comparison)))
    equal = [variant.title for variant in groups.variants if variant.kind == "control" and _equals_plain(variant, comparison)]
    if equal:
        notes.append(f"equal to {comparison.baseline} in every error, so no comparison of their own: {', '.join(equal)}")
    if not any(variant.kind == "baseline" for variant in groups.variants):
        notes.append(f"no run of {comparison.baseline}, so there is no verdict: give its runs too, or another --baseline")
    apart = dict.fromkeys(each.variant.label for each in comparison.judged if not each.verdict)
    if apart:
        notes.append(f"not in the family, so without a verdict: {', '.join(apart)}")
    absent = set(comparison.family) - {variant.label for variant in groups.variants}
    if absent:
        notes.append(f"in the family, and counted in Holm's correction, without a run: {', '.join(sorted(absent))}")
    return notes


def _other_decoder(variant: Variant, comparison: Comparison) -> str:
    """Say in what the decoder of a variant differs from that of the plain network it is compared with; empty where it does not."""
    plain = plain_of(variant, comparison.groups.variants)
    pair = [flatten(each.first.summary["variant"].get("decoder"), "decoder") for each in (variant, plain or variant)]
    found = [f"{key} {own} and {other}" for key, (own, other) in differences(pair).items()]
    return f"{variant.label} and {comparison.baseline} differ in their decoders, too: {', '.join(found)}" if found else ""


def _equals_plain(variant: Variant, comparison: Comparison) -> bool:
    plain = plain_of(variant, comparison.groups.variants)
    return plain is not None and same_errors(variant, plain, variant.runs)


def _name_lost(comparison: Comparison) -> None:
    """Name each run that has diverged, or whose endpoint is not finite."""
    lost: dict[str, str] = {}
    for variant in comparison.groups.variants:
        for endpoint in comparison.endpoints:
            for seed, run in variant.failed(endpoint.key).items():
                what = "it has diverged" if run.has_diverged else f"its {endpoint.key} is not finite, or above 1e100"
                lost.setdefault(run.folder, f"{what}: seed {seed} of {variant.label} has failed")
    for folder, reason in lost.items():
        leave_out(folder, reason)


def _require_use(direction: Direction | None, endpoints: Sequence[Metric]) -> None:
    """Refuse a direction that no metric needs and that contradicts one."""
    known = [metric.direction for each in endpoints if (metric := find(each.key))]
    wrong = next((each for each in endpoints if each.direction != direction), None)
    if direction and wrong and len(known) == len(endpoints) and None not in known:
        raise ValueError(f"--direction {direction}: {wrong.key} is better when {wrong.direction}: leave it out")


def _require_keys(option: str, given: Sequence[str], protocols: Sequence[Mapping[str, Any]]) -> None:
    """Refuse a key that no run's protocol has."""
    keys = {key for protocol in protocols for key in protocol}
    known = {".".join(key.split(".")[:length]) for key in keys for length in range(1, key.count(".") + 2)}
    for key in given:
        if key not in known:
            similar = nearest(key, sorted(known))
            advice = f"did you mean {similar}?" if similar else "a run's summary.json lists its keys under protocol"
            raise ValueError(f"{option} {key}: the protocol of no run has this key: {advice}")


def _endpoint(key: str, origin: str, direction: Direction | None, runs: Sequence[FinishedRun]) -> Metric:
    """The metric that runs are to be judged by, with its direction; `origin` says where its key stands."""
    metric, measured = find(key) or Metric(key, key, None), {name for run in runs for name in run.metrics}
    measured |= {name for run in runs for name, value in run.summary.items() if isinstance(value, float) or value in NOT_FINITE}
    if key not in measured:
        others = {*measured, *(one.key for one in METRICS)} - {metric.key}
        similar, needs = nearest(key, sorted(others)), f"; it needs {metric.needs}" if metric.needs else ""
        advice = f": did you mean {similar}?" if similar else "; semconv list metrics names those that semconv records"
        raise ValueError(f"{origin} {key}: no run has it{needs}{advice}")
    if not direction and not metric.direction:
        raise ValueError(f"{origin} {key}: no direction of it is known to be better: give --direction higher or lower")
    return metric._replace(direction=metric.direction or direction)
