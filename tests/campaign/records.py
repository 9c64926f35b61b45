"""Folders of runs that are damaged, or hostile: each command names what is wrong, and executes nothing."""

import json
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random
from typing import Any

import pytest
import yaml

from semconv import load_run
from semconv.__main__ import main
from semconv.commands.train import main as train
from tests.campaign.trial import Trial, attempt
from tests.experiments import arguments
from tests.recording import SHORT

FILES = ("config.yaml", "summary.json", "metrics.jsonl", "environment.json", "checkpoints/last.ckpt")
MADE = "somebody-was-here"  # a file that hostile content tries to make


def damaged_runs(random: Random, folder: Path) -> Iterator[Trial]:
    """One file of a run is damaged, and each command that opens runs is tried on it."""
    run = _train(folder)
    while True:
        name, (what, damage) = random.choice(FILES), random.choice(list(DAMAGES.items()))
        copy = _copy(run, folder)
        damage(copy / name, random)
        call, words = _command(copy, folder, random)
        yield attempt(call, f"{name} {what}, {words}")


def hostile_runs(random: Random, folder: Path) -> Iterator[Trial]:
    """A run's files name commands, code or scripts, and none of them is executed or shown as it is."""
    run = _train(folder)
    marker = folder / MADE
    while True:
        copy = _copy(run, folder)
        what = random.choice(list(HOSTILE))
        HOSTILE[what](copy, str(marker), random)
        call, words = _command(copy, folder, random)
        trial = attempt(call, f"{what}, {words}")
        pages = [page for page in (folder / "out").rglob("*.html") if SCRIPT in page.read_text(encoding="utf-8")]
        if marker.exists() or pages:
            marker.rmdir() if marker.is_dir() else marker.unlink(missing_ok=True)
            trial = trial._replace(outcome="executed", fine=False, said=str(pages))
        yield trial


def _truncated(path: Path, random: Random) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: random.randrange(len(content))])


def _flipped(path: Path, random: Random) -> None:
    content = bytearray(path.read_bytes())
    for _ in range(random.choice((1, 1, 20))):
        content[random.randrange(len(content))] ^= 1 << random.randrange(8)
    path.write_bytes(content)


def _replaced(path: Path, random: Random) -> None:
    contents = [
        b"",
        b"\x00\xff\xfe",
        b"[1, 2]",
        b"null",
        b"3",
        b'"text"',
        b"{" * 5000,
        b"[" * 100_000,
        b"a: &a [*a]",
        b"\xef\xbb\xbf{}",
    ]
    path.write_bytes(random.choice(contents))


def _retyped(path: Path, random: Random) -> None:
    """One value anywhere in a JSON or YAML file becomes another."""
    if path.suffix not in (".json", ".yaml"):
        return _flipped(path, random)
    content = yaml.safe_load(path.read_text(encoding="utf-8"))
    place: Any = content
    while True:
        key = random.choice(list(place) if isinstance(place, dict) else range(len(place)))
        if not isinstance(place[key], dict | list) or not place[key] or random.random() < 0.2:
            break
        place = place[key]
    place[key] = random.choice([None, -1, 3, 1e400, "text", "", [], {}, [1], {"a": 1}, True, "2020-01-01", "é" * 1000])
    path.write_text(json.dumps(content) if path.suffix == ".json" else yaml.safe_dump(content), encoding="utf-8")


def _other_kind(path: Path, random: Random) -> None:
    path.unlink()
    kind = random.choice(("gone", "folder", "pipe", "loop"))
    if kind == "folder":
        path.mkdir()
    elif kind == "pipe":
        os.mkfifo(path)
    elif kind == "loop":
        path.symlink_to(path)


DAMAGES: dict[str, Callable[[Path, Random], object]] = {
    "cut off": _truncated,
    "with flipped bits": _flipped,
    "replaced": _replaced,
    "with a value of another type": _retyped,
    "gone or of another kind": _other_kind,
}
SCRIPT = "<script>alert(1)"
NAMES = (
    f"{SCRIPT}</script>",
    f"<img src=x onerror={SCRIPT}>",
    f"'\"><svg/onload=alert(1)>{SCRIPT}",
    "../../x",
    "=cmd|' /C calc'!A0",
)


