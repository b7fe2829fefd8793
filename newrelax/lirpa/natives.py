"""Which of auto_LiRPA's own operators stands for a step, as it expects its attributes and tensors."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from newrelax.lirpa import bridge
from newrelax.network.network import Step
from newrelax.network.operators.arithmetic import Concatenate, Sum
from newrelax.network.operators.convolution import Convolution
from newrelax.network.operators.elementwise import Relu
from newrelax.network.operators.linear import Linear
from newrelax.network.operators.move import Reshape
from newrelax.network.operators.pooling import AveragePool


@dataclass(frozen=True)
class Native:
    """An operator of auto_LiRPA's.

    kind: what `newrelax.lirpa.trust` calls it. attributes: as ONNX spells them. tensors: what enters it behind the step's
    inputs, with the weights of the moment.
    """

    kind: str
    operator: type
    attributes: Mapping[str, Any] = field(default_factory=dict)
    tensors: tuple[Tensor, ...] = ()


def native_of(step: Step, relu: str | None) -> Native | None:
    """auto_LiRPA's own operator for a step; None where it has none. relu: its option for ReLU, None for lines of ours."""
    operator = step.operator
    if isinstance(operator, Linear):
        bias = operator.weight.new_zeros(len(operator.weight)) if operator.bias is None else operator.bias
        return Native("linear", bridge.BoundLinear, {"transB": 1}, (operator.weight, bias))
    if isinstance(operator, Convolution) and len(operator.size) == 2:
        return _convolution(operator)
    if isinstance(operator, Sum) and operator.signs in ((1, 1), (1, -1)):
        return Native("add", bridge.BoundAdd) if operator.signs[1] > 0 else Native("sub", bridge.BoundSub)
    if isinstance(operator, Reshape) and len(operator.after) == 1:
        return Native("flatten", bridge.BoundFlatten, {"axis": 1})
    if isinstance(operator, AveragePool) and len(operator.size) == 2:
        kind = "avg_pool2d" if _tiles(operator) else "avg_pool2d (uneven)"
        shape = {"kernel_shape": list(operator.kernel), "strides": list(operator.stride), "pads": [*operator.padding] * 2}
        return Native(kind, bridge.BoundAveragePool, shape)
    if isinstance(operator, Concatenate):
        return Native("cat", bridge.BoundConcat, {"axis": operator.axis})
    if isinstance(operator, Relu) and relu is not None:
        return Native(f"relu ({relu})", bridge.BoundRelu)
    return None


def _tiles(operator: AveragePool) -> bool:
    """Whether the windows, squares, cover the image without overlap, padding or rest."""
    square = operator.kernel == operator.stride and operator.kernel[0] == operator.kernel[1] and not any(operator.padding)
    return square and all(size % kernel == 0 for size, kernel in zip(operator.size, operator.kernel, strict=True))


def _convolution(operator: Convolution) -> Native:
    attributes = {
        "kernel_shape": list(operator.kernel),
        "strides": list(operator.stride),
        "pads": [*operator.padding] * 2,
        "dilations": list(operator.dilation),
        "group": operator.groups,
    }
    tensors = (operator.weight,) if operator.bias is None else (operator.weight, operator.bias)
    return Native(_kind(operator), bridge.BoundConv, attributes, tensors)


def _kind(operator: Convolution) -> str:
    """Convolutions of one kind pass or fail the check together."""
    if operator.groups != 1:
        return "conv2d (groups)"
    if operator.dilation != (1, 1):
        return "conv2d (dilation)"
    axes = zip(operator.size, operator.kernel, operator.stride, operator.padding, strict=True)
    rests = [(size + 2 * padding - kernel) % stride for size, kernel, stride, padding in axes]
    square = all(len(set(pair)) == 1 for pair in (operator.size, operator.kernel, operator.stride, operator.padding))
    return "conv2d" if square and not any(rests) else "conv2d (uneven)"
