"""Is this an array to train with? Each thing that can be wrong is refused by itself, with the array and the place."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from plugin.data.words import refusal, shown


class Split(NamedTuple):
    """One part of a data set. part: train, test or validation. pixels: the inputs came as bytes."""

    part: str
    x: Tensor
    y: Tensor
    pixels: bool


def read_split(dataset: str, part: str, x: object, y: object) -> Split:
    """Inputs as float32 (bytes divided by 255) and labels as int64, on the CPU.

    Raises:
        UserError: inputs that are no finite images [n, channels, height, width] or rows [n, features], labels that are not as
            many whole numbers of at least 0, or nothing at all.
    """
    inputs = _tensor(dataset, f"x_{part}", x)
    labels = _tensor(dataset, f"y_{part}", y)
    if inputs.ndim not in (2, 4):
        hint = "; x[:, None] gives grey images their channel" if inputs.ndim == 3 else ""
        raise refusal(
            dataset,
            f"x_{part}: expected images [n, channels, height, width] or rows [n, features], got the shape "
            f"{_shape(inputs)}{hint}",
        )
    if inputs.dtype == torch.uint8 and inputs.ndim == 4 and inputs.shape[1] > 4 >= inputs.shape[3]:
        raise refusal(
            dataset,
            f"x_{part}: expected images [n, channels, height, width], got the shape {_shape(inputs)}, which looks like "
            "channels last; x.transpose(0, 3, 1, 2) puts them first",
        )
    if labels.ndim != 1:
        raise refusal(dataset, f"y_{part}: expected one label for each example, [n], got the shape {_shape(labels)}")
    if len(inputs) != len(labels):
        raise refusal(dataset, f"x_{part} has {len(inputs)} examples, y_{part} {len(labels)} labels; expected as many")
    if not inputs.numel():
        raise refusal(dataset, f"x_{part} is empty, of the shape {_shape(inputs)}; expected at least one example")
    return Split(
        part, _floats(dataset, f"x_{part}", inputs), _classes(dataset, f"y_{part}", labels), inputs.dtype == torch.uint8
    )


def check_alike(dataset: str, first: Split, other: Split) -> None:
    """Raises UserError for splits whose inputs differ in shape or unit."""
    if first.x.shape[1:] != other.x.shape[1:]:
        shapes = [shown(tuple(split.x.shape[1:])) for split in (first, other)]
        raise refusal(dataset, f"x_{first.part} has inputs of {shapes[0]}, x_{other.part} of {shapes[1]}; expected one shape")
    if first.pixels != other.pixels:
        kinds = ["bytes (pixels, divided by 255)" if split.pixels else "numbers as they are" for split in (first, other)]
        raise refusal(dataset, f"x_{first.part} holds {kinds[0]}, x_{other.part} {kinds[1]}; give both in one type")


def count_classes(dataset: str, train: Split, classes: int | None) -> int:
    """How many classes there are: as given, else as the training labels say, which must then be 0 … classes − 1.

    Raises:
        UserError: a class without training examples where classes is not given, or fewer than two classes.
    """
    if classes is None:
        present = train.y.unique()  # sorted
        classes = int(present[-1]) + 1
        if classes != len(present):
            missing = int((present != torch.arange(len(present))).nonzero()[0])
            raise refusal(
                dataset,
                f"y_{train.part} has labels up to {classes - 1}, but none is {missing}: expected 0 … classes − 1 without gaps; "
                f"renumber them, or say that there are classes={classes}",
            )
    if not isinstance(classes, int):
        raise refusal(dataset, f"expected classes as a whole number, got {classes!r:.80}")
    if classes < 2:
        raise refusal(dataset, f"expected at least two classes, got {classes}")
    return classes


def check_labels(dataset: str, split: Split, classes: int) -> None:
    """Raises UserError for a label that is no class."""
    wrong = (split.y >= classes).nonzero()
    if len(wrong):
        place = int(wrong[0])
        raise refusal(
            dataset,
            f"y_{split.part}[{place}] is {int(split.y[place])}, which is no class: expected 0 to {classes - 1}, "
            f"{'as given' if split.part == 'train' else 'as in training'}",
        )


def _tensor(dataset: str, array: str, value: object) -> Tensor:
    if isinstance(value, Tensor):
        found = value.detach().cpu()
        if found.is_complex() or found.is_quantized or found.layout != torch.strided:
            raise refusal(dataset, f"{array}: expected plain real numbers, got {found.dtype}, {found.layout}")
        return found
    if not isinstance(value, np.ndarray):
        raise refusal(dataset, f"{array}: expected a torch tensor or a numpy array, got {type(value).__name__}")
    if value.dtype.kind not in "biuf" or value.dtype.itemsize > 8:
        raise refusal(dataset, f"{array}: expected numbers, got a numpy array of {value.dtype}")
    # torch takes writable arrays in the machine's byte order only.
    return torch.from_numpy(np.require(value, value.dtype.newbyteorder("="), ["C", "W"]))


def _floats(dataset: str, array: str, x: Tensor) -> Tensor:
    if x.dtype == torch.uint8:
        return x.float().div_(255)  # in place: there is one float copy at a time
    x = x.float()
    low, high = x.aminmax()
    if not (torch.isfinite(low) and torch.isfinite(high)):
        wrong = (~torch.isfinite(x)).nonzero()
        place = tuple(wrong[0].tolist())
        raise refusal(
            dataset,
            f"{array}: NaN or infinite values, {len(wrong)} of {x.numel()}, the first {x[place].item()} at "
            f"{array}[{', '.join(map(str, place))}]; replace them or drop these examples",
        )
    return x


def _classes(dataset: str, array: str, y: Tensor) -> Tensor:
    if y.is_floating_point() or y.dtype == torch.bool:
        kind = str(y.dtype).removeprefix("torch.")
        raise refusal(dataset, f"{array}: expected whole numbers (classes), got {kind}; convert it to int64")
    y = y.long()
    negative = (y < 0).nonzero()
    if len(negative):
        place = int(negative[0])
        raise refusal(dataset, f"{array}[{place}] is {int(y[place])}, which is no class: expected labels of at least 0")
    return y


def _shape(tensor: Tensor) -> str:
    return f"({', '.join(map(str, tensor.shape))})"
