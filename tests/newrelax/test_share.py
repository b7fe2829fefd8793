"""A share on the device computes as the number does, and equals none."""

import pytest
import torch

from newrelax.share import DeviceShare

SHARES = [0.0, 0.1, 1 / 3, 1.0]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("share", SHARES)
@pytest.mark.parametrize("shape", [(), (50,)], ids=["a scalar", "a vector"])
def test_products_are_those_of_the_number_bit_for_bit(share: float, shape: tuple[int, ...], dtype: torch.dtype) -> None:
    part = torch.rand(shape, dtype=dtype)
    held = DeviceShare(torch.tensor(share, dtype=torch.float64))
    for product, expected in [
        (held * part, share * part),
        (part * held, part * share),
        ((1 - held) * part, (1 - share) * part),
    ]:
        assert product.dtype == dtype
        assert torch.equal(product, expected)


@pytest.mark.parametrize("share", SHARES)
def test_nothing_is_skipped_for_a_share_on_the_device(share: float) -> None:
    amount = torch.tensor(share, dtype=torch.float64)
    held = DeviceShare(amount)
    assert held not in (0, 1, share)
    assert float(held) == share
    amount.fill_(0.7)
    assert float(held) == 0.7, "it is read anew"
