"""Stratified parts: how large, how drawn, what stays."""

import pytest
import torch

from newrelax.errors import UserError
from plugin.data import Dataset, hold_back, load, stratified_part


def test_limit_train_keeps_a_stratified_part(mnist: Dataset) -> None:
    kept = stratified_part(mnist.train_y, 1000, seed=1)
    assert len(kept) == len(kept.unique()) == 1000
    expected = mnist.train_y.bincount() / 60
    assert (mnist.train_y[kept].bincount() - expected).abs().max() < 1
    assert torch.equal(kept, stratified_part(mnist.train_y, 1000, seed=1))
    assert not torch.equal(kept, stratified_part(mnist.train_y, 1000, seed=2))


def test_limit_train_leaves_normalisation_and_test_part(digits: Dataset) -> None:
    part = load("digits", limit_train=100)
    assert len(part.train_y) == 100
    assert part.mean == digits.mean
    assert part.std == digits.std
    assert torch.equal(part.test_x, digits.test_x)
    with pytest.raises(UserError, match="at least 1"):
        load("digits", limit_train=0)


def test_held_back_part_is_stratified_and_moved(digits: Dataset) -> None:
    split = hold_back(digits, 0.1, seed=1)
    assert split.validation_x is not None and split.validation_y is not None
    assert (len(split.train_y), len(split.validation_y)) == (1293, 144)
    expected = digits.train_y.bincount() / 1437 * 144
    assert (split.validation_y.bincount(minlength=10) - expected).abs().max() < 1
    together = torch.cat((split.train_x, split.validation_x)).flatten(1)
    assert torch.equal(together.unique(dim=0), digits.train_x.flatten(1).unique(dim=0))
    assert len(together) == len(digits.train_x)
    assert torch.equal(split.test_x, digits.test_x) and split.mean == digits.mean


def test_held_back_part_follows_the_seed(digits: Dataset) -> None:
    parts = [hold_back(digits, 0.2, seed).validation_x for seed in (0, 0, 1)]
    assert torch.equal(parts[0], parts[1])
    assert not torch.equal(parts[0], parts[2])


@pytest.mark.parametrize(
    ("fraction", "expected"),
    [
        pytest.param(0.0001, "leaves 1437 to train and 0 to validate", id="nothing to validate"),
        pytest.param(0.9999, "leaves 0 to train and 1437 to validate", id="nothing to train"),
        pytest.param(0.0, "fraction between 0 and 1 .* got 0", id="zero"),
        pytest.param(1.0, "fraction between 0 and 1 .* got 1", id="one"),
        pytest.param(12.0, "fraction between 0 and 1 .* got 12", id="a count"),
        pytest.param(float("nan"), "fraction between 0 and 1 .* got nan", id="nan"),
    ],
)
def test_fraction_that_empties_a_part_is_refused(digits: Dataset, fraction: float, expected: str) -> None:
    with pytest.raises(UserError, match=expected):
        hold_back(digits, fraction, seed=0)


def test_validation_part_of_its_own_is_kept(digits: Dataset) -> None:
    with pytest.raises(UserError, match="brings a validation part of its own"):
        hold_back(hold_back(digits, 0.1, seed=0), 0.1, seed=0)


def test_validation_is_held_back_from_the_limited_part(digits: Dataset) -> None:
    split = load("digits", limit_train=100, validation=0.1, seed=3)
    limited = load("digits", limit_train=100, seed=3)
    assert split.validation_x is not None
    assert (len(split.train_x), len(split.validation_x)) == (90, 10)
    pixels = torch.cat((split.train_x, split.validation_x)).flatten(1)
    assert torch.equal(pixels.unique(dim=0), limited.train_x.flatten(1).unique(dim=0))
