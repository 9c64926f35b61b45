"""fit, validate, test, predict and run: a LightningCLI whose every run has a folder of its own and whose errors are one line."""

import contextlib
import io
import logging
import re
import traceback
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NoReturn

import lightning
import yaml
from jsonargparse import Namespace
from jsonargparse.typing import PositiveInt
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI
from lightning.pytorch.loggers import Logger
from lightning.pytorch.plugins.io import CheckpointIO

from semconv.callbacks import Cost, Dynamics, ErrorTable, Panels, Record
from semconv.callbacks.announcement import Announcement
from semconv.callbacks.checkpoints import Checkpoints
from semconv.callbacks.evaluation import Evaluation, Extent
from semconv.callbacks.interruption import Interruption, Terminated, listen
from semconv.callbacks.progress import RunProgress
from semconv.commands.arguments import follower_problem, links_in_force, prepare, read, with_links
from semconv.commands.errors import causes, correct, fail, in_one_line
from semconv.tracking.checkpoints import WholeCheckpointIO, read_checkpoint
from semconv.tracking.facts import derived_facts, variant_name
from semconv.tracking.folder import RunFolder, newest_checkpoint
from semconv.tracking.identity import identity
from semconv.tracking.record import RunRecord
from semconv.tracking.secrets import redact
from semconv.tracking.wandb_record import WandbOptions, WandbRecord


class Trainer(lightning.Trainer):
    """Lightning's Trainer, which can also fit and then test, and predicts without keeping what it predicts."""

    def run(
        self,
        model: lightning.LightningModule,
        datamodule: lightning.LightningDataModule | None = None,
        ckpt_path: str | None = None,
    ) -> None:
        """Fit, then test the weights that fitting ended with. What has no weights is tested alone.

        Args:
            model: what is trained and tested.
            datamodule: the data.
            ckpt_path: checkpoint to go on from.
        """
        if datamodule is not None:
            datamodule.setup("test")  # a missing test split is refused before training, not after it
        if any(parameter.requires_grad for parameter in model.parameters()):  # a floor has nothing to learn
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


class Refused(SystemExit):
    """Arguments that the parser does not take. Nobody's but `main`'s to catch: who builds without it exits with code 2."""

    def __init__(self, message: str) -> None:
        super().__init__(2)
        self.message = message


class OneLineParser(LightningArgumentParser):
    """Says what is wrong with the arguments in one line."""

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        keys = [key for key in re.findall(r'Parser key "([^"]+)"', message) if key != "config"]
        reason = str(causes(ex)[-1]) if ex else message
        said = f"{'.'.join(keys)}: {reason}" if keys and f'"{keys[-1]}"' not in reason else reason
        raise Refused(
            re.sub(r"Expected a <class '(\w+)'>", r"Expected a \1", said.replace("a typing.Literal[", "one of ["))
        ) from ex


