"""Folders of pictures: torchvision's ImageFolder is the judge of how they are read."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.datasets import ImageFolder

from newrelax.errors import UserError
from plugin.data import Dataset, load


def draw(path: Path, seed: int, size: tuple[int, int] = (6, 4), mode: str = "RGB") -> None:
    """A picture of noise, of that width and height."""
    width, height = size
    shape = (height, width) if mode in ("L", "P") else (height, width, len(mode))
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8), "L" if mode == "P" else mode).convert(
        mode
    ).save(path)


def pictures(folder: Path, *parts: str, classes: tuple[str, ...] = ("bird", "cat", "ant")) -> Path:
    """Three pictures of each class in each part."""
    for p, part in enumerate(parts):
        for c, name in enumerate(classes):
            for i in range(3):
                draw(folder / part / name / f"{i}.png", seed=100 * p + 10 * c + i)
    return folder


def as_image_folder_reads(folder: Path) -> tuple[torch.Tensor, list[int], list[str]]:
    found = ImageFolder(str(folder))
    pixels = [torch.from_numpy(np.array(picture)).permute(2, 0, 1) for picture, _ in found]
    return torch.stack(pixels).float() / 255, [label for _, label in found], found.classes


def assert_read_alike(x: torch.Tensor | None, y: torch.Tensor | None, folder: Path) -> None:
    expected, labels, _ = as_image_folder_reads(folder)
    assert x is not None and y is not None
    assert torch.equal(x, expected)
    assert y.tolist() == labels


@pytest.mark.parametrize("part", ["test", "val"])
def test_pictures_are_read_as_image_folder_reads_them(tmp_path: Path, part: str) -> None:
    pictures(tmp_path / "animals", "train", part)
    dataset = load(str(tmp_path / "animals"))
    assert_read_alike(dataset.train_x, dataset.train_y, tmp_path / "animals" / "train")
    assert_read_alike(dataset.test_x, dataset.test_y, tmp_path / "animals" / part)
    assert (dataset.name, dataset.classes, dataset.class_names) == ("animals", 3, ("ant", "bird", "cat"))
    assert (dataset.input_shape, dataset.data_range, dataset.flip) == ((3, 4, 6), (0.0, 1.0), False)
    assert dataset.validation_x is None


def test_val_beside_test_is_for_validation(tmp_path: Path) -> None:
    dataset = load(str(pictures(tmp_path, "train", "test", "val")))
    assert_read_alike(dataset.test_x, dataset.test_y, tmp_path / "test")
    assert_read_alike(dataset.validation_x, dataset.validation_y, tmp_path / "val")


@pytest.mark.parametrize(
    ("name", "mode"),
    [("grey.png", "L"), ("palette.png", "P"), ("see-through.png", "RGBA"), ("photo.JPEG", "RGB"), ("deep/er/grey.bmp", "L")],
    ids=lambda value: str(value),
)
def test_every_kind_of_picture_becomes_rgb(tmp_path: Path, name: str, mode: str) -> None:
    pictures(tmp_path, "train", "test")
    draw(tmp_path / "train" / "cat" / name, seed=7, mode=mode)
    (tmp_path / "train" / "cat" / "notes.txt").write_text("no picture")
    dataset = load(str(tmp_path))
    assert len(dataset.train_x) == 10
    assert_read_alike(dataset.train_x, dataset.train_y, tmp_path / "train")


def test_test_part_may_lack_a_class(tmp_path: Path) -> None:
    pictures(tmp_path, "train")
    pictures(tmp_path, "test", classes=("cat",))
    assert load(str(tmp_path)).test_y.tolist() == [2, 2, 2]


def move(source: str, target: str) -> Callable[[Path], object]:
    return lambda folder: (folder / source).rename(folder / target)


REFUSED: dict[str, tuple[Callable[[Path], object], str]] = {
    "a class that training lacks": (
        move("test/cat", "test/cta"),
        "/test/cta: class 'cta' is not among those of training; .*cat",
    ),
    "two sizes": (
        lambda folder: draw(folder / "train" / "cat" / "1.png", 0, size=(5, 8)),
        "several sizes: .*/train/ant/0.png is 6×4, .*/train/cat/1.png is 5×8;",
    ),
    "another size in test": (
        lambda folder: draw(folder / "test" / "bird" / "2.png", 0, size=(4, 6)),
        "several sizes: .*/train/ant/0.png is 6×4, .*/test/bird/2.png is 4×6;",
    ),
    "text for a picture": (
        lambda folder: (folder / "train" / "bird" / "1.png").write_text("no picture"),
        "^picture .*/train/bird/1.png cannot be read",
    ),
    "half a picture": (
        lambda folder: (folder / "test" / "ant" / "0.png").write_bytes((folder / "test/ant/0.png").read_bytes()[:60]),
        "^picture .*/test/ant/0.png cannot be read",
    ),
    "a class without pictures": (
        lambda folder: (folder / "train" / "dog").mkdir(),
        "/train/dog: expected pictures .* found none",
    ),
    "no test part": (move("test", "tset"), "expected train/ and test/ or val/ .* it holds train, tset"),
    "no training part": (move("train", "val"), "expected train/ and test/ or val/ .* it holds test, val"),
}


@pytest.mark.parametrize(("change", "expected"), REFUSED.values(), ids=REFUSED)
def test_what_is_amiss_in_a_folder_is_one_line_with_its_path(
    tmp_path: Path, change: Callable[[Path], object], expected: str
) -> None:
    change(pictures(tmp_path, "train", "test"))
    with pytest.raises(UserError, match=expected) as caught:
        load(str(tmp_path))
    assert "\n" not in str(caught.value)


def test_a_part_without_class_folders_is_refused(tmp_path: Path) -> None:
    pictures(tmp_path, "train")
    draw(tmp_path / "test" / "0.png", seed=0)
    with pytest.raises(UserError, match="/test: expected a folder of pictures for each class, found no folder"):
        load(str(tmp_path))


WNIDS = ("n03444034", "n02123045", "n01443537")


@pytest.fixture
def tiny_imagenet(tmp_path: Path) -> Path:
    """TinyImageNet's layout with three classes and small pictures."""
    folder = tmp_path / "tiny-imagenet-200"
    for c, name in enumerate(WNIDS):
        for i in range(4):
            draw(folder / "train" / name / "images" / f"{name}_{i}.JPEG", seed=10 * c + i)
        (folder / "train" / name / f"{name}_boxes.txt").write_text("boxes")
    for i in range(6):
        draw(folder / "val" / "images" / f"val_{i}.JPEG", seed=100 + i)
        draw(folder / "test" / "images" / f"test_{i}.JPEG", seed=200 + i)
    (folder / "wnids.txt").write_text("\n".join(WNIDS) + "\n")
    lines = [f"val_{i}.JPEG\t{WNIDS[i % 3]}\t0\t32\t44\t62" for i in range(6)]
    (folder / "val" / "val_annotations.txt").write_text("\n".join(lines) + "\n")
    return folder


