"""The networks that come with the project: layers one after the other, normalisation first."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType

import torch
from torch import Tensor, nn

from newrelax.errors import UserError

Shape = tuple[int, ...]
"""Of one input: (channels, height, width) of an image, (features,) of a row."""


class Normalize(nn.Module):
    """(x − mean) / std for each channel or feature; x: [batch, *input_shape].

    mean, std: one number for each entry of the first dimension of input_shape: channels of images, features of rows.
    They are buffers of shape (channels, 1, 1) or (features,) that move with the model but are not part of its state
    dict: they belong to the data set, not to the training.

    Raises:
        UserError: another number of means or deviations, or a deviation that is not above 0.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, mean: Sequence[float], std: Sequence[float], input_shape: Shape) -> None:
        super().__init__()
        if not len(mean) == len(std) == input_shape[0]:
            raise UserError(
                f"expected a mean and a std for each of {input_shape[0]} {'channels' if len(input_shape) > 1 else 'features'}, "
                f"got {len(mean)} and {len(std)}"
            )
        if not all(each > 0 for each in std):
            raise UserError(f"expected every std above 0, got {min(std):g}: what is constant has std 1")
        sides = (1,) * (len(input_shape) - 1)
        self.register_buffer("mean", torch.tensor(mean).view(-1, *sides), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(-1, *sides), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        return (x - self.mean) / self.std


class Network(nn.Module):
    """Layers one after the other, normalisation first. State-dict keys are `layers.N.*`, N counting every layer."""

    def __init__(self, normalize: Normalize, *layers: nn.Module) -> None:
        super().__init__()
        self.layers = nn.Sequential(normalize, *layers)

    def forward(self, x: Tensor) -> Tensor:
        """Logits [batch, classes] of inputs [batch, *input_shape]."""
        logits: Tensor = self.layers(x)
        return logits


def describe(input_shape: Shape) -> str:
    """What inputs of that shape are called: "images of shape (3, 32, 32)", "rows of 3 features"."""
    if len(input_shape) == 1:
        return f"rows of {input_shape[0]} feature{'s' if input_shape[0] != 1 else ''}"
    return f"{'images' if len(input_shape) == 3 else 'inputs'} of shape {input_shape}"


def fc(input_shape: Shape, classes: int) -> list[nn.Module]:
    """Fully connected, hidden layers 400-200-100-100 (the paper's FC)."""
    layers: list[nn.Module] = [nn.Flatten()]
    width = math.prod(input_shape)
    for hidden in (400, 200, 100, 100):
        layers += [nn.Linear(width, hidden), nn.ReLU()]
        width = hidden
    return [*layers, nn.Linear(width, classes)]


def conv(input_shape: Shape, classes: int) -> list[nn.Module]:
    """16 filters 4×4 stride 2 padding 1, then fully connected 100 (the paper's CONV)."""
    first, shape = _conv(_image("CONV", input_shape), 16, kernel=4, stride=2, padding=1)
    return [first, nn.ReLU(), nn.Flatten(), nn.Linear(math.prod(shape), 100), nn.ReLU(), nn.Linear(100, classes)]


def conv_plus(input_shape: Shape, classes: int) -> list[nn.Module]:
    """16 filters 4×4 stride 2, 32 filters 4×4 stride 1, no padding, then fully connected 100 (the paper's CONV+)."""
    first, shape = _conv(_image("CONV+", input_shape), 16, kernel=4, stride=2, padding=0)
    second, shape = _conv(shape, 32, kernel=4, stride=1, padding=0)
    head = [nn.Flatten(), nn.Linear(math.prod(shape), 100), nn.ReLU(), nn.Linear(100, classes)]
    return [first, nn.ReLU(), second, nn.ReLU(), *head]


def cnn7(input_shape: Shape, classes: int) -> list[nn.Module]:
    """The seven-layer batch-norm network of Shi et al., "Fast certified robust training with short warmup" (2021).

    3×3 convolutions with 64, 64, 128 (stride 2), 128, 128 filters, fully connected 512; each of the six hidden
    layers is followed by batch norm and ReLU (the variant with batch norm after the fully connected layer too).
    """
    layers: list[nn.Module] = []
    shape = _image("CNN7", input_shape)
    for filters, stride in ((64, 1), (64, 1), (128, 2), (128, 1), (128, 1)):
        layer, shape = _conv(shape, filters, kernel=3, stride=stride, padding=1)
        layers += [layer, nn.BatchNorm2d(filters), nn.ReLU()]
    hidden = [nn.Linear(math.prod(shape), 512), nn.BatchNorm1d(512), nn.ReLU()]
    return [*layers, nn.Flatten(), *hidden, nn.Linear(512, classes)]


ARCHITECTURES: Mapping[str, Callable[[Shape, int], list[nn.Module]]] = MappingProxyType(
    {"FC": fc, "CONV": conv, "CONV+": conv_plus, "CNN7": cnn7}
)
"""Name → layers after normalisation, for an input shape and a number of classes."""

_Image = tuple[int, int, int]


def _image(name: str, input_shape: Shape) -> _Image:
    """The shape of an image. Raises UserError for inputs of another kind, which the architecture `name` cannot take."""
    if len(input_shape) != 3:
        raise UserError(
            f"{name} takes images [channels, height, width], got {describe(input_shape)}: use FC or a network of your own"
        )
    channels, height, width = input_shape
    return channels, height, width


def _conv(shape: _Image, filters: int, kernel: int, stride: int, padding: int) -> tuple[nn.Conv2d, _Image]:
    """A convolution of images of `shape`, with the shape of what it gives.

    The kernel is cut to the padded image where that is smaller, as happens in CONV+ on 8×8 digits.
    """
    channels, *sides = shape
    kernels = tuple(min(kernel, side + 2 * padding) for side in sides)
    height, width = ((side + 2 * padding - k) // stride + 1 for side, k in zip(sides, kernels, strict=True))
    return nn.Conv2d(channels, filters, (kernels[0], kernels[1]), stride, padding), (filters, height, width)
