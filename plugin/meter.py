"""Sums of an epoch's measurements, kept on the device so that no step waits for it."""

from __future__ import annotations

import torch
from torch import Tensor

from plugin.losses import Measured, Terms

_SUMS = (
    "loss", "gradient_norm", "steps",
    "natural_loss", "natural_right", "natural_seen",
    "worst_loss", "worst_right", "worst_seen",
)


class Meter:
    """Adds up steps; :meth:`means` reads the sums once an epoch.

    ``worst`` names the worst-case loss in the figures: "certified", "estimated" (bounds that are
    not sound) or "pgd" (an attack's).
    """

    def __init__(self, device: torch.device, worst: str) -> None:
        self.worst = worst
        self._sums = {name: torch.zeros((), dtype=torch.float64, device=device) for name in _SUMS}
        self._crossing: Tensor | None = None
        self._observed = 0

    def add(self, terms: Terms, inputs: int) -> None:
        """A batch, or a piece of it, of ``inputs`` inputs."""
        self._add_measured("natural", terms.natural, inputs)
        self._add_measured("worst", terms.worst, inputs)
        if terms.crossing is not None:
            shares = terms.crossing.double() * inputs
            self._crossing = shares if self._crossing is None else self._crossing + shares
            self._observed += inputs

    def add_step(self, loss: Tensor, gradient_norm: Tensor) -> None:
        """The whole step's loss and gradient norm, both scalars."""
        self._sums["loss"] += loss.detach()
        self._sums["gradient_norm"] += gradient_norm
        self._sums["steps"] += 1

    def means(self) -> dict[str, float | list[float] | None]:
        """Means over the epoch; None for what was not measured. Waits for the device."""
        names = list(self._sums)
        sums = dict(zip(names, torch.stack([self._sums[name] for name in names]).tolist()))

        def mean(total: str, count: str) -> float | None:
            return sums[total] / sums[count] if sums[count] else None

        crossing = None if self._crossing is None else (self._crossing / self._observed).tolist()
        return {
            "loss": mean("loss", "steps"),
            "natural_loss": mean("natural_loss", "natural_seen"),
            "natural_accuracy": mean("natural_right", "natural_seen"),
            f"{self.worst}_loss": mean("worst_loss", "worst_seen"),
            f"{self.worst}_accuracy": mean("worst_right", "worst_seen"),
            "gradient_norm": mean("gradient_norm", "steps"),
            "crossing": crossing,
        }

    def state_dict(self) -> dict[str, object]:
        return {"sums": dict(self._sums), "crossing": self._crossing, "observed": self._observed}

    def load_state_dict(self, state: dict[str, object]) -> None:
        device = self._sums["steps"].device
        self._sums = {name: state["sums"][name].to(device) for name in _SUMS}  # type: ignore[index]
        crossing = state["crossing"]
        self._crossing = None if crossing is None else crossing.to(device)  # type: ignore[attr-defined]
        self._observed = int(state["observed"])  # type: ignore[call-overload]

    def _add_measured(self, kind: str, measured: Measured | None, inputs: int) -> None:
        if measured is None:
            return
        self._sums[f"{kind}_loss"] += measured.loss.detach()
        self._sums[f"{kind}_right"] += measured.right
        self._sums[f"{kind}_seen"] += inputs
