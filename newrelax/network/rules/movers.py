"""Operators that move, copy or add up features: exact affine, without weights."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from newrelax.network.build import Builder, Traced, is_traced, resolve
from newrelax.network.operators.arithmetic import Concatenate
from newrelax.network.operators.move import Reshape
from newrelax.network.operators.rule import Rule, operator

aten = torch.ops.aten


@operator(
    "aten.view.default",
    "aten.view_as.default",
    "aten.reshape.default",
    "aten._unsafe_view.default",
    "aten.flatten.using_ints",
    "aten.unflatten.int",
    "aten.squeeze.dim",
    "aten.squeeze.dims",
    "aten.squeeze.default",
    "aten.unsqueeze.default",
    bounded="exact affine",
)
def reshape(build: Builder, x: Traced, *arguments: Any) -> Traced:
    """The same features in another shape."""
    if x.layout.is_plain and build.layout.is_plain:
        return build.step(Reshape(x.shape, build.shape), x).at_least(x.floor)
    shape, layout = build.shape, build.layout
    found = build.call(lambda n, value: value.reshape(layout.sizes(shape, n)), x, pointwise=True, injective=True)
    return found.at_least(x.floor)


@operator(
    "aten.clone.default",
    "aten.contiguous.default",
    "aten.alias.default",
    "aten.detach.default",
    "aten.lift_fresh_copy.default",
    "aten._to_copy.default",
    "aten.to.dtype",
    "aten.to.dtype_layout",
    "aten.to.device",
    "aten.type_as.default",
    "aten.dropout.default",
    "aten.feature_dropout.default",
    "aten.alpha_dropout.default",
    "aten.feature_alpha_dropout.default",
    "aten._assert_tensor_metadata.default",
    bounded="exact affine",
)
def identity(build: Builder, x: Traced, *arguments: Any) -> Traced:
    """The features as they are (dropout in evaluation mode, copies)."""
    if build.site.operator.endswith("dropout.default") and arguments[-1]:
        build.refuse("draws random numbers in evaluation mode: pass training=self.training, or take it out")
    return x


def _mover(*names: str, injective: bool = True, dims: int | None = None) -> Rule:
    """A rule for a call that only moves features: the first argument's (or the first list's). dims: the argument that names
    an axis; along the channels, windows of an image pass."""

    def move(build: Builder, x: Any, *arguments: Any) -> Traced:
        if not isinstance(x, Traced) or is_traced(*arguments):
            build.refuse("with arguments that depend on the input has no bounds here")
        call = overload(build.site.operator)
        axis = arguments[dims] if dims is not None else None
        channels = axis in (1, -3) and len(x.shape) == 3 and x.layout.is_plain
        found = build.call(
            lambda n, value: call(value, *resolve(arguments, n)),
            x,
            pointwise=True,
            injective=injective,
            channelwise=channels,
        )
        return found.at_least(min(x.floor, 0.0) if "tri" in build.site.operator or "im2col" in build.site.operator else x.floor)

    return Rule(names, "exact affine", move)


def overload(name: str) -> Callable[..., Tensor]:
    """The operator of that name, "aten.permute.default", taking all its arguments in the order of its schema."""
    namespace, packet, which = name.split(".")
    operator_ = getattr(getattr(getattr(torch.ops, namespace), packet), which)
    by_name = [argument.name for argument in operator_._schema.arguments if argument.kwarg_only]
    count = len(operator_._schema.arguments) - len(by_name)

    def call(*arguments: Any) -> Tensor:
        found: Tensor = operator_(*arguments[:count], **dict(zip(by_name, arguments[count:], strict=False)))
        return found

    return call


MOVERS = _mover(
    "aten.permute.default",
    "aten.transpose.int",
    "aten.t.default",
    "aten.swapaxes.default",
    "aten.movedim.int",
    "aten.movedim.intlist",
    "aten.select.int",
    "aten.narrow.default",
    "aten.flip.default",
    "aten.roll.default",
    "aten.pixel_shuffle.default",
    "aten.pixel_unshuffle.default",
    "aten.channel_shuffle.default",
    "aten.numpy_T.default",
    "aten.diagonal.default",
    "aten.tril.default",
    "aten.triu.default",
    "aten.rot90.default",
    "aten.native_channel_shuffle.default",
    "aten.mT.default",
)
SLICES = _mover("aten.slice.Tensor", dims=0)
COPIES = _mover(
    "aten.expand.default",
    "aten.repeat.default",
    "aten.tile.default",
    "aten.index_select.default",
    "aten.upsample_nearest1d.vec",
    "aten.upsample_nearest2d.vec",
    "aten.upsample_nearest3d.vec",
    "aten.upsample_nearest1d.default",
    "aten.upsample_nearest2d.default",
    "aten.upsample_nearest3d.default",
    "aten.reflection_pad1d.default",
    "aten.reflection_pad2d.default",
    "aten.reflection_pad3d.default",
    "aten.replication_pad1d.default",
    "aten.replication_pad2d.default",
    "aten.replication_pad3d.default",
    "aten.im2col.default",
    "aten.unfold.default",
    "aten.repeat_interleave.self_int",
    injective=False,
)


@operator("aten.pad.default", "aten.constant_pad_nd.default", bounded="exact affine")
def pad(build: Builder, x: Traced, *arguments: Any) -> Traced:
    """Constants, copies or reflections around."""
    call, constant = overload(build.site.operator), True
    if build.site.operator == "aten.pad.default" and arguments[1] != "constant":
        constant = False
    value = arguments[-1] or 0.0
    return build.call(
        lambda n, part: call(part, *resolve(arguments, n)),
        x,
        absolute=_zero_padded(call, arguments, constant),
        offset=bool(constant and value),
        pointwise=True,
        injective=constant,
    )


def _zero_padded(call: Any, arguments: tuple[Any, ...], constant: bool) -> Any:
    changed = (*arguments[:-1], 0.0) if constant else arguments
    return lambda n, part: call(part, *resolve(changed, n))


@operator("aten.masked_fill.Scalar", "aten.masked_fill.Tensor", bounded="exact affine")
def masked_fill(build: Builder, x: Traced, mask: Tensor, value: Any) -> Traced:
    """A constant where a constant mask says so."""
    if is_traced(mask, value):
        build.refuse("with a mask that depends on the input has no bounds here")
    constant = build.finite(value)
    found = build.call(
        lambda n, part: torch.where(mask, constant, part),
        x,
        absolute=lambda n, part: part.masked_fill(mask, 0.0),
        offset=True,
        pointwise=True,
        injective=True,
    )
    return found if isinstance(value, Tensor) else found.at_least(min(x.floor, value))


@operator("aten.where.self", "aten.where.ScalarOther", "aten.where.ScalarSelf", bounded="exact affine")
def where(build: Builder, mask: Any, x: Any, y: Any) -> Traced:
    """One of two values by a constant mask."""
    if is_traced(mask):
        build.refuse("with a condition that depends on the input has no bounds here: write it with relu, clamp or maximum")
    traced = [part for part in (x, y) if isinstance(part, Traced)]
    fixed = [None if isinstance(part, Traced) else build.finite(part) for part in (x, y)]

    def choose(n: int, *values: Tensor) -> Tensor:
        left = iter(values)
        first, second = (next(left) if constant is None else constant for constant in fixed)
        return torch.where(mask, first, second)

    def absolute(n: int, *values: Tensor) -> Tensor:
        left = iter(values)
        first, second = (next(left) if constant is None else torch.zeros_like(constant) for constant in fixed)
        return torch.where(mask, first, second)

    return build.call(choose, *traced, absolute=absolute, offset=len(traced) == 1, pointwise=len(traced) == 1)


@operator("aten.cat.default", "aten.concat.default", bounded="exact affine")
def concatenate(build: Builder, parts: list[Any], dim: int = 0) -> Traced:
    """Steps and constants side by side."""
    return _joined(build, parts, dim, torch.cat)


@operator("aten.stack.default", bounded="exact affine")
def stack(build: Builder, parts: list[Any], dim: int = 0) -> Traced:
    """Steps and constants along a new axis."""
    return _joined(build, parts, dim, torch.stack)


def _joined(build: Builder, parts: list[Any], dim: int, join: Any) -> Traced:
    traced = [part for part in parts if isinstance(part, Traced)]
    plain = build.layout.is_plain and all(part.layout.is_plain for part in traced)
    axis = dim % (len(build.shape) + 1)
    if join is torch.cat and plain and len(traced) == len(parts) and axis:
        found = build.step(Concatenate(axis, tuple(part.shape[axis - 1] for part in parts)), *traced)
        return found.at_least(min(part.floor for part in traced))
    fixed = [None if isinstance(part, Traced) else build.constant(part) for part in parts]

    def put(n: int, values: tuple[Tensor, ...], constants: list[Tensor | None]) -> Tensor:
        left = iter(values)
        every = [next(left) if constant is None else repeated(constant, traced[0], n) for constant in constants]
        found: Tensor = join(every, dim)
        return found

    zero = [None if constant is None else torch.zeros_like(constant) for constant in fixed]
    return build.call(
        lambda n, *values: put(n, values, fixed),
        *traced,
        absolute=lambda n, *values: put(n, values, zero),
        offset=len(traced) < len(parts),
        pointwise=len(traced) == 1,
        injective=len(traced) == 1,
    )


def repeated(constant: Tensor, like: Traced, n: int) -> Tensor:
    """A constant for one example, for n of them, where a step has its examples."""
    sizes, axis = list(constant.shape), like.layout.axis
    if like.layout.multiple == 1 and axis < len(sizes) and sizes[axis] == 1:
        sizes[axis] = n
    return constant.expand(sizes)


@operator("aten.copy.default", bounded="exact affine")
def copy(build: Builder, x: Any, source: Any, non_blocking: bool = False) -> Traced:
    """Another tensor's values in the shape of x (`h[:, 0] = …`, as torch writes it)."""
    if isinstance(source, Traced):
        return build.expanded(source)
    value = build.constant(source)
    return build.call(lambda n, part: part * 0 + value, x, absolute=lambda n, part: part * 0, offset=True, pointwise=True)


