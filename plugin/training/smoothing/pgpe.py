"""Parameter-exploring policy gradients (Sehnke et al., 2010): the smoothed loss's gradient from losses alone."""

from __future__ import annotations

from typing import ClassVar

import torch

from plugin.training.smoothing.base import Estimate, Smoothing
from plugin.training.smoothing.neighbourhood import Neighbourhood
from plugin.training.smoothing.spread import Spread


class Pgpe(Smoothing):
    """z·(L(θ + σz) − L(θ − σz)) / 2σ: unbiased whatever the loss does, needs no gradient, very noisy.

    Its variance grows with the number of weights: the noise is √(weights / pairs) times the gradient's size, or more.
    """

    name: ClassVar[str] = "pgpe"

    def estimate(self, neighbourhood: Neighbourhood) -> Estimate:
        losses, gradients = Spread(), Spread()
        for pair in neighbourhood.pairs(self.pairs, parts=self.parts):
            values = pair.losses()
            losses.add(values.mean)
            gradients.add(values.half_difference * pair.direction())
        unknown = torch.full_like(losses.mean, torch.nan)
        return Estimate(gradients.mean, losses.mean, gradients.signal_to_noise(), unknown, unknown)
