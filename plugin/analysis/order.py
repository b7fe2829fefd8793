"""The order of bounds in a single weight, from divided differences at several steps.

Second differences S(h) = B(w + h) − 2B(w) + B(w − h) tell four things apart by how they scale with the step:
rounding noise stays as it is, a kink inside the stencil goes at most like h and vanishes *abruptly* once the stencil
no longer reaches it, curvature shrinks like h² and down to the noise, and a jump stays or vanishes abruptly. So what
decides is the smallest steps at which S still stands above the noise.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

NOISE_FACTOR = 8.0
"""A second difference counts from this many times the noise."""
NOISE_QUANTILE = 0.75
"""Noise is measured below the upper quarter of the bounds: a kink or jump may sit right there."""
NOISE_STEPS = (1.0, 1.37)
"""Noise is measured at these multiples of the ladder's tiny step, so that no pattern of rounding decides alone."""
EXPONENTS = (1.7, 2.3)
"""Curvature: S ~ h^p with p in this range between the smallest steps above noise. A kink gives p ≤ 1 or an abrupt
end; the range leaves room for the next Taylor term, which bends p by O(h²)."""
ABRUPT = 4.0
"""S has ended abruptly when h² scaling promised at least this many times the noise threshold at the next step."""
ORDER_TOLERANCE = 0.4
"""A difference of order k grows like spacing^k when its exponent is within this of k."""
HIGHEST = 6
"""The highest order looked for."""
SMALLEST = 1e-300
"""What logarithms and quotients see instead of 0."""
LINEAR, CURVED, UNRESOLVED, INERT = 0, 1, 2, 3
"""Kinds of bounds: piecewise linear in the weight; curved; too weak or too kinky to tell; not depending on it."""

Bounds = Callable[[float], Tensor]
"""The flat vector of bounds, float64, at a given change of the weight."""


@dataclass(frozen=True)
class Ladder:
    """Steps relative to the weight's scale: largest · ratio^(−k), k = 0 … count − 1.

    tiny: a step at which only noise is left. confirm: successive exponents that must read as curvature.
    machine: the float type's relative rounding.
    """

    largest: float
    ratio: float
    count: int
    tiny: float
    confirm: int
    machine: float

    def steps(self) -> list[float]:
        """All steps, by descending size."""
        return [self.largest * self.ratio**-k for k in range(self.count)]


LADDERS = {
    torch.float64: Ladder(2.0**-3, 4.0, 9, 2.0**-34, 2, 2.0**-52),
    torch.float32: Ladder(2.0**-1, 2.0, 6, 2.0**-16, 3, 2.0**-23),
}
"""Per float type. float32 has little room between curvature and noise, hence larger steps and more unresolved bounds."""


@dataclass(frozen=True)
class Shape:
    """How bounds depend on one weight.

    kind: of each bound. noise: from which size on a second difference counts. smooth: for each curved bound the largest
    relative step at which it is smooth. curvature: of each curved bound, |B''| · scale² / mean |B|. size: mean |B|.
    second: the mean |S| at each step of the ladder.
    """

    kind: Tensor
    noise: float
    smooth: Tensor
    curvature: Tensor
    size: float
    second: tuple[float, ...]


@dataclass(frozen=True)
class _Differences:
    """What was measured, a row for each step of the ladder and a column for each bound.

    first, second: |B(w + h) − B(w − h)| and |S(h)|. last: the row of the smallest step down to which S stands above the
    noise without a gap, −1 without any. scales: whether S goes like h² from this row to the next.
    """

    first: Tensor
    second: Tensor
    last: Tensor
    scales: Tensor


def classify(bounds_at: Bounds, scale: float, ladder: Ladder) -> Shape:
    """Tells straight bounds from curved ones in one weight.

    Args:
        bounds_at: the bounds at a change of the weight. Called twice for each step and five times for the noise.
        scale: size of the weight.
    """
    center = bounds_at(0.0)
    size = float(center.abs().mean())
    noise = _noise(bounds_at, center, scale, ladder)
    differences = _differences(bounds_at, center, scale, ladder, noise)
    kind = _kinds(differences, ladder, noise)
    smooth, curvature = _curvature(differences, kind == CURVED, ladder, size)
    return Shape(kind, noise, smooth, curvature, size, tuple(differences.second.mean(dim=1).tolist()))


