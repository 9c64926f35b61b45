"""From runs to variants: what is compared with what, and what may differ."""

import json
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal, NamedTuple

from semconv.comparison.run import FinishedRun, leave_out
from semconv.configuration import flatten

Kind = Literal["baseline", "candidate", "control", "reference", "oracle"]
Level = tuple[tuple[str, Any], ...]  # factors with their values
# what a reader needs to know of a protocol; all of it is in the runs' config.yaml
TOLD_PROTOCOL = (
    *("data.source", "data.size", "data.batch_size", "trainer.max_epochs", "trainer.max_steps"),
    *("model.cell", "model.masker", "model.masker.ratio", "model.corruption", "model.corruption.fill"),
    *("model.objective.normalise", "model.padding_mode", "model.size", "model.base_lr"),
)
HARMLESS = ("as_plain", "mlp_ratio")  # what a control may change in an encoder and still stand beside its variant


class Variant(NamedTuple):
    """Runs that differ in their seeds alone."""

    label: str
    experiment: str
    control: str | None
    kin: str  # the same for a variant and its controls
    kind: Kind
    level: Level
    runs: dict[int, FinishedRun]  # by seed

    def values(self, key: str) -> dict[int, float]:
        """A metric by seed; of the runs that have it."""
        found = {seed: run.summary.get(key) for seed, run in self.runs.items()}
        return {seed: value for seed, value in found.items() if isinstance(value, int | float)}

    def mean(self, key: str) -> float | None:
        values = self.values(key)
        return sum(values.values()) / len(values) if values else None


class Groups(NamedTuple):
    """All variants, and what of the protocol differs between them."""

    variants: list[Variant]
    factors: dict[str, list[Any]]  # with their values
    allowed: dict[str, list[Any]]


def group(runs: Sequence[FinishedRun], baseline: str, factors: Sequence[str], allow: Sequence[str]) -> Groups:
    """Group runs by variant and level, and pair them by seed.

    A floor has no seed: of runs that differ in nothing else the last counts. What differs in the protocol and is neither factor nor
    allowed is refused by name.
    """
    differing = differences(run.protocol for run in runs)
    given = {key: values for key, values in differing.items() if _under(key, factors)}
    allowed = {key: values for key, values in differing.items() if _under(key, allow) and key not in given}
    refused = {key: values for key, values in differing.items() if key not in given and key not in allowed}
    varied = {key: values for key, values in given.items() if not _follows(key, given, runs)}
    if refused:
        told = "; ".join(f"{key}: {', '.join(map(_show, values))}" for key, values in refused.items())
        first = next(iter(refused))
        raise ValueError(f"runs cannot be compared, as they differ in {told}: give fewer runs, --factor {first} or --allow {first}")
    classes = {_encoder_class(run) for run in runs if run.summary["experiment"] == baseline}
    collected: dict[tuple, dict[int, FinishedRun]] = defaultdict(dict)
    for run in runs:
        level = tuple((key, run.protocol.get(key)) for key in varied)
        rest = tuple((key, run.protocol.get(key)) for key in allowed)
        key = (level, run.summary["experiment"], run.summary.get("control"), _kin(run), _decoder(run), rest)
        seed = run.summary["seed"]
        if seed in collected[key]:
            leave_out(collected[key][seed].folder, f"{run.folder} is a later run of its seed")
        collected[key][seed] = run
    variants = [
        Variant(_name(experiment, control), experiment, control, f"{kin}{decoder}", _kind(found, baseline, classes), level, found)
        for (level, experiment, control, kin, decoder, rest), found in collected.items()
    ]
    return Groups(_told_apart(variants, allowed), varied, allowed)


def differences(configs: Iterable[Mapping[str, Any]]) -> dict[str, list[Any]]:
    """Keys in which flat configurations differ, with the values there are."""
    configs = list(configs)
    keys = dict.fromkeys(key for config in configs for key in config)
    values = {key: list(dict.fromkeys(config.get(key) for config in configs)) for key in keys}
    return {key: found for key, found in values.items() if len(found) > 1}


def controls_of(variant: Variant, variants: Sequence[Variant]) -> dict[str, Variant]:
    """The controls of a variant and plain of its compute, at its level, by name."""
    return {
        other.control: other
        for other in variants
        if other.control and other.level == variant.level and other.experiment == variant.experiment and other.kin == variant.kin
    }


