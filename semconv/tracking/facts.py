"""Flat facts of a run, by which tables and dashboards group."""

from collections.abc import Mapping
from typing import Any

from semconv.tracking.folder import RunFolder


def derived_facts(config: Mapping[str, Any]) -> dict[str, Any]:
    """Derive flat facts from a whole configuration; None where a user's own class has no such argument.

    Args:
        config: a configuration as in a run's `config.yaml`.

    Returns:
        `variant`, `control` (see the function of that name), `encoder`, `mechanism`, `indicators`, `depth`, `corruption`, `fill`,
        `masker`, `dataset`, `seed`. The mechanism of a CNN without conditioning is Plain; that of a vision transformer is its
        treatment of masked patches.
    """
    model = _arguments(config.get("model"))
    encoder, corruption = _arguments(model.get("encoder")), _arguments(model.get("corruption"))
    mechanism = encoder.get("mechanism", encoder.get("masked"))
    return {
        "variant": variant_name(config),
        "control": control(config),
        "encoder": short_name(model.get("encoder")),
        "mechanism": short_name(mechanism),
        "indicators": "none" if short_name(mechanism) == "Plain" else _joined(encoder.get("indicators")),
        "depth": _depth(encoder.get("depth")),
        "corruption": short_name(model.get("corruption")),
        "fill": short_name(corruption.get("fill")),
        "masker": short_name(model.get("masker")),
        "dataset": dataset(_arguments(config.get("data")).get("source")),
        "seed": config.get("seed_everything"),
    }


def _joined(parts: Any) -> str:
    return "+".join(str(short_name(part)) for part in parts or []) or "none"


def variant_name(config: Mapping[str, Any]) -> str:
    """The name of a run's variant in tables, folders and dashboards: its experiment, and its kind of control."""
    return "-".join(filter(None, (config.get("experiment"), control(config))))


def control(config: Mapping[str, Any]) -> str | None:
    """The kind of control that a network is of the variant in its experiment's name; None: the variant itself.

    `zero` or another control of `semconv.controls`; plain of equal cost, `plain_wide` (operations) or `plain_slow` (time); or
    `gradual_none` or another schedule that the rising one is compared with.
    """
    model = _arguments(config.get("model"))
    encoder = _arguments(model.get("encoder"))
    if control := short_name(model.get("control")):
        return control.lower()
    if as_plain := encoder.get("as_plain"):
        return {"flops": "plain_wide", "time": "plain_slow"}.get(as_plain)
    schedule = _arguments(encoder.get("mechanism")).get("schedule")
    gradual = short_name(encoder.get("mechanism")) == "Gradual"
    return f"gradual_{schedule}" if gradual and schedule in ("learned", "none", "reversed", "whole") else None


def measured_facts(folder: RunFolder) -> dict[str, Any]:
    """Facts that are measured at the start of a run: encoder parameters in millions, GFLOPs per image, commit of the code."""
    summary, sessions = folder.summary, folder.environment["sessions"]
    parameters, flops = summary.get("cost/encoder_parameters"), summary.get("cost/flops")
    return {
        "encoder_parameters_m": parameters / 1e6 if parameters is not None else None,
        "gflops": flops / 1e9 if flops is not None else None,
        "git_commit": sessions[-1]["git_commit"],
    }


def short_name(part: Any) -> str | None:
    """The class name of a class path, given as text or as a mapping with class_path."""
    path = part.get("class_path") if isinstance(part, Mapping) else part
    return str(path).rpartition(".")[2] if path is not None else None


def _arguments(part: Any) -> Mapping[str, Any]:
    return (part.get("init_args") or {}) if isinstance(part, Mapping) else {}


def _depth(depth: Any) -> str | None:
    return ",".join(map(str, depth)) if isinstance(depth, list | tuple) else depth


def dataset(source: Any) -> str | None:
    """The last part of the name of a source, or of the first of several."""
    first = source[0] if isinstance(source, list | tuple) else source
    return str(first).rstrip("/").rpartition("/")[2] if first is not None else None
