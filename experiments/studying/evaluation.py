"""How well does a small model foretell relaxations that it has not seen?"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from experiments.studying.correlations import LEVEL, RESAMPLES, SEED
from plugin.analysis.prediction.forecast import Predicted, foretell
from plugin.analysis.prediction.model import CANDIDATES, Interval, Matrix, Model, Vector, error, fit, left_out, others, ridge
from plugin.analysis.prediction.study import Study


@dataclass(frozen=True)
class Held:
    """A relaxation that was left out. predicted: in percent, by the model of the others, with its interval; None where it would
    refuse to speak of a relaxation so unlike the others."""

    measured: float
    predicted: float
    interval: Interval | None


@dataclass(frozen=True)
class Evaluation:
    """Leave-one-relaxation-out errors, in percentage points of certified accuracy, root mean square.

    candidates: of each set of properties. error: of the model whose set is chosen inside, without the relaxation left out;
    baseline: of the others' mean. low, high: 95 % bootstrap interval of error − baseline over relaxations. chosen: the set
    that all relaxations together choose; picked: how often each is, when one is left out. held: relaxation → prediction.
    family_error, family_baseline: when all that propagate bounds in the same way are left out together.
    """

    candidates: Mapping[str, float]
    error: float
    baseline: float
    low: float
    high: float
    chosen: tuple[str, ...]
    picked: Mapping[str, int]
    held: Mapping[str, Held]
    family_error: float
    family_baseline: float

    @property
    def better(self) -> bool:
        """Whether the model is better than the mean beyond what the choice of relaxations may have brought."""
        return self.high < 0

    @property
    def covered(self) -> tuple[int, int]:
        """How many intervals hold the accuracy measured, of how many that were given."""
        given = [(each.measured, each.interval) for each in self.held.values() if each.interval]
        return sum(interval.low <= measured <= interval.high for measured, interval in given), len(given)

    @property
    def width(self) -> float:
        """Mean width of the intervals, in percentage points; NaN without any."""
        widths = [each.interval.high - each.interval.low for each in self.held.values() if each.interval]
        return float(np.mean(widths)) if widths else float("nan")


def name_of(used: tuple[str, ...]) -> str:
    """A set of properties, for people."""
    return ", ".join(used) or "none: the mean"


def evaluate(study: Study, families: Mapping[str, str]) -> Evaluation:
    """The errors of every candidate, and of choosing one, on a study's relaxations. families: relaxation → propagation."""
    names, x, y = study.table()
    models = others(x, y)
    predicted = np.array([model(row) for model, row in zip(models, x, strict=True)])
    mean = left_out(x, y, ())
    drawn = np.random.default_rng(SEED).integers(len(y), size=(RESAMPLES, len(y)))
    own, others_mean = ((each - y) ** 2 for each in (predicted, mean))
    gains = np.sqrt(own[drawn].mean(axis=1)) - np.sqrt(others_mean[drawn].mean(axis=1))
    groups = np.array([families[name] for name in names])
    of_others = [_of_others(x, y, groups != group) for group in groups]
    low, high = np.quantile(gains, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Evaluation(
        candidates={name_of(used): error(left_out(x, y, used), y) for used in CANDIDATES},
        error=error(predicted, y),
        baseline=error(mean, y),
        low=float(low),
        high=float(high),
        chosen=fit(x, y).used,
        picked=dict(Counter(name_of(model.used) for model in models)),
        held={name: _held(study, name, float(each)) for name, each in zip(names, predicted, strict=True)},
        family_error=error(np.array([model(row) for model, row in zip(of_others, x, strict=True)]), y),
        family_baseline=error(np.array([model.intercept for model in of_others]), y),
    )


def _of_others(x: Matrix, y: Vector, rest: NDArray[np.bool_]) -> Model:
    """The model of the relaxations `rest`; of all where there are none, since a single family tells nothing of others."""
    return fit(x[rest], y[rest]) if rest.any() else ridge(x, y, ())


def _held(study: Study, name: str, predicted: float) -> Held:
    studied = study.relaxations[name]
    said = foretell(study, name, studied.properties)
    return Held(studied.mean, predicted, said.interval if isinstance(said, Predicted) else None)
