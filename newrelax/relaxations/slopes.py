"""Where does a function have a given slope? Inverses of derivatives that have no formula, elementwise."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

Function = Callable[[Tensor], Tensor]
Critical = Callable[[Tensor], tuple[Tensor, ...]]
"""A slope → all places where the function has it, each like the slope."""

TABLE, ROUNDS = 4096, 4
"""Entries of the table in which places are looked up, and how often they are mended."""


def where_monotone(derivative: Function, inflections: tuple[float, ...], span: float) -> Critical:
    """Places of a given slope, for a derivative that is monotone between inflections and constant beyond ±span.

    One place for each monotone piece: where the piece never has the slope, the end that comes closest.
    """
    ends = (-span, *inflections, span)
    at_ends = derivative(torch.tensor(ends, dtype=torch.float64)).tolist()
    pieces = [(ends[i], ends[i + 1], 1.0 if at_ends[i + 1] > at_ends[i] else -1.0) for i in range(len(ends) - 1)]

    def critical(slope: Tensor) -> tuple[Tensor, ...]:
        with torch.no_grad():
            return tuple(_solve(derivative, slope, *piece) for piece in pieces)

    return critical


def _solve(derivative: Function, slope: Tensor, low: float, high: float, sign: float) -> Tensor:
    """Where the derivative, rising from low to high (sign 1) or falling (−1), comes closest to the slope.

    Looked up in a table, then mended by the secant, which stays between two entries; the end that stays twice counts half
    (the Illinois rule), so that both ends move.
    """
    places = torch.linspace(low, high, TABLE, dtype=slope.dtype, device=slope.device)
    values = sign * derivative(places)
    wanted = (sign * slope).contiguous()
    # Flat ends may round out of order.
    index = torch.searchsorted(torch.cummax(values, 0).values, wanted).clamp(1, TABLE - 1)
    left, right = places[index - 1], places[index]
    below, above = values[index - 1] - wanted, values[index] - wanted
    place = left
    for _ in range(ROUNDS):
        place = _between(left, right, below, above)
        found = sign * derivative(place) - wanted
        low_side = found < 0
        left, right = torch.where(low_side, place, left), torch.where(low_side, right, place)
        below, above = torch.where(low_side, found, 0.5 * below), torch.where(low_side, 0.5 * above, found)
    return _between(left, right, below, above)


def _between(left: Tensor, right: Tensor, below: Tensor, above: Tensor) -> Tensor:
    """Where the line through (left, below) and (right, above) is 0, within the two."""
    share = (below / (below - above)).nan_to_num(0.5, 0.5, 0.5).clamp(0, 1)
    return left + share * (right - left)
