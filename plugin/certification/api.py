"""`plugin.evaluate`: the accuracies of anybody's network on anybody's inputs."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from newrelax.arguments import UNIT_RANGE, DataRange, check_eps, check_inputs, check_labels, check_model, check_range
from newrelax.errors import UserError
from newrelax.methods.method import Method
from newrelax.network.modes import evaluating
from newrelax.precision import full_precision
from newrelax.registry import Registry
from plugin.certification import evaluation
from plugin.certification.bounding import Bounding
from plugin.certification.evaluation import Evaluation, certifying_method, outside_counterexample
from plugin.certification.region import Region

DEFAULT_METHOD = "CROWN-IBP-R"


@full_precision()
def evaluate(
    model: nn.Module,
    x: Tensor,
    y: Tensor | Sequence[int],
    eps: float | Tensor,
    method: str | Method = DEFAULT_METHOD,
    *,
    data_range: DataRange = UNIT_RANGE,
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
        eps: radius of the L∞ ball in input units, or one for each feature.
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
    registry = registry or Registry.load()
    x = check_inputs(x, model)
    if len(x) == 0:
        raise UserError("expected at least one input to evaluate, got none")
    limits, radius = check_range(data_range, x), check_eps(eps, x)
    chosen = certifying_method(registry.get_method(method) if isinstance(method, str) else method, registry)
    found = outside_counterexample(chosen, registry) if chosen.name in registry else None
    if found is not None:
        raise UserError(f"{chosen.label} is not sound and certifies nothing: {found}")
    scale, unit = (radius, 1.0) if isinstance(radius, float) else (1.0, _of_features(radius, x))
    with evaluating(model), torch.no_grad():
        outputs = model(x[:1]).shape[-1]
    return evaluation.evaluate(
        model,
        x,
        check_labels(y, len(x), outputs).to(x.device),
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


def _of_features(radius: Tensor, x: Tensor) -> Tensor:
    """A radius for each feature, of the shape of one input; raises UserError for one that differs between examples."""
    if radius.ndim == x.ndim and len(radius) == len(x) > 1:
        raise UserError(f"expected eps as a number or one for each feature {tuple(x.shape[1:])}, got one for each example")
    return radius[0] if radius.ndim == x.ndim else radius
