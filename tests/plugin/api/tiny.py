"""What the tests of the Python API share: rows of four features in three classes, a network of eight neurons."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

FEATURES, CLASSES = 4, 3
QUICK: dict[str, Any] = {"epochs": 2, "batch_size": 10, "warmup": 0, "ramp": 1, "device": "cpu", "progress": False}
"""Settings of a fit that takes no time: three steps an epoch of the data below."""


def rows(count: int = 30, seed: int = 0, classes: int = CLASSES) -> tuple[Tensor, Tensor]:
    """Rows [count, 4] in [0, 1] and their classes, which the first feature tells."""
    x = torch.rand(count, FEATURES, generator=torch.Generator().manual_seed(seed))
    return x, (classes * x[:, 0]).long().clamp(max=classes - 1)


def data() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """x_train, y_train, x_test, y_test."""
    return (*rows(30), *rows(20, seed=1))


def network(*between: nn.Module, outputs: int = CLASSES, dtype: torch.dtype = torch.float32) -> nn.Module:
    """Two linear layers around a ReLU, with the same weights each time."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(nn.Linear(FEATURES, 8), *between, nn.ReLU(), nn.Linear(8, outputs)).to(dtype)


def weights(model: nn.Module) -> dict[str, Tensor]:
    """A copy of all parameters and buffers."""
    return {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}


def assert_same_weights(one: nn.Module, other: nn.Module) -> None:
    """Bit for bit."""
    first, second = weights(one), weights(other)
    assert first.keys() == second.keys()
    assert all(torch.equal(tensor, second[name]) for name, tensor in first.items())
