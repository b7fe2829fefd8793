"""Branch and bound on crossing neurons: a case with a bound that is not good enough is told apart by one neuron's sign."""

from __future__ import annotations

import heapq
import itertools
import math
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor

from newrelax.branching.bounder import Bounder
from newrelax.branching.cases import Cases
from newrelax.branching.leaf import encoded, solve
from newrelax.branching.unsafe import Unsafe
from newrelax.exact.encoding import Encoding
from newrelax.exact.minimum import Minimum
from newrelax.exact.program import CLEARANCE
from newrelax.propagations.base import Ends, Problem

FREE = ("slopes", "multipliers", "scale")
"""What any number will do for, so that half of the digits are kept."""
GLANCE = 3
"""Steps of ascent in which a neuron that is tried shows what it helps."""


@dataclass(frozen=True)
class Neurons:
    """The search. steps: of ascent for each case; batch: cases told apart at once; tried: neurons that are tried for each; gap:
    how far the bound may stay below the least worth that was found; clearance: what is taken off the solver's bounds for its
    tolerances."""

    steps: int = 20
    batch: int = 64
    tried: int = 4
    gap: float = 1e-7
    clearance: float = CLEARANCE

    def minimum(
        self,
        problem: Problem,
        unsafe: Unsafe,
        before: Mapping[int, tuple[Ends, ...]],
        *,
        seconds: float = math.inf,
        above: float = math.inf,
        below: float = -math.inf,
    ) -> Minimum:
        """The least worth of outputs over the problem's box, [1, *input_shape].

        All conjunctions go down one tree: what a neuron's sign tightens, it tightens for all.

        before: ends of each nonlinear step's inputs over the box. above, below, seconds: as for `Boxes`.
        """
        return self.search(problem, unsafe, before, above=above, below=below).run(seconds)

    def search(
        self,
        problem: Problem,
        unsafe: Unsafe,
        before: Mapping[int, tuple[Ends, ...]],
        *,
        above: float = math.inf,
        below: float = -math.inf,
    ) -> Search:
        """The same as something that goes on where it was each time it runs."""
        return Search(self, Bounder(problem, unsafe, before), before, above, below)


