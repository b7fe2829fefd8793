"""Exp-IBP over any method: the logarithms of the two losses mixed (De Palma et al., ICLR 2024)."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from plugin.certification.classification import cross_entropy
from plugin.training.losses.certified import certified_loss
from plugin.training.losses.expressive import Expressive


class Exp(Expressive):
    """κ·natural + (1 − κ)·certified^α · (cross-entropy at the attack's points)^(1 − α), input by input."""

    name: ClassVar[str] = "Exp"

    def mixture(self, attacked: Tensor, margins: Tensor, y: Tensor) -> Tensor:
        # A loss that has rounded to 0 has no gradient; its power would have an infinite one.
        least = torch.finfo(margins.dtype).tiny
        certified = certified_loss(margins, y, reduction="none").clamp(min=least)
        adversarial = cross_entropy(attacked, y, reduction="none").clamp(min=least)
        return certified**self.alpha * adversarial ** (1 - self.alpha)
