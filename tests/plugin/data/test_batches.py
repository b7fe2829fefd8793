"""An epoch: every example once, in an order and with crops that one generator draws."""

import hashlib

import pytest
import torch

from newrelax.errors import UserError
from plugin.data import Dataset, batches, from_arrays, load
from plugin.data.batches import augmented


def test_an_epoch_shows_every_image_once(digits: Dataset) -> None:
    def epoch(seed: int) -> list[tuple[torch.Tensor, torch.Tensor]]:
        return list(batches(digits, 100, torch.Generator().manual_seed(seed)))

    first = epoch(0)
    assert [len(y) for _, y in first] == [100] * 14 + [37]
    x = torch.cat([x for x, _ in first])
    assert torch.equal(torch.unique(x, dim=0), torch.unique(digits.train_x, dim=0))
    assert torch.equal(torch.cat([y for _, y in first]).bincount(), digits.train_y.bincount())
    assert all(torch.equal(a[0], b[0]) for a, b in zip(first, epoch(0), strict=True))
    assert not torch.equal(first[0][0], epoch(1)[0][0])


def test_batches_draw_from_the_generator_alone(digits: Dataset) -> None:
    before = torch.get_rng_state()
    for _ in batches(digits, 500, torch.Generator().manual_seed(0), augment=True):
        pass
    assert torch.equal(torch.get_rng_state(), before)


def test_augmentation_gives_crops_and_mirrored_crops() -> None:
    """Each result is, exactly, one of the (2·padding + 1)² crops of the padded image or its mirror image; all occur."""
    image = torch.rand(2, 3, 3, generator=torch.Generator().manual_seed(0)) + 0.1
    padded = torch.nn.functional.pad(image, (1,) * 4)
    crops = [padded[:, i : i + 3, j : j + 3] for i in range(3) for j in range(3)]
    for flip, count in ((False, 9), (True, 18)):
        known = crops + [crop.flip(-1) for crop in crops] if flip else crops
        drawn = augmented(image.repeat(2000, 1, 1, 1), padding=1, flip=flip, generator=torch.Generator().manual_seed(1))
        same = (drawn[:, None] == torch.stack(known)[None]).flatten(2).all(2)
        assert same.any(1).all()
        frequency = same.sum(0) / 2000
        assert len(known) == count
        assert (frequency - 1 / count).abs().max() < 0.03


@pytest.mark.gpu
def test_everything_stays_on_the_gpu() -> None:
    dataset = load("digits", device="cuda")
    generator = torch.Generator("cuda").manual_seed(0)
    for x, y in batches(dataset, 256, generator, augment=True):
        assert x.is_cuda
        assert y.is_cuda


def test_rows_are_batched_and_cannot_be_augmented() -> None:
    x, y = torch.randn(10, 3), torch.arange(10) % 2
    rows = from_arrays("rows", x, y, x, y)
    drawn = torch.cat([part for part, _ in batches(rows, 4, torch.Generator().manual_seed(0))])
    assert torch.equal(drawn.sort(0).values, x.sort(0).values)
    with pytest.raises(UserError, match="data set rows: augmentation .* rows of features"):
        next(batches(rows, 4, augment=True))


def test_order_and_crops_are_those_of_published_runs(digits: Dataset) -> None:
    """Trained weights depend on every draw: changing one of them changes all results that were ever compared."""
    drawn = hashlib.sha256()
    for x, y in batches(digits, 100, torch.Generator().manual_seed(5), augment=True):
        drawn.update(x.numpy().tobytes())
        drawn.update(y.numpy().tobytes())
    assert drawn.hexdigest().startswith("397c40c60ec733bf")
