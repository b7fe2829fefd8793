"""Pooling over windows of an image."""

from __future__ import annotations

import math
from typing import Any

import torch

from newrelax.network.build import Builder, Traced
from newrelax.network.layout import Layout
from newrelax.network.operators.pooling import AveragePool, MaxPool
from newrelax.network.operators.rule import operator

aten = torch.ops.aten


def _tuple(value: Any, count: int, default: tuple[int, ...] | None = None) -> tuple[int, ...]:
    values = tuple(int(part) for part in value) if isinstance(value, (list, tuple)) else (int(value),)
    if not values and default is not None:
        return default
    return values * count if len(values) == 1 else values


@operator("aten.avg_pool1d.default", "aten.avg_pool2d.default", "aten.avg_pool3d.default", bounded="exact affine")
def average_pool(
    build: Builder,
    x: Traced,
    kernel: Any,
    stride: Any = (),
    padding: Any = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor: int | None = None,
) -> Traced:
    """Means over windows."""
    count = int(build.site.operator[len("aten.avg_pool")])
    kernel = _tuple(kernel, count)
    stride, padding = _tuple(stride, count, kernel), _tuple(padding, count)
    counted = count_include_pad or not any(padding)
    if x.layout.is_plain and len(x.shape) == count + 1 and not ceil_mode and divisor is None and counted:
        return build.step(AveragePool(x.shape[0], x.shape[1:], kernel, stride, padding), x)
    call = {1: aten.avg_pool1d, 2: aten.avg_pool2d, 3: aten.avg_pool3d}[count]
    more = () if count == 1 else (divisor,)
    return build.call(lambda n, value: call(value, kernel, stride, padding, ceil_mode, count_include_pad, *more), x)


@operator("aten.max_pool1d.default", "aten.max_pool2d.default", "aten.max_pool3d.default", bounded="planes")
def max_pool(
    build: Builder, x: Traced, kernel: Any, stride: Any = (), padding: Any = 0, dilation: Any = 1, ceil_mode: bool = False
) -> Traced:
    """Maxima over windows: intervals exact, planes through one place of each."""
    count = int(build.site.operator[len("aten.max_pool")])
    kernel = _tuple(kernel, count)
    stride, padding, dilation = _tuple(stride, count, kernel), _tuple(padding, count), _tuple(dilation, count)
    images, size = _images(build, x, count), x.shape[-count:]
    windows = build.shape[-count:]
    pool = MaxPool(size, windows, kernel, stride, padding, dilation)
    found = build.step(pool, images, shape=(*images.shape[:-count], *windows), layout=Layout())
    return build.reshaped(found, build.shape, build.layout)


def _images(build: Builder, x: Traced, count: int) -> Traced:
    """x as [n, channels, *image], whatever is before its last `count` axes."""
    if len(x.shape) < count or x.layout.axis >= len(x.layout.sizes(x.shape)) - count:
        build.refuse("over the examples' own axis has no bounds here: they would see each other")
    channels = math.prod(x.shape[: len(x.shape) - count])
    return build.reshaped(x, (channels, *x.shape[len(x.shape) - count :]), Layout())


@operator(
    "aten.amax.default",
    "aten.amin.default",
    "aten.max.dim",
    "aten.min.dim",
    "aten.max.default",
    "aten.min.default",
    bounded="planes",
)
def largest(build: Builder, x: Traced, dims: Any = (), keepdim: bool = False) -> Any:
    """The largest or smallest along axes."""
    axes = [int(d) for d in dims] if isinstance(dims, (list, tuple)) else [int(dims)]
    rank = len(x.shape) + 1
    found = [x.layout.axis_of(d, x.shape) for d in axes] or [None]
    if None in found:
        build.refuse("over the batch has no bounds: examples see each other")
    reduced = sorted(axis for axis in found if axis is not None)
    kept = [d for d in range(1, rank) if d not in reduced]
    count = math.prod(x.shape[d - 1] for d in reduced)
    smallest = ".min" in build.site.operator or ".amin" in build.site.operator
    rows = build.moved(x, lambda value: value.permute(0, *kept, *reduced).reshape(len(value), -1, count), injective=True)
    result = build.reshaped(_largest(build, rows, smallest), build.shape, build.layout)
    return (result, None) if build.site.operator.endswith(".dim") else result


def _largest(build: Builder, rows: Traced, smallest: bool = False) -> Traced:
    """The largest (or smallest) of each row of [n, rows, count], [n, rows, 1]."""
    count = rows.shape[1]
    pool = MaxPool((count,), (1,), (count,), (count,), (0,), (1,))
    found = build.step(pool, build.negate(rows) if smallest else rows, shape=(rows.shape[0], 1), layout=Layout())
    return build.negate(found) if smallest else found


@operator(
    "aten.adaptive_max_pool1d.default", "aten.adaptive_max_pool2d.default", "aten.adaptive_max_pool3d.default", bounded="planes"
)
def adaptive_max_pool(build: Builder, x: Traced, output: Any) -> tuple[Traced, None]:
    """Maxima over windows of equal size, or of different ones."""
    count = int(build.site.operator[len("aten.adaptive_max_pool")])
    images, size, wanted = _images(build, x, count), x.shape[-count:], build.shape[-count:]
    channels = images.shape[:-count]
    if all(have % want == 0 for have, want in zip(size, wanted, strict=True)):
        kernel = tuple(have // want for have, want in zip(size, wanted, strict=True))
        pool = MaxPool(size, wanted, kernel, kernel, (0,) * len(size), (1,) * len(size))
        found = build.step(pool, images, shape=(*channels, *wanted), layout=Layout())
    else:
        places = _places(size, wanted)
        rows = build.moved(images, lambda value: value.flatten(2)[:, :, places.to(value.device)].flatten(1, 2))
        found = _largest(build, rows)
    return build.reshaped(found, build.shape, build.layout), None


def _places(size: tuple[int, ...], wanted: tuple[int, ...]) -> torch.Tensor:
    """Indices into the flat image of what each adaptive window sees, [windows, places]; the last ones repeated."""
    index = torch.zeros((), dtype=torch.long)
    for have, want in zip(size, wanted, strict=True):
        starts = [(i * have) // want for i in range(want)]
        ends = [-(-((i + 1) * have) // want) for i in range(want)]
        most = max(end - start for start, end in zip(starts, ends, strict=True))
        along = torch.tensor([[min(start + k, end - 1) for k in range(most)] for start, end in zip(starts, ends, strict=True)])
        index = (index[..., None, None] * have + along) if index.ndim else along
    order = [*range(0, index.ndim, 2), *range(1, index.ndim, 2)]
    return index.permute(order).reshape(math.prod(wanted), -1)


RULES = (average_pool, max_pool, largest, adaptive_max_pool)
