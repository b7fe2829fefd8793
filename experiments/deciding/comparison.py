"""Networks beside the baseline's: how far behind by their own certifiers, how far when decided, and whose the distance is."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import fmean

from experiments.deciding.network import Network
from experiments.reporting.summary import Figure

BASELINE = "IBP"
CLEAR = 2.0
"""A distance counts from this many of its standard errors on: shares of nothing mean nothing."""


@dataclass(frozen=True)
class Range:
    """A figure that undecided images leave between two ends."""

    low: float
    high: float

    @property
    def middle(self) -> float:
        """Halfway."""
        return (self.low + self.high) / 2

    def __rsub__(self, other: float) -> Range:
        return Range(other - self.high, other - self.low)

    def __truediv__(self, other: float) -> Range:
        return Range(self.low / other, self.high / other)


@dataclass(frozen=True)
class Distance:
    """Percentage points by which a network is behind the baseline's on the same images, by own certifiers and decided, each
    with its standard error."""

    own: float
    own_error: float
    exact: Range
    exact_error: float

    @property
    def is_clear(self) -> bool:
        """Whether there is a distance by own certifiers to divide."""
        return self.own > CLEAR * self.own_error

    @property
    def is_behind(self) -> bool:
        """Whether the network is clearly behind the baseline's when decided, whatever was left open."""
        return self.exact.low > CLEAR * self.exact_error

    @property
    def is_ahead(self) -> bool:
        """Whether it is clearly ahead."""
        return self.exact.high < -CLEAR * self.exact_error

    @property
    def training_share(self) -> Range | None:
        """The part of the distance that stays when every image is decided, in percent; None where it is not clear."""
        return self.exact / (self.own / 100) if self.is_clear else None

    @property
    def certifier_share(self) -> Range | None:
        """The rest, in percent."""
        return None if self.training_share is None else 100 - self.training_share


@dataclass(frozen=True)
class Row:
    """One method's networks, which differ in their seeds alone; figures in percent.

    `distance`: None for the baseline itself, and where it was not decided on the same images.
    """

    method: str
    networks: tuple[Network, ...]
    distance: Distance | None = None

    @property
    def images(self) -> int:
        """How many images each network was asked about."""
        return self.networks[0].images

    @property
    def own(self) -> Figure:
        """Certified by the relaxation that trained the network."""
        return Figure(tuple(100 * each.own / each.images for each in self.networks))

    @property
    def proven(self) -> Figure:
        """Exact accuracy, if what was left open is not robust."""
        return Figure(tuple(100 * each.proven / each.images for each in self.networks))

    @property
    def exact(self) -> Range:
        """Exact accuracy, mean over the seeds."""
        return Range(self.proven.mean, fmean(100 * (each.images - each.falsified) / each.images for each in self.networks))

    @property
    def lost(self) -> Range:
        """What the certifier leaves unproven of what is robust."""
        return Range(self.exact.low - self.own.mean, self.exact.high - self.own.mean)


def compare(networks: Iterable[Network]) -> list[Row]:
    """A row for each method of one group, the baseline first, then by exact accuracy.

    Where a method was decided on several numbers of images, the largest counts; its distance is to the baseline's
    networks on as many.
    """
    by_method: dict[str, dict[int, list[Network]]] = {}
    for each in networks:
        by_method.setdefault(each.method, {}).setdefault(each.images, []).append(each)
    baselines = by_method.get(BASELINE, {})
    rows = []
    for method, asked in by_method.items():
        images = max(asked)
        row = Row(method, tuple(asked[images]))
        if method != BASELINE and images in baselines:
            row = Row(method, row.networks, _distance(row, Row(BASELINE, tuple(baselines[images]))))
        rows.append(row)
    return sorted(rows, key=lambda row: (row.method != BASELINE, -row.exact.middle, row.method))


def whole(rows: Sequence[Row]) -> float | None:
    """The training's share, in percent, of all clear distances together; None without any."""
    clear = [row.distance for row in rows if row.distance and row.distance.is_clear]
    return 100 * sum(each.exact.middle for each in clear) / sum(each.own for each in clear) if clear else None


def _distance(row: Row, baseline: Row) -> Distance:
    exact = Range(baseline.exact.low - row.exact.high, baseline.exact.high - row.exact.low)
    own = baseline.own.mean - row.own.mean
    errors = (_error(row.own, baseline.own, row.images), _error(row.proven, baseline.proven, row.images))
    return Distance(own, errors[0], exact, errors[1])


def _error(one: Figure, other: Figure, images: int) -> float:
    """Of the difference of two means: over seeds where there are several, else at most that of drawing the images.

    Both networks meet the same images, which makes their difference surer than that of two draws.
    """
    if one.spread is not None and other.spread is not None:
        return math.sqrt(one.spread**2 / len(one.values) + other.spread**2 / len(other.values))
    return math.sqrt(sum(each.mean * (100 - each.mean) for each in (one, other)) / images)
