"""Sums of an epoch's measurements, kept on the device so that no step waits for it."""

from __future__ import annotations

import torch
from torch import Tensor

from plugin.training.losses import Measured, Terms

_SUMS = (
    "natural_loss",
    "natural_right",
    "natural_seen",
    "worst_loss",
    "worst_right",
    "worst_seen",
    "observed",
)


class StepSums:
    """One step's measurements; ``vector`` is what several processes add up.

    ``vector``: loss, then natural and worst-case sums, then one crossing share for each layer, if
    the step observed any, weighted with the inputs it was measured on; float64.
    """

    def __init__(self, device: torch.device) -> None:
        self._loss = torch.zeros((), dtype=torch.float64, device=device)
        self._sums = {name: torch.zeros((), dtype=torch.float64, device=device) for name in _SUMS}
        self._crossing: Tensor | None = None

    def add(self, terms: Terms, inputs: int) -> None:
        """A batch, or a piece of it, of ``inputs`` inputs; none when they only stand in for no inputs."""
        self.add_loss(terms.loss)
        self._add_measured("natural", terms.natural, inputs)
        self._add_measured("worst", terms.worst, inputs)
        if terms.crossing is not None:
            shares = terms.crossing.double() * inputs
            self._crossing = shares if self._crossing is None else self._crossing + shares
            self._sums["observed"] += inputs

    def add_loss(self, loss: Tensor) -> None:
        """Another scalar part of the step's loss."""
        self._loss += loss.detach()

    def vector(self) -> Tensor:
        parts = [torch.stack([self._loss, *self._sums.values()])]
        return torch.cat([*parts, self._crossing]) if self._crossing is not None else parts[0]

    def _add_measured(self, kind: str, measured: Measured | None, inputs: int) -> None:
        if measured is None or inputs == 0:
            return
        self._sums[f"{kind}_loss"] += measured.loss.detach()
        self._sums[f"{kind}_right"] += measured.right
        self._sums[f"{kind}_seen"] += inputs


class Meter:
    """Adds up steps; :meth:`means` reads the sums once an epoch.

    ``worst`` names the worst-case loss in the figures: "certified", "estimated" (bounds that are
    not sound) or "pgd" (an attack's).
    """

    def __init__(self, device: torch.device, worst: str) -> None:
        self.worst = worst
        # Steps, gradient norm, loss, _SUMS; the crossing shares have a place of their own.
        self._total = torch.zeros(3 + len(_SUMS), dtype=torch.float64, device=device)
        self._crossing: Tensor | None = None

    def add(self, step: Tensor, gradient_norm: Tensor) -> None:
        """A step's StepSums.vector, over all processes, and its gradient norm, a scalar."""
        length = 1 + len(_SUMS)
        self._total[0] += 1
        self._total[1] += gradient_norm
        self._total[2:] += step[:length]
        if len(step) > length:
            shares = step[length:]
            self._crossing = shares.clone() if self._crossing is None else self._crossing + shares

    def means(self) -> dict[str, float | list[float] | None]:
        """Means over the epoch; None for what was not measured. Waits for the device."""
        steps, norm, loss, *values = self._total.tolist()
        sums = dict(zip(_SUMS, values, strict=True))

        def mean(total: float, count: float) -> float | None:
            return total / count if count else None

        crossing = None if self._crossing is None else [share / sums["observed"] for share in self._crossing.tolist()]
        return {
            "loss": mean(loss, steps),
            "natural_loss": mean(sums["natural_loss"], sums["natural_seen"]),
            "natural_accuracy": mean(sums["natural_right"], sums["natural_seen"]),
            f"{self.worst}_loss": mean(sums["worst_loss"], sums["worst_seen"]),
            f"{self.worst}_accuracy": mean(sums["worst_right"], sums["worst_seen"]),
            "gradient_norm": mean(norm, steps),
            "crossing": crossing,
        }

    def state_dict(self) -> dict[str, Tensor | None]:
        return {"total": self._total.clone(), "crossing": self._crossing}

    def load_state_dict(self, state: dict[str, Tensor | None]) -> None:
        total, crossing = state["total"], state["crossing"]
        if total is None or total.shape != self._total.shape:
            raise ValueError("the epoch's sums have another shape")
        self._total = total.to(self._total.device)
        self._crossing = None if crossing is None else crossing.to(self._total.device)
