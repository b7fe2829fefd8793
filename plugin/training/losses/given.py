"""What a loss gave, checked to be what a step can minimise and the meters can add up."""

from __future__ import annotations

import torch
from torch import Tensor

from newrelax.errors import UserError, with_type
from newrelax.network.place import line_of
from plugin.training.losses.base import Batch, Learner, Loss, Terms
from plugin.training.schedule import Values


def _called(loss: Loss, learner: Learner, batch: Batch, values: Values) -> object:
    """What the loss gives; a fault in somebody else's code is told in one line with the place."""
    if type(loss).__module__.startswith("plugin."):
        return loss(learner, batch, values)
    try:
        return loss(learner, batch, values)
    except (UserError, torch.OutOfMemoryError):
        raise
    except Exception as problem:
        raise UserError(f"loss {loss.name}: {with_type(problem)} ({line_of(problem)})") from problem


def take_terms(loss: Loss, learner: Learner, batch: Batch, values: Values) -> Terms:
    """The loss's terms of a batch. Nothing of a tensor's values is looked at, so no device is waited for.

    Raises:
        UserError: the loss gave something else than terms that it declares, with a scalar that depends on the weights.
    """
    terms: object = _called(loss, learner, batch, values)
    if not isinstance(terms, Terms):
        raise UserError(f"loss {loss.name}: expected plugin.Terms, got {type(terms).__name__}")
    scalar: object = terms.loss
    if not isinstance(scalar, Tensor) or scalar.ndim:
        got = f"the shape {tuple(scalar.shape)}" if isinstance(scalar, Tensor) else type(scalar).__name__
        raise UserError(f"loss {loss.name}: expected a scalar to minimise, got {got}")
    if torch.is_grad_enabled() and not scalar.requires_grad:
        raise UserError(f"loss {loss.name}: expected a scalar that depends on the weights, got one without gradient")
    declared = loss.terms(learner.method)
    for name in terms.parts:
        if name not in declared:
            raise UserError(f"loss {loss.name} gives a term {name!r} that its terms() do not name: {', '.join(declared)}")
    return terms
