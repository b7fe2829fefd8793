"""Back-substitution whose every step is charged for what the run and float64 round: see the room's theorem."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from newrelax.network.operators.base import Affine, Elementwise, LinesOf, Nonlinear
from newrelax.network.operators.pooling import Chosen, MaxPool
from newrelax.rigorous import bends
from newrelax.rigorous.bends import Sides, below
from newrelax.rigorous.plan import SAFETY
from newrelax.rigorous.run import Run

TINY = 1e-200
"""More than underflow in float64 can take from any sum here."""

Lines = Mapping[int, "list[Sides] | Chosen"]
"""Of the nonlinear steps, by the step's index."""


def lines_at(run: Run, index: int, lines_of: LinesOf) -> list[Sides] | Chosen:
    """The lines of a nonlinear step between the bounds of its input."""
    step = run.plan.parts[index].step
    ends = run.ends[step.inputs[0]]
    if isinstance(step.operator, MaxPool):
        chosen, _ = step.operator.enclose((ends,), (ends[0],), lines_of, False)
        assert isinstance(chosen, Chosen)
        return chosen
    assert isinstance(step.operator, Elementwise)
    return list(bends.sides(bends.as_bent(step.operator), ends, lines_of))


def lower_bounds(run: Run, start: int, coefficients: Tensor, lines: Lines | None) -> Tensor:
    """Lower bounds of coefficients times the computed value of step `start`, [batch, rows].

    coefficients: exact, [batch or 1, rows, *shape]. lines: of the nonlinear steps before; None ends at their intervals.
    """
    pending = {start: coefficients}
    total: Tensor = coefficients.new_zeros(())
    charge: Tensor = coefficients.new_full((), TINY)

    def meet(index: int, a: Tensor) -> None:
        """Ends at the interval of a step."""
        nonlocal total, charge
        center, radius = run.centered(index)
        total = total + _dot(a, center) - _dot(a.abs(), radius)
        charge = charge + _dot(a.abs(), run.noise[index])

    for index in range(start, -1, -1):
        a = pending.pop(index, None)
        if a is None:
            continue
        part = run.plan.parts[index]
        operator = part.step.operator
        if isinstance(operator, Nonlinear) and lines is None:
            meet(index, a)
            continue
        charge = charge + _dot(a.abs(), run.noise[index])
        if isinstance(operator, Affine):
            assert part.constant is not None
            total = total + _dot(a, part.constant)
            parts = tuple(each.unflatten(0, a.shape[:2]) for each in operator.transpose(a.flatten(0, 1)))
        else:
            assert lines is not None
            found, constant = _through(run, index, a, lines[index])
            total = total + constant
            parts = (found,)
        for source, each in zip(part.step.inputs, parts, strict=True):
            pending[source] = pending[source] + each if source in pending else each
    if -1 in pending:
        meet(-1, pending[-1])
    found = total - charge * SAFETY
    return found - (found - below(found)).detach()  # just `below`, which has no gradient


def _dot(a: Tensor, values: Tensor) -> Tensor:
    """Σ a·values over the features, [batch, rows]; values: [batch or 1, *shape]."""
    flat: Tensor = (a.flatten(2) @ values.flatten(1).unsqueeze(2)).squeeze(2)
    return flat


def _through(run: Run, index: int, a: Tensor, lines: list[Sides] | Chosen) -> tuple[Tensor, Tensor]:
    """Coefficients of a nonlinear step as those of its input, and the constant, [batch, rows], that they leave."""
    step = run.plan.parts[index].step
    if isinstance(lines, Chosen):
        return _through_maximum(run, index, a, lines)
    assert isinstance(step.operator, Elementwise)
    bent = bends.as_bent(step.operator)
    like = lines[0].weight if lines else run.ends[index][0]
    found = a * torch.as_tensor(bent.slope, dtype=a.dtype).expand_as(like).unsqueeze(1)
    constant = _dot(a, torch.as_tensor(bent.offset, dtype=a.dtype).expand_as(like))
    for side in lines:
        weighted = a * side.weight.unsqueeze(1)
        plus, minus = weighted.clamp(min=0), weighted.clamp(max=0)
        sloped = plus * side.low.unsqueeze(1) + minus * side.high.unsqueeze(1)
        found = found + sloped
        constant = constant + _dot(minus, side.gap) - _dot(sloped, side.at)
    return found, constant


def _through_maximum(run: Run, index: int, a: Tensor, chosen: Chosen) -> tuple[Tensor, Tensor]:
    """Below a maximum is one place of its window; above is the largest upper bound, or that place where it is the largest."""
    own = chosen.lines.upper[0] == 1
    plus, minus = a.clamp(min=0), a.clamp(max=0)
    kept = plus + torch.where(own.unsqueeze(1), minus, 0.0)
    places = chosen.index.flatten(2).unsqueeze(1).expand(-1, kept.shape[1], -1, -1)
    image = kept.new_zeros(*kept.shape[:3], torch.Size(chosen.places.size).numel())
    found = image.scatter_add(3, places, kept.flatten(3)).unflatten(3, chosen.places.size)
    return found, _dot(minus, torch.where(own, 0.0, run.ends[index][1]))
