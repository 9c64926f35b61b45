"""The loop that runs the trials of a sweep, several at a time, until none is left or a signal comes."""

import signal
import time
from pathlib import Path
from types import FrameType

from semconv.sweeping.display import Display
from semconv.sweeping.file import Sweep
from semconv.sweeping.hyperband import to_stop
from semconv.sweeping.jobs import Place
from semconv.sweeping.ledger import Ledger
from semconv.sweeping.trials import History, Trial

POLL_SECONDS = 0.2
BAND_SECONDS = 2.0  # between readings of all trials' metrics
SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


class Runner:
    """The part of one process in a sweep.

    Args:
        ledger: the list of trials.
        display: shows the progress.
        place: where they run.
        count: maximal number of trials that this process starts; None: all.
        failures: number of failed trials after which no more are started.
        training: see `Trial`.
    """

    def __init__(self, ledger: Ledger, display: Display, place: Place, count: int | None, failures: int, training: str) -> None:
        self.ledger, self.display = ledger, display
        self.place, self.count, self.failures, self.training = place, count, failures, training
        self.running: list[Trial] = []
        self.num_started = self.num_failed = 0
        self.received: list[int] = []  # signals
        self._passed_on = 0  # of them
        self._looked = 0.0
        self._histories: dict[str, History] = {}  # by run, which a trial and its retry share

    @property
    def sweep(self) -> Sweep:
        return self.ledger.sweep

    @property
    def folder(self) -> Path:
        return self.ledger.folder

    def work(self) -> int:
        """Run trials until the sweep is over, and return the exit code: 0, 1 if a trial failed, 128 + n after signal n."""
        before = {number: signal.signal(number, self._receive) for number in SIGNALS if not _is_spared(number)}
        try:
            while self._start_trials():
                self._conclude()
                self._stop_early()
                self.display.update(self.running)
                time.sleep(POLL_SECONDS)
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
        if self.received:
            return 128 + self.received[-1]
        return 1 if self.num_failed else 0

    def _start_trials(self) -> bool:
        """Start as many trials as allowed; False if nothing is left to do."""
        while self._may_start() and (claim := self.ledger.claim()) is not None:
            trial = Trial(claim, self.sweep, self.folder, self.training, self.place)
            self.running.append(trial)
            self.num_started += 1
            self.display.started(trial)
        if self.running:
            return True
        # wait for the trials of other processes, to take them over if these die
        return self._may_start() and not self.ledger.is_over()

    def _may_start(self) -> bool:
        counted = self.count is None or self.num_started < self.count
        may = not self.received and counted and self.num_failed < self.failures
        return may and len(self.running) < self.place.jobs

    def _conclude(self) -> None:
        for trial in list(self.running):
            code = trial.poll()
            if code is None:
                continue
            self.running.remove(trial)
            if self.received and code != 0:
                trial.claim.lock.close()  # the process that resumes the sweep resumes this trial
                self.display.ended(trial, "interrupted", None, "--resume continues it")
                continue
            ending, value, reason = trial.outcome(code)
            self.ledger.finish(trial.claim, ending, value)
            self.display.ended(trial, ending, value, reason)
            if ending == "failed":
                self.num_failed += 1
                if self.num_failed == self.failures:
                    self.display.note(f"{self.failures} trials have failed: no more are started; the last log is {trial.job.log}")

    def _stop_early(self) -> None:
        if len(self.received) > max(self._passed_on, 1):
            for trial in self.running:
                trial.stopping = None  # a second signal ends a run at once
        self._passed_on = len(self.received)
        for trial in self.running:
            if self.received or trial.stopping is not None or trial.departure:
                trial.terminate()  # kills a trial that does not end in time
        given, metric = self.sweep.early_terminate, self.sweep.metric
        if given is None or metric is None or time.monotonic() < self._looked + BAND_SECONDS:
            return
        self._looked = time.monotonic()
        for known in self.ledger.trials():
            if (run := self.ledger.run_of(known)) not in self._histories:
                self._histories[run] = History(self.folder, run, metric)
        histories = {run: history.look().values for run, history in self._histories.items()}
        own = {trial.claim.run: trial for trial in self.running if trial.stopping is None}
        for name in to_stop(histories, list(own), given, self.sweep.maximise):
            own[name].terminate()

    def _receive(self, number: int, frame: FrameType | None) -> None:
        self.received.append(number)


def _is_spared(number: int) -> bool:
    """True for the end of the session where this process was started to ignore it, as by nohup."""
    return number == signal.SIGHUP and signal.getsignal(number) is signal.SIG_IGN
