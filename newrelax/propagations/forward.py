"""auto_LiRPA's forward mode, which this project's own passes do not have: linear bounds in the input, layer by layer."""

from __future__ import annotations

from torch import Tensor

from newrelax.errors import UserError
from newrelax.propagations.base import Bounds, Problem, Propagation


class ForwardPropagation(Propagation):
    """Only with the engine auto_LiRPA."""

    name = "forward"
    recipe = "hBox"

    def bounds(self, problem: Problem, specification: Tensor) -> Bounds:
        raise UserError("forward propagation is auto_LiRPA's own: choose its engine (--engine auto_LiRPA)")
