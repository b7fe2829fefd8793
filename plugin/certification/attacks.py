"""Projected gradient descent: how far an attacker gets, which no certificate can be above."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from newrelax.network.modes import evaluating
from plugin.certification.classification import worst_margin
from plugin.certification.region import Region


def pgd(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    eps: float | Tensor,
    *,
    steps: int,
    step_size: float | Tensor | None = None,
    restarts: int = 1,
    region: Region = Region(),  # noqa: B008 (a frozen value)
    generator: torch.Generator | None = None,
    draw: Callable[[], Tensor] | None = None,
) -> Tensor:
    """For each input the point with the smallest worst margin that the attack met; shape of x, detached.

    Every point lies in `region.box(x, eps)`, the very box that a certificate speaks of. Each restart begins at a
    uniform random point of the box (drawn from `generator`, or from the global stream of x's device) and takes
    `steps` signed gradient steps on the worst margin (Madry et al., 2018). x itself counts as met. `draw` gives each
    restart's place within the box instead, numbers in [0, 1] of x's shape.

    x: (batch, ...), y: (batch,) classes. eps in the region's unit, step_size (default 2.5·radius/steps) in input units.
    The model is attacked in evaluation mode and left as it was: mode, buffers, gradients.
    """
    lower, upper = region.box(x.detach(), eps)
    step = 2.5 * region.radius(eps) / max(steps, 1) if step_size is None else step_size
    with evaluating(model):
        return lowest(
            lambda point: worst_margin(model(point), y),
            x,
            lower,
            upper,
            steps=steps,
            step=step,
            restarts=restarts,
            generator=generator,
            draw=draw,
        )


def lowest(
    value: Callable[[Tensor], Tensor],
    met: Tensor,
    lower: Tensor,
    upper: Tensor,
    *,
    steps: int,
    step: float | Tensor,
    restarts: int = 1,
    generator: torch.Generator | None = None,
    draw: Callable[[], Tensor] | None = None,
) -> Tensor:
    """For each example the point of the box [lower, upper] with the smallest value that signed steps met; detached.

    value: points [batch, …] to [batch]. met: a point that counts as met before any step. Starts and steps as in `pgd`.
    """
    lower, upper = lower.detach(), upper.detach()
    with torch.enable_grad():
        best = met.detach().clone()
        best_value = value(best).detach()
        for _ in range(restarts):
            start = _uniform(met, generator) if draw is None else draw()
            point = torch.clamp(lower + start * (upper - lower), lower, upper)
            for taken in range(steps + 1):
                point.requires_grad_()
                found = value(point)
                better = found.detach() < best_value
                best_value = torch.where(better, found.detach(), best_value)
                best = torch.where(better.view(-1, *[1] * (met.dim() - 1)), point.detach(), best)
                if taken < steps:
                    (gradient,) = torch.autograd.grad(found.sum(), point)
                    point = torch.clamp(point.detach() - step * gradient.sign(), lower, upper)
    return best


def _uniform(like: Tensor, generator: torch.Generator | None) -> Tensor:
    device = like.device if generator is None else generator.device
    return torch.rand(like.shape, generator=generator, device=device, dtype=like.dtype).to(like.device)
