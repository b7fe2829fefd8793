"""The product of two steps, element by element, between McCormick's planes.

On [lₓ, uₓ] × [l_y, u_y], (x − lₓ)(y − l_y) ≥ 0 and (uₓ − x)(u_y − y) ≥ 0 give two lower planes,
(uₓ − x)(y − l_y) ≥ 0 and (x − lₓ)(u_y − y) ≥ 0 two upper ones. Source: McCormick, "Computability of global solutions to
factorable nonconvex programs" (1976).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from newrelax.network.enclosures import Enclosure, Planes, Sloped
from newrelax.network.interval import Interval
from newrelax.network.operators.base import POINT, Footprint, LinesOf, Nonlinear


@dataclass(frozen=True)
class Product(Nonlinear):
    """x·y of two steps of one shape."""

    def value(self, *x: Tensor) -> Tensor:
        return x[0] * x[1]

    def interval(self, *x: Interval) -> Interval:
        first, second = x
        corners = torch.stack([a * b for a in (first.lower, first.upper) for b in (second.lower, second.upper)])
        return Interval.between(corners.amin(0), corners.amax(0))

    @property
    def footprint(self) -> Footprint | None:
        return POINT

    def enclose(
        self, bounds: tuple[tuple[Tensor, Tensor], ...], reference: tuple[Tensor, ...], lines_of: LinesOf, parallel: bool
    ) -> tuple[Enclosure, Tensor]:
        (low_x, high_x), (low_y, high_y) = bounds
        if parallel:  # the means of both lower and both upper planes have the same slopes
            slopes = 0.5 * (low_y + high_y), 0.5 * (low_x + high_x)
            below, above = -0.5 * (low_x * low_y + high_x * high_y), -0.5 * (low_x * high_y + high_x * low_y)
            planes = Planes(slopes, below, slopes, above)
        else:
            planes = Planes((low_y, low_x), -low_x * low_y, (high_y, low_x), -low_x * high_y)
        return Sloped.around(planes, reference, parallel)
