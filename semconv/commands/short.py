"""The short form of a command line: names of experiments, `--data NAME` and `--seeds`. Imports no torch.

`semconv run cnn_channels --data cifar10` is `semconv run -c base -c cnn_channels -c data/cifar10`.
"""

import os
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from semconv.commands.arguments import Option, content_of, each_file, split
from semconv.configuration import get, require
from semconv.files import user_path
from semconv.shipped import look, names, similar_name
from semconv.study.file import LAST_SEED
from semconv.sweeping.file import Sweep, own_folder
from semconv.sweeping.jobs import find_run
from semconv.tracking.folder import RunFolder, newest_checkpoint

PROTOCOL = Option("-c", "base")
LONGEST = 80  # characters of a sweep's name
OF_SWEEPS = ("--seeds", "--runs", "--jobs")  # options that the trials of a sweep are not given


class Several(NamedTuple):
    """Several runs that one command line asks for.

    Args:
        sweep: the runs, as a grid of experiments and seeds.
        folder: folder of the sweep.
        jobs: runs at a time.
    """

    sweep: Sweep
    folder: Path
    jobs: int


def write_out(words: list[str]) -> list[str]:
    """Write out the arguments of one run; those in the long form stay as they are.

    Those of an interrupted trial that W&B's agent starts again resume its run.

    Raises:
        ValueError: a name has no file, there is no protocol, or the arguments ask for several runs.
    """
    options = _with_protocol(words)
    _require_protocol(options)
    if (run := _interrupted(options)) is not None:
        return ["--resume", str(run.path)]
    experiments, seeds = _experiments(options), _seeds(options)
    if len(experiments) > 1 or len(seeds) > 1:
        raise ValueError("give one experiment and one seed: only semconv run takes several")
    written = [_as_file(option) for option in options if option.name != "--seeds"]
    return [word for option in (*written, *(Option("--seed_everything", str(seed)) for seed in seeds)) for word in option.given]


def several(words: list[str]) -> Several | None:
    """The runs that the arguments of `semconv run` ask for; None where it is one.

    Raises:
        ValueError: a name has no file, or the arguments contradict each other.
    """
    options = _with_protocol(words)
    experiments, seeds = _experiments(options), _seeds(options)
    if len(experiments) < 2 and len(seeds) < 2:
        return None
    if not experiments:
        raise ValueError("--seeds needs the name of an experiment: semconv run cnn_channels --seeds 0,1,2")
    given = {option.name: str(option.value) for option in options}
    if len(experiments) > 1 and "--experiment" in given:
        raise ValueError(f"--experiment {given['--experiment']} gives all experiments one name: leave it out")
    jobs = given.get("--jobs", "1")
    if not re.fullmatch("[1-9][0-9]*", jobs):
        raise ValueError(f"--jobs is {jobs}: give 1 or more")
    parameters = {"config": experiments, "seed_everything": seeds}
    content = {
        "program": "semconv",
        "command": ["${env}", "semconv", "run", *_command(options)],
        "method": "grid",
        "parameters": {key: {"values": values} for key, values in parameters.items() if values},
    }
    folder = own_folder(user_path(given.get("--runs", "runs")) / "sweeps", _name(experiments), content, resume=False)
    return Several(Sweep(folder.name, content), folder, int(jobs))


def _with_protocol(words: list[str]) -> list[Option]:
    """Split arguments into options; where there are names, the file that sets the protocol comes first, or else base.

    Raises:
        ValueError: a name has no file, or is given beside a configuration that is whole.
    """
    options = [_data(_whole(option)) for option in split(words)]
    named = [option for option in options if option.is_name]
    for option in named:
        if option.value is not None:
            raise ValueError(
                f"{option.name}={option.value} is neither an experiment nor an option: write --{option.name} {option.value}"
            )
        if any(other.name == "--resume" for other in options):
            raise ValueError(f"--resume takes the configuration of its run: leave out {option.name}")
    first = [option for option in options if named and _sets_protocol(_as_file(option))]
    others = [option for option in options if option not in first]
    return [*(first or [PROTOCOL]), *others] if named else options


def _interrupted(options: Sequence[Option]) -> RunFolder | None:
    """The run of a trial that W&B's agent starts again, under the same id; None where it has no checkpoint."""
    if not {"WANDB_SWEEP_ID", "WANDB_RUN_ID"} <= os.environ.keys():
        return None
    runs = [option.value or "" for option in options if option.name == "--runs"]
    run = find_run(user_path(["runs", *runs][-1]), os.environ["WANDB_RUN_ID"])
    return run if run is not None and newest_checkpoint(run.checkpoints) is not None else None


