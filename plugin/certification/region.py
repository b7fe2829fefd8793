"""Which inputs a certificate speaks of: a ball around x, clipped to where inputs can lie."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from newrelax.arguments import UNIT_RANGE, DataRange, box
from newrelax.errors import UserError


@dataclass(frozen=True)
class Region:
    """The L∞ ball of radius `eps * unit` around x, clipped to the data range.

    data_range: the smallest and the largest input, numbers or tensors of the shape of one input; None: not clipped.
    unit: what ε is a multiple of, 1 for input units, or the width of each feature's range.
    """

    data_range: DataRange = UNIT_RANGE
    unit: float | Tensor = 1.0

    @classmethod
    def by(cls, eps_unit: str, data_range: DataRange) -> Region:
        """eps_unit: `input`, or `range` for multiples of each feature's range.

        Raises:
            UserError: the unit is the range, and inputs have none.
        """
        if eps_unit == "input":
            return cls(data_range)
        if data_range is None:
            raise UserError(
                "eps-unit range: expected a data range to measure eps by, got none; give --data-range, or eps in input units"
            )
        low, high = data_range
        return cls(data_range, high - low)

    def check(self, eps: float, name: str = "eps") -> None:
        """Raises UserError for a radius that is not above 0, or above the width of the data range, as far as it is known."""
        widest = self._widest()
        if not 0 < eps <= widest * (1 + 1e-6):
            expected = "above 0" if widest == math.inf else f"in (0, {widest:g}] (inputs are that far apart at most)"
            raise UserError(f"{name}: expected a radius {expected}, got {eps:g}")

    @property
    def _in_input_units(self) -> bool:
        return isinstance(self.unit, float) and self.unit == 1.0

    def _widest(self) -> float:
        """The largest radius that means something, in the region's unit."""
        if self.data_range is None:
            return math.inf
        if not self._in_input_units:
            return 1.0
        low, high = self.data_range
        return float(torch.as_tensor(high - low).max())

    def radius(self, eps: float | Tensor) -> float | Tensor:
        """The ball's radius in input units: a number, or one for each feature."""
        return eps if self._in_input_units else eps * self.unit

    def box(self, x: Tensor, eps: float | Tensor) -> tuple[Tensor, Tensor]:
        """The smallest and the largest input, each of the shape of x [batch, *features]."""
        return box(x, self.radius(eps), self.data_range)

    def to(self, device: torch.device | str, dtype: torch.dtype) -> Region:
        """The same on another device or in another float type."""

        def moved(value: float | Tensor) -> float | Tensor:
            return value.to(device, dtype) if isinstance(value, Tensor) else value

        data_range = None if self.data_range is None else (moved(self.data_range[0]), moved(self.data_range[1]))
        return Region(data_range, moved(self.unit))
