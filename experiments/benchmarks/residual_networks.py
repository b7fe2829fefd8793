"""Residual networks for CIFAR's shape:

`python -m experiments.bench --model experiments.benchmarks.residual_networks:NAME`."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn


class Block(nn.Module):
    """Two convolutions and a shortcut, 1×1 where the shape changes."""

    def __init__(self, before: int, after: int, stride: int = 1) -> None:
        super().__init__()
        self.first = nn.Conv2d(before, after, 3, stride, 1)
        self.second = nn.Conv2d(after, after, 3, 1, 1)
        same = stride == 1 and before == after
        self.shortcut: nn.Module = nn.Identity() if same else nn.Conv2d(before, after, 1, stride)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.second(F.relu(self.first(x))) + self.shortcut(x))


def two_blocks() -> nn.Module:
    """112,006 weights."""
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, 2, 1),
        nn.ReLU(),
        Block(8, 16, 2),
        Block(16, 16),
        nn.Flatten(),
        nn.Linear(1024, 100),
        nn.ReLU(),
        nn.Linear(100, 10),
    )


def four_blocks() -> nn.Module:
    """44,758 weights."""
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, 2, 1),
        nn.ReLU(),
        Block(8, 16, 2),
        Block(16, 16),
        Block(16, 16, 2),
        Block(16, 16),
        nn.Flatten(),
        nn.Linear(256, 100),
        nn.ReLU(),
        nn.Linear(100, 10),
    )


def wide() -> nn.Module:
    """16, 16, 32, 64 channels at 32², 32², 16², 8²; 4.2 million weights."""
    return nn.Sequential(
        nn.Conv2d(3, 16, 3, 1, 1),
        nn.ReLU(),
        Block(16, 16),
        Block(16, 32, 2),
        Block(32, 64, 2),
        nn.Flatten(),
        nn.Linear(4096, 1000),
        nn.ReLU(),
        nn.Linear(1000, 10),
    )
