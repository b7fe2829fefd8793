"""What a nonlinear step is between: two planes in its inputs, around a reference point.

    lower plane(x) ≤ f(x) ≤ upper plane(x)   for all x within the inputs' bounds

A forward pass z̄ gives every nonlinear step a value v between its planes at z̄: the upper plane's, or, where both planes
have the same slopes, their middle. The distance from there, the *gap*, is all that back-substitution needs besides the
slopes (see `newrelax.propagations.substitution`).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from newrelax.cpu.through import through


class Field(Protocol):
    """Windows into an image, as `newrelax.propagations.windows.Field`."""

    @property
    def size(self) -> tuple[int, int]: ...

    def cut(self, image: Tensor) -> Tensor: ...


class Planes(NamedTuple):
    """lower_slopes · x + lower_offset ≤ f(x) ≤ upper_slopes · x + upper_offset; a slope for each input of the step.

    Every tensor has the step's shape, [batch, *shape], as have all inputs.
    """

    lower_slopes: tuple[Tensor, ...]
    lower_offset: Tensor
    upper_slopes: tuple[Tensor, ...]
    upper_offset: Tensor


class Enclosure(ABC):
    """The planes of one step around a reference point.

    gap: between the planes there, halved where their slopes are the same; [batch, *shape of the step].
    """

    gap: Tensor

    @abstractmethod
    def back(self, a: Tensor, *, count_gaps: bool) -> tuple[tuple[Tensor, ...], Tensor | None]:
        """Coefficients a of the step's output, [batch or 1, rows, *shape], as coefficients of each of its inputs, and the
        sum of what they lose in the gap, [batch, rows] (None where gaps are not counted)."""

    @abstractmethod
    def cut(self, field: Field) -> Enclosure:
        """The same on windows: [batch·positions, …], zero outside the image."""

    @abstractmethod
    def carry(self, *noise: Tensor) -> Tensor:
        """Σ slope·noise over the inputs, for parallel planes; noise like the inputs, with any leading axes."""

    @abstractmethod
    def carry_size(self, *size: Tensor) -> Tensor:
        """Σ |slope|·size over the inputs, for parallel planes."""

    @abstractmethod
    def grown(self, *size: Tensor) -> Tensor:
        """The gap and Σ |slope|·size."""


@dataclass(frozen=True)
class Sloped(Enclosure):
    """Planes with a slope for each input, feature by feature.

    lower: None where both planes have the slopes `upper`.
    """

    lower: tuple[Tensor, ...] | None
    upper: tuple[Tensor, ...]
    gap: Tensor

    @classmethod
    def around(cls, planes: Planes, reference: tuple[Tensor, ...], parallel: bool) -> tuple[Sloped, Tensor]:
        """The planes around the inputs' reference values, and the step's own reference value."""
        if parallel:
            gap = 0.5 * (planes.upper_offset - planes.lower_offset)
            middle = _plane(planes.lower_slopes, reference, 0.5 * (planes.upper_offset + planes.lower_offset))
            return cls(None, planes.lower_slopes, gap), middle
        high = _plane(planes.upper_slopes, reference, planes.upper_offset)
        return cls.below(planes, reference, high), high

    @classmethod
    def below(cls, planes: Planes, reference: tuple[Tensor, ...], high: Tensor) -> Sloped:
        """The planes around the inputs' reference values, where the upper one is at `high`."""
        gap = high
        for slope, value in zip(planes.lower_slopes, reference, strict=True):
            gap = gap - slope * value
        return cls(planes.lower_slopes, planes.upper_slopes, gap - planes.lower_offset)

    def back(self, a: Tensor, *, count_gaps: bool) -> tuple[tuple[Tensor, ...], Tensor | None]:
        inputs, loss = [], None
        for k, upper in enumerate(self.upper):
            lower = None if self.lower is None else self.lower[k].flatten(1)
            gap = self.gap.flatten(1) if count_gaps and k == 0 else None
            out, lost = through(a.flatten(2), lower, upper.flatten(1), gap)
            loss = lost if gap is not None else loss
            inputs.append(out.view(*out.shape[:2], *a.shape[2:]))
        return tuple(inputs), loss

    def cut(self, field: Field) -> Sloped:
        lower = None if self.lower is None else tuple(field.cut(slope) for slope in self.lower)
        return Sloped(lower, tuple(field.cut(slope) for slope in self.upper), field.cut(self.gap))

    def carry(self, *noise: Tensor) -> Tensor:
        return _sum([value * slope for value, slope in zip(noise, self.upper, strict=True)])

    def carry_size(self, *size: Tensor) -> Tensor:
        return _sum([slope.abs() * value for value, slope in zip(size, self.upper, strict=True)])

    def grown(self, *size: Tensor) -> Tensor:
        total = self.gap
        for value, slope in zip(size, self.upper, strict=True):
            total = torch.addcmul(total, slope.abs(), value)
        return total


def _plane(slopes: tuple[Tensor, ...], at: tuple[Tensor, ...], offset: Tensor) -> Tensor:
    return _sum([slope * value for slope, value in zip(slopes, at, strict=True)]) + offset


def _sum(parts: list[Tensor]) -> Tensor:
    total = parts[0]
    for part in parts[1:]:
        total = total + part
    return total
