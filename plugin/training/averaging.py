"""Averages of the weights over the last part of training, which are then what is kept, validated and evaluated."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn, get_swa_multi_avg_fn, update_bn

from plugin.process.streams import seeded
from plugin.settings.nouns import Catalogue, Noun
from plugin.settings.table import setting

Combine = Callable[[list[Tensor], list[Tensor], int], None]
"""Moves averages, in place, towards the weights of this moment; the number: how many are averaged already."""

STATISTICS_BATCH = 250
"""Inputs a batch, about, from which batch norms' statistics are made anew."""


class Averaging(Noun):
    """How weights are averaged, after each step from a share of the training on."""

    name: ClassVar[str]
    from_: float = setting("Share of the training after which it starts.", 0.9, ge=0, lt=1)

    def combine(self) -> Combine:
        raise NotImplementedError


class StochasticWeightAveraging(Averaging):
    """Equal weights for all steps (Izmailov et al., "Averaging Weights Leads to Wider Optima", 2018)."""

    name: ClassVar[str] = "swa"

    def combine(self) -> Combine:
        return get_swa_multi_avg_fn()  # type: ignore[no-any-return]


class ExponentialMovingAverage(Averaging):
    """Weights that fall with a step's age."""

    name: ClassVar[str] = "ema"
    decay: float = setting("What is left of a step's weight one step later.", 0.999, ge=0, lt=1)
    from_: float = setting("Share of the training after which it starts.", 0.8, ge=0, lt=1)

    def combine(self) -> Combine:
        return get_ema_multi_avg_fn(self.decay)  # type: ignore[no-any-return]


AVERAGES: Catalogue[Averaging] = Catalogue("average", Averaging, (StochasticWeightAveraging, ExponentialMovingAverage))
read_averaging, list_averages = AVERAGES.read, AVERAGES.listing


class Average:
    """The average of a model's trained weights, from step `start` on; the model itself trains on without it."""

    def __init__(self, averaging: Averaging, model: nn.Module, start: int) -> None:
        self._combine, self._start = averaging.combine(), start
        self._model = model
        self._weights: list[Tensor] = []
        self._count = 0

    @property
    def started(self) -> bool:
        return self._count > 0

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Call after each step; step: how many are finished."""
        if step <= self._start:
            return
        current = self._trained()
        if self._count == 0:
            self._weights = [weight.clone() for weight in current]
        else:
            self._combine(self._weights, current, self._count)
        self._count += 1

    def install(self, inputs: Tensor) -> None:
        """Leaves the model with the average, once it has started; batch norms' statistics are made anew over the inputs."""
        if not self.started:
            return
        with torch.no_grad():
            for weight, average in zip(self._trained(), self._weights, strict=True):
                weight.copy_(average)
        if any(isinstance(module, nn.modules.batchnorm._BatchNorm) for module in self._model.modules()):
            pieces = inputs.tensor_split(max(1, len(inputs) // STATISTICS_BATCH))  # a batch norm refuses a single input
            with seeded(0, inputs.device):  # of dropout, whose draws must not move the run's
                update_bn(pieces, self._model)

    @contextmanager
    def installed(self, inputs: Tensor) -> Iterator[None]:
        """Inside, the model has the average; afterwards it is, bit for bit, what it was."""
        if not self.started:
            yield
            return
        before = {name: tensor.clone() for name, tensor in self._model.state_dict().items()}
        try:
            self.install(inputs)
            yield
        finally:
            with torch.no_grad():
                for name, tensor in self._model.state_dict().items():
                    tensor.copy_(before[name])

    def state_dict(self) -> dict[str, Any]:
        return {"count": self._count, "weights": self._weights}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Raises ValueError where the averages are of other weights than the model's."""
        own, kept = self._trained(), list(state["weights"])
        if kept and [weight.shape for weight in kept] != [weight.shape for weight in own]:
            raise ValueError("the averages are of other weights than this network has")
        self._weights = [weight.to(like.device).clone() for weight, like in zip(kept, own, strict=False)]
        self._count = int(state["count"])

    def _trained(self) -> list[Tensor]:
        return [parameter.detach() for parameter in self._model.parameters() if parameter.requires_grad]
