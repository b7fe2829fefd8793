"""Sums of an epoch's measurements, kept on the device so that no step waits for it."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from newrelax.errors import UserError
from plugin.training.losses.base import Terms

_OF_A_TERM = ("loss", "right", "seen")


class StepSums:
    """One step's measurements of the terms of those names; `vector` is what several processes add up.

    `vector`: the loss; then for each term its loss, the inputs it calls right (NaN for a term that cannot tell) and those it
    was measured on; the inputs whose crossing neurons were counted; then one crossing share for each layer, if the step
    observed any, weighted with these inputs. float64.
    """

    def __init__(self, device: torch.device, names: Sequence[str]) -> None:
        self._zero = torch.zeros((), dtype=torch.float64, device=device)
        self._loss = self._zero.clone()
        self._terms = {name: [self._zero.clone() for _ in _OF_A_TERM] for name in names}
        self._observed = self._zero.clone()
        self._crossing: Tensor | None = None

    def add(self, terms: Terms, inputs: int) -> None:
        """A batch, or a piece of it, of `inputs` inputs; none when they only stand in for no inputs."""
        self.add_loss(terms.loss)
        for name, term in terms.parts.items():
            if inputs == 0:
                continue
            if name not in self._terms:
                raise UserError(f"the loss gives a term {name!r} that its terms() do not name: {', '.join(self._terms)}")
            loss, right, seen = self._terms[name]
            loss += term.loss.detach()
            right += math.nan if term.right is None else term.right
            seen += inputs
        if terms.crossing is not None:
            shares = terms.crossing.double() * inputs
            self._crossing = shares if self._crossing is None else self._crossing + shares
            self._observed += inputs

    def add_loss(self, loss: Tensor) -> None:
        """Another scalar part of the step's loss."""
        self._loss += loss.detach()

    def vector(self) -> Tensor:
        sums = [value for term in self._terms.values() for value in term]
        parts = torch.stack([self._loss, *sums, self._observed])
        return torch.cat([parts, self._crossing]) if self._crossing is not None else parts


class Meter:
    """Adds up steps; `means` reads the sums once an epoch. names: of the loss's terms, in the order shown.

    figures: names of what steps measure beside the loss, which may be NaN in some of them.
    """

    def __init__(self, device: torch.device, names: Sequence[str], figures: Sequence[str] = ()) -> None:
        self.names, self.figures = tuple(names), tuple(figures)
        self._length = 2 + len(_OF_A_TERM) * len(self.names)  # of a step's vector, without crossing shares
        # Steps and gradient norm, then the vectors; the crossing shares have a place of their own.
        self._total = torch.zeros(2 + self._length, dtype=torch.float64, device=device)
        self._crossing: Tensor | None = None
        # Sums of the figures, and of the steps that measured them.
        self._figures = torch.zeros(2, len(self.figures), dtype=torch.float64, device=device)

    def fresh(self) -> Meter:
        """One of the same kind that has seen nothing."""
        return Meter(self._total.device, self.names, self.figures)

    def add(self, step: Tensor, gradient_norm: Tensor, figures: Tensor | None = None) -> None:
        """A step's StepSums.vector, over all processes, its gradient norm, a scalar, and its figures, a vector."""
        self._total[0] += 1
        self._total[1] += gradient_norm
        self._total[2:] += step[: self._length]
        if len(step) > self._length:
            shares = step[self._length :]
            self._crossing = shares.clone() if self._crossing is None else self._crossing + shares
        if figures is not None:
            measured = torch.isfinite(figures)
            self._figures += torch.stack([torch.where(measured, figures, 0), measured.double()])

    def means(self) -> dict[str, float | list[float] | None]:
        """Means over the epoch: `loss`, `TERM_loss` and `TERM_accuracy` for each term, `gradient_norm`, `crossing`, figures.

        None for what was not measured; a term that cannot tell right from wrong has no accuracy. Waits for the device.
        """
        steps, norm, loss, *sums, observed = self._total.tolist()
        found: dict[str, float | list[float] | None] = {"loss": loss / steps if steps else None}
        for index, name in enumerate(self.names):
            total, right, seen = sums[index * len(_OF_A_TERM) : (index + 1) * len(_OF_A_TERM)]
            found[f"{name}_loss"] = total / seen if seen else None
            if not math.isnan(right):
                found[f"{name}_accuracy"] = right / seen if seen else None
        found["gradient_norm"] = norm / steps if steps else None
        found["crossing"] = None if self._crossing is None else [share / observed for share in self._crossing.tolist()]
        counted = zip(self.figures, *self._figures.tolist(), strict=True)
        found |= {name: total / seen if seen else None for name, total, seen in counted}
        return found

    def state_dict(self) -> dict[str, Tensor | None]:
        figures = {"figures": self._figures.clone()} if self.figures else {}
        return {"total": self._total.clone(), "crossing": self._crossing, **figures}

    def load_state_dict(self, state: dict[str, Tensor | None]) -> None:
        total, crossing = state["total"], state["crossing"]
        if total is None or total.shape != self._total.shape:
            raise ValueError("the epoch's sums are of other terms than this loss has (made by another version?)")
        self._total = total.to(self._total.device)
        self._crossing = None if crossing is None else crossing.to(self._total.device)
        if self.figures:
            figures = state["figures"]
            assert figures is not None
            self._figures = figures.to(self._total.device)
