"""κ·CE(natural) + (1 − κ)·CE(worst case): the shape of most losses (paper, "Training")."""

from __future__ import annotations

from collections.abc import Callable

import torch

from newrelax.bounds import Clean
from plugin.training.losses.base import Batch, Learner, Term, Terms, Worst, crossing_shares, measured
from plugin.training.schedule import Values


def mixed(learner: Learner, batch: Batch, values: Values, worst: Callable[[Clean | None], Worst]) -> Terms:
    """The natural loss and the worst case's, mixed by κ; at an end of κ what counts nothing is not computed.

    worst: computes the worst case, from the clean pass where there was one. With batch norm the clean pass is always made,
    because the bounds are computed with its statistics.
    """
    x, y, total, observe = batch
    loss = x.new_zeros(())
    parts: dict[str, Term] = {}
    clean, crossing = None, None
    if values.kappa != 0 or learner.normalised_by_batch:
        clean = learner.net.observe(x)
        natural = parts["natural"] = measured(clean.logits, y)
        if values.kappa != 0:
            loss = loss + values.kappa * natural.loss / total
    elif observe:
        with torch.no_grad():
            parts["natural"] = measured(learner.net(x), y)
    if values.kappa != 1:
        found = worst(clean)
        parts |= found.parts
        crossing = crossing_shares(found.layers) if observe else None
        loss = loss + (1 - values.kappa) * found.loss / total
    return Terms(loss, parts, crossing)
