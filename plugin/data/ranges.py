"""Where inputs end: as given, or as computed from the data."""

from __future__ import annotations

import math
from collections.abc import Sequence
from enum import Enum
from numbers import Real

import numpy as np
import torch
from torch import Tensor

from newrelax.arguments import UNIT_RANGE, DataRange
from plugin.data.words import refusal, shown


class Computed(Enum):
    """The type of `COMPUTED`, so that None can mean "no limits"."""

    COMPUTED = "computed"


COMPUTED = Computed.COMPUTED
"""Take the data range from the data (`computed_range`)."""


def computed_range(inputs: Sequence[Tensor], *, pixels: bool) -> DataRange:
    """The range of the inputs of all splits.

    (0, 1) for pixels, and for images that lie in [0, 1]; for other images the smallest and the largest value; for rows tensors
    [features] with those of each feature.
    """
    if pixels:
        return UNIT_RANGE
    if inputs[0].ndim == 2:
        low = torch.stack([x.amin(0) for x in inputs]).amin(0)
        high = torch.stack([x.amax(0) for x in inputs]).amax(0)
        return low, high
    smallest = min(x.min().item() for x in inputs)
    largest = max(x.max().item() for x in inputs)
    return UNIT_RANGE if smallest >= 0 and largest <= 1 else (smallest, largest)


def read_range(dataset: str, given: object, shape: tuple[int, ...]) -> DataRange:
    """A range that somebody gave for inputs of this shape: None, or a pair of numbers, or of arrays one for each feature.

    Raises:
        UserError: something else, or a smallest value that is not below the largest.
    """
    if given is None:
        return None
    if not isinstance(given, (tuple, list)) or len(given) != 2:
        raise refusal(dataset, f"expected a data range of two values, smallest and largest, or None, got {given!r:.80}")
    low, high = (_end(dataset, end, shape) for end in given)
    if isinstance(low, float) and isinstance(high, float):
        if not low < high:
            raise refusal(dataset, f"expected a data range with its smallest value first, got ({low:g}, {high:g})")
        return low, high
    low, high = (torch.as_tensor(end, dtype=torch.float32).expand(shape).contiguous() for end in (low, high))
    crossed = (low > high).nonzero()
    if len(crossed):
        place = tuple(crossed[0].tolist())
        raise refusal(
            dataset,
            f"data range of feature {_index(place)}: smallest {low[place].item():g} above largest {high[place].item():g}",
        )
    return low, high


def check_inside(dataset: str, array: str, x: Tensor, data_range: DataRange) -> None:
    """Raises UserError for inputs x [n, …] that leave the data range; rounding to float32 is no offence."""
    if data_range is None:
        return
    low, high = (torch.as_tensor(end, dtype=x.dtype) for end in data_range)
    if bool((x.amin(0) >= low).all()) and bool((x.amax(0) <= high).all()):
        return
    outside = ((x < low) | (x > high)).nonzero()
    place = tuple(outside[0].tolist())
    ends = [end.expand(x.shape[1:])[place[1:]].item() for end in (low, high)]
    raise refusal(
        dataset,
        f"{array}[{_index(place)}] is {x[place].item():g}, outside the data range [{ends[0]:g}, {ends[1]:g}] "
        f"({len(outside)} such values); scale the data, or give its range",
    )


def _end(dataset: str, end: object, shape: tuple[int, ...]) -> float | Tensor:
    if isinstance(end, Real) and not isinstance(end, bool):
        if math.isnan(end):
            raise refusal(dataset, "expected a data range of numbers, got NaN")
        return float(end)
    if not isinstance(end, (np.ndarray, Tensor)):
        raise refusal(dataset, f"expected a data range of numbers or arrays, got {type(end).__name__}")
    tensor = torch.as_tensor(end).detach().to("cpu", torch.float32)
    try:
        tensor.expand(shape)
    except RuntimeError:
        raise refusal(
            dataset, f"expected a data range for inputs of {shown(shape)}, got one of {shown(tuple(tensor.shape))}"
        ) from None
    if bool(tensor.isnan().any()):
        raise refusal(dataset, "expected a data range of numbers, got NaN")
    return tensor if tensor.ndim else tensor.item()


def _index(place: Sequence[int]) -> str:
    return ", ".join(map(str, place))
