"""fit, validate, test, predict and run: a LightningCLI with a folder per run, and errors on one line."""

import contextlib
import json
import logging
import re
import shlex
import sys
import traceback
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, NoReturn

import lightning
import torch
from jsonargparse import Namespace, set_parsing_settings
from jsonargparse.typing import PositiveInt, register_type
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.callbacks import Callback, LambdaCallback, ProgressBar
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI
from lightning.pytorch.loggers import Logger
from lightning.pytorch.plugins.io import CheckpointIO
from omegaconf.errors import OmegaConfBaseException

from semconv.callbacks import Cost, Diverged, Divergence, Dynamics, ErrorTable, Panels, Record
from semconv.callbacks.announcement import Announcement
from semconv.callbacks.checkpoints import Checkpoints
from semconv.callbacks.evaluation import Evaluation, Extent
from semconv.callbacks.interruption import Interruption, Terminated, listen
from semconv.callbacks.progress import RunProgress
from semconv.commands.arguments import Option, follower_problem, given_values, links_in_force, named_code, prepare, read, with_links
from semconv.commands.errors import causes, fail, in_one_line
from semconv.commands.keys import check_keys
from semconv.commands.refusals import DENIED, empty_argument, explain, interpolation
from semconv.commands.results import print_results
from semconv.commands.short import write_out
from semconv.commands.trainer_options import (
    COUNTS_OR_SHARES,
    about_trainer,
    avoid_mps,
    check_ranges,
    check_sharding,
    nothing_to_train,
    refuse_finders,
    refuse_second_record,
)
from semconv.configuration import flatten, no_class, not_finite, one_line
from semconv.files import as_word, user_path
from semconv.tracking.checkpoints import WholeCheckpointIO, read_checkpoint
from semconv.tracking.continuation import (
    Origin,
    changes,
    is_complete,
    lengthened,
    lengthened_before,
    require_unfinished,
    trained_as,
    untrained_part,
)
from semconv.tracking.facts import derived_facts, variant_name
from semconv.tracking.folder import RunFolder, newest_checkpoint
from semconv.tracking.identity import identity
from semconv.tracking.record import RunRecord
from semconv.tracking.secrets import redact
from semconv.tracking.wandb_record import WandbOptions, WandbRecord
from semconv.trained.run import check_classes, trusted_modules
from semconv.yaml_files import to_yaml

register_type(torch.device)  # the default of an argument of some callbacks


class Trainer(lightning.Trainer):
    """Lightning's Trainer, extended: it can fit and then test, and predicts without keeping predictions in memory."""

    validated_at = -1  # step of the last validation
    ends = True  # what runs now is the last stage of the run

    def run(
        self,
        model: lightning.LightningModule,
        datamodule: lightning.LightningDataModule | None = None,
        ckpt_path: str | None = None,
    ) -> None:
        """Fit, then test the final weights, and validate them if training ended within an epoch.

        A model without trainable weights is only tested.

        Args:
            model: the task to train and test.
            datamodule: the data.
            ckpt_path: checkpoint to resume from.
        """
        if datamodule is not None:
            datamodule.setup("test")  # report a missing test split before training, not after it
        if any(parameter.requires_grad for parameter in model.parameters()):  # a classical baseline has none
            self.callbacks.insert(0, LambdaCallback(on_validation_end=self._validated))  # type: ignore[attr-defined]
            self.ends = False
            self.fit(model, datamodule=datamodule, ckpt_path=ckpt_path)
            if self.validated_at != self.global_step and self.limit_val_batches:
                self.validate(model, datamodule=datamodule, verbose=False)
            self.ends = True
        self.test(model, datamodule=datamodule, verbose=False)

    def _validated(self, *_: object) -> None:
        self.validated_at = self.global_step

    def predict(  # type: ignore[override]
        self,
        model: lightning.LightningModule,
        datamodule: lightning.LightningDataModule | None = None,
        ckpt_path: str | None = None,
    ) -> None:
        """Write pictures of the reconstructed test images; predictions are not kept in memory.

        Args:
            model: the task that predicts.
            datamodule: the data.
            ckpt_path: checkpoint with its weights.
        """
        super().predict(model, datamodule=datamodule, return_predictions=False, ckpt_path=ckpt_path)


# options of the trainer that depend on the machine, or name parts of their own
MACHINE = ("accelerator", "devices", "num_nodes", "strategy", "precision", "plugins", "logger", "callbacks", "profiler")
BuildExtent = Literal["all", "parts", "nothing"]


