"""Slopes below ReLUs, chosen by gradient ascent on the rigorous bound itself: whichever they are, it holds."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from newrelax.network.operators.base import LinesOf
from newrelax.network.operators.pooling import Chosen
from newrelax.propagations.ascent import Ascent, Choices
from newrelax.rigorous.bends import Sides
from newrelax.rigorous.run import Run
from newrelax.rigorous.substitution import lines_at, lower_bounds


def ascended(run: Run, start: int, coefficients: Tensor, lines_of: LinesOf, steps: int) -> Tensor:
    """The best of `lower_bounds` that so many steps meet, [batch, rows]; slopes are of each row alone (α-CROWN).

    coefficients: [batch, rows, *shape of the step]. lines_of: gives the first slopes.
    """
    each, single = run.repeated(coefficients.shape[1]), coefficients.flatten(0, 1).unsqueeze(1)
    given = {index: lines_at(each, index, lines_of) for index in run.plan.network.structure.nonlinear if index in run.noise}
    sides = [side for lines in given.values() if isinstance(lines, list) for side in lines]
    if not sides:
        return lower_bounds(run, start, coefficients, given)

    def worth(slopes: Choices) -> Tensor:
        left = iter(slopes.values())
        lines = {
            index: known if isinstance(known, Chosen) else [_with(side, next(left)) for side in known]
            for index, known in given.items()
        }
        return lower_bounds(each, start, single, lines).squeeze(1)

    first = {number: side.low for number, side in enumerate(sides)}
    return Ascent(steps, dict.fromkeys(first, 1.0)).best(first, worth)[1].view(coefficients.shape[:2])


def _with(side: Sides, slope: Tensor) -> Sides:
    """The lines with another slope below, where they leave a gap: elsewhere they are the function."""
    return replace(side, low=torch.where(side.gap > 0, slope, side.low))
