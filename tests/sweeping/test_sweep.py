"""Sweeps end to end, over trials that only seem to train."""

import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import optuna
import pytest
import yaml

from semconv.commands.sweep import _again, main, make_parser
from semconv.comparison.runs import find_runs
from semconv.sweeping import runner
from semconv.sweeping.file import Sweep, read_sweep
from semconv.sweeping.jobs import Job
from semconv.sweeping.ledger import Ledger
from semconv.sweeping.macros import is_plain, own_command
from semconv.sweeping.processes import begin
from semconv.tracking.folder import RunFolder
from semconv.tracking.locks import Lock
from tests.experiments import FOLDER
from tests.processes import Forked
from tests.sweeping.oracle import sweeps

pytestmark = pytest.mark.usefixtures("quick_runs")

BEST = ((1, "b"), (1, "a"), (2, "b"), (2, "a"), (3, "b"))
GRID = {"x": {"values": [3, 1, 2]}}


def begun(folder: Path) -> list[dict[str, str]]:
    """The parameters of each process that was started, in order, with its run's id."""
    lines = (folder / "begun.txt").read_text().splitlines() if (folder / "begun.txt").exists() else []
    rows = [json.loads(line) for line in lines]
    return [{"run": row["run"], **dict(word.removeprefix("--").split("=", 1) for word in row["words"])} for row in rows]


def statuses(folder: Path) -> list[str]:
    return sorted(json.loads(path.read_text())["status"] for path in folder.rglob("summary.json"))


def start(path: Path, folder: Path, *options: str, number: int = 0) -> Forked:
    """`semconv sweep` as a process of its own; several in one folder have numbers."""
    said = folder.parent / f"said-{number}"
    said.mkdir()
    return Forked(["sweep", str(path), "--output", str(folder), *options], said)


def wait_for(condition, seconds=60):
    limit = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < limit
        time.sleep(0.02)


def test_a_grid_is_run_once_with_a_line_a_log_and_a_run_for_each_trial(make_sweep, sweep, tmp_path, capsys):
    secret = {"data.root": {"value": "https://user:hunter2@host/x"}}
    path = make_sweep(parameters={**GRID, "experiment": {"values": ["b", "a"]}, "steps": {"value": 2}, **secret})
    assert sweep(path, "--jobs", "3") == 0
    folder = tmp_path / "sweep"
    assert [(row["experiment"], row["x"]) for row in sorted(begun(folder), key=lambda row: row["run"])] == [
        ("b", "3"),
        ("b", "1"),
        ("b", "2"),
        ("a", "3"),
        ("a", "1"),
        ("a", "2"),
    ]
    assert statuses(folder) == ["finished"] * 6
    said = capsys.readouterr().out
    lines = [line for line in said.splitlines() if line.split()[1:2] == ["finished"]]
    assert sorted(line.split()[0] for line in lines) == [f"{number}/6" for number in range(1, 7)]
    assert any("1/6  finished" in line and "experiment=b x=3  val/loss 3.0000" in line for line in lines), said
    assert said.splitlines()[-1] == f"semconv compare {folder} compares the runs"
    best = said.splitlines()[said.splitlines().index("best of 6 finished runs by val/loss") :]
    assert [line.split()[:3] for line in best[2:-1]] == [[f"experiment={name}", f"x={x}", f"{x}.0000"] for x, name in BEST]
    logs = sorted((folder / "trials").glob("*.log"))
    assert len(logs) == 6
    assert "--experiment=b" in logs[0].read_text()
    kept = yaml.safe_load((folder / "trials" / "000.yaml").read_text())
    assert (kept["x"], kept["data.root"]) == ({"value": 3}, {"value": "https://<redacted>@host/x"})
    assert {row["data.root"] for row in begun(folder)} == {"https://user:hunter2@host/x"}
    assert find_runs([str(folder)]).declared.factors == ("x",)


