"""Accuracy from a few properties: ridge regression, with its choice of properties inside what leave-one-out tests.

Which sets of properties are tried was written down before any was held against an accuracy. The mean of all accuracies is one
of them, so that properties which foretell nothing are not used.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Vector = NDArray[np.float64]
Matrix = NDArray[np.float64]

CANDIDATES: tuple[tuple[str, ...], ...] = (
    (),
    ("tightness",),
    ("tightness", "largest jump", "curved share"),  # the paper's three
    ("tightness", "largest jump", "unpredicted"),
    ("tightness", "spread", "gradient cosine"),  # Lee et al.'s
)
"""Sets of properties, of which leave-one-out chooses."""
FEATURES: tuple[str, ...] = tuple(dict.fromkeys(name for names in CANDIDATES for name in names))
"""All properties that any candidate uses: the columns of a model's input."""
PENALTY = 1.0
"""Of the squared weights, in units of one relaxation's squared error: properties are standardised."""
MISSED = 0.1
"""Share of relaxations that an interval may miss."""


@dataclass(frozen=True)
class Model:
    """accuracy = intercept + weights · (features − center) / scale, over the columns `used`."""

    used: tuple[str, ...]
    intercept: float
    center: Vector
    scale: Vector
    weights: Vector

    def __call__(self, features: Vector) -> float:
        """The accuracy of one relaxation from its FEATURES."""
        columns = [FEATURES.index(name) for name in self.used]
        return float(self.intercept + self.weights @ ((features[columns] - self.center) / self.scale))


@dataclass(frozen=True)
class Interval:
    """A prediction and the range around it, in the unit of the accuracies."""

    low: float
    center: float
    high: float


def ridge(x: Matrix, y: Vector, used: Sequence[str]) -> Model:
    """The ridge regression of y: [n] on the columns `used` of x: [n, FEATURES], which it standardises."""
    chosen = x[:, [FEATURES.index(name) for name in used]]
    center, scale = chosen.mean(axis=0), chosen.std(axis=0)
    scale = np.where(scale > 0, scale, 1.0)  # a property that is the same for all tells nothing
    z = (chosen - center) / scale
    weights = np.linalg.solve(z.T @ z + PENALTY * np.eye(len(used)), z.T @ (y - y.mean()))
    return Model(tuple(used), float(y.mean()), center, scale, weights)


def left_out(x: Matrix, y: Vector, used: Sequence[str]) -> Vector:
    """What `ridge` on all others predicts for each relaxation: [n]. All regressions at once, since there are many."""
    count = len(y)
    rest = np.array([np.delete(np.arange(count), i) for i in range(count)])
    chosen = x[:, [FEATURES.index(name) for name in used]]
    center, scale = chosen[rest].mean(axis=1), chosen[rest].std(axis=1)
    scale = np.where(scale > 0, scale, 1.0)
    z = (chosen[rest] - center[:, None]) / scale[:, None]
    deviations = y[rest] - y[rest].mean(axis=1, keepdims=True)
    grams = np.einsum("nik,nil->nkl", z, z) + PENALTY * np.eye(len(used))
    weights = np.linalg.solve(grams, np.einsum("nik,ni->nk", z, deviations)[..., None])[..., 0]
    return np.asarray(y[rest].mean(axis=1) + ((chosen - center) / scale * weights).sum(axis=1))


def error(predicted: Vector, y: Vector) -> float:
    """Root mean square error."""
    return float(np.sqrt(np.mean((predicted - y) ** 2)))


def fit(x: Matrix, y: Vector) -> Model:
    """The regression on the candidate whose leave-one-out error is smallest, the first of equal ones."""
    best = min(CANDIDATES, key=lambda used: error(left_out(x, y, used), y))
    return ridge(x, y, best)


def others(x: Matrix, y: Vector) -> list[Model]:
    """For each relaxation the model that was chosen and fitted without it."""
    return [fit(*_without(x, y, i)) for i in range(len(y))]


def jackknife(models: Sequence[Model], x: Matrix, y: Vector, features: Vector, center: float) -> Interval:
    """Jackknife+ (Barber et al., 2021): where models without one relaxation each see the new one, give or take their errors.

    It holds the accuracy of a relaxation drawn like those of the study with probability 1 − 2·MISSED at least, 1 − MISSED as
    a rule. models: of `others`. center: what the model of all predicts.
    """
    at = np.array([model(features) for model in models])
    residuals = np.abs(y - [model(row) for model, row in zip(models, x, strict=True)])
    rank = min(len(y), int(np.ceil((1 - MISSED) * (len(y) + 1))))
    low = -np.sort(-(at - residuals))[rank - 1]
    high = np.sort(at + residuals)[rank - 1]
    return Interval(float(low), center, float(high))


def _without(x: Matrix, y: Vector, i: int) -> tuple[Matrix, Vector]:
    return np.delete(x, i, axis=0), np.delete(y, i)
