"""Where do two lines jump? Discontinuities in (l, u), found by bisection and put into words.

The half-plane l <= u is crossed by straight paths: l varies at fixed u, and u at fixed l. Every
step of a path whose lines differ is bisected until its ends are neighbours in float64. The change
across a step shrinks with the step where the lines are continuous, however steep, and tends to
the jump's size where they are not. A curve of jumps meets many paths, so its points agree on a
simple condition, such as l = 0 or -l = u; `describe` looks for the one they agree on.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from newrelax.relaxations.activation import RELU, Activation
from newrelax.relaxations.base import Lines, Relaxation

PATHS = 16
STEPS = 200
RANGES = (3.0, 50.0)
"""Paths per direction, steps per path and half-widths of the squares that they cross."""

SMALLEST = 1e-7
"""Smallest jump reported, relative to 1 + the path's range, and to lines with larger numbers than that."""

_AGREE = 1e-8


@dataclass(frozen=True)
class Jump:
    """One condition on (l, u) at which lines jump.

    condition: in words, such as "-l = u", or the places where it was seen.
    size: the largest jump seen of each slope and offset that jumps, by name. Offsets may grow
        with the interval: `size` looks at |l|, |u| <= 3 where it can.
    places: up to 8 points (l, u) where it was seen.
    """

    condition: str
    size: dict[str, float]
    places: tuple[tuple[float, float], ...]

    def __str__(self) -> str:
        parts = ", ".join(
            f"{name.replace('_', ' ')} by {'up to ' * name.endswith('offset')}{value:.3g}" for name, value in self.size.items()
        )
        return f"{self.condition}: {parts}"


@dataclass(frozen=True)
class _Found:
    """Jumps as points: l, u, the direction varied, the square's half-width and the four sizes."""

    lower: Tensor
    upper: Tensor
    along_lower: Tensor
    span: Tensor
    size: Tensor  # [n, 4]

    def pick(self, where: Tensor) -> _Found:
        return _Found(*(getattr(self, name)[where] for name in self.__dataclass_fields__))


def find_jumps(relaxation: Relaxation) -> tuple[Jump, ...]:
    """Every discontinuity found, as conditions, the most often seen first."""
    generator = torch.Generator().manual_seed(1)
    found = [
        _along_paths(relaxation, span, along_lower, generator)
        for span in _spans(relaxation.function_of)
        for along_lower in (True, False)
    ]
    return describe(_Found(*(torch.cat(parts) for parts in zip(*(vars(f).values() for f in found), strict=True))))


def jump_points(relaxation: Relaxation, values: Tensor) -> Tensor:
    """Where the lines jump along the edges of the grid `values` x `values`, l <= u, for a map.

    values: [n], ascending, float64; those where the activation is not defined are left out. Returns [m, 2], the points
    (l, u), each to float64's resolution; one per edge at most. The point l = u = 0 is left out: between x and 0, the lines of
    the two stable cases, no relaxation can be continuous there.
    """
    inside, _, _ = relaxation.function_of.within(values, values)
    values = values[inside]
    first, second = torch.triu_indices(len(values), len(values))
    places = []
    for along_lower in (True, False):
        # Edges whose far end is still in the half-plane.
        inside = first < second
        if along_lower:
            near, far, still = values[first[inside]], values[first[inside] + 1], values[second[inside]]
        else:
            near, far, still = values[second[inside] - 1], values[second[inside]], values[first[inside]]
        _, _, far, still = _bisect(_lines_of(relaxation, along_lower), near, far, still, SMALLEST)
        places.append(torch.stack([far, still] if along_lower else [still, far], 1))
    found = torch.cat(places)
    return found[found.abs().amax(1) > _AGREE]


def _lines_of(relaxation: Relaxation, along_lower: bool) -> Callable[[Tensor, Tensor], Tensor]:
    """(moving bound, still bound) -> the four numbers of each neuron, [n, 4]."""

    def evaluate(moving: Tensor, still: Tensor) -> Tensor:
        with torch.no_grad():
            lines = relaxation(moving, still) if along_lower else relaxation(still, moving)
        return torch.stack(lines, -1)

    return evaluate


def _spans(activation: Activation) -> tuple[float, ...]:
    """Half-widths of the squares; the large one only where the function does not grow out of all proportion."""
    if activation is RELU:
        return RANGES
    ends = torch.tensor([-1.0, 1.0], dtype=torch.float64) * max(RANGES)
    values = activation(ends)[activation.within(ends, ends)[0]]
    return RANGES if bool((values.abs() <= max(RANGES)).all()) else (min(RANGES),)


def _along_paths(relaxation: Relaxation, span: float, along_lower: bool, generator: torch.Generator) -> _Found:
    # Random values, evenly spread: a fixed coordinate must not sit on a boundary itself.
    random = torch.rand(PATHS, generator=generator, dtype=torch.float64)
    fixed = ((torch.arange(PATHS) + random) / PATHS * 2 - 1) * span
    if not relaxation.function_of.is_everywhere:  # the half-plane above 0, of the same width
        fixed = (fixed + span) / 2
    first = -span if relaxation.function_of.is_everywhere else 1e-3
    start, end = (torch.full_like(fixed, first), fixed) if along_lower else (fixed, torch.full_like(fixed, span))
    share = torch.linspace(0, 1, STEPS + 1, dtype=torch.float64)[:, None]
    grid = start + (end - start) * share
    near, far = grid[:-1].flatten(), grid[1:].flatten()
    still = fixed.expand(STEPS, -1).flatten()
    evaluate = _lines_of(relaxation, along_lower)
    size, near, far, still = _bisect(evaluate, near, far, still, SMALLEST * (1 + span))
    lower, upper = (far, still) if along_lower else (still, far)
    count = len(far)
    return _Found(lower, upper, torch.full((count,), along_lower), torch.full((count,), span), size)


