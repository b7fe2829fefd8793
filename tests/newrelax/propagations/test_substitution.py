"""Back-substitution in pieces that stay in a CPU's cache: the same bounds and gradients."""

from __future__ import annotations

import functools
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from newrelax.bounds import BoundedNetwork, box
from newrelax.cpu import pieces as cpu_cache
from newrelax.registry import Registry
from tests.support.nets import under

REGISTRY = Registry.load()
SHAPE, BATCH = (2, 8, 8), 5


class Residual(nn.Module):
    """A convolution's output joins that of the one after it."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(2, 3, 3, padding=1), nn.Conv2d(3, 3, 3, padding=1)
        self.wide, self.last = nn.Linear(192, 40), nn.Linear(40, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x).relu()
        x = (self.second(x) + x).relu()
        return self.last(self.wide(x.flatten(1)).relu())


def sequential() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(2, 3, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(3, 3, 3, padding=1),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(192, 40),
        nn.ReLU(),
        nn.Linear(40, 4),
    )


def strided() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(2, 1, 3, stride=2, padding=(0, 1)),
        nn.ReLU(),
        nn.Conv2d(1, 4, 3, stride=(1, 2)),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(4, 4),
    )


@functools.cache
def traced(build: Callable[[], nn.Module]) -> BoundedNetwork:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return BoundedNetwork(build().double(), SHAPE, REGISTRY["IBP"])


@pytest.mark.parametrize("build", [sequential, Residual, strided], ids=["sequential", "residual", "strided"])
@pytest.mark.parametrize("method", ["CROWN-IBP-R", "CROWN", "DeepZ", "hBox"])
def test_pieces_change_nothing(build: Callable[[], nn.Module], method: str, monkeypatch: pytest.MonkeyPatch) -> None:
    net = under(traced(build), REGISTRY[method])
    x = torch.rand(BATCH, *SHAPE, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    found = []
    for cache in (1 << 30, 1):
        monkeypatch.setattr(cpu_cache, "CACHE", cache)
        margins = net.bounds(*box(x, 0.1), torch.arange(BATCH) % 4).margins
        found.append([margins, *torch.autograd.grad(margins.sum(), list(net.model.parameters()))])
    whole, pieces = found
    torch.testing.assert_close(pieces, whole, rtol=1e-9, atol=1e-9)
