"""The best of many runs, to be used further."""

from pathlib import Path
from typing import NamedTuple

from semconv.comparison.finished import compare
from semconv.comparison.recorded import CONTINUED, STAGES, load_rows
from semconv.comparison.runs import find_runs
from semconv.configuration import nearest
from semconv.metrics import METRICS, find

GIVEN = "the folder of a run, runs/<experiment>/<run id>, or one that holds tested runs"


class Best(NamedTuple):
    """The best run of a folder."""

    run: Path
    variant: str
    num_variants: int  # that it was chosen among
    num_seeds: int  # of the variant
    mean: float  # of the metric over these seeds
    value: float  # of the run
    verdicts: tuple[str, ...]  # on the variant, with their reasons; empty where it is plain or a reference


def best_run(folder: Path, key: str) -> Best:
    """The best seed of the variant with the best mean of a metric. Controls and oracles are left out.

    Args:
        folder: of a study, of which the confirmation counts; of a sweep; or any other that holds runs.
        key: the metric.

    Raises:
        ValueError: the folder has no such run, its runs cannot be compared, or the metric has no direction.
    """
    metric = find(key)
    if metric is None or metric.direction is None:
        similar = nearest(key, [known.key for known in METRICS if known.direction])
        advice = f"did you mean {similar}?" if similar else "semconv list metrics names them"
        raise ValueError(f"{key} is no metric of which higher or lower is better: {advice}")
    is_study = (folder / "study.yaml").is_file()
    if not folder.is_dir():
        raise ValueError(f"there is no folder {folder}: give {GIVEN}")
    if is_study and (folder / CONTINUED).is_file() and any(row["stage"] == STAGES[-1] for row, _ in load_rows(folder / CONTINUED)):
        raise ValueError(f"the study of {folder} continues a table, which has no weights: give the folder of one run")
    places = [str(place) for place in sorted(folder.glob("confirm-*")) if place.is_dir()] if is_study else [str(folder)]
    if not places:
        raise ValueError(f"the study of {folder} has confirmed nothing yet: semconv study --resume continues it")
    if not any(find_runs([place]).runs for place in places):
        raise ValueError(f"no run in {folder} has ended with a test: give {GIVEN}")
    try:
        comparison = compare(places)
    except ValueError as error:
        raise ValueError(f"{folder}: {str(error).partition(': give ')[0]}: give the folder of one run") from error
    groups = comparison.groups
    if groups.factors:
        raise ValueError(f"{folder} has runs of several {' and '.join(groups.factors)}: give the folder of one run")
    means = {variant: variant.mean(key) for variant in groups.variants if variant.kind not in ("control", "oracle")}
    ranked = sorted((-metric.sign * mean, number) for number, mean in enumerate(means.values()) if mean is not None)
    if not ranked:
        raise ValueError(f"no run in {folder} has {key}" + (f"; it needs {metric.needs}" if metric.needs else ""))
    variant = list(means)[ranked[0][1]]
    values = variant.values(key)
    seed = min(values, key=lambda seed: -metric.sign * values[seed])
    mean = -metric.sign * ranked[0][0]
    verdicts = tuple(
        f"{judged.verdict.text} for {judged.endpoint.name}: {judged.verdict.reason}"
        for judged in comparison.judged
        if judged.variant is variant and judged.verdict
    )
    return Best(Path(variant.runs[seed].folder), variant.label, len(ranked), len(values), mean, values[seed], verdicts)