class Refused(SystemExit):
    """Arguments that the parser refuses. `main` catches it; without `main`, the process exits with code 2."""

    def __init__(self, message: str) -> None:
        super().__init__(2)
        self.message = message


class OneLineParser(LightningArgumentParser):
    """Raises errors in the arguments as one line, and validates each class within the configuration once."""

    _validates = False  # for all parsers: each class within the configuration has one of its own

    def _add_signature_parameter(self, *args: Any, **options: Any) -> None:
        # where a class is expected, jsonargparse would read a file of that name
        super()._add_signature_parameter(*args, **options | {"sub_configs": False})

    def validate(self, *args: Any, **kwargs: Any) -> None:
        before, OneLineParser._validates = OneLineParser._validates, True
        try:
            super().validate(*args, **kwargs)
        finally:
            OneLineParser._validates = before

    def parse_object(self, obj: Any, *args: Any, **kwargs: Any) -> Namespace:
        if not OneLineParser._validates:
            return super().parse_object(obj, *args, **kwargs)
        # jsonargparse would parse what it has parsed, to validate it: three times at each depth
        try:
            self.validate(obj)
        except (TypeError, KeyError) as error:
            self.error(str(error), error)
        return obj

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        if not self.exit_on_error:  # of a class within the configuration: the parser around it adds its key
            super().error(message, ex)
        raise Refused(explain(message, ex)) from ex


