"""Data sets as tensors on the training device; shuffling and augmentation happen there, without worker processes."""

import os
import socket
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from newrelax.errors import UserError

DOWNLOAD_TIMEOUT = 10.0  # seconds without an answer before a server counts as absent
DIGITS_TEST_IMAGES = 360
CLASSES = 10  # in every data set here


@dataclass(frozen=True)
class Dataset:
    """A classification data set, whole, on one device.

    train_x, test_x: float32 pixels in [0, 1], (images, channels, height, width);
    train_y, test_y: int64 classes, (images,);
    mean, std: of the training pixels, one number a channel, for normalisation inside the model;
    flip: whether a mirrored image is still of its class (so that augmentation may mirror it).
    """

    name: str
    train_x: Tensor
    train_y: Tensor
    test_x: Tensor
    test_y: Tensor
    classes: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    flip: bool = False

    @property
    def input_shape(self) -> tuple[int, int, int]:
        """(channels, height, width) of one image."""
        channels, height, width = self.train_x.shape[1:]
        return channels, height, width


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
    """

    read: Callable[[Path, bool], RawSplits]
    location: str
    mean: tuple[float, ...]
    std: tuple[float, ...]
    flip: bool = False


def _read_idx(class_name: str) -> Callable[[Path, bool], RawSplits]:
    def read(folder: Path, download: bool) -> RawSplits:
        import torchvision.datasets as catalogue

        splits: list[np.ndarray] = []
        for train in (True, False):
            part = getattr(catalogue, class_name)(str(folder), train=train, download=download)
            splits += [part.data.numpy()[:, None], part.targets.numpy()]
        return RawSplits(*splits)

    return read


def _read_svhn(folder: Path, download: bool) -> RawSplits:
    from torchvision.datasets import SVHN

    splits: list[np.ndarray] = []
    for split in ("train", "test"):
        part = SVHN(str(folder), split=split, download=download)
        splits += [part.data, part.labels]
    return RawSplits(*splits)


def _read_cifar10(folder: Path, download: bool) -> RawSplits:
    from torchvision.datasets import CIFAR10

    splits: list[np.ndarray] = []
    for train in (True, False):
        part = CIFAR10(str(folder), train=train, download=download)
        splits += [part.data.transpose(0, 3, 1, 2), np.asarray(part.targets)]
    return RawSplits(*splits)


SOURCES: Mapping[str, Source] = MappingProxyType(
    {
        "mnist": Source(_read_idx("MNIST"), "MNIST/raw", (0.1307,), (0.3081,)),
        "fashion-mnist": Source(_read_idx("FashionMNIST"), "FashionMNIST/raw", (0.2860,), (0.3530,)),
        "svhn": Source(_read_svhn, "", (0.4377, 0.4438, 0.4728), (0.1980, 0.2010, 0.1970)),
        "cifar10": Source(_read_cifar10, "cifar-10-batches-py", (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616), flip=True),
    }
)
NAMES: tuple[str, ...] = ("digits", *SOURCES)


def load(
    name: str,
    data_dir: Path | str = "data",
    device: torch.device | str = "cpu",
    *,
    limit_train: int | None = None,
    seed: int = 0,
) -> Dataset:
    """The data set `name` (one of NAMES) on `device`; downloaded into `data_dir` when it is not there.

    limit_train: keep a stratified part of this many training images, drawn with `seed`; mean and std stay those of
    the whole set, so that models for different parts see the same inputs.
    Raises UserError for an unknown name, a data set neither present nor downloadable, damaged files, or
    limit_train < 1.
    """
    if limit_train is not None and limit_train < 1:
        raise UserError(f"limit-train: expected at least 1 training image, got {limit_train}")
    if name == "digits":
        train_x, train_y, test_x, test_y = _digits()
        pixels = train_x.double()
        mean, std, flip = (pixels.mean().item(),), (pixels.std().item(),), False
    elif name in SOURCES:
        source = SOURCES[name]
        train_x, train_y, test_x, test_y = _tensors(_read(name, source, Path(data_dir).expanduser()))
        mean, std, flip = source.mean, source.std, source.flip
    else:
        raise UserError(f"unknown data set {name!r}: expected one of {', '.join(NAMES)}")
    if limit_train is not None and limit_train < len(train_y):
        kept = stratified_part(train_y, limit_train, seed)
        train_x, train_y = train_x[kept], train_y[kept]
    return Dataset(
        name=name,
        train_x=train_x.to(device),
        train_y=train_y.to(device),
        test_x=test_x.to(device),
        test_y=test_y.to(device),
        classes=CLASSES,
        mean=mean,
        std=std,
        flip=flip,
    )


def stratified_part(labels: Tensor, count: int, seed: int) -> Tensor:
    """Ascending indices of `count` of the `labels` (on the CPU), drawn with `seed`, each class in proportion.

    Shares are rounded by largest remainder (ties to the smaller class number), so the sum is exactly `count`.
    """
    sizes = torch.bincount(labels)
    quotas = sizes.double() * count / len(labels)
    shares = quotas.floor().long()
    remainders = quotas - shares
    for label in torch.argsort(remainders, descending=True, stable=True)[: count - int(shares.sum())]:
        shares[label] += 1
    generator = torch.Generator().manual_seed(seed)
    parts = []
    for label, share in enumerate(shares.tolist()):
        members = (labels == label).nonzero().flatten()
        parts.append(members[torch.randperm(len(members), generator=generator)[:share]])
    return torch.cat(parts).sort().values


def batches(
    dataset: Dataset, batch_size: int, generator: torch.Generator | None = None, augment: bool = False
) -> Iterator[tuple[Tensor, Tensor]]:
    """One epoch of shuffled training batches (x, y) on the data set's device; the last one may be smaller.

    generator: on the data set's device (None: that device's global stream). Order and augmentation are drawn from it
    alone, the order before the first batch, the augmentation as each batch is made.
    augment: random crops from the zero-padded image, and mirroring where the data set allows it.
    """
    device = dataset.train_x.device
    order = torch.randperm(len(dataset.train_y), generator=generator, device=device)
    for start in range(0, len(order), batch_size):
        chosen = order[start : start + batch_size]
        x = dataset.train_x[chosen]
        if augment:
            x = augmented(x, padding=max(1, x.shape[-1] // 8), flip=dataset.flip, generator=generator)
        yield x, dataset.train_y[chosen]


def augmented(x: Tensor, *, padding: int, flip: bool, generator: torch.Generator | None = None) -> Tensor:
    """Each image (batch, channels, height, width) cropped at a random place of its zero-padded self, and mirrored
    with probability 1/2 if `flip`. One gather on the device: no transfer to the host."""
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


def _digits() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """scikit-learn's 1,797 handwritten digits, 8×8; a stratified part, always the same, is for testing."""
    from sklearn.datasets import load_digits

    bunch = load_digits()
    x = torch.from_numpy(bunch.images).float()[:, None] / 16  # grey levels 0 to 16
    y = torch.from_numpy(bunch.target).long()
    tested = torch.zeros(len(y), dtype=torch.bool)
    tested[stratified_part(y, DIGITS_TEST_IMAGES, seed=0)] = True
    return x[~tested], y[~tested], x[tested], y[tested]


def _tensors(raw: RawSplits) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    train_x, train_y, test_x, test_y = (torch.from_numpy(np.ascontiguousarray(part)) for part in raw)
    return train_x.float() / 255, train_y.long(), test_x.float() / 255, test_y.long()


def _read(name: str, source: Source, folder: Path) -> RawSplits:
    try:
        return source.read(folder, False)
    except ImportError:
        raise
    except Exception as problem:  # a damaged file fails wherever its parser happens to be
        if "not found" not in str(problem):  # torchvision's word for files that are absent or fail their checksum
            raise UserError(
                f"data set {name}: a file in {folder / source.location} cannot be read ({_one_line(problem)}); "
                "if it is damaged, delete it to download it again"
            ) from problem
    try:
        _download(source, folder)
        return source.read(folder, False)
    except Exception as problem:
        raise UserError(
            f"data set {name} is not in {folder / source.location} and could not be downloaded "
            f"({_one_line(problem)}): put its files there, name another --data-dir, or use --dataset digits"
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


def _one_line(problem: BaseException) -> str:
    """The last cause's own words, without torchvision's line breaks."""
    words = str(problem).split()
    text = " ".join(words) or type(problem).__name__
    return text if len(text) <= 160 else text[:157] + "..."
