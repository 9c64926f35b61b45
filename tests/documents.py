"""Commands, code and tables of the documents, and how a command is tried."""

import argparse
import json
import os
import re
import runpy
import shlex
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from click.testing import CliRunner
from PIL import Image

from semconv.__main__ import main
from semconv.commands.check_sweeps import check
from semconv.commands.short import several, write_out
from semconv.shipped import find
from semconv.study.file import read_study
from semconv.sweeping.file import read_sweep
from tests.experiments import NAMES

ROOT = Path(__file__).parent.parent
DOCUMENTS = ["README.md", "CONTRIBUTING.md", *sorted(f"docs/{path.name}" for path in (ROOT / "docs").glob("*.md"))]
# makes any training short
SMALL = [
    "--trainer.limit_train_batches=2",
    "--trainer.max_epochs=1",
    "--trainer.limit_val_batches=1",
    "--data.batch_size=2",
    "--trainer.log_every_n_steps=1",
]
SCENES = ["--data.num_images=20", "--data.num_test_images=3"]  # of which there are as many as one asks for

# the run that stands for any
BASE = ("run", "cnn_channels")


class Document:
    """A Markdown file, by its blocks of code and its tables.

    Args:
        name: below the project's folder.
    """

    def __init__(self, name: str) -> None:
        self.text = (ROOT / name).read_text(encoding="utf-8")
        self._blocks = re.findall(r"^( *)```(\w*)\n(.*?)^\1```$", self.text, flags=re.DOTALL | re.MULTILINE)

    @property
    def commands(self) -> list[str]:
        """The lines of shell, without comments."""
        lines = (line.partition("  #")[0].strip() for _, kind, text in self._blocks if kind == "bash" for line in text.splitlines())
        return [line for line in lines if line]

    @property
    def files(self) -> dict[str, str]:
        """Blocks under a line that is a file's name alone, as `name.py`."""
        return dict(re.findall(r"^`([\w.-]+\.(?:py|yaml))`:\n\n```\w+\n(.*?)^```$", self.text, flags=re.DOTALL | re.MULTILINE))

    @property
    def snippets(self) -> list[str]:
        """Blocks of Python that are no file."""
        files = self.files.values()
        return [text for _, kind, text in self._blocks if kind == "python" and text not in files]

    @property
    def names(self) -> set[str]:
        """What stands in backticks within the text."""
        return set(re.findall(r"`([^`\n]+)`", re.sub(r"```.*?```", "", self.text, flags=re.DOTALL)))

    def table(self, *head: str) -> dict[str, list[str]]:
        """The rows of the table that begins with these column heads: first cell, without backticks, to the others."""
        start = self.text.index("| " + " | ".join(head))
        rows = self.text[start:].split("\n\n")[0].splitlines()[2:]
        cells = ([cell.strip() for cell in row.strip("| ").split(" | ")] for row in rows)
        return {first.replace("`", ""): others for first, *others in cells}


class Parsed(Exception):
    """Raised in place of what follows a command's parser."""