class SemconvCLI(LightningCLI):
    """LightningCLI with a folder per run.

    Args:
        args: arguments of the command line.
        run: the first argument is a subcommand, and is run.
        extent: what is built of the configuration: all, its parts (model and data, without a trainer), or nothing.
    """

    def __init__(self, args: list[str], run: bool = True, extent: BuildExtent = "all") -> None:
        self._extent, self._called = extent, args[:1]
        self._checkpoint: dict[str, Any] | None = None
        self._given = given_values(args)  # before links and defaults
        self._named = named_code(args)
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
                "description": "Train and test networks by masked reconstruction; in short `semconv run cnn_channels --data "
                "cifar10 --seeds 0,1,2`. `semconv compare RUNS` compares runs.",
            },
            parser_class=OneLineParser,
            subclass_mode_model=True,
            subclass_mode_data=True,
            args=prepare(args),
            run=run,
            auto_configure_optimizers=False,
            load_from_checkpoint_support=False,
        )

    def subcommands(self) -> dict[str, set[str]]:  # type: ignore[override]
        """The one that is called. The parsers of the others, which would have nothing to parse, take a third of the parsing."""
        known = {**LightningCLI.subcommands(), "run": {"model", "datamodule"}}
        return {name: skipped for name, skipped in known.items() if name in self._called} or known

    def parse_arguments(self, parser: LightningArgumentParser, args: Any) -> None:
        try:
            self.config = self._within_limits(parser, args)
        except (OmegaConfBaseException, RecursionError) as error:
            raise ValueError(interpolation(error, self._given)) from error
        for group in ("trainer", "wandb"):
            if not isinstance(given := self._whole().get(group), Namespace):
                raise ValueError(f"{group} is {given}: give a mapping of keys to values")
        self._keep_counts(self._whole()["trainer"])
        config = self._whole().as_dict()
        check_ranges(config)
        if self.config.get("subcommand") in ("fit", "run"):
            if problem := nothing_to_train(config["trainer"]):
                raise ValueError(problem)
            if config["trainer"]["max_epochs"] is None and config["trainer"]["max_steps"] in (None, -1):
                raise ValueError("trainer.max_epochs is null, of which Lightning makes 1,000: give a number of epochs, or of steps")
        if other := no_class(config):
            raise ValueError(f"{other[0]} is {other[1]}, which is no class and is not called: give a class")
        if found := not_finite(config):
            raise ValueError(f"{found[0]} is {found[1]}: give a number that is finite")
        if problem := empty_argument(config) or follower_problem(config):
            raise ValueError(problem)

    def _within_limits(self, parser: LightningArgumentParser, args: list[str]) -> Namespace:
        allowed = _limit_imports(self._named)
        try:
            return self._parsed(parser, args)
        except Refused as error:
            # a package that was named may hold a class of another one, which it has imported
            if not any(DENIED.search(str(cause)) for cause in causes(error)) or allowed == _limit_imports(self._named):
                raise
            return self._parsed(parser, args)

    def _parsed(self, parser: LightningArgumentParser, args: list[str]) -> Namespace:
        own = getattr(self, "_subcommand_parsers", {}).get("".join(self._called))
        if own is None or any(word.startswith("--print_config") for word in args):
            return parser.parse_args(args)
        # the parser around that of the subcommand, which alone prints configurations, would add defaults and validate once more
        return Namespace({"subcommand": args[0], args[0]: own.parse_args(args[1:])})

    def _keep_counts(self, trainer: Namespace) -> None:
        """Take 1 for one batch, and not for 1.0, all of them.

        The parser tries the types of an option in their order, and that of `int | float` is by chance: Python's typing keeps the
        one that any package has written first. It does so when it reads options, and when it builds what they describe.

        Args:
            trainer: options of the trainer, as the parser has left them.
        """
        for name in COUNTS_OR_SHARES:
            if isinstance(value := self._given.get(f"trainer.{name}"), int) and isinstance(trainer.get(name), float):
                trainer[name] = value

    def _whole(self) -> Namespace:
        """The configuration of the subcommand, or of what is built without one."""
        subcommand = self.config.get("subcommand")
        return self.config[subcommand] if subcommand else self.config

    def _parse_ckpt_path(self) -> None:
        # Lightning would search the checkpoint for hyperparameters, which are in config.yaml
        config, subcommand = self._whole(), self.config.get("subcommand")
        if config.get("resume") and subcommand in ("validate", "test", "predict"):
            raise ValueError(
                f"--resume is for fit and run: {subcommand} a run by -c RUN/config.yaml --ckpt_path RUN/checkpoints/last.ckpt"
            )
        if config.get("resume") and config.get("ckpt_path"):
            raise ValueError("--resume continues from the run's newest checkpoint: leave --ckpt_path out, or --resume")
        if config.get("resume"):
            config["ckpt_path"] = _resumable(RunFolder(config["resume"]))
            self._checkpoint = read_checkpoint(Path(config["ckpt_path"]))
        elif subcommand in ("validate", "test", "predict") and not config.get("ckpt_path"):
            raise ValueError(f"{subcommand} needs trained weights: give --ckpt_path runs/<experiment>/<run>/checkpoints/last.ckpt")
        elif config.get("ckpt_path"):
            config["ckpt_path"] = str(user_path(config["ckpt_path"]))
            self._checkpoint = read_checkpoint(Path(config["ckpt_path"]))

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        parser.add_argument("--experiment", type=str, default="unnamed", help="Name of the variant, and of the folder of its runs.")
        parser.add_argument("--runs", type=str, default="runs", help="Folder of all runs; each run gets its own subfolder.")
        parser.add_argument(
            "--pretrained",
            type=str | None,
            help="Folder of the pretraining run: a linear probe or fine-tuning uses its encoder and its data.",
        )
        parser.add_argument("--resume", type=str | None, help="Folder of an interrupted run, to resume it there.")
        parser.add_argument(
            "--checkpoint_every",
            type=int | None,
            help="Steps between checkpoints that are kept. last.ckpt is written then, at the end of each epoch, and by time.",
        )
        parser.add_argument(
            "--checkpoint_minutes",
            type=float | None,
            default=5.0,
            help="Minutes after which last.ckpt is written within an epoch.",
        )
        parser.add_argument(
            "--nonfinite_steps",
            type=PositiveInt,
            default=1,
            help="Consecutive steps whose loss or gradient is not finite, at which the run ends as diverged.",
        )
        parser.add_argument(
            "--evaluation", type=Extent, default="quick", help="Evaluation of the features after each test: none, quick or full."
        )
        parser.add_argument(
            "--evaluation_every",
            type=PositiveInt | None,
            help="Epochs between probes of the features during training (val/linear_top1, val/knn_top1), on at most 2,000 images.",
        )
        parser.add_argument(
            "--evaluation_images",
            type=PositiveInt,
            default=10_000,
            help="Maximal number of images of train, and of test, for the probes.",
        )
        parser.add_argument(
            "--recalibrate_batch_norm",
            type=bool,
            default=False,
            help="Recompute batch-norm statistics for each kind of view before features are extracted, also of the untrained "
            "baseline. Default: statistics of masked views, as training leaves them.",
        )
        parser.add_class_arguments(WandbOptions, "wandb")

    def instantiate_classes(self) -> None:
        if self._extent == "all":
            super().instantiate_classes()
        elif self._extent == "parts":
            self.config_init = self.parser.instantiate(self.config)
            self.model, self.datamodule = (self._get(self.config_init, key) for key in ("model", "data"))

    def instantiate_trainer(self, **kwargs: Any) -> lightning.Trainer:
        """A trainer whose run has a folder of its own. Each step needs the one before it."""
        saved = self._saved_config()
        self._origin = self._trace(saved)
        self.record = self._open_record(saved)
        given = self._get(self.config_init, "trainer")
        self._keep_counts(given)
        loggers = [logger for logger in _as_list(given.get("logger")) if isinstance(logger, Logger)]
        refuse_finders(_as_list(given.get("callbacks")))
        check_sharding(given, self._whole(), self.config.get("subcommand"))
        refuse_second_record(loggers)
        parts: dict[str, Any] = {
            "accelerator": avoid_mps(given.get("accelerator")),
            "logger": [self.record, *loggers],
            "callbacks": [*_as_list(given.get("callbacks")), *self._callbacks(saved)],
            "plugins": _plugins(given),
        }
        try:
            return super().instantiate_trainer(**kwargs, **parts, default_root_dir=str(self.record.folder.path))
        except (TypeError, ValueError, MisconfigurationException) as error:
            if (said := about_trainer(error, self._whole()["trainer"].as_dict())) is None:
                raise
            raise ValueError(said) from error

    def _dump_config(self) -> None:
        # as LightningCLI does, but the parser has validated the values already, and JSON is read in no time
        if not hasattr(self, "config_dump"):
            text = self.parser.dump(self.config, skip_link_targets=False, skip_unset=False, skip_validation=True, format="json")
            self.config_dump = json.loads(text)
            if "subcommand" in self.config:
                self.config_dump = self.config_dump[self.config.subcommand]
            # the parser writes what it would read
            self.config_dump["trainer"].update({name: self._whole()["trainer"].get(name) for name in COUNTS_OR_SHARES})

    def _saved_config(self) -> dict[str, Any]:
        """The whole configuration, as the run records it: without secrets, and with the width that was measured."""
        self._dump_config()
        # weights_only is Lightning's option of some subcommands, and other subcommands would refuse the file; a run by this
        # configuration starts anew, and not where this one continued
        saved = redact(
            {key: value for key, value in self.config_dump.items() if key not in ("resume", "weights_only", "ckpt_path")}
        )
        for key, value in flatten(saved).items():
            if isinstance(value, str) and (found := re.fullmatch(r"<redacted:(\w+)>", value)):
                raise ValueError(
                    f"{key} is the value of {found[1]} in the environment, and no run records a secret: unset {found[1]}"
                )
        _keep_measured(saved, self._get(self.config_init, "model"))
        return saved

    def _trace(self, saved: dict[str, Any]) -> Origin:
        """The checkpoint that the run starts from; refused where its training cannot continue."""
        whole, subcommand = self._whole(), self.config.get("subcommand")
        if self._checkpoint is None:
            return Origin()
        source = f"--resume {whole['resume']}" if whole.get("resume") else f"--ckpt_path {whole['ckpt_path']}"
        start = self._checkpoint, Path(whole["ckpt_path"])
        before, after = trained_as(*start), identity(saved)
        if subcommand not in ("fit", "run"):
            differs = (*(changes(before, after) if before else ()), *untrained_part(*start, saved["trainer"]))
            return Origin(whole["ckpt_path"], differs_in=differs, step=self._checkpoint["global_step"])
        grown = before is not None and lengthened(before, after, source)
        if not whole.get("resume") and is_complete(self._checkpoint, saved["trainer"]):
            raise ValueError(
                f"{source} has {self._checkpoint['global_step']} steps, and nothing is left to train: give a larger "
                "--trainer.max_epochs or --trainer.max_steps, or test it by semconv test"
            )
        return Origin(
            whole["ckpt_path"], grown, step=self._checkpoint["global_step"], lengthened_at=lengthened_before(self._checkpoint)
        )

    def _open_record(self, saved: dict[str, Any]) -> RunRecord:
        whole = self._whole()
        folder = RunFolder(whole["resume"]) if whole.get("resume") else RunFolder.new(whole["runs"], variant_name(saved))
        subcommand = self.config.get("subcommand") or "fit"
        return RunRecord(folder, WandbRecord(folder, WandbOptions(**saved["wandb"]), saved, derived_facts(saved), subcommand))

    def _callbacks(self, saved: dict[str, Any]) -> list[Callback]:
        folder, facts, whole = self.record.folder, derived_facts(saved), self._whole()
        given, cost = self._get(self.config_init, "trainer"), Cost(folder)
        has_bar = any(isinstance(callback, ProgressBar) for callback in _as_list(given.get("callbacks")))
        divergence = Divergence(whole["nonfinite_steps"])
        checkpoints = Checkpoints(folder.checkpoints, whole["checkpoint_every"], whole["checkpoint_minutes"], divergence.read)
        saves = given.get("enable_checkpointing") is not False
        return [
            # first: it creates the folder that the others write into
            Record(
                *(folder, with_links(saved, links_in_force(self._given)), {**identity(saved), "facts": facts}),
                *(bool(whole.get("resume")), self._origin),
            ),
            divergence,
            cost,
            Dynamics(),
            Panels(folder),
            *([ErrorTable()] if saved["wandb"]["per_image_errors"] else []),
            Announcement(folder, facts, cost),
            Evaluation(
                folder,
                whole["evaluation"],
                whole["evaluation_images"],
                whole["recalibrate_batch_norm"],
                whole["evaluation_every"],
            ),
            *([RunProgress()] if given.get("enable_progress_bar") is not False and not has_bar else []),
            *([checkpoints] if saves else []),  # Lightning moves it to the end: the others' states are then up to date
            Interruption(checkpoints if saves else None),
        ]

    def _run_subcommand(self, subcommand: str) -> None:
        folder, shows = self.record.folder, self.trainer.is_global_zero
        try:
            super()._run_subcommand(subcommand)
        except Terminated:
            if shows and subcommand in ("fit", "run") and newest_checkpoint(folder.checkpoints):
                print(f"to continue this run: semconv {subcommand} --resume {shlex.quote(as_word(folder.path))}", file=sys.stderr)
            raise
        finally:
            self.record.end(folder.summary.get("status", "failed"))
        if shows and subcommand in ("test", "run"):
            print_results(folder.summary)


