"""The smoothed loss of a network, as closures over its weights."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from plugin.analysis.probe import Analysed, Probe
from plugin.training.smoothing import Neighbourhood, Pair, Smoothing
from plugin.training.smoothing.noise import flat, stream

PAIRS = 16
"""Antithetic pairs that stand for the expectation where the smoothing's spelling does not say how many."""


def for_analysis(smoothing: Smoothing) -> Smoothing:
    """The same, with enough pairs for a look at the loss itself; a step of training gets along with fewer."""
    return smoothing if "pairs" in smoothing.model_fields_set else smoothing.model_copy(update={"pairs": PAIRS})


class SmoothedProbe(Probe):
    """A probe of the mean over noisy copies of the weights, θ ± σzᵢ, with the same z at every point.

    So the mean is a fixed function of the weights, differentiated by the smoothing's estimator. It is not the expectation:
    where the loss jumps by h, a mean of N copies jumps N times, by h/N each. loss(), margins(): as a probe's, averaged; σ is
    that of the weights at the start, also where it is relative. layers(): at the weights without noise.
    """

    def __init__(
        self,
        model: nn.Module,
        analysed: Analysed,
        x: Tensor,
        y: Tensor,
        eps: float,
        smoothing: Smoothing,
        seed: int = 0,
        *,
        dtype: torch.dtype = torch.float64,
    ) -> None:
        super().__init__(model, analysed, x, y, eps, dtype=dtype)
        self._smoothing, self._seed = smoothing, seed
        self._sigma = smoothing.scale(self.model)

    def loss(self) -> Tensor:
        if not torch.is_grad_enabled():
            return self._mean(super().loss)
        found = self._smoothing.estimate(self._neighbourhood(super().loss))
        # A linear function of the weights that has the estimate as its gradient, and is the loss here.
        linear = torch.dot(torch.cat([parameter.reshape(-1) for parameter in self.parameters]), found.gradient)
        return found.loss + linear - linear.detach()

    def margins(self) -> Tensor:
        return self._mean(super().margins)

    def _mean(self, closure: Callable[[], Tensor]) -> Tensor:
        pairs: list[Pair] = list(self._neighbourhood(closure).pairs(self._smoothing.pairs))
        return torch.stack([pair.losses().mean for pair in pairs]).mean(0)

    def _neighbourhood(self, closure: Callable[[], Tensor]) -> Neighbourhood:
        noise = stream(self._seed, 0, self.x.device)
        return Neighbourhood(_Closure(closure, self.parameters, self.x.device), self._sigma, noise)


class _Closure:
    """A closure as an objective: each evaluation begins with the same random numbers."""

    def __init__(self, closure: Callable[[], Tensor], parameters: Sequence[Tensor], device: torch.device) -> None:
        self.parameters = parameters
        self._closure = closure
        self._devices = [device] if device.type == "cuda" else []

    def value(self) -> Tensor:
        with torch.no_grad(), torch.random.fork_rng(self._devices):
            return self._closure()

    def gradient(self) -> tuple[Tensor, Tensor]:
        with torch.enable_grad(), torch.random.fork_rng(self._devices):
            value = self._closure()
            slopes = torch.autograd.grad(value, list(self.parameters), allow_unused=True)
        pairs = zip(slopes, self.parameters, strict=True)
        return value.detach(), flat([torch.zeros_like(p) if slope is None else slope for slope, p in pairs])

    def split(self, count: int) -> Sequence[_Closure]:
        return [self] * count
