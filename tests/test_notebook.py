"""examples/tutorial.ipynb, run cell by cell in a kernel of its own."""

import os
import sys

import pytest

from tests.documents import ROOT


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_notebook_runs_and_shows_pictures_the_verdict_and_the_report(tmp_path, monkeypatch):
    nbclient, nbformat = pytest.importorskip("nbclient"), pytest.importorskip("nbformat")
    pytest.importorskip("ipykernel")
    (tmp_path / "semconv").write_text(f'#!/bin/sh\nexec {sys.executable} -m semconv "$@"\n')
    (tmp_path / "semconv").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setenv("PYTHONPATH", ":".join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")])))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    notebook = nbformat.read(ROOT / "examples" / "tutorial.ipynb", as_version=4)
    assert not any(cell.get("outputs") for cell in notebook.cells)  # none are committed
    work = tmp_path / "work"
    work.mkdir()
    nbclient.NotebookClient(notebook, timeout=600, resources={"metadata": {"path": str(work)}}).execute()
    # streams apart, into which imports may warn
    outputs = [cell["outputs"] for cell in notebook.cells if cell["cell_type"] == "code"]
    _, condition, indicators, _, verdicts, report = outputs
    assert any("equal to plain before the first step: True" in output.get("text", "") for output in condition)
    shown = [[output["data"] for output in each if "data" in output][-1] for each in (indicators, verdicts, report)]
    assert "image/png" in shown[0]
    assert "beneficial" in shown[1]["text/plain"]
    assert "srcdoc=" in shown[2]["text/html"]
    assert len(list(work.glob("runs/sweeps/*/*/*/summary.json"))) == 12
