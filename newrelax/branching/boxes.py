"""Branch and bound on the input: a box is halved where its bound gains most, until every part is bounded well enough.

For few inputs; many boxes are bounded in one batch, by any propagation. A box in which hardly any neuron crosses is solved,
since halving it comes no nearer to a bend that lies across it.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from torch import Tensor

from newrelax.branching.leaf import encoded, solve
from newrelax.branching.unsafe import Unsafe
from newrelax.exact.minimum import Minimum
from newrelax.exact.program import CLEARANCE
from newrelax.propagations.base import Problem, Propagation

FEW = 10
"""Inputs up to which halving the box is better than telling neurons' cases apart."""


class Part(NamedTuple):
    """Boxes, [batch, *input_shape] each, bounds of the worth there, and the row that decided them, [batch]."""

    lower: Tensor
    upper: Tensor
    bound: Tensor
    row: Tensor

    @property
    def divisible(self) -> Tensor:
        """Which inputs have a number between their ends, [batch, inputs]."""
        middle = (self.lower + self.upper) / 2
        return ((middle > self.lower) & (middle < self.upper)).flatten(1)

    def only(self, chosen: Tensor) -> Part:
        return Part(*(each[chosen] for each in self))

    def and_also(self, other: Part) -> Part:
        return Part(*(torch.cat(pair) for pair in zip(self, other, strict=True)))


@dataclass(frozen=True)
class Boxes:
    """The search. batch: boxes halved at once; solved: crossing neurons up to which a box is solved; gap: how far the bound may
    stay below the least worth that was found; clearance: what is taken off the solver's bounds for its tolerances."""

    propagation: Propagation
    batch: int = 512
    solved: int = 3
    gap: float = 1e-7
    clearance: float = CLEARANCE

    def minimum(
        self, problem: Problem, unsafe: Unsafe, *, seconds: float = math.inf, above: float = math.inf, below: float = -math.inf
    ) -> Minimum:
        """The least worth of outputs over the problem's box, [1, *input_shape].

        above: a bound from there on is good enough. below: so is a point with a worth down to there. seconds: the search then
        ends with what it knows.
        """
        search = _Search(self, problem, unsafe, above, below, time.monotonic() + seconds)
        return search.run()


