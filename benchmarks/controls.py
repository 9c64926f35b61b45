"""Does the toolkit find what is known to be there, and nothing where nothing is? Real training in worlds with a known answer.

    python benchmarks/controls.py layout        # position must help
    python benchmarks/controls.py stationary    # position cannot help
    python benchmarks/controls.py dark          # the mask must help

In `layout` the ground is a fixed pattern of pixel position; in `stationary` every place is like every other; in `dark` it is
what hidden pixels are filled with, so that only who is told can tell the two apart. There the decoder is not told either: one that
is gives plain what its encoder lacks (`--told-decoder` shows it). Maps are continued round the edges, as zero padding would tell
position, and images are neither cropped nor flipped. Each run trains for some steps; `semconv compare` has the last word.
"""

import argparse
import os
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

from semconv.commands.compare import main as compare

EXPERIMENTS = Path(__file__).parent.parent / "experiments"
TOLD = {"layout": "Coordinates", "stationary": "Coordinates", "dark": "Mask"}
MECHANISMS = {"Coordinates": "cnn_channels", "Mask": "cnn_appended"}  # docs/protocol.md says why the mask is not told by channels
CONTROLS = ("zero", "shuffled", "cnn_plain_wide")


def arguments(
    world: str, seed: int, steps: int, runs: Path, told: str | None, control: str | None, told_decoder: bool
) -> list[str]:
    """The command of one run.

    Args:
        world: of scenes.
        seed: of everything.
        steps: of training.
        runs: folder of all runs.
        told: the indicator that the network is told at every layer; None: plain.
        control: a file of experiments/controls; None: the variant itself.
        told_decoder: whether the decoder is told the mask.
    """
    files = ["base", MECHANISMS[told] if told else "cnn_plain", *([f"controls/{control}"] if control else [])]
    words = ["run", *(word for name in files for word in ("-c", str(EXPERIMENTS / f"{name}.yaml")))]
    if told:
        words += [f"--experiment=cnn_{told.lower()}", "--model.encoder.depth=all"]
        words += [f"--model.encoder.indicators=[{{class_path: semconv.indicators.{told}}}]"]
    return [
        *words,
        f"--data.source=scenes/{world}",
        "--data.crop_scale=null",
        "--data.flip=false",
        "--model.padding_mode=circular",
        f"--model.decoder.told={str(told_decoder).lower()}",
        f"--seed_everything={seed}",
        "--trainer.max_epochs=-1",
        f"--trainer.max_steps={steps}",
        "--trainer.enable_progress_bar=false",
        "--trainer.enable_checkpointing=false",
        "--evaluation=none",
        f"--runs={runs}",
    ]


def train(words: list[str]) -> None:
    """One run, on one thread."""
    import torch

    from semconv.commands.train import main

    torch.set_num_threads(1)
    main(words)


def main() -> None:
    parser = argparse.ArgumentParser(description="Train in a world with a known answer, and compare.")
    parser.add_argument("world", choices=TOLD, help="layout, stationary or dark.")
    parser.add_argument("--seeds", type=int, default=5, help="How many.")
    parser.add_argument("--steps", type=int, default=150, help="Of each run, of 64 images.")
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), help="Runs at a time, of one thread each.")
    parser.add_argument("--runs", type=Path, default=Path("runs/controls"), help="Folder of the runs.")
    parser.add_argument("--told-decoder", action="store_true", help="Tell the decoder the mask in dark, too.")
    given = parser.parse_args()
    told_decoder = given.told_decoder or given.world != "dark"
    runs = given.runs / (given.world if told_decoder == (given.world != "dark") else f"{given.world}-told-decoder")
    if runs.exists():
        parser.error(f"{runs} is there already: move it away, or give another --runs")
    os.environ.setdefault("WANDB_MODE", "disabled")
    variants = [(None, None), (TOLD[given.world], None), *((TOLD[given.world], control) for control in CONTROLS)]
    commands = [
        arguments(given.world, seed, given.steps, runs, *variant, told_decoder)
        for seed in range(given.seeds)
        for variant in variants
    ]
    with ProcessPoolExecutor(given.jobs, mp_context=get_context("spawn")) as pool:
        list(pool.map(train, commands))
    compare([str(runs), "--metric", "test/masked_mse", "--output", str(runs)])


if __name__ == "__main__":
    main()
