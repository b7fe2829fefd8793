"""How much do intervals lose on their way through a network? A property of the network, whatever relaxation trained it."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from newrelax.bounds import other_classes
from newrelax.registry import Registry
from plugin.certification.bounding import Bounding

RADIUS = 1e-7
"""So small that hardly any neuron crosses 0 (where none does, intervals grow in proportion to it); float64 resolves it."""


class Propagation:
    """Propagation tightness of a network on fixed images: Mao et al., "Understanding Certified Training with Interval Bound
    Propagation" (ICLR 2024).

    model: a copy in float64, whose weights may be replaced between calls, which saves tracing it again.
    """

    def __init__(self, model: nn.Module, x: Tensor, y: Tensor) -> None:
        """x: [images, *input_shape]. y: [images], the classes whose margins are bounded."""
        self.model = copy.deepcopy(model).double().eval()
        self.x, self.y = x.double(), y
        self._network = Bounding().network(self.model, tuple(x.shape[1:]), Registry.load().get_method("IBP"))

    def tightness(self) -> float:
        """Width of the exact box of each margin over the width that intervals give it, mean over images and margins, in (0, 1].

        |Π W|ε / Π|W|ε, the ReLUs as at x and the margins' matrix in the last W. Input ranges play no part in it, so that a
        pixel at the end of its range counts as any other.
        """
        with torch.no_grad():
            grown = self._margins(0.0) - self._margins(RADIUS)
        exact = RADIUS * self._sensitivity()
        return float((exact / grown)[grown > 0].mean())

    def _margins(self, eps: float) -> Tensor:
        """IBP's lower bounds: [images, classes − 1], the other classes in their order."""
        return self._network.bounds(self.x - eps, self.x + eps, self.y).margins

    def _sensitivity(self) -> Tensor:
        """Sum of absolute derivatives of each margin in the inputs: [images, classes − 1]."""
        x = self.x.clone().requires_grad_()
        logits = self.model(x)
        margins = logits.gather(1, self.y[:, None]) - logits.gather(1, other_classes(self.y, logits.shape[1]))
        rows = [torch.autograd.grad(each.sum(), x, retain_graph=True)[0].abs().flatten(1).sum(1) for each in margins.T]
        return torch.stack(rows, dim=1)