def test_finished_trials_are_never_run_again_and_count_limits_a_call(make_sweep, sweep, tmp_path, capsys):
    path = make_sweep(parameters=GRID)
    assert sweep(path, "--count", "1") == 0
    assert [row["x"] for row in begun(tmp_path / "sweep")] == ["3"]
    assert "not all trials are finished" in capsys.readouterr().out
    assert sweep(path) == 2
    assert "holds this sweep already: resume it by --resume" in capsys.readouterr().err
    assert sweep(path, "--resume") == 0
    assert sweep(path, "--resume") == 0
    assert [row["x"] for row in begun(tmp_path / "sweep")] == ["3", "1", "2"]
    make_sweep(parameters={"x": {"values": [3, 1]}})
    assert sweep(path, "--resume") == 2
    assert "holds another sweep, or this one before it was changed" in capsys.readouterr().err


def test_the_copy_in_its_folder_continues_a_sweep(make_sweep, sweep, tmp_path):
    assert sweep(make_sweep(parameters=GRID), "--count", "1") == 0
    with pytest.raises(SystemExit) as ended:
        main([str(tmp_path / "sweep" / "sweep.yaml"), "--resume"])
    assert ended.value.code == 0
    assert [row["x"] for row in begun(tmp_path / "sweep")] == ["3", "1", "2"]


@pytest.mark.parametrize("line", ["looks: a", "looks : 3 5", "famly: a"])
def test_a_declaration_that_no_comparison_takes_is_refused_before_the_first_run(line, make_sweep, sweep, tmp_path, capsys):
    assert sweep(make_sweep(parameters=GRID, description=f"A question?\n{line}")) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1
    assert not (tmp_path / "sweep").exists()


def test_points_that_others_have_finished_are_not_run_again(make_sweep, tmp_path):
    ledger = Ledger(tmp_path / "sweep", read_sweep(make_sweep(parameters=GRID)), join=False, done=[{"x": 1}, {"x": 4}])
    claims = [ledger.claim() for _ in range(3)]
    assert [claim and claim.parameters["x"] for claim in claims] == [3, 2, None]


def test_a_sweep_killed_with_its_trials_goes_on_where_it_was(make_sweep, sweep, tmp_path):
    path, folder = make_sweep(parameters={**GRID, "seconds": {"value": 0.5}}), tmp_path / "sweep"
    process = start(path, folder)
    wait_for(lambda: len(begun(folder)) == 2)
    pids = re.findall(r"^(\d+)$", subprocess.run(["pgrep", "-P", str(process.pid)], capture_output=True, text=True).stdout, re.M)
    for pid in (process.pid, *map(int, pids)):
        os.kill(pid, signal.SIGKILL)
    process.wait()
    with open(folder / "journal.log", "a") as journal:
        journal.write('{"op_code": 6, "worker')  # it was cut off as it wrote
    assert statuses(folder) == ["finished", "running"]
    assert sweep(path, "--resume") == 0
    assert [row["x"] for row in begun(folder)] == ["3", "1", "1", "2"]
    assert statuses(folder) == ["finished"] * 3
    assert begun(folder)[1]["run"] == begun(folder)[2]["run"]


def test_a_damaged_journal_is_one_line(make_sweep, sweep, tmp_path, capsys):
    path, journal = make_sweep(parameters=GRID), tmp_path / "sweep" / "journal.log"
    assert sweep(path, "--count", "1") == 0
    first, _, rest = journal.read_text().partition("\n")
    journal.write_text(f"{first}\ngarbage\n{rest}")
    capsys.readouterr()
    assert sweep(path, "--resume") == 2
    assert f"{journal} is damaged (Expecting value" in capsys.readouterr().err


def test_a_trial_that_outlives_its_killed_sweep_is_waited_for_and_not_run_twice(make_sweep, sweep, tmp_path):
    path, folder = make_sweep(parameters={"x": {"values": [3, 1]}, "seconds": {"value": 1.0}}), tmp_path / "sweep"
    process = start(path, folder)
    wait_for(lambda: len(begun(folder)) == 1)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert sweep(path, "--resume") == 0
    assert [row["x"] for row in begun(folder)] == ["3", "1"]
    assert statuses(folder) == ["finished"] * 2
    finished = Ledger(folder, read_sweep(path), join=True).trials(optuna.trial.TrialState.COMPLETE)
    assert [trial.value for trial in finished] == [3, 1]


