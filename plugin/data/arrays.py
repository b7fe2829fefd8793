"""Data sets from arrays: the road that all data from outside takes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from torch import Tensor

from newrelax.arguments import DataRange
from plugin.data.checks import Split, check_alike, check_labels, count_classes, read_split
from plugin.data.dataset import Dataset
from plugin.data.moments import moments
from plugin.data.ranges import COMPUTED, Computed, check_inside, computed_range, read_range
from plugin.data.words import refusal
from plugin.settings.table import refuse_unknown

Array = Tensor | np.ndarray
KEYS = ("x_train", "y_train", "x_test", "y_test")
OPTIONAL = ("x_validation", "y_validation", "data_range", "classes", "class_names", "flip")


def from_arrays(
    name: str,
    x_train: Array,
    y_train: Array,
    x_test: Array,
    y_test: Array,
    *,
    x_validation: Array | None = None,
    y_validation: Array | None = None,
    data_range: DataRange | Computed = COMPUTED,
    classes: int | None = None,
    class_names: Sequence[str] = (),
    flip: bool = False,
) -> Dataset:
    """A data set of these arrays, with the mean and deviation of its training inputs.

    Args:
        x_train, x_test, x_validation: images [n, channels, height, width] or rows [n, features]. Bytes are pixels, divided by
            255; other numbers stay as they are, in float32.
        y_train, y_test, y_validation: classes [n], whole numbers from 0.
        data_range: the smallest and the largest value that an input can have, numbers or arrays that broadcast to the shape of
            one input; None: no limits; COMPUTED: see `computed_range`.
        classes: how many there are; by default the training labels say so, and must be 0 … classes − 1 without gaps.
        flip: whether a mirrored image is still of its class.

    Raises:
        UserError: arrays that cannot be trained with; the message names the array and the first offending place.
    """
    given = [("train", x_train, y_train), ("test", x_test, y_test)]
    if x_validation is not None and y_validation is not None:
        given.append(("validation", x_validation, y_validation))
    elif x_validation is not None or y_validation is not None:
        raise refusal(name, "expected x_validation and y_validation together, got one of them")
    splits = [read_split(name, *each) for each in given]
    classes = _check(name, splits, classes, class_names)
    mean, std = moments(splits[0].x)
    train, test, *rest = splits
    dataset = Dataset(
        name=name,
        train_x=train.x,
        train_y=train.y,
        test_x=test.x,
        test_y=test.y,
        classes=classes,
        mean=mean,
        std=std,
        flip=bool(flip),
        validation_x=rest[0].x if rest else None,
        validation_y=rest[0].y if rest else None,
        class_names=tuple(map(str, class_names)),
    )
    if isinstance(data_range, Computed):
        return replace(dataset, data_range=computed_range([split.x for split in splits], pixels=train.pixels))
    return with_range(dataset, data_range)


def from_returned(name: str, returned: object) -> Dataset:
    """A data set of what a function gave: a Dataset, which is checked, the four arrays of KEYS, or a mapping with these
    keys and some of OPTIONAL.

    Raises:
        UserError: something else, or arrays that cannot be trained with.
    """
    if isinstance(returned, Dataset):
        return checked(returned)
    if isinstance(returned, tuple) and len(returned) == len(KEYS):
        return from_arrays(name, *returned)
    if isinstance(returned, Mapping):
        refuse_unknown(f"key of data set {name}", map(str, returned), (*KEYS, *OPTIONAL))
        missing = [key for key in KEYS if key not in returned]
        if missing:
            raise refusal(name, f"expected the keys {', '.join(KEYS)}, got none of {', '.join(missing)}")
        return from_arrays(name, **returned)
    kind = f"a tuple of {len(returned)}" if isinstance(returned, tuple) else type(returned).__name__
    raise refusal(name, f"expected a Dataset, ({', '.join(KEYS)}), or a mapping with these keys, got {kind}")


def checked(dataset: Dataset) -> Dataset:
    """A data set that somebody put together, as one to train with. Raises UserError where it is none."""
    name = dataset.name
    given = [
        ("train", dataset.train_x, dataset.train_y),
        ("test", dataset.test_x, dataset.test_y),
        ("validation", dataset.validation_x, dataset.validation_y),
    ]
    splits = [read_split(name, *each) for each in given if each[1] is not None]
    _check(name, splits, dataset.classes, dataset.class_names)
    channels = splits[0].x.shape[1]
    if not len(dataset.mean) == len(dataset.std) == channels or not all(std > 0 for std in dataset.std):
        raise refusal(name, f"expected mean and std of {channels} numbers each, std above 0, got {dataset.mean}, {dataset.std}")
    parts: dict[str, Any] = {}
    for split in splits:
        parts |= {f"{split.part}_x": split.x, f"{split.part}_y": split.y}
    return with_range(replace(dataset, **parts), dataset.data_range)


def with_range(dataset: Dataset, data_range: DataRange) -> Dataset:
    """The data set with another data range. Raises UserError for one that does not hold its inputs."""
    limits = read_range(dataset.name, data_range, dataset.input_shape)
    for part, x in (("train", dataset.train_x), ("test", dataset.test_x), ("validation", dataset.validation_x)):
        if x is not None:
            check_inside(dataset.name, f"x_{part}", x, limits)
    return replace(dataset, data_range=limits)


def _check(name: str, splits: Sequence[Split], classes: int | None, class_names: Sequence[str]) -> int:
    for split in splits[1:]:
        check_alike(name, splits[0], split)
    classes = count_classes(name, splits[0], classes)
    for split in splits:
        check_labels(name, split, classes)
    if len(class_names) not in (0, classes):
        raise refusal(name, f"expected a name for each of {classes} classes, got {len(class_names)}")
    return classes