class SemconvCLI(LightningCLI):
    """LightningCLI with a folder per run.

    Args:
        args: of the command line.
        run: whether the first of them is a subcommand, to be run.
        instantiate: whether anything is built of what they say.
    """

    def __init__(self, args: list[str], run: bool = True, instantiate: bool = True) -> None:
        self._instantiates = instantiate
        self._links = links_in_force(args)
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
            args=prepare(args),
            run=run,
            auto_configure_optimizers=False,
            load_from_checkpoint_support=False,
        )

    @staticmethod
    def subcommands() -> dict[str, set[str]]:
        return {**LightningCLI.subcommands(), "run": {"model", "datamodule"}}

    def parse_arguments(self, parser: LightningArgumentParser, args: Any) -> None:
        self.config = parser.parse_args(args)
        problem = follower_problem(self._whole().as_dict())
        if problem:
            raise ValueError(problem)

    def _whole(self) -> Namespace:
        """The configuration of the subcommand, or of what is built without one."""
        subcommand = self.config.get("subcommand")
        return self.config[subcommand] if subcommand else self.config

    def _parse_ckpt_path(self) -> None:
        # Lightning would look for hyperparameters in it; ours are in config.yaml
        config, subcommand = self._whole(), self.config.get("subcommand")
        if config.get("resume") and subcommand in ("validate", "test", "predict"):
            raise ValueError(
                f"fit and run go on with a run: {subcommand} it with -c RUN/config.yaml --ckpt_path RUN/checkpoints/last.ckpt"
            )
        if config.get("resume"):
            config["ckpt_path"] = _resumable(RunFolder(config["resume"]))
        elif subcommand in ("validate", "test", "predict") and not config.get("ckpt_path"):
            raise ValueError(f"{subcommand} needs trained weights: give --ckpt_path runs/<experiment>/<run>/checkpoints/last.ckpt")
        elif config.get("ckpt_path"):
            read_checkpoint(Path(config["ckpt_path"]))

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        parser.add_argument("--experiment", type=str, default="unnamed", help="Name of the variant: the folder of its runs.")
        parser.add_argument("--runs", type=str, default="runs", help="Folder in which each run gets a folder of its own.")
        parser.add_argument(
            "--pretrained",
            type=str | None,
            help="Folder of a run whose encoder and data a linear probe or fine-tuning starts from.",
        )
        parser.add_argument("--resume", type=str | None, help="Folder of a run that was stopped, to go on with it there.")
        parser.add_argument(
            "--checkpoint_every",
            type=int | None,
            help="Steps between the checkpoints that are kept. last.ckpt is written then, and at the end of each epoch.",
        )
        parser.add_argument(
            "--evaluation", type=Extent, default="quick", help="How thoroughly what was learned is evaluated after each test."
        )
        parser.add_argument(
            "--evaluation_images", type=PositiveInt, default=10_000, help="Images of train, and of test, probed with at most."
        )
        parser.add_argument(
            "--recalibrate_batch_norm",
            type=bool,
            default=False,
            help="Give batch norms the statistics of each kind of view before features are taken.",
        )
        parser.add_class_arguments(WandbOptions, "wandb")

    def instantiate_classes(self) -> None:
        if self._instantiates:
            super().instantiate_classes()

    def instantiate_trainer(self, **kwargs: Any) -> lightning.Trainer:
        """A trainer whose run has a folder of its own. Each step needs the one before it."""
        saved = self._saved_config()
        self.record = self._open_record(saved)
        given = self._get(self.config_init, "trainer")
        return super().instantiate_trainer(
            **kwargs,
            logger=[self.record, *(logger for logger in _as_list(given.get("logger")) if isinstance(logger, Logger))],
            callbacks=[*_as_list(given.get("callbacks")), *self._callbacks(saved)],
            plugins=_plugins(given),
            default_root_dir=str(self.record.folder.path),
        )

    def _saved_config(self) -> dict[str, Any]:
        """The whole configuration, as the run records it: without secrets, and with the width that was measured."""
        self._dump_config()
        # weights_only is Lightning's option of some subcommands, and other subcommands would refuse the file
        saved = redact({key: value for key, value in self.config_dump.items() if key not in ("resume", "weights_only")})
        _keep_measured(saved, self._get(self.config_init, "model"))
        return saved

    def _open_record(self, saved: dict[str, Any]) -> RunRecord:
        whole = self._whole()
        folder = RunFolder(whole["resume"]) if whole.get("resume") else RunFolder.new(whole["runs"], variant_name(saved))
        subcommand = self.config.get("subcommand") or "fit"
        return RunRecord(folder, WandbRecord(folder, WandbOptions(**saved["wandb"]), saved, derived_facts(saved), subcommand))

    def _callbacks(self, saved: dict[str, Any]) -> list[Callback]:
        folder, facts, whole = self.record.folder, derived_facts(saved), self._whole()
        given, cost, tests = self._get(self.config_init, "trainer"), Cost(folder), self.config.get("subcommand") == "test"
        checkpoints = Checkpoints(folder.checkpoints, whole.get("checkpoint_every"))
        saves = given.get("enable_checkpointing") is not False
        return [
            # first: it creates the folder that the others write into
            Record(folder, with_links(saved, self._links), {**identity(saved), "facts": facts}, bool(whole.get("resume"))),
            cost,
            Dynamics(),
            Panels(folder),
            *([ErrorTable()] if saved["wandb"]["per_image_errors"] else []),
            Announcement(folder, facts, cost),
            Evaluation(
                *(folder, whole["evaluation"], whole["evaluation_images"], whole["recalibrate_batch_norm"]),
                whole.get("ckpt_path") if tests else None,
            ),
            *([RunProgress()] if given.get("enable_progress_bar") is not False else []),
            *([checkpoints] if saves else []),  # Lightning moves it to the end: the others' states are then up to date
            Interruption(checkpoints if saves else None),
        ]

    def _run_subcommand(self, subcommand: str) -> None:
        try:
            super()._run_subcommand(subcommand)
        finally:
            self.record.end(self.record.folder.summary.get("status", "failed"))


