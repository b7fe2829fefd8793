"""Losses of a vector of weights whose smoothed gradient is known in closed form."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from newrelax.registry import Registry
from plugin.training.smoothing import Neighbourhood, read_smoothing
from plugin.training.smoothing.noise import stream

REGISTRY = Registry.load()
WEIGHTS = 20


class Function:
    """A function of one vector as an objective; its parts are itself."""

    def __init__(self, function: Callable[[Tensor], Tensor], at: Tensor) -> None:
        self.parameters = [at.clone().requires_grad_()]
        self._function = function

    def value(self) -> Tensor:
        return self._function(self.parameters[0].detach())

    def gradient(self) -> tuple[Tensor, Tensor]:
        value = self._function(self.parameters[0])
        (slope,) = torch.autograd.grad(value, self.parameters)
        return value.detach(), slope

    def split(self, count: int) -> Sequence[Function]:
        return [self] * count


@dataclass(frozen=True, eq=False)
class Jumping:
    """b·θ + |Aθ|²/2 + height·[n·θ > c], and its smoothed gradient. normal has norm 1; the jump is 0.3 σ away from `at`."""

    at: Tensor
    slope: Tensor
    curve: Tensor
    normal: Tensor
    height: float
    sigma: float

    @classmethod
    def make(cls, *, height: float, curved: bool, sigma: float = 0.1) -> Jumping:
        torch.manual_seed(0)
        at, slope, normal = torch.randn(3, WEIGHTS, dtype=torch.float64).unbind()
        curve = torch.randn(WEIGHTS, WEIGHTS, dtype=torch.float64) / math.sqrt(WEIGHTS)
        return cls(at, slope, curve * curved, normal / normal.norm(), height, sigma)

    def __call__(self, theta: Tensor) -> Tensor:
        smooth = self.slope @ theta + (self.curve @ theta).square().sum() / 2
        return smooth + self.height * (self.normal @ (theta - self.at) > 0.3 * self.sigma)

    @property
    def gradient(self) -> Tensor:
        """∇L without the jump's part, the same for L_σ: the smooth part is of degree two."""
        return self.slope + self.curve.T @ (self.curve @ self.at)

    @property
    def jumps_part(self) -> Tensor:
        """What the jump adds to ∇L_σ: its height times the density of n·(θ + σz) at it, along n."""
        density = math.exp(-(0.3**2) / 2) / (math.sqrt(2 * math.pi) * self.sigma)
        return self.height * density * self.normal


@functools.cache
def estimates(spelling: str, loss: Jumping, count: int) -> Tensor:
    """Independent estimates of the loss's smoothed gradient at `at`, [count, weights]."""
    objective, smoothing = Function(loss, loss.at), read_smoothing(spelling, REGISTRY)
    noises = (stream(0, step, loss.at.device) for step in range(count))
    return torch.stack([smoothing.estimate(Neighbourhood(objective, smoothing.sigma, each)).gradient for each in noises])


def deviations(found: Tensor, expected: Tensor) -> Tensor:
    """(mean − expected) / standard error of the mean, for each weight."""
    return (found.mean(0) - expected) / (found.std(0) / math.sqrt(len(found)))
