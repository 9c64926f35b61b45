"""Plain networks of the same cost as conditioned ones."""

import os
import statistics
from collections.abc import Callable
from copy import deepcopy
from typing import Any, Literal

import torch
from torch import nn

from semconv.convolution import MechanismFactory, Plain
from semconv.corruption import View
from semconv.cost import count_training_flops, now
from semconv.encoders.encoder import Geometry, count_parameters

SMALLEST, LARGEST = 1 / 16, 64.0  # times the width
BATCH, ROUNDS = 32, 5
TOLERANCE = 0.002


def match_cost(
    build: Callable[..., nn.Module],
    mechanism: MechanismFactory,
    mlp_ratio: float,
    geometry: Geometry,
    cost: Literal["flops", "time"],
) -> float:
    """The mlp_ratio at which plain costs as much in training as a conditioned network does; below it or above.

    Where plain costs more even with the narrowest MLPs, as beside `Sparse` at size test, this is the narrowest.

    Args:
        build: makes an encoder, given mechanism and mlp_ratio.
        mechanism: of the conditioned network.
        mlp_ratio: of the conditioned network.
        geometry: the images.
        cost: operations of a training step, counted, or its time, measured on the device there is, alternately.

    Raises:
        ValueError: time is to be matched in one of several processes, each of which would measure another.
    """
    if cost == "flops":
        with torch.device("meta"):

            def shell(**arguments: Any) -> nn.Module:
                # a copy, as indicators exist already, and their weights are the caller's
                return deepcopy(build(**arguments)).to("meta")

            target = training_flops(shell(mechanism=mechanism, mlp_ratio=mlp_ratio), geometry)
            counted: dict[int, float] = {}  # by parameters: ratios that are rounded to the same widths are counted once

            def relative(ratio: float) -> float:
                plain = shell(mechanism=Plain, mlp_ratio=ratio)
                if (size := count_parameters(plain)) not in counted:
                    counted[size] = training_flops(plain, geometry) / target
                return counted[size]

            return _solve(relative, mlp_ratio)
    if "LOCAL_RANK" in os.environ:
        raise ValueError(
            "plain of the same step time is measured in one process: give encoder.mlp_ratio as a run on one device found it"
        )
    conditioned = build(mechanism=mechanism, mlp_ratio=mlp_ratio)
    return _solve(lambda ratio: _time_ratio(build(mechanism=Plain, mlp_ratio=ratio), conditioned, geometry), mlp_ratio, steps=6)


def training_flops(encoder: nn.Module, geometry: Geometry) -> int:
    """Operations of one training step, masked, on a whole batch; see `count_training_flops`.

    Signals of position are convolved once for the batch, so that a batch of one would count them too often.
    """
    return count_training_flops(encoder, geometry.blank(geometry.batch_size))


def _solve(relative: Callable[[float], float], start: float, steps: int = 24) -> float:
    """The ratio at which an increasing function reaches 1, from brackets around `start`.

    Operations are nearly linear in the width: the line through both ends soon finds the place, but for steps of whole widths, for
    which brackets are halved in between.
    """
    low = high = start
    below = above = relative(start)
    while above < 1 and high < LARGEST:
        low, below = high, above
        high *= 1.5
        above = relative(high)
    while below > 1 and low > SMALLEST:
        high, above = low, below
        low /= 1.5
        below = relative(low)
    for step in range(steps):
        if below > 1 - TOLERANCE or above < 1 + TOLERANCE or high < low * (1 + TOLERANCE):
            break
        middle = low + (high - low) * ((1 - below) / (above - below) if step % 2 == 0 else 0.5)
        value = relative(middle)
        low, below, high, above = (middle, value, high, above) if value < 1 else (low, below, middle, value)
    return low if abs(below - 1) < abs(above - 1) else high


def _time_ratio(plain: nn.Module, conditioned: nn.Module, geometry: Geometry) -> float:
    """Median step time of one network over another's, measured alternately after two rounds of warm-up."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    view = geometry.blank(BATCH, device)
    plain.to(device), conditioned.to(device)
    times: list[float] = []
    for number in range(ROUNDS + 2):
        pair = [_timed(encoder, view) for encoder in (plain, conditioned)]
        if number >= 2:
            times.append(pair[0] / pair[1])
    return statistics.median(times)


def _timed(encoder: nn.Module, view: View) -> float:
    begin = now(view.pixels.device)
    _step(encoder, view)
    return now(view.pixels.device) - begin


def _step(encoder: nn.Module, view: View) -> None:
    encoding: Any = encoder(view)
    encoding.features.square().mean().backward()
    encoder.zero_grad()
