"""W&B's own engine of sweeps, as it decides on its server; of the tests alone."""

import warnings
from typing import Any

import pytest

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # it was written for another pydantic
    sweeps: Any = pytest.importorskip("sweeps")
    HyperParameter: Any = pytest.importorskip("sweeps.params").HyperParameter