def test_processes_share_a_sweep_without_running_a_trial_twice(make_sweep, tmp_path):
    path, folder = make_sweep(parameters={"x": {"min": 1, "max": 8}, "seconds": {"value": 0.1}}), tmp_path / "sweep"
    processes = [start(path, folder, "--resume", number=number) for number in range(3)]
    done = [process.wait(60) for process in processes]
    assert [each.returncode for each in done] == [0, 0, 0], done
    assert sorted(row["x"] for row in begun(folder)) == [str(x) for x in range(1, 9)]
    assert statuses(folder) == ["finished"] * 8
    assert len([each for each in done if "finished" in each.stdout]) > 1


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)], ids=["SIGTERM", "SIGINT"])
def test_a_signal_ends_trials_softly_and_leaves_them_to_be_gone_on_with(number, code, make_sweep, sweep, tmp_path):
    path, folder = make_sweep(parameters={**GRID, "seconds": {"value": 0.3}}), tmp_path / "sweep"
    process = start(path, folder)
    wait_for(lambda: len(begun(folder)) == 2)
    process.send_signal(number)
    done = process.wait(20)
    assert done.returncode == code, done
    assert "--resume continues it" in done.stdout
    assert sweep(path, "--resume") == 0
    assert [row["x"] for row in begun(folder)] == ["3", "1", "1", "2"]


def test_a_sweep_below_nohup_outlives_its_session(make_sweep, sweep, tmp_path):
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        command = ["sh", "-c", f"kill -HUP {os.getpid()}; sleep .1"]
        assert sweep(make_sweep(command=command, parameters={"x": {"values": [1, 2]}}, metric=None)) == 0
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)
    assert len(list((tmp_path / "sweep" / "trials").glob("*.log"))) == 2


def test_a_trial_resumes_however_its_command_spells_semconv(tmp_path):
    for name in ("semconv", "python3.12"):
        (tmp_path / name).write_text('#!/bin/sh\necho "$MARK $*"\n')
        (tmp_path / name).chmod(0o755)
    own, python = str(tmp_path / "semconv"), [str(tmp_path / "python3.12"), "-m", "semconv"]
    begins = {("${env}", "MARK=1", "OTHER=a", own): "1", ("${env}", own): "", (own,): "", tuple(python): " -m semconv"}
    run = RunFolder(tmp_path / "sweep" / "fake" / "a-000")
    run.checkpoints.mkdir(parents=True)
    zipfile.ZipFile(run.checkpoints / "last.ckpt", "w").close()
    (tmp_path / "sweep" / "trials").mkdir()
    for number, (words, said) in enumerate(begins.items()):
        job = Job(number, "a-000", {"x": 1}, [*words, "run", "${args}"], "", "", tmp_path / "sweep")
        process = begin(job, None)
        wait_for(lambda process=process: process.poll() is not None)
        assert job.log.read_text().splitlines()[1].strip() == f"{said} run --resume {run.path}".strip()
    plain = [["semconv"], ["/usr/bin/env", "semconv"], ["python", "-m", "semconv"], [sys.executable, "-m", "semconv"]]
    other = [["/usr/bin/env", "OMP_NUM_THREADS=1", "semconv"], [own], python]
    assert [is_plain([*words, "run", "-c", "a"]) for words in (*plain, *other)] == [True] * 4 + [False] * 3
    no_run = (["semconv"], ["semconv", "check", "run"], ["/usr/bin/env"], ["python", "train.py", "run"], ["A=1", "semconv", "run"])
    assert [own_command(words) or is_plain(words) for words in no_run] == [False] * 5


