"""What rigorous bounds of a network need beside its steps, found once: constants, counters, and the depth of their own sums."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from newrelax.network.network import Network, Step
from newrelax.network.operators.base import Affine
from newrelax.network.operators.diagonal import ScaleShift
from newrelax.rigorous.rounding import DOUBLE, Arithmetic, check_covered, pattern

SAFETY = 1 + 2**-20
"""What sums of numbers that are not negative are multiplied by: far more than their own rounding can take away."""
LEAST = 2.0**-60
"""Added to sizes of inputs, so that sums outweigh what underflow, gradual or to zero, takes from each of their terms."""


@dataclass(frozen=True)
class Part:
    """A step; constant: b of an affine one, [1, *shape], and its terms in absolute value; counter: see `pattern`."""

    step: Step
    constant: Tensor | None
    terms: Tensor | None
    counter: Affine | None


class Plan:
    """Of a network in float64 that runs in some arithmetic; raises `UserError` for a step without rigorous bounds.

    depth: no term of any sum of ours meets more roundings than that. slack: γ(depth) in float64, the relative error of that.
    """

    def __init__(self, network: Network, arithmetic: Arithmetic) -> None:
        for step in network.steps:
            check_covered(step)
        self.network, self.arithmetic = network, arithmetic
        shapes = (network.input_shape, *(step.shape for step in network.steps))
        self.depth = max(map(math.prod, shapes)) + 2 * len(shapes) + 64
        self.slack = float(DOUBLE.gamma(torch.tensor(self.depth, dtype=torch.float64)))
        self.parts = tuple(self._part(step) for step in network.steps)

    def _part(self, step: Step) -> Part:
        operator = step.operator
        if not isinstance(operator, Affine):
            return Part(step, None, None, None)
        shapes = [self.network.input_shape if i < 0 else self.network.steps[i].shape for i in step.inputs]
        constant = operator.value(*(torch.zeros(1, *shape, dtype=torch.float64) for shape in shapes))
        terms = constant.abs()
        if isinstance(operator, ScaleShift):  # its constant is a difference
            terms = terms if operator.removed is None else terms + 2 * operator.removed.abs()
        return Part(step, constant, terms, pattern(operator))

    def rounding(self, counts: Tensor, size: Tensor, largest: Tensor) -> Tensor:
        """What the run's arithmetic does to sums: counts: roundings on each term; size: of all terms together, [batch, *shape];
        largest: of the inputs, [batch]. Infinite where the sum could overflow."""
        under = 4 * self.depth * self.arithmetic.smallest * (1 + largest.view(-1, *[1] * (size.ndim - 1)))
        noise = self.arithmetic.gamma(counts) * size * SAFETY + under
        return torch.where(size * SAFETY + noise < self.arithmetic.largest, noise, math.inf)
