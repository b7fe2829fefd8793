"""Randomised gradient smoothing: the mean of gradients at noisy weights (Duchi, Bartlett and Wainwright, 2012)."""

from __future__ import annotations

from typing import ClassVar

import torch

from plugin.training.smoothing.base import Estimate, Smoothing
from plugin.training.smoothing.neighbourhood import Neighbourhood
from plugin.training.smoothing.spread import Spread


class Rgs(Smoothing):
    """Mean of the gradients at θ ± σz: exact for a loss without jumps, blind to jumps.

    Of a loss that is continuous, E ∇L(θ + σz) is ∇L_σ. Where it jumps by h at a surface, ∇L_σ has h times the normal density
    there along the surface's normal besides, which no gradient knows of.
    """

    name: ClassVar[str] = "rgs"

    def estimate(self, neighbourhood: Neighbourhood) -> Estimate:
        losses, gradients = Spread(), Spread()
        for pair in neighbourhood.pairs(self.pairs, parts=self.parts):
            values, slopes = pair.gradients()
            losses.add(values.mean)
            gradients.add(slopes.mean)
        unknown = torch.full_like(losses.mean, torch.nan)
        return Estimate(gradients.mean, losses.mean, gradients.signal_to_noise(), unknown, unknown)
