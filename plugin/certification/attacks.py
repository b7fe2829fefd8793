"""Projected gradient descent: how far an attacker gets, which no certificate can be above."""

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
    step_size: float | None = None,
    restarts: int = 1,
    region: Region = Region(),  # noqa: B008 (a frozen value)
    generator: torch.Generator | None = None,
) -> Tensor:
    """For each input the point with the smallest worst margin that the attack met; shape of x, detached.

    Every point lies in `region.box(x, eps)`, the very box that a certificate speaks of. Each restart begins at a
    uniform random point of the box (drawn from `generator`, or from the global stream of x's device) and takes
    `steps` signed gradient steps on the worst margin (Madry et al., 2018). x itself counts as met.

    x: (batch, ...), y: (batch,) classes. eps in the region's unit, step_size (default 2.5·radius/steps) in input units.
    The model is attacked in evaluation mode and left as it was: mode, buffers, gradients.
    """
    lower, upper = region.box(x.detach(), eps)
    step = 2.5 * region.radius(eps) / max(steps, 1) if step_size is None else step_size
    with evaluating(model), torch.enable_grad():
        best = x.detach().clone()
        best_margin = worst_margin(model(best), y).detach()
        for _ in range(restarts):
            start = torch.rand(x.shape, generator=generator, device=_device(generator, x), dtype=x.dtype).to(x.device)
            point = torch.clamp(lower + start * (upper - lower), lower, upper)
            for taken in range(steps + 1):
                point.requires_grad_()
                margin = worst_margin(model(point), y)
                better = margin.detach() < best_margin
                best_margin = torch.where(better, margin.detach(), best_margin)
                best = torch.where(better.view(-1, *[1] * (x.dim() - 1)), point.detach(), best)
                if taken < steps:
                    (gradient,) = torch.autograd.grad(margin.sum(), point)
                    point = torch.clamp(point.detach() - step * gradient.sign(), lower, upper)
    return best


def _device(generator: torch.Generator | None, x: Tensor) -> torch.device:
    return x.device if generator is None else generator.device
