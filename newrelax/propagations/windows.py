"""Back-substitution in windows: only a neuron's receptive field has coefficients.

The coefficients of one neuron of an image are a small image, its window into an earlier step. All neurons of a channel start
with the same window, so that positions take the place of examples: cut every enclosure and the input's radius into windows,
one for each position, and the windows go through `substitution` as a batch of batch × positions with one row a channel.

Branches that meet again (at an addition's common source) have windows of different sizes there, around the same places:
the smaller ones are padded. What is outside the image is zero: the cut planes and radii take it out, and a mask does where
an operator that moves places follows none of them. Where windows would be no smaller than the image, they are laid into it
and the way goes on with whole images.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from newrelax.cpu.convolution import sliding
from newrelax.network.network import Network
from newrelax.network.operators.base import Affine, Footprint, Nonlinear, Operator

Pair = tuple[int, int]

DENSE_FROM = 0.75
"""Share of the image that a window may reach before whole images are as good: windows reach over its edges."""


@dataclass(frozen=True)
class Field:
    """Windows into an image: of rows × columns `size`, one for each of `count` positions, `stride` apart, the first one
    starting at −`padding`."""

    size: Pair
    stride: Pair
    padding: Pair
    count: Pair

    @property
    def positions(self) -> int:
        return self.count[0] * self.count[1]

    def before(self, footprint: Footprint) -> Field:
        """The windows into an operator's input, from these into its output."""
        axes = [
            ((n - 1) * s + d * (k - 1) + 1, at * s, pad * s + p)
            for n, at, pad, k, s, p, d in zip(
                self.size,
                self.stride,
                self.padding,
                footprint.kernel,
                footprint.stride,
                footprint.padding,
                footprint.dilation,
                strict=True,
            )
        ]
        (rows, down, top), (columns, right, left) = axes
        return Field((rows, columns), (down, right), (top, left), self.count)

    def with_(self, other: Field) -> Field:
        """The smallest windows around the same positions that hold these and the others."""
        padding = _pair(max(a, b) for a, b in zip(self.padding, other.padding, strict=True))
        ends = (max(n - p, m - q) for n, p, m, q in zip(self.size, self.padding, other.size, other.padding, strict=True))
        size = _pair(end + pad for end, pad in zip(ends, padding, strict=True))
        return Field(size, self.stride, padding, self.count)

    def widen(self, a: Tensor, smaller: Field) -> Tensor:
        """Coefficients on smaller windows as coefficients on these; a: [..., rows, columns]."""
        if smaller == self:
            return a
        edges: list[int] = []
        for axis in (1, 0):  # F.pad counts from the last axis
            before = self.padding[axis] - smaller.padding[axis]
            edges += [before, self.size[axis] - smaller.size[axis] - before]
        return F.pad(a, edges)

    def _edges(self, image: Pair) -> tuple[list[int], Pair]:
        """What to add around an image (or take away) so that the windows fit, as F.pad takes it, and the size then."""
        edges: list[int] = []
        sizes = []
        for axis in (1, 0):
            end = (self.count[axis] - 1) * self.stride[axis] + self.size[axis]
            edges += [self.padding[axis], end - self.padding[axis] - image[axis]]
            sizes.append(end)
        return edges, (sizes[1], sizes[0])

    def reaches_over(self, image: Pair) -> bool:
        """Whether a window has places outside the image."""
        return any(edge > 0 for edge in self._edges(image)[0])

    def cut(self, x: Tensor) -> Tensor:
        """[batch, channels, height, width] → [batch·positions, channels, *size]; zeros outside."""
        edges, _ = self._edges((x.shape[2], x.shape[3]))
        found = sliding(F.pad(x, edges), self.size, self.stride)
        return found.permute(0, 2, 3, 1, 4, 5).reshape(-1, x.shape[1], *self.size)

    def lay(self, a: Tensor, image: Pair) -> Tensor:
        """Coefficients on windows, [k·positions or 1, rows, channels, *size], as coefficients on whole images,
        [k or 1, positions·rows, channels, *image]: what is outside falls away."""
        if len(a) == 1:
            a = a.expand(self.positions, *a.shape[1:])
        laid: Tensor = _Laid.apply(a.unflatten(0, (-1, self.positions)), self, image)
        return laid.flatten(1, 2)

    def places(self, image: Pair) -> list[tuple[tuple[slice, slice], tuple[slice, slice]]]:
        """For each position, where its window lies in the image, and which part of the window that is."""
        axes = []
        for axis in (0, 1):
            starts = [at * self.stride[axis] - self.padding[axis] for at in range(self.count[axis])]
            spans = [(start, max(start, 0), min(start + self.size[axis], image[axis])) for start in starts]
            axes.append(
                [(slice(low, max(low, high)), slice(low - start, max(low, high) - start)) for start, low, high in spans]
            )
        return [((y, x), (v, u)) for y, v in axes[0] for x, u in axes[1]]


