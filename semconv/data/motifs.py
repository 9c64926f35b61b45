"""The shapes and textures of scenes: shapes as signed distances, textures as shades."""

import math
from collections.abc import Callable

import torch
from torch import Tensor

Motif = Callable[[Tensor, Tensor], Tensor]


# Shapes: signed distance from the edge (negative inside), within a circle of radius 1, in the shape's own axes u and v


def _disc(u: Tensor, v: Tensor) -> Tensor:
    return (u * u + v * v).sqrt() - 0.85


def _ring(u: Tensor, v: Tensor) -> Tensor:
    return ((u * u + v * v).sqrt() - 0.72).abs() - 0.23


def _square(u: Tensor, v: Tensor) -> Tensor:
    return torch.maximum(u.abs(), v.abs()) - 0.7


def _frame(u: Tensor, v: Tensor) -> Tensor:
    return (torch.maximum(u.abs(), v.abs()) - 0.53).abs() - 0.17


def _triangle(u: Tensor, v: Tensor) -> Tensor:
    return torch.maximum(u.abs() * math.sqrt(0.75) + v * 0.5, -v) - 0.5


def _bar(u: Tensor, v: Tensor) -> Tensor:
    return torch.maximum(u.abs() - 0.94, v.abs() - 0.32)


def _cross(u: Tensor, v: Tensor) -> Tensor:
    return torch.minimum(_bar(u, v), _bar(v, u))


def _crescent(u: Tensor, v: Tensor) -> Tensor:
    squares = v * v
    bite = ((u - 0.45) * (u - 0.45) + squares).sqrt()
    return torch.maximum((u * u + squares).sqrt() - 0.95, 0.75 - bite)


def _chevron(u: Tensor, v: Tensor) -> Tensor:
    arms = u.abs()
    return torch.maximum((v - arms + 0.33).abs() * math.sqrt(0.5) - 0.24, arms - 0.7)


def _star(u: Tensor, v: Tensor) -> Tensor:
    """A five-pointed star: the points inside at least four of five half-planes, so the second largest of their distances."""
    largest = second = torch.full_like(u, -2.0)
    for turn in (i * math.tau / 5 for i in range(5)):
        side = u * math.sin(turn) + v * math.cos(turn)
        second = torch.maximum(second, torch.minimum(largest, side))
        largest = torch.maximum(largest, side)
    return second - math.cos(math.tau / 5)


SHAPES: dict[str, Motif] = {
    "disc": _disc,
    "ring": _ring,
    "square": _square,
    "frame": _frame,
    "triangle": _triangle,
    "bar": _bar,
    "cross": _cross,
    "crescent": _crescent,
    "chevron": _chevron,
    "star": _star,
}
CLASS_NAMES = tuple(SHAPES)
NUM_CLASSES = len(SHAPES)


# Textures: shade in [0, 1] as a function of the phases p and q of two crossing waves, with period 1 in both


def _fold(phase: Tensor) -> Tensor:
    """A triangle wave: 0 at whole cycles, 1 halfway between."""
    return (phase - phase.round()).abs_().mul_(2)


def _stripes(p: Tensor, q: Tensor) -> Tensor:
    return _fold(p).mul_(2).sub_(0.5).clamp_(0, 1)


def _checks(p: Tensor, q: Tensor) -> Tensor:
    a, b = _stripes(p, q), _stripes(q, p)
    return a + b - 2 * a * b


def _spots(p: Tensor, q: Tensor) -> Tensor:
    a, b = _fold(p), _fold(q)
    return (1.4 - 1.6 * (a * a + b * b)).clamp_(0, 1)


def _zigzag(p: Tensor, q: Tensor) -> Tensor:
    return _stripes(p + 0.6 * _fold(q), q)


def _mottle(p: Tensor, q: Tensor) -> Tensor:
    return (_fold(p) + _fold(q)).mul_(0.5)


def _ramp(p: Tensor, q: Tensor) -> Tensor:
    return _fold(p)


TEXTURES: tuple[Motif, ...] = (_stripes, _checks, _spots, _zigzag, _mottle, _ramp)