def build(arguments: list[str]) -> SemconvCLI:
    """Read a configuration and build its model, data and trainer, without running anything.

    Args:
        arguments: arguments of a subcommand, such as `-c experiments/base.yaml -c experiments/cnn_plain.yaml`.
    """
    return SemconvCLI(arguments, run=False)


def parse(arguments: list[str]) -> dict[str, Any]:
    """Parse the arguments of a subcommand into a configuration, without building anything.

    Raises:
        Refused: the parser refuses them.
    """
    return SemconvCLI(arguments, run=False, extent="nothing").config.as_dict()


def try_parts(arguments: list[str]) -> dict[str, Any]:
    """Build model, data and trainer of the arguments of a subcommand, to see whether they can be built; give its configuration.

    What a trainer takes from the machine (devices, precision) may be that of another one, and is left out.

    Raises:
        Refused: the parser refuses the arguments.
        ValueError: a part refuses its own.
    """
    cli = SemconvCLI(arguments, run=False, extent="nothing")
    config = cli.config.as_dict()
    encoder = cli.config.get("model.init_args.encoder.init_args")
    if encoder and encoder.get("as_plain") and encoder.get("mlp_ratio") is None:
        encoder["mlp_ratio"] = 4.0  # any width will do: to measure it would take seconds
    cli.parser.instantiate(cli.config)
    options = {key: value for key, value in config["trainer"].items() if key not in MACHINE}
    try:
        Trainer(accelerator="cpu", logger=False, **options)
    except (TypeError, MisconfigurationException) as error:  # Lightning's words may hold the whole value
        said = about_trainer(error, options) or f"trainer: {one_line(error, 200)}: correct the option"
        raise ValueError(said) from error
    if problem := nothing_to_train(options):
        raise ValueError(problem)
    return config


