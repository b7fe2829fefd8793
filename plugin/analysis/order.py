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
EXPONENTS = (1.7, 2.3)
"""Curvature: S ~ h^p with p in this range between the smallest steps above noise. A kink gives p ≤ 1 or an abrupt
end; the range leaves room for the next Taylor term, which bends p by O(h²)."""
ABRUPT = 4.0
"""S has ended abruptly when h² scaling promised at least this many times the noise threshold at the next step."""
ORDER_TOLERANCE = 0.4
HIGHEST = 6


@dataclass(frozen=True)
class Ladder:
    """Steps relative to the weight's scale: largest · ratio^(−k), k = 0 … count − 1; `tiny` is where only noise is left.
    `confirm`: successive exponents that must read as curvature."""

    largest: float
    ratio: float
    count: int
    tiny: float
    confirm: int

    def steps(self) -> list[float]:
        return [self.largest * self.ratio**-k for k in range(self.count)]


LADDERS = {
    torch.float64: Ladder(2.0**-3, 4.0, 9, 2.0**-34, 2),
    torch.float32: Ladder(2.0**-1, 2.0, 6, 2.0**-16, 3),
}
"""Per float type. float32 has little room between curvature and noise, hence larger steps and more unresolved bounds."""

LINEAR, CURVED, UNRESOLVED, INERT = 0, 1, 2, 3


@dataclass(frozen=True)
class Shape:
    """Per bound: its kind; the noise threshold; the largest relative step at which it is smooth (curved bounds only),
    and the size of its curvature, |B''| · scale² / mean |B|. `size` is mean |B|; `second` the mean |S| at each step."""

    kind: Tensor
    noise: float
    smooth: Tensor
    curvature: Tensor
    size: float
    second: tuple[float, ...]


def classify(bounds_at: Callable[[float], Tensor], scale: float, ladder: Ladder) -> Shape:
    """Tell straight bounds from curved ones in one weight.

    bounds_at: the flat vector of bounds, float64, at a given change of the weight. scale: size of the weight.
    """
    center = bounds_at(0.0)
    machine = 2.0**-52 if ladder.tiny < 2.0**-20 else 2.0**-23
    samples = []
    for factor in (1.0, 1.37):
        h = ladder.tiny * factor * scale
        samples.append((bounds_at(h) - 2 * center + bounds_at(-h)).abs())
    size = float(center.abs().mean())
    # The upper quarter is left out: a kink or jump may sit right there.
    noise = NOISE_FACTOR * max(float(torch.stack(samples).flatten().quantile(0.75)), machine * size)

    steps = ladder.steps()
    pairs = [(bounds_at(h * scale), bounds_at(-h * scale)) for h in steps]
    second = torch.stack([(up - 2 * center + down).abs() for up, down in pairs])
    first = torch.stack([(up - down).abs() for up, down in pairs])
    above = (second > noise).cumprod(dim=0).bool()  # a step counts while all larger ones stand above noise too
    last = above.sum(dim=0) - 1

    exponent = (second[:-1].clamp(min=1e-300).log() - second[1:].clamp(min=1e-300).log()) / math.log(ladder.ratio)
    smooth_step = (exponent >= EXPONENTS[0]) & (exponent <= EXPONENTS[1])
    columns = torch.arange(second.shape[1])
    at_last = second[last.clamp(min=0), columns]
    promised = at_last / ladder.ratio**2
    ends = (last < ladder.count - 1) & (promised > ABRUPT * noise)
    confirmed = torch.ones_like(ends)
    for back in range(1, ladder.confirm + 1):
        confirmed &= smooth_step[(last - back).clamp(min=0), columns]
    curved = (last >= ladder.confirm) & confirmed & ~ends
    linear = (last < 0) | ends
    # What is too weak to be followed over enough steps, or kinky down to the smallest, is neither straight nor curved.
    kind = torch.full_like(last, UNRESOLVED)
    kind[linear] = LINEAR
    kind[curved] = CURVED
    kind[(last < 0) & (first.amax(dim=0) <= noise)] = INERT

    # From the smallest step upwards, as far as curvature goes on undisturbed.
    smooth = torch.zeros(second.shape[1], dtype=torch.float64)
    curvature = torch.zeros_like(smooth)
    for i in curved.nonzero().flatten().tolist():
        k = int(last[i])
        curvature[i] = second[k, i] / steps[k] ** 2 / max(size, 1e-300)
        while k > 0 and smooth_step[k - 1, i]:
            k -= 1
        smooth[i] = steps[k]
    return Shape(kind, noise, smooth, curvature, size, tuple(second.mean(dim=1).tolist()))


def order(bounds_at: Callable[[float], Tensor], step: float, chosen: Tensor, noise: float) -> list[int]:
    """Degree of each chosen bound in the weight, by divided differences of orders 2 … 6 at spacings s and 2s.

    step: the largest change of the weight, inside the smooth range; s = step / 6. A difference of order k counts when
    it stands above its noise at both spacings and grows like spacing^k. The result is the highest such k, 1 without
    any: exact for polynomials up to degree 6, and as far as the noise lets one see for other functions.
    """
    spacing = step / HIGHEST
    table = {j: bounds_at(j * spacing)[chosen] for j in range(-HIGHEST, HIGHEST + 1)}
    orders = torch.ones(int(chosen.sum()), dtype=torch.long)
    for k in range(2, HIGHEST + 1):
        signs = [(-1) ** (k - i) * math.comb(k, i) for i in range(k + 1)]
        wide = sum(c * table[2 * i - k] for i, c in enumerate(signs))
        starts = (-k // 2,) if k % 2 == 0 else (-(k + 1) // 2, -(k - 1) // 2)
        narrow = sum(sum(c * table[s + i] for i, c in enumerate(signs)) for s in starts) / len(starts)
        threshold = noise * math.sqrt(math.comb(2 * k, k) / 6)
        exponent = torch.log2(wide.abs().clamp(min=1e-300) / narrow.abs().clamp(min=1e-300))
        seen = (wide.abs() > threshold) & (narrow.abs() > threshold) & ((exponent - k).abs() < ORDER_TOLERANCE)
        orders[seen] = k
    return orders.tolist()
