"""Command lines and configuration files with one fault each, drawn by a seed, and what semconv says of them."""

import io
import json
import random
import re
import string
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any, Literal, NamedTuple

import yaml

from semconv.commands.errors import in_one_line
from semconv.commands.keys import check_keys
from semconv.commands.short import write_out
from semconv.commands.train import explaining, try_parts
from semconv.configuration import bare
from tests.campaign.trial import Trial
from tests.experiments import FOLDER, parsed

EXPERIMENTS = ("cnn_channels", "mae_vit", "cnn_gradual", "cnn_denoising")
SCALARS = (
    *("abc", "", "-1", "0", "1.5", "1e400", ".nan", "true", "null", "None", "~", "[]", "{}", "[1, 2, 3]", "[a]", "{a: 1}"),
    *("'3'", "3 4", "é", "\u202e", "0x1F", "1_000", "12:30", "2024-01-01", "!!int x", "&a", "*a", "@x", "%x", "- - 1", "a: b: c"),
    *("x" * 3000, "\t", "…", "-", "--"),
)
INTERPOLATIONS = (
    *("${x}", "${..", "${", "$", "${}", "${.}", "${..}", "${........a}", "${seed_everything", "${model}", "${data}", "${.self}"),
    *("${oc.env:NOT_SET_AT_ALL}", "${oc.env}", "${oc.env:}", "${oc.env:HOME}", "${oc.env:HOME,3}", "${oc.select:x}", "${foo:1}"),
    *("${oc.create:{}}", "${oc.decode:[}", "${oc.dict.keys:model}", "${oc.dict.values:data}", "${oc.deprecated:x}", "a${x}b"),
    *("${${x}}", "${a.b.c[0]}", "${now:%Y}", "???"),
)
CLASSES = (
    *("Nope", "semconv.nope.Nope", "semconv.masking.Nope", "nowhere.to.Be", "os.system", "os", "builtins.dict", "torch.nn.Linear"),
    *("semconv.masking.Masker", "semconv.masking", "semconv", "RandomMaskr", "semconv.encoders.SemanticCNN", "null"),
    *("3", "", ".", "..x", "a b"),
)
NODES: tuple[Any, ...] = (
    *(None, 3, "text", True, [], {}, [1], [[1]], {"a": 1}, [{"class_path": "Mask"}], {"class_path": None}, {"init_args": 3}),
)
LETTERS = "abcdefgh", "bcdefghi"
TEXTS: dict[str, str | bytes] = {
    "empty": "",
    "comment": "# nothing\n",
    "text": "just text",
    "number": "3",
    "list": "- 1\n- 2\n",
    "null": "null",
    "two documents": "a: 1\n---\nb: 2\n",
    "tab": "trainer:\n\tmax_steps: 3\n",
    "unclosed": "trainer: {max_steps: 3\n",
    "colon": "trainer: max_steps: 3\n",
    "twice": "trainer: {max_steps: 3, max_steps: 4}\n",
    "twice above": "model: {}\nmodel: {}\n",
    "anchor": "trainer: &a {max_steps: 3}\nwandb: *a\n",
    "itself": "trainer: &a {max_steps: *a}\n",
    "no anchor": "trainer: *nothing\n",
    "merge": "x: &a {max_steps: 3}\ntrainer: {<<: *a}\n",
    "merge of text": "trainer: {<<: text}\n",
    "deep": "trainer: " + "[" * 5000 + "]" * 5000,
    "deep mapping": "trainer: " + "{a: " * 400 + "1" + "}" * 400,
    "huge": "wandb: {tags: [" + ", ".join(["x"] * 200_000) + "]}\n",
    "laughter": "a: &a [x, x]\n" + "".join(f"{y}: &{y} [{', '.join([f'*{x}'] * 9)}]\n" for x, y in zip(*LETTERS, strict=True)),
    "binary": bytes(range(256)),
    "zero": b"trainer: \0",
    "utf-16": "trainer: {max_steps: 3}".encode("utf-16"),
    "utf-8 mark": b"\xef\xbb\xbftrainer: {max_steps: 3}\n",
    "tag": "trainer: !!python/object/apply:os.system [true]\n",
    "binary tag": "trainer: {max_steps: !!binary AAAA}\n",
    "set": "trainer: !!set {a, b}\n",
    "date": "trainer: {max_steps: 2024-01-01}\n",
    "number as key": "1: 2\n",
    "numbers as keys": "model: {init_args: {1: 2, 3: 4}}\n",
    "null as key": "null: 1\n",
    "true as key": "trainer: {true: 1}\n",
    "list as key": "? [a, b]\n: 1\n",
    "dotted": "trainer.max_steps: 3\nmodel.init_args.seed: 3\n",
    "own name": "config: a.yaml\n",
    "json": '{"trainer": {"max_steps": 3}}',
    "code": "def main():\n    pass\n",
}