def order(bounds_at: Bounds, step: float, chosen: Tensor, noise: float) -> list[int]:
    """Degree of each chosen bound in the weight, by divided differences of orders 2 … 6 at spacings s and 2s.

    A difference of order k counts when it stands above its noise at both spacings and grows like spacing^k. The result
    is the highest such k, 1 without any: exact for polynomials up to degree 6, and as far as the noise lets one see for
    other functions.

    Args:
        bounds_at: the bounds at a change of the weight.
        step: the largest change of the weight, inside the smooth range; s = step / 6.
        chosen: which bounds, as truth values.
        noise: of a second difference.
    """
    spacing = step / HIGHEST
    values = {j: bounds_at(j * spacing)[chosen] for j in range(-HIGHEST, HIGHEST + 1)}
    orders = torch.ones(int(chosen.sum()), dtype=torch.long)
    for k in range(2, HIGHEST + 1):
        wide, narrow = _divided(values, k, 2, (-k,)).abs(), _divided(values, k, 1, _centered(k)).abs()
        threshold = noise * math.sqrt(math.comb(2 * k, k) / math.comb(4, 2))
        exponent = torch.log2(wide.clamp(min=SMALLEST) / narrow.clamp(min=SMALLEST))
        seen = (wide > threshold) & (narrow > threshold) & ((exponent - k).abs() < ORDER_TOLERANCE)
        orders[seen] = k
    return [int(degree) for degree in orders]


def _noise(bounds_at: Bounds, center: Tensor, scale: float, ladder: Ladder) -> float:
    """From which size on a second difference counts: where the step is tiny, it is rounding alone."""
    samples = []
    for factor in NOISE_STEPS:
        h = ladder.tiny * factor * scale
        samples.append((bounds_at(h) - 2 * center + bounds_at(-h)).abs())
    typical = float(torch.stack(samples).flatten().quantile(NOISE_QUANTILE))
    return NOISE_FACTOR * max(typical, ladder.machine * float(center.abs().mean()))


def _differences(bounds_at: Bounds, center: Tensor, scale: float, ladder: Ladder, noise: float) -> _Differences:
    pairs = [(bounds_at(h * scale), bounds_at(-h * scale)) for h in ladder.steps()]
    second = torch.stack([(up - 2 * center + down).abs() for up, down in pairs])
    first = torch.stack([(up - down).abs() for up, down in pairs])
    above = (second > noise).cumprod(dim=0).bool()  # a step counts while all larger ones stand above noise too
    logarithm = second.clamp(min=SMALLEST).log()
    exponent = (logarithm[:-1] - logarithm[1:]) / math.log(ladder.ratio)
    scales = (exponent >= EXPONENTS[0]) & (exponent <= EXPONENTS[1])
    return _Differences(first, second, above.sum(dim=0) - 1, scales)


def _kinds(found: _Differences, ladder: Ladder, noise: float) -> Tensor:
    """The kind of each bound; what is too weak or kinky down to the smallest step is neither straight nor curved."""
    last, columns = found.last, torch.arange(found.second.shape[1])
    promised = found.second[last.clamp(min=0), columns] / ladder.ratio**2
    ends = (last < ladder.count - 1) & (promised > ABRUPT * noise)
    confirmed = torch.ones_like(ends)
    for back in range(1, ladder.confirm + 1):
        confirmed &= found.scales[(last - back).clamp(min=0), columns]
    kind = torch.full_like(last, UNRESOLVED)
    kind[(last < 0) | ends] = LINEAR
    kind[(last >= ladder.confirm) & confirmed & ~ends] = CURVED
    kind[(last < 0) & (found.first.amax(dim=0) <= noise)] = INERT
    return kind


def _curvature(found: _Differences, curved: Tensor, ladder: Ladder, size: float) -> tuple[Tensor, Tensor]:
    """For each curved bound the largest step up to which curvature goes on undisturbed, and its size; 0 elsewhere."""
    steps = ladder.steps()
    smooth = torch.zeros(len(curved), dtype=torch.float64)
    curvature = torch.zeros_like(smooth)
    for i in curved.nonzero().flatten().tolist():
        row = int(found.last[i])
        curvature[i] = found.second[row, i] / steps[row] ** 2 / max(size, SMALLEST)
        while row > 0 and found.scales[row - 1, i]:
            row -= 1
        smooth[i] = steps[row]
    return smooth, curvature


def _centered(k: int) -> tuple[int, ...]:
    """Where k + 1 successive points start that lie around 0; for odd k both ways, whose mean does."""
    return (-k // 2,) if k % 2 == 0 else (-(k + 1) // 2, -(k - 1) // 2)


def _divided(values: dict[int, Tensor], k: int, stride: int, starts: tuple[int, ...]) -> Tensor:
    """The k-th difference over points `stride` apart, as the mean over where it starts."""
    signs = [(-1) ** (k - i) * math.comb(k, i) for i in range(k + 1)]
    total = torch.zeros_like(values[0])
    for start in starts:
        total = total + sum(sign * values[start + stride * i] for i, sign in enumerate(signs))
    return total / len(starts)
