"""The tutorial's way from photographs to weights in timm, as a reader goes it, but for its scale."""

import json
import os
import re
import subprocess
import sys

import pytest
import yaml

from tests.documents import ROOT, Document, draw_images

# a step of each run, two values in each search, and no evaluation
TINY = {"trainer.max_epochs": 1, "trainer.limit_train_batches": 1, "data.batch_size": 16, "evaluation": "none"}


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_one_file_and_four_commands_lead_from_photographs_to_a_classifier_of_timms(tmp_path):
    document = Document("docs/tutorial.md")
    ((name, file),) = document.files.items()
    assert len(file.splitlines()) <= 10
    commands = re.search("```bash\n(.*?)```", document.text, flags=re.DOTALL)[1].splitlines()  # type: ignore[index]
    assert len(commands) < 4  # the last one is Python's
    study = yaml.safe_load(file)
    assert len(study["family"]) + 1 == 5
    study["options"] |= TINY
    study["tune"] |= {"values": study["tune"]["values"][:2], "extensions": 0}
    (tmp_path / name).write_text(yaml.safe_dump({**study, "endpoints": ["test/masked_mse"]}))
    draw_images(tmp_path / "photos", "train", 40)
    draw_images(tmp_path / "photos", "test", 8)
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    del environment["WANDB_MODE"]  # the file says offline
    for words in ([sys.executable, "-m", *command.split()] for command in commands):
        done = subprocess.run(words, cwd=tmp_path, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, f"{words}: {done.stdout} {done.stderr}"
    assert "as timm's semantic_cnn_test" in done.stdout
    (snippet,) = document.snippets[:1]
    code = [sys.executable, "-c", snippet]
    done = subprocess.run(code, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.stdout == "torch.Size([4, 2])\n", done.stderr
    runs = tmp_path / "runs" / "studies" / "photos"
    assert (runs / "report" / "comparison.html").is_file()
    confirmed = list(runs.glob("confirm-3/*/*/summary.json"))
    assert all(any(summary.parent.glob("wandb/offline-run-*")) for summary in confirmed)
    whole = [json.loads(summary.read_text()) for summary in confirmed]
    seeds = {name: [run["seed"] for run in whole if run["experiment"] == name and not run["control"]] for name in study["family"]}
    assert all(sorted(found) == [0, 1, 2] for found in seeds.values())
