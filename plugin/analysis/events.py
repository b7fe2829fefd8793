"""Which neuron's bounds passed which condition inside a jump."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from plugin.analysis.records import Cause

Probe = Callable[[], Sequence[tuple[Tensor, Tensor]]]
"""Pre-activation bounds (lower, upper) of every ReLU layer at the present weights, each [batch, ...]."""

MOST = 8
"""Causes kept for one jump."""
JUMPED = 1e-7
"""A layer's bounds have jumped when one moved by more than this share of the largest: a bracket is far narrower."""


def _conditions(lower: Tensor, upper: Tensor) -> dict[str, Tensor]:
    """Sign patterns whose change is an event; the conditions on which ReLU lines usually switch."""
    return {"l = 0": lower >= 0, "u = 0": upper <= 0, "-l = u": (-lower <= upper) & (lower < 0) & (upper > 0)}


def causes(before: Sequence[tuple[Tensor, Tensor]], after: Sequence[tuple[Tensor, Tensor]]) -> tuple[Cause, ...]:
    """Events of the earliest layer in which one happened between two sides of a bracket.

    Later layers are left out: their bounds jump as a consequence. Where bounds of a layer jump without an event in any
    layer before it, the condition is one that this function does not know, in the layer before; it is named as such.
    """
    for layer, ((l0, u0), (l1, u1)) in enumerate(zip(before, after, strict=True)):
        l0, u0, l1, u1 = (b.detach().double().flatten(1) for b in (l0, u0, l1, u1))
        size = torch.maximum(u0.abs(), l0.abs()).amax()
        moved = torch.maximum((l1 - l0).abs().amax(), (u1 - u0).abs().amax())
        if layer > 0 and moved > JUMPED * size:
            image = int(torch.maximum((l1 - l0).abs(), (u1 - u0).abs()).amax(dim=1).argmax())
            return (Cause(layer - 1, image, -1, "another condition in this layer", float("nan"), float("nan")),)
        events: list[Cause] = []
        was, now = _conditions(l0, u0), _conditions(l1, u1)
        for name in was:
            flipped = (was[name] != now[name]).nonzero()
            for image, neuron in flipped.tolist():
                # A neuron whose l passes 0 leaves the crossing state, which flips -l = u only formally.
                if name == "-l = u" and bool(
                    (was["l = 0"] != now["l = 0"])[image, neuron] | (was["u = 0"] != now["u = 0"])[image, neuron]
                ):
                    continue
                events.append(Cause(layer, image, neuron, name, float(l0[image, neuron]), float(u0[image, neuron])))
        if events:
            return tuple(events[:MOST])
    return ()
