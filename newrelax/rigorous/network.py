"""A network whose runs in floating point are bounded, with a method's lines as hints."""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from newrelax.arguments import model_dtype
from newrelax.bounds import specification
from newrelax.errors import UserError
from newrelax.methods.method import Method
from newrelax.network.graph import Graph
from newrelax.network.operators.base import Affine, Elementwise, Nonlinear
from newrelax.network.operators.rule import Rule
from newrelax.network.rules import BUILTIN_RULES
from newrelax.network.same import check_traced
from newrelax.propagations.alpha import AlphaPropagation
from newrelax.propagations.ibp_backward import IntervalBackwardPropagation
from newrelax.propagations.interval import IntervalPropagation
from newrelax.propagations.memory import Memory
from newrelax.propagations.random_slopes import RandomSlopesPropagation
from newrelax.rigorous.bends import as_bent
from newrelax.rigorous.plan import Plan
from newrelax.rigorous.rounding import Arithmetic, check_constants
from newrelax.rigorous.run import Run
from newrelax.rigorous.slopes import ascended
from newrelax.rigorous.substitution import Lines, lines_at, lower_bounds

FROM_INTERVALS = (IntervalBackwardPropagation, RandomSlopesPropagation)
"""Propagations whose hidden layers are bounded by intervals, and only the outputs by back-substitution."""


class RigorousNetwork:
    """Bounds of what a model computes, by the method's propagation: intervals throughout, intervals for hidden layers and
    back-substitution for the outputs (CROWN-IBP), or back-substitution for all neurons that intervals leave crossing.

    model: [batch, *input_shape] → [batch, outputs], in evaluation mode. memory: bytes that one chunk of coefficients may take.

    Raises:
        UserError: a method without sound bounds, or a step that the theorem (see the room's head) does not cover.
    """

    def __init__(
        self,
        model: nn.Module,
        input_shape: Sequence[int],
        method: Method,
        *,
        operators: Sequence[Rule] = BUILTIN_RULES,
        memory: int | None = None,
    ) -> None:
        if not method.gives_bounds or not method.sound:
            raise UserError(f"{method.label} gives no sound bounds: expected a method that certifies for rigorous bounds")
        self.method, self._memory = method, Memory.of(memory, torch.device("cpu"))
        exact = copy.deepcopy(model).cpu().double().eval()
        with torch.no_grad():
            graph = Graph(exact, input_shape, operators)
            check_traced(graph)
            check_constants(graph.constants)
            self._plan = Plan(graph.network(), Arithmetic.of(model_dtype(model)))
        self._network = self._plan.network
        self._substitutes_outputs = not isinstance(method.propagation, IntervalPropagation)
        self._substitutes_hidden = self._substitutes_outputs and not isinstance(method.propagation, FROM_INTERVALS)

    def margins(self, lower: Tensor, upper: Tensor, y: Tensor) -> Tensor:
        """Lower bounds of the computed z_y − z_j, j ≠ y ascending, [batch, classes − 1], as `newrelax.bounds.MarginBounds` has
        them, in float64 on the CPU.

        lower, upper: [batch, *input_shape] in the model's own type: every input of that type between them is meant.
        """
        outputs = math.prod(self._network.steps[-1].shape)
        return self.lower_bounds(lower, upper, specification(y.cpu(), outputs, torch.float64))

    @torch.no_grad()
    def lower_bounds(self, lower: Tensor, upper: Tensor, matrix: Tensor) -> Tensor:
        """Lower bounds of matrix @ computed outputs, [batch, rows]; −∞ where none is proven.

        matrix: [batch, rows, outputs], of numbers 0 and ±1 or others of few digits: products with it are taken for exact.
        """
        run, lines = self.run(lower, upper)
        last = self._network.last
        coefficients = matrix.view(*matrix.shape[:2], *self._network.steps[last].shape)
        found = lower_bounds(run, last, coefficients, lines if self._substitutes_outputs else None)
        if isinstance(self.method.propagation, AlphaPropagation):
            steps = self.method.propagation.steps
            found = torch.maximum(found, ascended(run, last, coefficients, self.method.lines, steps))
        return found.nan_to_num(nan=-torch.inf)

    @torch.no_grad()
    def run(self, lower: Tensor, upper: Tensor) -> tuple[Run, Lines]:
        """Bounds of every step's computed values, and the lines of the nonlinear ones."""
        run = Run(self._plan, lower.cpu().double(), upper.cpu().double())
        lines: Lines = {}
        for index, step in enumerate(self._network.steps):
            if isinstance(step.operator, Nonlinear):
                (source,) = step.inputs
                if self._substitutes_hidden and self._may_gain(source):
                    self._tighten(run, source, step.operator, lines)
                if self._substitutes_outputs:
                    lines = {**lines, index: lines_at(run, index, self.method.lines)}
            run.advance(index)
        return run, lines

    def _may_gain(self, index: int) -> bool:
        """Whether intervals forget anything up to that step: they do not through one step that mixes features."""
        steps = [step.operator for step in self._network.steps[: index + 1]]
        mixing = sum(not (isinstance(operator, Affine) and operator.pointwise and operator.injective) for operator in steps)
        return mixing > 1

    def _tighten(self, run: Run, index: int, operator: Nonlinear, lines: Lines) -> None:
        """Back-substitution from the features of a step that intervals leave undecided, in any example."""
        lower, upper = (end.flatten(1).clone() for end in run.ends[index])
        rows = _undecided(operator, lower, upper).any(0).nonzero().flatten()
        shape = self._network.steps[index].shape
        bytes_a_row = 3 * lower.element_size() * len(lower) * self._network.structure.widest[index]  # a, and both its signs
        chunk = max(1, self._memory.piece // bytes_a_row)
        for part in rows.split(chunk):
            unit = lower.new_zeros(1, len(part), lower.shape[1])
            unit[0, torch.arange(len(part)), part] = 1.0
            unit = unit.view(1, len(part), *shape)
            low, high = (lower_bounds(run, index, sign * unit, lines) for sign in (1, -1))
            lower[:, part] = torch.maximum(lower[:, part], low)
            upper[:, part] = torch.minimum(upper[:, part], -high)
        run.ends[index] = lower.view(-1, *shape), upper.view(-1, *shape)


def _undecided(operator: Nonlinear, lower: Tensor, upper: Tensor) -> Tensor:
    """Where tighter bounds make another line, flat."""
    if not isinstance(operator, Elementwise):
        return lower < upper
    found = torch.zeros_like(lower, dtype=torch.bool)
    for bend in as_bent(operator).bends:
        at = torch.as_tensor(bend.at, dtype=lower.dtype)
        found |= (lower < at) & (at < upper) if at.ndim == 0 else lower < upper
    return found