@pytest.mark.skipif(not Path("/proc/self/autogroup").exists(), reason="needs a Linux that shares the cores among sessions")
def test_a_trial_is_as_nice_among_all_sessions_as_its_sweep(make_sweep, sweep, tmp_path, monkeypatch):
    monkeypatch.setattr(os, "nice", lambda _: 7)
    found = tmp_path / "found"
    sweep(make_sweep(command=["sh", "-c", f"sleep .2; cat /proc/$$/autogroup > {found}"], parameters={"x": {"value": 1}}))
    assert found.read_text().split()[-2:] == ["nice", "7"]


def test_failed_trials_are_told_limited_and_tried_again_on_resume(make_sweep, sweep, tmp_path, capsys):
    path, folder = make_sweep(parameters={"x": {"values": [1, 2, 3]}, "fails": {"value": True}}), tmp_path / "sweep"
    assert sweep(path, "--failures", "2") == 1
    said = capsys.readouterr().out
    assert said.count("exit code 7: it has failed as it was told") == 2
    assert "2 trials have failed: no more are started" in said
    assert len(begun(folder)) == 2
    (folder / "mended").touch()
    assert sweep(path, "--resume") == 0
    assert [row["x"] for row in begun(folder)] == ["1", "2", "3", "1", "2"]
    assert statuses(folder) == ["finished"] * 3


def test_a_sweep_goes_on_after_a_trial_that_diverged(make_sweep, sweep, tmp_path, capsys):
    path = make_sweep(parameters={"x": {"values": [1, 2, 3]}, "diverges": {"value": 2}})
    for _ in range(2):
        assert sweep(path, "--resume", "--failures", "1") == 0
    out = capsys.readouterr().out
    assert sum("diverged" in line and "x=2" in line for line in out.splitlines()) == 1
    assert len((tmp_path / "sweep" / "begun.txt").read_text().splitlines()) == 3


def test_a_random_search_draws_the_same_points_whoever_draws_them(make_sweep, sweep, tmp_path):
    parameters = {
        "x": {"distribution": "log_uniform_values", "min": 0.1, "max": 10},
        "seed_everything": {"values": list(range(99))},
    }
    path, folder = make_sweep(method="random", parameters=parameters, run_cap=5), tmp_path / "sweep"
    assert sweep(path, "--count", "2") == 0
    assert sweep(path, "--resume", "--jobs", "2") == 0
    rows = sorted(begun(folder), key=lambda row: row["run"])
    points = [read_sweep(path).draw(number) for number in range(5)]
    assert [(float(row["x"]), int(row["seed_everything"])) for row in rows] == [(p["x"], p["seed_everything"]) for p in points]
    assert len({row["x"] for row in rows}) == 5


def test_a_search_without_an_end_is_refused(make_sweep, sweep, capsys):
    assert sweep(make_sweep(method="random", parameters={"x": {"min": 0.0, "max": 1.0}})) == 2
    assert "is a random search that never ends: give --count, or run_cap" in capsys.readouterr().err


def test_the_command_that_continues_a_sweep_can_be_copied(make_sweep, sweep, tmp_path, capsys):
    path, folder = make_sweep(method="random", parameters={"x": {"min": 0.0, "max": 1.0}}), tmp_path / "my sweeps"
    path = path.rename(tmp_path / "a sweep.yaml")
    assert sweep(path, "--output", str(folder), "--count", "2", "--jobs", "2") == 0
    last = capsys.readouterr().out.splitlines()[-1]
    assert last.startswith(f"semconv compare '{folder}' compares the runs; ")
    again = shlex.split(last.partition("finished: ")[2].removesuffix(" continues"))
    with pytest.raises(SystemExit) as ended:
        main(again[2:])
    assert (again[:2], ended.value.code, len(begun(folder))) == (["semconv", "sweep"], 0, 4)
    ray = ["--cluster", "10.0.0.1:6379", "--storage", "s3://bucket/my folder", "--cpus-per-trial", "2", "--gpus-per-trial", ".5"]
    slurm = ["--cluster", "slurm", "--jobs", "3", "--failures", "9", "--slurm", "partition=gpu", "comment=two words"]
    for options in (ray, slurm):
        given = make_parser().parse_args([str(path), "--resume", "--count", "2", *options])
        assert make_parser().parse_args(shlex.split(_again(read_sweep(path), given))[2:]) == given
    given = make_parser().parse_args([str(path), "--storage", "ftp://user:hunter2@host/x"])
    assert "--storage 'ftp://<redacted>@host/x'" in _again(read_sweep(path), given)
    given = make_parser().parse_args([str(path), "--output=-x"])
    assert "--output ./-x --resume" in _again(read_sweep(path), given)