WORDS = (*SCALARS, "---", "-x", "--=", "=", "--a=b", "-c=", "--data", "--seeds")

Draw = Callable[[random.Random, Path], "Mutation"]
Ending = Literal["accepted", "refused", "traceback"]


class Mutation(NamedTuple):
    """A command line with one fault."""

    kind: str
    words: tuple[str, ...]  # of `semconv fit`, without these two
    key: str = ""  # bare dotted key of the value that is at fault


class Outcome(NamedTuple):
    """How a command line ended, of which nothing is trained."""

    ending: Ending
    said: str  # on the standard error, or the traceback
    code: int = 0


def mutations(seed: int, count: int, folder: Path) -> Iterator[Mutation]:
    """Draw command lines with one fault each; the same ones for the same seed.

    Args:
        seed: of the draws.
        count: number of command lines.
        folder: an existing folder, for configuration files.
    """
    rng = random.Random(seed)
    kinds: list[Draw] = [misspelt, retyped, interpolated, reclassed, replaced, written, reworded]
    for number in range(count):
        place = folder / str(number)
        place.mkdir()
        yield kinds[number % len(kinds)](rng, place)


def misspelt(rng: random.Random, folder: Path) -> Mutation:
    """A key with one letter more, less or other."""
    words, key, value = drawn(rng)
    parts = key.split(".")
    i = rng.randrange(len(parts))
    at = rng.randrange(len(parts[i]))
    letter = rng.choice(string.ascii_lowercase + "_.-0")
    parts[i] = parts[i][:at] + rng.choice(["", letter, parts[i][at] + letter]) + parts[i][at + 1 :]
    return Mutation("misspelt", given(rng, folder, words, ".".join(parts), value))


def retyped(rng: random.Random, folder: Path) -> Mutation:
    """A value of another type."""
    words, key, _ = drawn(rng)
    return Mutation("retyped", given(rng, folder, words, key, rng.choice(SCALARS)), bare(key))


def interpolated(rng: random.Random, folder: Path) -> Mutation:
    """An interpolation of OmegaConf's that does not fit, or is none."""
    words, key, _ = drawn(rng)
    return Mutation("interpolated", given(rng, folder, words, key, rng.choice(INTERPOLATIONS)), bare(key))


def reclassed(rng: random.Random, folder: Path) -> Mutation:
    """A class that is missing, of another kind, or no class."""
    words, key, _ = drawn(rng, classes=True)
    if rng.random() < 0.5:
        return Mutation("reclassed", given(rng, folder, words, f"{key}.class_path", rng.choice(CLASSES)), bare(key))
    return Mutation("reclassed", given(rng, folder, words, key, rng.choice(CLASSES)), bare(key))


def replaced(rng: random.Random, folder: Path) -> Mutation:
    """A node of the configuration that is a scalar, a list or a mapping in place of what belongs there."""
    words, key, _ = drawn(rng, classes=rng.random() < 0.5)
    parts = key.split(".")
    key = ".".join(parts[: rng.randint(1, len(parts))])
    value = rng.choice(NODES)
    return Mutation("replaced", (*words, "-c", file_of(folder, nested(key, value))), bare(key))


def written(rng: random.Random, folder: Path) -> Mutation:
    """A configuration file with content of another kind."""
    words, _, _ = drawn(rng)
    kind = rng.choice(list(TEXTS))
    text = TEXTS[kind]
    path = folder / "given.yaml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    if rng.random() < 0.2 and isinstance(text, str) and "\0" not in text and len(text) < 50_000:
        return Mutation(f"written: {kind}", (*words, "-c", text))
    return Mutation(f"written: {kind}", (*words, "-c", str(path)))


def reworded(rng: random.Random, folder: Path) -> Mutation:
    """Words that are left out, doubled, swapped, or of no sense."""
    words, key, value = drawn(rng)
    line = [*words, f"--{key}", str(value)]
    match rng.randrange(7):
        case 0:
            line.pop(rng.randrange(len(line)))
        case 1:
            line.insert(rng.randrange(len(line)), rng.choice(line))
        case 2:
            i, j = rng.randrange(len(line)), rng.randrange(len(line))
            line[i], line[j] = line[j], line[i]
        case 3:
            line.insert(rng.randrange(len(line) + 1), rng.choice(WORDS))
        case 4:
            line[-2] = line[-2].replace("--", rng.choice(["-", "---", "", "-- "]), 1)
        case 5:
            line[-2:] = [f"{line[-2]}=", f"{line[-2]}=="]
        case 6:
            line[-2:] = [f"--{key}{rng.choice(['+', '.', '..a', '.init_args.', '.class_path', '.help', '[0]'])}={value}"]
    return Mutation("reworded", tuple(line))


