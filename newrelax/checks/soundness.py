"""Do two lines bound their activation? A search for a counterexample over (l, u, x)."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from newrelax.checks.places import Intervals, display, excess, points, search_intervals, tolerance, usable
from newrelax.errors import UserError, with_type
from newrelax.relaxations.activation import RELU
from newrelax.relaxations.base import Relaxation


@dataclass(frozen=True)
class Counterexample:
    """A point where a line fails: l <= x <= u, and the line is on the wrong side of the activation at x.

    line: "lower", "upper", or "interval" for a replacement interval that leaves out x. value: the line's value at x. exact:
    the activation's (x itself for an interval). violation: how far the value is on the wrong side (NaN or infinite where the
    line is). activation: its name.
    """

    lower: float
    upper: float
    x: float
    line: str
    value: float
    exact: float
    violation: float
    dtype: str
    activation: str = RELU.name

    def __str__(self) -> str:
        place = f"l = {self.lower:g}, u = {self.upper:g}, x = {self.x:g} ({self.dtype}): "
        if self.line == "interval":
            return place + f"the interval ends at {self.value:g} and leaves out x by {self.violation:g}"
        if not math.isfinite(self.violation):
            return place + f"the {self.line} line is not finite"
        side = "above" if self.line == "lower" else "below"
        exact = f"{display(self.activation)}(x) = {self.exact:g}"
        return place + f"the {self.line} line, {self.value:g}, is {side} {exact} by {self.violation:g}"


def find_counterexample(relaxation: Relaxation) -> Counterexample | None:
    """A point where the lines fail to bound their activation, or None after a search that found none.

    Searched in float64 and float32: round numbers first (so that a counterexample reads well), then a dense grid, all pairs
    of magnitudes from 1e-30 to 1e30 (1e18 in float32) with both signs, the boundaries l = 0, u = 0, l = u and -l = u and
    their floating-point neighbours, random intervals, and a climb from the tightest of those towards larger excess. For fixed
    (l, u) the excess is largest at l, at u, where the activation bends or where it has a line's slope; points between are
    tried too. Intervals on which the activation is not defined, or so large or steep that a product of two values overflows,
    are left out: exp is searched up to 44 in float32 and 354 in float64. Takes about a second.

    Raises:
        UserError: the function fails, or returns something else than lines.
    """
    _try_out(relaxation)
    for dtype in (torch.float64, torch.float32):
        generator = torch.Generator().manual_seed(0)
        for lower, upper in search_intervals(relaxation.function_of, dtype, generator):
            found = _worst(relaxation, lower, upper)
            if found is not None:
                return found
        # The climb starts from other random intervals than the search saw.
        again = search_intervals(relaxation.function_of, dtype, generator)
        found = _climb(relaxation, *merged(again), generator)
        if found is not None:
            return found
    return None


def _try_out(relaxation: Relaxation) -> None:
    everywhere = relaxation.function_of.is_everywhere
    lower, upper = ([-1.0, -2.0], [2.0, 1.0]) if everywhere else ([1.0, 0.5], [2.0, 3.0])
    try:
        relaxation(torch.tensor(lower), torch.tensor(upper))
    except UserError:
        raise
    except Exception as error:  # a plugin's function may raise anything
        raise UserError(f"{relaxation.name}: its function raised {with_type(error)}") from error


def pairs(relaxation: Relaxation, dtype: torch.dtype) -> Intervals:
    """All intervals of the search but the climb's: (lower, upper), each [n], lower <= upper."""
    return merged(search_intervals(relaxation.function_of, dtype, torch.Generator().manual_seed(0)))


def merged(stages: Iterator[Intervals]) -> Intervals:
    """Several batches of intervals as one."""
    lower, upper = zip(*stages, strict=True)
    return torch.cat(lower), torch.cat(upper)


