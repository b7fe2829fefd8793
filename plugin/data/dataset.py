"""What a data set is: tensors on one device, and what is known of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from newrelax.arguments import UNIT_RANGE, DataRange
from plugin.data.words import refusal, shown

MOST_SHOWN = 4  # features that `describe` lists one by one


@dataclass(frozen=True, eq=False)
class Dataset:
    """A classification data set, whole, on one device.

    train_x, test_x, validation_x: float32, images [n, channels, height, width] or rows of features [n, features].
    train_y, test_y, validation_y: int64 classes [n], from 0 to classes − 1.
    mean, std: one number for each channel, or for each feature of rows; a network normalises its inputs with them.
    flip: whether a mirrored image is still of its class, so that augmentation may mirror it.
    data_range: the smallest and the largest value that an input can have, for all features or for each (tensors of the shape
    of one input); None: inputs have no limits.
    class_names: one for each class, or empty.
    """

    name: str
    train_x: Tensor
    train_y: Tensor
    test_x: Tensor
    test_y: Tensor
    classes: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    flip: bool = False
    validation_x: Tensor | None = None
    validation_y: Tensor | None = None
    data_range: DataRange = UNIT_RANGE
    class_names: tuple[str, ...] = ()

    @property
    def input_shape(self) -> tuple[int, ...]:
        """The shape of one input: (channels, height, width), or (features,)."""
        return tuple(self.train_x.shape[1:])

    @property
    def widths(self) -> float | Tensor:
        """How wide the data range is: a number, or one for each feature in the shape of one input.

        Raises:
            UserError: inputs have no limits, on one side or both.
        """
        if self.data_range is not None:
            low, high = self.data_range
            if bool(torch.isfinite(torch.as_tensor(high - low)).all()):
                return high - low
        raise refusal(self.name, "expected finite limits of its inputs, got none; give a data range (--data-range)")

    def describe(self) -> str:
        """One line for people: how many examples of which shape, classes, range and mean."""
        counts = {"training": self.train_y, "validation": self.validation_y, "test": self.test_y}
        sizes = ", ".join(f"{len(y):,} {split}" for split, y in counts.items() if y is not None)
        if len(self.input_shape) == 1:
            kind = f"rows of {self.input_shape[0]} features"
        else:
            kind = f"images of {shown(self.input_shape)}"
        return f"{self.name}: {sizes} {kind}, {self.classes} classes, {self._range()}, mean {_numbers(self.mean)}"

    def to(self, device: torch.device | str) -> Dataset:
        """The same on another device."""
        tensors: dict[str, Any] = {name: value.to(device) for name, value in vars(self).items() if isinstance(value, Tensor)}
        data_range = self.data_range
        if data_range is not None:
            low, high = (end.to(device) if isinstance(end, Tensor) else end for end in data_range)
            data_range = low, high
        return replace(self, data_range=data_range, **tensors)

    def _range(self) -> str:
        if self.data_range is None:
            return "no limits"
        low, high = (end.flatten().tolist() if isinstance(end, Tensor) else [end] for end in self.data_range)
        if len(low) <= MOST_SHOWN:
            return "range " + " × ".join(f"[{a:.4g}, {b:.4g}]" for a, b in zip(low, high, strict=True))
        return f"a range for each feature, within [{min(low):.4g}, {max(high):.4g}]"


def _numbers(values: Sequence[float]) -> str:
    if len(values) <= MOST_SHOWN:
        return ", ".join(f"{value:.4g}" for value in values)
    return f"{min(values):.4g} to {max(values):.4g}"
