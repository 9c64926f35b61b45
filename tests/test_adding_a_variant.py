"""The page on variants of one's own: its file is written, trained and checked."""

import sys

import pytest

from semconv.__main__ import main
from tests.documents import ROOT, SMALL, Document

PAGE = Document("docs/adding-a-variant.md")


@pytest.fixture
def desk(tmp_path, monkeypatch):
    """A folder with the page's files in it."""
    (tmp_path / "experiments").symlink_to(ROOT / "experiments")
    for name, text in PAGE.named_files().items():
        (tmp_path / name).write_text(text)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    yield tmp_path
    sys.modules.pop("mine", None)


def test_the_page_names_its_files():
    assert set(PAGE.named_files()) == {"mine.py", "cnn_dimmed.yaml", "two_layers.yaml"}
    assert len(PAGE.semconv) == len(PAGE.commands) == 6


@pytest.mark.parametrize("command", PAGE.semconv, ids=" ".join)
def test_every_command_of_the_page_runs(command, desk, monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["semconv", *command, *(SMALL if command[0] == "run" else [])])
    main()
    if command[0] == "run":
        (run,) = desk.glob("runs/*/*")
        assert run.parent.name in ("cnn_dimmed", "cnn_dimmed-zero", "two_layers")
        assert (run / "summary.json").is_file()
    else:
        assert capsys.readouterr().out