def test_bayes_closes_in_on_the_best_and_stops_at_the_target(make_sweep, sweep, tmp_path):
    parameters = {"x": {"min": 0.0, "max": 1.0}, "config": {"values": ["a", "b"]}, "steps": {"value": 1}}
    metric = {"name": "val/loss", "goal": "minimize", "target": 0.02}
    path, folder = make_sweep(method="bayes", parameters=parameters, run_cap=40, metric=metric), tmp_path / "sweep"
    one = Ledger(tmp_path / "one", Sweep("one", {**read_sweep(path).content, "run_cap": 1}), join=False)
    one.study.ask()  # by a process that was killed before it had parameters
    assert one.claim() is not None
    assert one.claim() is None
    assert sweep(path, "--jobs", "2") == 0
    values = [float(row["x"]) for row in sorted(begun(folder), key=lambda row: row["run"])]
    assert min(values) <= 0.02
    assert len(values) < 40
    later = values[10:]  # the first ten are drawn at random
    assert not later or sum(later) / len(later) < 0.4
    assert len(set(values)) == len(values)


def test_hyperband_stops_the_worse_trials_early_and_they_are_not_gone_on_with(make_sweep, sweep, tmp_path, capsys):
    path = make_sweep(
        parameters={"x": {"values": [1, 2, 3]}, "steps": {"value": 60}, "seconds": {"value": 0.03}},
        early_terminate={"type": "hyperband", "min_iter": 2, "eta": 2},
    )
    assert sweep(path, "--jobs", "3") == 0
    assert statuses(tmp_path / "sweep").count("finished") in (1, 2)
    assert "stopped early" in capsys.readouterr().out
    assert json.loads(next((tmp_path / "sweep").glob("fake/*-000/summary.json")).read_text())["status"] == "finished"
    assert sweep(path, "--resume") == 0
    assert len(begun(tmp_path / "sweep")) == 3


def test_a_trial_that_is_tried_again_counts_once_in_hyperband(make_sweep, sweep, tmp_path, monkeypatch):
    numbers = set()

    def to_stop(histories, *_):
        numbers.add(len(histories))
        return []

    monkeypatch.setattr(runner, "to_stop", to_stop)
    bands = {"type": "hyperband", "min_iter": 1}
    path = make_sweep(parameters={"x": {"values": [1]}, "fails": {"value": True}}, early_terminate=bands)
    assert sweep(path) == 1
    (tmp_path / "sweep" / "mended").touch()
    assert sweep(path, "--resume") == 0
    assert numbers == {1}


def test_the_cap_of_a_grid_holds(make_sweep, sweep, tmp_path, capsys):
    path = make_sweep(parameters={"x": {"values": [3, 1, 2]}}, run_cap=2)
    assert (sweep(path), sweep(path, "--resume")) == (0, 0)
    assert len((tmp_path / "sweep" / "begun.txt").read_text().splitlines()) == 2
    said = capsys.readouterr().out
    assert "1/2  finished" in said
    assert "not all trials" not in said


