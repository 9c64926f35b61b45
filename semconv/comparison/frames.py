"""A comparison as frames of pandas."""

import pandas as pd

from semconv.comparison.result import Comparison, against_baseline
from semconv.comparison.statistics import Paired
from semconv.comparison.tables import as_rows
from semconv.comparison.verdicts import PLAIN


def results(comparison: Comparison) -> pd.DataFrame:
    """One row per variant and level: the columns of comparison.csv."""
    return pd.DataFrame(as_rows(comparison)).set_index("variant")


def verdicts(comparison: Comparison) -> pd.DataFrame:
    """One row per candidate and endpoint: verdict, difference to plain with its interval, p, reason."""
    rows = []
    for judged in comparison.judged:
        verdict, plain = judged.verdict, judged.evidence.against.get(PLAIN)
        if verdict is not None:
            found = {key: getattr(plain, key, None) for key in ("n", "difference", "low", "high")}
            place = {"variant": judged.variant.label, **dict(judged.variant.level), "endpoint": judged.endpoint.key}
            rows.append({**place, "verdict": verdict.text, **found, "p": verdict.p, "reason": verdict.reason})
    return pd.DataFrame(rows)


def differences(comparison: Comparison) -> pd.DataFrame:
    """One row per paired comparison of a variant; positive is better."""
    found: list[tuple[dict, str, Paired]] = []
    for judged in comparison.judged:
        place = {"variant": judged.variant.label, **dict(judged.variant.level), "endpoint": judged.endpoint.key}
        found += [(place, name, paired) for name, paired in judged.evidence.against.items()]
    for variant, endpoint, paired in comparison.references:
        found.append(({"variant": variant.label, **dict(variant.level), "endpoint": endpoint.key}, PLAIN, paired))
    for variant in comparison.groups.variants:
        for endpoint in comparison.endpoints:
            if (own := against_baseline(variant, endpoint)) is not None:
                found.append(
                    ({"variant": variant.label, **dict(variant.level), "endpoint": endpoint.key}, endpoint.baseline_name, own)
                )
    return pd.DataFrame([{**place, "against": name, **paired._asdict()} for place, name, paired in found])
