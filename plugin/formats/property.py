"""What is asked of a network from outside: a box of inputs, and linear constraints on outputs that no point of it may meet."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from newrelax.errors import UserError


@dataclass(frozen=True, eq=False)
class Conjunction:
    """Half-spaces that are a counterexample together: matrix @ outputs <= limit in every row.

    matrix: [rows, outputs], limit: [rows], float64. No rows: any outputs are one.
    """

    matrix: Tensor
    limit: Tensor

    def met_by(self, outputs: Tensor) -> bool:
        """Whether these outputs [outputs], as they are and without tolerance, lie in all half-spaces."""
        return bool((self.matrix @ outputs.flatten().double() <= self.limit).all())


@dataclass(frozen=True, eq=False)
class Case:
    """A box of flat inputs (lower, upper: [inputs], float64, lower <= upper), and what is unsafe there: any of `unsafe`."""

    lower: Tensor
    upper: Tensor
    unsafe: tuple[Conjunction, ...]

    def met_by(self, point: Tensor, outputs: Tensor) -> bool:
        """Whether a point [inputs] of the box has outputs that are unsafe."""
        flat = point.flatten().double()
        inside = bool((flat >= self.lower).all() and (flat <= self.upper).all())
        return inside and any(each.met_by(outputs) for each in self.unsafe)


@dataclass(frozen=True)
class Property:
    """A question to a network with so many flat inputs and outputs.

    `sat` iff some case has a point in its box whose outputs meet one of its conjunctions; `unsat` iff none has.
    """

    inputs: int
    outputs: int
    cases: tuple[Case, ...]

    def met_by(self, point: Tensor, outputs: Tensor) -> bool:
        """Whether a point [inputs] with these outputs [outputs] is a counterexample."""
        return any(case.met_by(point, outputs) for case in self.cases)

    def check_fits(self, inputs: int, outputs: int) -> None:
        """Raises UserError for a network with other numbers of inputs or outputs."""
        for what, own, others in (("inputs", self.inputs, inputs), ("outputs", self.outputs, outputs)):
            if own != others:
                raise UserError(f"the property speaks of {own} {what}, the network has {others}: choose the network it is of")


def robustness(lower: Tensor, upper: Tensor, label: int, outputs: int) -> Property:
    """The property that is `unsat` iff class `label` has the largest logit everywhere in a box.

    lower, upper: one example's box, of any shape. A tie is a counterexample. One output decides between two classes by its
    sign, above 0 for class 1.
    """
    if outputs == 1:
        rows = torch.tensor([[1.0 if label == 1 else -1.0]], dtype=torch.float64)
    else:
        others = [j for j in range(outputs) if j != label]
        rows = -torch.eye(outputs, dtype=torch.float64)[others]
        rows[:, label] = 1.0
    unsafe = tuple(Conjunction(row[None], torch.zeros(1, dtype=torch.float64)) for row in rows)
    low, high = (end.detach().cpu().flatten().double() for end in (lower, upper))
    return Property(lower.numel(), outputs, (Case(low, high, unsafe),))
