"""Back-substitution from a convolution through convolutions: only a neuron's receptive field has coefficients.

The coefficients of one neuron are a small image, its window into an earlier layer. All neurons of a channel start with
the same window, so that positions take the place of samples: cut every ReLU's lines and the input's radius into windows,
one for each position, and the windows go through `substitution` as a batch of batch × positions small networks with one
spec per channel. Lines and radii outside the image are 0, which takes the padding's coefficients out.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor

from .affine import BatchNorm, Conv, sliding
from .graph import Graph, Relu, Step
from .substitution import ReluLines

Pair = tuple[int, int]


@dataclass(frozen=True)
class Field:
    """Windows into a layer: of rows × columns `size`, one for each of `count` positions, `stride` apart, the first one
    starting at −`padding`."""

    size: Pair
    stride: Pair
    padding: Pair
    count: Pair

    def before(self, conv: Conv) -> Field:
        """The windows into the input of a convolution, from these into its output."""
        per_axis = zip(self.size, self.stride, self.padding, conv.kernel, conv.stride, conv.padding, conv.dilation, strict=True)
        found = [((n - 1) * s + d * (k - 1) + 1, at * s, pad * s + p) for n, at, pad, k, s, p, d in per_axis]
        (rows, down, top), (columns, right, left) = found
        return Field((rows, columns), (down, right), (top, left), self.count)

    def cut(self, x: Tensor) -> Tensor:
        """[batch, channels, height, width] → [batch·positions, channels, *size]."""
        edges: list[int] = []
        for axis in (1, 0):  # F.pad counts from the last axis
            end = (self.count[axis] - 1) * self.stride[axis] + self.size[axis]
            edges += [self.padding[axis], end - self.padding[axis] - x.shape[2 + axis]]
        found = sliding(F.pad(x, edges), self.size, self.stride)
        return found.permute(0, 2, 3, 1, 4, 5).reshape(-1, x.shape[1], *self.size)


@dataclass(frozen=True)
class Windows:
    """The way from a convolution's output back to the box, in windows.

    graph: the steps on that way, as they act on windows. fields: the step's index in `graph` (−1: the box) → its index in
    the whole network and its windows.
    """

    graph: Graph
    fields: Mapping[int, tuple[int, Field]]

    @classmethod
    def of(cls, graph: Graph, start: int) -> Windows | None:
        """None where the way has other steps than convolutions after ReLUs, or windows would save less than half."""
        shape = graph.steps[start].shape
        if len(shape) != 3:
            return None
        field, way, index = Field((1, 1), (1, 1), (0, 0), shape[1:]), [], start
        while index > graph.origin:
            step = graph.steps[index]
            operator, size, source = step.operator, (step.shape[0], *field.size), step.inputs[0]
            fields = index, field
            if isinstance(operator, Conv):
                if source != graph.origin and not isinstance(graph.steps[source].operator, Relu):
                    return None  # nothing would take the padding's coefficients out
                field = field.before(operator)
                operator = operator.on_windows(field.size)
            elif not isinstance(operator, (BatchNorm, Relu)):
                return None
            way.append((operator, size, fields))
            index = source
        channels = (graph.steps[index].shape if index >= 0 else graph.input_shape)[0]
        way.reverse()
        steps = [Step(operator, (i - 1,), size) for i, (operator, size, _) in enumerate(way)]
        found = cls(
            Graph(steps, (channels, *field.size)), {-1: (index, field)} | {i: fields for i, (*_, fields) in enumerate(way)}
        )
        return found if 2 * found.graph.widest[-1] <= graph.widest[start] else None

    def cut(
        self, lines: Mapping[int, ReluLines], shapes: Mapping[int, tuple[int, ...]], radius: Tensor
    ) -> tuple[dict[int, ReluLines], Tensor]:
        """The whole network's lines and radius at the box, in windows."""
        cut: dict[int, ReluLines] = {}
        for i, (index, field) in self.fields.items():
            if index in lines and i >= 0:
                values = (lines[index].low, lines[index].up, lines[index].gap)
                image = shapes[index]
                cut[i] = ReluLines(*(None if v is None else field.cut(v.view(-1, *image)).flatten(1) for v in values))
        return cut, self.fields[-1][1].cut(radius)
