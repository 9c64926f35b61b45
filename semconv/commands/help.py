"""Help of the commands that train: the protocol's options on one screen, and the arguments of a class. Imports no torch."""

import re
import textwrap
from collections.abc import Iterator, Sequence

from semconv.commands.arguments import read
from semconv.commands.keys import Keys
from semconv.commands.list import PARTS, list_classes
from semconv.commands.signatures import Argument, Signature, own_options, signature
from semconv.configuration import flatten, nearest
from semconv.shipped import find
from semconv.yaml_files import read_yaml

WIDTH = 100
EXAMPLE = ("base", "cnn_channels")  # whose classes say what keys there are
USAGE = {
    "run": "usage: semconv run VARIANT... [--data NAME] [--seeds 0,1,2] [-c FILE] [--dotted.key value]",
    "fit": "usage: semconv fit VARIANT [--data NAME] [-c FILE] [--dotted.key value]",
    "validate": "usage: semconv validate -c RUN/config.yaml --ckpt_path RUN/checkpoints/last.ckpt",
    "test": "usage: semconv test -c RUN/config.yaml --ckpt_path RUN/checkpoints/last.ckpt",
    "predict": "usage: semconv predict -c RUN/config.yaml --ckpt_path RUN/checkpoints/last.ckpt",
}
# the options that are shown; texts and defaults are those of the classes and of base.yaml
SHOWN = {
    "Protocol": (
        *("model.base_lr", "model.size", "model.cell", "model.masker.ratio", "model.masker", "model.corruption.fill"),
        *("model.encoder", "model.control", "data.source", "data.size", "data.batch_size"),
    ),
    "Budget": ("trainer.max_epochs", "trainer.max_steps", "trainer.devices", "trainer.precision"),
    "Run": ("experiment", "runs", "seed_everything", "evaluation", "resume", "pretrained", "checkpoint_every"),
    "W&B": ("wandb.mode", "wandb.project"),
}
# options of LightningCLI itself, which has no class for them
LIGHTNINGS = {
    "seed_everything": Argument("seed_everything", "int", "0", "seed of weights, masks and order; --seeds 0,1,2: a run for each")
}
BUILDERS = ("nn.Conv2d", "Indicators", "Geometry", "Size", "Encoder")  # types of what is given by the code that builds a part
HELP = re.compile(r"--([\w.]+)\.help")


def answer(command: str, words: Sequence[str]) -> str | None:
    """The text that the words ask for; None if they ask for none.

    Raises:
        ValueError: there is no such class.
    """
    for number, word in enumerate(words):
        name, _, value = word.partition("=")
        if found := HELP.fullmatch(name):
            after = words[number + 1] if number + 1 < len(words) and not words[number + 1].startswith("-") else ""
            return class_help(found[1], value or after)
    return overview(command) if {"-h", "--help"} & set(words) else None


def overview(command: str) -> str:
    """The options of the protocol, on one screen."""
    keys, defaults = example(), _defaults()
    lines = [
        USAGE[command],
        "semconv list names variants, data and classes. A variant is short for its files: -c base -c VARIANT.",
        "",
    ]
    for title, shown in SHOWN.items():
        lines.append(f"{title}:")
        for key in shown:
            argument = describe(keys, key)
            default = defaults.get(key) or ("" if argument.default in (None, "None") else _unquoted(argument.default))
            lines.append(_line(f"--{key}", argument.text, default))
    return "\n".join(
        [
            *lines,
            "Help:",
            _line("--model.encoder.help CLASS", "arguments of a class (no name: the classes); the same for every key", ""),
            _line("--print_config", "the whole configuration, after all files and options", ""),
            _line("--help-all", "all options, with those of Lightning's Trainer", ""),
        ]
    )


def class_help(key: str, name: str) -> str:
    """The arguments of a class at a key; without a name, the classes that the key takes.

    Raises:
        ValueError: the key takes no class, or there is none of this name.
    """
    classes = dict(classes_at(key))
    if not name:
        width = max(map(len, classes))
        return "\n".join([f"--{key} takes one of:", *(f"  {path:<{width}}  {text}" for path, text in classes.items())])
    fitting = [path for path in classes if name in (path, path.rpartition(".")[2])]
    found = signature(fitting[0] if fitting else name)
    if found is None:
        similar = nearest(name, [*classes, *(path.rpartition(".")[2] for path in classes)])
        advice = f"did you mean {similar}?" if similar else f"--{key}.help lists those of semconv"
        raise ValueError(f"--{key}.help {name}: there is no such class: {advice}")
    return "\n".join([f"{found.path}: {found.text}", "", *_listed(key, found)])


def describe(keys: Keys, key: str) -> Argument:
    """The argument that a key sets."""
    above, _, name = key.rpartition(".")
    found = keys.signature(above)
    return found.arguments[name] if found else {**LIGHTNINGS, **own_options()}[key]


def _listed(key: str, found: Signature) -> Iterator[str]:
    """The documented arguments of a class that a configuration sets."""
    for argument in found.arguments.values():
        if argument.text and not (argument.default is None and argument.type in BUILDERS):
            default = "required" if argument.default is None else f"default: {_unquoted(argument.default)}"
            yield f"  --{key}.{argument.name}  {argument.type}  ({default})"
            yield textwrap.fill(argument.text, WIDTH, initial_indent=" " * 6, subsequent_indent=" " * 6)


def classes_at(key: str) -> list[tuple[str, str]]:
    """The classes of semconv that a key takes, each with its first line."""
    if key in ("model", "data"):
        paths = ("semconv.tasks.MaskedReconstruction", "semconv.finetuning.LinearProbe", "semconv.finetuning.FineTune")
        found = [signature(path) for path in (paths if key == "model" else ("semconv.data.ImageData",))]
        return [(each.path, each.text) for each in found if each]
    keys, (above, _, name) = example(), key.rpartition(".")
    holder = keys.signature(above)
    words = re.findall(r"[A-Z][a-z]+", holder.arguments[name].type) if holder and name in holder.arguments else []
    kinds = [word for word in words if word in PARTS.values()]
    classes = dict(list_classes())[kinds[-1]] if kinds else []  # the last one: the others are what it is built from
    if not classes:
        raise ValueError(f"--{key}.help: {key} takes no class: semconv run --help lists keys, such as model.encoder")
    return classes


def example() -> Keys:
    """The keys that there are where a variant is trained."""
    keys = Keys("run")
    for option in read([word for name in EXAMPLE for word in ("-c", name)]):
        keys.take(option)
    return keys


def _defaults() -> dict[str, str]:
    """The values of base.yaml, by key."""
    content = read_yaml(find(EXAMPLE[0], "experiments"))
    return {key: str(value) for key, value in flatten(content).items()}


def _unquoted(default: str) -> str:
    return default.strip("'\"")


def _line(name: str, text: str, default: str) -> str:
    """An option with the first words of its text, within the width."""
    shown = f" [{default}]" if default else ""
    first = re.split(r"(?<=\w)\.(?=\s|$)", text)[0].replace("``", "")
    left = f"  {name:<27} "
    return left + textwrap.shorten(first, WIDTH - len(left) - len(shown), placeholder=" ...") + shown
