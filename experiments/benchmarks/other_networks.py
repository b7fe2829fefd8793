"""The paper's CONV with a part that other people's networks have in its place, for MNIST's shape:

`python -m experiments.bench --model experiments.benchmarks.other_networks:NAME`."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def _conv(activation: Callable[[], nn.Module], *, bias: bool) -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(1, 16, 4, 2),
        activation(),
        nn.Conv2d(16, 32, 4, 2),
        activation(),
        nn.Flatten(),
        nn.Linear(800, 100, bias=bias),
        activation(),
        nn.Linear(100, 10, bias=bias),
    )


def leaky() -> nn.Module:
    """LeakyReLU for ReLU."""
    return _conv(lambda: nn.LeakyReLU(0.1), bias=True)


def without_bias() -> nn.Module:
    """Linear layers without a bias."""
    return _conv(nn.ReLU, bias=False)


def max_pool() -> nn.Module:
    """Max pooling for strides."""
    return nn.Sequential(
        nn.Conv2d(1, 16, 3),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(16, 32, 3),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(800, 100),
        nn.ReLU(),
        nn.Linear(100, 10),
    )


class Concatenated(nn.Module):
    """Two branches of half the channels, side by side."""

    def __init__(self) -> None:
        super().__init__()
        self.left, self.right = nn.Conv2d(1, 8, 4, 2), nn.Conv2d(1, 8, 4, 2)
        self.second = nn.Conv2d(16, 32, 4, 2)
        self.hidden, self.last = nn.Linear(800, 100), nn.Linear(100, 10)

    def forward(self, x: Tensor) -> Tensor:
        both = torch.cat([F.relu(self.left(x)), F.relu(self.right(x))], 1)
        out: Tensor = self.last(F.relu(self.hidden(F.relu(self.second(both)).flatten(1))))
        return out


def concatenated() -> nn.Module:
    """A concatenation for the first layer."""
    return Concatenated()
