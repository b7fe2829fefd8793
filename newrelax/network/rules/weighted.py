"""Layers with weights: linear, convolutions, products with constant matrices, batch normalisation."""

from __future__ import annotations

import string
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from newrelax.network.build import Builder, Traced, is_traced
from newrelax.network.layout import Layout
from newrelax.network.operators.convolution import Convolution
from newrelax.network.operators.diagonal import ScaleShift
from newrelax.network.operators.linear import Linear
from newrelax.network.operators.product import Product
from newrelax.network.operators.rule import operator

aten = torch.ops.aten


@operator("aten.linear.default", bounded="exact affine")
def linear(build: Builder, x: Traced, weight: Tensor, bias: Tensor | None) -> Traced:
    """Wx + b over the last axis."""
    if is_traced(weight, bias):
        build.refuse("with weights that depend on the input has no bounds here")
    if len(x.shape) == 1 and x.layout.is_plain:
        return build.step(Linear(weight, bias), x)
    return build.call(
        lambda n, value: aten.linear(value, weight, bias),
        x,
        absolute=lambda n, value: aten.linear(value, weight.abs()),
        offset=bias is not None,
    )


@operator("aten.addmm.default", bounded="exact affine")
def addmm(build: Builder, bias: Tensor, x: Traced, weight: Tensor, beta: float, alpha: float) -> Traced:
    """beta·b + alpha·xW."""
    if is_traced(bias, weight) or not is_traced(x):
        build.refuse("with a bias or weights that depend on the input has no bounds here")
    if x.layout.is_plain and bias.ndim == 1 and beta == alpha == 1:
        return build.step(Linear(weight.t(), bias), x)
    return build.call(
        lambda n, value: aten.addmm(bias, value, weight, beta=beta, alpha=alpha),
        x,
        absolute=lambda n, value: (value @ weight.abs()) * abs(alpha),
        offset=True,
    )


@operator("aten.matmul.default", "aten.mm.default", "aten.bmm.default", "aten.mv.default", bounded="planes")
def matmul(build: Builder, x: Traced | Tensor, y: Traced | Tensor) -> Traced:
    """A product of matrices: exact affine with a constant one, McCormick's planes for two that depend on the input."""
    if isinstance(x, Traced) and isinstance(y, Traced):
        return _product_of_matrices(build, x, y)
    if isinstance(x, Traced):
        assert isinstance(y, Tensor)
        if x.layout.is_plain and len(x.shape) == 1 and y.ndim == 2:
            return build.step(Linear(y.t(), None), x)
        return build.call(lambda n, value: value @ y, x, absolute=lambda n, value: value @ y.abs())
    assert isinstance(y, Traced)
    return build.call(lambda n, value: x @ value, y, absolute=lambda n, value: x.abs() @ value)


def _product_of_matrices(build: Builder, x: Traced, y: Traced) -> Traced:
    """[…, i, k] × […, k, j] as products of all entries, then sums over k."""
    rows, columns = x.layout.sizes(x.shape), y.layout.sizes(y.shape)
    if min(len(rows), len(columns)) < 2 or x.layout.axis >= len(rows) - 2 or y.layout.axis >= len(columns) - 2:
        build.refuse("of two steps that depend on the input needs the examples' axis before those of the matrices")
    layout = build.layout
    (*before, last), inner = layout.sizes(build.shape), rows[-1]
    shape = layout.shape((*before, inner, last))

    def spread(part: Traced, axis: int) -> Traced:
        return build.call(
            lambda n, value: value.unsqueeze(axis).expand(layout.sizes(shape, n)), part, pointwise=True, output=(shape, layout)
        )

    products = build.alike(Product(), spread(x, -1), spread(y, -3))
    return build.call(lambda n, value: value.sum(-2), products)


@operator("aten.einsum.default", bounded="planes")
def einsum(build: Builder, equation: str, operands: list[Any], path: Any = None) -> Traced:
    """A contraction: exact affine with constant tensors, planes for each product of two that depend on the input."""
    places = [i for i, part in enumerate(operands) if isinstance(part, Traced)]
    if len(places) != 1:
        return _contraction(build, equation, operands)
    place = places[0]

    def contract(n: int, value: Tensor) -> Tensor:
        return torch.einsum(equation, [value if i == place else part for i, part in enumerate(operands)])

    def absolute(n: int, value: Tensor) -> Tensor:
        return torch.einsum(equation, [value if i == place else part.abs() for i, part in enumerate(operands)])

    return build.call(contract, operands[place], absolute=absolute)


