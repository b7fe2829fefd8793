"""Affine operators y = Wx + b, as auto_LiRPA's parsed graph has them.

Bound propagation needs four things of one: its value, W alone, |W|, and Wᵀ. Each class here supplies them with plain torch
calls on the model's own parameters, so gradients come from autograd.
"""

from __future__ import annotations

from collections.abc import Sequence
from copy import copy
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from .cache import pieces
from .operator import ConstantOperand

FEW = 4
"""Input channels up to which a convolution is small: a CPU's own kernels are made for many."""


class Affine:
    """y = Wx + b on tensors [n, *features]."""

    diagonal = False  # W acts on each feature alone, or moves features: |W|r is exact through it

    def value(self, x: Tensor) -> Tensor:
        """Wx + b."""
        raise NotImplementedError

    def linear(self, x: Tensor) -> Tensor:
        """Wx."""
        raise NotImplementedError

    def magnitude(self, radius: Tensor) -> Tensor:
        """|W|·radius."""
        raise NotImplementedError

    def transpose(self, a: Tensor) -> Tensor:
        """Wᵀa, [n, *output features] → [n, *input features]."""
        raise NotImplementedError

    def ends(self, lower: Tensor, upper: Tensor) -> tuple[Tensor, Tensor]:
        """Bounds of Wx + b over lower ≤ x ≤ upper.

        Centre ∓ radius, unless a class can split W by signs, as DeepPoly does: equal but for rounding, which decides
        on which side of a jump (u = 0, say) a neuron of a sparse network lies.
        """
        center, radius = self.value((lower + upper) / 2), self.magnitude((upper - lower) / 2)
        return center - radius, center + radius


def sliding(x: Tensor, size: tuple[int, int], stride: tuple[int, int]) -> Tensor:
    """All windows of rows × columns `size` into images [n, channels, …]: a view, [n, channels, rows, columns, *size].

    `F.unfold` copies them two to four times slower, and on a GPU image by image.
    """
    return x.unfold(2, size[0], stride[0]).unfold(3, size[1], stride[1])