def setting(variant: Variant) -> str:
    """Under what a verdict was found, in words: the fill of what is hidden, or what else is done to the chosen cells."""
    protocol = _first(variant).protocol
    corruption, fill = (str(protocol.get(key, "")) for key in ("model.corruption", "model.corruption.fill"))
    shown = f"{fill.removesuffix('Fill').lower()} fill" if fill else ""
    return shown if corruption == "Hide" else " and ".join(filter(None, (corruption.lower(), shown)))


def shared_protocol(variants: Sequence[Variant]) -> str:
    """What all variants have in common, in a line: data, masks, corruption, target, budget."""
    protocols = [run.protocol for variant in variants for run in variant.runs.values()]
    differing = differences(protocols)
    return ", ".join(
        f"{_short(key)} {_show(protocols[0][key])}" for key in TOLD_PROTOCOL if key in protocols[0] and key not in differing
    )


def show_level(level: Level) -> str:
    """A level in words; empty where nothing is varied."""
    return ", ".join(f"{key} {_show(value)}" for key, value in level)


def _follows(key: str, factors: Mapping[str, Any], runs: Sequence[FinishedRun]) -> bool:
    """Whether an argument of a class that is varied says nothing more than the class does."""
    for other in factors:
        if key.startswith(f"{other}."):
            pairs = {(run.protocol.get(other), run.protocol.get(key)) for run in runs}
            return len(pairs) == len(factors[other])
    return False


def _told_apart(variants: list[Variant], allowed: Mapping[str, Any]) -> list[Variant]:
    """Variants of one name are given what they differ in."""
    named: dict[tuple, list[Variant]] = defaultdict(list)
    for variant in variants:
        named[(variant.level, variant.label)].append(variant)
    told = []
    for same in named.values():
        flat = [{**flatten(_first(variant).summary["variant"]), **_chosen(variant, allowed)} for variant in same]
        keys = differences(flat) if len(same) > 1 else {}
        for variant, config in zip(same, flat, strict=True):
            marks = ", ".join(f"{_short(key)}={_show(config.get(key))}" for key in keys)
            told.append(variant._replace(label=f"{variant.label} [{marks}]" if marks else variant.label))
    return told


def _chosen(variant: Variant, allowed: Mapping[str, Any]) -> dict[str, Any]:
    protocol = _first(variant).protocol
    return {key: protocol.get(key) for key in allowed}


def _first(variant: Variant) -> FinishedRun:
    return next(iter(variant.runs.values()))


def _kind(runs: Mapping[int, FinishedRun], baseline: str, classes: set[str]) -> Kind:
    run = next(iter(runs.values()))
    if run.summary.get("control"):
        return "control"
    if run.summary["experiment"] == baseline:
        return "baseline"
    if "oracle" in (run.summary.get("conveys") or ()):  # it knows what is hidden: an upper bound, no competitor
        return "oracle"
    return "candidate" if _encoder_class(run) in classes and _is_told(run) else "reference"


def _is_told(run: FinishedRun) -> bool:
    """Whether a network is told anything: a plain of another kind is no candidate."""
    mechanism = (run.summary["variant"]["encoder"].get("init_args") or {}).get("mechanism") or {}
    return not str(mechanism.get("class_path", "Plain")).endswith("Plain")


def _encoder_class(run: FinishedRun) -> str:
    return str(run.summary["variant"]["encoder"].get("class_path"))


def _kin(run: FinishedRun) -> str:
    encoder = run.summary["variant"]["encoder"]
    arguments = {key: value for key, value in (encoder.get("init_args") or {}).items() if key not in HARMLESS}
    return json.dumps([encoder.get("class_path"), arguments], sort_keys=True)


def _decoder(run: FinishedRun) -> str:
    return json.dumps(run.summary["variant"].get("decoder"), sort_keys=True)


def _name(experiment: str, control: str | None) -> str:
    return "-".join(filter(None, (experiment, control)))


def _under(key: str, given: Sequence[str]) -> bool:
    return any(key == other or key.startswith(f"{other}.") for other in given)


def _short(key: str) -> str:
    return key.removeprefix("encoder.").removeprefix("model.")


def _show(value: Any) -> str:
    return "none" if value is None else str(value)
