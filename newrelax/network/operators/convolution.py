"""Convolutions over one, two or three axes."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from newrelax.cpu import convolution as cpu
from newrelax.cpu import transposed
from newrelax.network.operators.base import Affine, Footprint, Shape

_CONVOLVE: dict[int, Any] = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}
_TRANSPOSE: dict[int, Any] = {1: F.conv_transpose1d, 2: F.conv_transpose2d, 3: F.conv_transpose3d}


@dataclass(frozen=True)
class Convolution(Affine):
    """weight: [outputs, inputs / groups, *kernel]; size: of the input image, without channels."""

    weight: Tensor
    bias: Tensor | None
    size: Shape
    stride: Shape
    padding: Shape
    dilation: Shape
    groups: int

    @property
    def _options(self) -> dict[str, Any]:
        return {"stride": self.stride, "padding": self.padding, "dilation": self.dilation, "groups": self.groups}

    @property
    def kernel(self) -> Shape:
        return tuple(self.weight.shape[2:])

    @property
    def footprint(self) -> Footprint | None:
        return Footprint(self.kernel, self.stride, self.padding, self.dilation) if len(self.size) == 2 else None

    def windowed(self, size: Shape) -> Convolution:
        return replace(self, padding=(0,) * len(size), size=size)

    def _has_own_kernels(self, x: Tensor) -> bool:
        plain = len(self.size) == 2 and self.groups == 1 and self.dilation == (1, 1)
        return plain and x.device.type == "cpu" and x.dtype == torch.float32

    def _act(self, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        single = weight.shape[1] == 1 and self._has_own_kernels(x)
        if single and not x.requires_grad and torch.is_grad_enabled() and cpu.slow_from_one_channel():
            return cpu.convolve(x, weight, bias, self.stride, self.padding)
        found: Tensor = _CONVOLVE[len(self.size)](x, weight, bias, **self._options)
        return found

    def value(self, *x: Tensor) -> Tensor:
        return self._act(x[0], self.weight, self.bias)

    def linear(self, *x: Tensor) -> Tensor:
        return self._act(x[0], self.weight)

    def magnitude(self, *radius: Tensor) -> Tensor:
        return self._act(radius[0], self.weight.abs())

    def ends(self, lower: Tensor, upper: Tensor) -> tuple[Tensor, Tensor]:
        convolve, options = _CONVOLVE[len(self.size)], self._options

        def signed(x: Tensor, y: Tensor) -> Tensor:
            plus: Tensor = convolve(x, self.weight.clamp(min=0), self.bias, **options)
            minus: Tensor = convolve(y, self.weight.clamp(max=0), **options)
            return plus + minus

        return signed(lower, upper), signed(upper, lower)

    def transpose(self, a: Tensor) -> tuple[Tensor, ...]:
        if self._has_own_kernels(a) and transposed.is_faster(self.weight, self.stride):
            return (transposed.transpose(a, self.weight, self.stride, self.padding, self.size),)
        # places that the stride never reaches have to be put back
        lost = tuple(
            size - ((out - 1) * stride - 2 * padding + dilation * (kernel - 1) + 1)
            for size, out, stride, padding, dilation, kernel in zip(
                self.size, a.shape[2:], self.stride, self.padding, self.dilation, self.kernel, strict=True
            )
        )
        # torch asks for less than a stride (or dilation) to be put back, as it always is
        return (_TRANSPOSE[len(self.size)](a, self.weight, output_padding=lost, **self._options),)
