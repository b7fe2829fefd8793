"""Does every step of a network keep its operator's contract? Affine ones against their matrix, intervals against points."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from newrelax.network.interval import Interval
from newrelax.network.network import Network, Step
from newrelax.network.operators.arithmetic import LargerOfTwo
from newrelax.network.operators.base import Affine, Elementwise, Nonlinear
from newrelax.network.operators.elementwise import Bent, Smooth

GRID = 513
"""Places in each feature's interval at which a function of one feature is tried."""

WIDE = 20.0
"""Radius from which the grid is too coarse to say that an interval is attained."""

DENSE = 120
"""Input features up to which an affine step is compared with its whole matrix."""


def check_steps(network: Network, lower: Tensor, upper: Tensor, generator: torch.Generator) -> list[str]:
    """What is wrong with the steps of a network over the boxes [lower, upper]: a line for each."""
    found: list[str] = []
    tolerance = 1e-9 if lower.dtype == torch.float64 else 1e-3
    with torch.no_grad():
        intervals = {-1: Interval.between(lower, upper)}
        shapes = {-1: network.input_shape}
        for index, step in enumerate(network.steps):
            inputs = tuple(intervals[i] for i in step.inputs)
            intervals[index], shapes[index] = step.operator.interval(*inputs), step.shape
            sizes = [shapes[i] for i in step.inputs]
            wrong = []
            if isinstance(step.operator, Affine):
                wrong = _affine(step.operator, sizes, lower, tolerance, generator)
            wrong += _interval(step, inputs, intervals[index], tolerance, generator)
            found += [f"step {index}, {type(step.operator).__name__} of {step.source} ({step.place}): {text}" for text in wrong]
    return found


def _affine(
    operator: Affine, shapes: list[tuple[int, ...]], like: Tensor, tolerance: float, generator: torch.Generator
) -> list[str]:
    """`linear`, `value`, `transpose`, `magnitude` and the flags against each other."""
    wrong = []

    def drawn(n: int, shape: tuple[int, ...]) -> Tensor:
        return torch.randn(n, *shape, generator=generator, dtype=torch.float64).to(like)

    x = [drawn(2, shape) for shape in shapes]
    zero = [part.new_zeros(1, *part.shape[1:]) for part in x]
    moved, offset = operator.linear(*x), operator.value(*zero)
    scale = 1 + float(moved.abs().max()) + float(offset.abs().max())
    if not _near(operator.value(*x), moved + offset, tolerance * scale):
        wrong.append("value is not linear + value(0)")
    a = drawn(2, tuple(moved.shape[1:]))
    left = (moved * a).reshape(2, -1).sum(1)
    right = sum((part * back).reshape(2, -1).sum(1) for part, back in zip(x, operator.transpose(a), strict=True))
    assert isinstance(right, Tensor)
    if not _near(left, right, tolerance * scale * a[0].numel()):
        wrong.append("transpose is not the adjoint of linear")
    if sum(part[0].numel() for part in x) > DENSE:
        return wrong
    dense = _dense(operator, shapes, like)
    radius = [part.abs() for part in x]
    if not isinstance(operator, LargerOfTwo):
        expected = sum(r.reshape(2, -1) @ w.abs().t() for r, w in zip(radius, dense, strict=True))
        assert isinstance(expected, Tensor)
        if not _near(operator.magnitude(*radius).reshape(2, -1), expected, tolerance * scale):
            wrong.append("magnitude is not |W|·radius")
    whole = torch.cat(dense, 1) != 0
    if operator.pointwise and bool((whole.sum(1) > 1).any()):
        wrong.append("pointwise, but an output depends on two features")
    if operator.injective and bool((whole.sum(0) > 1).any()):
        wrong.append("injective, but a feature reaches two outputs")
    return wrong


def _dense(operator: Affine, shapes: list[tuple[int, ...]], like: Tensor) -> list[Tensor]:
    """The matrix for each input, [outputs, features]."""
    found = []
    for k, shape in enumerate(shapes):
        count = torch.Size(shape).numel()
        eye = torch.eye(count, dtype=like.dtype, device=like.device).view(count, *shape)
        inputs = [eye if i == k else like.new_zeros(count, *other) for i, other in enumerate(shapes)]
        found.append(operator.linear(*inputs).reshape(count, -1).t())
    return found


def _interval(
    step: Step, inputs: tuple[Interval, ...], found: Interval, tolerance: float, generator: torch.Generator
) -> list[str]:
    """An interval against points of its inputs' ones: it holds them all, and for steps of one operator it is attained."""
    operator = step.operator
    lower, upper = found.lower, found.upper
    if not bool(lower.isfinite().all() and upper.isfinite().all()):
        return ["its interval is not finite"]
    if isinstance(operator, Elementwise):
        places = torch.linspace(0, 1, GRID, dtype=lower.dtype).view(-1, *[1] * lower.ndim)
        floor = operator.floor if isinstance(operator, Smooth) else -math.inf
        first, last = (end.clamp(min=floor) for end in (inputs[0].lower, inputs[0].upper))
        bends = [torch.as_tensor(bend.at).to(first) for bend in operator.bends] if isinstance(operator, Bent) else []
        turned = [torch.minimum(torch.maximum(first, at), last).unsqueeze(0) for at in bends]
        points = [torch.cat([first + places * (last - first), *turned])]
    else:
        points = [_points(part, generator, k % 2) for k, part in enumerate(inputs)]
        if isinstance(operator, LargerOfTwo):  # its third input is the ReLU of the others' difference
            points[2] = (points[0] - points[1]).relu()
    values = operator.value(*(part.flatten(0, 1) for part in points)).unflatten(0, points[0].shape[:2])
    scale = 1 + float(values.abs().max())
    wrong = []
    if bool((values < lower - tolerance * scale).any()) or bool((values > upper + tolerance * scale).any()):
        wrong.append("a point lies outside its interval")
    if isinstance(operator, Nonlinear) and lower.dtype == torch.float64:  # float32 rounds outwards next to a pole
        # between two places of the grid a smooth function can turn, by a square of their distance
        gap = tolerance * scale if not isinstance(operator, Elementwise) else (tolerance + 1e-3) * (1 + upper - lower)
        narrow = inputs[0].radius < WIDE if isinstance(operator, Elementwise) else torch.ones_like(lower, dtype=torch.bool)
        loose = (values.amin(0) > lower + gap) | (values.amax(0) < upper - gap)
        if bool((loose & narrow).any()):
            wrong.append("its interval is wider than what points attain")
    return wrong


def _points(interval: Interval, generator: torch.Generator, turn: int) -> Tensor:
    """All low, all high, one then the other by `turn`, and drawn corners and points, [points, batch, *shape]."""
    shape = (40, *interval.center.shape)
    share = torch.rand(shape, generator=generator, dtype=torch.float64).to(interval.center)
    share[:30] = (share[:30] < 0.5).to(share)
    share[0], share[1], share[2], share[3] = 0.0, 1.0, turn, 1 - turn
    return interval.lower + share * (interval.upper - interval.lower)


def _near(a: Tensor, b: Tensor, tolerance: float) -> bool:
    return a.shape == b.shape and bool(((a - b).abs() <= tolerance).all())
