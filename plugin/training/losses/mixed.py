"""κ·CE(natural) + (1 − κ)·CE(worst case): the shape of most losses (paper, "Training")."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from newrelax.bounds import Clean, is_at
from plugin.training.losses.base import Batch, Learner, Term, Terms, Worst, crossing_shares, measured
from plugin.training.schedule import Values


def mixed(learner: Learner, batch: Batch, values: Values, name: str, worst: Callable[[Clean | None], Worst]) -> Terms:
    """The natural loss and the worst case's, mixed by κ; at an end of κ what counts nothing is not computed.

    name: of the worst case's term. worst: computes it, from the clean pass where there was one. With batch norm the clean pass
    is always made, because the bounds are computed with its statistics.
    """
    x, y, total, observe = batch
    loss = x.new_zeros(())
    parts: dict[str, Term] = {}
    clean, crossing = None, None
    if not is_at(values.kappa, 0.0) or learner.normalised_by_batch:
        clean = learner.net.observe(x)
        natural = parts["natural"] = measured(clean.logits, y)
        if not is_at(values.kappa, 0.0):
            loss = loss + _like(values.kappa, loss) * natural.loss / total
    elif observe:
        with torch.no_grad():
            parts["natural"] = measured(learner.net(x), y)
    if not is_at(values.kappa, 1.0):
        found = worst(clean)
        parts[name] = found.term
        crossing = crossing_shares(found.layers) if observe else None
        loss = loss + _like(1 - values.kappa, loss) * found.term.loss / total
    return Terms(loss, parts, crossing)


def _like(share: float | Tensor, loss: Tensor) -> float | Tensor:
    """The share in the loss's precision, to which a product with a number rounds it as well."""
    return share.to(loss.dtype) if isinstance(share, Tensor) else share
