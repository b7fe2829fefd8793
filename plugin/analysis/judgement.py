"""Jump, slope or noise: what the function does across an interval of the narrowest width."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from plugin.analysis.records import Jump
from plugin.analysis.samples import Interval, Samples

NOISE_FACTOR = 32.0
"""A change below this many standard deviations of the rounding noise is never called a jump. Some hundred
differences are looked at per line, so 6 would do for Gaussian noise; rounding has heavier tails."""
NOISE_SITES = 4
"""Places where the noise is measured; the noisiest is left out, since a jump may sit there. Noise sits in all of them."""
NOISE_STEPS = 3
"""Steps from each such place: with it, they make two second differences."""
SECOND_DIFFERENCE_VARIANCE = 6
"""Of a second difference of independent noise, in variances of the noise: 1² + 2² + 1²."""
SLOPE_FACTOR = 10.0
"""A jump leaves the range of the changes over the intervals beside it, equally wide, by at least this factor."""
SLOPES_BESIDE = 3
"""Such intervals on either side."""
NOISE_OF_SLOPES = 0.25
"""Share of the resolution that the range of the changes beside owes to noise; a jump's own noise is in the resolution."""
ROUNDED_WIDTH = 0.1
"""The narrowest interval, some ten roundings of the position wide, is wider or narrower than said by up to this share."""
SETTLED_STEPS = 2
"""An interval of up to this many narrowest steps is judged and not cut any more."""


@dataclass(frozen=True)
class Limits:
    """What can be told apart on a line.

    narrowest: the smallest step in t. resolution: what a change must exceed to be no rounding noise (units of the
    function).
    """

    narrowest: float
    resolution: float


@dataclass(frozen=True)
class Verdict:
    """An interval at the narrowest width. change: of the function across it; jump: where the slopes do not explain it."""

    interval: Interval
    change: float
    jump: Jump | None


def resolution(samples: Samples, nodes: Sequence[float], narrowest: float, epsilon: float) -> float:
    """What a change must exceed to be no rounding noise (units of the function).

    The noise is that of second differences at the narrowest spacing, where slope and curvature are nothing.
    """
    variances = []
    for site in range(NOISE_SITES):
        t = nodes[1 + (len(nodes) - 2) * site // NOISE_SITES]
        f = [samples(t), *(samples.function(t + j * narrowest) for j in range(1, NOISE_STEPS + 1))]
        second = [f[i] - 2 * f[i + 1] + f[i + 2] for i in range(NOISE_STEPS - 1)]
        variances.append(sum(each**2 / SECOND_DIFFERENCE_VARIANCE for each in second) / len(second))
    kept = sorted(variances)[:-1]
    sigma = (sum(kept) / len(kept)) ** 0.5
    return float(NOISE_FACTOR * max(sigma, epsilon * samples.largest))


def judge(samples: Samples, interval: Interval, limits: Limits) -> Verdict:
    """Jump or steep slope: the change over the narrowest interval against the changes over its neighbours."""
    change, spacing = samples.change(interval), interval.width
    left = [samples(interval.left - j * spacing) for j in range(SLOPES_BESIDE + 1)]
    right = [samples(interval.right + j * spacing) for j in range(SLOPES_BESIDE + 1)]
    beside = [near - far for near, far in pairwise(left)] + [far - near for near, far in pairwise(right)]
    middle, spread = (max(beside) + min(beside)) / 2, max(beside) - min(beside)
    spread = max(0.0, spread - limits.resolution * NOISE_OF_SLOPES)
    # A rounded position changes what a slope explains, by a share of it.
    explained = SLOPE_FACTOR * spread + limits.resolution + ROUNDED_WIDTH * abs(middle)
    jumps = abs(change - middle) > explained
    found = Jump(interval.left + spacing / 2, spacing, change - middle, interval.trace) if jumps else None
    return Verdict(interval, change, found)


def change_where_steepest(samples: Samples, nodes: Sequence[float], width: float) -> float:
    """The change over `width` at the left end of the grid's steepest interval."""
    left, _ = max(pairwise(nodes), key=lambda ends: abs(samples(ends[1]) - samples(ends[0])))
    return samples(left + width) - samples(left)
