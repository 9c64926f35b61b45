import gc
from collections.abc import Iterator
from functools import cache, partial
from importlib.metadata import entry_points
from typing import Any

import pytest


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: Any, log: Any) -> Any:
    """Neighbours go to one process, which builds what they share once."""
    from xdist.scheduler import WorkStealingScheduling  # type: ignore[import-untyped]

    return WorkStealingScheduling(config, log)


def pytest_collection_finish() -> None:
    """What has been imported stays: the garbage collector need not look through it again and again."""
    gc.freeze()


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> None:
    """Threads of one test would wait for those of another: the suite runs a process per core."""
    import torch  # not above, for the process that hands tests out would wait for it

    torch.set_num_threads(1)


@pytest.fixture(scope="session", autouse=True)
def one_look_at_packages() -> Iterator[None]:
    """Each trainer asks all packages that are installed for callbacks, which takes as long as a training step."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("lightning.fabric.utilities.registry.entry_points", cache(entry_points))
        yield


@pytest.fixture(scope="session", autouse=True)
def no_wait_for_the_disk() -> Iterator[None]:
    """A run makes sure of fifty small files: what a power cut would lose, no test loses."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("os.fsync", lambda number: None)
        yield


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory, monkeypatch):
    """No test leaves decoded images, or W&B's settings, in the user's folders, or finds some there."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.getbasetemp() / "cache"))
    for name in ("WANDB_API_KEY", "WANDB_MODE", "WANDB_RUN_ID", "WANDB_BASE_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NETRC", "/dev/null")
    monkeypatch.setenv("WANDB_MODE", "disabled")


@pytest.fixture(scope="module")
def quick_probes() -> Iterator[None]:
    """Linear probes of one penalty: the search for the best, which test_probes.py tests, is most of an evaluation."""
    from semconv.evaluation.probes import PENALTIES, choose_linear

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("semconv.evaluation.quick.choose_linear", partial(choose_linear, penalties=PENALTIES[:1]))
        yield


@pytest.fixture(scope="module")
def quick_runs(quick_probes: None) -> Iterator[None]:
    """Runs of few pictures, whose operations are not counted (tests/callbacks/test_cost.py counts): a quarter of a short run."""
    from semconv.callbacks import Panels

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Panels.__init__, "__defaults__", (2,))
        patch.setattr("semconv.callbacks.cost.flops_per_image", lambda *_: 1.0)
        yield
