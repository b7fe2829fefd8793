"""How much can a relaxation certify on one fixed network?"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from plugin.analysis.records import Tightness

Margins = Callable[[Tensor, Tensor, float], Tensor]
"""(x [batch, ...], y [batch], eps) → bounds of the margins, [batch, classes − 1]."""

CONFIDENCE = 1.96
"""Normal quantile of a 95 % interval."""
ROUNDING = 1e-9
"""What a quotient of decimal fractions may fall short of the whole number that it is meant to be."""


@torch.no_grad()
def tightness(
    lower: Margins,
    x: Tensor,
    y: Tensor,
    *,
    step: float = 0.01,
    largest: float = 1.0,
    upper: Margins | None = None,
    upper_eps: float | None = None,
    batch: int = 50,
    progress: Callable[[int], None] | None = None,
) -> Tightness:
    """Mean certified radius × 100: the area under certified fraction vs ε, in percent of the unit of ε.

    The area is by the trapezoidal rule, so that an image certified up to k·step counts as (k + ½)·step: its radius
    lies between k·step and (k + 1)·step. The interval is the normal 95 % one over images, ± 1.96 s / √images.

    Args:
        lower: certified lower bounds of the margins in the L∞ ball of radius ε; an image is certified when all are above
            0. At ε = 0 that is: classified rightly.
        x: [images, ...]. y: [images].
        step: grid of ε, the same for all relaxations that are compared.
        largest: end of the grid. An image counts up to its first failure.
        upper, upper_eps: with them, `gap` is the mean over images of the smallest margin an attack finds in the ball of
            radius upper_eps minus the smallest certified one (units of logits).
        progress: called with the number of finished images, now and then.

    Raises:
        ValueError: an empty batch, or a step outside (0, largest].
    """
    if len(x) == 0:
        raise ValueError("expected at least one image, got none")
    if not 0 < step <= largest:
        raise ValueError(f"expected 0 < step <= {largest}, got {step}")
    batches = torch.arange(len(x), device=x.device).split(batch)
    passed = torch.zeros(len(x), dtype=torch.long)
    for chosen in batches:
        passed[chosen.cpu()] = _passed(lower, x[chosen], y[chosen], step, math.floor(largest / step + ROUNDING))
        if progress is not None:
            progress(int(chosen[-1]) + 1)
    radii = (passed.double() - 0.5).clamp(min=0) * step * 100
    mean = float(radii.mean())
    half = CONFIDENCE * float(radii.std()) / len(x) ** 0.5 if len(x) > 1 else float("inf")
    most = int(passed.max())
    gap = None
    if upper is not None and upper_eps is not None:
        gaps = [upper(x[i], y[i], upper_eps).amin(dim=1) - lower(x[i], y[i], upper_eps).amin(dim=1) for i in batches]
        gap = float(torch.cat(gaps).double().mean())
    return Tightness(
        radius=mean,
        low=mean - half,
        high=mean + half,
        eps=tuple(k * step for k in range(most + 1)),
        certified=tuple(float((passed > k).double().mean()) for k in range(most + 1)),
        step=step,
        images=len(x),
        gap=gap,
        gap_eps=upper_eps if gap is not None else None,
        radii=tuple(radii.tolist()),
    )


def _passed(lower: Margins, x: Tensor, y: Tensor, step: float, count: int) -> Tensor:
    """For each image, at how many radii 0, step, 2·step, … it is certified before it first fails; at most count + 1."""
    passed = torch.zeros(len(x), dtype=torch.long)
    active = torch.arange(len(x), device=x.device)
    for k in range(count + 1):
        certified = (lower(x[active], y[active], k * step) > 0).all(dim=1)
        active = active[certified]
        passed[active.cpu()] += 1
        if len(active) == 0:
            break
    return passed
