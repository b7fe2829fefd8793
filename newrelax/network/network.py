"""A network as bounds see it: a list of steps with the weights of this moment in them."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from torch import Tensor

from newrelax.network.operators.base import Affine, Elementwise, Nonlinear, Operator, Shape
from newrelax.network.operators.elementwise import Bent, Relu


@dataclass(frozen=True)
class Step:
    """One operator; inputs are indices of earlier steps (−1: the network's input), shape is of one example's value.

    place: where in the user's code it stands; source: the ATen operator that it comes from.
    """

    operator: Operator
    inputs: tuple[int, ...]
    shape: Shape
    place: str = ""
    source: str = ""


class Structure:
    """What stays the same in a network while its weights change; made from the steps of one moment.

    origin: the last of the leading steps that act on each feature alone (normalisation, say), −1 if there is none: its
    output still ranges over a box, where back-substitution may stop. widest: for each step, the most features that there are
    from the input up to it, itself included. nonlinear: indices of the steps that are bounded by planes; layers: of those
    among them that are elementwise; bent: of ReLUs, and functions made of bends like ReLU's, among these. plans: what
    propagations prepare once for a network, under keys of their own.
    """

    def __init__(self, steps: Sequence[Step], input_shape: Shape) -> None:
        self.origin = -1
        for i, step in enumerate(steps[:-1]):
            alone = isinstance(step.operator, Affine) and step.operator.pointwise and step.operator.injective
            if not alone or step.inputs != (i - 1,) or any(min(later.inputs) < i for later in steps[i + 1 :]):
                break
            self.origin = i
        sizes = [math.prod(shape) for shape in (input_shape, *(step.shape for step in steps))]
        self.widest = tuple(itertools.accumulate(sizes, max))[1:]
        self.nonlinear = tuple(i for i, step in enumerate(steps) if isinstance(step.operator, Nonlinear))
        self.layers = tuple(i for i in self.nonlinear if isinstance(steps[i].operator, Elementwise))
        self.bent = tuple(i for i in self.layers if isinstance(steps[i].operator, (Bent, Relu)))
        self.plans: dict[Any, Any] = {}


@dataclass(frozen=True)
class Network:
    """Steps in topological order; the last one gives the outputs.

    input_shape: of one example. structure: what does not depend on the weights. training: whether the model is being
    trained, which random methods ask for.
    """

    steps: tuple[Step, ...]
    input_shape: Shape
    structure: Structure
    training: bool = False

    def forward(self, x: Tensor) -> Tensor:
        """The network's outputs, step by step; x: [batch, *input_shape]."""
        return self.values(x)[-1]

    def values(self, x: Tensor) -> list[Tensor]:
        """The value of every step."""
        values: list[Tensor] = []
        for step in self.steps:
            values.append(step.operator.value(*(x if i < 0 else values[i] for i in step.inputs)))
        return values

    @cached_property
    def last(self) -> int:
        return len(self.steps) - 1
