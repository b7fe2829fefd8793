"""The weight of one part of a mixture, share·a + (1 − share)·b: a number, or one that a recorded step finds on its device."""

from __future__ import annotations

from torch import Tensor


class DeviceShare:
    """A share that stands on a device, and computes as a number does: `share * tensor`, `1 - share`.

    A CUDA graph reads it anew at every replay; a number would be recorded as it was. It equals no number, not even 0 or 1 at
    which work can be skipped: to know would mean to wait for the device, and a graph cannot skip.
    """

    def __init__(self, amount: Tensor) -> None:
        """amount: a scalar, best in float64, which a product rounds to the other factor's type as it rounds a number."""
        self._amount = amount

    def __mul__(self, part: Tensor) -> Tensor:
        return self._amount.to(part.dtype) * part

    __rmul__ = __mul__

    def __rsub__(self, whole: float) -> DeviceShare:
        return DeviceShare(whole - self._amount)

    def __float__(self) -> float:
        """The number; waits for the device."""
        return float(self._amount)


Share = float | DeviceShare
"""From 0 to 1."""
