"""What documents tell their reader to write and to run."""

import re
import shlex
from pathlib import Path

ROOT = Path(__file__).parent.parent
# makes a run of any document small
SMALL = [
    "--trainer.limit_train_batches=2",
    "--data.batch_size=8",
    "--data.num_images=100",
    "--data.num_test_images=9",
    "--trainer.log_every_n_steps=1",
]


class Document:
    """A Markdown file, by its blocks of code.

    Args:
        name: below the project's folder.
    """

    def __init__(self, name: str) -> None:
        self.text = (ROOT / name).read_text(encoding="utf-8")
        self.blocks = re.findall(r"```(\w*)\n(.*?)```", self.text, flags=re.DOTALL)

    def all(self, kind: str) -> list[str]:
        """The blocks of a language."""
        return [text for found, text in self.blocks if found == kind]

    @property
    def commands(self) -> list[str]:
        """The lines of shell, without comments."""
        lines = (line.partition("#")[0].strip() for text in self.all("bash") for line in text.splitlines())
        return [line for line in lines if line]

    @property
    def semconv(self) -> list[list[str]]:
        """The arguments of each `semconv` command."""
        return [shlex.split(command)[1:] for command in self.commands if command.startswith("semconv ")]

    def named_files(self) -> dict[str, str]:
        """Blocks that a sentence before them gives a file's name, as `name.py`."""
        return dict(re.findall(r"`([\w.-]+\.(?:py|yaml))`[^`]*?:\n\n```\w+\n(.*?)```", self.text, flags=re.DOTALL))
