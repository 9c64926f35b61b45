"""Runs grouped into variants, and the keys that may differ between them."""

import json
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, NamedTuple

from semconv.comparison.run import LATER, FinishedRun, leave_out
from semconv.configuration import flatten

Kind = Literal["baseline", "candidate", "control", "reference", "oracle"]
Level = tuple[tuple[str, Any], ...]  # factors with their values
# the part of a protocol that a reader needs; the runs' config.yaml has all of it
SHOWN_PROTOCOL = (
    *("data.source", "data.size", "data.batch_size", "trainer.max_epochs", "trainer.max_steps"),
    *("model.cell", "model.masker", "model.masker.ratio", "model.corruption", "model.corruption.fill"),
    *("model.objective.normalise", "model.padding_mode", "model.size", "model.size.vit.width", "model.size.vit.depth"),
    *("model.size.cnn.widths", "model.size.cnn.depths", "model.optimizer", "model.schedule", "model.base_lr"),
)
DECLARED = ("zero", "shuffled")  # controls that a verdict needs where the indicators declare none
HARMLESS = ("as_plain", "mlp_ratio")  # arguments of an encoder that a control may change and still belong to its variant


@dataclass(frozen=True, eq=False)  # one variant is never equal to another
class Variant:
    """Runs that differ in their seeds alone."""

    label: str
    experiment: str
    control: str | None
    kin: str  # the same for a variant and its controls
    kind: Kind
    level: Level
    runs: dict[int, FinishedRun]  # by seed
    chosen: Level = ()  # values of the keys that may differ

    @property
    def title(self) -> str:
        """Label and level."""
        return f"{self.label}{at(self.level)}"

    @property
    def first(self) -> FinishedRun:
        """One of its runs, for what all of them share."""
        return next(iter(self.runs.values()))

    @property
    def controls(self) -> tuple[str, ...]:
        """Names of the controls that it has to beat, as its indicators declare them."""
        declared = self.first.summary.get("controls")
        return DECLARED if declared is None else tuple(declared)

    def values(self, key: str) -> dict[int, float]:
        """A metric by seed, of the runs whose value is finite."""
        return {seed: run.metrics[key] for seed, run in sorted(self.runs.items()) if key in run.metrics}

    def failed(self, key: str) -> dict[int, FinishedRun]:
        """The runs, by seed, whose value is not finite: they have diverged."""
        return {seed: run for seed, run in sorted(self.runs.items()) if run.has_failed(key)}

    def mean(self, key: str) -> float | None:
        values = self.values(key).values()
        return sum(values) / len(values) if values else None


class Groups(NamedTuple):
    """All variants, and the keys of the protocol that differ between them."""

    variants: list[Variant]
    factors: dict[str, list[Any]]  # with their values
    allowed: dict[str, list[Any]]
    tuned: list[str]  # of the allowed ones


def group(
    runs: Sequence[FinishedRun], baseline: str, factors: Sequence[str], allow: Sequence[str], tuned: Sequence[str] = ()
) -> Groups:
    """Group runs by variant and level, and pair them by seed.

    Of several runs of one seed the one that started last counts. A key of the protocol that differs is refused unless it is a
    factor, allowed or tuned. Keys of the decoder, too, can be factors. A run that has diverged in another protocol than all others
    is left out by name.
    """
    runs = _without_strays(runs, [*factors, *allow, *tuned])
    settings = [run.settings for run in runs]
    differing = differences(run.protocol for run in runs)
    given = {key: values for key, values in differences(settings).items() if _under(key, factors)}
    allowed = {key: values for key, values in differing.items() if _under(key, [*allow, *tuned]) and key not in given}
    refused = {key: values for key, values in differing.items() if key not in given and key not in allowed}
    varied = {key: values for key, values in given.items() if not _follows(key, given, settings)}
    if refused:
        named = "; ".join(f"{key}: {', '.join(map(_show, values))}" for key, values in refused.items())
        first = next(iter(refused))
        raise ValueError(
            f"runs cannot be compared, as they differ in {named}: give fewer runs, --factor {first} or --allow {first}"
        )
    classes = {_encoder_class(run) for run in runs if run.summary["experiment"] == baseline}
    collected: dict[tuple, dict[int, FinishedRun]] = defaultdict(dict)
    for run, own in zip(runs, settings, strict=True):
        level = tuple((key, own.get(key)) for key in varied)
        rest = tuple((key, run.protocol.get(key)) for key in allowed)
        key = (level, run.summary["experiment"], run.summary.get("control"), _kin(run), _decoder(run), rest, _mlp_ratio(run))
        seed = run.summary["seed"]
        before = collected[key].get(seed, run)
        earlier, collected[key][seed] = sorted((before, run), key=lambda run: run.time)
        if earlier is not collected[key][seed]:
            leave_out(earlier.folder, f"{collected[key][seed].folder} is a later run of its seed")
    variants = [
        Variant(
            _name(experiment, control), experiment, control, f"{kin}{decoder}", _kind(found, baseline, classes), level, found, rest
        )
        for (level, experiment, control, kin, decoder, rest, _), found in collected.items()
    ]
    return Groups(_distinct(variants, allowed), varied, allowed, [key for key in allowed if _under(key, tuned)])


