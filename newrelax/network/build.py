"""Steps from operators' rules: what a rule is given to write its steps with."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, NoReturn

import torch
from torch import Tensor

from newrelax.errors import UserError
from newrelax.network.layout import PLAIN, Layout
from newrelax.network.network import Step
from newrelax.network.operators.arithmetic import LargerOfTwo, Sum
from newrelax.network.operators.base import Operator, Shape
from newrelax.network.operators.call import Call
from newrelax.network.operators.diagonal import Negate, Scale, Shift
from newrelax.network.operators.elementwise import Bend, Bent, Relu, Smooth
from newrelax.network.operators.move import Reshape
from newrelax.network.operators.product import Product
from newrelax.relaxations.activation import RECIPROCAL, Activation

Constant = Tensor | float | int

LARGEST = 1e15
"""What a constant that hides values, −∞ in front of a softmax, is at most: every function that levels off is level there, and
differences of bounds are numbers."""


@dataclass(frozen=True)
class Traced:
    """A tensor that depends on the input: step `index` (−1: the input itself); shape of one example.

    floor: what its values are at least, whatever the input, as the operators say: 0 for a square.
    """

    index: int
    shape: Shape
    layout: Layout = PLAIN
    floor: float = -math.inf

    def at_least(self, floor: float) -> Traced:
        """The same with a floor."""
        return replace(self, floor=floor)


@dataclass(frozen=True)
class Size:
    """A number that grows with the number n of examples: multiple·n + rest."""

    multiple: int
    rest: int = 0

    def at(self, n: int) -> int:
        return self.multiple * n + self.rest


@dataclass(frozen=True)
class Site:
    """The place in the network that a rule is asked about.

    operator: its ATen name; place: the user's line; outputs: (shape of one example, layout) of what comes out.
    """

    operator: str
    place: str
    outputs: tuple[tuple[Shape, Layout], ...]


class Builder:
    """Collects steps. `site` is where the rule that writes now stands."""

    def __init__(self, like: Tensor) -> None:
        self.steps: list[Step] = []
        self.site = Site("", "", ())
        self._like = like

    @property
    def shape(self) -> Shape:
        """Of one example of the operator's (first) output."""
        return self.site.outputs[0][0]

    @property
    def layout(self) -> Layout:
        """Of the operator's (first) output."""
        return self.site.outputs[0][1]

    def refuse(self, reason: str) -> NoReturn:
        """Raises `UserError`: the operator, the user's own line, and the reason (with what to do)."""
        raise UserError(f"{self.site.operator} {reason} ({self.site.place})")

    def constant(self, value: Constant) -> Tensor:
        """A number or tensor as a tensor of the network's type and device."""
        if isinstance(value, Size):
            self.refuse("computes with the number of examples: bounds need a function of each example alone")
        if isinstance(value, Tensor):
            return value.to(self._like.device, self._like.dtype)
        return torch.full((), float(value), dtype=self._like.dtype, device=self._like.device)

    def finite(self, value: Constant) -> Tensor:
        """A constant that may hide values, between ±`LARGEST`; parameters are finite anyway."""
        tensor = self.constant(value)
        return tensor if tensor.requires_grad else tensor.clamp(-LARGEST, LARGEST)

    def step(self, operator: Operator, *inputs: Traced, shape: Shape | None = None, layout: Layout | None = None) -> Traced:
        """A new step; shape and layout are those of the operator's output unless given."""
        shape = self.shape if shape is None else shape
        self.steps.append(Step(operator, tuple(part.index for part in inputs), shape, self.site.place, self.site.operator))
        return Traced(len(self.steps) - 1, shape, self.layout if layout is None else layout)

    def alike(self, operator: Operator, x: Traced, *more: Traced) -> Traced:
        """A new step of the shape and layout of x."""
        return self.step(operator, x, *more, shape=x.shape, layout=x.layout)

    def call(
        self,
        function: Callable[..., Tensor],
        *x: Traced,
        absolute: Callable[..., Tensor] | None = None,
        offset: bool = False,
        pointwise: bool = False,
        injective: bool = False,
        channelwise: bool = False,
        output: tuple[Shape, Layout] | None = None,
    ) -> Traced:
        """A step that is the affine call function(n, *x), see `newrelax.network.operators.call.Call`.

        output: shape and layout, those of the operator's (first) output unless given.
        """
        shape, layout = output or self.site.outputs[0]
        operator = Call(
            function,
            tuple(part.shape for part in x),
            tuple(part.layout for part in x),
            layout,
            absolute,
            offset,
            pointwise,
            injective,
            channelwise,
        )
        return self.step(operator, *x, shape=shape, layout=layout)

    def moved(self, x: Traced, function: Callable[[Tensor], Tensor], *, injective: bool = False) -> Traced:
        """A step that moves features, [n, *shape] → [n, *other shape], wherever the network has its examples; plain."""
        shape = tuple(function(torch.empty(1, *x.shape, device="meta")).shape[1:])
        operator = Call(
            lambda n, value: function(value), (x.shape,), (Layout(),), Layout(), pointwise=True, injective=injective
        )
        return self.step(operator, x, shape=shape, layout=Layout())

    def reshaped(self, x: Traced, shape: Shape, layout: Layout) -> Traced:
        """The features of x in order, as [n, *shape]."""
        if x.shape == shape:
            return Traced(x.index, shape, layout, x.floor)
        return self.step(Reshape(x.shape, shape), x, shape=shape, layout=layout).at_least(x.floor)

    # what rules are made of

    def relu(self, x: Traced) -> Traced:
        return self.alike(Relu(), x).at_least(max(0.0, x.floor))

    def bent(self, x: Traced, slope: Constant, offset: Constant, *bends: tuple[Constant, Constant]) -> Traced:
        """slope·x + offset + Σ weight·relu(x − at), for (weight, at) in bends; constants broadcast against the network's x."""
        if is_tensor(slope, offset, *(end for bend in bends for end in bend)):
            x = self.expanded(x)
        parts = [self._aligned(x, value) for value in (slope, offset, *(end for bend in bends for end in bend))]
        pairs = zip(parts[2::2], parts[3::2], strict=True)
        return self.alike(Bent(parts[0], parts[1], tuple(Bend(weight, at) for weight, at in pairs)), x)

    def smooth(self, x: Traced, activation: Activation) -> Traced:
        return self.alike(Smooth(activation, x.floor), x).at_least(_LEAST.get(activation.name.split("(")[0], -math.inf))

    def _aligned(self, x: Traced, value: Constant) -> Tensor | float:
        return self._in_place(x, value) if isinstance(value, (Tensor, Size)) else float(value)

    def negate(self, x: Traced) -> Traced:
        return self.alike(Negate(), x)

    def expanded(self, x: Traced) -> Traced:
        """x in the operator's output shape, where broadcasting makes it larger."""
        if x.shape == self.shape and x.layout == self.layout:
            return x
        shape, layout = self.shape, self.layout
        found = self.call(lambda n, value: value.expand(layout.sizes(shape, n)), x, pointwise=True)
        return found.at_least(x.floor)

    def shift(self, x: Traced, offset: Constant) -> Traced:
        """x + offset."""
        x = self.expanded(x)
        found = self.alike(Shift(self._in_place(x, self.finite(offset))), x)
        return found if isinstance(offset, Tensor) else found.at_least(x.floor + offset)

    def scale(self, x: Traced, factor: Constant, *, divides: bool = False) -> Traced:
        """x·factor, or x / factor."""
        x = self.expanded(x)
        found = self.alike(Scale(self._in_place(x, factor), divides), x)
        if isinstance(factor, Tensor) or not factor > 0 or not math.isfinite(factor):
            return found
        return found.at_least(x.floor / factor if divides else x.floor * factor)

    def _in_place(self, x: Traced, value: Constant) -> Tensor:
        """A constant as the network has it, as it meets [n, *features]."""
        tensor = self.constant(value)
        if x.layout.is_plain or tensor.ndim == 0:
            return tensor
        return x.layout.canonical(torch.broadcast_to(tensor, x.layout.sizes(x.shape)))

    def add(self, x: Traced, y: Traced, sign: int = 1) -> Traced:
        """x + y, or x − y."""
        found = self.step(Sum((1, sign)), self.expanded(x), self.expanded(y))
        return found.at_least(x.floor + y.floor) if sign > 0 else found

    def alike_scaled(self, x: Traced, factor: Constant) -> Traced:
        """x·factor in x's own shape, for a factor that does not broadcast it up."""
        return self.alike(Scale(self._in_place(x, factor)), x)

    def multiply(self, x: Traced, y: Traced) -> Traced:
        x, y = self.expanded(x), self.expanded(y)
        found = self.alike(Product(), x, y)
        return found.at_least(x.floor * y.floor) if min(x.floor, y.floor) >= 0 else found

    def reciprocal(self, x: Traced) -> Traced:
        return self.smooth(x, RECIPROCAL).at_least(0.0 if x.floor >= 0 else -math.inf)

    def larger(self, x: Traced, y: Traced) -> Traced:
        """The larger of two, element by element."""
        x, y = self.expanded(x), self.expanded(y)
        difference = self.alike(Sum((1, -1)), x, y)
        return self.alike(LargerOfTwo(), x, y, self.relu(difference)).at_least(max(x.floor, y.floor))


_LEAST = {
    "sigmoid": 0.0,
    "exp": 0.0,
    "square": 0.0,
    "softplus": 0.0,
    "sqrt": 0.0,
    "rsqrt": 0.0,
    "tanh": -1.0,
    "erf": -1.0,
    "sin": -1.0,
    "cos": -1.0,
}
"""What an activation's values are at least."""


def is_tensor(*values: Any) -> bool:
    """Whether any of them is a tensor of constants."""
    return any(isinstance(value, Tensor) for value in values)


def is_traced(*values: Any) -> bool:
    """Whether any of them depends on the input."""
    return any(isinstance(value, Traced) for value in values)


def resolve(arguments: Any, n: int) -> Any:
    """Arguments with every `Size` as the number that it is for n examples."""
    if isinstance(arguments, Size):
        return arguments.at(n)
    if isinstance(arguments, (list, tuple)):
        return type(arguments)(resolve(part, n) for part in arguments)
    return arguments
