"""STAPS: TAPS on SABR's small box (Mao et al., NeurIPS 2023)."""

from __future__ import annotations

from typing import ClassVar

from newrelax.methods.method import Method
from newrelax.propagations.base import Ends
from plugin.training.losses.base import Batch, Learner
from plugin.training.losses.sabr import Boxed
from plugin.training.losses.taps import TAPS
from plugin.training.schedule import Values


class STAPS(TAPS, Boxed):
    """TAPS within a small box around the attack's point instead of the ball."""

    name: ClassVar[str] = "STAPS"

    def region(self, learner: Learner, batch: Batch, values: Values) -> Ends:
        return self.small_box(learner, batch, values)

    def box_name(self, method: Method) -> str:
        return Boxed.box_name(self, method)
