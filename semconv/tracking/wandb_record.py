"""The record of a run in Weights & Biases, whose failure never ends the run."""

import os
import re
import shlex
import sys
import threading
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from semconv.configuration import get, one_line
from semconv.metrics import ENDPOINTS, MASKED_MSE, of_section
from semconv.pictures import enlarge, to_rgb
from semconv.tracking.account import has_account, server
from semconv.tracking.continuation import LENGTHENED
from semconv.tracking.folder import RunFolder, Status, newest_checkpoint
from semconv.tracking.secrets import redact

Mode = Literal["auto", "online", "offline", "disabled"]
PROBE_SECONDS, START_SECONDS, END_SECONDS = 4, 15, 60
HEIGHT = 96  # minimal height of a picture in pixels
LOST = re.compile("not be synced|upload", re.IGNORECASE)  # in what W&B's service says
LABELS = {0: "visible", 1: "masked"}


@dataclass
class WandbOptions:
    """Options of the run in W&B.

    Args:
        mode: online, offline, disabled, or auto: WANDB_MODE if set; else online if an account is configured (WANDB_API_KEY, or
            `wandb login`) and the server answers; else offline.
        project: W&B project. Default: WANDB_PROJECT, else semconv.
        entity: W&B user or team. Default: WANDB_ENTITY, else the account's.
        group: group of runs. Default: WANDB_RUN_GROUP, else the experiment's name.
        tags: tags beside the names of the variant and the data set.
        job_type: job type. Default: the subcommand.
        per_image_errors: log a table of the errors of all test images, the largest first.
        checkpoint_artifact: log the last checkpoint as an artifact, of which W&B keeps a copy.
    """

    mode: Mode = "auto"
    project: str | None = None
    entity: str | None = None
    group: str | None = None
    tags: list[str] = field(default_factory=list)
    job_type: str | None = None
    per_image_errors: bool = False
    checkpoint_artifact: bool = False