def _contraction(build: Builder, equation: str, operands: list[Any]) -> Traced:
    """Several operands that depend on the input: all on the axes of all letters, multiplied, then summed."""
    if "->" not in equation:
        build.refuse("of several steps that depend on the input needs its outputs named: write ab,bc->ac")
    ranks = [len(part.layout.sizes(part.shape)) if isinstance(part, Traced) else part.ndim for part in operands]
    inputs, output = _all_named(equation.replace(" ", ""), ranks).split("->")
    terms = inputs.split(",")
    letters = output + "".join(dict.fromkeys(c for c in inputs if c != "," and c not in output))
    sizes = {
        c: n
        for term, part in zip(terms, operands, strict=True)
        if isinstance(part, Traced)
        for c, n in zip(term, part.layout.sizes(part.shape), strict=True)
    }
    for term, part in zip(terms, operands, strict=True):
        if isinstance(part, Tensor):
            sizes |= {c: n for c, n in zip(term, part.shape, strict=True) if n > sizes.get(c, 0)}
    layout = Layout.of(build.layout.axis, build.layout.multiple, len(letters), build.layout.before)
    axes = {term[part.layout.axis] for term, part in zip(terms, operands, strict=True) if isinstance(part, Traced)}
    if axes != {output[layout.axis]}:
        build.refuse("combines the examples' axis with another one: examples see each other")
    shape = layout.shape(tuple(sizes[c] for c in letters))

    def spread(term: str, value: Tensor) -> Tensor:
        own = "".join(dict.fromkeys(term))
        found = torch.einsum(f"{term}->{''.join(c for c in letters if c in own)}", value)
        for axis, c in enumerate(letters):
            found = found if c in own else found.unsqueeze(axis)
        return found

    product: Traced | None = None
    factor: Tensor | None = None
    for term, part in zip(terms, operands, strict=True):
        if isinstance(part, Traced):

            def move(n: int, value: Tensor, term: str = term) -> Tensor:
                return spread(term, value).expand(layout.sizes(shape, n))

            found = build.call(move, part, pointwise=True, output=(shape, layout))
            product = found if product is None else build.alike(Product(), product, found)
        else:
            constant = spread(term, part)
            factor = constant if factor is None else factor * constant
    assert product is not None
    if factor is not None:
        product = build.alike_scaled(product, factor)
    contracted = list(range(len(output), len(letters)))
    return build.call(lambda n, value: value.sum(contracted) if contracted else value, product)


def _all_named(equation: str, ranks: list[int]) -> str:
    """The equation with letters in place of every `...`; ranks: of its operands."""
    free = [c for c in string.ascii_letters if c not in equation]
    terms, output = equation.split("->")
    hidden = [
        rank - len(term.replace("...", "")) if "..." in term else 0 for term, rank in zip(terms.split(","), ranks, strict=True)
    ]
    letters = "".join(free[: max(hidden)])
    named = [term.replace("...", letters[len(letters) - n :]) for term, n in zip(terms.split(","), hidden, strict=True)]
    return f"{','.join(named)}->{output.replace('...', letters)}"


def _tuple(value: Any, count: int) -> tuple[int, ...]:
    values = tuple(int(part) for part in value) if isinstance(value, (list, tuple)) else (int(value),)
    return values * count if len(values) == 1 else values


@operator("aten.conv1d.default", "aten.conv2d.default", "aten.conv3d.default", bounded="exact affine")
def convolution(
    build: Builder, x: Traced, weight: Tensor, bias: Tensor | None, stride: Any, padding: Any, dilation: Any, groups: int
) -> Traced:
    """A convolution over one, two or three axes."""
    count = weight.ndim - 2 if isinstance(weight, Tensor) else 0
    if is_traced(weight, bias) or not is_traced(x):
        build.refuse("with weights that depend on the input has no bounds here")
    stride, padding, dilation = (_tuple(value, count) for value in (stride, padding, dilation))
    if x.layout.is_plain and len(x.shape) == count + 1:
        return build.step(Convolution(weight, bias, x.shape[1:], stride, padding, dilation, groups), x)
    call = {1: aten.conv1d, 2: aten.conv2d, 3: aten.conv3d}[count]
    return _with_weights(
        build, lambda value, weight, bias: call(value, weight, bias, stride, padding, dilation, groups), x, weight, bias
    )


