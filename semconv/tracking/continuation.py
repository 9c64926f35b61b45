"""What may change where training continues from a checkpoint: what a run records is true of all its steps."""

import json
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from semconv.configuration import flatten
from semconv.tracking.folder import RunFolder
from semconv.tracking.identity import identity

BUDGET = ("protocol.trainer.max_epochs", "protocol.trainer.max_steps")
RECORD, LENGTHENED = "Record", "lengthened_at"  # state of the callback in a checkpoint, and a part of it


class Origin(NamedTuple):
    """The checkpoint that a run starts from.

    Args:
        checkpoint: its file; None: the run starts anew.
        lengthened: training continues with a larger budget than that with which it started.
        differs_in: keys of its identity in which a test of these weights differs from their training.
        step: number of steps that it was trained for.
        lengthened_at: steps at which its budget was lengthened before, with commas between them.
    """

    checkpoint: str | None = None
    lengthened: bool = False
    differs_in: tuple[str, ...] = ()
    step: int = 0
    lengthened_at: str = ""


def trained_as(checkpoint: Mapping[str, Any], path: Path) -> dict[str, Any] | None:
    """The identity of the run that a checkpoint is of; None where that is not known.

    Args:
        checkpoint: its content.
        path: its file.
    """
    state = (checkpoint.get("callbacks") or {}).get(RECORD) or {}
    if "identity" in state:
        return json.loads(state["identity"])
    folder = RunFolder(path.parent.parent)
    return identity(folder.config) if (folder.path / "config.yaml").is_file() else None


def lengthened_before(checkpoint: Mapping[str, Any]) -> str:
    """The steps at which the budget of a checkpoint's run was lengthened; empty where it was not."""
    return ((checkpoint.get("callbacks") or {}).get(RECORD) or {}).get(LENGTHENED) or ""


def untrained_part(checkpoint: Mapping[str, Any], path: Path, trainer: Mapping[str, Any]) -> tuple[str, ...]:
    """What a test of a checkpoint lacks of a whole run's: its last steps, or a budget that it had from the start.

    Args:
        checkpoint: its content.
        path: its file.
        trainer: settings of the trainer.
    """
    summary = RunFolder(path.parent.parent).summary if (path.parent.parent / "summary.json").is_file() else {}
    # a callback may have ended a run early
    is_last = summary.get("status") == "finished" and summary.get("trainer/global_step") == checkpoint.get("global_step")
    steps = () if is_last or is_complete(checkpoint, trainer) else ("number of steps",)
    return (*steps, *([f"trainer.{LENGTHENED}"] if lengthened_before(checkpoint) else []))


def changes(before: Mapping[str, Any], after: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """The dotted keys in which two identities differ, each with both values."""
    old, new = (flatten(json.loads(json.dumps(each))) for each in (before, after))
    return {key: (old.get(key), new.get(key)) for key in {**old, **new} if old.get(key) != new.get(key)}


def lengthened(before: Mapping[str, Any], after: Mapping[str, Any], source: str) -> bool:
    """Tell whether a run continues with a larger budget.

    Args:
        before: identity of the run until the checkpoint.
        after: its identity from there on.
        source: where it continues, for the message.

    Raises:
        ValueError: anything else has changed, or the budget is smaller.
    """
    found = changes(before, after)
    for key, (old, new) in found.items():
        if key not in BUDGET:
            name = key.removeprefix("protocol.").removeprefix("variant.")
            raise ValueError(
                f"{source}: {name} was {_show(old)} and is now {_show(new)}: a run has one seed, network and protocol; leave the "
                "option out, or start another run without the checkpoint"
            )
        if _amount(new) < _amount(old):
            raise ValueError(
                f"{source}: {key.removeprefix('protocol.')} was {old} and is now {new}: give a larger budget, or the same"
            )
    return bool(found)


def require_unfinished(folder: RunFolder) -> None:
    """Refuse to resume a run that has ended.

    Raises:
        ValueError: it is finished, or has diverged.
    """
    status = folder.summary.get("status")
    if status == "diverged":
        raise ValueError(f"{folder.path} has diverged, and would diverge again: {folder.summary.get('divergence')}")
    if status == "finished":
        raise ValueError(f"{folder.path} is finished: start another run by -c {shlex.quote(f'{folder.path}/config.yaml')}")


def is_complete(checkpoint: Mapping[str, Any], trainer: Mapping[str, Any]) -> bool:
    """Tell whether a checkpoint leaves nothing to train.

    Args:
        checkpoint: its content.
        trainer: settings of the trainer, with `max_steps` and `max_epochs`.
    """
    loop = checkpoint.get("loops", {}).get("fit_loop", {})
    steps, epochs = checkpoint.get("global_step", 0), loop.get("epoch_progress", {}).get("current", {}).get("completed", 0)
    # Lightning counts an epoch after its end has been saved
    epochs += bool(loop.get("epoch_loop.batch_progress", {}).get("is_last_batch"))
    return steps >= _amount(trainer.get("max_steps")) or epochs >= _amount(trainer.get("max_epochs"))


def _amount(limit: Any) -> float:
    return float("inf") if limit in (None, -1) else float(limit)


def _show(value: Any) -> str:
    return "none" if value is None else str(value)