def main(arguments: list[str]) -> None:
    """Run one subcommand; errors for the user are one line and exit code 2, with `--debug` also a traceback."""
    debug = "--debug" in arguments
    with in_one_line(debug):
        written = write_out([word for word in arguments[1:] if word != "--debug"])
        check_keys(arguments[0], written)
        arguments = _resuming([arguments[0], *written])
    quieten()
    listen()
    try:
        with explaining(debug):
            SemconvCLI(_starting_from(arguments))
    except Terminated as error:
        raise SystemExit(error.exit_code) from None
    except Diverged as error:
        print(f"semconv: the run has diverged: {error}", file=sys.stderr)
        raise SystemExit(error.exit_code) from None


@contextlib.contextmanager
def explaining(debug: bool) -> Iterator[None]:
    """Print errors for the user, and those of the parser, on one line and exit with code 2.

    Args:
        debug: show the traceback too.
    """
    try:
        with in_one_line(debug):
            yield
    except Refused as error:
        if debug:
            print(redact(traceback.format_exc()), file=sys.stderr)
        fail(error.message)


def quieten() -> None:
    """Silence Lightning's messages at every start, but not its important warnings."""
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)
    logging.getLogger("lightning.pytorch.profilers").setLevel(logging.INFO)  # which log what they measure
    for message in (
        *(".*does not have many workers", ".*smaller than the logging interval", ".*isinstance.treespec, LeafSpec"),
        "FSDP2-wrapped module .* returned a view tensor",  # nothing is written into the output of a part
        r"\s*Unable to serialize instance \$\{",  # which is refused as no class
    ):
        warnings.filterwarnings("ignore", message)


