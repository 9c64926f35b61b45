"""fit, validate, test, predict and run: a LightningCLI whose every run has a folder of its own and whose errors are one line."""

import logging
import re
import traceback
import warnings
import zipfile
from pathlib import Path
from typing import Any, NoReturn

import lightning
from lightning.pytorch.callbacks import Callback, ModelCheckpoint
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI
from lightning.pytorch.loggers import Logger

from semconv.callbacks import Cost, Panels, RunProgress, StartRecord, Summary
from semconv.console import fail
from semconv.tracking import RunRecord, new_run_directory


class Trainer(lightning.Trainer):
    """Lightning's Trainer, which can also fit and then test, and predicts without keeping what it predicts."""

    def run(
        self,
        model: lightning.LightningModule,
        datamodule: lightning.LightningDataModule | None = None,
        ckpt_path: str | None = None,
    ) -> None:
        """Fit, then test the weights that fitting ended with.

        Args:
            model: what is trained and tested.
            datamodule: the data.
            ckpt_path: checkpoint to go on from.
        """
        if datamodule is not None:
            datamodule.setup("test")  # a missing test split is refused before training, not after it
        self.fit(model, datamodule=datamodule, ckpt_path=ckpt_path)
        self.test(model, datamodule=datamodule, verbose=False)

    def predict(  # type: ignore[override]
        self,
        model: lightning.LightningModule,
        datamodule: lightning.LightningDataModule | None = None,
        ckpt_path: str | None = None,
    ) -> None:
        """Write pictures of the reconstructed test images; predictions are not kept in memory.

        Args:
            model: what predicts.
            datamodule: the data.
            ckpt_path: checkpoint with its weights.
        """
        super().predict(model, datamodule=datamodule, return_predictions=False, ckpt_path=ckpt_path)


class OneLineParser(LightningArgumentParser):
    """Reports what is wrong with the arguments in one line."""

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        keys = [key for key in re.findall(r'Parser key "([^"]+)"', message) if key != "config"]
        reason = str(causes(ex)[-1]) if ex else message
        fail(f"{'.'.join(keys)}: {reason}" if keys and f'"{keys[-1]}"' not in reason else reason)


class SemconvCLI(LightningCLI):
    """LightningCLI with a folder per run."""

    def __init__(self, args: list[str], run: bool = True) -> None:
        super().__init__(
            lightning.LightningModule,
            lightning.LightningDataModule,
            save_config_callback=None,
            trainer_class=Trainer,
            trainer_defaults={"use_distributed_sampler": False, "enable_model_summary": False},
            seed_everything_default=0,
            # omegaconf+ resolves interpolations after all files and options are merged, so that an override propagates
            parser_kwargs={
                "parser_mode": "omegaconf+",
                "allow_abbrev": False,
                "description": "Train and test networks by masked reconstruction. `semconv compare RUNS` puts runs side by side.",
            },
            parser_class=OneLineParser,
            subclass_mode_model=True,
            subclass_mode_data=True,
            args=args,
            run=run,
            auto_configure_optimizers=False,
            load_from_checkpoint_support=False,
        )

    @staticmethod
    def subcommands() -> dict[str, set[str]]:
        return {**LightningCLI.subcommands(), "run": {"model", "datamodule"}}

    def parse_arguments(self, parser: LightningArgumentParser, args: Any) -> None:
        self.config = parser.parse_args(args)

    def _parse_ckpt_path(self) -> None:
        # Lightning would look for hyperparameters in it; ours are in config.yaml
        subcommand = self.config.get("subcommand")
        path = self.config.get(f"{subcommand}.ckpt_path")
        if subcommand in ("validate", "test", "predict") and not path:
            raise ValueError(f"{subcommand} needs trained weights: give --ckpt_path runs/<experiment>/<run>/checkpoints/last.ckpt")
        if path and not zipfile.is_zipfile(path):
            what = "is no whole checkpoint" if Path(path).exists() else "does not exist"
            raise ValueError(f"{path} {what}: give a file such as runs/<experiment>/<run>/checkpoints/last.ckpt")

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        parser.add_argument("--experiment", type=str, default="unnamed", help="Name of the variant: the folder of its runs.")
        parser.add_argument("--runs", type=str, default="runs", help="Folder in which each run gets a folder of its own.")

    def instantiate_trainer(self, **kwargs: Any) -> lightning.Trainer:
        directory = new_run_directory(self._get(self.config, "runs"), self._get(self.config, "experiment"))
        config = self._get(self.config_init, "trainer")
        loggers = [RunRecord(directory), *(logger for logger in _as_list(config.get("logger")) if isinstance(logger, Logger))]
        callbacks = [*_as_list(config.get("callbacks")), *self._callbacks(directory)]
        if config.get("enable_progress_bar") is not False:
            callbacks.append(RunProgress())
        if config.get("enable_checkpointing") is not False:
            folder = directory / "checkpoints"
            last = ModelCheckpoint(folder, filename="last", save_on_train_epoch_end=True, enable_version_counter=False)
            callbacks.append(last)
        return super().instantiate_trainer(**kwargs, logger=loggers, callbacks=callbacks, default_root_dir=str(directory))

    def _callbacks(self, directory: Path) -> list[Callback]:
        self._dump_config()
        return [
            StartRecord(directory, self.config_dump),
            Cost(directory),
            Summary(directory),
            Panels(directory),
        ]


def build(arguments: list[str]) -> SemconvCLI:
    """Read a configuration and build its model, data and trainer, without running anything.

    Args:
        arguments: those of a subcommand, such as `-c experiments/base.yaml -c experiments/cnn_plain.yaml`.
    """
    return SemconvCLI(arguments, run=False)


def main(arguments: list[str]) -> None:
    """Run one subcommand; errors of the user's are one line and exit code 2."""
    quieten()
    try:
        SemconvCLI(arguments)
    except ValueError as error:
        # jsonargparse wraps what a constructor raises
        said = [message for cause in causes(error) if (message := own_message(cause))]
        if not said:
            raise
        fail(said[-1])


def quieten() -> None:
    """Silence what Lightning says at every start, but not its warnings of harm."""
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)
    # a resumed run keeps its checkpoints in its own folder
    for message in (".*does not have many workers", "The dirpath has changed from", ".*isinstance.treespec, LeafSpec"):
        warnings.filterwarnings("ignore", message)


def causes(error: BaseException) -> list[BaseException]:
    """An error, what it was raised from, what that was raised from, and so on."""
    chain = [error]
    while chain[-1].__cause__ is not None:
        chain.append(chain[-1].__cause__)
    return chain


def own_message(error: BaseException) -> str | None:
    """What this package has to say to the user; None for an error from elsewhere, which keeps its traceback."""
    text = str(error)
    if "in DataLoader worker process" in text:  # raised anew from a worker, with its traceback as text
        frames = re.findall(r'File "([^"]+)", line', text)
        text = text.strip().splitlines()[-1].partition(": ")[2]
    else:
        frames = [frame.filename for frame in traceback.extract_tb(error.__traceback__)]
    own = isinstance(error, ValueError) and frames and Path(frames[-1]).is_relative_to(Path(__file__).parent)
    return text if own else None


def _as_list(value: Any) -> list:
    return value if isinstance(value, list) else [] if value is None else [value]
