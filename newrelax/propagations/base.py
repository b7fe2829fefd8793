"""A propagation: how lines become bounds of linear functions of a network's outputs."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, fields, is_dataclass
from functools import cached_property
from typing import ClassVar

from torch import Tensor

from newrelax.network.interval import Interval
from newrelax.network.network import Network
from newrelax.network.operators.base import Elementwise
from newrelax.network.operators.elementwise import Bent, Relu
from newrelax.network.operators.linear import Linear
from newrelax.propagations.choice import Relaxations
from newrelax.propagations.memory import Memory

Ends = tuple[Tensor, Tensor]
"""(lower, upper), each [batch, *shape of the step]."""

Layers = tuple[Ends, ...]
"""Pre-activation bounds of the layers, see `Bounds`."""


@dataclass(frozen=True)
class Bounds:
    """What a propagation found.

    lower: lower bounds of specification @ outputs, [batch, rows], differentiable in the weights.
    layers: pre-activation bounds of every ReLU (and every function made of ReLU's bends) in the network's order; detached
    unless the problem asks otherwise.
    """

    lower: Tensor
    layers: Layers


@dataclass(frozen=True)
class Problem:
    """What is to be bounded: a network over a batch of boxes.

    lower, upper: [batch, *input_shape]. memory: for back-substituted coefficients.
    attached: the layers' bounds keep their way back to the weights, for losses that go on from them.
    """

    network: Network
    lower: Tensor
    upper: Tensor
    relaxations: Relaxations
    memory: Memory
    attached: bool = False

    @cached_property
    def intervals(self) -> IntervalPass:
        """Plain intervals of every step but the last, found once however many propagations ask."""
        return interval_pass(self)

    def layers(self, bounds: Mapping[int, Ends]) -> Layers:
        """From (lower, upper) of nonlinear steps' inputs, by the step's index, those of the layers."""
        found = [bounds[i] for i in self.network.structure.bent if i in bounds]
        return tuple(found if self.attached else [(low.detach(), high.detach()) for low, high in found])


class Propagation(ABC):
    """Name a propagation, say what it needs and what it gives, and write `bounds`; the rest is the same for all.

    needs_parallel: asks for relaxations with one slope for both lines. sound: false for estimates. recipe: the paper's training
    recipe for methods that name none. batch: how many examples an evaluation takes at a time.
    """

    name: ClassVar[str]
    needs_parallel: ClassVar[bool] = False
    sound: ClassVar[bool] = True
    gives_bounds: ClassVar[bool] = True
    recipe: ClassVar[str] = "CROWN"
    batch: ClassVar[int] = 25

    @abstractmethod
    def bounds(self, problem: Problem, specification: Tensor) -> Bounds:
        """Lower bounds of specification @ outputs over the boxes.

        specification: [batch, rows, outputs]; outputs are flattened where they have several axes.
        """

    @property
    def params(self) -> Mapping[str, float]:
        """Its whole-number parameters: the fields of a propagation that is a dataclass."""
        return {part.name: getattr(self, part.name) for part in fields(self)} if is_dataclass(self) else {}

    def __str__(self) -> str:
        return self.name


class NoBounds(Propagation):
    """Training without bounds: natural, or adversarial."""

    gives_bounds = False
    recipe = "IBP"

    def bounds(self, problem: Problem, specification: Tensor) -> Bounds:
        raise TypeError(f"{self.name} gives no bounds")


class Natural(NoBounds):
    name = "none"


class Attack(NoBounds):
    name = "attack"


@dataclass
class IntervalPass:
    """The interval of every step (−1: the input; the last step is left out: specifications merge into it), and the ends that
    entered the nonlinear ones."""

    steps: dict[int, Interval]
    entered: dict[int, Ends]

    def detach(self) -> IntervalPass:
        """The same numbers without their way back to the weights."""
        steps = {index: interval.detach() for index, interval in self.steps.items()}
        return IntervalPass(steps, {i: (low.detach(), high.detach()) for i, (low, high) in self.entered.items()})


def interval_pass(problem: Problem, *, widened: bool = False) -> IntervalPass:
    """Intervals of every step but the last; widened: as the relaxation of ReLU wants them before each activation."""
    network, widen = problem.network, problem.relaxations.widen if widened else None
    found = IntervalPass({-1: Interval.between(problem.lower, problem.upper)}, {})
    for index in range(network.last):
        step = network.steps[index]
        inputs = tuple(found.steps[i] for i in step.inputs)
        if isinstance(step.operator, Elementwise):
            ends = inputs[0].lower, inputs[0].upper
            found.entered[index] = ends
            bent = isinstance(step.operator, (Relu, Bent))  # what widens is a relaxation of ReLU
            found.steps[index] = Interval.between(*step.operator.image(*(widen(*ends) if bent and widen is not None else ends)))
        else:
            found.steps[index] = step.operator.interval(*inputs)
    if isinstance(network.steps[network.last].operator, Elementwise):
        before = found.steps[network.steps[network.last].inputs[0]]
        found.entered[network.last] = before.lower, before.upper
    return found


def interval_ends(problem: Problem, found: IntervalPass, specification: Tensor) -> Ends:
    """Lower and upper bounds of specification @ outputs from an interval pass, each [batch, rows]; merged into a last linear
    layer."""
    network = problem.network
    last = network.steps[network.last]
    if isinstance(last.operator, Linear):
        before = found.steps[last.inputs[0]]
        center = matvec(specification, last.operator.value(before.center))
        spread = matvec((specification @ last.operator.weight).abs(), before.radius)
    else:
        outputs = last.operator.interval(*(found.steps[i] for i in last.inputs))
        center = matvec(specification, outputs.center.flatten(1))
        spread = matvec(specification.abs(), outputs.radius.flatten(1))
    return center - spread, center + spread


def matvec(matrix: Tensor, values: Tensor) -> Tensor:
    """Each example's matrix, [batch, rows, n], times its values, [batch, n]; [batch, rows]."""
    return (matrix @ values.unsqueeze(2)).squeeze(2)