def _whole(option: Option) -> Option:
    """Take a word with = that names files, such as `lr=1.yaml`, as their names."""
    word = option.given[0]
    joined = option.is_name and option.value is not None
    return Option(word) if joined and all(look(file.strip(), "experiments") for file in word.split(",")) else option


def _require_protocol(options: Sequence[Option]) -> None:
    """Refuse a configuration without a protocol, and files before it, whose values it would replace.

    Raises:
        ValueError: there is no protocol, or it is not the first file.
    """
    if any(option.is_name or option.name in ("--resume", "--help") or option.key == "model" for option in options):
        return
    files = [(str(given.value), content_of(option), option) for given in options if given.is_config for option in each_file(given)]
    if not files:
        raise ValueError("give an experiment, such as cnn_channels: semconv list names them")
    protocol = next((name for name, content, option in files if content is None or _sets_protocol(option)), None)
    name = files[0][0]
    if protocol is None:
        raise ValueError(f"-c {name} sets no protocol: give -c base before it, or write semconv run {name}")
    if protocol != name:
        raise ValueError(
            f"-c {name} stands before -c {protocol}, which sets the protocol: give -c {protocol} first, or write semconv run {name}"
        )


def _data(option: Option) -> Option:
    """`--data NAME` as `-c data/NAME`; a class stays as it is.

    Raises:
        ValueError: it is the name of no file, and no class.
    """
    name = option.value
    if option.name != "--data" or name is None:
        return option
    for file in (f"data/{name}", name):
        # a study may lie beside images of the same name
        if (path := look(file, "experiments")) and (file != name or "data" in (content_of(Option("-c", str(path))) or {})):
            return Option("-c", file)
    if not re.fullmatch(r"[a-z][\w/-]*", name):
        return option
    known = [file.removeprefix("data/") for file in names("experiments") if file.startswith("data/")]
    similar = None if Path(name).is_dir() else similar_name(name, known)
    advice = f"did you mean {similar}?" if similar else f"for images of your own, give --data.source {name}"
    raise ValueError(f"--data {name}: there is no file data/{name}.yaml: {advice}")


def _as_file(option: Option) -> Option:
    return Option("-c", option.name) if option.is_name else option


def _sets_protocol(option: Option) -> bool:
    """Tell whether the files of an option choose the task, as base does."""
    files = [content_of(file) or {} for file in each_file(option)] if option.is_config else []
    return any(get(content, "model.class_path") for content in files)


def _experiments(options: Sequence[Option]) -> list[str]:
    return list(dict.fromkeys(option.name for option in options if option.is_name))


def _seeds(options: Sequence[Option]) -> list[int]:
    """The numbers of --seeds.

    Raises:
        ValueError: they are none, or too large, or given twice, or there is another seed.
    """
    every = [option.value or "" for option in options if option.name == "--seeds"]
    if not every:
        return []
    given = ",".join(every)
    if len(every) > 1:
        raise ValueError(f"--seeds is given {len(every)} times, as {' and '.join(every)}: give it once, as --seeds {given}")
    if not re.fullmatch(r"\s*\d+\s*(,\s*\d+\s*)*", given):
        raise ValueError(f"--seeds is {given}: give whole numbers, such as 0,1,2")
    if any(option.name == "--seed_everything" for option in options):
        raise ValueError("--seeds and --seed_everything contradict each other: leave one out")
    seeds = list(dict.fromkeys(map(int, given.split(","))))
    require("--seeds", max(seeds), 0, LAST_SEED)
    return seeds


def _command(options: Sequence[Option]) -> list[str]:
    """The words of a trial, in which its experiment takes the place of the first one."""
    names = [option for option in options if option.is_name]
    words: list[str] = []
    for option in options:
        if option is names[0]:
            words.append("${args}")
        elif not option.is_name and option.name not in OF_SWEEPS:
            # a value of its own word could be taken for a macro
            words += (option if option.is_config else replace(option, joined=True)).given
    return words


def _name(experiments: Sequence[str]) -> str:
    """The name of these runs' sweep: that of the experiments."""
    return "+".join("-".join(_stem(Path(file.strip())) for file in each.split(",")) for each in experiments)[:LONGEST]


def _stem(file: Path) -> str:
    """The name of a file; that of a run's configuration is the run's experiment."""
    return file.parent.parent.name if file.name == "config.yaml" else file.stem
