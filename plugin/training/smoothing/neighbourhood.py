"""A loss at the weights' neighbours θ ± σz, which leave no trace: weights come back bit for bit."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from plugin.training.smoothing.noise import flat


class Objective(Protocol):
    """A loss as a function of `parameters`, which it reads in place."""

    @property
    def parameters(self) -> Sequence[Tensor]: ...

    def value(self) -> Tensor:
        """The loss at the present weights, a scalar without gradient."""

    def gradient(self) -> tuple[Tensor, Tensor]:
        """The loss, and its gradient as one vector [weights]. The parameters' `.grad` is not what it says anything of."""

    def split(self, count: int) -> Sequence[Objective]:
        """That many objectives on parts of the inputs, whose mean is this one."""


class Sides(NamedTuple):
    """Something at θ + σz and at θ − σz."""

    plus: Tensor
    minus: Tensor

    @property
    def mean(self) -> Tensor:
        return (self.plus + self.minus) / 2

    @property
    def half_difference(self) -> Tensor:
        return (self.plus - self.minus) / 2


@dataclass(frozen=True)
class Pair:
    """An objective on both sides of the weights, θ ± σz. z: standard normal, [weights]; sigma: a number, or one a weight."""

    objective: Objective
    z: Tensor
    sigma: float | Tensor
    home: Tensor

    def losses(self) -> Sides:
        """The losses, scalars."""
        with self._away(1):
            plus = self.objective.value()
        with self._away(-1):
            minus = self.objective.value()
        return Sides(plus, minus)

    def gradients(self) -> tuple[Sides, Sides]:
        """The losses, and their gradients [weights]."""
        with self._away(1):
            plus = self.objective.gradient()
        with self._away(-1):
            minus = self.objective.gradient()
        return Sides(plus[0], minus[0]), Sides(plus[1], minus[1])

    def along(self, gradient: Tensor) -> Tensor:
        """The change of the loss towards θ + σz that a gradient foretells, a scalar."""
        return torch.dot(self.sigma * self.z, gradient)

    def direction(self) -> Tensor:
        """z/σ, what a change of the loss towards θ + σz is multiplied with; 0 where there is no noise."""
        scaled = self.z / self.sigma
        return torch.where(self.sigma > 0, scaled, 0) if isinstance(self.sigma, Tensor) else scaled

    @contextmanager
    def _away(self, sign: int) -> Iterator[None]:
        """Inside, the weights are θ + sign·σz. They are copied back, since (θ + e) − e is not θ in floating point."""
        parameters = self.objective.parameters
        place(parameters, self.home + sign * (self.sigma * self.z))
        try:
            yield
        finally:
            place(parameters, self.home)


class Neighbourhood:
    """The neighbours of the present weights that an estimator may ask for.

    sigma: the noise's standard deviation, a number or one for each weight [weights], at least 0. stream: draws the noise.
    """

    def __init__(self, objective: Objective, sigma: float | Tensor, stream: torch.Generator) -> None:
        self.objective, self._sigma, self._stream = objective, sigma, stream
        self._home = flat(objective.parameters)

    def pairs(self, count: int, *, parts: bool = False) -> Iterator[Pair]:
        """Antithetic pairs, each with noise of its own; with `parts` each on a part of the inputs of its own."""
        for objective in self.objective.split(count) if parts else [self.objective] * count:
            z = torch.randn(self._home.shape, generator=self._stream, device=self._home.device, dtype=self._home.dtype)
            yield Pair(objective, z, self._sigma, self._home)


@torch.no_grad()
def place(parameters: Sequence[Tensor], values: Tensor) -> None:
    """Writes a vector [weights] into the parameters."""
    for parameter, part in zip(parameters, values.split([p.numel() for p in parameters]), strict=True):
        parameter.copy_(part.view_as(parameter))
