"""A data set as a value: what it says of itself."""

import re
from dataclasses import replace

import pytest
import torch

from newrelax.errors import UserError
from plugin.data import Dataset, from_arrays, hold_back


def rows(features: int) -> Dataset:
    x = torch.arange(10 * features, dtype=torch.float32).view(10, features)
    return from_arrays("steps", x, torch.arange(10) % 2, x, torch.arange(10) % 2)


def test_images_describe_themselves(digits: Dataset) -> None:
    assert digits.describe() == "digits: 1,437 training, 360 test images of 1×8×8, 10 classes, range [0, 1], mean 0.3059"


def test_rows_describe_themselves_feature_by_feature() -> None:
    assert rows(2).describe() == (
        "steps: 10 training, 10 test rows of 2 features, 2 classes, range [0, 18] × [1, 19], mean 9, 10"
    )


def test_many_features_are_summed_up() -> None:
    assert rows(30).describe().endswith("a range for each feature, within [0, 299], mean 135 to 164")


def test_description_tells_validation_and_absent_limits(digits: Dataset) -> None:
    split = replace(hold_back(digits, 0.1, seed=0), data_range=None)
    assert "1,293 training, 144 validation, 360 test" in split.describe()
    assert "no limits" in split.describe()


def test_widths_are_a_number_or_one_for_each_feature(digits: Dataset) -> None:
    assert replace(digits, data_range=(-1.0, 2.0)).widths == 3.0
    low, high = torch.tensor([0.0, -2.0]), torch.tensor([1.0, 2.0])
    widths = replace(rows(2), data_range=(low, high)).widths
    assert isinstance(widths, torch.Tensor)
    assert widths.tolist() == [1.0, 4.0]


@pytest.mark.parametrize("data_range", [None, (0.0, float("inf")), (torch.tensor(-float("inf")), torch.tensor(1.0))], ids=str)
def test_widths_want_finite_limits(digits: Dataset, data_range: object) -> None:
    with pytest.raises(UserError, match=re.escape("expected finite limits of its inputs, got none; give a data range")):
        _ = replace(digits, data_range=data_range).widths  # type: ignore[arg-type]


def test_moving_takes_every_tensor_along() -> None:
    split = hold_back(rows(3), 0.2, seed=0).to("meta")
    assert split.data_range is not None
    tensors = [
        split.train_x,
        split.train_y,
        split.test_x,
        split.test_y,
        split.validation_x,
        split.validation_y,
        *split.data_range,
    ]
    assert {tensor.device.type for tensor in tensors if isinstance(tensor, torch.Tensor)} == {"meta"}
    assert len([tensor for tensor in tensors if isinstance(tensor, torch.Tensor)]) == 8
    assert rows(3).to("cpu").data_range[1].tolist() == [27, 28, 29]  # type: ignore[index,union-attr]
