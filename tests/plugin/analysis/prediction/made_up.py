"""A study of relaxations that were never trained, with what predicts them put in."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from plugin.analysis.prediction.properties import PROPERTIES
from plugin.analysis.prediction.study import Setting, Studied, Study

KINDS = ("natural", "PGD")

Figures = dict[str, float]


def study(accuracy: Callable[[Figures], float], relaxations: int = 25, noise: float = 1.0, seed: int = 0) -> Study:
    """Relaxations with random properties in (0, 1), the same on each network, trained to `accuracy` of them, give or take."""
    generator = np.random.default_rng(seed)
    found = {}
    for number in range(relaxations):
        figures = {each.name: float(generator.uniform()) for each in PROPERTIES}
        certified = tuple(accuracy(figures) + noise * float(generator.normal()) for _ in range(3))
        found[f"R{number}"] = Studied(certified, dict.fromkeys(KINDS, figures))
    setting = Setting("digits", "CONV", 0.1, (0, 1, 2))
    return Study(setting, {"eps": 0.1}, {kind: f"{kind}.safetensors" for kind in KINDS}, found, {})


def alike(figures: Figures) -> dict[str, Figures]:
    """The same figures on every network."""
    return dict.fromkeys(KINDS, figures)


def middle() -> Figures:
    """Properties in the middle of what the studies have."""
    return {each.name: 0.5 for each in PROPERTIES}
