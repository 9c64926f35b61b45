"""The list of trials and of their owners: an Optuna journal in the sweep's folder, shared by any number of processes."""

import secrets
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Literal, NamedTuple

import optuna
from optuna.storages import JournalStorage
from optuna.trial import FrozenTrial, TrialState

from semconv.files import write_text
from semconv.sweeping.distributions import distribution, quantile
from semconv.sweeping.file import Sweep
from semconv.sweeping.locks import Journal
from semconv.tracking.locks import Lock, locked
from semconv.yaml_files import read_yaml, to_yaml

Ending = Literal["finished", "stopped", "diverged", "failed"]
STATES = {"finished": TrialState.COMPLETE, "stopped": TrialState.PRUNED, "diverged": TrialState.PRUNED, "failed": TrialState.FAIL}
EDGE = 1e-6  # distance of shares from 0 and 1, where a normal distribution is infinite
RANDOM_FIRST = 10  # trials of a bayes search that are drawn at random


class Claim(NamedTuple):
    """A trial that this process works on."""

    number: int
    run: str  # id of its run
    parameters: dict[str, Any]
    lock: Lock  # held while a process works on it


class Ledger:
    """The trials of a sweep.

    Args:
        folder: the sweep's folder; created if it is missing.
        sweep: the sweep.
        join: whether the folder may hold this sweep already.
        done: parts of points, such as a seed and a configuration, whose runs others have finished: they are not run again.

    Raises:
        ValueError: the folder holds another sweep, or this one and `join` is False.
    """

    def __init__(self, folder: Path, sweep: Sweep, join: bool, done: Sequence[Mapping[str, Any]] = ()) -> None:
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        self.folder, self.sweep, self.done = folder, sweep, done
        (folder / "trials").mkdir(parents=True, exist_ok=True)
        with self._claiming():
            self._keep_file(join)
            self.study = optuna.create_study(
                storage=JournalStorage(Journal(folder.resolve() / "journal.log")),
                study_name="sweep",  # the same whatever the file is called: a folder holds one sweep
                direction="maximize" if sweep.maximise else "minimize",
                load_if_exists=True,
            )
            if "id" not in self.study.user_attrs:
                self.study.set_user_attr("id", secrets.token_hex(3))
            known = {trial.user_attrs.get("point") for trial in self.trials()}
            for number, point in enumerate(sweep.grid[: sweep.run_cap]):
                if number not in known:
                    self.study.enqueue_trial({}, user_attrs={"point": number, "parameters": point})

    def trials(self, *states: TrialState) -> list[FrozenTrial]:
        """All trials, or those in some states."""
        return self.study.get_trials(deepcopy=False, states=states or None)

    def run_of(self, trial: FrozenTrial) -> str:
        """The id of a trial's run; a retried trial keeps the id of its first try."""
        return f"{self.study.user_attrs['id']}-{trial.user_attrs.get('first', trial.number):03d}"

    def all_started(self) -> bool:
        """Tell whether no trial is left to start: of the grid, or up to the cap; or whether the target is reached."""
        if self._hit():
            return True
        if self.trials(TrialState.WAITING):  # points of the grid, and failed trials to be tried again
            return False
        runs = {self.run_of(trial) for trial in self.trials() if "parameters" in trial.user_attrs}
        return self.sweep.method == "grid" or len(runs) >= (self.sweep.run_cap or float("inf"))

    def is_over(self) -> bool:
        """Tell whether no trial is left to start and none is running."""
        return self.all_started() and not self.trials(TrialState.RUNNING)

    def claim(self) -> Claim | None:
        """Claim a trial to work on: one whose processes have died, else the next; None if there is none now."""
        with self._claiming():
            while claim := self._taken_over() or (None if self.all_started() else self._next()):
                if not any(part.items() <= claim.parameters.items() for part in self.done):
                    return claim
                self.finish(claim, "finished", None)
        return None

    def finish(self, claim: Claim, ending: Ending, value: float | None) -> None:
        """Record how a trial ended, and release it.

        Args:
            claim: the trial.
            ending: finished; stopped early; diverged, which Optuna's searches rank below every value; or failed.
            value: the metric of a finished trial; None if the sweep has no metric.
        """
        values = (value or 0.0) if ending == "finished" else None
        self.study.tell(claim.number, values, state=STATES[ending])
        claim.lock.close()

    def retry_failed(self) -> None:
        """Put failed trials back in the queue, unless they are there already."""
        with self._claiming():
            again = {trial.user_attrs.get("again") for trial in self.trials()}
            for trial in self.trials(TrialState.FAIL):
                if trial.number not in again and "parameters" in trial.user_attrs:
                    kept: dict[str, Any] = {
                        key: trial.user_attrs[key] for key in ("point", "parameters") if key in trial.user_attrs
                    }
                    first = trial.user_attrs.get("first", trial.number)
                    self.study.enqueue_trial(trial.params, user_attrs={**kept, "first": first, "again": trial.number})

    def _claiming(self) -> AbstractContextManager[None]:
        return locked(self.folder / "claim.lock")

    def _keep_file(self, join: bool) -> None:
        copy = self.folder / "sweep.yaml"
        if not copy.exists():
            write_text(copy, to_yaml(dict(self.sweep.content)))
        elif read_yaml(copy) != self.sweep.content:
            raise ValueError(f"{self.folder} holds another sweep, or this one before it was changed: give another --output")
        elif not join:
            raise ValueError(f"{self.folder} holds this sweep already: resume it by --resume, or give another --output")

    def _hit(self) -> bool:
        target = self.sweep.target
        if target is None:
            return False
        values = [trial.value for trial in self.trials(TrialState.COMPLETE) if trial.value is not None]
        return any(value >= target if self.sweep.maximise else value <= target for value in values)

    def _taken_over(self) -> Claim | None:
        for trial in self.trials(TrialState.RUNNING):
            lock = self._lock(trial.number)
            held = lock.acquire(wait=False)
            # the previous owner may have finished it in the meantime
            if held and self.study.get_trials(deepcopy=False)[trial.number].state == TrialState.RUNNING:
                if "parameters" in trial.user_attrs:
                    return Claim(trial.number, self.run_of(trial), trial.user_attrs["parameters"], lock)
                self.study.tell(trial.number, state=TrialState.FAIL)  # its process died before it had parameters
            lock.close()
        return None

    def _next(self) -> Claim:
        if not self.trials(TrialState.WAITING):
            number = len(self.trials())
            if self.sweep.method == "random":
                self.study.enqueue_trial({}, user_attrs={"parameters": self.sweep.draw(number)})
            # a seed per trial: otherwise a process that resumes a sweep would draw the first points again
            seed = self.sweep.seed(number)
            self.study.sampler = optuna.samplers.TPESampler(seed=seed, n_startup_trials=RANDOM_FIRST, constant_liar=True)
        trial = self.study.ask()
        lock = self._lock(trial.number)
        lock.acquire()
        if self.sweep.method == "bayes":
            trial.set_user_attr("parameters", _suggest(trial, self.sweep))
        frozen = self.study.get_trials(deepcopy=False)[trial.number]
        return Claim(frozen.number, self.run_of(frozen), frozen.user_attrs["parameters"], lock)

    def _lock(self, number: int) -> Lock:
        return Lock(self.folder / "trials" / f"{number:03d}.lock")


def _suggest(trial: optuna.Trial, sweep: Sweep) -> dict[str, Any]:
    """A point that Optuna chooses: the share of each distribution, and the index of each category."""
    point = {}
    for name, spec in sweep.parameters.items():
        match distribution(spec):
            case "constant":
                point[name] = spec["value"]
            case "categorical":
                point[name] = spec["values"][trial.suggest_categorical(name, range(len(spec["values"])))]
            case _:
                point[name] = quantile(spec)(trial.suggest_float(name, EDGE, 1 - EDGE))
    return point
