"""Data sets in .npz files, and files that hold something else."""

import os
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from newrelax.errors import UserError
from plugin.data import load

KEYS = ("x_train", "y_train", "x_test", "y_test")


def content(**changed: Any) -> dict[str, Any]:
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (20, 3, 5, 4), dtype=np.uint8)
    labels = np.arange(20) % 4
    return {**dict(zip(KEYS, (pixels, labels, pixels[:7], labels[:7]), strict=True)), **changed}


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed], ids=["plain", "compressed"])
def test_archive_is_read(tmp_path: Path, save: Callable[..., None]) -> None:
    path = tmp_path / "mine.npz"
    whole = content(author=np.array("somebody"))
    save(path, **whole)
    dataset = load(str(path))
    assert (dataset.name, dataset.classes, dataset.data_range) == ("mine", 4, (0.0, 1.0))
    assert torch.equal(dataset.train_x, torch.from_numpy(whole["x_train"]).float() / 255)
    assert dataset.test_y.tolist() == [0, 1, 2, 3, 0, 1, 2]
    assert dataset.mean == pytest.approx((whole["x_train"] / 255).mean((0, 2, 3)))
    assert dataset.std == pytest.approx((whole["x_train"] / 255).std((0, 2, 3)))


class Trap:
    """Makes a folder when it is unpickled."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[str]]:
        return os.mkdir, (str(self.folder),)


def write_single_array(path: Path) -> None:
    with path.open("wb") as file:
        np.save(file, np.zeros((3, 2)))


def write_objects(path: Path) -> None:
    np.savez(path, **content(x_train=np.array([Trap(path.parent / "sprung")], dtype=object)))


def write_pickle(path: Path) -> None:
    path.write_bytes(pickle.dumps(Trap(path.parent / "sprung")))


def write_other_zip(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        for name in (*KEYS, "notes.txt"):
            archive.writestr(name, "text")


def write_damaged(path: Path) -> None:
    """A byte of compressed pixels is another one."""
    np.savez_compressed(path, **content())
    damaged = bytearray(path.read_bytes())
    damaged[len(damaged) // 2] ^= 0xFF
    path.write_bytes(bytes(damaged))


def write_truncated(path: Path) -> None:
    np.savez(path, **content())
    path.write_bytes(path.read_bytes()[:-200])


REFUSED = {
    "other names": (lambda path: np.savez(path, x=np.zeros(3), y=np.zeros(3)), "but it holds x, y$"),
    "a name missing": (
        lambda path: np.savez(path, **{k: v for k, v in content().items() if k != "y_test"}),
        "x_train, y_train, x_test$",
    ),
    "nothing": (np.savez, "it holds nothing"),
    "a single array": (write_single_array, r"it holds a single array, float64 of shape \(3, 2\)"),
    "objects": (write_objects, "its x_train holds Python objects, which are never unpickled"),
    "a pickle": (write_pickle, r"it is no archive \(pickled data is never loaded\)"),
    "text": (lambda path: path.write_text("x,y\n1,2\n"), "it is no archive"),
    "an empty file": (Path.touch, "it is damaged"),
    "a zip of texts": (write_other_zip, "its x_train is no array but bytes"),
    "a damaged byte": (write_damaged, "it is damaged"),
    "half a file": (write_truncated, "it is damaged"),
}


@pytest.mark.parametrize(("write", "expected"), REFUSED.values(), ids=REFUSED)
def test_another_file_is_one_line_that_says_what_it_holds(
    tmp_path: Path, write: Callable[[Path], object], expected: str
) -> None:
    path = tmp_path / "mine.npz"
    write(path)
    with pytest.raises(UserError, match=expected) as caught:
        load(str(path))
    message = str(caught.value)
    assert message.startswith(f"{path}: expected an .npz archive with the arrays x_train, y_train, x_test, y_test, but ")
    assert "\n" not in message
    assert not (tmp_path / "sprung").exists()


def test_arrays_in_an_archive_are_checked(tmp_path: Path) -> None:
    path = tmp_path / "mine.npz"
    np.savez(path, **content(y_test=np.array([0, 1, 2, 3, 4, 0, 0])))
    with pytest.raises(UserError, match=r"^data set mine: y_test\[4\] is 4, which is no class"):
        load(str(path))


def reference(shared_dir: Path, name: str) -> str:
    path = shared_dir / "data" / name
    if not path.is_file():
        pytest.skip(f"no {name} in the reference data")
    return str(path)


def test_real_images_are_read_and_held_back(shared_dir: Path) -> None:
    dataset = load(reference(shared_dir, "cifar10-jpeg-12k.npz"), validation=0.1)
    assert dataset.validation_y is not None
    assert (len(dataset.train_y), len(dataset.validation_y), len(dataset.test_y)) == (9000, 1000, 2000)
    assert (dataset.input_shape, dataset.classes, dataset.data_range) == ((3, 32, 32), 10, (0.0, 1.0))
    # The same kind of images as CIFAR-10's, whose published figures these are.
    assert dataset.mean == pytest.approx((0.4914, 0.4822, 0.4465), abs=0.01)
    assert dataset.std == pytest.approx((0.2470, 0.2435, 0.2616), abs=0.01)


def test_real_images_without_splits_are_refused(shared_dir: Path) -> None:
    with pytest.raises(UserError, match="x_test, y_test, but it holds x, y$"):
        load(reference(shared_dir, "cifar10-lossless-200.npz"))
