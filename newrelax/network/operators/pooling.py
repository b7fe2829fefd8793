"""Average and max pooling over one, two or three axes."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from newrelax.cpu import pooling as cpu
from newrelax.network.enclosures import Enclosure, Field, Planes, Sloped
from newrelax.network.interval import Interval
from newrelax.network.operators.base import Affine, Footprint, LinesOf, Nonlinear, Shape

_TRANSPOSE: dict[int, Any] = {1: F.conv_transpose1d, 2: F.conv_transpose2d, 3: F.conv_transpose3d}
_MAXIMUM: dict[int, Any] = {1: F.max_pool1d, 2: F.max_pool2d, 3: F.max_pool3d}
_AVERAGE: dict[int, Any] = {1: F.avg_pool1d, 2: F.avg_pool2d, 3: F.avg_pool3d}


@dataclass(frozen=True)
class AveragePool(Affine):
    """Means over windows, padding counted; size: of the input image, channels: its number of them."""

    channels: int
    size: Shape
    kernel: Shape
    stride: Shape
    padding: Shape

    def value(self, *x: Tensor) -> Tensor:
        found: Tensor = _AVERAGE[len(self.size)](x[0], self.kernel, self.stride, self.padding)
        return found

    linear = magnitude = value

    def transpose(self, a: Tensor) -> tuple[Tensor, ...]:
        weight = a.new_full((self.channels, 1, *self.kernel), 1 / math.prod(self.kernel))
        lost = tuple(
            size - ((out - 1) * stride - 2 * padding + kernel)
            for size, out, stride, padding, kernel in zip(
                self.size, a.shape[2:], self.stride, self.padding, self.kernel, strict=True
            )
        )
        kept = tuple(min(n, stride - 1) for n, stride in zip(lost, self.stride, strict=True))
        options: dict[str, Any] = {"stride": self.stride, "padding": self.padding, "groups": self.channels}
        image = _TRANSPOSE[len(self.size)](a, weight, output_padding=kept, **options)
        return (_grown(image, self.size),)

    @property
    def footprint(self) -> Footprint | None:
        return Footprint(self.kernel, self.stride, self.padding, (1, 1)) if len(self.size) == 2 else None

    def windowed(self, size: Shape) -> Affine | None:
        return replace(self, size=size, padding=(0,) * len(size))


def _grown(image: Tensor, size: Shape) -> Tensor:
    """Zeros after the image's last places, up to `size`: places that no window reaches."""
    edges = [
        edge for have, wanted in zip(reversed(image.shape[2:]), reversed(size), strict=True) for edge in (0, wanted - have)
    ]
    return F.pad(image, edges) if any(edges) else image


@dataclass(frozen=True)
class Places:
    """Where the places of a kernel lie in an image, for each window; all tuples: an entry for each axis."""

    size: Shape
    kernel: Shape
    stride: Shape
    padding: Shape
    dilation: Shape

    def index(self, chosen: Tensor) -> Tensor:
        """The chosen place of each window, [..., *windows] in the kernel's order, as an index into the flat image."""
        index, rest = torch.zeros_like(chosen), chosen
        for axis in reversed(range(len(self.kernel))):
            along = rest % self.kernel[axis]
            rest = rest // self.kernel[axis]
            at = self._starts(axis, chosen) + along * self.dilation[axis]
            index = index + at.clamp(0, self.size[axis] - 1) * math.prod(self.size[axis + 1 :])
        return index

    def chosen(self, index: Tensor) -> Tensor:
        """The places of the kernel, in its order, from indices into the flat image: what `index` undoes."""
        found = torch.zeros_like(index)
        for axis in range(len(self.kernel)):
            at = index // math.prod(self.size[axis + 1 :]) % self.size[axis]
            found = found * self.kernel[axis] + (at - self._starts(axis, index)) // self.dilation[axis]
        return found

    def _starts(self, axis: int, like: Tensor) -> Tensor:
        """The first place of each window along an axis; broadcasts against [..., *windows]."""
        count = like.shape[axis - len(self.kernel)]
        starts = torch.arange(count, device=like.device) * self.stride[axis] - self.padding[axis]
        return starts.view(-1, *[1] * (len(self.kernel) - 1 - axis))


@dataclass(frozen=True)
class Chosen(Enclosure):
    """The planes of a maximum that one place of each window may be taken for.

    index: of that place in the flat image, [batch, channels, *windows]. lines: of the maximum as a function of the value there.
    """

    lines: Sloped
    index: Tensor
    places: Places

    @property
    def gap(self) -> Tensor:  # type: ignore[override]
        return self.lines.gap

    def back(self, a: Tensor, *, count_gaps: bool) -> tuple[tuple[Tensor, ...], Tensor | None]:
        (out,), loss = self.lines.back(a, count_gaps=count_gaps)
        image = out.new_zeros(*out.shape[:3], math.prod(self.places.size))
        index = self.index.flatten(2).unsqueeze(1).expand(-1, out.shape[1], -1, -1)
        spread: Tensor = image.scatter_add_(3, index, out.flatten(3)).unflatten(3, self.places.size)
        return (spread,), loss

    def cut(self, field: Field) -> Chosen:
        size = tuple(
            (n - 1) * stride + dilation * (kernel - 1) + 1
            for n, stride, dilation, kernel in zip(
                field.size, self.places.stride, self.places.dilation, self.places.kernel, strict=True
            )
        )
        places = replace(self.places, size=size, padding=(0,) * len(size))
        chosen = field.cut(self.places.chosen(self.index).to(self.gap.dtype)).to(self.index.dtype)
        return Chosen(self.lines.cut(field), places.index(chosen), places)

    def carry(self, *noise: Tensor) -> Tensor:
        return self.lines.carry(at_index(noise[0], self.index))

    def carry_size(self, *size: Tensor) -> Tensor:
        return self.lines.carry_size(at_index(size[0], self.index))

    def grown(self, *size: Tensor) -> Tensor:
        return self.lines.grown(at_index(size[0], self.index))


