"""PGPE with a gradient as its control variate: unbiased, and only what that gradient does not foretell is left to chance."""

from __future__ import annotations

from typing import ClassVar, NamedTuple

import torch
from torch import Tensor

from plugin.training.smoothing.base import Estimate, Smoothing
from plugin.training.smoothing.neighbourhood import Neighbourhood, Pair, Sides
from plugin.training.smoothing.spread import Spread


class _Seen(NamedTuple):
    """A pair's losses, a gradient that it adds to the mean, and one, made without its noise, that foretells its losses."""

    pair: Pair
    losses: Sides
    own: Tensor
    foretelling: Tensor


class Controlled(Smoothing):
    """RGS, and PGPE for what gradients do not foretell: unbiased like PGPE, with far less noise.

    ĝ = mean over pairs i of ḡ + [(L(θ + e) − L(θ − e))/2 − e·ḡ]·e/σ², e = σz, with ḡ made without e: the mean gradient of
    the other pairs. A single pair has no others; it takes the gradient at θ itself, which foretells little where kinks are
    dense (measured on IBP: no better than PGPE; two pairs: a quarter of its noise). E[e (e·ḡ)]/σ² = ḡ, so that ĝ's mean is
    ∇L_σ whatever ḡ is. Keeps two vectors of the weights' size for each pair.
    """

    name: ClassVar[str] = "controlled"

    def estimate(self, neighbourhood: Neighbourhood) -> Estimate:
        losses, gradients = Spread(), Spread()
        residual, rests, changes = [], [], []
        for pair, values, own, foretelling in self._seen(neighbourhood):
            change = values.half_difference
            rest = change - pair.along(foretelling)
            residual.append(rest * pair.direction())
            gradients.add(own + residual[-1])
            losses.add(values.mean)
            rests.append(rest)
            changes.append(change)
        return Estimate(
            gradients.mean,
            losses.mean,
            gradients.signal_to_noise(),
            torch.stack(residual).mean(0).norm() / gradients.mean.norm(),
            torch.stack(rests).norm() / torch.stack(changes).norm(),
        )

    def _seen(self, neighbourhood: Neighbourhood) -> list[_Seen]:
        pairs = list(neighbourhood.pairs(self.pairs, parts=self.parts))
        if len(pairs) == 1:
            _, slope = neighbourhood.objective.gradient()
            return [_Seen(pairs[0], pairs[0].losses(), slope, slope)]
        both = [pair.gradients() for pair in pairs]
        own = [slopes.mean for _, slopes in both]
        total = torch.stack(own).sum(0)
        others = [(total - each) / (len(pairs) - 1) for each in own]
        return [_Seen(pair, losses, *slopes) for pair, (losses, _), *slopes in zip(pairs, both, own, others, strict=True)]