class WandbRecord:
    """Writes a run to W&B. An error of W&B is printed once, and the run continues without it.

    The x-axes are the run's own clocks, `samples_seen`, `trainer/global_step` and `epoch`, so that a resumed run continues its
    curves.

    Args:
        folder: the run's folder; W&B writes into its subfolder `wandb`, and the run has its name.
        options: options of the run in W&B.
        config: the whole configuration.
        facts: flat facts, to group and filter by.
        job_type: job type if the options give none.

    Raises:
        ValueError: the mode is online, and no account is configured.
    """

    def __init__(
        self, folder: RunFolder, options: WandbOptions, config: Mapping[str, Any], facts: Mapping[str, Any], job_type: str
    ) -> None:
        self.folder, self.options, self.config, self.facts, self.job_type = folder, options, config, facts, job_type
        self._run: Any = None
        self._place: Path | None = None  # W&B's folder of the run
        self._begun = self._failed = self._warned = False
        if options.mode == "online" and not has_account():
            raise ValueError("wandb.mode is online, but no account is configured: run `wandb login`, or set WANDB_API_KEY")

    def begin(self) -> None:
        """Start the run; a second call does nothing."""
        if not self._begun:
            self._begun = True
            self._attempt(self._begin)

    def log(self, row: Mapping[str, Any]) -> None:
        """Log a row in the form that `RunFolder.log` returns."""
        if self._open:
            clocks = {"trainer/global_step": row["step"]}
            self._attempt(self._run.log, {**{key: value for key, value in row.items() if key not in ("step", "time")}, **clocks})

    def log_panels(self, key: str, columns: Mapping[str, Tensor], mask: Tensor, captions: Sequence[str], step: int) -> None:
        """Show each image's pictures side by side, with the mask as an overlay that can be switched.

        Args:
            key: name of the panel.
            columns: `b c h w` in [0, 1] by kind; the first channel is shown if there are neither 1 nor 3.
            mask: bool `b h w`, True = masked.
            captions: one per image.
            step: training step.
        """
        if self._open:
            self._attempt(self._log_panels, key, columns, mask, captions, step)

    def log_table(self, key: str, columns: Mapping[str, Sequence[Any]], step: int) -> None:
        """Show columns of equal length as a table.

        Args:
            key: name of the table.
            columns: values by name.
            step: training step.
        """
        if self._open:
            self._attempt(self._log_table, key, columns, step)

    def end(self, status: Status) -> None:
        """Finish with the run's summary; wait at most a minute for the upload.

        After a failure of W&B this is tried, too: at the exit of this process W&B waits for runs that are open, and tries for
        hours to send them.
        """
        if self._run is None:
            return
        if self._open and self.options.checkpoint_artifact:
            self._attempt(self._log_checkpoint)
        if self._open and status == "finished" and MASKED_MSE in self.folder.summary:
            self._attempt(self._log_endpoints)
        # the network and the protocol are in the configuration
        plain = {key: value for key, value in self.folder.summary.items() if not isinstance(value, dict)}
        if at := get(self.folder.summary, f"protocol.trainer.{LENGTHENED}"):  # the configuration does not say so
            plain[f"trainer/{LENGTHENED}"] = at
        run, self._run = self._run, None
        self._attempt(run.summary.update, plain)
        self._attempt(self._finish, run, status)

    @property
    def _open(self) -> bool:
        return self._run is not None and not self._failed

    def _begin(self) -> None:
        mode = choose_mode(self.options.mode)
        if mode == "disabled":
            return
        import wandb

        os.environ.setdefault("WANDB_SILENT", "true")
        try:
            self._run = self._start(wandb, mode)
        except (wandb.Error, OSError) as error:
            if mode != "online":
                raise
            self._say(f"W&B does not accept this run ({redact(one_line(error, 200))})")
            wandb.teardown()  # its background service would keep the run's id
            mode, self._run = "offline", self._start(wandb, "offline")
        self._run.config.update(self._described(), allow_val_change=True)
        self._place = Path(self._run.dir).parent
        # what its service says after the start, which silent mode gives to this logger alone
        wandb.termsetup(self._run.settings, _Listener(self._heard))
        for clock in ("trainer/global_step", "samples_seen", "epoch"):
            self._run.define_metric(clock)
        for metrics in ("train/*", "val/*", "panels/*"):
            self._run.define_metric(metrics, step_metric="samples_seen")
        if mode == "offline":
            silent = self.options.mode == "auto" and "WANDB_MODE" not in os.environ and has_account()
            state = f"{server()} does not answer: W&B" if silent else "W&B"
            self._say(f"{state} is offline; to send this run: wandb sync {self._parts()}")

    def _start(self, wandb: Any, mode: str) -> Any:
        swept = "WANDB_SWEEP_ID" in os.environ  # then W&B has chosen project, entity and id, and warns about other values
        options, environment = self.options, os.environ
        place = {
            "project": options.project or environment.get("WANDB_PROJECT", "semconv"),
            "entity": options.entity,
            "id": self.folder.path.name,
        }
        facts = [str(self.facts[key]) for key in ("variant", "dataset") if self.facts.get(key)]
        return wandb.init(
            **({} if swept else place),
            resume="allow" if len(self.folder.environment.get("sessions", [])) > 1 else None,
            name=f"{self.folder.path.parent.name}/{self.folder.path.name}",
            dir=str(self.folder.path),
            group=options.group or environment.get("WANDB_RUN_GROUP", self.folder.path.parent.name),
            job_type=options.job_type or self.job_type,
            tags=[tag[:64] for tag in (*facts, *options.tags)],
            mode=mode,
            reinit="finish_previous",  # otherwise an open run of this process would get this run's data
            settings=_settings(wandb),
        )

    def _described(self) -> dict[str, Any]:
        """The whole nested configuration, with facts and environment, redacted: W&B's own record of the environment is not."""
        sessions = self.folder.environment.get("sessions", [{}])
        return redact({**self.config, **self.facts, **self.folder.summary.get("facts", {}), "environment": sessions[-1]})

    def _log_panels(self, key: str, columns: Mapping[str, Tensor], mask: Tensor, captions: Sequence[str], step: int) -> None:
        import wandb

        overlay = enlarge(mask.cpu()[:, None].repeat(1, 1, 1, len(columns)), HEIGHT)[:, 0].numpy()
        pictures = enlarge(torch.cat([to_rgb(images) for images in columns.values()], dim=3), HEIGHT)
        images = [
            wandb.Image(
                picture.permute(1, 2, 0).numpy(),
                caption=f"{caption}: {' | '.join(columns)}",
                masks={"mask": {"mask_data": hidden.astype("uint8"), "class_labels": LABELS}},
            )
            for picture, hidden, caption in zip(pictures, overlay, captions, strict=True)
        ]
        self._run.log({key: images, "trainer/global_step": step})

    def _log_table(self, key: str, columns: Mapping[str, Sequence[Any]], step: int) -> None:
        import wandb

        rows = [list(row) for row in zip(*columns.values(), strict=True)]
        self._run.log({key: wandb.Table(columns=list(columns), data=rows), "trainer/global_step": step})

    def _log_endpoints(self) -> None:
        """A table of one row, which the dashboard shows with the rows of all other runs."""
        summary = self.folder.summary
        keys = ("seed", *(metric.key for metric in (*of_section("results"), *of_section("costs"))))
        row = {"variant": self.facts.get("variant"), "run": self.folder.path.name, **{key: summary.get(key) for key in keys}}
        self._log_table(ENDPOINTS, {name: [value] for name, value in row.items()}, summary.get("trainer/global_step", 0))

    def _log_checkpoint(self) -> None:
        import wandb

        path = newest_checkpoint(self.folder.checkpoints)
        if path is not None:
            about = {key: value for key, value in self.facts.items() if value is not None}
            artifact = wandb.Artifact(f"checkpoint-{self.folder.path.name}", type="model", metadata=about)
            artifact.add_file(str(path), name=path.name)
            self._run.log_artifact(artifact)

    def _finish(self, run: Any, status: Status) -> None:
        if status == "terminated" and not run.settings._offline:
            run.mark_preempting()
        finish = partial(self._attempt, run.finish, int(status != "finished"))
        waiting = threading.Thread(target=finish, daemon=True)
        waiting.start()
        waiting.join(END_SECONDS)
        if waiting.is_alive():
            self._warn("W&B does not accept the rest of this run")

    def _attempt(self, action: Callable[..., Any], *arguments: Any) -> None:
        try:
            action(*arguments)
        except Exception as error:  # of W&B, its service, the network or the disk: none may end a run
            self._failed = True
            reason = redact(one_line(error, 200))
            self._warn(f"W&B has failed ({reason}): the run continues without it, and {self.folder.path} has everything")

    def _heard(self, text: str) -> None:
        if LOST.search(text):
            reason = text.rpartition("WARNING ")[2].rpartition("ERROR ")[2].partition(". ")[0]
            self._warn(f"W&B does not take all of this run ({redact(reason)}): {self.folder.path} has everything")

    def _warn(self, text: str) -> None:
        """Say once that the record in W&B is not whole, and how to send it."""
        if not self._warned:
            self._warned = True
            self._say(text + (f"; to send it: wandb sync --include-online {self._parts()}" if self._place else ""))

    def _parts(self) -> str:
        """The folders that `wandb sync` takes: of this session, and of those before it that were offline too."""
        assert self._place is not None
        return shlex.join(map(str, sorted({self._place, *self._place.parent.glob("offline-run-*")})))

    def _say(self, text: str) -> None:
        print(text, file=sys.stderr, flush=True)


