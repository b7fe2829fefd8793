"""Random lower slopes moved by one signed gradient step: the training baseline of Lee et al. (2021).

"Towards Better Understanding of Training Certifiably Robust Models against Adversarial Examples" argues that
the loss landscape decides. Crossing neurons get a lower slope drawn uniformly from [0, 1]; one signed step of size
1 against the gradient of the certified loss, clipped to [0, 1], moves it before the real backward pass.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

Slopes = dict[int, Tensor]


def moved_slopes(
    shapes: dict[int, tuple[int, ...]], like: Tensor, loss_of: Callable[[Slopes], Tensor]
) -> Slopes:
    """Slopes per ReLU step, [batch, *shape], after the signed step.

    shapes: [batch, *shape] of each ReLU step. loss_of: the certified loss as a function of the slopes. Draws from
    torch's global random stream.
    """
    drawn = {
        index: torch.rand(shape, dtype=like.dtype, device=like.device).requires_grad_() for index, shape in shapes.items()
    }
    with torch.enable_grad():
        gradients = torch.autograd.grad(loss_of(drawn), list(drawn.values()), allow_unused=True)
    return {
        index: slope.detach() if gradient is None else (slope.detach() - gradient.sign()).clamp(0, 1)
        for (index, slope), gradient in zip(drawn.items(), gradients, strict=True)
    }