def test_tiny_imagenet_is_read_in_its_own_layout(tiny_imagenet: Path) -> None:
    dataset: Dataset = load(str(tiny_imagenet))
    assert_read_alike(dataset.train_x, dataset.train_y, tiny_imagenet / "train")
    assert dataset.class_names == tuple(sorted(WNIDS))
    assert [dataset.class_names[label] for label in dataset.test_y] == [WNIDS[i % 3] for i in range(6)]
    fourth = np.array(Image.open(tiny_imagenet / "val" / "images" / "val_4.JPEG"))
    assert torch.equal(dataset.test_x[4], torch.from_numpy(fourth).permute(2, 0, 1).float() / 255)
    assert dataset.flip


@pytest.mark.parametrize(
    ("annotations", "expected"),
    [
        pytest.param("val_0.JPEG\tn99999999\t0\t0\t1\t1", "classes of wnids.txt .* 'n99999999'", id="unknown class"),
        pytest.param("val_0.JPEG", "a picture and one of the classes", id="no class"),
        pytest.param(f"val_9.JPEG\t{WNIDS[0]}", "picture .*val_9.JPEG cannot be read", id="unknown picture"),
        pytest.param(None, "val_annotations.txt cannot be read", id="no annotations"),
    ],
)
def test_annotations_that_do_not_fit_are_named(tiny_imagenet: Path, annotations: str | None, expected: str) -> None:
    path = tiny_imagenet / "val" / "val_annotations.txt"
    path.unlink()
    if annotations is not None:
        path.write_text(annotations)
    with pytest.raises(UserError, match=expected):
        load(str(tiny_imagenet))
