"""Verdicts in the words of the verifiers' competition, and counterexamples as others will run them."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from plugin.formats.property import Property


def replay(asked: Property, point: Tensor, function: Callable[[Tensor], Tensor]) -> tuple[Tensor, Tensor] | None:
    """A counterexample as it is told, or None where it is none.

    Args:
        point: of as many entries as the property has inputs.
        function: the network's outputs [1, outputs] of inputs [1, inputs] in float32.

    Returns:
        The point [inputs] in float64, inside its box, and the outputs [outputs] of its float32 rounding. A box's end need not
        be a float32: such a point stays at the end itself, which rounds to what the network was run at.
    """
    rounded = point.detach().cpu().flatten().float()
    outputs = function(rounded[None])[0]
    for case in asked.cases:
        inside = point.detach().cpu().flatten().double().clamp(case.lower, case.upper)
        if torch.equal(inside.float(), rounded) and case.met_by(inside, outputs):
            return inside, outputs
    return None


def counterexample(point: Tensor, outputs: Tensor) -> str:
    """`((X_0  0.1)` … `(Y_9  -2.5))`, a line each; with all digits, so that a reader rounds them to the same float32."""
    named = (("X", point.double()), ("Y", outputs.double()))
    lines = [f"({kind}_{i}  {value!r})" for kind, values in named for i, value in enumerate(values.tolist())]
    return "(" + "\n".join(lines) + ")"
