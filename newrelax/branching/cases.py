"""Cases of a network over one box: some of its crossing neurons have a sign."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor


@dataclass(frozen=True)
class Layer:
    """The crossing neurons of one ReLU step: their numbers begin at `first`; at: their places in the flat step. source: the
    step before it. lower, upper: ends of all its pre-activations over the box, [1, *shape]."""

    index: int
    source: int
    first: int
    at: Tensor
    lower: Tensor
    upper: Tensor

    @property
    def part(self) -> slice:
        return slice(self.first, self.first + len(self.at))

    def spread(self, values: Tensor) -> Tensor:
        """Of all neurons [batch, neurons] this layer's, zero elsewhere, [batch, *shape]."""
        flat = values.new_zeros(len(values), self.lower.numel()).index_copy(1, self.at, values[:, self.part])
        return flat.view(len(values), *self.lower.shape[1:])

    def laid(self, values: Tensor, over: Tensor) -> Tensor:
        """The same over the step's other values [1, *shape]."""
        flat = over.flatten(1).expand(len(values), -1).index_copy(1, self.at, values[:, self.part])
        return flat.view(len(values), *self.lower.shape[1:])

    def gathered(self, values: Tensor) -> Tensor:
        """Of a step's values [batch, *shape] those of the crossing neurons, [batch, neurons of the layer]."""
        return values.flatten(1)[:, self.at]


@dataclass(frozen=True)
class Cases:
    """signs: −1, 0 (either) or 1 of each neuron; lower, upper: ends of their pre-activations; slopes, multipliers: where their
    bounds' ascent starts; scale: the size of multipliers that may matter, [batch, neurons]. rows: lower bounds of
    matrix·z − limit of each unsafe row, [batch, rows]."""

    signs: Tensor
    lower: Tensor
    upper: Tensor
    slopes: Tensor
    multipliers: Tensor
    scale: Tensor
    rows: Tensor

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, chosen: Tensor) -> Cases:
        return Cases(*(getattr(self, name)[chosen] for name in self.__dataclass_fields__))

    def with_at(self, numbers: Tensor, others: Cases) -> Cases:
        """With other cases in place of those numbers."""
        parts = {name: getattr(self, name).index_copy(0, numbers, getattr(others, name)) for name in self.__dataclass_fields__}
        return Cases(**parts)

    @classmethod
    def stacked(cls, parts: list[Cases]) -> Cases:
        return cls(*(torch.cat([getattr(part, name) for part in parts]) for name in cls.__dataclass_fields__))

    def split(self, neuron: Tensor) -> Cases:
        """Each case as two, by the sign of a neuron of its own, [batch]: first all with a negative one."""
        at = neuron.unsqueeze(1)
        negative = replace(self, signs=self.signs.scatter(1, at, -1), upper=self.upper.scatter(1, at, 0.0))
        positive = replace(self, signs=self.signs.scatter(1, at, 1), lower=self.lower.scatter(1, at, 0.0))
        return Cases.stacked([negative, positive])

    @property
    def crossing(self) -> Tensor:
        """Which neurons may still be either, [batch, neurons]."""
        return (self.lower < 0) & (self.upper > 0)