def drawn(rng: random.Random, classes: bool = False) -> tuple[tuple[str, ...], str, Any]:
    """An experiment's words, and a whole dotted key of its configuration with its value; of a value, or of a class."""
    name = rng.choice(EXPERIMENTS)
    found = list(leaves(parsed(name), classes))
    key, value = rng.choice([pair for pair in found if not pair[0].startswith("config")])
    return ("-c", str(FOLDER / "base.yaml"), "-c", str(FOLDER / f"{name}.yaml")), key, value


def leaves(config: Mapping[str, Any], classes: bool, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """The whole dotted keys of a configuration's values, or of its classes."""
    for name, value in config.items():
        key = f"{prefix}{name}"
        if isinstance(value, Mapping):
            if classes and "class_path" in value:
                yield key, value["class_path"]
            yield from leaves(value, classes, f"{key}.")
        elif not classes and name not in ("class_path", "ckpt_path", "resume", "pretrained"):
            yield key, value


def given(rng: random.Random, folder: Path, words: tuple[str, ...], key: str, value: Any) -> tuple[str, ...]:
    """The words with a value more: as an option, in its short form, or in a file."""
    match rng.randrange(3):
        case 0:
            return (*words, f"--{bare(key)}={'null' if value is None else value}")
        case 1:
            return (*words, f"--{key}", "null" if value is None else str(value))
    return (*words, "-c", file_of(folder, nested(key, value)))


def nested(key: str, value: Any) -> dict[str, Any]:
    """A mapping that holds a value at a dotted key."""
    for name in reversed(key.split(".")):
        value = {name: value}
    return value


def file_of(folder: Path, content: Any) -> str:
    """A file with some content as YAML."""
    path = folder / "mutated.yaml"
    plain = json.loads(json.dumps(content))  # numbers of restricted types are no plain ones
    path.write_text(yaml.safe_dump(plain, allow_unicode=True), encoding="utf-8")
    return str(path)


def attempt(words: tuple[str, ...]) -> Outcome:
    """Parse the words of `semconv fit` and build model and data, as the command does; nothing is trained."""
    said = io.StringIO()
    try:
        with redirect_stdout(io.StringIO()), redirect_stderr(said):
            with in_one_line():
                arguments = write_out(list(words))
                check_keys("fit", arguments)
            with explaining(debug=False):
                try_parts(arguments)
    except SystemExit as end:
        return Outcome("refused" if end.code else "accepted", said.getvalue(), int(end.code or 0))
    except Exception:
        return Outcome("traceback", traceback.format_exc(), 1)
    return Outcome("accepted", said.getvalue())


# words of Python and its libraries, of which a user knows nothing
INTERNALS = re.compile(
    r"<class|NoneType|NestedArg|Namespace\(|typing\.|Traceback|has no attribute|subscriptable|iterable|unhashable|Parser key|"
    r"positional argument|object is not|full_key|KeyError|TypeError|\bSubtypes\b|jsonargparse|(?<!builtins\.)\bdict\b|\bstr\b"
)
OF_A_TYPE = re.compile(r"([\w.]+)(?: is .*)?: give (?:text|true|null|a (?:whole )?number$|a list|one of|a class)")


def mutated_input(rng: random.Random, folder: Path) -> Iterator[Trial]:
    """Mutated command lines and files of `fit`, up to model and data."""
    for number in range(10**9):
        (place := folder / str(number)).mkdir()
        for mutation in mutations(rng.randrange(2**32), 100, place):
            outcome = attempt(mutation.words)
            wrong = faults(mutation, outcome)
            case = f"{mutation.kind}: {' '.join(mutation.words)}"[:300]
            yield Trial(", ".join(wrong) or outcome.ending, not wrong, case, outcome.said[-1500:])


def faults(mutation: Mutation, outcome: Outcome) -> list[str]:
    """What is wrong with the way in which a mutated command line ended: no word for one that was refused in one clear line."""
    if outcome.ending == "traceback":
        return ["traceback"]
    if outcome.ending == "accepted":
        return []
    lines = [line for line in outcome.said.splitlines() if line.startswith("semconv: error: ")]
    found = []
    if outcome.code != 2 or len(lines) != 1 or outcome.said.splitlines()[-1:] != lines:
        found.append("not one line and exit code 2")
    said = lines[-1].removeprefix("semconv: error: ") if lines else ""
    if INTERNALS.search(said):
        found.append("Python internals")
    if len(said) > 600:
        found.append("long")
    if (named := OF_A_TYPE.match(said)) and mutation.key:
        shorter, longer = sorted((f"{named[1]}.", f"{mutation.key}."), key=len)
        if not longer.startswith(shorter):
            found.append("not the whole key")
    return found
