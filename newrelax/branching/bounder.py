"""Bounds of cases, in which some crossing neurons have a sign.

A neuron whose sign is given is the identity or zero. That its pre-activation z has this sign s is a condition of the case: with
a multiplier β ≥ 0, f − β·s·z is below f wherever the condition holds, so a lower bound of it holds in the case (Wang et al.,
"Beta-CROWN", NeurIPS 2021). Slopes and multipliers are free, so they are moved until the bound is good.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor

from newrelax.branching.cases import Cases, Layer
from newrelax.branching.root import copies, movable, repeated
from newrelax.branching.unsafe import Unsafe
from newrelax.network.enclosures import Planes
from newrelax.network.operators.elementwise import Relu
from newrelax.propagations.ascent import Ascent
from newrelax.propagations.base import Ends, Problem
from newrelax.propagations.linear_pass import LinearPass, Mode
from newrelax.propagations.substitution import Visit

SLOPES, MULTIPLIERS = 0, 1
EMPTY = 1e-5
"""By how much a lower end must lie above the upper one before a case counts as empty: far more than both have rounded by."""


@dataclass(frozen=True)
class Look:
    """What a bound shows besides its value: the input where the relaxed network attains it, [batch, *input_shape], and how far
    each open neuron's relaxation is off there, weighted by what that costs the bound, [batch, neurons]. size: of the
    coefficients that arrive at each neuron."""

    point: Tensor
    loss: Tensor
    size: Tensor


class Bounder:
    """Bounds the worth of cases. before: ends of each nonlinear step's inputs over the problem's box, by the step's index."""

    def __init__(self, problem: Problem, unsafe: Unsafe, before: Mapping[int, tuple[Ends, ...]]) -> None:
        self.problem, self.unsafe, self._before = problem, unsafe, before
        self.layers: list[Layer] = []
        count = 0
        for index, (ends, *_) in sorted(before.items()):
            step = problem.network.steps[index]
            crossing = ((ends[0] < 0) & (ends[1] > 0)).flatten().nonzero().flatten()
            if isinstance(step.operator, Relu) and len(crossing):
                self.layers.append(Layer(index, step.inputs[0], count, crossing, *ends))
                count += len(crossing)
        self.neurons = count

    @cached_property
    def movable(self) -> bool:
        """Whether slopes may be chosen freely, see `movable`."""
        return movable(self.problem, self._before)

    def _planes(self, layer: Layer, lower: Tensor, upper: Tensor) -> Planes:
        operator = self.problem.network.steps[layer.index].operator
        assert isinstance(operator, Relu)
        return operator.planes(lower, upper, self.problem.relaxations)

    @cached_property
    def whole(self) -> Cases:
        """The one case in which every neuron may be either; bounded by the relaxation's own slopes."""
        lower = self.problem.lower
        slopes, ends = lower.new_zeros(1, self.neurons), lower.new_zeros(2, self.neurons)
        for layer in self.layers:
            ends[0, layer.part], ends[1, layer.part] = layer.gathered(layer.lower)[0], layer.gathered(layer.upper)[0]
            slopes[:, layer.part] = layer.gathered(self._planes(layer, layer.lower, layer.upper).lower_slopes[0])
        signs = torch.zeros(1, self.neurons, dtype=torch.int8, device=lower.device)
        zeros = torch.zeros_like(slopes)
        start = Cases(signs, ends[:1], ends[1:], slopes, zeros, zeros + 1, lower.new_zeros(1, len(self.unsafe.limit)))
        rows = self._pass(start, slopes).lower_bounds(self.unsafe.matrix.unsqueeze(0)) - self.unsafe.limit
        return replace(start, rows=_known(rows))

    def bound(self, cases: Cases) -> Tensor:
        """Lower bounds of the worth in each case, [batch]."""
        return self.unsafe.deciding(cases.rows)[0]

    def row(self, cases: Cases) -> Tensor:
        """The row that decides each case's bound, [batch]."""
        return self.unsafe.deciding(cases.rows)[1]

    def settled(self, cases: Cases, steps: int, enough: float) -> Cases:
        """The same with every row bounded by ascent that decides a bound which is not good enough."""
        todo = torch.arange(len(cases), device=cases.rows.device)
        for _ in range(len(self.unsafe.limit)):
            if not len(todo):
                break
            part = cases[todo]
            row = self.row(part)
            part = self.bounded(part, steps, enough)
            cases = cases.with_at(todo, part)
            todo = todo[(self.row(part) != row) & (self.bound(part) < enough)]
        return cases

    def bounded(self, cases: Cases, steps: int, enough: float) -> Cases:
        """The same with slopes and multipliers after so many steps of ascent on the deciding row, whose bound is no worse than
        before."""
        row = self.row(cases)
        if not steps:
            with torch.no_grad():
                highest, slopes, multipliers = self._worth(cases, row), cases.slopes, cases.multipliers
        else:
            ascent = Ascent(steps, {SLOPES: 1.0, MULTIPLIERS: math.inf}, rate=0.1, decay=0.97, enough=enough)
            start = {MULTIPLIERS: cases.multipliers / cases.scale} | ({SLOPES: cases.slopes} if self.movable else {})
            best, highest = ascent.best(
                start, lambda chosen: self._worth(cases, row, chosen.get(SLOPES), cases.scale * chosen[MULTIPLIERS])
            )
            slopes, multipliers = best.get(SLOPES, cases.slopes), cases.scale * best[MULTIPLIERS]
        at = row.unsqueeze(1)
        rows = cases.rows.scatter(1, at, torch.fmax(cases.rows.gather(1, at), highest.unsqueeze(1)))
        return replace(cases, slopes=slopes, multipliers=multipliers, rows=rows)

    def refreshed(self, cases: Cases, neuron: Tensor) -> Cases:
        """Ends of the neurons after the layer of each case's `neuron` [batch], whose sign was just given, found anew."""
        early = neuron < self.layers[-1].first
        if not bool(early.any()):
            return cases
        part = cases[early]
        for layer in self.layers[1:]:
            part = self._ends_again(part, layer)
        return cases.with_at(early.nonzero().flatten(), part)

    def _ends_again(self, cases: Cases, layer: Layer) -> Cases:
        """Ends of one layer's crossing neurons by back-substitution from there, never wider than before."""
        open_ones = cases.crossing[:, layer.part].any(0).nonzero().flatten()
        if not len(open_ones):
            return cases
        rows = torch.zeros(len(open_ones), layer.lower.numel()).to(cases.lower)
        rows[torch.arange(len(open_ones)), layer.at[open_ones]] = 1.0
        rows = rows.view(1, len(open_ones), *layer.lower.shape[1:])
        with torch.no_grad():
            found = self._pass(cases, cases.slopes).lower_bounds_at(layer.source, torch.cat([rows, -rows], 1))
        low, high = found.chunk(2, 1)
        lower, upper, numbers = cases.lower.clone(), cases.upper.clone(), layer.first + open_ones
        lower[:, numbers] = torch.fmax(lower[:, numbers], low)
        upper[:, numbers] = torch.fmin(upper[:, numbers], -high)
        empty = (lower > upper + EMPTY).any(1)  # no input has these signs
        rows = torch.where(empty.unsqueeze(1), math.inf, cases.rows)
        return replace(cases, lower=lower, upper=torch.maximum(upper, lower), rows=rows)

    def look(self, cases: Cases) -> Look:
        """Where the bounds of cases are attained, and what each open neuron costs them."""
        problem = self.problem
        lower, upper = (repeated(end, len(cases)).clone().requires_grad_() for end in (problem.lower, problem.upper))
        probe = torch.zeros_like(cases.slopes, requires_grad=True)
        arriving = torch.zeros_like(cases.slopes)
        by_index = {layer.index: layer for layer in self.layers}

        def visit(index: int, a: Tensor) -> None:
            if index in by_index:
                layer = by_index[index]
                arriving[:, layer.part] = layer.gathered(a.detach()[:, 0])

        with torch.enable_grad():
            bound = self._worth(cases, self.row(cases), probe=probe, visit=visit, box=(lower, upper))
            low, z = torch.autograd.grad(bound.sum(), [lower, probe])
        value = torch.zeros_like(z)
        for layer in self.layers:
            part = layer.part
            planes = self._planes(layer, *self._ends(cases, layer))
            lines = [(planes.upper_slopes[0], planes.upper_offset), (planes.lower_slopes[0], planes.lower_offset)]
            above, below = (layer.gathered(slope) * z[:, part] + layer.gathered(offset) for slope, offset in lines)
            below = cases.slopes[:, part] * z[:, part] if self.movable else below
            value[:, part] = torch.where(arriving[:, part] > 0, below, above)
        loss = torch.where(cases.crossing, arriving.abs() * (value - z.clamp(min=0)).abs(), -1.0)
        point = torch.where(low > 0, problem.lower, problem.upper)
        return Look(point, loss, arriving.abs())

    def _pass(self, cases: Cases, slopes: Tensor, box: Ends | None = None) -> LinearPass:
        each, known = copies(self.problem, self._before, len(cases))
        for layer in self.layers:
            known[layer.index] = (self._ends(cases, layer),)
        if box is not None:
            each = replace(each, lower=box[0], upper=box[1])
        moved = {layer.index: layer.spread(slopes) for layer in self.layers} if self.movable else {}
        return LinearPass(each, Mode(known=known), moved)

    @staticmethod
    def _ends(cases: Cases, layer: Layer) -> Ends:
        """Of all the layer's pre-activations in each case, [batch, *shape]."""
        return layer.laid(cases.lower, layer.lower), layer.laid(cases.upper, layer.upper)

    def _worth(
        self,
        cases: Cases,
        row: Tensor,
        slopes: Tensor | None = None,
        multipliers: Tensor | None = None,
        probe: Tensor | None = None,
        visit: Visit | None = None,
        box: Ends | None = None,
    ) -> Tensor:
        """Lower bounds of a row of each case, [batch]; probe: added to the coefficients of the pre-activations."""
        slopes = cases.slopes if slopes is None else slopes
        multipliers = cases.multipliers if multipliers is None else multipliers
        signed = -multipliers * cases.signs
        if probe is not None:
            signed = signed + probe
        extra: dict[int, Tensor] = {}
        for layer in self.layers:
            part = layer.spread(signed).unsqueeze(1)
            extra[layer.source] = extra[layer.source] + part if layer.source in extra else part
        matrix = self.unsafe.matrix[row].unsqueeze(1)
        return self._pass(cases, slopes, box).lower_bounds(matrix, extra, visit).squeeze(1) - self.unsafe.limit[row]


def _known(bounds: Tensor) -> Tensor:
    """What is no number bounds nothing."""
    return torch.where(bounds.isnan(), -math.inf, bounds)
