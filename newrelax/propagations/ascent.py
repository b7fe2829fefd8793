"""Gradient ascent on a bound: whatever a bound may choose freely, chosen for each example of a batch by itself."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

LEARNING_RATE = 0.25
"""Of Adam at the first step; slopes lie in [0, 1], so that a slope can cross its range in a few steps."""
DECAY = 0.9
"""What the learning rate is multiplied by at each step."""

Choices = dict[int, Tensor]
"""What is chosen, by keys of the caller's, [batch, …]."""


@dataclass(frozen=True)
class Ascent:
    """steps of Adam; most: what no choice may exceed, none may fall below 0; enough: a worth that needs no more steps."""

    steps: int
    most: Mapping[int, float]
    rate: float = LEARNING_RATE
    decay: float = DECAY
    enough: float = math.inf

    def best(self, start: Choices, worth: Callable[[Choices], Tensor]) -> tuple[Choices, Tensor]:
        """For each example the choices with the largest worth [batch] that were met, detached, and that worth."""
        moving = {key: choice.detach().clone().requires_grad_() for key, choice in start.items()}
        best = {key: choice.detach().clone() for key, choice in moving.items()}
        optimizer = torch.optim.Adam(moving.values(), lr=self.rate)
        decay = torch.optim.lr_scheduler.ExponentialLR(optimizer, self.decay)
        highest: Tensor | None = None
        with torch.enable_grad():
            for step in range(self.steps + 1):
                value = worth(moving)
                better = torch.ones_like(value, dtype=torch.bool) if highest is None else value.detach() > highest
                highest = value.detach() if highest is None else torch.fmax(highest, value.detach())
                for key, choice in moving.items():
                    best[key] = torch.where(better.view(-1, *[1] * (choice.ndim - 1)), choice.detach(), best[key])
                if step == self.steps or not value.requires_grad or bool((highest >= self.enough).all()):
                    break
                gradients = torch.autograd.grad(-value.sum(), list(moving.values()), allow_unused=True)
                for choice, gradient in zip(moving.values(), gradients, strict=True):
                    choice.grad = torch.zeros_like(choice) if gradient is None else gradient
                optimizer.step()
                decay.step()
                with torch.no_grad():
                    for key, choice in moving.items():
                        choice.clamp_(0, self.most[key])
        assert highest is not None
        return best, highest
