"""Keys of a configuration checked before torch is imported, and what a key that does not exist may mean.

The parser checks them again, with all values; only classes whose source is at hand are looked into here.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any, NoReturn

from semconv.commands.arguments import Option, classes_first, content_of, read
from semconv.commands.list import list_classes
from semconv.commands.signatures import TRAINER, Signature, exists, method_arguments, own_groups, own_options, signature
from semconv.configuration import bare, nearest
from semconv.yaml_files import parse_yaml

ALWAYS = ("config", "c", "help", "h", "print_config", "seed_everything", "trainer", "model", "data")
PARTS = ("model", "data", "trainer", "wandb")
# what others call it: by the last part of a key
MEANINGS = {
    "lr": "model.base_lr",
    "learning_rate": "model.base_lr",
    "wd": "model.weight_decay",
    "mask_ratio": "model.masker.ratio",
    "masking_ratio": "model.masker.ratio",
    "patch_size": "model.cell",
    "image_size": "data.size",
    "img_size": "data.size",
    "input_size": "data.size",
    "dataset": "data.source",
    "bs": "data.batch_size",
    "workers": "data.num_workers",
    "epochs": "trainer.max_epochs",
    "steps": "trainer.max_steps",
    "gpus": "trainer.devices",
    "amp": "trainer.precision",
    "grad_clip": "trainer.gradient_clip_val",
    "seed": "seed_everything",
    "name": "experiment",
    "output": "runs",
    "output_dir": "runs",
}
NUMBERS = re.compile(r"\d+(?:\.\d+)?(?:\s*[,x ]\s*\d+(?:\.\d+)?)*")


def check_keys(command: str, words: Sequence[str]) -> None:
    """Check the keys of a command line in the long form, and of its files.

    Args:
        command: the subcommand.
        words: its arguments.

    Raises:
        ValueError: a class has no such argument, there is no such class or option, its module is not valid Python, or a list is not
            written as one.
    """
    keys = Keys(command)
    for option in classes_first(list(read(list(words)))):
        keys.take(option)


class Keys:
    """The keys that exist, given the classes that files and options have chosen so far.

    Args:
        command: the subcommand.
    """

    def __init__(self, command: str) -> None:
        own = {key.partition(".")[0] for key in own_options()}
        self.roots = {*ALWAYS, *own, *method_arguments(command)}
        self.chosen: dict[str, str] = {"trainer": TRAINER, **own_groups()}  # class path by key

    def take(self, option: Option) -> None:
        """Check an option, or the file that it names, and remember its classes.

        Raises:
            ValueError: see `check_keys`.
        """
        content = content_of(option) if option.is_config else None
        if option.is_config:
            for key, value in (content or {}).items():
                self._walk(str(key), value)
        elif not option.is_name:
            key = option.key.rstrip("+")
            for length in range(1, key.count(".") + 2):
                self._require(".".join(key.split(".")[:length]), key)
            self._value(key, option.value)

    def known(self) -> list[str]:
        """All keys."""
        below = [f"{key}.{name}" for key in self.chosen for name in (self.signature(key) or _NOTHING).arguments]
        return [*below, *(root for root in self.roots if len(root) > 1)]

    def signature(self, key: str) -> Signature | None:
        """The signature of the class at a key; None where it is not known."""
        path = self.chosen.get(key)
        return signature(path) if path else None

    def meant(self, key: str) -> str | None:
        """The key that a key that does not exist may mean."""
        known, last = self.known(), key.rpartition(".")[2]
        if last in MEANINGS and MEANINGS[last] in known:
            return MEANINGS[last]
        same = [other for other in known if other.rpartition(".")[2] == last]
        by_part = sorted(
            same, key=lambda other: (other.count("."), PARTS.index(part) if (part := other.partition(".")[0]) in PARTS else 9)
        )
        return nearest(key, known) or next(iter(by_part), None)

    def _walk(self, key: str, value: Any) -> None:
        """Check a value of a file, and everything below it."""
        self._require(key, key)
        if isinstance(value, Mapping):
            if isinstance(path := value.get("class_path"), str):
                self._choose(key, path)
            inner = value.get("init_args") if {"class_path", "init_args"} & value.keys() else value
            for name, below in (inner if isinstance(inner, Mapping) else {}).items():
                self._walk(f"{key}.{name}", below)
        elif isinstance(value, list):
            for number, each in enumerate(value):
                if isinstance(each, Mapping) and isinstance(path := each.get("class_path"), str):
                    self._choose(f"{key}[{number}]", path)
                    inner = each.get("init_args")
                    for name in inner if isinstance(inner, Mapping) else {}:
                        self._require(f"{key}[{number}].{name}", f"{key}[{number}].{name}")

    def _require(self, key: str, whole: str) -> None:
        above, _, name = key.rpartition(".")
        found = self.signature(above)
        absent = key not in self.roots if not above else found is not None and not found.is_open and name not in found.arguments
        if absent and name not in ("help", "dict_kwargs"):
            self._refuse(f"there is no option {whole}", self.meant(whole))

    def _value(self, key: str, value: str | None) -> None:
        """Check a value of the command line: the name of a class, or a list."""
        above, _, name = key.rpartition(".")
        found = self.signature(above)
        argument = found.arguments.get(name) if found else None
        if value is None or (above and argument is None):
            return
        if re.fullmatch(r"[A-Za-z_]\w*(\.\w+)*\.[A-Z]\w*", value):
            self._choose(key, value)
        elif re.fullmatch(r"[A-Z]\w*", value):
            self._forget(key)  # a class by its name alone, which the parser finds
        elif argument and re.match(r"(tuple|list)\[", argument.type) and NUMBERS.fullmatch(value.strip()):
            numbers = re.split(r"[,x\s]+", value.strip())
            self._refuse(f"{key} is {value}", f'"[{", ".join(numbers if len(numbers) > 1 else numbers * 2)}]"')
        elif value.startswith("{"):
            self._walk(key, _parsed(key, value))

    def _choose(self, key: str, path: str) -> None:
        if not exists(path) and path.startswith("semconv."):
            paths = [found for _, classes in list_classes() for found, _ in classes]
            self._refuse(f"{bare(key)}: there is no class {path}", nearest(path, paths))
        if self.chosen.get(key) != path:
            self._forget(key)
            self.chosen[key] = path

    def _forget(self, key: str) -> None:
        below = (f"{key}.", f"{key}[")
        self.chosen = {other: path for other, path in self.chosen.items() if other != key and not other.startswith(below)}

    def _refuse(self, problem: str, meant: str | None) -> NoReturn:
        raise ValueError(f"{problem}: did you mean {meant}?" if meant else f"{problem}: --help-all lists the options")


def _parsed(key: str, value: str) -> Any:
    try:
        return parse_yaml(value)
    except ValueError as error:
        raise ValueError(f"{key} is {value}, which is not valid YAML: {error}: correct it") from error


_NOTHING = Signature("", "", {}, False)