def test_a_point_that_a_grid_has_twice_is_run_once():
    content = {"method": "grid", "parameters": {"x": {"values": [0, 0, True, 1]}, "y": {"values": [2, 2]}}}
    theirs = [run.config for run in sweeps.next_runs(content, [], n=9) if run is not None]
    ours = Sweep("s", content).grid
    assert [{name: value["value"] for name, value in run.items()} for run in theirs] == ours
    assert list(map(repr, ours)) == ["{'x': 0, 'y': 2}", "{'x': True, 'y': 2}", "{'x': 1, 'y': 2}"]


@pytest.mark.parametrize("method", ["grid", "random"])
def test_failed_trials_count_towards_the_cap_and_are_tried_again(method, make_sweep, sweep, tmp_path):
    path = make_sweep(method=method, parameters={"x": {"values": [1, 2, 3, 4]}, "fails": {"value": True}}, run_cap=2)
    assert sweep(path, "--failures", "9") == 1
    first = [row["x"] for row in begun(tmp_path / "sweep")]
    assert len(first) == 2
    (tmp_path / "sweep" / "mended").touch()
    assert sweep(path, "--resume") == 0
    assert [row["x"] for row in begun(tmp_path / "sweep")] == first * 2
    assert statuses(tmp_path / "sweep") == ["finished"] * 2


def test_a_command_that_cannot_be_started_fails_its_trial_in_one_line(make_sweep, sweep, tmp_path, capsys):
    for command in (["/no/such/program", "${args}"], [str(tmp_path)], ["${unknown}"]):
        path = make_sweep(parameters={"x": {"values": [1, 2]}}, command=command)
        assert sweep(path, "--output", str(tmp_path / f"sweep-{len(command[0])}"), "--failures", "1") == 1
        captured = capsys.readouterr()
        assert "exit code 127: the command " in captured.out
        assert "Traceback" not in captured.out + captured.err


def test_a_run_that_is_not_its_point_has_failed(make_sweep, sweep, tmp_path, capsys):
    program = tmp_path / "program.py"
    program.write_text(
        "import os\nfrom semconv.tracking.folder import RunFolder\n"
        f"folder = RunFolder({str(tmp_path / 'sweep' / 'a')!r} + '/' + os.environ['WANDB_RUN_ID'])\n"
        "folder.create({'x': 5})\nfolder.summarise({'status': 'finished', 'val/loss': 1.0})\n"
    )
    assert sweep(make_sweep(parameters={"x": {"values": [5, 4]}}, command=[sys.executable, str(program), "${args}"])) == 1
    ended = [line for line in capsys.readouterr().out.splitlines() if "started" not in line]
    assert [line.split()[1] for line in ended[:2]] == ["finished", "failed"]
    assert "x has no effect: the configuration has 5, and the sweep says 4" in ended[1]
    (own := tmp_path / "semconv").write_text("#!/bin/sh\n")  # it trains nowhere
    own.chmod(0o755)
    path = make_sweep(parameters={"x": {"values": [5]}}, command=[str(own), "fit", "${args}"])
    assert sweep(path, "--output", str(tmp_path / "empty")) == 1
    assert "failed" in (said := " ".join(capsys.readouterr().out.split()))
    assert f"it left no run in {tmp_path / 'empty'}: leave --runs to the sweep" in said


def test_a_metric_that_runs_do_not_have_is_said(make_sweep, sweep, capsys):
    path = make_sweep(parameters={"x": {"values": [1]}}, metric={"name": "val/other"})
    assert sweep(path) == 1
    said = capsys.readouterr()
    assert "there is no val/other in its summary" in said.out
    assert "no run of semconv records val/other" in said.err


def test_a_lock_whose_holder_was_killed_is_free(tmp_path):
    code = f"""
import time
from pathlib import Path
from semconv.tracking.locks import Lock
Lock(Path({str(tmp_path / "lock")!r})).acquire()
print("held", flush=True)
time.sleep(60)
"""
    process = subprocess.Popen([sys.executable, "-c", code], cwd=FOLDER.parent, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    lock = Lock(tmp_path / "lock")
    assert not lock.acquire(wait=False)
    process.kill()
    process.communicate()
    assert lock.acquire(wait=False)
    lock.close()