@operator("aten.expand_as.default", bounded="exact affine")
def expand_as(build: Builder, x: Any, like: Any) -> Traced:
    """A value in the shape of another one."""
    found: Traced = copy.function(build, like, x)
    return found


@operator(
    "aten.fill.Scalar",
    "aten.fill.Tensor",
    "aten.zeros_like.default",
    "aten.ones_like.default",
    "aten.full_like.default",
    "aten.empty_like.default",
    "aten.new_zeros.default",
    "aten.new_ones.default",
    "aten.new_full.default",
    "aten.new_empty.default",
    bounded="exact affine",
)
def filled(build: Builder, x: Any, *arguments: Any) -> Tensor:
    """A constant in the shape of a step."""
    name = build.site.operator
    if is_traced(*arguments):
        build.refuse("with a value that depends on the input has no bounds here")
    number = (
        1.0
        if "ones" in name
        else arguments[1]
        if "new_full" in name
        else arguments[0]
        if "ful" in name or "fill" in name
        else 0.0
    )
    return build.constant(number).expand(build.shape)


def _parts(build: Builder, x: Traced, dim: int, starts: list[int], sizes: list[int], *, keep: bool = True) -> list[Traced]:
    channels = dim in (1, -3) and len(x.shape) == 3 and x.layout.is_plain and keep

    def part(i: int) -> Traced:
        def cut(n: int, value: Tensor) -> Tensor:
            found = value.narrow(dim, starts[i], sizes[i])
            return found if keep else found.squeeze(dim)

        found = build.call(cut, x, pointwise=True, injective=True, channelwise=channels, output=build.site.outputs[i])
        return found.at_least(x.floor)

    return [part(i) for i in range(len(starts))]