def _bisect(
    evaluate: Callable[[Tensor, Tensor], Tensor], near: Tensor, far: Tensor, still: Tensor, smallest: float
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Jump sizes [n, 4] and the two neighbouring ends of each step that holds a jump."""
    at_near, at_far = evaluate(near, still), evaluate(far, still)
    earlier = torch.zeros_like(near)
    for halving in range(64):
        change = (at_far - at_near).abs().amax(-1)
        # NaN is not a jump: the finiteness check reports it. Lines with large numbers round by more.
        alive = change > smallest * at_far.abs().amax(-1).div(1 + RANGES[-1]).clamp(min=1)
        near, far, still, at_near, at_far, earlier, change = (
            part[alive] for part in (near, far, still, at_near, at_far, earlier, change)
        )
        if halving == 30:
            earlier = change.clone()
        middle = near + (far - near) / 2
        if len(near) == 0 or bool(((middle == near) | (middle == far)).all()):
            break
        at_middle = evaluate(middle, still)
        first = (at_middle - at_near).abs().amax(-1) >= (at_far - at_middle).abs().amax(-1)
        near, at_near = torch.where(first, near, middle), torch.where(first[:, None], at_near, at_middle)
        far, at_far = torch.where(first, middle, far), torch.where(first[:, None], at_middle, at_far)
    size = (at_far - at_near).abs()
    # Steep but continuous: the change still followed the step's width over the last halvings.
    jump = size.amax(-1) > 0.25 * earlier
    return size[jump], near[jump], far[jump], still[jump]


def describe(found: _Found) -> tuple[Jump, ...]:
    """Group points by the simplest condition that they share.

    Slanted lines first: paths of both directions meet them, and points on them share neither l
    nor u. What is left belongs to one coordinate: multiples of a step, 0, or single values.
    """
    lower, upper, along_lower = found.lower, found.upper, found.along_lower
    jumps: list[Jump] = []
    left = torch.ones_like(along_lower)

    def take(condition: str, where: Tensor) -> None:
        nonlocal left
        where = where & left
        if where.any():
            jumps.append(_jump(condition, found.pick(where)))
            left = left & ~where

    def near(value: Tensor, constant: float) -> Tensor:
        return (value - constant).abs() < _AGREE * (1 + found.span)

    take("-l = u", near(lower + upper, 0))
    take("l = u", near(upper - lower, 0))
    crossing = torch.minimum(-lower, upper) > _AGREE * (1 + found.span)
    ratio = torch.where(crossing, upper / -lower, torch.nan)
    for template, value in (
        ("u = {:.6g} * -l", ratio),
        ("l + u = {:.6g}", lower + upper),
        ("u - l = {:.6g}", upper - lower),
    ):
        for constant in _agreed(value[left]):
            take(template.format(constant), near(value, constant))
    for name, value, own in (("l", lower, along_lower), ("u", upper, ~along_lower)):
        step = _common_step(value[left & own])
        if step is not None:
            text = f"{name} = n * {step:.6g} for whole n ({1 / step:.4g} per unit)"
            take(text, own & near(value - step * (value / step).round(), 0))
        take(f"{name} = 0", own & near(value, 0))
        for constant in _agreed(value[left & own]):
            take(f"{name} = {constant:.6g}", own & near(value, constant))
    if left.any():
        rest = found.pick(left)
        seen = "; ".join(f"({l:.4g}, {u:.4g})" for l, u in _places(rest, 3))
        take(f"no simple condition; seen at {len(rest.lower)} places such as (l, u) = {seen}", left)
    return tuple(sorted(jumps, key=lambda jump: jump.condition.startswith("no simple")))


def _agreed(values: Tensor) -> list[float]:
    """Values that at least three points share (paths differ in their fixed coordinate, so by
    chance they would not)."""
    ordered = values[values.isfinite()].sort().values
    if len(ordered) == 0:
        return []
    apart = ordered.diff() > _AGREE * (1 + ordered[1:].abs())
    groups = torch.tensor_split(ordered, (apart.nonzero().flatten() + 1).tolist())
    return [float(group[len(group) // 2]) for group in groups if len(group) >= 3]


def _common_step(values: Tensor, smallest: float = 1e-5) -> float | None:
    """The largest number of which all values are whole multiples, given at least four of them."""
    distinct = torch.unique(values.abs().round(decimals=9)).tolist()
    if len([value for value in distinct if value > smallest]) < 4:
        return None
    step = 0.0
    for value in distinct:
        # Euclid's algorithm; remainders within rounding of 0 or of the step are 0.
        while value > smallest:
            remainder = step % value
            step, value = value, min(remainder, value - remainder)
        if 0 < step < 10 * smallest:
            return None
    return step


def _places(points: _Found, count: int) -> list[tuple[float, float]]:
    return list(zip(points.lower[:count].tolist(), points.upper[:count].tolist(), strict=True))


def _jump(condition: str, points: _Found) -> Jump:
    near = points.span == min(RANGES)
    size = (points.pick(near) if near.any() else points).size.amax(0).tolist()
    named = {name: value for name, value in zip(Lines._fields, size, strict=True) if value > SMALLEST}
    return Jump(condition, named, tuple(_places(points, 8)))
