"""Where inputs end: computed by the kind of the data, or given and then checked."""

import numpy as np
import pytest
import torch

from newrelax.errors import UserError
from plugin.data import Dataset, from_arrays, load
from plugin.data.moments import moments

LABELS = torch.arange(4) % 2


def made(train: torch.Tensor, test: torch.Tensor | None = None, **given: object) -> Dataset:
    return from_arrays("mine", train, LABELS, train if test is None else test, LABELS, **given)  # type: ignore[arg-type]


def images(low: float, high: float) -> torch.Tensor:
    return torch.linspace(low, high, 4 * 3 * 2 * 2).view(4, 3, 2, 2)


@pytest.mark.parametrize(
    ("train", "test", "expected"),
    [
        pytest.param(images(10, 200).byte(), None, (0.0, 1.0), id="bytes are pixels"),
        pytest.param(torch.tensor([[3], [9], [4], [5]]).byte(), None, (0.0, 1.0), id="rows of bytes are pixels"),
        pytest.param(images(0.2, 0.7), None, (0.0, 1.0), id="images in [0, 1]"),
        pytest.param(images(0, 1), None, (0.0, 1.0), id="images that fill [0, 1]"),
        pytest.param(images(-1, 1), None, (-1.0, 1.0), id="images that leave [0, 1] below"),
        pytest.param(images(0, 0.5), images(0, 1.5), (0.0, 1.5), id="images that leave [0, 1] in the test part"),
    ],
)
def test_computed_range_of_all_features(train: torch.Tensor, test: torch.Tensor | None, expected: tuple[float, float]) -> None:
    assert made(train, test).data_range == expected


def test_computed_range_of_rows_is_each_features_in_training_and_test() -> None:
    train = torch.tensor([[0.0, 5.0], [1.0, 6.0], [0.5, 7.0], [0.5, 5.5]])
    dataset = made(train, train + torch.tensor([-3.0, 0.5]))
    assert dataset.data_range is not None
    low, high = dataset.data_range
    assert isinstance(low, torch.Tensor) and isinstance(high, torch.Tensor)
    assert (low.tolist(), high.tolist()) == ([-3.0, 5.0], [1.0, 7.5])


@pytest.mark.parametrize(
    ("given", "low", "high"),
    [
        pytest.param((-2, 3), -2.0, 3.0, id="whole numbers"),
        pytest.param([np.float32(-2), torch.tensor(3.0)], -2.0, 3.0, id="scalars of numpy and torch"),
        pytest.param((0.0, float("inf")), 0.0, float("inf"), id="limited on one side"),
    ],
)
def test_given_numbers_are_the_range(given: object, low: float, high: float) -> None:
    assert made(images(0, 1), data_range=given).data_range == (low, high)


@pytest.mark.parametrize(
    ("given", "shape"),
    [
        pytest.param((torch.zeros(3, 2, 2), torch.ones(3, 2, 2)), (3, 2, 2), id="tensors of one input's shape"),
        pytest.param((np.zeros((3, 1, 1)), np.ones((3, 1, 1))), (3, 2, 2), id="one for each channel"),
        pytest.param((0, torch.ones(3, 2, 2)), (3, 2, 2), id="a number and a tensor"),
    ],
)
def test_given_arrays_have_the_shape_of_one_input(given: object, shape: tuple[int, ...]) -> None:
    dataset = made(images(0, 1), data_range=given)
    assert dataset.data_range is not None
    for end, value in zip(dataset.data_range, (0.0, 1.0), strict=True):
        assert isinstance(end, torch.Tensor)
        assert end.shape == shape and end.dtype == torch.float32 and bool((end == value).all())


def test_none_says_that_inputs_have_no_limits() -> None:
    assert made(images(-5, 5), data_range=None).data_range is None


def test_limits_rounded_with_the_data_hold_it() -> None:
    """0.1 in float64 lies below 0.1 in float32."""
    x = torch.full((4, 1), 0.1)
    assert made(x, data_range=(-0.1, 0.1)).data_range == (-0.1, 0.1)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        pytest.param((1, 0), r"smallest value first, got \(1, 0\)", id="reversed"),
        pytest.param((0, 0), "smallest value first", id="empty"),
        pytest.param((0, float("nan")), "of numbers, got NaN", id="nan"),
        pytest.param((0, torch.tensor([[float("nan")]])), "of numbers, got NaN", id="nan in a tensor"),
        pytest.param((0, "1"), "numbers or arrays, got str", id="text"),
        pytest.param((0, True), "numbers or arrays, got bool", id="a truth"),
        pytest.param(1.0, "two values, smallest and largest, or None, got 1.0", id="one number"),
        pytest.param((0, 1, 2), "two values", id="three numbers"),
        pytest.param((torch.zeros(5), 1), "for inputs of 3×2×2, got one of 5", id="another shape"),
        pytest.param(
            (torch.eye(2).expand(3, 2, 2) + 2, torch.full((3, 2, 2), 2.5)),
            "feature 0, 0, 0: smallest 3 above largest 2.5",
            id="reversed in one feature",
        ),
        pytest.param((0, 0.5), r"x_train\[2, 0, 0, 0\] is 0.51\d*, outside the data range \[0, 0.5\] \(24 such", id="too low"),
        pytest.param((0, torch.full((3, 1, 1), 0.5)), r"x_train\[2, 0, 0, 0\] .* \[0, 0.5\]", id="too low, each feature"),
    ],
)
def test_wrong_range_is_one_line(given: object, expected: str) -> None:
    with pytest.raises(UserError, match=f"^data set mine: .*{expected}") as caught:
        made(images(0, 1), data_range=given)
    assert "\n" not in str(caught.value)


def test_a_value_outside_is_found_in_every_part() -> None:
    with pytest.raises(UserError, match=r"x_test\[1, 0\] is 2, outside the data range \[0, 1\] \(1 such"):
        made(torch.zeros(4, 1), torch.tensor([[0.0], [2.0], [1.0], [1.0]]), data_range=(0, 1))


@pytest.mark.parametrize("given", [None, (-1.0, 2.0)], ids=str)
def test_range_from_the_caller_replaces_a_named_data_sets(given: tuple[float, float] | None) -> None:
    assert load("digits", data_range=given).data_range == given
    with pytest.raises(UserError, match=r"data set digits: x_train\[.*outside the data range \[0, 0.5\]"):
        load("digits", data_range=(0, 0.5))


@pytest.mark.parametrize("shape", [(1000, 3, 4, 5), (1000, 3)], ids=["images", "rows"])
def test_moments_are_those_of_each_channel_or_feature(shape: tuple[int, ...]) -> None:
    x = torch.randn(shape, generator=torch.Generator().manual_seed(0)) * 3 + 100
    mean, std = moments(x)
    dims = [0, *range(2, x.ndim)]
    torch.testing.assert_close(torch.tensor(mean).double(), x.double().mean(dims), rtol=1e-6, atol=0)
    torch.testing.assert_close(torch.tensor(std).double(), x.double().std(dims, correction=0), rtol=1e-6, atol=0)


def test_what_is_constant_is_divided_by_one() -> None:
    x = torch.cat((torch.full((1000, 1), 0.1), torch.zeros(1000, 1), torch.randn(1000, 1)), dim=1)
    mean, std = moments(x)
    assert mean[0] == pytest.approx(0.1)
    assert std[:2] == (1.0, 1.0) and 0.9 < std[2] < 1.1