@operator("aten.conv1d.padding", "aten.conv2d.padding", "aten.conv3d.padding", bounded="exact affine")
def padded_convolution(
    build: Builder, x: Traced, weight: Tensor, bias: Tensor | None, stride: Any, padding: str, dilation: Any, groups: int
) -> Traced:
    """A convolution with padding="same" or "valid"."""
    count = weight.ndim - 2
    stride, dilation = _tuple(stride, count), _tuple(dilation, count)
    total = [d * (k - 1) if padding == "same" else 0 for d, k in zip(dilation, weight.shape[2:], strict=True)]
    if x.layout.is_plain and not is_traced(weight, bias) and all(t % 2 == 0 for t in total):
        even = tuple(t // 2 for t in total)
        return build.step(Convolution(weight, bias, x.shape[1:], stride, even, dilation, groups), x)
    call = {1: aten.conv1d, 2: aten.conv2d, 3: aten.conv3d}[count]
    return _with_weights(
        build, lambda value, weight, bias: call.padding(value, weight, bias, stride, padding, dilation, groups), x, weight, bias
    )


@operator("aten.conv_transpose1d.default", "aten.conv_transpose2d.input", "aten.conv_transpose3d.input", bounded="exact affine")
def transposed_convolution(
    build: Builder,
    x: Traced,
    weight: Tensor,
    bias: Tensor | None,
    stride: Any,
    padding: Any,
    output_padding: Any,
    groups: int,
    dilation: Any,
) -> Traced:
    """A transposed convolution over one, two or three axes."""
    call = {1: aten.conv_transpose1d, 2: aten.conv_transpose2d, 3: aten.conv_transpose3d}[weight.ndim - 2]
    return _with_weights(
        build,
        lambda value, weight, bias: call(value, weight, bias, stride, padding, output_padding, groups, dilation),
        x,
        weight,
        bias,
    )


def _with_weights(
    build: Builder, call: Callable[[Tensor, Tensor, Tensor | None], Tensor], x: Traced, weight: Tensor, bias: Tensor | None
) -> Traced:
    if is_traced(weight, bias):
        build.refuse("with weights that depend on the input has no bounds here")
    return build.call(
        lambda n, value: call(value, weight, bias),
        x,
        absolute=lambda n, value: call(value, weight.abs(), None),
        offset=bias is not None,
    )


@operator("aten._native_batch_norm_legit_no_training.default", bounded="exact affine")
def batch_norm(
    build: Builder,
    x: Traced,
    weight: Tensor | None,
    bias: Tensor | None,
    mean: Tensor,
    variance: Tensor,
    momentum: float,
    eps: float,
) -> tuple[Traced, None, None]:
    """Batch normalisation with running statistics, in training with those of the clean batch."""
    channels = x.layout.axis_of(1, x.shape)
    if channels is None:
        build.refuse("takes the examples for channels: they see each other")
    scale = (variance + eps).rsqrt()
    scale = scale if weight is None else weight * scale
    removed = mean * scale
    shift = -removed if bias is None else bias - removed
    shape = tuple(-1 if axis == channels else 1 for axis in range(len(x.shape) + 1))
    return build.step(ScaleShift(scale.view(shape), shift.view(shape), removed.view(shape)), x), None, None


@operator("aten.batch_norm.default", bounded="exact affine")
def batch_norm_call(
    build: Builder,
    x: Traced,
    weight: Tensor | None,
    bias: Tensor | None,
    mean: Tensor,
    variance: Tensor,
    training: bool,
    momentum: float,
    eps: float,
    cudnn: bool,
) -> Traced:
    """Batch normalisation, as one call."""
    if training:
        build.refuse("uses the batch's own statistics: examples see each other, and nothing of one can be bounded alone")
    found: Traced = batch_norm.function(build, x, weight, bias, mean, variance, momentum, eps)[0]
    return found


RULES = (
    linear,
    addmm,
    matmul,
    einsum,
    convolution,
    padded_convolution,
    transposed_convolution,
    batch_norm,
    batch_norm_call,
)
