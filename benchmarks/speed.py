"""The cost of conditioning: step time of each mechanism relative to plain of equal parameters, as a Markdown table.

    python -m benchmarks.speed                                   # all mechanisms at stem, stages, all
    python -m benchmarks.speed FiLM Partial --depths all --rounds 9

Plain and conditioned networks alternate in one process; a ratio is the median over pairs. A step is that of the encoder only:
forward, backward and AdamW on zero-filled images, conditioned on mask and coordinates (Sparse: on the mask). Decoder, objective and
data are equal for all, and would dilute the ratio. Parameters and operations of a training step follow in brackets, relative to
plain's. If a mechanism does not support a depth, the cell says why.
"""

import argparse
import inspect
from typing import Any

import torch

from benchmarks.pairs import alternate, ratio
from results.pages import markdown
from semconv import mechanisms
from semconv.convolution import Mechanism, MechanismFactory, Plain
from semconv.corruption import View, ZeroFill
from semconv.cost import count_training_flops, now
from semconv.encoders import Geometry, SemanticCNN, initialise
from semconv.encoders.encoder import count_parameters
from semconv.hashing import make_keys
from semconv.indicators import Coordinates, Indicator, Mask
from semconv.masking import RandomMasker

DEPTHS = ("stem", "stages", "all")
MECHANISMS: dict[str, MechanismFactory] = {
    name: member
    for name in mechanisms.__all__
    if inspect.isclass(member := getattr(mechanisms, name)) and issubclass(member, Mechanism) and not inspect.isabstract(member)
    if member is not Plain
}


class Steps:
    """Training steps of an encoder on one view.

    Args:
        encoder: the encoder, trained towards zero output.
        view: its input.
    """

    def __init__(self, encoder: SemanticCNN, view: View) -> None:
        self.encoder, self.view = encoder.to(view.pixels.device).train(), view
        self.optimizer = torch.optim.AdamW(encoder.parameters(), lr=1e-4, fused=True)

    def __call__(self, number: int) -> float:
        """Seconds for a number of steps."""
        begin = now(self.view.pixels.device)
        for _ in range(number):
            self.optimizer.zero_grad()
            self.encoder(self.view).features.square().mean().backward()
            self.optimizer.step()
        return now(self.view.pixels.device) - begin


def make_view(geometry: Geometry, batch: int, ratio: float, device: str) -> View:
    """Random images, masked at a ratio."""
    masker = RandomMasker(ratio)
    keys = make_keys(0, torch.arange(batch))
    count = masker.count(geometry.grid[0] * geometry.grid[1])
    images = torch.randn(batch, geometry.channels, *geometry.size, generator=torch.Generator().manual_seed(0))
    mask = masker(keys, geometry.grid, count)
    return View(ZeroFill()(images, mask, count, keys).to(device), mask.to(device), count)


def compare(plain: Steps, conditioned: Steps, steps: int, rounds: int) -> float:
    """Seconds of the conditioned steps over plain's: the median over pairs, after a warm-up pair."""
    turns = alternate({"conditioned": lambda: conditioned(steps), "plain": lambda: plain(steps)}, rounds)
    return ratio(turns["conditioned"], turns["plain"]).median


def measure(given: argparse.Namespace) -> list[list[str]]:
    """A row for each mechanism: its name, then a cell for each depth."""
    geometry = Geometry(3, (given.side, given.side), given.cell)
    view = make_view(geometry, given.batch, given.ratio, given.device)
    plain = make_steps(Plain, "all", given.size, geometry, view)
    costs = _costs(plain)
    rows = []
    for name in given.mechanisms or MECHANISMS:
        row = [name]
        for depth in given.depths:
            try:
                conditioned = make_steps(MECHANISMS[name], depth, given.size, geometry, view)
            except ValueError as refused:
                row.append(str(refused))
                continue
            parameters, flops = (own / theirs for own, theirs in zip(_costs(conditioned), costs, strict=True))
            row.append(f"{compare(plain, conditioned, given.steps, given.rounds):.2f} ({parameters:.3f}, {flops:.2f})")
        rows.append(row)
    return rows


def make_steps(mechanism: MechanismFactory, depth: Any, size: Any, geometry: Geometry, view: View) -> Steps:
    indicators: list[Indicator] = [Mask()] if mechanism is mechanisms.Sparse else [Mask(), Coordinates()]
    encoder = SemanticCNN(geometry, size, indicators, mechanism, depth)
    initialise(encoder, 0)
    return Steps(encoder, view)


def table(rows: list[list[str]], depths: list[str]) -> str:
    """Markdown: times, with parameters and operations in brackets."""
    return markdown([["mechanism", *(f"{depth}: time (parameters, FLOPs)" for depth in depths)], *rows])


def _costs(steps: Steps) -> tuple[int, int]:
    return count_parameters(steps.encoder), count_training_flops(steps.encoder, steps.view)


def main(words: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("mechanisms", nargs="*", metavar="MECHANISM", help=f"{', '.join(MECHANISMS)}; default: all")
    parser.add_argument(
        "--depths", nargs="+", choices=DEPTHS, default=list(DEPTHS), help="layers at which the network is conditioned"
    )
    parser.add_argument("--size", default="tiny", help="size of the encoder")
    parser.add_argument("--side", type=int, default=32, help="side of the images, in pixels")
    parser.add_argument("--cell", type=int, default=4, help="side of a mask cell, in pixels")
    parser.add_argument("--ratio", type=float, default=0.75, help="masked share of the cells")
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--steps", type=int, default=1, help="steps per turn")
    parser.add_argument("--rounds", type=int, default=7, help="rounds of turns, of which the median is taken")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    given = parser.parse_args(words)
    if unknown := [name for name in given.mechanisms if name not in MECHANISMS]:
        parser.error(f"there is no mechanism {unknown[0]}: choose among {', '.join(MECHANISMS)}")
    threads = torch.get_num_threads()
    torch.set_num_threads(given.threads)
    try:
        rows = measure(given)
    finally:
        torch.set_num_threads(threads)
    device = torch.cuda.get_device_name() if given.device.startswith("cuda") else f"CPU, {given.threads} threads"
    print(
        f"Size {given.size}, {given.side} x {given.side} pixels, cells of {given.cell}, ratio {given.ratio}, batch {given.batch}, "
        f"{device}, torch {torch.__version__}, medians of {given.rounds} rounds of {given.steps}; plain is 1.\n"
    )
    print(table(rows, given.depths))


if __name__ == "__main__":
    main()