def _limit_imports(named: set[str]) -> set[str]:
    """Let the parser import the packages that the user has named and those that are imported already, and no others.

    So text, another file or an interpolation cannot run code where a class is expected.

    Args:
        named: as `named_code` gives them.

    Returns:
        the packages that are allowed.
    """
    packages = {*named, *(name.partition(".")[0] for name in sys.modules), "semconv", "torch", "timm", "lightning"}
    allowed = {name for name in packages - sys.stdlib_module_names - {"jsonargparse"} if name.isidentifier()}
    set_parsing_settings(import_path_denylist=["*"], import_path_allowlist=[*trusted_modules(), *sorted(allowed)])
    return allowed


def _keep_measured(config: dict[str, Any], model: Any) -> None:
    """Write the measured width of a plain network of equal cost into its configuration, so that a rebuild does not measure again.

    The encoder cannot do this itself: it does not see the configuration that it is built from.
    """
    encoder = (config["model"]["init_args"].get("encoder") or {}).get("init_args") or {}
    if encoder.get("as_plain") and encoder.get("mlp_ratio") is None:
        encoder["mlp_ratio"] = model.encoder.mlp_ratio


def _resuming(arguments: list[str]) -> list[str]:
    """Put the run's own configuration before the other arguments of `--resume RUN`."""
    folder = _folder(list(read(arguments)), "--resume")
    return [arguments[0], "-c", f"{folder}/config.yaml", *arguments[1:]] if folder else arguments


def _folder(options: list[Option], name: str) -> str | None:
    """The folder that an option gives; of an option that is repeated the last value, as for the parser. None: there is none."""
    given = [option.value for option in options if option.name == name and option.value is not None]
    return str(user_path(given[-1])) if given else None


def _starting_from(arguments: list[str]) -> list[str]:
    """Replace `--pretrained RUN` by the data and the seed of the run, before the other arguments, and its folder after them.

    Raises:
        ValueError: there is no such run.
    """
    options = list(read(arguments[1:]))
    folder = _folder(options, "--pretrained")
    if folder is None:
        return arguments
    if not (Path(folder) / "config.yaml").is_file():
        raise ValueError(f"--pretrained {folder}: there is no config.yaml: give a run's folder, runs/<experiment>/<run id>")
    config = RunFolder(folder).config
    check_classes(config.get("data"), trusted_modules())
    kept = to_yaml({key: config[key] for key in ("data", "seed_everything") if key in config})
    others = [word for option in options if option.name != "--pretrained" for word in option.words]
    return [arguments[0], "-c", kept, *others, f"--model.init_args.pretrained_run={folder}"]


def _resumable(folder: RunFolder) -> str:
    """Find the checkpoint to resume from.

    Raises:
        ValueError: the run has ended, or has no complete checkpoint.
    """
    require_unfinished(folder)
    checkpoint = newest_checkpoint(folder.checkpoints)
    if checkpoint is None:
        config = shlex.quote(as_word(folder.path / "config.yaml"))
        raise ValueError(f"{folder.path} has no complete checkpoint: start it again by -c {config}")
    return str(checkpoint)


def _plugins(trainer: Namespace) -> list[Any]:
    """The trainer's plugins, with one that writes checkpoints atomically unless it has one for checkpoints."""
    plugins = _as_list(trainer.get("plugins"))
    return plugins if any(isinstance(plugin, CheckpointIO) for plugin in plugins) else [*plugins, WholeCheckpointIO()]


def _as_list(value: Any) -> list:
    return list(value) if isinstance(value, list) else [] if value is None else [value]
