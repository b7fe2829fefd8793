"""An attack inside a network: points of a box of one layer's values, and how their box moves with the weights."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from newrelax.bounds import specification
from newrelax.network.network import Network
from newrelax.propagations.base import matvec
from plugin.certification.attacks import lowest


@dataclass(frozen=True)
class Latent:
    """A box of one layer's values, and the network from there on.

    lower, upper: [batch, *shape], differentiable in the weights before. rest: [batch, *shape] → outputs.
    """

    lower: Tensor
    upper: Tensor
    rest: Network

    def attacked(self, y: Tensor, steps: int, stride: float, restarts: int) -> Tensor:
        """For each margin z_y − z_j, j ≠ y ascending, a point of the box where it is small: [batch, margins, *shape], detached.

        As in `pgd`, but one attack for each margin; the centre counts as met. stride: of a step, in half-widths of the box.
        """
        rows = self._rows(y)
        count = rows.shape[1]
        lower, upper = (end.detach().repeat_interleave(count, 0) for end in (self.lower, self.upper))
        half = (upper - lower) / 2
        each = rows.flatten(0, 1).unsqueeze(1)  # a margin of an input becomes an example

        def margin(point: Tensor) -> Tensor:
            return matvec(each, self.rest.forward(point)).squeeze(1)

        found = lowest(margin, lower + half, lower, upper, steps=steps, step=stride * half, restarts=restarts)
        return found.view(len(y), count, *lower.shape[1:])

    def margins(self, points: Tensor, y: Tensor, connector: float) -> Tensor:
        """Each margin at its own point, [batch, margins]; points as `attacked` gives them.

        The gradient passes through the points to the box: see `connected`.
        """
        rows = self._rows(y)
        moving = connected(points, self.lower.unsqueeze(1), self.upper.unsqueeze(1), connector)
        outputs = self.rest.forward(moving.flatten(0, 1))
        return (rows * outputs.view(*rows.shape)).sum(2)

    def _rows(self, y: Tensor) -> Tensor:
        outputs = self.rest.steps[-1].shape[0]
        return specification(y, outputs, self.lower.dtype)


def connected(points: Tensor, lower: Tensor, upper: Tensor, connector: float) -> Tensor:
    """The same points, with a gradient to the ends of their box: the paper's rectified linear connector.

    A point at an end moves with it, one further than connector·(upper − lower) from it does not, in between linearly; where
    the box has no width, with both ends by halves. connector: 0.5 in the paper.
    """
    with torch.no_grad():
        reach = connector * (upper - lower)
        flat = reach == 0
        reach = torch.where(flat, 1.0, reach)
        with_upper = torch.where(flat, 0.5, (1 - (upper - points) / reach).clamp(0, 1))
        with_lower = torch.where(flat, 0.5, (1 - (points - lower) / reach).clamp(0, 1))
    # What is added is 0 with a gradient.
    return points + with_upper * (upper - upper.detach()) + with_lower * (lower - lower.detach())
