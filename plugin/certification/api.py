"""`plugin.evaluate`: the accuracies of anybody's network on anybody's inputs."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor, nn

from newrelax.arguments import UNIT_RANGE, DataRange, check_eps, check_inputs, check_labels, check_model, check_range
from newrelax.errors import UserError
from newrelax.methods.method import Method
from newrelax.precision import full_precision
from newrelax.registry import Registry
from plugin.certification import evaluation
from plugin.certification.bounding import Bounding
from plugin.certification.evaluation import Evaluation, certifying_method
from plugin.certification.given import find_method, logits_of, refuse_unsound
from plugin.certification.region import Region

DEFAULT_METHOD = "CROWN-IBP-R"


@full_precision()
def evaluate(
    model: nn.Module,
    x: Tensor | np.ndarray,
    y: Tensor | np.ndarray | Sequence[int],
    eps: float | Tensor,
    method: str | Method = DEFAULT_METHOD,
    *,
    data_range: DataRange = UNIT_RANGE,
    eps_unit: str = "input",
    batch_size: int | None = None,
    pgd_steps: int = 40,
    pgd_restarts: int = 1,
    seed: int = 0,
    engine: str = "newrelax",
    memory: int | None = None,
    registry: Registry | None = None,
    progress: Callable[[int], object] | None = None,
) -> Evaluation:
    """Classify, attack and certify inputs of a network of your own.

    Args:
        model: inputs [n, *features] to logits [n, classes], or [n, 1] for a binary classifier; measured in evaluation mode.
        x: inputs [n, *features] in the model's units and type, on its device. y: classes [n].
        eps: radius of the L∞ ball in input units, or one for each feature. eps_unit: "range" for a multiple of the width of
            `data_range`, feature by feature.
        method: certifies; one that only trains stands for the method that certifies it.
        data_range: (smallest, largest) input, numbers or one for each feature; None: the ball is not clipped.
        batch_size: inputs at once; None chooses by the method's memory. memory: for bounds, in MiB.
        progress: called with the number of inputs each time so many are done.

    Returns:
        The verdicts: `natural_accuracy`, `pgd_accuracy`, `certified_accuracy` (fractions), `margins`, … of each input.

    Raises:
        UserError: arguments, methods and models that it cannot take.
        UnsoundBounds: an attack broke what was certified.
    """
    model = check_model(model)
    x = check_inputs(torch.from_numpy(x) if isinstance(x, np.ndarray) else x, model)
    y = torch.from_numpy(y) if isinstance(y, np.ndarray) else y
    if len(x) == 0:
        raise UserError("expected at least one input to evaluate, got none")
    _check_counts(batch_size=batch_size, pgd_steps=pgd_steps, pgd_restarts=pgd_restarts, memory=memory)
    limits = check_range(data_range, x)
    scale, unit = _radius(eps, x)
    if eps_unit not in ("input", "range"):
        raise UserError(f"eps_unit: expected input or range, got {eps_unit!r}")
    if eps_unit == "range":
        if not isinstance(unit, float):
            raise UserError("eps_unit range: expected eps as a number, got one for each feature")
        unit = Region.by(eps_unit, limits).unit
    chosen, registry = find_method(method, registry or Registry.load())
    chosen = certifying_method(chosen, registry)
    refuse_unsound(chosen, registry)
    labels = check_labels(y, len(x), logits_of(model, x)).to(x.device)
    return evaluation.evaluate(
        model,
        x,
        labels,
        scale,
        chosen,
        batch_size=batch_size,
        pgd_steps=pgd_steps,
        pgd_restarts=pgd_restarts,
        region=Region(limits, unit),
        seed=seed,
        bounding=Bounding(engine, memory, registry.operators),
        progress=progress,
    )


def _radius(eps: float | Tensor, x: Tensor) -> tuple[float, float | Tensor]:
    """A radius and its unit: (ε, 1), or (1, ε) where ε is a tensor of the shape of one input.

    Raises:
        UserError: no radius, or one that differs between examples.
    """
    if isinstance(eps, Tensor) and eps.shape == x.shape[1:]:
        eps = eps.unsqueeze(0)  # as many features as examples: here it can only mean the features
    radius = check_eps(eps, x)
    if not isinstance(radius, Tensor) or radius.ndim == 0:
        return float(radius), 1.0
    if len(radius) > 1:
        raise UserError(f"expected eps as a number or one for each feature {tuple(x.shape[1:])}, got one for each example")
    return 1.0, radius[0]


def _check_counts(**counts: int | None) -> None:
    for name, count in counts.items():
        if count is not None and count < 1:
            raise UserError(f"{name}: expected at least 1, got {count}")
