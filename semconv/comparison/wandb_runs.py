"""Runs that are on a W&B server."""

from typing import Any

from semconv.comparison.declared import declared_by
from semconv.comparison.run import FinishedRun, Found, started_at
from semconv.configuration import one_line
from semconv.tracking.continuation import LENGTHENED
from semconv.tracking.identity import identity
from semconv.yaml_files import parse_yaml

STATUS = {"running": "running", "finished": "finished", "failed": "failed", "crashed": "failed", "killed": "terminated"}


def fetch(path: str) -> Found:
    """The runs of `entity/project` or of `entity/project/sweep`, with the identity that their configurations give."""
    import wandb

    entity, _, rest = path.partition("/")
    project, _, sweep = rest.partition("/")
    if not entity or not project:
        raise ValueError(f"wandb:{path} names no project: give wandb:entity/project or wandb:entity/project/sweep")
    content: dict[str, Any] = {}
    try:
        api = wandb.Api()
        if sweep:
            declared: Any = api.sweep(path).config
            content = parse_yaml(declared) if isinstance(declared, str) else declared
        filters = {"sweep": sweep} if sweep else None
        runs = [_run(run) for run in api.runs(f"{entity}/{project}", filters=filters)]
    except (wandb.Error, OSError, ValueError) as error:
        raise ValueError(f"wandb:{path} cannot be read: {one_line(error)}") from error
    return Found(runs, declared_by(content))


def _run(run: Any) -> FinishedRun:
    summary = dict(run.summary.items()) if hasattr(run.summary, "items") else {}
    try:
        known = identity(run.config)
        if at := summary.get(f"trainer/{LENGTHENED}"):
            known["protocol"]["trainer"][LENGTHENED] = at
    except (KeyError, TypeError, AttributeError):
        known = {}  # somebody else's run: it is named and left out
    status = "diverged" if summary.get("status") == "diverged" else STATUS.get(run.state, run.state)
    started = started_at(getattr(run, "created_at", None))
    return FinishedRun(f"wandb:{'/'.join(run.path)}", {**summary, **known, "status": status}, started or 0.0)