def _measured(relaxation: Relaxation, lower: Tensor, upper: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Excess of the lower and the upper line, [2, m, n], infinite where a line is not finite; what is allowed, which
    broadcasts against it; and the points, [m, n]."""
    activation = relaxation.function_of
    with torch.no_grad():
        lines = relaxation(lower, upper)
        x = points(activation, lines, lower, upper)
        both = torch.stack(excess(activation, lines, x))
        allowed = tolerance(activation, lines, lower, upper, x)
    # A line that is not finite bounds nothing, whatever its comparison says.
    finite = torch.stack([lines[0].isfinite() & lines[1].isfinite(), lines[2].isfinite() & lines[3].isfinite()])
    return torch.where(finite[:, None] & both.isfinite(), both, float("inf")), allowed, x


def _worst(relaxation: Relaxation, lower: Tensor, upper: Tensor) -> Counterexample | None:
    if len(lower) == 0:
        return None
    outside = _outside(relaxation, lower, upper)
    if outside is not None:
        return outside
    both, allowed, x = _measured(relaxation, lower, upper)
    violated = both > allowed
    if not violated.any():
        return None
    # Relative to the interval's size, so that huge intervals do not hide plain ones.
    size = torch.maximum(lower.abs(), upper.abs()).double().clamp(min=1.0)
    worst = int(torch.where(violated, both / size, -1.0).argmax())
    side, rest = divmod(worst, x.numel())
    row, column = divmod(rest, x.shape[1])
    at = lower[column : column + 1], upper[column : column + 1]
    with torch.no_grad():
        lines = relaxation(*at)
    point = float(x[row, column])
    value = float(lines[2 * side].double() * point + lines[2 * side + 1].double())
    exact = float(relaxation.function_of(torch.tensor(point, dtype=torch.float64)))
    return Counterexample(
        float(at[0]),
        float(at[1]),
        point,
        ("lower", "upper")[side],
        value,
        exact,
        abs(value - exact),
        str(lower.dtype).removeprefix("torch."),
        relaxation.activation,
    )


def _outside(relaxation: Relaxation, lower: Tensor, upper: Tensor) -> Counterexample | None:
    """An end that an interval relaxation's replacement interval leaves out."""
    if relaxation.widen is None:
        return None
    with torch.no_grad():
        wider = relaxation.widen(lower, upper)
    allowed = tolerance(RELU, None, lower, upper, lower)
    for sign, end, moved in ((1.0, lower, wider[0]), (-1.0, upper, wider[1])):
        inward = sign * (moved.double() - end.double())
        violated = ~(inward <= allowed)  # NaN counts
        if violated.any():
            at = int(violated.double().argmax())
            return Counterexample(
                float(lower[at]),
                float(upper[at]),
                float(end[at]),
                "interval",
                float(moved[at]),
                float(end[at]),
                float(inward[at]),
                str(lower.dtype).removeprefix("torch."),
            )
    return None


def _climb(
    relaxation: Relaxation, lower: Tensor, upper: Tensor, generator: torch.Generator, keep: int = 32
) -> Counterexample | None:
    """Random steps from the intervals with the least room, kept when the excess grows."""
    for round_ in range(12):
        both, allowed, _ = _measured(relaxation, lower, upper)
        room = (both / allowed).amax((0, 1))
        # Tight lines touch the activation, so most intervals tie at 0: pick among them at random.
        order = torch.randperm(len(room), generator=generator)
        best = order[room[order].topk(min(keep, len(room))).indices]
        spread = 2.0 ** (-round_ / 2)
        noise = torch.randn(2, 32, len(best), generator=generator, dtype=lower.dtype) * spread
        start = torch.stack([lower[best], upper[best]])[:, None]
        moved = start * torch.exp(noise) + noise.flip(0) * spread * 0.1 * (start.abs() < 100)
        ends = torch.cat([start, moved], 1).flatten(1)
        lower, upper = usable(relaxation.function_of, ends.amin(0), ends.amax(0))
        found = _worst(relaxation, lower, upper)
        if found is not None:
            return found
    return None
