"""fit, validate, test, predict and run: a LightningCLI whose every run has a folder of its own and whose errors are one line."""

import logging
import os
import sys
import traceback
import warnings
from pathlib import Path
from typing import Any, NoReturn

import lightning
import yaml
from jsonargparse import Namespace
from lightning.pytorch.callbacks import Callback, ModelCheckpoint
from lightning.pytorch.cli import ArgsType, LightningArgumentParser, LightningCLI
from lightning.pytorch.loggers import Logger
from lightning.pytorch.utilities import rank_zero_only

from semconv.callbacks import Cost, Panels, RunProgress, Summary
from semconv.tracking import RunRecord, new_run_directory, update_summary


class Trainer(lightning.Trainer):
    """Lightning's Trainer, with `run`."""

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
        self.fit(model, datamodule=datamodule, ckpt_path=ckpt_path)
        self.test(model, datamodule=datamodule, verbose=False)


class OneLineParser(LightningArgumentParser):
    """Reports what is wrong with the arguments in one line."""

    def error(self, message: str, exc: Exception | None = None) -> NoReturn:  # type: ignore[override]
        fail(first_cause(message))


class SemconvCLI(LightningCLI):
    """LightningCLI with a folder per run."""

    def __init__(self, args: ArgsType = None) -> None:
        super().__init__(
            lightning.LightningModule,
            lightning.LightningDataModule,
            save_config_callback=None,
            trainer_class=Trainer,
            trainer_defaults={"use_distributed_sampler": False},
            seed_everything_default=0,
            # omegaconf+ resolves interpolations after all files and options are merged, so that an override propagates
            parser_kwargs={"parser_mode": "omegaconf+"},
            parser_class=OneLineParser,
            subclass_mode_model=True,
            subclass_mode_data=True,
            args=args,
            auto_configure_optimizers=False,
            load_from_checkpoint_support=False,
        )

    @staticmethod
    def subcommands() -> dict[str, set[str]]:
        return {**LightningCLI.subcommands(), "run": {"model", "datamodule"}}

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        parser.add_argument("--experiment", type=str, default="unnamed", help="Name of the variant: the folder of its runs.")
        parser.add_argument("--runs", type=str, default="runs", help="Folder in which each run gets a folder of its own.")

    def instantiate_trainer(self, **kwargs: Any) -> lightning.Trainer:
        directory = new_run_directory(self._get(self.config, "runs"), self._get(self.config, "experiment"))
        config = self._get(self.config_init, "trainer")
        loggers = [RunRecord(directory), *_as_list(config.get("logger") or None)]
        callbacks = [*_as_list(config.get("callbacks")), *self._callbacks(directory)]
        trainer = super().instantiate_trainer(**kwargs, logger=loggers, callbacks=callbacks, default_root_dir=str(directory))
        self._start_record(directory)
        return trainer

    def _callbacks(self, directory: Path) -> list[Callback]:
        checkpoint = ModelCheckpoint(directory / "checkpoints", filename="last", enable_version_counter=False)
        return [checkpoint, Cost(directory), Summary(directory), Panels(directory), RunProgress()]

    @rank_zero_only
    def _start_record(self, directory: Path) -> None:
        self._dump_config()
        directory.mkdir(parents=True)
        (directory / "config.yaml").write_text(yaml.safe_dump(self.config_dump, sort_keys=False), encoding="utf-8")
        values = {"experiment": self.config_dump["experiment"], "seed": self.config_dump["seed_everything"]}
        update_summary(directory, values)
        print(f"{self.subcommand}: {directory}", file=sys.stderr, flush=True)


def main(arguments: list[str]) -> None:
    """Run one subcommand; errors of the user's are one line and exit code 2."""
    quieten()
    sys.argv = ["semconv", *arguments]
    try:
        SemconvCLI()
    except (ValueError, FileNotFoundError) as error:
        if not _is_users(error):
            raise
        fail(str(error))


def quieten() -> None:
    """Silence what Lightning says at every start, but not its warnings of harm."""
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)
    warnings.filterwarnings("ignore", ".*does not have many workers.*")


def fail(message: str) -> NoReturn:
    """Print one line and exit with code 2."""
    print("semconv: error: " + " ".join(message.split()), file=sys.stderr)
    sys.exit(2)


def first_cause(message: str) -> str:
    """The innermost reason in jsonargparse's nested report of an error."""
    return message


def _is_users(error: BaseException) -> bool:
    """Whether an error was raised on purpose, by this package: all others are bugs and keep their traceback."""
    frames = traceback.extract_tb(error.__traceback__)
    return bool(frames) and Path(frames[-1].filename).is_relative_to(Path(__file__).parent)


def _as_list(value: Logger | Callback | list | None) -> list:
    return value if isinstance(value, list) else [] if value is None else [value]