class Weighted(Affine):
    """An operator with a weight and perhaps a bias; a class says how a weight acts on its input."""

    def __init__(self, node: Any) -> None:
        self._weight, self._bias = node.inputs[1], node.inputs[2] if len(node.inputs) > 2 else None

    @property
    def weight(self) -> Tensor:
        return self._weight.forward()

    @property
    def bias(self) -> Tensor | None:
        return None if self._bias is None else self._bias.forward()

    def act(self, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        """The operator on x with this weight and bias in place of its own."""
        raise NotImplementedError

    def value(self, x: Tensor) -> Tensor:
        return self.act(x, self.weight, self.bias)

    def linear(self, x: Tensor) -> Tensor:
        return self.act(x, self.weight)

    def magnitude(self, radius: Tensor) -> Tensor:
        return self.act(radius, self.weight.abs())


class Linear(Weighted):
    def __init__(self, node: Any) -> None:
        super().__init__(node)
        self._transposed = bool(node.transB)

    @property
    def weight(self) -> Tensor:
        """[outputs, inputs]."""
        weight = super().weight
        return weight if self._transposed else weight.t()

    def act(self, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        return F.linear(x, weight, bias)

    def transpose(self, a: Tensor) -> Tensor:
        return a @ self.weight

    def ends(self, lower: Tensor, upper: Tensor) -> tuple[Tensor, Tensor]:
        positive, negative = self.weight.clamp(min=0), self.weight.clamp(max=0)
        low = F.linear(lower, positive, self.bias) + F.linear(upper, negative)
        return low, F.linear(upper, positive, self.bias) + F.linear(lower, negative)


class Conv(Weighted):
    """weight: [outputs, inputs / groups, *kernel]."""

    def __init__(self, node: Any) -> None:
        super().__init__(node)
        self._input_shape = tuple(node.inputs[0].output_shape[1:])
        self.stride, self.padding, self.dilation = tuple(node.stride), tuple(node.padding), tuple(node.dilation)
        self._groups = node.groups

    @property
    def _options(self) -> dict[str, Any]:
        return dict(stride=self.stride, padding=self.padding, dilation=self.dilation, groups=self._groups)

    @property
    def kernel(self) -> tuple[int, int]:
        return tuple(self.weight.shape[2:])

    def on_windows(self, size: tuple[int, int]) -> Conv:
        """The same weights between windows, the input's of rows × columns `size`: no padding, nothing cropped."""
        windowed = copy(self)
        windowed.padding, windowed._input_shape = (0, 0), (self._input_shape[0], *size)
        return windowed

    def _is_small(self, x: Tensor) -> bool:
        return x.device.type == "cpu" and self._input_shape[0] <= FEW and self._groups == 1 and self.dilation == (1, 1)

    def act(self, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        if not self._is_small(x) or x.requires_grad or not torch.is_grad_enabled():
            return F.conv2d(x, weight, bias, **self._options)
        # As a product with the image's patches: on a CPU, the weights' gradient then takes half the time.
        patches = self.patches(x)
        found = (weight.flatten(1) @ patches.flatten(4).flatten(1, 3)).unflatten(2, patches.shape[4:])
        return found if bias is None else found + bias.view(-1, 1, 1)

    def patches(self, x: Tensor) -> Tensor:
        """What each place of the kernel meets, [n, channels, *kernel, *output size]: a view of padded images."""
        rows, columns = self.padding
        windows = sliding(F.pad(x, (columns, columns, rows, rows)), self.kernel, self.stride)
        return windows.permute(0, 1, 4, 5, 2, 3)

    def ends(self, lower: Tensor, upper: Tensor) -> tuple[Tensor, Tensor]:
        weight, bias = self.weight, self.bias

        def signed(x: Tensor, y: Tensor) -> Tensor:
            plus = F.conv2d(x, weight.clamp(min=0), bias, **self._options)
            return plus + F.conv2d(y, weight.clamp(max=0), **self._options)

        return signed(lower, upper), signed(upper, lower)

    def transpose(self, a: Tensor) -> Tensor:
        weight, o = self.weight, self._options
        if self._is_small(a) and self.stride != (1, 1):
            return _TransposeToFew.apply(a, weight, self)
        # rows and columns that the stride never reaches have to be put back
        lost = tuple(
            size - ((out - 1) * o["stride"][i] - 2 * o["padding"][i] + o["dilation"][i] * (weight.shape[2 + i] - 1) + 1)
            for i, (size, out) in enumerate(zip(self._input_shape[1:], a.shape[2:], strict=True))
        )
        return F.conv_transpose2d(a, weight, output_padding=lost, **o)

    def transpose_by_phases(self, a: Tensor, weight: Tensor) -> Tensor:
        """The transposed convolution as one plain convolution per phase of the stride, interleaved.

        On a CPU, with the few channels of an image and a stride, 2 to 3 times faster than `conv_transpose2d`.
        """
        stride, padding = self.stride, self.padding
        outputs, channels, *kernel = weight.shape
        taps = [-(-k // s) for k, s in zip(kernel, stride, strict=True)]
        full = F.pad(weight, (0, taps[1] * stride[1] - kernel[1], 0, taps[0] * stride[0] - kernel[0]))
        phases = full.view(outputs, channels, taps[0], stride[0], taps[1], stride[1]).permute(1, 3, 5, 0, 2, 4)
        phases = phases.reshape(-1, outputs, *taps).flip(2, 3)
        mixed = F.conv2d(a, phases, padding=(taps[0] - 1, taps[1] - 1))
        rows, columns = mixed.shape[2:]
        spread = mixed.view(len(a), channels, *stride, rows, columns).permute(0, 1, 4, 2, 5, 3)
        spread = spread.reshape(len(a), channels, rows * stride[0], columns * stride[1])
        height, width = self._input_shape[1:]
        missing = [max(0, p + size - have) for p, size, have in zip(padding, (height, width), spread.shape[2:], strict=True)]
        if any(missing):  # rows and columns that the stride never reaches
            spread = F.pad(spread, (0, missing[1], 0, missing[0]))
        return spread[:, :, padding[0] : padding[0] + height, padding[1] : padding[1] + width]


class _TransposeToFew(torch.autograd.Function):
    """`Conv.transpose_by_phases`, with the gradients of `conv2d`, which cost less than those of its phases."""

    @staticmethod
    def forward(ctx: Any, a: Tensor, weight: Tensor, conv: Conv) -> Tensor:
        ctx.save_for_backward(a, weight)
        ctx.conv = conv
        return conv.transpose_by_phases(a, weight)

    @staticmethod
    def backward(ctx: Any, d_image: Tensor) -> tuple[Tensor | None, ...]:
        (a, weight), conv = ctx.saved_tensors, ctx.conv
        d_a = conv.act(d_image, weight) if ctx.needs_input_grad[0] else None
        if not ctx.needs_input_grad[1]:
            return d_a, None, None
        if weight.shape[1] > 1:
            return d_a, torch.nn.grad.conv2d_weight(d_image, weight.shape, a, conv.stride, conv.padding), None
        # A CPU's own kernel takes twice the time for one channel; the patches are copied a few images at a time.
        d_weight = torch.zeros_like(weight)
        for i in pieces(a):
            patches = conv.patches(d_image[i]).flatten(4).flatten(1, 3)
            d_weight += (a[i].flatten(2) @ patches.mT).sum(0).view_as(weight)
        return d_a, d_weight, None


class Diagonal(Affine):
    """y = scale·x + shift, feature by feature."""

    diagonal = True

    def scale_shift(self) -> tuple[Tensor, Tensor]:
        raise NotImplementedError

    def value(self, x: Tensor) -> Tensor:
        scale, shift = self.scale_shift()
        return scale * x + shift

    def linear(self, x: Tensor) -> Tensor:
        return self.scale_shift()[0] * x

    def magnitude(self, radius: Tensor) -> Tensor:
        return self.scale_shift()[0].abs() * radius

    def ends(self, lower: Tensor, upper: Tensor) -> tuple[Tensor, Tensor]:
        low, high = self.value(lower), self.value(upper)
        return torch.minimum(low, high), torch.maximum(low, high)

    transpose = linear


class Constant(Diagonal):
    def __init__(self, node: ConstantOperand) -> None:
        self._node = node

    def scale_shift(self) -> tuple[Tensor, Tensor]:
        return self._node.scale_shift()

    def value(self, x: Tensor) -> Tensor:
        # as the model itself computes it: x − mean, then / std, without a rounding of 1/std
        constant = self._node.inputs[1 - self._node.variable].forward()
        return self._node.forward(*((x, constant) if self._node.variable == 0 else (constant, x)))


class BatchNorm(Diagonal):
    """Batch normalisation: running statistics, or in training those of the last clean batch (`observe`)."""

    def __init__(self, node: Any) -> None:
        self._weight, self._bias, self._mean, self._variance = node.inputs[1:5]
        self._eps, self._momentum = node.eps, node.momentum
        self._batch_statistics: tuple[Tensor, Tensor] | None = None

    def observe(self, x: Tensor) -> Tensor:
        """The training-mode output on a clean batch; updates the running statistics and keeps the batch's."""
        axes = [0, *range(2, x.ndim)]
        variance, mean = torch.var_mean(x, axes, correction=0)
        self._batch_statistics = mean, variance
        with torch.no_grad():
            count = x.numel() / x.shape[1]
            unbiased = variance * (count / max(count - 1, 1))
            self._mean.forward().lerp_(mean, self._momentum)
            self._variance.forward().lerp_(unbiased, self._momentum)
        scale, shift = self._scale_shift(x.ndim)
        return scale * x + shift

    def forget(self) -> None:
        self._batch_statistics = None

    def _scale_shift(self, ndim: int) -> tuple[Tensor, Tensor]:
        mean, variance = self._batch_statistics or (self._mean.forward(), self._variance.forward())
        scale = self._weight.forward() * (variance + self._eps).rsqrt()
        shape = (1, -1) + (1,) * (ndim - 2)
        return scale.view(shape), (self._bias.forward() - mean * scale).view(shape)

    def value(self, x: Tensor) -> Tensor:
        scale, shift = self._scale_shift(x.ndim)
        return torch.addcmul(shift, scale, x)

    def linear(self, x: Tensor) -> Tensor:
        return self._scale_shift(x.ndim)[0] * x

    def magnitude(self, radius: Tensor) -> Tensor:
        return self._scale_shift(radius.ndim)[0].abs() * radius

    transpose = linear


class Reshape(Affine):
    diagonal = True

    def __init__(self, node: Any) -> None:
        self._input, self._output = tuple(node.inputs[0].output_shape[1:]), tuple(node.output_shape[1:])

    def value(self, x: Tensor) -> Tensor:
        return x.reshape(len(x), *self._output)

    linear = magnitude = value

    def transpose(self, a: Tensor) -> Tensor:
        return a.reshape(len(a), *self._input)


class AveragePool(Affine):
    def __init__(self, node: Any) -> None:
        self._input = tuple(node.inputs[0].output_shape[1:])
        pair = lambda v: tuple(v) if isinstance(v, Sequence) else (v, v)  # noqa: E731
        self._options = dict(kernel_size=pair(node.kernel_size), stride=pair(node.stride), padding=pair(node.padding))

    def value(self, x: Tensor) -> Tensor:
        return F.avg_pool2d(x, **self._options)

    linear = magnitude = value

    def transpose(self, a: Tensor) -> Tensor:
        channels, kernel = self._input[0], self._options["kernel_size"]
        weight = a.new_full((channels, 1, *kernel), 1 / (kernel[0] * kernel[1]))
        lost = tuple(
            size - ((out - 1) * self._options["stride"][i] - 2 * self._options["padding"][i] + kernel[i])
            for i, (size, out) in enumerate(zip(self._input[1:], a.shape[2:], strict=True))
        )
        return F.conv_transpose2d(
            a, weight, stride=self._options["stride"], padding=self._options["padding"], output_padding=lost, groups=channels
        )
