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
        generator = torch.Generator().manual_seed(question.seed)
        for rung, points in (
            ("natural", lambda x, y: x),
            ("attack", lambda x, y: self._untargeted(question, x, y, generator)),
            ("attack", lambda x, y: self._targeted(question, x, y, generator)),
        ):
            left = [example for example in examples if example.open]
            if not left:
                return
            x, y = torch.cat([example.x for example in left]), torch.cat([example.y for example in left])
            for example, point in zip(left, points(x, y).split(1), strict=True):
                example.refute(question, point, rung)

    def _untargeted(self, question: Question, x: Tensor, y: Tensor, generator: torch.Generator) -> Tensor:
        return pgd(question.model, x, y, question.eps, steps=self.steps, region=question.region, generator=generator)

    def _targeted(self, question: Question, x: Tensor, y: Tensor, generator: torch.Generator) -> Tensor:
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
                generator=generator,
            )
        others = outputs - 1
        each_x, each_y = x.repeat_interleave(others, 0), y.repeat_interleave(others, 0)
        columns = torch.arange(others, device=y.device).repeat(len(y))
        targets = columns + (columns >= each_y).long()
        best, least = each_x, torch.full((len(each_x),), torch.inf, device=x.device)
        for _ in range(self.restarts):
            points = self._towards(question, each_x, each_y, targets, generator)
            margins = question.margins(points, each_y)
            closer = margins < least
            least = torch.where(closer, margins, least)
            best = torch.where(closer.view(-1, *[1] * (x.ndim - 1)), points, best)
        chosen = least.view(len(x), others).argmin(1) + others * torch.arange(len(x), device=x.device)
        return best[chosen]

    def _towards(self, question: Question, x: Tensor, y: Tensor, targets: Tensor, generator: torch.Generator) -> Tensor:
        """Signed gradient steps on z_y − z_target from a random point of the box, each shorter than the one before."""
        lower, upper = question.box(x)
        start = torch.rand(x.shape, generator=generator, dtype=x.dtype).to(x.device)
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
