"""CC-IBP over any method: the margins mixed, then one cross-entropy (De Palma et al., ICLR 2024)."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor

from newrelax.bounds import specification
from newrelax.propagations.base import matvec
from plugin.training.losses.certified import certified_loss
from plugin.training.losses.expressive import Expressive


class CC(Expressive):
    """κ·natural + (1 − κ)·cross-entropy of the margins α·certified + (1 − α)·the attack's."""

    name: ClassVar[str] = "CC"

    def mixture(self, attacked: Tensor, margins: Tensor, y: Tensor) -> Tensor:
        met = matvec(specification(y, attacked.shape[1], attacked.dtype), attacked)
        return certified_loss(self.alpha * margins + (1 - self.alpha) * met, y, reduction="none")
