import json
import subprocess
import sys

import pytest

from semconv.comparison import main
from semconv.tracking.identity import TRAINER_KEYS, identity


def config(source="scenes", base_lr=0.008, depth="all"):
    """As much of a run's configuration as names its protocol."""
    part = {"class_path": "semconv.masking.RandomMasker", "init_args": {"ratio": 0.75}}
    model = {"cell": 4, "size": "test", "masker": part, "corruption": {"class_path": "Hide"}, "objective": part}
    model |= {"base_lr": base_lr, "encoder": {"depth": depth}}
    data = {"source": source, "size": [32, 32], "batch_size": 64}
    trainer = dict.fromkeys(TRAINER_KEYS) | {"max_epochs": 1, "max_steps": -1}
    return {"model": {"init_args": model}, "data": {"init_args": data}, "trainer": trainer}


def write_run(folder, experiment, error, source="scenes", base_lr=0.008, depth="all", **more):
    folder.mkdir(parents=True)
    values = {
        **identity({**config(source, base_lr, depth), "experiment": experiment, "seed_everything": int(folder.name)}),
        "trainer/global_step": 10,
        "test/masked_mse": error,
        "test/mean_fill_mse": 0.97,
        "cost/encoder_parameters": 1000,
        "cost/parameters": 1234,
        "cost/train_images_per_second": 10.0,
    }
    (folder / "summary.json").write_text(json.dumps({**values, **more}))


def test_variants_stand_best_first_with_mean_and_deviation_over_runs(tmp_path, capsys):
    write_run(tmp_path / "plain" / "1", "plain", 0.8)
    write_run(tmp_path / "told" / "1", "told", 0.5)
    write_run(tmp_path / "told" / "2", "told", 0.7, **{"cost/train_images_per_second": 30.0})
    main([str(tmp_path)])
    rows = [line.split() for line in capsys.readouterr().out.splitlines()]
    # the mean of .5 and .7, and their standard deviation, .1 times the root of 2
    assert rows[2:] == [
        ["told", "2", "0.6000", "±", "0.1414", "1,000", "1,234", "20"],
        ["plain", "1", "0.8000", "1,000", "1,234", "10"],
        ["mean", "fill", "0.9700", "0", "0"],
    ]


def test_a_run_that_is_not_finished_is_named_and_left_out(tmp_path, capsys):
    write_run(tmp_path / "told" / "1", "told", 0.5)
    (tmp_path / "told" / "2").mkdir()
    (tmp_path / "told" / "2" / "summary.json").write_text('{"experiment": "told"}')
    (tmp_path / "told" / "3").mkdir()
    (tmp_path / "told" / "3" / "summary.json").write_text('{"exper')
    main([str(tmp_path)])
    output = capsys.readouterr()
    assert f"left out: {tmp_path / 'told' / '2'}" in output.err
    assert f"left out: {tmp_path / 'told' / '3'}" in output.err
    assert len(output.out.splitlines()) == 4


def test_runs_of_another_protocol_stand_in_another_table(tmp_path, capsys):
    write_run(tmp_path / "a" / "1", "told", 0.5)
    write_run(tmp_path / "b" / "1", "told", 0.7, source="cifar10")
    main([str(tmp_path)])
    titles = [line for line in capsys.readouterr().out.splitlines() if "cells of 4" in line]
    assert [title.split()[0] for title in titles] == ["scenes", "cifar10"]
    assert titles[0].rstrip().endswith("Hide(), RandomMasker(ratio=0.75), batches of 64, base_lr 0.008, max_epochs 1")


def test_runs_of_another_rate_or_another_depth_are_not_averaged(tmp_path, capsys):
    write_run(tmp_path / "a" / "1", "told", 0.5)
    write_run(tmp_path / "b" / "1", "told", 0.6, base_lr=0.1)
    write_run(tmp_path / "c" / "1", "told", 0.7, depth="stem")
    main([str(tmp_path)])
    output = capsys.readouterr()
    assert output.err == ""
    assert [error in output.out for error in ("0.5000", "0.6000", "0.7000")] == [True] * 3
    assert output.out.count("cells of 4") == 2


def test_of_two_runs_of_one_seed_the_later_counts(tmp_path, capsys):
    write_run(tmp_path / "a" / "1", "told", 0.5)
    write_run(tmp_path / "b" / "1", "told", 0.7)
    main([str(tmp_path)])
    output = capsys.readouterr()
    assert "0.7000" in output.out
    assert "0.5000" not in output.out
    assert f"left out: {tmp_path / 'a' / '1'}" in output.err


def test_what_does_not_beat_the_floor_is_marked(tmp_path, capsys):
    write_run(tmp_path / "a" / "1", "told", 0.99)
    main([str(tmp_path)])
    assert "told (does not beat mean fill)" in capsys.readouterr().out


@pytest.mark.parametrize("folder", ["empty", "missing"])
def test_folders_without_runs_are_told_in_one_line(folder, tmp_path, capsys):
    (tmp_path / "empty").mkdir()
    with pytest.raises(SystemExit) as stop:
        main([str(tmp_path / folder)])
    assert stop.value.code == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_comparing_imports_no_torch(tmp_path):
    write_run(tmp_path / "told" / "1", "told", 0.5)
    script = f"import sys; from semconv.comparison import main; main([{str(tmp_path)!r}]); assert 'torch' not in sys.modules"
    assert subprocess.run([sys.executable, "-c", script], timeout=100).returncode == 0