@operator("aten.split.Tensor", "aten.split_with_sizes.default", "aten.split.sizes", bounded="exact affine")
def split(build: Builder, x: Traced, size: Any, dim: int = 0) -> list[Traced]:
    """Parts along an axis."""
    length = _length(x, dim)
    sizes = (
        [int(s) for s in size] if isinstance(size, (list, tuple)) else [min(size, length - at) for at in range(0, length, size)]
    )
    return _parts(build, x, dim, [sum(sizes[:i]) for i in range(len(sizes))], sizes)


@operator("aten.chunk.default", bounded="exact affine")
def chunk(build: Builder, x: Traced, chunks: int, dim: int = 0) -> list[Traced]:
    """So many parts along an axis."""
    length = _length(x, dim)
    found: list[Traced] = split.function(build, x, -(-length // chunks), dim)
    return found


@operator("aten.unbind.int", bounded="exact affine")
def unbind(build: Builder, x: Traced, dim: int = 0) -> list[Traced]:
    """The entries of an axis, each by itself."""
    length = _length(x, dim)
    return _parts(build, x, dim, list(range(length)), [1] * length, keep=False)


def _length(x: Traced, dim: int) -> int:
    return x.layout.sizes(x.shape)[dim]


@operator(
    "aten.mean.dim",
    "aten.mean.default",
    "aten.sum.dim_IntList",
    "aten.sum.default",
    "aten.cumsum.default",
    "aten.adaptive_avg_pool1d.default",
    "aten.adaptive_avg_pool2d.default",
    "aten.adaptive_avg_pool3d.default",
    "aten._adaptive_avg_pool2d.default",
    "aten._adaptive_avg_pool3d.default",
    "aten.col2im.default",
    "aten.upsample_bilinear2d.vec",
    "aten.upsample_linear1d.vec",
    "aten.upsample_trilinear3d.vec",
    "aten.upsample_bilinear2d.default",
    "aten._upsample_bilinear2d_aa.default",
    "aten._upsample_bilinear2d_aa.vec",
    "aten.upsample_linear1d.default",
    "aten.upsample_trilinear3d.default",
    bounded="exact affine",
)
def total(build: Builder, x: Traced, *arguments: Any) -> Traced:
    """Sums, means and interpolations over features."""
    if not isinstance(x, Traced) or is_traced(*arguments):
        build.refuse("with arguments that depend on the input has no bounds here")
    call = overload(build.site.operator)
    found = build.call(lambda n, value: call(value, *resolve(arguments, n)), x)
    if "sum" not in build.site.operator and "col2im" not in build.site.operator:
        return found.at_least(x.floor)  # a mean
    return found.at_least(0.0) if x.floor >= 0 else found


RULES = (
    reshape,
    identity,
    MOVERS,
    SLICES,
    COPIES,
    pad,
    masked_fill,
    where,
    concatenate,
    stack,
    copy,
    expand_as,
    filled,
    split,
    chunk,
    unbind,
    total,
)
