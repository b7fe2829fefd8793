"""What a search for the least value of a function over a box knows when it ends."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class Minimum:
    """bound: a lower bound of the minimum, −inf without any; value: the least value that was
    found, inf without any, at `point`, a flat input. proven: the bound is the minimum, up to the search's gap."""

    bound: float
    value: float
    point: Tensor | None
    proven: bool
