"""Features read, put or added at places that constants choose: exact affine."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from newrelax.network.build import Builder, Traced, is_traced, resolve
from newrelax.network.operators.rule import operator
from newrelax.network.rules.movers import overload, repeated

_BY_THE_INPUT = "with indices that depend on the input has no bounds here"


@operator("aten.index.Tensor", "aten._unsafe_index.Tensor", bounded="exact affine")
def index(build: Builder, x: Traced, indices: list[Any]) -> Traced:
    """Features chosen by constant indices."""
    if is_traced(*indices):
        build.refuse(_BY_THE_INPUT)
    places = tuple(slice(None) if i is None else i for i in indices)
    return build.call(lambda n, value: value[places], x, pointwise=True).at_least(x.floor)


@operator("aten.gather.default", bounded="exact affine")
def gather(build: Builder, x: Traced, dim: int, places: Tensor, sparse_grad: bool = False) -> Traced:
    """Features chosen by a constant index."""
    if is_traced(places):
        build.refuse(_BY_THE_INPUT)
    return build.call(
        lambda n, value: value.gather(dim, places.expand(n, *places.shape[1:]) if x.layout.is_plain else places),
        x,
        pointwise=True,
    )


@operator("aten.grid_sampler_2d.default", "aten.grid_sampler_3d.default", "aten.grid_sampler.default", bounded="exact affine")
def sampled(build: Builder, x: Any, grid: Any, *options: Any) -> Traced:
    """An image read at constant places, between its pixels."""
    if not isinstance(x, Traced) or is_traced(grid):
        build.refuse("at places that depend on the input has no bounds here")
    call = overload(build.site.operator)
    if options and options[0] == 2:
        build.refuse("by cubic interpolation has no bounds here: use mode='bilinear' or 'nearest'")
    return build.call(lambda n, value: call(value, repeated(grid.to(value), x, n), *options), x)


@operator("aten.select_scatter.default", "aten.slice_scatter.default", "aten.diagonal_scatter.default", bounded="exact affine")
def scatter(build: Builder, x: Any, source: Any, *arguments: Any) -> Traced:
    """A part of a tensor replaced (`h[:, 0] = …`)."""
    call = overload(build.site.operator)
    return _written(build, x, source, lambda n, into, part, like: call(into, repeated(part, like, n), *resolve(arguments, n)))


@operator("aten.index_copy.default", "aten.scatter.src", "aten.scatter_add.default", bounded="exact affine")
def put(build: Builder, x: Any, dim: int, places: Any, source: Any) -> Traced:
    """Values of one tensor put into another, or added to it: along an axis, or with a place for each value."""
    if is_traced(places):
        build.refuse(_BY_THE_INPUT)
    call, each = overload(build.site.operator), "scatter" in build.site.operator

    def write(n: int, into: Tensor, part: Tensor, like: Traced) -> Tensor:
        return call(into, dim, repeated(places, like, n) if each else places, repeated(part, like, n))

    return _written(build, x, source, write)


@operator("aten.index_add.default", bounded="exact affine")
def add(build: Builder, x: Any, dim: int, places: Any, source: Any, alpha: Any = 1) -> Traced:
    """Values of one tensor, times alpha, added to another's along an axis."""
    if is_traced(places):
        build.refuse(_BY_THE_INPUT)
    call = overload(build.site.operator)

    def write(n: int, into: Tensor, part: Tensor, like: Traced) -> Tensor:
        return call(into, dim, places, repeated(part, like, n), alpha)

    def write_sizes(n: int, into: Tensor, part: Tensor, like: Traced) -> Tensor:
        return call(into, dim, places, repeated(part, like, n), abs(alpha))

    return _written(build, x, source, write, write_sizes)


@operator("aten.index_put.default", bounded="exact affine")
def assign(build: Builder, x: Any, places: list[Any], source: Any, accumulate: bool = False) -> Traced:
    """Values put at indices of several axes, or added there (`h[:, places] = …`)."""
    if is_traced(*places):
        build.refuse(_BY_THE_INPUT)
    call = overload(build.site.operator)
    return _written(build, x, source, lambda n, into, part, like: call(into, places, part, accumulate))


Write = Callable[[int, Tensor, Tensor, Traced], Tensor]
"""(examples, tensor, what is written into it, a step that says where the examples are) → the tensor afterwards."""


def _written(build: Builder, x: Any, source: Any, write: Write, sizes: Write | None = None) -> Traced:
    """A step that writes `source` into x, either of which may be a constant. sizes: the same with absolute weights."""
    traced = [part for part in (x, source) if isinstance(part, Traced)]
    fixed = [None if isinstance(part, Traced) else build.constant(part) for part in (x, source)]
    zero = [None if constant is None else torch.zeros_like(constant) for constant in fixed]

    def both(n: int, values: tuple[Tensor, ...], constants: list[Tensor | None], write: Write) -> Tensor:
        left = iter(values)
        into = next(left) if constants[0] is None else repeated(constants[0], traced[0], n)
        return write(n, into, next(left) if constants[1] is None else constants[1], traced[0])

    return build.call(
        lambda n, *values: both(n, values, fixed, write),
        *traced,
        absolute=lambda n, *values: both(n, values, zero, sizes or write),
        offset=len(traced) == 1,
    )


RULES = (index, gather, sampled, scatter, put, add, assign)
