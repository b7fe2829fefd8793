"""MTL-IBP over any method: the two losses mixed (De Palma et al., ICLR 2024)."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor

from plugin.certification.classification import cross_entropy
from plugin.training.losses.certified import certified_loss
from plugin.training.losses.expressive import Expressive


class MTL(Expressive):
    """κ·natural + (1 − κ)·[α·certified + (1 − α)·cross-entropy at the attack's points]."""

    name: ClassVar[str] = "MTL"

    def mixture(self, attacked: Tensor, margins: Tensor, y: Tensor) -> Tensor:
        certified = certified_loss(margins, y, reduction="none")
        return self.alpha * certified + (1 - self.alpha) * cross_entropy(attacked, y, reduction="none")
