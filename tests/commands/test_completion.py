"""The Tab key, in a real bash and as bash asks."""

import os
import subprocess
import sys

import pytest

from tests.documents import ROOT
from tests.processes import Forked

pytest.importorskip("argcomplete")

# what register-python-argcomplete prints is what a user evaluates
PRESS = """
eval "$({python} -c 'from argcomplete.shell_integration import shellcode; print(shellcode(["semconv"]))')"
COMP_TYPE=9
while read -r COMP_LINE; do
  COMP_POINT=${{#COMP_LINE}}; COMP_WORDS=($COMP_LINE); COMP_CWORD=$((${{#COMP_WORDS[@]}} - 1)); COMPREPLY=()
  _python_argcomplete semconv
  echo "${{COMPREPLY[*]}}"
done
"""
# a name of the folder's own; with a comma, with dots, and a key
IN_BASH = {
    "semconv run min": "mine",
    "semconv run cnn_channels,controls/ze": "cnn_channels,controls/zero",
    "semconv run cnn_plain --model.encoder semconv.encoders.MAE": "semconv.encoders.MAEViT",
    "semconv run cnn_plain --model.base_": "--model.base_lr",
}
LINES = {
    "semconv swe": "sweep",
    "semconv run cnn_chan": "cnn_channels",
    "semconv run -c indicators/four": "indicators/fourier",
    "semconv fit cnn_plain --data cifar": "cifar10",
    "semconv run cnn_plain --model.encoder MAE": "MAEViT",
    "semconv sweep quick": "quickstart",
    "semconv check leak": "leakage",
    "semconv compare --negl": "--negligible",
    "semconv list mech": "mechanisms",
}


def test_tab_completes_commands_names_keys_and_classes(tmp_path):
    (tmp_path / "semconv").write_text(f'#!/bin/sh\nexec {sys.executable} -m semconv "$@"\n')
    (tmp_path / "semconv").chmod(0o755)
    (tmp_path / "experiments").mkdir()
    (tmp_path / "experiments" / "mine.yaml").touch()
    path = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}", "PYTHONPATH": ":".join(path)}
    script = PRESS.format(python=sys.executable)
    typed = "\n".join(IN_BASH) + "\n"
    done = subprocess.run(["bash", "-c", script], input=typed, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert dict(zip(IN_BASH, map(str.strip, done.stdout.split("\n")), strict=False)) == IN_BASH, done.stderr
    completed = tmp_path / "completed"
    bash = {"_ARGCOMPLETE": "1", "_ARGCOMPLETE_SHELL": "bash", "_ARGCOMPLETE_STDOUT_FILENAME": str(completed)}
    for line, word in LINES.items():
        Forked([], tmp_path, {**os.environ, **bash, "COMP_LINE": line, "COMP_POINT": str(len(line))}).wait()
        assert completed.read_text().strip() == word, line
