"""The mean of vectors that come one by one, and how sure it is."""

from __future__ import annotations

import math

import torch
from torch import Tensor


class Spread:
    """The mean of vectors [n], of which only their sum is kept."""

    def __init__(self) -> None:
        self._count = 0
        self._sum: Tensor | None = None
        self._squares: Tensor | None = None

    def add(self, vector: Tensor) -> None:
        square = vector.square().sum(dtype=torch.float64)
        self._count += 1
        self._sum = vector.clone() if self._sum is None else self._sum + vector
        self._squares = square if self._squares is None else self._squares + square

    @property
    def mean(self) -> Tensor:
        """[n]. Asks for one vector at least."""
        assert self._sum is not None, "no vector was added"
        return self._sum / self._count

    def signal_to_noise(self) -> Tensor:
        """|expectation| / standard deviation of the mean, a scalar, for vectors drawn independently; NaN for fewer than two.

        Both are estimated without bias before the root: the mean's square is too large by the noise's.
        """
        assert self._squares is not None, "no vector was added"
        return signal_to_noise(self.mean, self._squares, self._count)


def signal_to_noise(mean: Tensor, squares: Tensor, count: int) -> Tensor:
    """As `Spread.signal_to_noise`, from the mean of `count` vectors and the sum of their squared norms."""
    size = mean.square().sum(dtype=torch.float64)
    if count < 2:
        return torch.full_like(size, math.nan)
    noise = (squares - count * size).clamp(min=0) / (count * (count - 1))
    return ((size - noise).clamp(min=0) / noise.clamp(min=torch.finfo(torch.float64).tiny)).sqrt()
