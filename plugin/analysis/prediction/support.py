"""Is a relaxation like those that were studied? Outside of what was seen, a regression invents."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from plugin.analysis.prediction.model import FEATURES, Matrix, Vector
from plugin.analysis.prediction.properties import NAMED

MARGIN = 0.1
"""A property may lie outside the study's range by this share of it."""


@dataclass(frozen=True)
class Support:
    """The studied relaxations' FEATURES, x: [n, FEATURES], and their names."""

    names: tuple[str, ...]
    x: Matrix

    def nearest(self, features: Vector) -> tuple[str, float]:
        """The most similar studied relaxation, and its distance in standard deviations of each property."""
        distances = np.linalg.norm((self.x - features) / self._scale, axis=1)
        i = int(distances.argmin())
        return self.names[i], float(distances[i])

    @property
    def reach(self) -> float:
        """The distance from the most solitary relaxation of the study to its nearest neighbour."""
        z = self.x / self._scale
        distances = np.linalg.norm(z[:, None] - z, axis=2)
        np.fill_diagonal(distances, np.inf)
        return float(distances.min(axis=1).max())

    @property
    def _scale(self) -> Vector:
        deviations = self.x.std(axis=0)
        return np.where(deviations > 0, deviations, 1.0)

    def objection(self, features: Vector) -> str:
        """Why a relaxation with these features is unlike all that were studied, in words; empty where it is not."""
        for i, name in enumerate(FEATURES):
            low, high = float(self.x[:, i].min()), float(self.x[:, i].max())
            margin = MARGIN * (high - low)
            if not low - margin <= features[i] <= high + margin:
                side = "below" if features[i] < low else "above"
                return f"its {name} ({NAMED[name].meaning}) lies {side} that of every relaxation of the study"
        name, distance = self.nearest(features)
        if distance > (reach := self.reach):
            return (
                f"the nearest relaxation of the study, {name}, is {distance:.1f} standard deviations away (at most {reach:.1f})"
            )
        return ""