class _Listener:
    """Hears the warnings and errors of W&B.

    Args:
        hear: takes each.
    """

    def __init__(self, hear: Callable[[str], None]) -> None:
        self.warning = self.error = hear

    def info(self, text: str) -> None:
        """Do nothing."""


def choose_mode(mode: Mode) -> Literal["online", "offline", "disabled"]:
    """Resolve auto: WANDB_MODE, else online with an account and a server that answers, else offline."""
    if mode == "auto":
        given = {"dryrun": "offline", "run": "online"}.get(os.environ.get("WANDB_MODE", ""), os.environ.get("WANDB_MODE", ""))
        if given in ("online", "offline", "disabled"):
            return given  # type: ignore[return-value]
        return "online" if has_account() and answers(server()) else "offline"
    return mode


def answers(address: str) -> bool:
    """Tell whether a server answers within a few seconds without a server error; proxies of the environment are used."""
    try:
        urllib.request.urlopen(urllib.request.Request(address, method="HEAD"), timeout=PROBE_SECONDS).close()
    except urllib.error.HTTPError as error:
        return error.code < 500
    except (OSError, ValueError):
        return False
    return True


def _settings(wandb: Any) -> Any:
    """Settings: no output, short timeouts, and no record of command line, repository and console, where W&B does not redact."""
    wanted = {
        "silent": True,
        "console": "off",
        "disable_git": True,
        "save_code": False,
        "x_disable_meta": True,
        "init_timeout": START_SECONDS,
        "login_timeout": START_SECONDS,
    }
    return wandb.Settings(**{name: value for name, value in wanted.items() if name in wandb.Settings.model_fields})
