"""Certified accuracy over training, from the trainer's lines."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import Any


def curve(metrics: Sequence[Mapping[str, Any]]) -> list[float | None]:
    """The certified share of each epoch, or the estimate in its place; None for an epoch without either."""
    names = ("certified_accuracy", "estimated_accuracy")
    return [next((line[name] for name in names if line.get(name) is not None), None) for line in metrics]


def mean_curve(curves: Sequence[Sequence[float | None]]) -> tuple[tuple[float, float], ...]:
    """(part of training, mean in percent) per epoch, as far as the shortest curve goes."""
    length = min(map(len, curves), default=0)
    points = []
    for epoch in range(length):
        values = [value for each in curves if (value := each[epoch]) is not None]
        if values:
            points.append(((epoch + 1) / length, 100.0 * statistics.fmean(values)))
    return tuple(points)
