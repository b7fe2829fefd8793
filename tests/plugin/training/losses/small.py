"""Small networks, batches and losses that the tests of losses share."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from newrelax.bounds import BoundedNetwork
from plugin.certification.region import Region
from plugin.training.losses import Batch, Learner, Loss, Terms, read_loss
from plugin.training.schedule import Values
from tests.support.tiny_runs import REGISTRY

EPS = 0.03
VALUES = Values(eps=EPS, kappa=0.25, beta=0.5, lr=1e-3)
SCHEMES = ("MTL", "CC", "Exp", "SABR", "TAPS", "STAPS")


def learner_of(model: nn.Module, shape: tuple[int, ...], method: str = "CROWN-IBP", region: Region | None = None) -> Learner:
    return Learner(BoundedNetwork(model, shape, REGISTRY.get_method(method)), region or Region())


def small(outputs: int = 3, *, normalised: bool = False, seed: int = 1) -> nn.Module:
    """Two ReLU layers between five inputs and the logits; float64."""
    torch.manual_seed(seed)
    norm: Callable[[], nn.Module] = (lambda: nn.BatchNorm1d(6)) if normalised else nn.Identity
    layers = (nn.Linear(5, 6), norm(), nn.ReLU(), nn.Linear(6, 6), norm(), nn.ReLU(), nn.Linear(6, outputs))
    return nn.Sequential(*layers).double()


def points(count: int = 7, classes: int = 3) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(3)
    x = torch.rand(count, 5, generator=generator, dtype=torch.float64)
    return x, torch.randint(0, classes, (count,), generator=generator)


def terms_of(loss: str | Loss, learner: Learner, x: Tensor, y: Tensor, values: Values = VALUES) -> Terms:
    made = loss if isinstance(loss, Loss) else read_loss(loss, REGISTRY)
    torch.manual_seed(5)
    return made(learner, Batch.whole(x, y), values)
