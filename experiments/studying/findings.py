"""What a study finds: a value that follows from its figures alone."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from experiments.studying.correlations import Correlations, correlate, spearman
from experiments.studying.evaluation import Evaluation, evaluate
from experiments.studying.figures import Figures, Trained
from experiments.studying.package import SEED, as_study
from newrelax.errors import UserError
from plugin.analysis.prediction.model import Vector
from plugin.analysis.prediction.properties import NAMED
from plugin.analysis.prediction.study import Study

CERTIFIED, EXACT = "certified", "exact"
FEWEST = 5
"""Relaxations below which nothing is correlated."""


@dataclass(frozen=True)
class Findings:
    """All that is said about the figures.

    study: properties averaged over all common networks. evaluation: of a model on these; packaged: on the networks of one
    seed, as `plugin.analyze` predicts. propagation: Spearman's correlation of certified accuracy with the propagation tightness
    of the relaxation's own networks. seed_spread: standard deviation of certified accuracy between seeds, mean over
    relaxations; spread: between relaxations.
    """

    study: Study
    correlations: Correlations
    evaluation: Evaluation
    packaged: Evaluation
    propagation: float
    seed_spread: float
    spread: float

    def text(self) -> str:
        """As JSON, to four decimals."""
        data = asdict(self)
        del data["study"]
        return json.dumps(_rounded(data), indent=1, ensure_ascii=False) + "\n"


def find(figures: Figures) -> Findings:
    """The findings. Raises UserError where fewer than FEWEST relaxations were both trained and measured."""
    study, packaged = as_study(figures), as_study(figures, {SEED})
    if (count := len(packaged.relaxations)) < FEWEST:
        raise UserError(
            f"expected at least {FEWEST} relaxations, trained, and measured on networks of seed {SEED}, got {count}"
        )
    names = tuple(study.relaxations)
    properties = {
        kind: {
            name: np.array([NAMED[name].scaled(study.relaxations[each].properties[kind][name]) for each in names])
            for name in NAMED
        }
        for kind in figures.kinds
    }
    outcomes = {
        outcome: values for outcome in (CERTIFIED, EXACT) if (values := outcomes_of(figures, names, outcome)) is not None
    }
    certified = outcomes[CERTIFIED]
    families = {each.relaxation: each.family for each in figures.trained}
    own = [float(np.mean([each.propagation for each in figures.of(name)])) for name in names]
    spreads = [float(np.std(each.certified, ddof=1)) for each in study.relaxations.values() if len(each.certified) > 1]
    return Findings(
        study=study,
        correlations=correlate(outcomes, properties),
        evaluation=evaluate(study, families),
        packaged=evaluate(packaged, families),
        propagation=spearman(certified.tolist(), own),
        seed_spread=float(np.mean(spreads)) if spreads else 0.0,
        spread=float(certified.std(ddof=1)),
    )


def outcomes_of(figures: Figures, names: tuple[str, ...], outcome: str) -> Vector | None:
    """Accuracies [relaxations] in percent, means over seeds; None where some relaxation has none, since nothing was decided."""
    values = [[_accuracy(each, outcome) for each in figures.of(name)] for name in names]
    kept = [[value for value in each if value is not None] for each in values]
    return np.array([np.mean(each) for each in kept]) if all(kept) else None


def _accuracy(trained: Trained, outcome: str) -> float | None:
    return trained.certified if outcome == CERTIFIED else trained.exact


def _rounded(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _rounded(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_rounded(each) for each in value]
    return round(value, 4) + 0.0 if isinstance(value, float) else value
