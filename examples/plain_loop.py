"""A semantic convolution and a run folder in a plain PyTorch loop, without Lightning and W&B.

python examples/plain_loop.py --runs runs
"""

import argparse

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from semconv import SemanticConv2d
from semconv.corruption import Hide, View
from semconv.cost import Throughput, count_flops, peak_memory
from semconv.hashing import make_keys
from semconv.indicators import Indicators, Mask
from semconv.masking import RandomMasker, spread_mask
from semconv.mechanisms import OverlayReplace
from semconv.objective import Objective
from semconv.pictures import contact_sheet, save_picture
from semconv.tracking.folder import RunFolder

SIDE, CELL = 16, 4


class Network(nn.Module):
    """Two convolutions; the first reads a learned colour in place of hidden pixels."""

    def __init__(self) -> None:
        super().__init__()
        self.indicators = Indicators([Mask()])
        self.first = SemanticConv2d(3, 24, 7, indicators=self.indicators, mechanism=OverlayReplace)
        self.last = nn.Conv2d(24, 3, 7, padding=3)

    def forward(self, view: View) -> Tensor:
        return self.last(F.gelu(self.first(view.pixels, self.indicators(view))))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", default="runs")
    folder = RunFolder.new(parser.parse_args().runs, "plain_loop")
    folder.create({"lr": 3e-3, "steps": 40})
    torch.manual_seed(0)
    network, masker, corrupt, objective = Network(), RandomMasker(0.5), Hide(), Objective(CELL, normalise=False)
    optimizer, throughput = torch.optim.AdamW(network.parameters(), lr=3e-3), Throughput()
    for step in range(40):
        images = F.interpolate(torch.randn(32, 3, 4, 4), size=SIDE, mode="bicubic")
        keys = make_keys("example", step, torch.arange(32))
        mask = masker(keys, (SIDE // CELL, SIDE // CELL), 8)
        view = corrupt(images, mask, 8, keys)
        loss = objective(network(view), images, mask)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        throughput.count(len(images), images.device)
        folder.log({"train/loss": loss.item()}, step, samples_seen=32 * (step + 1))
    throughput.pause(images.device)
    with torch.no_grad():
        made = network(view)
    pasted = torch.where(spread_mask(mask, (SIDE, SIDE)), made, images)
    columns = {"original": images, "seen": view.pixels, "pasted": pasted}
    save_picture(contact_sheet({kind: part[:4] / 4 + 0.5 for kind, part in columns.items()}), folder.media / "last.png")
    flops = count_flops(network, View(images[:1], mask[:1], 8))
    folder.summarise({"status": "finished", "train/loss": loss.item(), "cost/flops": flops})
    folder.summarise({"cost/train_images_per_second": throughput.rate, "cost/peak_memory_bytes": peak_memory(images.device)})
    print(folder.path, f"train/loss {loss.item():.4f}")


if __name__ == "__main__":
    main()