class Search:
    """Branch and bound that can be left and gone on with; made by `Neurons.search`."""

    def __init__(
        self,
        settings: Neurons,
        bounder: Bounder,
        before: Mapping[int, tuple[Ends, ...]],
        above: float,
        below: float,
    ) -> None:
        self._settings, self._bounder, self._before = settings, bounder, before
        self._above, self._below, self._deadline = above, below, math.inf
        self._open: list[tuple[float, int, Cases]] = []
        self._number = itertools.count()
        self._closed, self._value = math.inf, math.inf
        self._point: Tensor | None = None
        self._begun = False

    @property
    def _enough(self) -> float:
        return min(self._above, self._value - self._settings.gap)

    def run(self, seconds: float) -> Minimum:
        """Goes on for so long, and tells what is known then."""
        self._deadline = time.monotonic() + seconds
        if not self._begun:
            self._begin()
        while self._open and self._value > self._below and time.monotonic() < self._deadline:
            cases = self._pop()
            if cases is None:
                break
            self._tell_apart(cases)
        bound = min(self._closed, self._open[0][0] if self._open else math.inf)
        return Minimum(bound, self._value, self._point, bound >= self._value - 2 * self._settings.gap)

    def _begin(self) -> None:
        self._begun = True
        bounder = self._bounder
        with torch.no_grad():
            whole = bounder.whole
        self._keep(bounder.settled(whole, 2 * self._settings.steps, self._enough) if bounder.neurons else whole)

    def _keep(self, cases: Cases) -> None:
        """Closes the cases whose bound is good enough, and keeps the others open, in half precision of what is free."""
        for i, bound in enumerate(self._bounder.bound(cases).tolist()):
            if bound >= self._enough:
                self._closed = min(self._closed, bound)
            else:
                one = cases[torch.tensor([i], device=cases.rows.device)]
                one = replace(one, **{name: getattr(one, name).float() for name in FREE})
                heapq.heappush(self._open, (bound, next(self._number), one))

    def _pop(self) -> Cases | None:
        taken: list[Cases] = []
        while self._open and len(taken) < self._settings.batch:
            bound, _, one = heapq.heappop(self._open)
            if bound >= self._enough:
                self._closed = min(self._closed, bound)
            else:
                taken.append(one)
        if not taken:
            return None
        cases = Cases.stacked(taken)
        dtype = self._bounder.problem.lower.dtype
        return replace(cases, **{name: getattr(cases, name).to(dtype) for name in FREE})

    def _tell_apart(self, cases: Cases) -> None:
        bounder = self._bounder
        undecided = cases.crossing.any(1)
        for i in (~undecided).nonzero().flatten().tolist():
            self._solve(cases[torch.tensor([i], device=cases.rows.device)])
        if not bool(undecided.any()):
            return
        cases = cases[undecided]
        look = bounder.look(cases)
        self._try(look.point)
        usual = look.size.mean(1, keepdim=True).clamp(min=1e-6)
        cases = replace(cases, scale=torch.maximum(look.size, usual))
        neuron = self._chosen(cases, look.loss)
        children = bounder.refreshed(cases.split(neuron), neuron.repeat(2))
        self._keep(bounder.settled(children, self._settings.steps, self._enough))

    def _chosen(self, cases: Cases, loss: Tensor) -> Tensor:
        """The neuron to tell each case apart by, [batch]: of those that cost its bound most the one that helps most."""
        tried = min(self._settings.tried, loss.shape[1])
        costs, candidates = loss.topk(tried, dim=1)
        if tried == 1:
            return candidates[:, 0]
        gains, row = [], self._bounder.row(cases).repeat(2)
        for k in range(tried):
            children = self._bounder.bounded(cases.split(candidates[:, k]), GLANCE, self._enough)
            low, high = self._of_row(children, row).clamp(max=self._enough).chunk(2)
            gains.append(torch.minimum(low, high) + 0.1 * torch.maximum(low, high))
        helps = torch.stack(gains, 1)
        helps = torch.where(costs < 0, -math.inf, helps)
        return candidates.gather(1, helps.argmax(1, keepdim=True)).squeeze(1)

    @staticmethod
    def _of_row(cases: Cases, row: Tensor) -> Tensor:
        return cases.rows.gather(1, row.unsqueeze(1)).squeeze(1)

    def _try(self, points: Tensor) -> None:
        """Takes the worth at points of the box into account."""
        with torch.no_grad():
            worth = self._bounder.unsafe.worth(self._bounder.problem.network.forward(points).flatten(1))
        best = int(worth.argmin())
        if float(worth[best]) < self._value:
            self._value, self._point = float(worth[best]), points[best].clone()

    def _solve(self, case: Cases) -> None:
        """A case in which every sign is given is a linear program, or a small mixed-integer one where other steps bend.

        One that the solver had no time for stays open.
        """
        found = float(self._bounder.bound(case))
        if self._encoding is not None:
            left = self._deadline - time.monotonic()
            answer = solve(self._encoding, self._bounder.unsafe, left, self._signs(self._encoding, case))
            found = max(found, answer.bound - self._settings.clearance)
            if answer.point is not None:
                self._try(answer.point.view(1, *self._bounder.problem.network.input_shape))
            if not answer.proven and found < self._enough:
                heapq.heappush(self._open, (found, next(self._number), case))
                self._deadline = -math.inf
                return
        self._closed = min(self._closed, found)

    def _signs(self, encoding: Encoding, case: Cases) -> Tensor:
        """Signs of the encoding's crossing units; those of other steps than ReLUs are open."""
        parts = {layer.index: case.signs[0, layer.part] for layer in self._bounder.layers}
        found = [parts.get(units.step, units.lower.new_zeros(len(units))).cpu() for units in encoding.units]
        return torch.cat(found) if found else torch.zeros(0)

    @cached_property
    def _encoding(self) -> Encoding | None:
        return encoded(self._bounder.problem, self._before)
