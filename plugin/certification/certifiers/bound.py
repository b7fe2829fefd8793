"""A bound as a certifier: any method, also one from outside."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from newrelax.errors import UserError
from newrelax.methods.method import Method
from plugin.certification.certifiers.base import Certifier, Example, Question


def check_decides(method: Method) -> None:
    """Raises UserError for a method that proves nothing."""
    if not method.gives_bounds:
        raise UserError(f"{method.label} gives no bounds, so that it decides nothing")
    if not method.sound:
        raise UserError(f"{method.label} only estimates, so that it decides nothing")


@dataclass(frozen=True)
class Bound(Certifier):
    """Lower bounds of all margins by a method."""

    method: Method

    def __post_init__(self) -> None:
        check_decides(self.method)

    @property
    def name(self) -> str:  # type: ignore[override]
        return self.method.label

    @property
    def batch(self) -> int:  # type: ignore[override]
        return self.method.propagation.batch

    def decide(self, question: Question, examples: Sequence[Example], deadline: float) -> None:
        x, y = torch.cat([example.x for example in examples]), torch.cat([example.y for example in examples])
        network = question.bounded(self.method, x.shape[1:])
        with torch.no_grad():
            network.check_same(x)
            margins = network.bounds(*question.box(x), y).margins
        for example, found in zip(examples, margins, strict=True):
            example.bound(found, self.name)
