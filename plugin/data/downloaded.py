"""Data sets that torchvision knows, read from its files, which are downloaded when they are not there."""

from __future__ import annotations

import os
import socket
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from newrelax.errors import UserError, one_line
from plugin.data.dataset import Dataset
from plugin.data.words import refusal

DOWNLOAD_TIMEOUT = 10.0  # seconds without an answer before a server counts as absent
CLASSES = 10  # in every data set here


class RawSplits(NamedTuple):
    """As the files hold it: images uint8, (images, channels, height, width); labels integers, (images,)."""

    train_x: np.ndarray
    train_y: np.ndarray
    test_x: np.ndarray
    test_y: np.ndarray


@dataclass(frozen=True)
class Source:
    """A data set that torchvision knows.

    read: (folder, download) -> raw splits; raises when a file is absent or damaged.
    location: where in the data folder its files lie, for messages.
    mean, std: of the training pixels, one number a channel, as published.
    flip: whether a mirrored image is still of its class.
    """

    name: str
    read: Callable[[Path, bool], RawSplits]
    location: str
    mean: tuple[float, ...]
    std: tuple[float, ...]
    flip: bool = False

    def load(self, *, data_dir: Path) -> Dataset:
        """The data set, downloaded into `data_dir` when it is not there.

        Raises:
            UserError: neither present nor downloadable, or damaged files.
        """
        raw = _read(self, data_dir.expanduser())
        train_x, train_y, test_x, test_y = (torch.from_numpy(np.ascontiguousarray(part)) for part in raw)
        return Dataset(
            name=self.name,
            train_x=train_x.float() / 255,
            train_y=train_y.long(),
            test_x=test_x.float() / 255,
            test_y=test_y.long(),
            classes=CLASSES,
            mean=self.mean,
            std=self.std,
            flip=self.flip,
        )


def read_idx(class_name: str) -> Callable[[Path, bool], RawSplits]:
    """The reader of MNIST, or of a data set in its format, by torchvision's name of it."""

    def read(folder: Path, download: bool) -> RawSplits:
        import torchvision.datasets as catalogue

        splits: list[np.ndarray] = []
        for train in (True, False):
            part = getattr(catalogue, class_name)(str(folder), train=train, download=download)
            splits += [part.data.numpy()[:, None], part.targets.numpy()]
        return RawSplits(*splits)

    return read


def read_svhn(folder: Path, download: bool) -> RawSplits:
    """SVHN's cropped digits."""
    from torchvision.datasets import SVHN

    splits: list[np.ndarray] = []
    for split in ("train", "test"):
        part = SVHN(str(folder), split=split, download=download)
        splits += [part.data, part.labels]
    return RawSplits(*splits)


def read_cifar10(folder: Path, download: bool) -> RawSplits:
    """CIFAR-10 in its Python version."""
    from torchvision.datasets import CIFAR10

    splits: list[np.ndarray] = []
    for train in (True, False):
        part = CIFAR10(str(folder), train=train, download=download)
        splits += [part.data.transpose(0, 3, 1, 2), np.asarray(part.targets)]
    return RawSplits(*splits)


def _read(source: Source, folder: Path) -> RawSplits:
    try:
        return source.read(folder, False)
    except ImportError:
        raise
    except Exception as problem:  # a damaged file fails wherever its parser happens to be
        if "not found" not in str(problem):  # torchvision's word for files that are absent or fail their checksum
            raise refusal(
                source.name,
                f"a file in {folder / source.location} cannot be read ({one_line(problem)}); "
                "if it is damaged, delete it to download it again",
            ) from problem
    try:
        _download(source, folder)
        return source.read(folder, False)
    except Exception as problem:
        raise UserError(
            f"data set {source.name} is not in {folder / source.location} and could not be downloaded "
            f"({one_line(problem)}): put its files there, name another --data-dir, or use --dataset digits"
        ) from problem


def _download(source: Source, folder: Path) -> None:
    """Download beside the final place, then move file by file, so that an interrupted download leaves nothing behind
    that looks complete."""
    created = [parent for parent in (folder, *folder.parents) if not parent.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with tempfile.TemporaryDirectory(dir=folder, prefix=".download-") as staging, _impatient():
            source.read(Path(staging), True)
            for file in sorted(Path(staging).rglob("*")):
                if file.is_file():
                    target = folder / file.relative_to(staging)
                    target.parent.mkdir(parents=True, exist_ok=True)
                    os.replace(file, target)
    except BaseException:
        for directory in created:
            if not any(directory.iterdir()):
                directory.rmdir()
        raise


@contextmanager
def _impatient() -> Iterator[None]:
    """torchvision waits for ever for a silent server; there is no other way to tell it than the process's default."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(DOWNLOAD_TIMEOUT)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)