def at_index(image: Tensor, index: Tensor) -> Tensor:
    """Values of images [..., channels, *size] at flat indices [batch, channels, *windows]; axes before the batch stay."""
    axes = index.ndim - 2
    flat, places = image.flatten(-axes), index.flatten(2)
    found: Tensor = flat.gather(-1, places.expand(*flat.shape[:-1], -1)).unflatten(-1, index.shape[2:])
    return found


@dataclass(frozen=True)
class MaxPool(Nonlinear):
    """Maxima over windows; size: of the input image, windows: how many there are along each axis.

    One place of each window, the one with the largest lower bound, is the lower plane. Where no other place can exceed it, it
    is the maximum itself; elsewhere the upper plane is the largest upper bound, or, for parallel planes, that place plus
    what another one can have more. Source: Singh et al., "An abstract domain for certifying neural networks" (2019).
    """

    size: Shape
    windows: Shape
    kernel: Shape
    stride: Shape
    padding: Shape
    dilation: Shape

    def _pool(self, x: Tensor, *, indices: bool = False) -> Any:
        """The maxima, and where they lie. torch's own may give a window more or less at the end, as `ceil_mode` has it."""
        if self._has_own_kernel(x):
            found = cpu.max_pool(x, self.windows, self.kernel, self.stride, self.padding, self.dilation)
            return found if indices else found[0]
        ceil_mode = any(self._floor(axis) < self.windows[axis] for axis in range(len(self.size)))
        pool = _MAXIMUM[len(self.size)]
        return pool(x, self.kernel, self.stride, self.padding, self.dilation, ceil_mode=ceil_mode, return_indices=indices)

    def _has_own_kernel(self, x: Tensor) -> bool:
        few = len(self.size) == 2 and math.prod(self.kernel) <= cpu.PLACES
        return few and x.device.type == "cpu" and x.dtype in (torch.float32, torch.float64)

    def _floor(self, axis: int) -> int:
        room = self.size[axis] + 2 * self.padding[axis] - self.dilation[axis] * (self.kernel[axis] - 1) - 1
        return room // self.stride[axis] + 1

    def value(self, *x: Tensor) -> Tensor:
        found: Tensor = self._pool(x[0])
        return found

    def interval(self, *x: Interval) -> Interval:
        return Interval.between(self.value(x[0].lower), self.value(x[0].upper))

    @property
    def footprint(self) -> Footprint | None:
        return Footprint(self.kernel, self.stride, self.padding, self.dilation) if len(self.size) == 2 else None

    def _others(self, upper: Tensor, index: Tensor) -> Tensor:
        """The largest of each window but for the value at its index."""
        apart = all(s >= d * (k - 1) + 1 for k, s, d in zip(self.kernel, self.stride, self.dilation, strict=True))
        if apart:  # windows do not share places, so that each can be taken out of the image itself
            without = upper.flatten(2).scatter(2, index.flatten(2), -math.inf).view_as(upper)
            return self.value(without)
        places = Places(self.size, self.kernel, self.stride, self.padding, self.dilation)
        return self._met(upper).scatter(-1, places.chosen(index).unsqueeze(-1), -math.inf).amax(-1)

    def _met(self, x: Tensor) -> Tensor:
        """What each window sees, [n, channels, *windows, places]; −∞ outside the image."""
        extents = [dilation * (kernel - 1) + 1 for dilation, kernel in zip(self.dilation, self.kernel, strict=True)]
        axes = list(zip(self.size, self.windows, self.stride, self.padding, extents, strict=True))
        ends = [(count - 1) * stride + extent - padding - size for size, count, stride, padding, extent in axes]
        edges = [edge for axis in reversed(range(len(ends))) for edge in (self.padding[axis], max(ends[axis], 0))]
        met = F.pad(x, edges, value=-math.inf)
        for axis, (_, count, stride, _, extent) in enumerate(axes):
            met = met.unfold(2 + axis, extent, stride).narrow(2 + axis, 0, count)
        for axis, dilation in enumerate(self.dilation):
            places = (slice(None),) * (2 + len(self.size) + axis)
            met = met[(*places, slice(None, None, dilation))]
        return met.flatten(2 + len(self.size))

    def enclose(
        self, bounds: tuple[tuple[Tensor, Tensor], ...], reference: tuple[Tensor, ...], lines_of: LinesOf, parallel: bool
    ) -> tuple[Enclosure, Tensor]:
        lower, upper = bounds[0]
        least, index = self._pool(lower, indices=True)
        others = self._others(upper, index)
        more = (others - least).relu()
        one, zero = torch.ones_like(least), torch.zeros_like(least)
        if parallel:
            planes = Planes((one,), zero, (one,), more)
        else:
            crossing = more.detach() > 0
            largest = torch.maximum(others, at_index(upper, index))
            planes = Planes((one,), zero, (torch.where(crossing, zero, one),), torch.where(crossing, largest, zero))
        lines, value = Sloped.around(planes, (at_index(reference[0], index),), parallel)
        return Chosen(lines, index, Places(self.size, self.kernel, self.stride, self.padding, self.dilation)), value