@dataclass
class Desk:
    """A folder in which a reader tries the commands of one document, with runs shared between the documents.

    Args:
        folder: the working directory.
        shared: runs that earlier documents trained, by their command.
        store: a folder for these.
        patch: of pytest.
    """

    folder: Path
    shared: dict[tuple[str, ...], Path]
    store: Path
    patch: pytest.MonkeyPatch

    def follow(self, command: str) -> None:
        """Try a command, as its first word says. A command that no rule knows fails."""
        words = shlex.split(command)
        RULES[words[0]](self, words)

    def semconv(self, words: list[str]) -> None:
        words = [self._place(word) for word in words]
        if words[1] in ("compare", "workspace") and not (self.folder / "runs").is_dir():
            self._train(BASE)
        match words[1]:
            case "run" | "fit" if any(word.startswith("--trainer.devices=") or "recipes/full" in word for word in words):
                self._parse_training(words[1:])  # more than one device, or the full tier
            case "run" if any(word.startswith("--model.compile") for word in words):  # a minute; tests/test_tasks.py compiles
                self._parse_training(words[1:])
            case "run" if any(word.partition("=")[0].endswith(("--help", ".help")) for word in words):
                self._call(words[1:])
            case "run" if asked := several(words[2:]):  # a sweep, too
                check(asked.sweep, limit=1)
            case "run" | "fit":
                self._train(tuple(words[1:]))
            case "sweep":  # hours: its options are parsed and its file is checked; tests/sweeping/ runs sweeps
                self._until_parsed(lambda: self._call(words[1:]))
                read_sweep(find(words[2], "sweeps"))
            case "study":  # hours, too; tests/study/ runs studies
                self._until_parsed(lambda: self._call(words[1:]))
                read_study(find(words[2], "sweeps/studies"))
            case "check" if words[2:] == ["sweeps"]:  # every file: tests/sweeping/test_file.py
                self._until_parsed(lambda: self._call(words[1:]))
            case "check" if words[2] == "sweeps":  # one point
                self._call([*words[1:], "--points=1"])
            case "check" if words[2] == "leakage" and words[3] in NAMES:  # tests/checks/test_leakage.py
                self._parse_training(words[2:])
            case "check" if words[2] == "leakage":  # of an experiment of the page's own: all circumstances, on four cells
                self._call([*words[1:], "--data.size=[8,8]", "--model.size=micro"])
            case "export" if words[2].startswith("runs/studies/"):  # of a study there is one run
                made = self._train(("run", "cnn_appended,indicators/mask"))
                shutil.copytree(made, self.folder / words[2] / "appended" / made.name)
                self._call(words[1:])
            case "export" if "--push" in words:  # an account; tests/commands/test_export.py uploads
                self._until_parsed(lambda: self._call(words[1:]))
            case "estimate":  # of the full tier a minute
                self._call([*words[1:], "--data.size=[32,32]", "--model.cell=4", "--model.size=test"])
            case "workspace":  # an account
                self._call([*words[1:], *([] if "--dry-run" in words else ["--dry-run"])])
            case "compare" if not all(any(self.folder.glob(word)) for word in _runs(words)):
                self._until_parsed(lambda: self._call(words[1:]))  # runs of a sweep, or of W&B's server
            case _:
                self._call(words[1:])
        if "--output" in words and words[1] in ("export", "predict"):
            assert any((self.folder / words[words.index("--output") + 1]).iterdir())

    def script(self, words: list[str]) -> None:
        """A program of ours, up to the end of its parser: benchmarks take minutes, tests/test_examples.py runs the examples."""
        run, words = (runpy.run_module, words[2:]) if words[1] == "-m" else (runpy.run_path, [str(ROOT / words[1]), *words[2:]])
        self.patch.setattr("sys.argv", words)
        for module in (words[0], f"{words[0]}.__main__"):  # another test may have imported it
            self.patch.delitem(sys.modules, module, raising=False)
        self._until_parsed(lambda: run(words[0], run_name="__main__"))

    def make(self, words: list[str]) -> None:
        """Without its recipes: they set up an environment."""
        self._shell(["make", "-n", *words[1:]], ROOT)

    def pip(self, words: list[str]) -> None:
        """The extras are there; nothing is installed."""
        assert words[1:3] == ["install", "-e"]
        project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
        for extra in re.findall(r"\[(\w+)\]", words[3]):
            assert extra in project["optional-dependencies"]

    def wandb(self, words: list[str]) -> None:
        """An account, a server or a terminal: W&B's own parser takes the words."""
        from wandb.cli.cli import cli

        done = CliRunner().invoke(cli, [*words[1:], "--help"])
        assert done.exit_code == 0, done.output

    def ray(self, words: list[str]) -> None:
        """A cluster: Ray's own parser takes the words; tests/sweeping/test_cluster.py has clusters."""
        scripts = pytest.importorskip("ray.scripts.scripts", reason="Ray is not installed")
        done = CliRunner().invoke(scripts.cli, [*words[1:], "--help"])
        assert done.exit_code == 0, done.output

    def sbatch(self, words: list[str]) -> None:
        """A cluster: the file is there; tests/sweeping/test_scaling_out.py runs it under a simulated SLURM."""
        (file,) = [word for word in words if word.endswith(".sbatch")]
        assert (ROOT / file).is_file()

    def evaluate(self, words: list[str]) -> None:
        """Tab completion: tests/commands/test_completion.py presses the key."""
        assert words[1:] == ["$(register-python-argcomplete semconv)"]

    def shell(self, words: list[str]) -> None:
        self._shell(["bash", "-c", shlex.join(words).replace("'&&'", "&&")], self.folder)

    def _place(self, word: str) -> str:
        """RUN in a path is any run that is there; RUN alone one of cnn_channels."""
        if "RUN" not in word:
            return word
        if word == "RUN" or "cnn_channels" in word:
            self._train(BASE)
        pattern, _, rest = ("runs/cnn_channels/RUN" if word == "RUN" else word).partition("RUN")
        return str(min(self.folder.glob(f"{pattern}*")).relative_to(self.folder)) + rest

    def _train(self, words: tuple[str, ...]) -> Path:
        """Train on very little, and give the run; a command that was run already, in any document, gives a copy of its run."""
        if words in self.shared:
            made = self.shared[words]
            if not (place := self.folder / "runs" / made.parent.name / made.name).exists():
                shutil.copytree(made, place)
        elif "--resume" in words:
            self._interrupt(self.folder / words[words.index("--resume") + 1])
            self._call([*words, "--trainer.max_epochs=2"])
        else:
            before = set(self.folder.glob("runs/*/*"))
            evaluates = any(word.startswith("--evaluation") or word == "--pretrained" for word in words)
            extra = [] if evaluates else ["--evaluation=none"]
            if any("cnn_plain_wide" in word for word in words):  # its width is not searched for
                extra.append("--model.encoder.mlp_ratio=4")
            if not any(word in ("--data", "--data.source", "--pretrained") or "data/" in word for word in words):
                extra.extend(SCENES)
            self._call([*words, *SMALL, *extra])
            (made,) = set(self.folder.glob("runs/*/*")) - before
            assert json.loads((made / "summary.json").read_text())["status"] == "finished"
            self.shared[words] = shutil.copytree(made, self.store / made.parent.name / made.name)
        return self.shared.get(words, self.folder)

    def _interrupt(self, run: Path) -> None:
        summary = (run / "summary.json").read_text()
        (run / "summary.json").write_text(summary.replace('"finished"', '"terminated"'))

    def _parse_training(self, words: list[str]) -> None:
        from semconv.commands.train import parse

        assert parse(write_out(words[1:]))["experiment"]

    def _call(self, words: list[str] | tuple[str, ...]) -> None:
        self.patch.setattr("sys.argv", ["semconv", *words])
        try:
            main()
        except SystemExit as end:  # of --help, and of a sweep
            if end.code:
                raise

    def _until_parsed(self, call: Callable[[], object]) -> None:
        parse = argparse.ArgumentParser.parse_args

        def parse_and_stop(*args, **kwargs):
            parse(*args, **kwargs)
            raise Parsed

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(argparse.ArgumentParser, "parse_args", parse_and_stop)
            with pytest.raises(Parsed):
                call()

    def _shell(self, words: list[str], folder: Path) -> None:
        done = subprocess.run(words, cwd=folder, capture_output=True, text=True, env={**os.environ, "MAKEFLAGS": ""})
        assert done.returncode == 0, done.stderr


RULES: dict[str, Callable[[Desk, list[str]], None]] = {
    "semconv": Desk.semconv,
    "python": Desk.script,
    "make": Desk.make,
    "pip": Desk.pip,
    "wandb": Desk.wandb,
    "ray": Desk.ray,
    "sbatch": Desk.sbatch,
    "mkdir": Desk.shell,
    "eval": Desk.evaluate,
}


def _runs(words: list[str]) -> list[str]:
    """What `compare` is to compare."""
    options = [number for number, word in enumerate(words) if word.startswith("--")]
    return words[2 : min(options, default=len(words))]


def draw_images(folder: Path, split: str, count: int) -> list[Image.Image]:
    """Images of two classes, below `folder / split`."""
    images = [Image.new("RGB", (64, 64), (3 * i, 200 - 3 * i, 90)) for i in range(count)]
    for i, image in enumerate(images):
        path = folder / split / ("a", "b")[i % 2] / f"{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        image.save(path)
    return images
