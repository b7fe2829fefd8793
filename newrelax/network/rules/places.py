"""Features put, added or read at places that constants choose."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from newrelax.network.build import Builder, Traced, is_traced
from newrelax.network.operators.rule import operator
from newrelax.network.rules.movers import overload, repeated


@operator(
    "aten.index_add.default",
    "aten.index_copy.default",
    "aten.index_put.default",
    "aten.scatter.src",
    "aten.scatter_add.default",
    bounded="exact affine",
)
def put(build: Builder, x: Any, *arguments: Any) -> Traced:
    """Values of one tensor put into another, or added to it."""
    call, by_list = overload(build.site.operator), "index_put" in build.site.operator
    places, source, options = (
        (arguments[:1], *arguments[1:2], arguments[2:]) if by_list else (arguments[:2], *arguments[2:3], arguments[3:])
    )
    if is_traced(*(places[0] if by_list else places)):
        build.refuse("with indices that depend on the input has no bounds here")
    traced = [part for part in (x, source) if isinstance(part, Traced)]
    fixed = [None if isinstance(part, Traced) else build.constant(part) for part in (x, source)]

    def written(n: int, values: tuple[Tensor, ...], constants: list[Tensor | None], more: tuple[Any, ...]) -> Tensor:
        left = iter(values)
        into = next(left) if constants[0] is None else repeated(constants[0], traced[0], n)
        part = next(left) if constants[1] is None else constants[1]
        if by_list:
            return call(into, *places, part, *more)
        dim, index = places
        if index.ndim == into.ndim and into.ndim > 1:  # scatter names a place for each value
            index = repeated(index, traced[0], n)
        return call(into, dim, index, repeated(part, traced[0], n), *more)

    zero = [None if constant is None else torch.zeros_like(constant) for constant in fixed]
    sizes = tuple(option if isinstance(option, bool) else abs(option) for option in options)  # alpha; accumulate
    return build.call(
        lambda n, *values: written(n, values, fixed, options),
        *traced,
        absolute=lambda n, *values: written(n, values, zero, sizes),
        offset=len(traced) == 1,
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


RULES = (put, sampled)
