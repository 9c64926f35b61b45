"""SIGTERM and Ctrl-C: finish the step, save, and exit with the code of the signal."""

import signal
import sys
import threading
from collections.abc import Callable
from types import FrameType
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.trainer.states import TrainerFn

from semconv.callbacks.checkpoints import Checkpoints, completes_step

SIGNALS = (signal.SIGTERM, signal.SIGINT)


class Terminated(BaseException):
    """A signal has ended the run. It is no Exception, so that handlers of errors do not catch it.

    Args:
        signum: number of the signal.
    """

    def __init__(self, signum: int) -> None:
        super().__init__(signal.Signals(signum).name)
        self.signum = signum

    @property
    def exit_code(self) -> int:
        """128 + the signal's number, as in a shell: 143 for SIGTERM, 130 for Ctrl-C."""
        return 128 + self.signum


def end_at_once(signum: int, frame: FrameType | None) -> None:
    """Raise `Terminated`; a second signal kills the process."""
    for number in SIGNALS:
        signal.signal(number, signal.SIG_DFL)
    raise Terminated(signum)


def listen(handler: Callable[[int, FrameType | None], None] = end_at_once) -> None:
    """Handle signals from now on: by default, raise `Terminated`."""
    if threading.current_thread() is threading.main_thread():  # other threads may not set handlers
        for number in SIGNALS:
            signal.signal(number, handler)


class Interruption(Callback):
    """On a signal during training, finishes the step (during validation, the epoch), saves, and ends the run.

    A signal at any other time, or a second one, ends the run at once.

    Args:
        checkpoints: the callback that saves; None: nothing is saved.
    """

    def __init__(self, checkpoints: Checkpoints | None) -> None:
        self.checkpoints = checkpoints
        self.received: int | None = None
        self.ending: int | None = None

    def on_train_start(self, trainer: Trainer, module: LightningModule) -> None:
        def wait(signum: int, frame: FrameType | None) -> None:
            self.received = signum
            listen()
            launcher: Any = trainer.strategy.launcher
            if signum == signal.SIGTERM and hasattr(launcher, "kill"):  # Ctrl-C reaches all processes anyway
                launcher.kill(signum)
            print(
                f"\n{signal.Signals(signum).name}: finishing the step; a second signal ends at once",
                file=sys.stderr,
                flush=True,
            )

        listen(wait)  # replaces Lightning's own handlers, under which a killed run would look like a success

    def on_train_batch_end(self, trainer: Trainer, module: LightningModule, outputs: Any, batch: Any, batch_idx: int) -> None:
        if not trainer.is_last_batch and completes_step(trainer, batch_idx):
            self._save_if_asked(trainer)

    def on_train_batch_start(self, trainer: Trainer, module: LightningModule, *_: Any) -> None:
        self._end_if_saved()  # after the last step has been logged

    def on_train_epoch_end(self, trainer: Trainer, module: LightningModule) -> None:
        self._save_if_asked(trainer)
        self._end_if_saved()

    def on_train_end(self, trainer: Trainer, module: LightningModule) -> None:
        listen()

    def on_test_start(self, trainer: Trainer, module: LightningModule) -> None:
        listen()

    def on_validation_start(self, trainer: Trainer, module: LightningModule) -> None:
        if trainer.state.fn == TrainerFn.VALIDATING:
            listen()

    def on_predict_start(self, trainer: Trainer, module: LightningModule) -> None:
        listen()

    def _save_if_asked(self, trainer: Trainer) -> None:
        self.ending = self._agreed(trainer)
        if self.ending is not None and self.checkpoints is not None:
            self.checkpoints.save(trainer)

    def _end_if_saved(self) -> None:
        if self.ending is not None:
            raise Terminated(self.ending)

    def _agreed(self, trainer: Trainer) -> int | None:
        """The signal that any process has received, so that all stop after the same step."""
        if trainer.world_size == 1:
            return self.received
        number = torch.tensor(self.received or 0, device=trainer.strategy.root_device)
        return int(trainer.strategy.reduce(number, reduce_op="max")) or None
