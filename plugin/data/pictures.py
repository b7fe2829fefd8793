"""Pictures in files, read as torchvision's ImageFolder reads them, as bytes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from newrelax.errors import UserError, one_line


class Picture(NamedTuple):
    """The first picture of a data set, whose width and height all others must have."""

    path: Path
    width: int
    height: int


def first_picture(path: Path) -> Picture:
    """The picture's size. Raises UserError for one that cannot be read."""
    height, width, _ = _pixels(path).shape
    return Picture(path, width, height)


def read_pictures(paths: Sequence[Path], first: Picture) -> Tensor:
    """The pictures in RGB, bytes [n, 3, height, width].

    Raises:
        UserError: a picture that cannot be read, or one of another size than the first.
    """
    pictures = torch.empty(len(paths), 3, first.height, first.width, dtype=torch.uint8)
    for picture, path in zip(pictures, paths, strict=True):
        pixels = _pixels(path)
        height, width, _ = pixels.shape
        if (width, height) != (first.width, first.height):
            raise UserError(
                f"pictures of several sizes: {first.path} is {first.width}×{first.height}, {path} is {width}×{height}; "
                "bring them to one size first"
            )
        picture.copy_(torch.from_numpy(pixels).permute(2, 0, 1))
    return pictures


def _pixels(path: Path) -> np.ndarray:
    """Bytes [height, width, 3]."""
    from torchvision.datasets.folder import pil_loader

    try:
        return np.array(pil_loader(path))
    except Exception as problem:  # a damaged picture fails wherever its decoder happens to be
        raise UserError(f"picture {path} cannot be read ({one_line(problem)}); replace or remove it") from problem
