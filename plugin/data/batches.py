"""Shuffled, augmented batches, made on the data set's device without worker processes."""

from __future__ import annotations

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

from plugin.data.dataset import Dataset
from plugin.data.words import refusal


def batches(
    dataset: Dataset, batch_size: int, generator: torch.Generator | None = None, augment: bool = False
) -> Iterator[tuple[Tensor, Tensor]]:
    """One epoch of shuffled training batches (x, y) on the data set's device; the last one may be smaller.

    Args:
        generator: on the data set's device (None: that device's global stream). Order and augmentation are drawn from it
            alone, the order before the first batch, the augmentation as each batch is made.
        augment: random crops from the zero-padded image, and mirroring where the data set allows it.

    Raises:
        UserError: augmentation of rows.
    """
    if augment and len(dataset.input_shape) != 3:
        raise refusal(dataset.name, "augmentation crops and mirrors images, and these are rows of features; leave it off")
    device = dataset.train_x.device
    order = torch.randperm(len(dataset.train_y), generator=generator, device=device)
    for start in range(0, len(order), batch_size):
        chosen = order[start : start + batch_size]
        x = dataset.train_x[chosen]
        if augment:
            x = augmented(x, padding=max(1, x.shape[-1] // 8), flip=dataset.flip, generator=generator)
        yield x, dataset.train_y[chosen]


def augmented(x: Tensor, *, padding: int, flip: bool, generator: torch.Generator | None = None) -> Tensor:
    """Each image of [batch, channels, height, width], cropped at a random place of its zero-padded self, and mirrored with
    probability 1/2 if `flip`. One gather on the device: no transfer to the host."""
    count, channels, height, width = x.shape
    device = x.device

    def offsets() -> Tensor:
        return torch.randint(0, 2 * padding + 1, (count, 1), generator=generator, device=device)

    rows = offsets() + torch.arange(height, device=device)
    columns = offsets() + torch.arange(width, device=device)
    if flip:
        mirrored = torch.rand(count, 1, generator=generator, device=device) < 0.5
        columns = torch.where(mirrored, columns.flip(1), columns)
    image = torch.arange(count, device=device)[:, None, None, None]
    channel = torch.arange(channels, device=device)[None, :, None, None]
    padded = F.pad(x, (padding,) * 4)
    return padded[image, channel, rows[:, None, :, None], columns[:, None, None, :]]
