"""What smoothing is: an estimate of the gradient of L_σ(θ) = E L(θ + σz), z standard normal, from losses at noisy weights."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from plugin.settings.nouns import Noun
from plugin.settings.table import setting
from plugin.training.smoothing.neighbourhood import Neighbourhood
from plugin.training.smoothing.noise import layer_sizes

FIGURES = ("smoothed_loss", "signal_to_noise", "jump_share", "unforetold")
"""What a smoothed step measures beside its loss's terms; see `Estimate`."""


@dataclass(frozen=True)
class Estimate:
    """An estimate of ∇L_σ as a vector [weights], and scalars that describe it; NaN for what was not measured.

    loss: the mean of the losses at the noisy weights. signal_to_noise: the gradient's norm against the standard deviation of
    its estimate, from how far the pairs' own estimates are apart. jump_share: the norm of what gradients do not foretell of
    the pairs' differences (jumps above all, and the random directions' noise), against the whole estimate's. unforetold: the
    same without that noise, the share of the losses' changes along the noise itself, in root mean squares.
    """

    gradient: Tensor
    loss: Tensor
    signal_to_noise: Tensor
    jump_share: Tensor
    unforetold: Tensor

    def figures(self) -> Tensor:
        """The scalars in the order of FIGURES, float64."""
        values = (self.loss, self.signal_to_noise, self.jump_share, self.unforetold)
        return torch.stack([value.detach().double() for value in values])


class Smoothing(Noun):
    """An estimator of the smoothed loss's gradient; one file each. Its parameters are the class's fields.

    A subclass has a `name`, a docstring whose first line `--smoothing list` shows, and `estimate`.
    """

    name: ClassVar[str]

    sigma: float = setting("Standard deviation of the noise.", 0.01, gt=0)
    pairs: int = setting("Antithetic pairs θ ± σz a step.", 1, ge=1)
    relative: bool = setting("σ is a multiple of the root mean square of each layer's weights.", False)
    schedule: Literal["constant", "lr"] = setting("lr: σ falls with the learning rate, in proportion.", "constant")
    parts: bool = setting("Each pair sees a part of the batch of its own, which costs what a single pair does.", False)

    def estimate(self, neighbourhood: Neighbourhood) -> Estimate:
        """∇L_σ at the present weights, which come back bit for bit; σ counts as constant, also where it is relative."""
        raise NotImplementedError

    def scale(self, model: nn.Module, learning_rate: float = 1.0) -> float | Tensor:
        """σ of a step: a number, or one for each trained weight. learning_rate: as a share of the run's first."""
        sigma = self.sigma * (learning_rate if self.schedule == "lr" else 1.0)
        return sigma * layer_sizes(model) if self.relative else sigma
