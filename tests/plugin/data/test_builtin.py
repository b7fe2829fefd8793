"""Built-in data sets: what is read, and what is said when it cannot be."""

import gzip
import hashlib
import pickle
import struct
import threading
import urllib.error
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
import scipy.io
import torch
from torchvision.datasets import CIFAR10, SVHN, FashionMNIST
from torchvision.datasets import utils as download_utils

from newrelax.errors import UserError
from plugin.data import Dataset, load
from plugin.data.builtin import NAMES


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise urllib.error.URLError("no network")

    monkeypatch.setattr(download_utils.urllib.request, "urlopen", refuse)


def test_digits_are_split_by_class_and_always_alike(digits: Dataset) -> None:
    assert digits.input_shape == (1, 8, 8)
    assert (len(digits.train_y), len(digits.test_y), digits.classes) == (1437, 360, 10)
    assert digits.train_x.dtype == torch.float32
    assert digits.train_y.dtype == torch.int64
    assert digits.train_x.min() == 0
    assert digits.train_x.max() == 1
    share = digits.test_y.bincount() / digits.train_y.bincount()
    assert (share - 360 / 1437).abs().max() < 0.01
    assert digits.mean[0] == pytest.approx(digits.train_x.mean().item(), abs=1e-6)
    assert digits.std[0] == pytest.approx(digits.train_x.std().item(), abs=1e-6)
    again = load("digits", seed=7)
    assert torch.equal(again.test_x, digits.test_x)


def test_digits_train_and_test_share_no_image_by_place(digits: Dataset) -> None:
    from sklearn.datasets import load_digits

    whole = torch.from_numpy(load_digits().images).float().flatten(1) / 16
    parts = torch.cat((digits.train_x, digits.test_x)).flatten(1)
    assert torch.equal(torch.unique(whole, dim=0), torch.unique(parts, dim=0))
    assert len(whole) == len(parts)


def test_mnist_is_the_real_one(mnist: Dataset) -> None:
    assert mnist.train_x.shape == (60000, 1, 28, 28)
    assert mnist.test_x.shape == (10000, 1, 28, 28)
    assert mnist.train_y[:5].tolist() == [5, 0, 4, 1, 9]
    assert mnist.test_y[:5].tolist() == [7, 2, 1, 0, 4]
    assert mnist.train_x.max() == 1
    assert mnist.train_x.mean().item() == pytest.approx(mnist.mean[0], abs=1e-4)
    assert mnist.train_x.std().item() == pytest.approx(mnist.std[0], abs=1e-4)


def write_idx(path: Path, array: np.ndarray) -> None:
    header = struct.pack(">BBBB", 0, 0, 8, array.ndim) + struct.pack(f">{array.ndim}I", *array.shape)
    path.write_bytes(header + array.astype(np.uint8).tobytes())


def write_mnist(folder: Path, images: int = 20) -> np.ndarray:
    raw = folder / "FashionMNIST" / "raw"
    raw.mkdir(parents=True)
    pixels = np.random.default_rng(0).integers(0, 256, (images, 28, 28))
    for prefix in ("train", "t10k"):
        write_idx(raw / f"{prefix}-images-idx3-ubyte", pixels)
        write_idx(raw / f"{prefix}-labels-idx1-ubyte", np.arange(images) % 10)
    return pixels


def test_fashion_mnist_is_read_from_bare_files(tmp_path: Path) -> None:
    pixels = write_mnist(tmp_path)
    dataset = load("fashion-mnist", tmp_path)
    np.testing.assert_allclose(dataset.test_x[:, 0].numpy() * 255, pixels, atol=1e-4)
    assert dataset.train_y.tolist() == [i % 10 for i in range(20)]


def test_truncated_file_is_named_in_one_line(tmp_path: Path) -> None:
    write_mnist(tmp_path)
    path = tmp_path / "FashionMNIST" / "raw" / "t10k-images-idx3-ubyte"
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(UserError, match="fashion-mnist.*cannot be read") as caught:
        load("fashion-mnist", tmp_path)
    assert "\n" not in str(caught.value)


def md5(path: Path) -> str:
    return hashlib.md5(path.read_bytes()).hexdigest()