def _without_strays(runs: Sequence[FinishedRun], free: Sequence[str]) -> list[FinishedRun]:
    """The runs without those that have diverged under a value of the protocol, outside the free keys, that no other run has."""
    alive = [run for run in runs if not run.has_diverged]
    if not alive:
        raise ValueError("all runs have diverged: there is nothing to compare; give a smaller --model.base_lr")
    known = [run.protocol for run in alive]
    strays = [
        run
        for run in runs
        if run.has_diverged
        and any(
            _concerns(key, run.protocol)
            and not _under(key, free)
            and all(run.protocol.get(key) != other.get(key) for other in known)
            for key in {*run.protocol, *known[0]}
        )
    ]
    for run in strays:
        leave_out(run.folder, "it has diverged, in another protocol than the other runs")
    return [run for run in runs if run not in strays]


def differences(configs: Iterable[Mapping[str, Any]]) -> dict[str, list[Any]]:
    """Keys in which flat configurations differ, each with its values; those of a linear probe, for example, between runs that
    have one."""
    configs = list(configs)
    keys = dict.fromkeys(key for config in configs for key in config)
    values = {key: list(dict.fromkeys(config.get(key) for config in configs if _concerns(key, config))) for key in keys}
    return {key: found for key, found in values.items() if len(found) > 1}


def _concerns(key: str, protocol: Mapping[str, Any]) -> bool:
    """False for a key of a later run, such as a linear probe, that a run does not have."""
    kind = key.partition(".")[0]
    return kind not in LATER or any(other.startswith(f"{kind}.") for other in protocol)


def controls_of(variant: Variant, variants: Sequence[Variant]) -> dict[str, Variant]:
    """The controls of a variant, and plain of its compute, at its level, by name.

    Raises:
        ValueError: see `alike`.
    """
    own = [other for other in variants if other.control and (other.level, other.experiment, other.kin) == _kind_of(variant)]
    names = dict.fromkeys(str(other.control) for other in own)
    found = {name: alike(variant, [other for other in own if other.control == name]) for name in names}
    return {name: other for name, other in found.items() if other is not None}


def alike(variant: Variant, others: Sequence[Variant]) -> Variant | None:
    """Of networks of one name, the one of a variant's decoder, at its values of the keys that may differ; where there is one alone,
    that one.

    Raises:
        ValueError: there are several, which differ in their networks, or are all at other values.
    """
    others = [other for other in others if _decoder(other.first) == _decoder(variant.first)] or others
    same = [other for other in others if other.chosen == variant.chosen]
    if len(others) < 2 or len(same) == 1:
        return next(iter(same or others), None)
    name = _name(others[0].experiment, others[0].control)
    keys = list(differences(flatten(other.first.summary["variant"]) for other in same) if same else dict(variant.chosen))
    none, advice = ("", "") if same else (", none of them its own", f", or --factor {keys[0]}")
    raise ValueError(
        f"{variant.label} could be compared with {name} at several values of {' and '.join(keys)}{none}: give runs of one value of "
        f"{name}{advice}"
    )


def _kind_of(variant: Variant) -> tuple[Level, str, str]:
    return variant.level, variant.experiment, variant.kin


def setting(run: FinishedRun) -> str:
    """The condition of a verdict, in words: the fill of hidden cells, or the other corruption of the chosen cells."""
    protocol = run.protocol
    corruption, fill = (str(protocol.get(key, "")) for key in ("model.corruption", "model.corruption.fill"))
    shown = f"{fill.removesuffix('Fill').lower()} fill" if fill else ""
    return shown if corruption == "Hide" else " and ".join(filter(None, (corruption.lower(), shown)))


def shared_protocol(variants: Sequence[Variant]) -> str:
    """The settings that all variants share, in a line: data, masks, corruption, target, budget."""
    protocols = [run.protocol for variant in variants for run in variant.runs.values()]
    differing = differences(protocols)
    return ", ".join(
        f"{_short(key)} {_show(protocols[0][key])}" for key in SHOWN_PROTOCOL if key in protocols[0] and key not in differing
    )


