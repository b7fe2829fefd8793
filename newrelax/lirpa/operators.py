"""Bound operators of ours for auto_LiRPA: any step of a network, by what the step itself gives.

auto_LiRPA's extension point is `BoundedModule(…, custom_ops={name: class})`. Its coefficients are [rows, batch, *features].
An elementwise step has nothing to supply but two lines, which its `BoundActivation` takes through backward, forward and
patches mode; an affine step has its transpose and its magnitude; any other step its planes around a point.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from newrelax.lirpa import bridge
from newrelax.lirpa.live import Live
from newrelax.network.enclosures import Enclosure
from newrelax.network.interval import Interval
from newrelax.network.operators.base import Affine, Elementwise, Nonlinear, Operator
from newrelax.network.operators.diagonal import Diagonal
from newrelax.relaxations.base import Lines


class _Step:
    """A node that stands for step `index` of the live network."""

    live: Live
    index: int

    def stands_for(self, live: Live, index: int) -> None:
        self.live, self.index = live, index
        inputs = len(live.network.steps[index].inputs)
        self.requires_input_bounds = list(range(inputs)) if isinstance(self.operator, Nonlinear) else []

    @property
    def operator(self) -> Any:
        return self.live.network.steps[self.index].operator

    def forward(self, *x: Tensor) -> Tensor:
        found: Tensor = self.operator.value(*x)
        return found

    def interval_propagate(self, *v: Any) -> tuple[Tensor, Tensor]:
        found = self.operator.interval(*(Interval.between(ends[0], ends[1]) for ends in v))
        return found.lower, found.upper

    def zeros(self) -> tuple[Tensor, ...]:
        """One example of zeros for every input."""
        steps, network = self.live.network.steps, self.live.network
        shapes = (steps[i].shape if i >= 0 else network.input_shape for i in steps[self.index].inputs)
        return tuple(self.live.like.new_zeros(1, *shape) for shape in shapes)


class LinesStep(_Step, bridge.BoundActivation):  # type: ignore[misc]
    """A function of each feature alone: two lines, or for an affine one the same line twice."""

    def init_linear_relaxation(self, x: Any, dim_opt: Any = None) -> None:
        """Nothing to prepare (0.3 would ask for the operand's bounds here, which an affine step need not have)."""

    def bound_relax(self, x: Any, init: bool = False, **_: Any) -> None:
        self.lw, self.lb, self.uw, self.ub = self._lines(x)

    def _lines(self, x: Any) -> Lines:
        operator = self.operator
        if isinstance(operator, Elementwise):
            (below,), low, (above,), high = operator.planes(x.lower, x.upper, self.live.relaxations)
            return Lines(below, low, above, high)
        (zeros,) = self.zeros()
        slope, offset = operator.linear(torch.ones_like(zeros)), operator.value(zeros)
        return Lines(slope, offset, slope, offset)

    def interval_propagate(self, *v: Any) -> tuple[Tensor, Tensor]:
        lower, upper = v[0][0], v[0][1]
        widen = self.live.relaxations.widen if self.live.widened and isinstance(self.operator, Elementwise) else None
        ends = (lower, upper) if widen is None else widen(lower, upper)
        return super().interval_propagate(ends)


class AffineStep(_Step, bridge.Bound):  # type: ignore[misc]
    """Σ Wᵢxᵢ + b, by its transpose."""

    def bound_backward(self, last_lA: Any, last_uA: Any, *x: Any, **_: Any) -> Any:
        operator: Affine = self.operator

        def back(a: Tensor | None) -> tuple[tuple[Tensor | None, ...], Tensor | float]:
            if a is None:
                return (None,) * len(x), 0.0
            parts = operator.transpose(a.flatten(0, 1))
            offset = operator.value(*self.zeros()).flatten()
            return tuple(part.unflatten(0, a.shape[:2]) for part in parts), a.flatten(2) @ offset

        lower, lower_bias = back(last_lA)
        upper, upper_bias = back(last_uA)
        return list(zip(lower, upper, strict=True)), lower_bias, upper_bias

    def bound_forward(self, dim_in: int, *x: Any) -> Any:
        operator: Affine = self.operator
        offset = operator.value(*self.zeros())

        def both(low: tuple[Tensor, ...], high: tuple[Tensor, ...]) -> tuple[Tensor, Tensor]:
            """W⁺·low + W⁻·high and W⁺·high + W⁻·low, where W = W⁺ + W⁻ and |W| = W⁺ − W⁻."""
            middle = operator.linear(*((a + b) / 2 for a, b in zip(low, high, strict=True)))
            spread = operator.magnitude(*((b - a) / 2 for a, b in zip(low, high, strict=True)))
            return middle - spread, middle + spread

        weights = both(tuple(part.lw.flatten(0, 1) for part in x), tuple(part.uw.flatten(0, 1) for part in x))
        lw, uw = (weight.unflatten(0, x[0].lw.shape[:2]) for weight in weights)
        lb, ub = both(tuple(part.lb for part in x), tuple(part.ub for part in x))
        return bridge.LinearBound(lw, lb + offset, uw, ub + offset)


class PlanesStep(_Step, bridge.Bound):  # type: ignore[misc]
    """Any other step between two planes, around the middle of its inputs' bounds."""

    def _enclosed(self, x: tuple[Any, ...]) -> tuple[Enclosure, Tensor, tuple[Tensor, ...]]:
        """The planes, and the step's and the inputs' values that they are around."""
        bounds = tuple((part.lower, part.upper) for part in x)
        middle = tuple(0.5 * (low + high) for low, high in bounds)
        operator: Nonlinear = self.operator
        relaxations = self.live.relaxations
        enclosure, value = operator.enclose(bounds, middle, relaxations, relaxations.parallel)
        return enclosure, value, middle

    def bound_backward(self, last_lA: Any, last_uA: Any, *x: Any, **_: Any) -> Any:
        enclosure, value, middle = self._enclosed(x)

        def below(a: Tensor) -> tuple[list[Tensor], Tensor]:
            """a·f(x) ≥ Σ (these coefficients)·x + this bias; the coefficients [rows, batch, …]."""
            parts, loss = enclosure.back(a.transpose(0, 1), count_gaps=True)
            bias = _sum_of_products(a, value)
            if loss is not None:
                bias = bias - loss.t()
            found = [part.transpose(0, 1) for part in parts]
            for part, at in zip(found, middle, strict=True):
                bias = bias - _sum_of_products(part, at)
            return found, bias

        lower, lower_bias = ([None] * len(x), 0.0) if last_lA is None else below(last_lA)
        if last_uA is None:
            return [(part, None) for part in lower], lower_bias, 0.0
        upper, upper_bias = below(-last_uA)
        return list(zip(lower, (-part for part in upper), strict=True)), lower_bias, -upper_bias

    def bound_forward(self, dim_in: int, *x: Any) -> Any:
        if not self.live.relaxations.parallel:
            raise NotImplementedError("forward bounds of steps with several inputs need parallel lines")
        enclosure, value, middle = self._enclosed(x)

        def both(low: tuple[Tensor, ...], high: tuple[Tensor, ...]) -> tuple[Tensor, Tensor]:
            centre = enclosure.carry(*((a + b) / 2 for a, b in zip(low, high, strict=True)))
            spread = enclosure.carry_size(*((b - a) / 2 for a, b in zip(low, high, strict=True)))
            return centre - spread, centre + spread

        lw, uw = both(tuple(part.lw.transpose(0, 1) for part in x), tuple(part.uw.transpose(0, 1) for part in x))
        lb, ub = both(tuple(part.lb for part in x), tuple(part.ub for part in x))
        offset = value - enclosure.carry(*middle)
        return bridge.LinearBound(
            lw.transpose(0, 1), lb + offset - enclosure.gap, uw.transpose(0, 1), ub + offset + enclosure.gap
        )


def _sum_of_products(a: Tensor, values: Tensor) -> Tensor:
    """Σ a·values over the features; a: [rows, batch, *features], values: [batch, *features]; [rows, batch]."""
    return (a.flatten(2) * values.flatten(1)).sum(2)


def own_class(operator: Operator, *, lines: bool = True) -> type:
    """The class of bound operators that bounds such a step; lines: by auto_LiRPA's way with lines where that does."""
    if lines and isinstance(operator, (Elementwise, Diagonal)):
        return LinesStep
    return AffineStep if isinstance(operator, Affine) else PlanesStep