@dataclass
class _Search:
    settings: Boxes
    problem: Problem
    unsafe: Unsafe
    above: float
    below: float
    deadline: float
    closed: float = math.inf
    value: float = math.inf
    point: Tensor | None = None

    @property
    def enough(self) -> float:
        return min(self.above, self.value - self.settings.gap)

    def run(self) -> Minimum:
        lower, upper = self.problem.lower, self.problem.upper
        with torch.no_grad():
            found, _, row = self._bounded(lower, upper)
        parts = Part(lower, upper, found, row)
        while True:
            parts = self._without_closed(parts)
            if not len(parts.bound) or self.value <= self.below or time.monotonic() > self.deadline:
                break
            taken = parts.bound.topk(min(self.settings.batch, len(parts.bound)), largest=False).indices
            rest = torch.ones_like(parts.bound, dtype=torch.bool)
            rest[taken] = False
            parts = parts.only(rest).and_also(self._halves(parts.only(taken)))
        bound = min(self.closed, float(parts.bound.min()) if len(parts.bound) else math.inf)
        return Minimum(bound, self.value, self.point, bound >= self.value - 2 * self.settings.gap)

    def _without_closed(self, parts: Part) -> Part:
        """The boxes that are open; the others' bounds are kept. A box that has no number between its ends has no halves."""
        still = (parts.bound < self.enough) & parts.divisible.any(1)
        self.closed = min(self.closed, float(torch.where(still, math.inf, parts.bound).amin()))
        return parts.only(still)

    def _halves(self, parts: Part) -> Part:
        """Both halves of each box, bounded, or solved where that is cheap."""
        lower, upper = _halved(parts, self._across(parts))
        with torch.no_grad():
            bound, crossing, row = self._bounded(lower, upper)
        bound = torch.maximum(bound, parts.bound.repeat(2))  # a half's bound is no worse than the whole's
        self._try(lower, upper)
        for i in ((bound < self.enough) & (crossing <= self.settings.solved)).nonzero().flatten().tolist():
            if time.monotonic() > self.deadline:
                break
            exact = self._solved(lower[i : i + 1], upper[i : i + 1])
            if exact is not None and exact >= self.enough:
                self.closed = min(self.closed, max(float(bound[i]), exact))
                bound[i] = math.inf
        return Part(lower, upper, bound, row)

    def _bounded(self, lower: Tensor, upper: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Bounds of the worth, how many neurons cross, the row that decides, [boxes] each."""
        unsafe = self.unsafe
        each = replace(self.problem, lower=lower, upper=upper)
        found = self.settings.propagation.bounds(each, unsafe.matrix.expand(len(lower), -1, -1))
        rows = found.lower - unsafe.limit
        rows = torch.where(rows.isnan(), -torch.inf, rows)
        crossing = torch.zeros(len(lower), dtype=torch.long, device=lower.device)
        for low, high in found.layers:
            crossing += ((low < 0) & (high > 0)).flatten(1).sum(1)
        bound, row = unsafe.deciding(rows)
        return bound, crossing, row

    def _across(self, parts: Part) -> Tensor:
        """The input of each box whose width moves the deciding row's bound most, hidden bounds included; of those with a width.

        Coefficients of the last bound alone would not do: an input that makes hidden layers loose need not have one.
        """
        lower, upper = parts.lower.clone().requires_grad_(), parts.upper.clone().requires_grad_()
        with torch.enable_grad():
            each = replace(self.problem, lower=lower, upper=upper)
            bound = self.settings.propagation.bounds(each, self.unsafe.matrix[parts.row].unsqueeze(1)).lower
            low, high = torch.autograd.grad(bound.sum(), [lower, upper])
        width = (parts.upper - parts.lower).flatten(1)
        gains = (low.abs() + high.abs()).flatten(1) * width
        gains = torch.where(gains.isfinite(), gains, width)
        return torch.where(parts.divisible, gains, -1.0).argmax(1)

    def _try(self, lower: Tensor, upper: Tensor) -> None:
        """The least worth at the boxes' centres, and at the corners that the gradient points to from there."""
        center = ((lower + upper) / 2).requires_grad_()
        with torch.enable_grad():
            worth = self._worth(center)
            (gradient,) = torch.autograd.grad(worth.sum(), center)
        self._take(center.detach(), worth.detach())
        corner = torch.where(gradient > 0, lower, upper)
        with torch.no_grad():
            self._take(corner, self._worth(corner))

    def _worth(self, points: Tensor) -> Tensor:
        return self.unsafe.worth(self.problem.network.forward(points).flatten(1))

    def _take(self, points: Tensor, worth: Tensor) -> None:
        best = int(worth.argmin())
        if float(worth[best]) < self.value:
            self.value, self.point = float(worth[best]), points[best].clone()

    def _solved(self, lower: Tensor, upper: Tensor) -> float | None:
        """The least worth of one box; None where the network has steps that no program can tell."""
        encoding = encoded(replace(self.problem, lower=lower, upper=upper))
        if encoding is None:
            return None
        found = solve(encoding, self.unsafe, self.deadline - time.monotonic())
        if found.point is not None:
            with torch.no_grad():
                point = found.point.view_as(lower)
                self._take(point, self._worth(point))
        return found.bound - self.settings.clearance


def _halved(parts: Part, across: Tensor) -> tuple[Tensor, Tensor]:
    """Both halves of each box, cut across the input of that number, first all lower ones."""
    lower, upper = parts.lower, parts.upper
    chosen = torch.zeros_like(lower, dtype=torch.bool).flatten(1).scatter_(1, across.unsqueeze(1), True).view_as(lower)
    middle = (lower + upper) / 2
    return torch.cat([lower, torch.where(chosen, middle, lower)]), torch.cat([torch.where(chosen, middle, upper), upper])
