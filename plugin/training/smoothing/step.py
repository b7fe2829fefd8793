"""The smoothed gradient of a training step, written where the plain one would stand."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor, nn

from plugin.process.world import World
from plugin.training.losses.base import Batch, Terms
from plugin.training.meter import StepSums
from plugin.training.smoothing.base import Smoothing
from plugin.training.smoothing.batch import BatchObjective, Surroundings
from plugin.training.smoothing.neighbourhood import Neighbourhood, place


def smoothed_step(
    smoothing: Smoothing,
    model: nn.Module,
    take: Callable[[Batch], Terms],
    batch: Batch,
    weight: float,
    accumulate: int,
    sums: StepSums,
    world: World,
    stream: torch.Generator,
    learning_rate: float,
) -> tuple[Terms, Tensor]:
    """Estimates ∇L_σ of a batch into the parameters' `.grad`: the terms of its last evaluation, and the estimate's figures.

    The gradient is the writer's, for `World.sum_gradients` to add up; the other processes keep none. What the sums hold of
    the loss's terms are means over the evaluations, at noisy weights; their loss is the smoothed one.

    Args:
        take: terms of a piece of the batch at the present weights.
        batch: this process's part of the whole one; weight: 0 where it only stands in.
        learning_rate: as a share of the run's first.
    """
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    seen: list[Terms] = []

    def record(terms: Terms, inputs: int) -> None:
        seen[:] = [terms.detached()]
        sums.add(replace(terms, loss=torch.zeros_like(terms.loss, requires_grad=False)), inputs)

    surroundings = Surroundings(model, batch.x.device)
    objective = BatchObjective(take, parameters, batch, weight, accumulate, record, surroundings, world)
    estimate = smoothing.estimate(Neighbourhood(objective, smoothing.scale(model, learning_rate), stream))
    surroundings.settle()
    if world.is_writer:
        for parameter in parameters:
            parameter.grad = torch.empty_like(parameter)
        place([parameter.grad for parameter in parameters if parameter.grad is not None], estimate.gradient)
        sums.add_loss(estimate.loss)
    return seen[-1], estimate.figures()
