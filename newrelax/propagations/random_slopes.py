"""Random lower slopes moved by one signed gradient step: the training baseline of Lee et al. (2021).

"Towards Better Understanding of Training Certifiably Robust Models against Adversarial Examples" argues that
the loss landscape decides. Crossing neurons get a lower slope drawn uniformly from [0, 1]; one signed step of size
1 against the gradient of the certified loss, clipped to [0, 1], moves it before the real backward pass.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from newrelax.network.operators.elementwise import Relu
from newrelax.propagations.base import Bounds, Problem, Propagation
from newrelax.propagations.linear_pass import LinearPass, Mode

Slopes = dict[int, Tensor]


class RandomSlopesPropagation(Propagation):
    """CROWN-IBP (R) with random lower slopes while training; without, the relaxation's own."""

    name = "ibp+backward-random"
    recipe = "CROWN-IBP"
    batch = 200

    def bounds(self, problem: Problem, specification: Tensor) -> Bounds:
        mode, fixed, steps = Mode(problem.intervals), problem.intervals.detach(), problem.network.steps
        shapes = {i: tuple(low.shape) for i, (low, _) in fixed.entered.items() if isinstance(steps[i].operator, Relu)}
        if not problem.network.training or not shapes:
            return LinearPass(problem, mode).bounds(specification)

        def loss_of(slopes: Slopes) -> Tensor:
            margins = LinearPass(problem, Mode(fixed), slopes).lower_bounds(specification)
            logits = F.pad(-margins, (1, 0))  # the true class's, 0, comes first
            return F.cross_entropy(logits, torch.zeros(len(logits), dtype=torch.long, device=logits.device))

        return LinearPass(problem, mode, moved_slopes(shapes, problem.lower, loss_of)).bounds(specification)


def moved_slopes(shapes: dict[int, tuple[int, ...]], like: Tensor, loss_of: Callable[[Slopes], Tensor]) -> Slopes:
    """Slopes per ReLU step, [batch, *shape], after the signed step.

    shapes: [batch, *shape] of each ReLU step. loss_of: the certified loss as a function of the slopes. Draws from
    torch's global random stream.
    """
    drawn = {index: torch.rand(shape, dtype=like.dtype, device=like.device).requires_grad_() for index, shape in shapes.items()}
    with torch.enable_grad():
        gradients = torch.autograd.grad(loss_of(drawn), list(drawn.values()), allow_unused=True)
    return {
        index: slope.detach() if gradient is None else (slope.detach() - gradient.sign()).clamp(0, 1)
        for (index, slope), gradient in zip(drawn.items(), gradients, strict=True)
    }
