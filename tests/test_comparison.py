import json
import subprocess
import sys

import pytest

from semconv.comparison import main


def write_run(folder, experiment, error, **more):
    folder.mkdir(parents=True)
    values = {
        "experiment": experiment,
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
    assert rows[1:] == [
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
    assert len(output.out.splitlines()) == 3


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
