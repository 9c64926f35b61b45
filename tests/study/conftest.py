"""Studies over runs that only seem to train: their errors are a formula of network, value and seed."""

import json
import math
import time
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from zlib import crc32

import numpy as np
import pytest
import yaml
from omegaconf import OmegaConf

from semconv.configuration import get
from semconv.shipped import PACKAGE
from semconv.study.file import read_study
from semconv.study.rounds import Rounds
from semconv.sweeping.file import Sweep
from semconv.tracking.environment import code_of
from semconv.tracking.folder import RunFolder
from semconv.tracking.identity import identity
from tests.comparison.test_command import config, hide

BEST = {"cnn_plain": 0.008, "cnn_good": 0.016, "cnn_same": 0.008, "cnn_bad": 0.001}
GAIN = {"cnn_plain": 0.0, "cnn_good": 0.05, "cnn_same": 0.0, "cnn_bad": -0.05}
LEARNED = {"gate_masked/stem": 0.5, "gate_masked/stages.0": 0.75, "share/stages.0": 0.25}  # by mechanisms


@pytest.fixture
def write_study(tmp_path, monkeypatch):
    """Writes a study of four candidates, with changes, into the current folder; gives its path."""
    monkeypatch.chdir(tmp_path)
    for name in (*BEST, "zero", "shuffled", "plain_wide", "base"):
        Path(f"{name}.yaml").write_text(yaml.safe_dump({"control": name} if name in ("zero", "shuffled", "plain_wide") else {}))
    for fill in ("ZeroFill", "CamouflageFill"):
        Path(f"{fill}.yaml").write_text(yaml.safe_dump({"model": {"init_args": {"corruption": hide(fill)}}}))
    content = {
        "protocol": ["base.yaml"],
        "options": {"trainer.max_steps": 60},
        "plain": ["cnn_plain.yaml"],
        "family": {name: [f"{name}.yaml"] for name in ("cnn_good", "cnn_same", "cnn_bad")},
        "controls": {name: f"{name}.yaml" for name in ("zero", "shuffled", "plain_wide")},
        "endpoints": ["test/masked_mse"],
        "tune": {"key": "model.init_args.base_lr", "values": [0.004, 0.008, 0.016], "seeds": [100, 101]},
        "confirm": {"looks": [4, 8], "spending": "pocock", "first_seed": 0},
    }

    def write(**changes: Any) -> Path:
        path = tmp_path / "a_study.yaml"
        path.write_text(yaml.safe_dump({key: value for key, value in {**content, **changes}.items() if value is not None}))
        return path

    return write


@pytest.fixture
def conduct(tmp_path):
    """Makes the rounds of a study; gives them, and the sweeps and runs that were started, in their order."""

    def make(path, folder="study", stop_after=None, recorded=()):
        log = SimpleNamespace(sweeps=[], runs=0)

        def run_sweep(sweep: Sweep, place: Path, done: Sequence[Mapping[str, Any]]) -> int:
            log.sweeps.append(place.name)
            place.mkdir(parents=True, exist_ok=True)
            (place / "sweep.yaml").write_text(yaml.safe_dump(dict(sweep.content), sort_keys=False))
            for point in sweep.grid:
                if stop_after is not None and log.runs >= stop_after:
                    return 130
                if not any(part.items() <= point.items() for part in done):
                    log.runs += train(point, place)
            return 0

        return Rounds(read_study(path), tmp_path / folder, run_sweep, recorded), log

    return make


@cache
def merged(files: str) -> Any:
    """The content of some files, separated by commas, that change no more; not to be changed."""
    return OmegaConf.to_container(OmegaConf.merge(*map(OmegaConf.load, files.split(","))))


def train(point: dict[str, Any], place: Path) -> int:
    """Leave what a run leaves, unless it is there; give the number of runs."""
    content = merged(point["config"])
    name, control, seed = content.get("experiment", "cnn_plain"), content.get("control"), point["seed_everything"]
    rate = get(content, "model.init_args.base_lr") or 0.008
    fill = get(content, "model.init_args.corruption.init_args.fill.class_path")
    crop, batch_size = get(content, "data.init_args.crop_scale"), get(content, "data.init_args.batch_size") or 64
    folder = RunFolder(
        place / name / f"{control}-{rate}-{seed}-{fill}-{crop is None}-{batch_size}-{crc32(point['config'].encode())}"
    )
    if (folder.path / "summary.json").exists():
        return 0
    noise = float(np.random.default_rng([seed, *map(ord, f"{name}{control}")]).normal(0, 0.002))
    gain = GAIN[name] if control is None else 0.0
    error = 0.8 - gain + noise + 0.01 * math.log2(rate / BEST[name]) ** 2 * (control is None)
    settings = {"mechanism": "Plain"} if name == "cnn_plain" else {}
    if control == "plain_wide":
        settings = {"as_plain": "flops"}
    elif control and not control.startswith("gradual_"):
        settings = {"control": control.capitalize()}
    corruption = get(content, "model.init_args.corruption")
    whole = config(base_lr=rate, **({"corruption": corruption} if corruption else {}), **settings)
    if control and control.startswith("gradual_"):
        mechanism = {"class_path": "semconv.mechanisms.Gradual", "init_args": {"schedule": control.removeprefix("gradual_")}}
        whole["model"]["init_args"]["encoder"]["init_args"]["mechanism"] = mechanism
    decoder = get(content, "model.init_args.decoder.init_args")
    whole["model"]["init_args"]["decoder"] = decoder and {"class_path": "semconv.decoders.ConvDecoder", "init_args": decoder}
    whole["data"]["init_args"] |= {"crop_scale": crop, "batch_size": batch_size}
    whole["trainer"]["max_steps"] = point.get("trainer.max_steps") or get(content, "trainer.max_steps")  # an option wins
    folder.path.mkdir(parents=True)
    environment = {"sessions": [{"code": code_of(PACKAGE), "git_commit": "c0ffee", "num_threads": 1}]}
    (folder.path / "environment.json").write_text(json.dumps(environment))
    if rate > 0.04 and seed % 2:
        folder.summarise({**identity({**whole, "experiment": name, "seed_everything": seed}), "status": "diverged"})
        return 1
    folder.summarise(
        {
            **identity({**whole, "experiment": name, "seed_everything": seed}),
            "status": "finished",
            "started": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
            "controls": ["shuffled", "zero"],
            "trainer/global_step": 60,
            "trainer/num_training_batches": 10,
            "trainer/seconds": 3.0,
            "val/masked_mse": float("nan") if rate > 0.04 else error,
            "test/masked_mse": error,
            "cost/flops": 1.1e9 if name == "cnn_good" and control in (None, "plain_wide") else 1e9,
            "cost/train_images_per_second": 64.0,
            "probe/mask_auc/stage_0": 0.75 + gain,
            "untrained/probe/mask_auc/stage_0": 0.5,
            **({} if name == "cnn_plain" else {"importance/Mask/zeroed": gain, "importance/Mask/shuffled": 2 * gain}),
            **({f"mechanism/{key}": value for key, value in LEARNED.items()} if name == "cnn_good" else {}),
        }
    )
    return 1
