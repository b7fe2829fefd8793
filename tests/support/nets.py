"""Small networks that the bound tests share, each traced once."""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable
from typing import Any
from unittest import mock

import torch
from torch import Tensor, nn

from newrelax.bounds import BoundedNetwork
from newrelax.methods.method import Method

SHAPE = (3, 8, 8)


class Net(nn.Module):
    """Layers, parameters and buffers, and a function of (self, x): what most tests that need branches need."""

    def __init__(self, function: Callable[[Any, Tensor], Any], **layers: nn.Module | nn.Parameter | Tensor) -> None:
        super().__init__()
        for name, layer in layers.items():
            if isinstance(layer, Tensor) and not isinstance(layer, nn.Parameter):
                self.register_buffer(name, layer)
            else:
                setattr(self, name, layer)
        self.function = function

    def forward(self, x: Tensor) -> Any:
        return self.function(self, x)


class Normalised(nn.Module):
    """A user's own module: normalises in its forward, with buffers of a given shape."""

    def __init__(self, buffer_shape: tuple[int, ...], channels: int = 3) -> None:
        super().__init__()
        self.register_buffer("mean", torch.linspace(0.3, 0.5, channels).view(buffer_shape))
        self.register_buffer("std", torch.linspace(0.2, 0.4, channels).view(buffer_shape))
        self.conv = nn.Conv2d(channels, 4, 3, stride=2, padding=1)
        self.hidden = nn.Linear(4 * 4 * 4, 12)
        self.out = nn.Linear(12, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.conv((x - self.mean) / self.std))
        return self.out(torch.relu(self.hidden(x.flatten(1))))


class Residual(nn.Module):
    """Batch norm, a residual block, average pooling."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.norm = nn.Conv2d(3, 6, 3, padding=1), nn.BatchNorm2d(6)
        self.branch, self.branch_norm = nn.Conv2d(6, 6, 3, padding=1), nn.BatchNorm2d(6)
        self.pool, self.out = nn.AvgPool2d(2), nn.Linear(6 * 16, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.norm(self.stem(x)))
        x = torch.relu(x + self.branch_norm(self.branch(x)))
        return self.out(self.pool(x).flatten(1))


class MaxPooled(nn.Module):
    """Max pooling."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.pool, self.out = nn.Conv2d(3, 4, 3, padding=1), nn.MaxPool2d(2, 2), nn.Linear(4 * 16, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.pool(torch.relu(self.conv(x))).flatten(1))


def mlp() -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(3 * 64, 16), nn.ReLU(), nn.Linear(16, 12), nn.ReLU(), nn.Linear(12, 5))


def odd_strides() -> nn.Module:
    """Strides and paddings that do not divide the image, and two convolutions in a row."""
    return nn.Sequential(
        nn.Conv2d(3, 4, 3, stride=2, padding=0),
        nn.ReLU(),
        nn.Conv2d(4, 4, 2, stride=2, padding=1),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(4 * 4, 5),
    )


NETS = {
    "mlp": mlp,
    "odd strides": odd_strides,
    "normalised (C,1,1)": lambda: Normalised((3, 1, 1)),
    "normalised (1,C,1,1)": lambda: Normalised((1, 3, 1, 1)),
    "residual": Residual,
}


def make(name: str, dtype: torch.dtype = torch.float64, seed: int = 0) -> nn.Module:
    """A network in evaluation mode with non-trivial batch-norm statistics."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        net = MaxPooled() if name == "max pool" else NETS[name]()
        for module in net.modules():
            if isinstance(module, nn.BatchNorm2d):
                nn.init.uniform_(module.running_mean, -0.3, 0.3)
                nn.init.uniform_(module.running_var, 0.5, 1.5)
                nn.init.uniform_(module.weight, -1.5, 1.5)
    return net.to(dtype).eval()


def batch(n: int = 3, dtype: torch.dtype = torch.float64, seed: int = 1) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(n, 3, 8, 8, generator=generator, dtype=dtype), torch.randint(0, 5, (n,), generator=generator)


def under(net: BoundedNetwork, method: Method, **options: Any) -> BoundedNetwork:
    """A traced network with another method, engine or memory, in which tracing has no part; it takes longer than bounding.

    What was planned for one, such as windows, is not taken over by the other.
    """
    graph = copy.copy(net.graph)
    graph._structure = None
    with mock.patch.multiple("newrelax.bounds", Graph=lambda *_: graph, check_traced=lambda _: None):
        return BoundedNetwork(net.model, net.input_shape, method, **options)


@functools.cache
def traced(name: str, dtype: torch.dtype = torch.float64, seed: int = 0) -> BoundedNetwork:
    """A network of `make`, traced once in a process. Whoever changes its weights or its mode changes them back."""
    return BoundedNetwork(make(name, dtype, seed), SHAPE, Method("Traced", propagation="interval"))


def bounded(name: str, method: Method, dtype: torch.dtype = torch.float64, seed: int = 0, **options: Any) -> BoundedNetwork:
    """A network of `make` with a method; engine and memory as in `BoundedNetwork`."""
    return under(traced(name, dtype, seed), method, **options)
