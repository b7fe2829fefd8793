"""The figures of an analysis by which relaxations are compared, and how a model sees them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Property:
    """A figure of one relaxation on one network: `key` in the analysis's record of `part`.

    offset: a model sees log10(figure + offset), the offset being what counts as next to nothing; None: the figure itself.
    """

    name: str
    part: str
    key: str
    meaning: str
    offset: float | None = None

    def read(self, record: Mapping[str, Any]) -> float | None:
        """The figure in a relaxation's record; None where it was not measured or is not finite."""
        value = (record.get(self.part) or {}).get(self.key)
        return None if value is None else float(value)

    def scaled(self, figure: float) -> float:
        """The figure as a model sees it."""
        return figure if self.offset is None else math.log10(figure + self.offset)


TIGHTNESS = Property("tightness", "tightness", "radius", "mean certified radius × 100", 0.1)

PROPERTIES: tuple[Property, ...] = (
    TIGHTNESS,
    Property("certified at ε", "tightness", "certified_at_eps", "share of test images certified at ε"),
    Property("largest jump", "continuity", "largest_jump", "largest jump of the certified loss, relative to it", 1e-6),
    Property("jumps per unit", "continuity", "jumps_per_unit", "jumps found per unit of relative weight change", 1.0),
    Property("curved share", "sensitivity", "curved_share", "share of bounds that are curved in a single weight"),
    Property("order", "sensitivity", "order", "highest degree of a bound in a single weight"),
    Property(
        "unpredicted", "sensitivity", "unpredicted", "share of an optimiser step that the gradient does not foretell", 1e-3
    ),
    Property("slope", "sensitivity", "relative_slope", "change of the loss per unit of relative weight change", 1e-3),
    Property("spread", "landscape", "spread", "range of the loss along its gradient, relative to it", 1e-6),
    Property("gradient difference", "landscape", "difference", "largest change of the gradient along itself", 1e-3),
    Property("gradient cosine", "landscape", "cosine", "mean cosine of gradients along the gradient"),
)
"""All that the study looks at: their number is what makes some correlate by chance."""

NAMED: Mapping[str, Property] = {each.name: each for each in PROPERTIES}


def read_properties(record: Mapping[str, Any]) -> dict[str, float | None]:
    """All properties in a relaxation's record on one network, by name."""
    return {each.name: each.read(record) for each in PROPERTIES}
