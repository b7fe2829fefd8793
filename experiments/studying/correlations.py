"""Rank correlations of accuracies with properties: how sure they are, and which ones chance would not have brought up."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata

from plugin.analysis.prediction.model import Matrix, Vector

RESAMPLES = 2000
"""Of relaxations with replacement for intervals, and of shuffled accuracies for thresholds."""
SEED = 0
LEVEL = 0.95


@dataclass(frozen=True)
class Estimate:
    """A correlation with its 95 % bootstrap interval. stands: the interval leaves out 0, and the correlation is larger than the
    largest of all that were looked at becomes when accuracies are shuffled, but for one shuffle in twenty."""

    rho: float
    low: float
    high: float
    stands: bool

    @property
    def excludes_zero(self) -> bool:
        """Whether the interval lies on one side of 0, were this the only correlation looked at."""
        return self.low > 0 or self.high < 0


@dataclass(frozen=True)
class Correlation:
    """Of an outcome (certified, exact) with a property on a kind of network. partial: with tightness there held fixed; None for
    tightness itself."""

    outcome: str
    property: str
    kind: str
    plain: Estimate
    partial: Estimate | None


@dataclass(frozen=True)
class Correlations:
    """All that were looked at. threshold, partial_threshold: what chance reaches anywhere among them, once in twenty."""

    each: tuple[Correlation, ...]
    threshold: float
    partial_threshold: float


def correlate(
    outcomes: Mapping[str, Vector], properties: Mapping[str, Mapping[str, Vector]], fixed: str = "tightness"
) -> Correlations:
    """Spearman's correlations of each outcome with each property on each kind of network, over relaxations.

    Intervals are percentiles over resampled relaxations; thresholds those of the largest absolute correlation, over outcomes
    and properties, when accuracies are shuffled (Westfall and Young); for partial ones, what tightness leaves of them
    (Freedman and Lane). All draws come from one seed.

    Args:
        outcomes: name → accuracies [relaxations]. properties: kind → name → figures [relaxations].
        fixed: the property that partial correlations hold fixed.
    """
    count = len(next(iter(outcomes.values())))
    generator = np.random.default_rng(SEED)
    drawn = generator.integers(count, size=(RESAMPLES, count))
    shuffled = generator.permuted(np.tile(np.arange(count), (RESAMPLES, 1)), axis=1)
    pairs = [(kind, name) for kind, named in properties.items() for name in named]
    plain_threshold = _threshold([_shuffled(y, properties, shuffled, None) for y in outcomes.values()])
    partial_threshold = _threshold([_shuffled(y, properties, shuffled, fixed) for y in outcomes.values()])
    found = []
    for outcome, y in outcomes.items():
        for kind, name in pairs:
            x, z = properties[kind][name], properties[kind][fixed]
            plain = _estimate(_spearman(y, x), _spearman(y[drawn], x[drawn]), plain_threshold)
            partial = None
            if name != fixed:
                partial = _estimate(_partial(y, x, z), _partial(y[drawn], x[drawn], z[drawn]), partial_threshold)
            found.append(Correlation(outcome, name, kind, plain, partial))
    return Correlations(tuple(found), plain_threshold, partial_threshold)


def spearman(y: Sequence[float], x: Sequence[float]) -> float:
    """Spearman's rank correlation; 0 where one is the same for all."""
    return float(_spearman(np.array(y), np.array(x))[0])


def _ranks(values: Matrix) -> Matrix:
    """Centred ranks along the last dimension, of unit length; zeros where all are equal."""
    ranks = np.atleast_2d(rankdata(values, axis=-1))
    return _unit(ranks - ranks.mean(axis=-1, keepdims=True))


def _unit(rows: Matrix) -> Matrix:
    norms = np.linalg.norm(rows, axis=-1, keepdims=True)
    return np.where(norms > 1e-9, rows / np.where(norms > 1e-9, norms, 1.0), 0.0)


def _spearman(y: Matrix, x: Matrix) -> Vector:
    return np.asarray((_ranks(y) * _ranks(x)).sum(axis=-1))


def _residual(rows: Matrix, fixed: Matrix) -> Matrix:
    """What unit rows leave over of other ones, again of unit length."""
    return _unit(rows - (rows * fixed).sum(axis=-1, keepdims=True) * fixed)


def _partial(y: Matrix, x: Matrix, z: Matrix) -> Vector:
    fixed = _ranks(z)
    return np.asarray((_residual(_ranks(y), fixed) * _residual(_ranks(x), fixed)).sum(axis=-1))


def _estimate(rho: Vector, resampled: Vector, threshold: float) -> Estimate:
    low, high = (float(each) for each in np.quantile(resampled, [(1 - LEVEL) / 2, (1 + LEVEL) / 2]))
    value = float(rho[0])
    return Estimate(value, low, high, (low > 0 or high < 0) and abs(value) >= threshold)


def _shuffled(
    y: Vector, properties: Mapping[str, Mapping[str, Vector]], orders: NDArray[np.int64], fixed: str | None
) -> Vector:
    """The largest absolute correlation with any property, for each order in which y, or its residual, is shuffled."""
    largest = np.zeros(len(orders))
    for named in properties.values():
        if fixed is None:
            rows, columns = _ranks(y)[0][orders], [_ranks(x)[0] for x in named.values()]
        else:
            z = _ranks(named[fixed])
            rows = _residual(_residual(_ranks(y), z)[0][orders], z)
            columns = [_residual(_ranks(x), z)[0] for name, x in named.items() if name != fixed]
        if columns:
            largest = np.maximum(largest, np.abs(rows @ np.array(columns).T).max(axis=1))
    return largest


def _threshold(largest: Sequence[Vector]) -> float:
    """The size that the largest of all reaches in one shuffle of twenty; the same orders shuffled every outcome."""
    return float(np.quantile(np.max(largest, axis=0), LEVEL))
