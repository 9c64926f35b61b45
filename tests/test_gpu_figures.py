"""benchmarks/gpu.py: what `make gpu` writes, from figures made up, from failures, and from a run on the CPU."""

import json
from typing import Any

import pytest

from benchmarks import gpu
from results import fill

TINY = [
    "--trainer.max_steps=7",
    "--data.num_images=160",
    "--data.num_test_images=8",
    "--data.batch_size=8",
    "--trainer.limit_val_batches=0",
]


@pytest.fixture
def given(tmp_path):
    return [
        "--device=cpu",
        "--variants",
        "cnn_plain",
        "mae_vit",
        "--modes",
        "float32",
        "bf16",
        f"--json={tmp_path}/results/gpu.json",
    ]


def test_without_a_gpu_one_line_says_so(capsys, monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    with pytest.raises(SystemExit) as stop:
        gpu.main([])
    said = capsys.readouterr().err
    assert stop.value.code == 2
    assert said.startswith("benchmarks.gpu: there is no CUDA device here")
    assert said.count("\n") == 1


def test_figures_go_into_a_file_and_a_table_and_failures_are_named(given, tmp_path, monkeypatch, capsys):
    rates = iter([1234.5, None, 99.0])
    asked = []

    def train(variant, options, device):
        asked.append((variant, *options, device))
        if variant == "mae_vit" and options:
            return {"error": "out of memory"}
        return {"images_per_second": next(rates), "peak_memory_bytes": 3 * 2**29}

    def call(words):
        calls.append(words)
        return {"output": ["fine"]}

    calls: list[Any] = []
    monkeypatch.setattr(gpu, "train", train)
    monkeypatch.setattr(gpu, "call", call)
    with pytest.raises(SystemExit) as stop:
        gpu.main(given)
    assert stop.value.code == 1
    assert capsys.readouterr().err == "benchmarks.gpu: 1 of the figures failed; the first: out of memory\n"
    bf16 = "--trainer.precision=bf16-mixed"
    assert asked == [("cnn_plain", "cpu"), ("cnn_plain", bf16, "cpu"), ("mae_vit", "cpu"), ("mae_vit", bf16, "cpu")]
    figures = json.loads((tmp_path / "results" / "gpu.json").read_text())
    assert figures["runs"][3] == {"variant": "mae_vit", "mode": "bf16", "error": "out of memory"}
    assert list(figures["imagenet"]) == ["cnn_plain", "mae_vit"]
    assert [words[1] for words in calls] == ["pytest", "benchmarks.speed", "semconv", "semconv"]
    monkeypatch.setattr(fill, "FIGURES", tmp_path / "results")
    page = "# Performance\n\n<!-- results: figures gpu -->\n\n{}\n\n<!-- end of results -->\n\nMore.\n"
    assert fill.filled(page.format("old")) == page.format(gpu.text(figures))
    assert gpu.text(figures).splitlines()[2:] == [
        "| variant | float32 | bf16 |",
        "| --- | --- | --- |",
        "| `cnn_plain` | 1,234 (1.50) | - (1.50) |",
        "| `mae_vit` | 99 (1.50) | fails |",
    ]


@pytest.mark.slow
def test_a_variant_is_trained_in_a_mode(given, tmp_path):
    gpu.main([*given[:2], "mae_vit", "--modes", "bf16", given[-1], "--runs-only", "--", *TINY])
    (run,) = json.loads((tmp_path / "results" / "gpu.json").read_text())["runs"]
    assert run["images_per_second"] > 0
    assert run["peak_memory_bytes"] > 0


def test_a_failed_process_gives_its_last_line():
    assert gpu.call(["-c", "import sys; print('a', file=sys.stderr); sys.exit('b')"]) == {"error": "b"}
    assert gpu.call(["-c", "print('a'); print('b')"]) == {"output": ["a", "b"]}
