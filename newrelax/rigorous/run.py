"""Bounds of every value that a run of the network can meet, over a batch of boxes: intervals, with each step's noise."""

from __future__ import annotations

import copy

import torch
from torch import Tensor

from newrelax.network.operators.arithmetic import LargerOfTwo
from newrelax.network.operators.base import Affine, Elementwise
from newrelax.network.operators.elementwise import Bent
from newrelax.network.operators.pooling import MaxPool
from newrelax.rigorous import bends
from newrelax.rigorous.bends import Ends, above, below
from newrelax.rigorous.plan import LEAST, SAFETY, Part, Plan
from newrelax.rigorous.rounding import BENDS, DOUBLE, is_exact, roundings


class Run:
    """Of the boxes [lower, upper], each [batch, *input_shape], float64.

    ends: bounds of each step's computed value (−1: the input's), [batch, *shape]. noise: how far the computed value can lie
    from the step's function of the values before it, and what float64 may do to coefficients of it, in its units; like ends.
    """

    def __init__(self, plan: Plan, lower: Tensor, upper: Tensor) -> None:
        self.plan = plan
        self.ends: dict[int, Ends] = {-1: (lower, upper)}
        self.noise: dict[int, Tensor] = {-1: self._in_double(self.largest(-1))}

    def repeated(self, count: int) -> Run:
        """The same for each example `count` times over, [batch·count, …]."""
        again = copy.copy(self)
        again.ends = {
            i: (low.repeat_interleave(count, 0), high.repeat_interleave(count, 0)) for i, (low, high) in self.ends.items()
        }
        again.noise = {i: noise.repeat_interleave(count, 0) for i, noise in self.noise.items()}
        return again

    def largest(self, index: int) -> Tensor:
        """The largest absolute value of each feature of a step."""
        lower, upper = self.ends[index]
        return torch.maximum(lower.abs(), upper.abs())

    def centered(self, index: int) -> tuple[Tensor, Tensor]:
        """A centre and a radius whose interval holds the step's values."""
        lower, upper = self.ends[index]
        center = 0.5 * (lower + upper)
        return center, torch.maximum(upper - center, center - lower) * (1 + 4 * DOUBLE.unit)

    def advance(self, index: int) -> None:
        """Bounds of a step from those of its inputs."""
        part = self.plan.parts[index]
        operator = part.step.operator
        if isinstance(operator, Affine):
            step = self._moved if is_exact(operator) else self._summed
            self.ends[index], self.noise[index] = step(part, operator)
        elif isinstance(operator, MaxPool):
            (lower, upper), largest = self.ends[part.step.inputs[0]], self.largest(part.step.inputs[0])
            self.ends[index] = operator.value(lower), operator.value(upper)
            self.noise[index] = self._in_double(operator.value(largest))
        else:
            assert isinstance(operator, Elementwise)
            self.ends[index], self.noise[index] = self._bent(part, operator)

    def _in_double(self, size: Tensor) -> Tensor:
        """What float64 does to terms of that size together."""
        return self.plan.slack * SAFETY * size

    def _moved(self, part: Part, operator: Affine) -> tuple[Ends, Tensor]:
        """A step that rounds nothing: ends are ends."""
        assert part.terms is not None
        noise = self._in_double(operator.magnitude(*(self.largest(i) for i in part.step.inputs)) + part.terms)
        if isinstance(operator, LargerOfTwo):  # the larger of its first two inputs, each of them
            first, second = (self.ends[i] for i in part.step.inputs[:2])
            return (torch.maximum(first[0], second[0]), torch.maximum(first[1], second[1])), noise
        lower, upper = zip(*(self.ends[i] for i in part.step.inputs), strict=True)
        one, other = operator.value(*lower), operator.value(*upper)
        return (torch.minimum(one, other), torch.maximum(one, other)), noise

    def _summed(self, part: Part, operator: Affine) -> tuple[Ends, Tensor]:
        """A step that sums products."""
        assert part.terms is not None
        sources = part.step.inputs
        largest = [self.largest(i) for i in sources]
        size = operator.magnitude(*(each + LEAST for each in largest)) + part.terms
        counts = roundings(operator, part.counter, [(each > 0).to(each.dtype) for each in largest])
        peak = torch.stack([each.flatten(1).amax(1) for each in largest]).amax(0)
        noise = self.plan.rounding(counts, size, peak) + self._in_double(size)
        center, radius = zip(*(self.centered(i) for i in sources), strict=True)
        spread = operator.magnitude(*radius) * (1 + 4 * self.plan.slack) + noise
        middle = operator.value(*center)
        return (below(middle - spread), above(middle + spread)), noise

    def _bent(self, part: Part, operator: Elementwise) -> tuple[Ends, Tensor]:
        """ReLU, which rounds nothing, or what is made of it."""
        (source,) = part.step.inputs
        bent, largest = bends.as_bent(operator), self.largest(source)
        size = bends.size(bent, largest)
        noise = self._in_double(size)
        lower, upper = bends.image(bent, self.ends[source])
        if isinstance(operator, Bent):
            noise = noise + self.plan.rounding(size.new_full((), BENDS), size, largest.flatten(1).amax(1))
            lower, upper = below(lower - noise), above(upper + noise)
        return (lower, upper), noise