def _configured(change: Callable[[dict[str, Any], str, Random], None]) -> Callable[[Path, str, Random], None]:
    def apply(run: Path, marker: str, random: Random) -> None:
        config = yaml.safe_load((run / "config.yaml").read_text(encoding="utf-8"))
        change(config, marker, random)
        (run / "config.yaml").write_text(yaml.safe_dump(config), encoding="utf-8")

    return apply


def _names_code(config: dict[str, Any], marker: str, random: Random) -> None:
    name = random.choice(("os.mkdir", "os.system", "subprocess.run", "builtins.exec"))
    code = {"class_path": name, "init_args": {"path": marker}}
    forms = (code, json.dumps(code), name, [code])
    part = random.choice(("encoder", "decoder", "masker", "corruption", "objective", "control"))
    config["model"]["init_args"][part] = random.choice(forms)


def _runs_a_shell(config: dict[str, Any], marker: str, random: Random) -> None:
    name = random.choice((f"wds/pipe:touch {marker}", f"wds/http://a/b';touch {marker};'", f"wds/$(touch {marker})"))
    config["data"]["init_args"]["source"] = random.choice((name, [name, "scenes"]))


def _named(run: Path, marker: str, random: Random) -> None:
    name = random.choice(NAMES)
    for file, write in (("config.yaml", yaml.safe_dump), ("summary.json", json.dumps)):
        content = yaml.safe_load((run / file).read_text(encoding="utf-8"))
        content["experiment"] = name
        (run / file).write_text(str(write(content)), encoding="utf-8")


class _Pickled:
    def __init__(self, marker: str) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (self.marker,)


def _pickles(run: Path, marker: str, random: Random) -> None:
    import torch

    torch.save({"state_dict": {}, "x": _Pickled(marker)}, run / "checkpoints" / "last.ckpt")


HOSTILE: dict[str, Callable[[Path, str, Random], None]] = {
    "config.yaml names code": _configured(_names_code),
    "config.yaml has a source that is a command": _configured(_runs_a_shell),
    "the experiment's name is a script or a path": _named,
    "the checkpoint is a pickle": _pickles,
}


def _train(folder: Path) -> Path:
    train(["run", *arguments("cnn_plain", *SHORT, "--trainer.max_steps=2", f"--runs={folder / 'trained'}")])
    (run,) = (folder / "trained").glob("*/*")
    summary = json.loads((run / "summary.json").read_text(encoding="utf-8"))
    (run / "summary.json").write_text(json.dumps({**summary, "status": "terminated"}), encoding="utf-8")
    return run


def _copy(run: Path, folder: Path) -> Path:
    for name in ("runs", "out"):
        shutil.rmtree(folder / name, ignore_errors=True)
    return shutil.copytree(run, folder / "runs" / run.parent.name / run.name)


def _command(run: Path, folder: Path, random: Random) -> tuple[Callable[[], object], str]:
    """A command on a run, and its words without folders."""
    out = folder / "out"
    words: list[str | Path] = random.choice(
        [
            ["compare", run.parent, "--metric", "test/masked_mse"],
            ["compare", run.parent, "--metric", "test/masked_mse", "--output", out],
            ["export", run, "--output", out],
            ["predict", run, "--images", folder, "--output", out],
            ["run", "--resume", run],
            ["fit", "-c", run / "config.yaml", f"--runs={folder / 'other'}", "--trainer.max_steps=1"],
            ["load_run"],
        ]
    )
    if words == ["load_run"]:
        return lambda: load_run(run), "load_run"
    return lambda: _call(list(map(str, words))), " ".join(str(word).replace(str(folder), "") for word in words)


def _call(words: list[str]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.argv", ["semconv", *words])
        main()
