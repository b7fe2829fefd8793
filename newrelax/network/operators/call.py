"""Any affine call of torch: its value is the call itself, its transpose the call's vector–Jacobian product."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from newrelax.network.layout import Layout
from newrelax.network.operators.base import POINT, Affine, Footprint, Shape

Function = Callable[..., Tensor]


@dataclass(frozen=True)
class Call(Affine):
    """function(n, x₁, x₂, …), affine in all x together, on tensors as the network itself has them.

    function: takes the number of examples first, where sizes in its arguments depend on it. shapes: of the inputs, per
    example. layouts, layout: where inputs and output have their batch axis. absolute: the call with absolute values in
    its weights' place; None: it has no weights below zero. offset: whether function(0) may differ from 0.
    channelwise: does the same in every place of an image, whatever its size.
    """

    function: Function
    shapes: tuple[Shape, ...]
    layouts: tuple[Layout, ...]
    layout: Layout
    absolute: Function | None = None
    offset: bool = False
    pointwise: bool = False
    injective: bool = False
    channelwise: bool = False

    def _call(self, function: Function, *x: Tensor) -> Tensor:
        native = (layout.native(part) for layout, part in zip(self.layouts, x, strict=True))
        return self.layout.canonical(function(len(x[0]), *native))

    def _without_offset(self, function: Function, *x: Tensor) -> Tensor:
        found = self._call(function, *x)
        if not self.offset:
            return found
        return found - self._call(function, *(part.new_zeros(1, *part.shape[1:]) for part in x))

    def value(self, *x: Tensor) -> Tensor:
        return self._call(self.function, *x)

    def linear(self, *x: Tensor) -> Tensor:
        return self._without_offset(self.function, *x)

    def magnitude(self, *radius: Tensor) -> Tensor:
        return self._without_offset(self.absolute or self.function, *radius)

    def transpose(self, a: Tensor) -> tuple[Tensor, ...]:
        differentiable = torch.is_grad_enabled()
        with torch.enable_grad():
            inputs = tuple(a.new_zeros(len(a), *shape).requires_grad_() for shape in self.shapes)
            output = self._call(self.function, *inputs)
            return torch.autograd.grad(output, inputs, a, create_graph=differentiable, materialize_grads=True)

    @property
    def footprint(self) -> Footprint | None:
        return POINT if self.channelwise else None

    def windowed(self, size: Shape) -> Affine | None:
        return replace(self, shapes=tuple((*shape[:-2], *size) for shape in self.shapes))