class _Laid(torch.autograd.Function):
    """Windows [batch, positions, rows, channels, *size] laid into images [batch, positions, rows, channels, *image].

    Position by position: nothing is copied twice, and nothing kept for the gradient.
    """

    @staticmethod
    def forward(ctx: Any, a: Tensor, field: Field, image: Pair) -> Tensor:
        ctx.field, ctx.shape, ctx.image = field, a.shape, image
        canvas = a.new_zeros(*a.shape[:4], *image)
        for position, ((y, x), (v, u)) in enumerate(field.places(image)):
            canvas[:, position, :, :, y, x] = a[:, position, :, :, v, u]
        return canvas

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        found = gradient.new_zeros(ctx.shape)
        for position, ((y, x), (v, u)) in enumerate(ctx.field.places(ctx.image)):
            found[:, position, :, :, v, u] = gradient[:, position, :, :, y, x]
        return found, None, None


def _pair(values: Iterable[int]) -> Pair:
    first, second = values
    return first, second


@dataclass(frozen=True)
class Windows:
    """The windows of every step on the way back from step `start`; None for steps whose images are whole.

    widest: the most coefficients that one row of `start` has on the way, for an example.
    """

    start: int
    fields: Mapping[int, Field | None]
    widest: int

    @classmethod
    def of(cls, network: Network, start: int, rows: range) -> Windows | None:
        """For the positions in these rows of step `start`; None where whole images are as good from the first step on."""
        shape = network.steps[start].shape
        if len(shape) != 3 or shape[1] * shape[2] == 1:
            return None
        first = Field((1, 1), (1, 1), (-rows.start, 0), (len(rows), shape[2]))
        fields: dict[int, Field | None] = {start: first}
        widest = 0
        for index in range(start, network.structure.origin, -1):
            if index not in fields:
                continue
            step, field = network.steps[index], fields[index]
            for source in step.inputs:
                image = network.steps[source].shape if source >= 0 else network.input_shape
                found = None if field is None else _before(step.operator, field, image)
                earlier = fields.get(source, found)
                union = None if found is None or earlier is None else earlier.with_(found)
                fields[source] = union if union is not None and _is_small(union, image) else None
                size = image[1] * image[2] if len(image) == 3 else 1
                if union is not None and fields[source] is not None:
                    size = union.size[0] * union.size[1]
                    widest = max(widest, first.positions * image[0] * size)
                else:
                    widest = max(widest, first.positions * torch.Size(image).numel())
        if not any(field is not None for index, field in fields.items() if index != start):
            return None
        return cls(start, fields, widest)


def _is_small(field: Field, image: tuple[int, ...]) -> bool:
    return field.size[0] * field.size[1] < DENSE_FROM * image[1] * image[2]


def _before(operator: Operator, field: Field, image: tuple[int, ...]) -> Field | None:
    footprint = operator.footprint if isinstance(operator, (Affine, Nonlinear)) else None
    if footprint is None or len(image) != 3:
        return None
    found = field.before(footprint)
    if isinstance(operator, Affine) and operator.windowed(found.size) is None:
        return None
    return found
