"""Anybody's arrays: what is taken, how it is converted, and what is refused one by one."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from newrelax.errors import UserError
from plugin.data import Dataset, from_arrays
from plugin.data.arrays import checked, from_returned


def arrays(**changed: Any) -> dict[str, Any]:
    """Six training rows and three test rows of two features, three classes."""
    whole = {
        "x_train": np.arange(12, dtype=np.float64).reshape(6, 2),
        "y_train": np.array([0, 1, 2, 0, 1, 2]),
        "x_test": np.arange(6, dtype=np.float64).reshape(3, 2),
        "y_test": np.array([0, 1, 2]),
    }
    return {**whole, **changed}


def test_bytes_are_pixels_divided_by_255() -> None:
    pixels = np.arange(6 * 3 * 4 * 4, dtype=np.uint8).reshape(6, 3, 4, 4)
    dataset = from_arrays("mine", **arrays(x_train=pixels, x_test=torch.from_numpy(pixels[:3])))
    assert torch.equal(dataset.train_x, torch.from_numpy(pixels).float() / 255)
    assert torch.equal(dataset.test_x, dataset.train_x[:3])
    assert dataset.input_shape == (3, 4, 4)
    assert pixels.flat[7] == 7  # the caller's own are left alone


@pytest.mark.parametrize(
    "convert",
    [
        pytest.param(lambda x: x, id="float64"),
        pytest.param(lambda x: x.astype(np.float32), id="float32"),
        pytest.param(lambda x: x.astype(np.float16), id="float16"),
        pytest.param(lambda x: x.astype(">f8"), id="the other byte order"),
        pytest.param(lambda x: x.astype(np.int32), id="int32"),
        pytest.param(lambda x: x[:, ::-1].copy()[:, ::-1], id="negative strides"),
        pytest.param(lambda x: np.broadcast_to(x, x.shape), id="read only"),
        pytest.param(lambda x: torch.from_numpy(x), id="a tensor"),
        pytest.param(lambda x: torch.from_numpy(x).requires_grad_(), id="a tensor that wants a gradient"),
        pytest.param(lambda x: torch.from_numpy(x).bfloat16(), id="bfloat16"),
    ],
)
@pytest.mark.filterwarnings("error")
def test_other_numbers_stay_as_they_are(convert: Callable[[np.ndarray], object]) -> None:
    expected = arrays()
    dataset = from_arrays("mine", **arrays(x_train=convert(expected["x_train"]), x_test=convert(expected["x_test"])))
    for x, key in ((dataset.train_x, "x_train"), (dataset.test_x, "x_test")):
        assert x.dtype == torch.float32 and not x.requires_grad
        assert x.tolist() == expected[key].tolist()
    assert dataset.mean == (5.0, 6.0)


@pytest.mark.parametrize("dtype", [np.int8, np.uint8, np.uint16, np.int32, np.uint64, ">i4"], ids=str)
def test_labels_may_be_any_whole_numbers(dtype: str) -> None:
    dataset = from_arrays("mine", **arrays(y_train=np.array([0, 1, 2, 0, 1, 2]).astype(dtype)))
    assert dataset.train_y.dtype == torch.int64
    assert dataset.train_y.tolist() == [0, 1, 2, 0, 1, 2]
    assert dataset.classes == 3


def test_what_is_said_of_the_data_is_kept() -> None:
    dataset = from_arrays(
        "mine",
        **arrays(y_train=np.array([0, 1, 3, 0, 1, 3]), y_test=np.array([0, 2, 3])),
        x_validation=np.ones((2, 2)),
        y_validation=np.array([3, 3]),
        classes=5,
        class_names=list("abcde"),
        flip=True,
    )
    assert (dataset.name, dataset.classes, dataset.class_names, dataset.flip) == ("mine", 5, ("a", "b", "c", "d", "e"), True)
    assert dataset.validation_x is not None and dataset.validation_x.tolist() == [[1, 1], [1, 1]]
    assert dataset.validation_y is not None and dataset.validation_y.tolist() == [3, 3]


def holding(value: float, *places: tuple[int, int]) -> np.ndarray:
    x: np.ndarray = arrays()["x_train"]
    for place in places:
        x[place] = value
    return x


REFUSED = {
    "float labels": ({"y_train": np.zeros(6)}, "y_train: expected whole numbers .* got float64; convert"),
    "truths as labels": ({"y_test": np.array([True, False, True])}, "y_test: expected whole numbers .* got bool"),
    "a negative label": ({"y_train": np.array([0, 1, 2, -1, -5, 2])}, r"y_train\[3\] is -1, which is no class"),
    "a gap in training": ({"y_train": np.array([0, 1, 3, 0, 1, 3])}, "y_train has labels up to 3, but none is 2: .*classes=4"),
    "labels from 1": ({"y_train": np.array([1, 2, 3, 1, 2, 3])}, "y_train has labels up to 3, but none is 0"),
    "a huge label": ({"y_train": np.array([0, 1, 10**15, 0, 1, 1])}, "y_train has labels up to 10{15}, but none is 2"),
    "a test label unknown to training": (
        {"y_test": np.array([0, 3, 4])},
        r"y_test\[1\] is 3, which is no class: expected 0 to 2",
    ),
    "a training label above the classes": ({"classes": 2}, r"y_train\[2\] is 2, which is no class: expected 0 to 1"),
    "one class": ({"y_train": np.zeros(6, int), "y_test": np.zeros(3, int)}, "at least two classes, got 1"),
    "classes in words": ({"classes": "three"}, "classes as a whole number, got 'three'"),
    "NaN": (
        {"x_train": holding(np.nan, (2, 1), (4, 0))},
        r"x_train: NaN or infinite values, 2 of 12, .* nan at x_train\[2, 1\]",
    ),
    "infinity": (
        {"x_train": holding(-np.inf, (5, 0))},
        r"x_train: NaN or infinite values, 1 of 12, .* -inf at x_train\[5, 0\]",
    ),
    "too large for float32": ({"x_train": holding(1e300, (1, 1))}, r"inf at x_train\[1, 1\]"),
    "fewer labels": ({"y_train": np.array([0, 1, 2])}, "x_train has 6 examples, y_train 3 labels"),
    "other features in test": ({"x_test": np.zeros((3, 4))}, "x_train has inputs of 2, x_test of 4"),
    "images and rows": ({"x_test": np.zeros((3, 1, 2, 1))}, "x_train has inputs of 2, x_test of 1×2×1"),
    "bytes and numbers": ({"x_test": np.zeros((3, 2), np.uint8)}, "x_train holds numbers as they are, x_test bytes"),
    "nothing to train on": ({"x_train": np.zeros((0, 2)), "y_train": np.zeros(0, int)}, r"x_train is empty, .*\(0, 2\)"),
    "nothing to test on": ({"x_test": np.zeros((0, 2)), "y_test": np.zeros(0, int)}, "x_test is empty"),
    "no features": ({"x_train": np.zeros((6, 0))}, r"x_train is empty, of the shape \(6, 0\)"),
    "no channels": ({"x_train": np.zeros((6, 8, 8))}, r"x_train: expected images .* got the shape \(6, 8, 8\); x\[:, None\]"),
    "one number an example": ({"x_train": np.zeros(6)}, r"x_train: expected images .* or rows .* got the shape \(6\)"),
    "labels in columns": ({"y_train": np.zeros((6, 3), int)}, r"y_train: expected one label .* got the shape \(6, 3\)"),
    "words": ({"x_train": np.full((6, 2), "a")}, "x_train: expected numbers, got a numpy array of <U1"),
    "objects": ({"y_train": np.array([None] * 6)}, "y_train: expected numbers, got a numpy array of object"),
    "complex numbers": ({"x_train": torch.zeros(6, 2, dtype=torch.complex64)}, "x_train: expected plain real numbers"),
    "a list": ({"x_train": [[1.0, 2.0]] * 6}, "x_train: expected a torch tensor or a numpy array, got list"),
    "half a validation part": ({"x_validation": np.zeros((1, 2))}, "x_validation and y_validation together"),
    "an unknown validation label": (
        {"x_validation": np.zeros((1, 2)), "y_validation": np.array([7])},
        r"y_validation\[0\] is 7, which is no class",
    ),
    "a name too few": ({"class_names": ["a", "b"]}, "a name for each of 3 classes, got 2"),
    "a value outside the given range": ({"data_range": (0, 10)}, r"x_train\[5, 1\] is 11, outside the data range \[0, 10\]"),
}


@pytest.mark.parametrize(("changed", "expected"), REFUSED.values(), ids=REFUSED)
def test_what_cannot_be_trained_with_is_one_line(changed: dict[str, Any], expected: str) -> None:
    with pytest.raises(UserError, match=f"^data set mine: .*{expected}") as caught:
        from_arrays("mine", **arrays(**changed))
    assert "\n" not in str(caught.value)


def test_what_a_function_returned_may_be_a_tuple_a_mapping_or_a_data_set() -> None:
    whole = arrays()
    made = [
        from_returned("mine", tuple(whole.values())),
        from_returned("mine", {**whole, "data_range": None, "classes": 3, "flip": True}),
        from_returned("mine", from_arrays("theirs", **whole)),
    ]
    assert [each.train_x.tolist() for each in made] == [whole["x_train"].tolist()] * 3
    assert [each.name for each in made] == ["mine", "mine", "theirs"]
    assert made[1].data_range is None and made[1].flip


@pytest.mark.parametrize(
    ("returned", "expected"),
    [
        pytest.param(None, "expected a Dataset, .* got NoneType", id="nothing"),
        pytest.param((1, 2, 3), "got a tuple of 3", id="three arrays"),
        pytest.param({"x_train": 1, "y_train": 2}, "got none of x_test, y_test", id="keys missing"),
        pytest.param(arrays(x_tset=1), "unknown key of data set mine 'x_tset'; did you mean x_test", id="unknown key"),
    ],
)
def test_other_things_returned_are_refused(returned: object, expected: str) -> None:
    with pytest.raises(UserError, match=expected):
        from_returned("mine", returned)


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        pytest.param({"train_x": torch.full((6, 2), torch.nan)}, "x_train: NaN or infinite", id="NaN"),
        pytest.param({"test_y": torch.tensor([0, 1, 9])}, r"y_test\[2\] is 9, which is no class", id="no class"),
        pytest.param({"validation_x": torch.zeros(1, 2)}, "y_validation: expected a torch tensor", id="half a part"),
        pytest.param({"mean": (0.0,)}, "mean and std of 2 numbers each", id="a mean too few"),
        pytest.param({"std": (1.0, 0.0)}, "std above 0", id="no deviation"),
        pytest.param({"data_range": (0.0, 1.0)}, r"x_train\[1, 0\] is 2, outside the data range", id="outside its range"),
    ],
)
def test_a_data_set_from_outside_is_checked_like_arrays(changed: dict[str, Any], expected: str) -> None:
    whole = from_arrays("theirs", **arrays())
    assert isinstance(checked(whole), Dataset)
    with pytest.raises(UserError, match=f"data set theirs: .*{expected}"):
        checked(replace(whole, **changed))