def test_svhn_is_read_from_its_format(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Small .mat files; torchvision's checksums are replaced by theirs, so that they are still checked."""
    pixels = np.random.default_rng(0).integers(0, 256, (32, 32, 3, 12), dtype=np.uint8)
    labels = np.arange(1, 13)[:, None] % 10
    labels[labels == 0] = 10  # SVHN calls the digit 0 "10"
    sources = {}
    for split in ("train", "test"):
        path = tmp_path / f"{split}_32x32.mat"
        scipy.io.savemat(path, {"X": pixels, "y": labels.astype(np.uint8)})
        sources[split] = ["", path.name, md5(path)]
    monkeypatch.setattr(SVHN, "split_list", sources)
    dataset = load("svhn", tmp_path)
    assert dataset.input_shape == (3, 32, 32)
    assert len(dataset.mean) == 3
    assert not dataset.flip
    assert dataset.train_y.tolist() == [1, 2, 3, 4, 5, 6, 7, 8, 9, 0, 1, 2]
    np.testing.assert_allclose(dataset.test_x[5].numpy() * 255, pixels[..., 5].transpose(2, 0, 1), atol=1e-4)


def test_cifar10_is_read_from_its_format(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Small batch files; torchvision's checksums are replaced by theirs, so that they are still checked."""
    folder = tmp_path / CIFAR10.base_folder
    folder.mkdir()
    rng = np.random.default_rng(0)
    rows = {name: rng.integers(0, 256, (4, 3072), dtype=np.uint8) for name, _ in CIFAR10.train_list + CIFAR10.test_list}

    def write(name: str, content: dict[str, object]) -> list[str]:
        (folder / name).write_bytes(pickle.dumps(content))
        return [name, md5(folder / name)]

    checksums = {name: write(name, {"data": row, "labels": [3, 1, 4, 1]}) for name, row in rows.items()}
    monkeypatch.setattr(CIFAR10, "train_list", [checksums[name] for name, _ in CIFAR10.train_list])
    monkeypatch.setattr(CIFAR10, "test_list", [checksums[name] for name, _ in CIFAR10.test_list])
    meta = write("batches.meta", {"label_names": [str(i) for i in range(10)]})
    monkeypatch.setattr(CIFAR10, "meta", {"filename": meta[0], "key": "label_names", "md5": meta[1]})
    dataset = load("cifar10", tmp_path)
    assert dataset.train_x.shape == (20, 3, 32, 32)
    assert dataset.flip
    assert dataset.classes == 10
    np.testing.assert_allclose(dataset.test_x[2].flatten().numpy() * 255, rows["test_batch"][2], atol=1e-4)
    assert dataset.test_y.tolist() == [3, 1, 4, 1]


@pytest.mark.parametrize("name", NAMES[1:])
def test_offline_names_data_set_folder_and_way_out(name: str, tmp_path: Path, offline: None, capfd) -> None:
    folder = tmp_path / "absent" / "data"
    with pytest.raises(UserError) as caught:
        load(name, folder)
    message = str(caught.value)
    assert name in message
    assert str(folder) in message
    assert "--dataset digits" in message
    assert "\n" not in message
    assert not (tmp_path / "absent").exists()
    assert capfd.readouterr() == ("", "")


class QuietHandler(SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def served(folder: Path) -> Iterator[str]:
    """The address of a web server on this machine that hands out the files of `folder`."""
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(QuietHandler, directory=str(folder))) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()


def test_absent_data_is_downloaded_into_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_mnist(tmp_path / "server")
    raw = tmp_path / "server" / "FashionMNIST" / "raw"
    for path in list(raw.iterdir()):
        (raw / f"{path.name}.gz").write_bytes(gzip.compress(path.read_bytes()))
        path.unlink()
    resources = [(name, md5(raw / name)) for name, _ in FashionMNIST.resources]
    monkeypatch.setattr(FashionMNIST, "resources", resources)
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with served(raw) as address:
        monkeypatch.setattr(FashionMNIST, "mirrors", [address])
        dataset = load("fashion-mnist", tmp_path / "data")
    assert len(dataset.train_y) == 20
    assert {path.name for path in (tmp_path / "data").iterdir()} == {"FashionMNIST"}
