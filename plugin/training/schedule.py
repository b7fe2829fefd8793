"""κ, β, ε and the learning rate as pure functions of the training step.

Three phases, counted in steps (paper, "Training"): warm-up (natural training), a linear ramp, and
the final phase with every value at its end.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from torch import Tensor

from newrelax.share import Share

if TYPE_CHECKING:
    from plugin.settings.config import Config


class Values(NamedTuple):
    """What one step trains with: numbers; in a captured step (capture.py) their like on the device.

    eps: radius of the region, one for all inputs or for each. kappa: share of the natural loss, the rest being the worst
    case's. beta: share of the method's bounds, the rest being the intervals'. lr: learning rate.
    """

    eps: float | Tensor
    kappa: Share
    beta: Share
    lr: float | Tensor


@dataclass(frozen=True)
class Schedule:
    """The schedule of one run; every length is in optimiser steps, steps count from 0."""

    warmup: int
    ramp: int
    eps: tuple[float, float]
    kappa: tuple[float, float]
    beta: tuple[float, float]
    lr: float
    lr_decay: float
    milestones: tuple[int, ...]
    halve_every: int | None = None

    @classmethod
    def from_config(cls, config: Config, steps_per_epoch: int) -> Schedule:
        """Turns the epochs of `config` into steps."""

        def steps(epochs: float) -> int:
            return round(epochs * steps_per_epoch)

        return cls(
            warmup=steps(config.warmup),
            ramp=steps(config.ramp),
            eps=(config.eps_start, config.train_eps),
            kappa=config.kappa,
            beta=config.beta if config.beta is not None else (1.0, 1.0),
            lr=config.lr,
            lr_decay=config.lr_decay,
            milestones=tuple(steps(milestone) for milestone in config.milestones),
            halve_every=None if config.halve_every is None else max(1, steps(config.halve_every)),
        )

    def progress(self, step: int) -> float:
        """How far the ramp is at `step`: 0 until it starts, 1 from its end on."""
        if step < self.warmup:
            return 0.0
        if step >= self.warmup + self.ramp:
            return 1.0
        return (step - self.warmup) / self.ramp

    def values(self, step: int) -> Values:
        """ε, κ, β and the learning rate of `step`."""
        progress = self.progress(step)
        warming = step < self.warmup
        return Values(
            eps=0.0 if warming else _between(self.eps, progress),
            kappa=1.0 if warming else _between(self.kappa, progress),
            beta=_between(self.beta, progress),
            lr=self._learning_rate(step),
        )

    def _learning_rate(self, step: int) -> float:
        passed = sum(step >= milestone for milestone in self.milestones)
        rate = self.lr * self.lr_decay**passed
        after_ramp = step - self.warmup - self.ramp
        if self.halve_every is not None and after_ramp > 0:
            rate *= 0.5 ** (after_ramp // self.halve_every)
        return rate


def _between(ends: tuple[float, float], progress: float) -> float:
    # Written so that progress 0 and 1 give the ends exactly: κ == 1 and κ == 0 skip work.
    start, end = ends
    return start * (1.0 - progress) + end * progress