def tuned_values(groups: Groups) -> list[str]:
    """For each tuned key a phrase with the value of every variant."""
    phrases = []
    for key in groups.tuned:
        values = {variant.label: _show(variant.first.protocol.get(key)) for variant in groups.variants if variant.control is None}
        phrases.append(f"{_short(key)} tuned for each variant ({', '.join(f'{name} {value}' for name, value in values.items())})")
    return phrases


def at(level: Level) -> str:
    """A level in words, as the end of a title; empty without factors."""
    return f" at {', '.join(f'{key} {_show(value)}' for key, value in level)}" if level else ""


def _follows(key: str, factors: Mapping[str, Any], settings: Iterable[Mapping[str, Any]]) -> bool:
    """True for an argument of a varied class whose value follows from the class."""
    for other in factors:
        if key.startswith(f"{other}."):
            pairs = {(each.get(other), each.get(key)) for each in settings}
            return len(pairs) == len(factors[other])
    return False


def _distinct(variants: list[Variant], allowed: Mapping[str, Any]) -> list[Variant]:
    """Add to the label of variants of one name the arguments that tell them apart: the first ones that are enough."""
    named: dict[tuple, list[Variant]] = defaultdict(list)
    for variant in variants:
        named[(variant.level, variant.label)].append(variant)
    distinct = []
    for same in named.values():
        flat = [{**flatten(variant.first.summary["variant"]), **_chosen(variant, allowed)} for variant in same]
        keys = _enough(flat) if len(same) > 1 else []
        for variant, config in zip(same, flat, strict=True):
            marks = ", ".join(f"{_short(key)}={_show(config.get(key))}" for key in keys)
            distinct.append(replace(variant, label=f"{variant.label} [{marks}]") if marks else variant)
    return distinct


def _enough(configs: Sequence[Mapping[str, Any]]) -> list[str]:
    """The first of the keys in which flat configurations differ, without those that tell no more of them apart."""
    keys: list[str] = []
    for key in differences(configs):
        if len({_part(config, [*keys, key]) for config in configs}) > len({_part(config, keys) for config in configs}):
            keys.append(key)
    return keys


def _part(config: Mapping[str, Any], keys: Sequence[str]) -> tuple[str, ...]:
    return tuple(_show(config.get(key)) for key in keys)


def _chosen(variant: Variant, allowed: Mapping[str, Any]) -> dict[str, Any]:
    protocol = variant.first.protocol
    return {key: protocol.get(key) for key in allowed}


def _kind(runs: Mapping[int, FinishedRun], baseline: str, classes: set[str]) -> Kind:
    run = next(iter(runs.values()))
    if run.summary.get("control"):
        return "control"
    if run.summary["experiment"] == baseline:
        return "baseline"
    if "oracle" in (run.summary.get("conveys") or ()):  # it sees what is hidden: an upper bound, no competitor
        return "oracle"
    return "candidate" if _encoder_class(run) in classes and _is_conditioned(run) else "reference"


def _is_conditioned(run: FinishedRun) -> bool:
    """False for a plain network: one of another kind is no candidate."""
    mechanism = (run.summary["variant"]["encoder"].get("init_args") or {}).get("mechanism") or {}
    return not str(mechanism.get("class_path", "Plain")).endswith("Plain")


def _encoder_class(run: FinishedRun) -> str:
    return str(run.summary["variant"]["encoder"].get("class_path"))


def _kin(run: FinishedRun) -> str:
    encoder = flatten(run.summary["variant"]["encoder"])
    return json.dumps({key: value for key, value in encoder.items() if key not in HARMLESS}, sort_keys=True)


def _decoder(run: FinishedRun) -> str:
    return json.dumps(flatten(run.summary["variant"].get("decoder")), sort_keys=True)


def _mlp_ratio(run: FinishedRun) -> Any:
    """The width of an encoder's MLPs; None for plain of equal cost, whose width follows from the cost."""
    arguments = run.summary["variant"]["encoder"].get("init_args") or {}
    return None if arguments.get("as_plain") else arguments.get("mlp_ratio")


def _name(experiment: str, control: str | None) -> str:
    return "-".join(filter(None, (experiment, control)))


def _under(key: str, given: Sequence[str]) -> bool:
    return any(key == other or key.startswith(f"{other}.") for other in given)


def _short(key: str) -> str:
    return key.removeprefix("encoder.").removeprefix("model.")


def _show(value: Any) -> str:
    return "none" if value is None else str(value)
