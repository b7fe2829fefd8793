"""The attack: nothing decides an example more cheaply than a point where the network is wrong."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from newrelax.network.modes import evaluating
from plugin.certification.attacks import pgd
from plugin.certification.certifiers.base import Certifier, Example, Question
from plugin.certification.classification import predictions

SHRINK = 0.1
"""What the targeted attack's last step is of its first one."""


@dataclass(frozen=True)
class Starts:
    """Random places in the boxes of examples x [batch, …], each example's from a stream of its own: what is found for one does
    not depend on which others are asked about with it."""

    x: Tensor
    draws: tuple[torch.Generator, ...]

    def __call__(self, each: int = 1) -> Tensor:
        """Numbers in [0, 1], so many for each example in turn, [batch·each, …]."""
        shape = (each, *self.x.shape[1:])
        return torch.cat([torch.rand(shape, generator=draw, dtype=self.x.dtype) for draw in self.draws]).to(self.x.device)


def _seed(seed: int, number: int) -> int:
    """A stream for each example: seeds that lie side by side for one question do not meet those of another."""
    return (seed * 0x9E3779B97F4A7C15 + number) % 2**63


def _themselves(question: Question, x: Tensor, y: Tensor, starts: Starts) -> Tensor:
    return x


@dataclass(frozen=True)
class Attack(Certifier):
    """PGD on the worst margin, then with restarts towards each other class, its steps shrinking."""

    steps: int = 40
    restarts: int = 3
    name = "attack"
    batch = 100

    @property
    def label(self) -> str:
        return f"{self.name}:steps={self.steps},restarts={self.restarts}"

    def decide(self, question: Question, examples: Sequence[Example], deadline: float) -> None:
        draws = [torch.Generator().manual_seed(_seed(question.seed, example.number)) for example in examples]
        for rung, points in (("natural", _themselves), ("attack", self._untargeted), ("attack", self._targeted)):
            left = [(example, draw) for example, draw in zip(examples, draws, strict=True) if example.open]
            if not left:
                return
            x, y = torch.cat([example.x for example, _ in left]), torch.cat([example.y for example, _ in left])
            found = points(question, x, y, Starts(x, tuple(draw for _, draw in left)))
            for (example, _), point in zip(left, found.split(1), strict=True):
                example.refute(question, point, rung)

    def _untargeted(self, question: Question, x: Tensor, y: Tensor, starts: Starts) -> Tensor:
        return pgd(question.model, x, y, question.eps, steps=self.steps, region=question.region, draw=starts)

    def _targeted(self, question: Question, x: Tensor, y: Tensor, starts: Starts) -> Tensor:
        """For each input the point with the smallest margin to any class, among all targets and restarts."""
        with evaluating(question.model), torch.no_grad():
            outputs = question.model(x[:1]).shape[1]
        if outputs <= 2:  # one other class: the worst margin is the margin to it
            return pgd(
                question.model,
                x,
                y,
                question.eps,
                steps=self.steps,
                restarts=self.restarts,
                region=question.region,
                draw=starts,
            )
        others = outputs - 1
        each_x, each_y = x.repeat_interleave(others, 0), y.repeat_interleave(others, 0)
        columns = torch.arange(others, device=y.device).repeat(len(y))
        targets = columns + (columns >= each_y).long()
        best, least = each_x, torch.full((len(each_x),), torch.inf, device=x.device)
        for _ in range(self.restarts):
            points = self._towards(question, each_x, each_y, targets, starts(others))
            margins = question.margins(points, each_y)
            closer = margins < least
            least = torch.where(closer, margins, least)
            best = torch.where(closer.view(-1, *[1] * (x.ndim - 1)), points, best)
        chosen = least.view(len(x), others).argmin(1) + others * torch.arange(len(x), device=x.device)
        return best[chosen]

    def _towards(self, question: Question, x: Tensor, y: Tensor, targets: Tensor, start: Tensor) -> Tensor:
        """Signed gradient steps on z_y − z_target from a place in the box, each shorter than the one before."""
        lower, upper = question.box(x)
        point = lower + start * (upper - lower)
        length = (upper - lower) / 4
        with evaluating(question.model), torch.enable_grad():
            for step in range(self.steps):
                point = point.detach().requires_grad_()
                logits = question.model(point)
                margin = logits.gather(1, y[:, None]) - logits.gather(1, targets[:, None])
                (gradient,) = torch.autograd.grad(margin.sum(), point)
                moved = point.detach() - length * SHRINK ** (step / max(1, self.steps - 1)) * gradient.sign()
                wrong = (predictions(logits) != y).view(-1, *[1] * (x.ndim - 1))
                point = torch.where(wrong, point.detach(), torch.clamp(moved, lower, upper))
        return point.detach()
