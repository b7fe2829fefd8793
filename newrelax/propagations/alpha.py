"""α-CROWN: lower slopes chosen by gradient ascent on the bound itself (Xu et al., "Fast and Complete", ICLR 2021).

Any slope in [0, 1] through the origin is below ReLU, so every choice is sound; CROWN's is only a guess. Each row of the
specification is bounded apart from the others, so each has slopes of its own, one for every crossing neuron of every example.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from newrelax.network.operators.elementwise import Relu
from newrelax.propagations.ascent import Ascent, Choices
from newrelax.propagations.base import Bounds, Ends, Problem, Propagation
from newrelax.propagations.linear_pass import LinearPass, Mode


@dataclass(frozen=True)
class AlphaPropagation(Propagation):
    """CROWN's bounds of every layer, then `steps` steps of gradient ascent on the slopes below the margins.

    depth: 2 moves the slopes below the hidden layers' bounds as well, so that these get tighter too (dearer). Never looser than
    CROWN: the best bound of each row counts, CROWN's own among them.
    """

    steps: int = 20
    depth: int = 1
    name = "alpha"
    recipe = "CROWN"
    batch = 10

    def bounds(self, problem: Problem, specification: Tensor) -> Bounds:
        first = LinearPass(problem, Mode())
        found = first.bounds(specification)
        relus = {i: ends for i, ends in first.entered.items() if isinstance(problem.network.steps[i].operator, Relu)}
        if not relus:
            return found
        if self.depth > 1:
            first, found = self._with_layers(problem, specification, first, found, relus)
        return Bounds(self._for_each_row(problem, specification, first, found.lower), found.layers)

    def _for_each_row(self, problem: Problem, specification: Tensor, first: LinearPass, lower: Tensor) -> Tensor:
        """The margins with slopes of their own, [batch, rows]: each row becomes an example, its hidden bounds are first's."""
        rows = specification.shape[1]

        def repeated(ends: Ends) -> Ends:
            return ends[0].repeat_interleave(rows, 0), ends[1].repeat_interleave(rows, 0)

        each = replace(problem, lower=problem.lower.repeat_interleave(rows, 0), upper=problem.upper.repeat_interleave(rows, 0))
        mode = Mode(known={i: tuple(map(repeated, before)) for i, before in first.before.items()})
        single = specification.flatten(0, 1).unsqueeze(1)
        start = {
            i: _crowns(problem, i, repeated(ends))
            for i, ends in first.entered.items()
            if isinstance(problem.network.steps[i].operator, Relu)
        }
        fixed = Mode(known={i: tuple((low.detach(), high.detach()) for low, high in ends) for i, ends in mode.known.items()})
        slopes = self._ascended(start, lambda slopes: LinearPass(each, fixed, slopes).lower_bounds(single).squeeze(1))
        best = LinearPass(each, mode, slopes).lower_bounds(single).view_as(lower)
        return torch.maximum(best, lower)

    def _with_layers(
        self, problem: Problem, specification: Tensor, first: LinearPass, found: Bounds, relus: dict[int, Ends]
    ) -> tuple[LinearPass, Bounds]:
        """A pass whose hidden bounds are tighter: one set of slopes below all rows and all layers, for the sum of margins."""
        start = {i: _crowns(problem, i, ends) for i, ends in relus.items()}

        def worth(slopes: Choices) -> Tensor:
            return LinearPass(problem, Mode(), slopes).lower_bounds(specification).sum(1)

        moved = LinearPass(problem, Mode(), self._ascended(start, worth))
        tighter = moved.bounds(specification)
        # What each pass knows of a layer holds; their intersection is at least as tight as CROWN's.
        known = {
            i: tuple(
                (torch.maximum(a[0], b[0]), torch.minimum(a[1], b[1])) for a, b in zip(before, moved.before[i], strict=True)
            )
            for i, before in first.before.items()
        }
        both = LinearPass(problem, Mode(known=known))
        lower = torch.stack([found.lower, tighter.lower, both.lower_bounds(specification)]).amax(0)
        return both, Bounds(lower, problem.layers(both.entered))

    def _ascended(self, start: Choices, worth: Callable[[Choices], Tensor]) -> Choices:
        """For each example the slopes with the largest worth [batch] that gradient ascent met; detached."""
        return Ascent(self.steps, dict.fromkeys(start, 1.0)).best(start, worth)[0]


def _crowns(problem: Problem, index: int, ends: Ends) -> Tensor:
    """The lower slopes that the problem's own relaxation gives between those ends."""
    operator = problem.network.steps[index].operator
    assert isinstance(operator, Relu)
    return operator.planes(*ends, problem.relaxations).lower_slopes[0].detach()
