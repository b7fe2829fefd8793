"""Bound operators for auto_LiRPA: a relaxation as a ReLU operator, and constants that patches mode accepts.

auto_LiRPA's extension point is `BoundedModule(..., custom_ops={"onnx::Relu": class})`. Its `BoundActivation`
takes a lower and an upper line per neuron (lw·x + lb, uw·x + ub) through backward, forward and patches mode, so
an operator has to supply nothing but the lines.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

import torch
from torch import Tensor

from . import lirpa
from .relaxation import Lines, Relaxation


class _LinesOperator(lirpa.BoundActivation):
    """An element-wise operator that is nothing but its two lines."""

    def lines(self, x: Any) -> Lines:
        raise NotImplementedError

    def init_linear_relaxation(self, x: Any, dim_opt: Any = None) -> None:
        """Nothing to prepare (0.3 would ask for the operand's bounds here, which a constant operand has none of)."""

    def bound_relax(self, x: Any, init: bool = False, **_: Any) -> None:
        self.lw, self.lb, self.uw, self.ub = self.lines(x)


class RelaxedRelu(_LinesOperator):
    """ReLU under one of this project's relaxations; subclass by `relu_operator`."""

    relaxation: ClassVar[Relaxation]
    lower_slope: Tensor | None = None  # set: replaces the lower slope of crossing neurons (random-slope training)

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(x)

    def lines(self, x: Any) -> Lines:
        lines = self.relaxation(x.lower, x.upper)
        if self.lower_slope is None:
            return lines
        crossing = (x.lower < 0) & (x.upper > 0)
        return lines._replace(lower_slope=torch.where(crossing, self.lower_slope, lines.lower_slope))

    def interval_propagate(self, *v: Any) -> tuple[Tensor, Tensor]:
        lower, upper = v[0][0], v[0][1]
        if self.relaxation.widen is not None:
            lower, upper = self.relaxation.widen(lower, upper)
        return torch.relu(lower), torch.relu(upper)


def relu_operator(relaxation: Relaxation) -> type[RelaxedRelu]:
    """The bound operator class of a relaxation, for `custom_ops={"onnx::Relu": …}`."""
    return type("RelaxedRelu", (RelaxedRelu,), {"relaxation": relaxation})


class ConstantOperand(_LinesOperator):
    """x ∘ c with a constant c of any broadcastable shape, as the line scale·x + shift.

    auto_LiRPA's own operators for these trip over constants of shape (C,1,1) and (1,C,1,1) in patches mode, which
    is what a module that normalises its input has.
    """

    def __init__(self, kind: str, attr: Any, inputs: Any, output_index: int, options: Any) -> None:
        super().__init__(attr, inputs, output_index, options)
        self.requires_input_bounds = []
        self.kind = kind
        self.variable = 1 if isinstance(inputs[0], _CONSTANTS) else 0

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        return {"Add": torch.add, "Sub": torch.sub, "Mul": torch.mul, "Div": torch.div}[self.kind](x, y)

    def scale_shift(self) -> tuple[Tensor, Tensor]:
        """Both of shape (1, *features)."""
        constant = self.inputs[1 - self.variable].forward()
        zeros = constant.new_zeros((1, *self.output_shape[1:]))
        constant, ones = constant + zeros, zeros + 1
        match self.kind:
            case "Add":
                return ones, constant
            case "Sub":
                return (ones, -constant) if self.variable == 0 else (-ones, constant)
            case "Mul":
                return constant, zeros
            case _:
                return 1 / constant, zeros

    def lines(self, x: Any) -> Lines:
        scale, shift = self.scale_shift()
        return Lines(scale, shift, scale, shift)

    def bound_backward(self, last_lA: Any, last_uA: Any, *inputs: Any, **_: Any) -> Any:
        bounds, lower_bias, upper_bias = super().bound_backward(last_lA, last_uA, inputs[self.variable])
        pair = [bounds[0], (None, None)]
        return (pair if self.variable == 0 else pair[::-1]), lower_bias, upper_bias

    def bound_forward(self, dim_in: int, *inputs: Any) -> Any:
        return super().bound_forward(dim_in, inputs[self.variable])

    def interval_propagate(self, *v: Any) -> tuple[Tensor, Tensor]:
        scale, shift = self.scale_shift()
        ends = [scale * end + shift for end in v[self.variable]]
        return torch.minimum(*ends), torch.maximum(*ends)


_CONSTANTS = (lirpa.BoundBuffers, lirpa.BoundConstant, lirpa.BoundParams)


def _constant_or_native(kind: str, native: type) -> Callable[..., Any]:
    """An operator factory: two perturbed operands (a residual addition) stay with auto_LiRPA."""

    def make(attr: Any, inputs: Any, output_index: int, options: Any) -> Any:
        constant = [isinstance(node, _CONSTANTS) for node in inputs]
        affine = constant[1] if kind == "Div" else any(constant)  # c / x is not affine
        if affine and not all(constant):
            return ConstantOperand(kind, attr, inputs, output_index, options)
        return native(attr, inputs, output_index, options)

    return make


CONSTANT_OPERATORS: dict[str, Callable[..., Any]] = {
    "onnx::Add": _constant_or_native("Add", lirpa.BoundAdd),
    "onnx::Sub": _constant_or_native("Sub", lirpa.BoundSub),
    "onnx::Mul": _constant_or_native("Mul", lirpa.BoundMul),
    "onnx::Div": _constant_or_native("Div", lirpa.BoundDiv),
}
