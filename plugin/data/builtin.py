"""The data sets that come with the project."""

from __future__ import annotations

import torch

from plugin.data.dataset import Dataset
from plugin.data.downloaded import Source, read_cifar10, read_idx, read_svhn
from plugin.data.named import NamedData
from plugin.data.splits import stratified_part

DIGITS_TEST_IMAGES = 360


def load_digits() -> Dataset:
    """scikit-learn's 1,797 handwritten digits, 8×8; a stratified part, always the same, is for testing."""
    from sklearn.datasets import load_digits as read

    bunch = read()
    x = torch.from_numpy(bunch.images).float()[:, None] / 16  # grey levels 0 to 16
    y = torch.from_numpy(bunch.target).long()
    tested = torch.zeros(len(y), dtype=torch.bool)
    tested[stratified_part(y, DIGITS_TEST_IMAGES, seed=0)] = True
    pixels = x[~tested].double()
    return Dataset(
        name="digits",
        train_x=x[~tested],
        train_y=y[~tested],
        test_x=x[tested],
        test_y=y[tested],
        classes=10,
        mean=(pixels.mean().item(),),
        std=(pixels.std().item(),),
    )


_MNIST = Source("mnist", read_idx("MNIST"), "MNIST/raw", (0.1307,), (0.3081,))
_FASHION = Source("fashion-mnist", read_idx("FashionMNIST"), "FashionMNIST/raw", (0.2860,), (0.3530,))
_SVHN = Source("svhn", read_svhn, "", (0.4377, 0.4438, 0.4728), (0.1980, 0.2010, 0.1970))
_CIFAR10 = Source("cifar10", read_cifar10, "cifar-10-batches-py", (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616), flip=True)

BUILTIN: tuple[NamedData, ...] = (
    NamedData("digits", load_digits, "1,797 handwritten digits, 8×8, embedded: no download", eps=0.1, model="CONV"),
    NamedData("mnist", _MNIST.load, "70,000 handwritten digits, 28×28", eps=0.3, model="CONV"),
    NamedData("fashion-mnist", _FASHION.load, "70,000 articles of clothing, 28×28", eps=0.3, model="CONV"),
    NamedData("svhn", _SVHN.load, "99,289 house numbers, 32×32 in colour", eps=8 / 255, model="CONV"),
    NamedData("cifar10", _CIFAR10.load, "60,000 animals and vehicles, 32×32 in colour", eps=8 / 255, model="CONV+"),
)
NAMES: tuple[str, ...] = tuple(each.name for each in BUILTIN)
