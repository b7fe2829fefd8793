"""How even is a loss where a step along its gradient would land?

Lee et al., "Towards Better Understanding of Training Certifiably Robust Models against Adversarial Examples" (NeurIPS 2021),
find that losses whose landscape is uneven there train worse, at equal tightness of their bounds.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import cosine_similarity

from plugin.analysis.records import Landscape
from plugin.analysis.weights import Closure, WeightSpace

STEPS = tuple(0.5 * k for k in range(1, 11))
"""Points on the way: this many times the learning rate times the gradient, away from the weights."""
SMALLEST = 1e-300
"""What relative figures are divided by where the loss or the gradient is 0."""


def landscape(loss: Closure, params: Sequence[Tensor], *, learning_rate: float) -> Landscape:
    """The loss and its gradient at θ − p · learning_rate · g, p in STEPS, g the gradient at θ.

    The parameters are restored bit for bit, and random streams and `.grad` stay as they were; 11 forward and backward passes.

    Args:
        loss: gives a scalar that depends on `params`, which require gradients.
        learning_rate: of plain gradient descent, in weights per unit of the gradient.
    """
    with WeightSpace(params) as space:
        here, gradient = space.gradient(loss)
        descent = [-learning_rate * g for g in gradient]
        losses, gradients = [], []
        for p in STEPS:
            space.move(descent, p)
            value, there = space.gradient(loss)
            losses.append(value)
            gradients.append(_flat(there))
    start = _flat(gradient)
    size = max(float(start.norm()), SMALLEST)
    differences = [float((g - start).norm()) / size for g in gradients]
    cosines = [float(cosine_similarity(g, start, dim=0)) for g in gradients]
    return Landscape(
        loss=here,
        gradient_norm=float(start.norm()),
        learning_rate=learning_rate,
        spread=(max(losses) - min(losses)) / max(abs(here), SMALLEST),
        difference=max(differences),
        cosine=sum(cosines) / len(cosines),
        steps=STEPS,
        losses=tuple(losses),
        differences=tuple(differences),
        cosines=tuple(cosines),
    )


def _flat(tensors: Sequence[Tensor]) -> Tensor:
    """All entries as one vector, float64 on the CPU."""
    return torch.cat([tensor.detach().double().flatten().cpu() for tensor in tensors])
