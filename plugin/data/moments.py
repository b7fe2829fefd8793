"""Mean and standard deviation of inputs, for normalisation."""

from __future__ import annotations

import torch
from torch import Tensor

CHUNK = 256  # examples that are held in float64 at a time
CONSTANT = 1e-8  # relative to the mean: below float32's own resolution


def moments(x: Tensor) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation of each channel of images [n, channels, height, width], or of each feature of rows
    [n, features]; 1 in place of the deviation of what is constant, which cannot be divided by."""
    dims = [dim for dim in range(x.ndim) if dim != 1]
    count = x.numel() // x.shape[1]
    total = torch.stack([part.double().sum(dims) for part in x.split(CHUNK)]).sum(0)
    mean = total / count
    centre = mean.view(-1, *[1] * (x.ndim - 2))
    squares = torch.stack([(part.double() - centre).square().sum(dims) for part in x.split(CHUNK)]).sum(0)
    std = (squares / count).sqrt()
    std = torch.where(std > CONSTANT * mean.abs(), std, torch.ones_like(std))
    return tuple(mean.tolist()), tuple(std.tolist())
