"""Memory and time against the number of images: of streams, and of the listing of a folder.

python benchmarks/many_images.py stream 10000 100000 1000000
python benchmarks/many_images.py folder 100000 1000000

- stream: one epoch of training batches from tars that repeat one tar of 1,000 images of 32 x 32 pixels, without a network.
- folder: `ImageData` opens a folder of empty files, 1,000 to a class, whose reader gives black images of 500 x 375 pixels.

Each number has a process of its own, which prints its time (of the clock, and of the processor), and its resident memory before it
starts and at the peak.
"""

import argparse
import io
import os
import subprocess
import sys
import tarfile
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torchvision.io import encode_jpeg

from semconv.data import ImageData
from semconv.data.images import FileImages

EACH = 1000  # images of a tar, or of a class
OPTIONS: dict[str, Any] = {"size": (32, 32), "batch_size": 64}


class Peak(threading.Thread):
    """Watches the resident memory of this process, in MB."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.before = self.highest = resident()
        self.done = threading.Event()
        self.start()

    def run(self) -> None:
        while not self.done.wait(0.01):
            self.highest = max(self.highest, resident())


def resident() -> float:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6


def write_tars(folder: Path, count: int) -> None:
    generator = torch.Generator().manual_seed(0)
    with tarfile.open(folder / "train-000000.tar", "w") as tar:
        for number in range(EACH):
            pixels = torch.randint(0, 256, (3, 32, 32), dtype=torch.uint8, generator=generator)
            content = encode_jpeg(pixels).numpy().tobytes()
            info = tarfile.TarInfo(f"{number:06d}.jpg")
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    for number in range(1, count // EACH):
        os.link(folder / "train-000000.tar", folder / f"train-{number:06d}.tar")


def write_files(folder: Path, count: int) -> None:
    for label in range(count // EACH):
        place = folder / "train" / f"n{label:08d}"
        place.mkdir(parents=True)
        for number in range(EACH):
            (place / f"{place.name}_{number}.jpg").touch()


def read_stream(folder: Path, count: int) -> None:
    split = f"train-{{000000..{count // EACH - 1:06d}}}.tar|{count}"
    data = ImageData(f"wds/{folder}", train_split=split, num_workers=0, **OPTIONS)
    data.setup("fit")
    for _ in data.train_dataloader():
        pass


def black(images: FileImages, index: Tensor) -> tuple[list[Tensor], Tensor]:
    """Stands for the reading of files, which are empty."""
    return [torch.zeros(3, 375, 500, dtype=torch.uint8) for _ in index], torch.zeros_like(index)


def list_folder(folder: Path, count: int) -> None:
    FileImages.read = black  # type: ignore[assignment, method-assign]
    ImageData(str(folder), **OPTIONS).setup("fit")


def measure(kind: str, folder: Path, count: int) -> None:
    if kind == "stream":
        read_stream(folder, EACH)  # what is imported and allocated once is not counted
    peak, start, worked = Peak(), time.perf_counter(), time.process_time()
    (read_stream if kind == "stream" else list_folder)(folder, count)
    seconds, worked = time.perf_counter() - start, time.process_time() - worked
    peak.done.set()
    print(
        f"{kind} of {count:,}: {seconds:.1f} s, of which it worked {worked:.1f} s; {peak.before:.0f} MB before, "
        f"{peak.highest:.0f} MB at the peak",
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("kind", choices=("stream", "folder"))
    parser.add_argument("counts", nargs="+", type=int, help="numbers of images, multiples of 1,000")
    parser.add_argument("--folder", type=Path, help="where the images are already")
    given = parser.parse_args()
    if given.folder is not None:
        measure(given.kind, given.folder, given.counts[0])
        return
    for count in given.counts:
        with tempfile.TemporaryDirectory() as folder:
            (write_tars if given.kind == "stream" else write_files)(Path(folder), count)
            subprocess.run([sys.executable, __file__, given.kind, str(count), "--folder", folder], check=True)


if __name__ == "__main__":
    main()
