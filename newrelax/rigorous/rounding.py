"""How many roundings each term of a step's sums may meet, whatever the order in which a device computes it."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from newrelax.errors import UserError
from newrelax.network.network import Step
from newrelax.network.operators.arithmetic import Concatenate, LargerOfTwo, Sum
from newrelax.network.operators.base import Affine
from newrelax.network.operators.call import Call
from newrelax.network.operators.convolution import Convolution
from newrelax.network.operators.diagonal import Diagonal, Negate, ScaleShift
from newrelax.network.operators.elementwise import Bent, Relu
from newrelax.network.operators.linear import Linear
from newrelax.network.operators.move import Reshape
from newrelax.network.operators.pooling import AveragePool, MaxPool

SPARE = 4
"""Roundings beside those of a sum of products: a number in the code, a reciprocal in a quotient's place, a fused kernel."""
NORMALISATION = 16
"""Of x·weight·rsqrt(variance + eps) + (bias − mean·…) in any arrangement, the reciprocal root being right to four units."""
BENDS = 8
"""Of a piecewise linear activation, by one kernel or by several."""

EXACT = (Reshape, Concatenate, LargerOfTwo, Relu, MaxPool, Negate)
SUMS = {
    *(f"aten.{name}.default" for name in ("linear", "addmm", "matmul", "mm", "bmm", "mv", "mean", "sum", "cumsum")),
    *(f"aten.conv{n}d.{which}" for n in (1, 2, 3) for which in ("default", "padding")),
    *(f"aten.{pool}{n}d.default" for n in (1, 2, 3) for pool in ("avg_pool", "adaptive_avg_pool", "_adaptive_avg_pool")),
    *("aten.conv_transpose1d.default", "aten.conv_transpose2d.input", "aten.conv_transpose3d.input"),
    *("aten.mean.dim", "aten.sum.dim_IntList", "aten.col2im.default"),
    *("aten.where.self", "aten.where.ScalarOther", "aten.where.ScalarSelf", "aten.stack.default", "aten.copy.default"),
    *("aten.select_scatter.default", "aten.slice_scatter.default", "aten.diagonal_scatter.default"),
}
"""Calls of torch that sum products of inputs and constants; others, interpolations say, compute weights of their own."""


@dataclass(frozen=True)
class Arithmetic:
    """A float type's unit roundoff, smallest normal and largest number."""

    unit: float
    smallest: float
    largest: float

    @classmethod
    def of(cls, dtype: torch.dtype) -> Arithmetic:
        """Of float32 or float64."""
        facts = torch.finfo(dtype)
        return cls(facts.eps / 2, facts.tiny, facts.max)

    def gamma(self, count: Tensor) -> Tensor:
        """γ(k) = ku/(1 − ku), and infinity where ku ≥ 1; relatively exact to a few roundings."""
        part = count * self.unit
        return torch.where(part < 1, part / (1 - part), math.inf)


DOUBLE = Arithmetic.of(torch.float64)


def check_covered(step: Step) -> None:
    """Raises `UserError` for a step that the theorem says nothing about: its operator, and the user's own line."""
    operator = step.operator
    if isinstance(operator, (*EXACT, Linear, Convolution, Diagonal, Sum, AveragePool, Bent)):
        return
    if isinstance(operator, Call) and (operator.pointwise or step.source in SUMS):
        return
    raise UserError(
        f"{step.source or type(operator).__name__} has no rigorous bounds of its rounding: expected sums of products, "
        f"ReLUs and what is made of them, or maxima; leave out --rigorous ({step.place})"
    )


def is_exact(operator: Affine) -> bool:
    """Whether an affine step only moves and copies, so that it rounds nothing and ends of intervals pass as they are."""
    return isinstance(operator, EXACT) or (isinstance(operator, Call) and operator.pointwise)


def pattern(operator: Affine) -> Affine | None:
    """The operator with 1 for every weight that is not zero, so that it counts inputs; None where a plain number does."""
    if isinstance(operator, (Linear, Convolution)):
        return replace(operator, weight=(operator.weight != 0).to(operator.weight.dtype), bias=None)
    return None


def roundings(operator: Affine, counter: Affine | None, alive: Sequence[Tensor]) -> Tensor:
    """The most roundings on one term, for each output; broadcasts against [batch, *shape].

    counter: the operator's `pattern`. alive: 1 for each of the inputs' features that may differ from zero, else 0.
    """
    like = alive[0]
    if counter is not None:
        return counter.linear(*alive) + (1 + SPARE)
    if is_exact(operator):
        return like.new_zeros(())
    if isinstance(operator, ScaleShift):
        return like.new_full((), NORMALISATION)
    if operator.pointwise or isinstance(operator, Sum):
        return like.new_full((), len(alive) + 1 + SPARE)
    count = math.prod(operator.kernel) if isinstance(operator, AveragePool) else sum(part[0].numel() for part in alive)
    return like.new_full((), count + 1 + SPARE)


def check_constants(computed: Iterable[tuple[str, str]]) -> None:
    """Raises `UserError` where the network computes constants from its weights, other than by moving them: another device may
    round these otherwise. computed: operators and the user's lines."""
    for name, place in computed:
        if name.split(".")[1] not in MOVES:
            raise UserError(
                f"{name} computes a constant from the weights, whose rounding has no rigorous bounds: expected weights as they "
                f"are, keep its result in a buffer ({place})"
            )


MOVES = {
    *("view", "reshape", "_unsafe_view", "flatten", "unflatten", "squeeze", "unsqueeze", "expand", "expand_as", "view_as"),
    *("permute", "transpose", "t", "mT", "numpy_T", "movedim", "swapaxes", "select", "slice", "narrow", "flip", "index_select"),
    *("clone", "contiguous", "alias", "detach", "lift_fresh_copy", "_to_copy", "to", "type_as", "neg", "cat", "stack"),
    *("zeros", "ones", "full", "zeros_like", "ones_like", "full_like", "arange", "eye", "scalar_tensor", "empty", "sym_size"),
    *("_assert_tensor_metadata", "_assert_scalar", "sym_constrain_range_for_size"),
}
"""ATen operators whose results are their arguments' numbers, up to the sign, or whole numbers."""