def build(arguments: list[str]) -> SemconvCLI:
    """Read a configuration and build its model, data and trainer, without running anything.

    Args:
        arguments: those of a subcommand, such as `-c experiments/base.yaml -c experiments/cnn_plain.yaml`.
    """
    return SemconvCLI(arguments, run=False)


def parse(arguments: list[str]) -> dict[str, Any]:
    """The configuration that arguments of a subcommand give, without building anything.

    Raises:
        Refused: they are not taken.
    """
    return SemconvCLI(arguments, run=False, instantiate=False).config.as_dict()


def print_config(arguments: list[str]) -> str:
    """The whole configuration that arguments of a subcommand, the first of them, give; empty where they give none."""
    printed = io.StringIO()
    with contextlib.suppress(SystemExit, Exception), contextlib.redirect_stdout(printed):
        SemconvCLI([*arguments, "--print_config"])
    return printed.getvalue()


def main(arguments: list[str]) -> None:
    """Run one subcommand; errors of the user's are one line and exit code 2, with `--debug` a traceback."""
    debug = "--debug" in arguments
    arguments = _resuming([word for word in arguments if word != "--debug"])
    quieten()
    listen()
    try:
        with explaining(arguments, debug):
            SemconvCLI(_starting_from(arguments))
    except Terminated as error:
        raise SystemExit(error.exit_code) from None


@contextlib.contextmanager
def explaining(arguments: list[str], debug: bool) -> Iterator[None]:
    """Errors of the user's within are one line and exit code 2.

    Args:
        arguments: of a subcommand, the first of them: what is parsed within.
        debug: show the traceback too.
    """
    try:
        with in_one_line(debug):
            yield
    except Refused as error:
        if debug:
            traceback.print_exc()
        fail(correct(error.message, arguments, print_config))


def quieten() -> None:
    """Silence what Lightning says at every start, but not its warnings of harm."""
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)
    for message in (".*does not have many workers", ".*isinstance.treespec, LeafSpec"):
        warnings.filterwarnings("ignore", message)


def _keep_measured(config: dict[str, Any], model: Any) -> None:
    """Write the measured width of a plain of equal step time into its configuration: otherwise each rebuild would measure anew.

    It stands here because no encoder sees the configuration that it is built from.
    """
    encoder = (config["model"]["init_args"].get("encoder") or {}).get("init_args") or {}
    if encoder.get("as_plain") and encoder.get("mlp_ratio") is None:
        encoder["mlp_ratio"] = model.encoder.mlp_ratio


def _resuming(arguments: list[str]) -> list[str]:
    """`--resume RUN` begins with the run's own configuration; what else is given comes after it."""
    folder = next((option.value for option in read(arguments) if option.name == "--resume"), None)
    return [arguments[0], "-c", f"{folder}/config.yaml", *arguments[1:]] if folder else arguments


def _starting_from(arguments: list[str]) -> list[str]:
    """`--pretrained RUN` begins with the data and the seed of a run, and ends with where it is.

    Raises:
        ValueError: there is no such run.
    """
    options = list(read(arguments[1:]))
    folder = next((option.value for option in options if option.name == "--pretrained"), None)
    if folder is None:
        return arguments
    if not (Path(folder) / "config.yaml").is_file():
        raise ValueError(f"--pretrained {folder}: there is no config.yaml: give a run's folder, runs/<experiment>/<run id>")
    config = RunFolder(folder).config
    kept = yaml.safe_dump({key: config[key] for key in ("data", "seed_everything")})
    others = [word for option in options if option.name != "--pretrained" for word in option.words]
    return [arguments[0], "-c", kept, *others, f"--model.init_args.pretrained_run={folder}"]


def _resumable(folder: RunFolder) -> str:
    """The checkpoint to go on from.

    Raises:
        ValueError: the run is finished, or has no whole checkpoint.
    """
    if folder.summary.get("status") == "finished":
        raise ValueError(f"{folder.path} is finished: start another with -c {folder.path}/config.yaml")
    checkpoint = newest_checkpoint(folder.checkpoints)
    if checkpoint is None:
        raise ValueError(f"{folder.path} has no whole checkpoint: start it anew with -c {folder.path}/config.yaml")
    return str(checkpoint)


def _plugins(trainer: Namespace) -> list[Any]:
    """The trainer's plugins, with one that writes checkpoints atomically unless it has one for checkpoints."""
    plugins = _as_list(trainer.get("plugins"))
    return plugins if any(isinstance(plugin, CheckpointIO) for plugin in plugins) else [*plugins, WholeCheckpointIO()]


def _as_list(value: Any) -> list:
    return list(value) if isinstance(value, list) else [] if value is None else [value]
