"""Data sets in folders of pictures, one folder for each class, as torchvision's ImageFolder reads them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import torch

from newrelax.errors import UserError, one_line
from newrelax.names import nearest
from plugin.data.arrays import from_arrays
from plugin.data.dataset import Dataset
from plugin.data.pictures import first_picture, read_pictures

WNIDS = "wnids.txt"  # TinyImageNet's list of classes, by which its layout is told
LAYOUT = "train/ and test/ or val/ with a folder of pictures for each class, or TinyImageNet's wnids.txt, train/ and val/"


class Labelled(NamedTuple):
    """Paths of pictures, and the class of each."""

    paths: list[Path]
    labels: list[int]


def read_folder(folder: Path) -> Dataset:
    """The data set in a folder with train/ and test/, val/ or both (val/ is then for validation), or in TinyImageNet's layout.

    Pictures are RGB, whatever their files hold; classes are numbered in the order of their names.

    Raises:
        UserError: another layout, a class that training lacks or that has no pictures, a picture that cannot be read, or
            pictures of several sizes.
    """
    if (folder / WNIDS).is_file():
        return _tiny_imagenet(folder)
    parts = [part for part in ("train", "test", "val") if (folder / part).is_dir()]
    if "train" not in parts or len(parts) == 1:
        held = ", ".join(sorted(path.name for path in folder.iterdir())[:5]) or "nothing"
        raise UserError(f"folder {folder}: expected {LAYOUT}; it holds {held}")
    classes = _class_names(folder / "train")
    found = [_class_folders(folder / part, classes) for part in parts]
    return _dataset(folder, classes, found, flip=False)


def _tiny_imagenet(folder: Path) -> Dataset:
    """TinyImageNet: train/WNID/images/*.JPEG, and val/images/*.JPEG with their classes in val_annotations.txt.

    Its test pictures have no labels: val is what one tests on.
    """
    classes = sorted(_lines(folder / WNIDS))
    train = _class_folders(folder / "train", classes)
    listing = folder / "val" / "val_annotations.txt"
    annotated = [line.split("\t") for line in _lines(listing)]
    for fields in annotated:
        if len(fields) < 2 or fields[1] not in classes:
            raise UserError(f"{listing}: expected a picture and one of the classes of {WNIDS} on each line, got {fields[:2]}")
    numbers = {name: number for number, name in enumerate(classes)}
    test = Labelled(
        [folder / "val" / "images" / fields[0] for fields in annotated], [numbers[fields[1]] for fields in annotated]
    )
    return _dataset(folder, classes, [train, test], flip=True)


def _dataset(folder: Path, classes: Sequence[str], parts: Sequence[Labelled], *, flip: bool) -> Dataset:
    """parts: training, test, and validation where there is one."""
    first = first_picture(parts[0].paths[0])
    arrays = [array for part in parts for array in (read_pictures(part.paths, first), torch.tensor(part.labels))]
    x_validation, y_validation = arrays[4:] or (None, None)
    return from_arrays(
        folder.resolve().name,
        *arrays[:4],
        x_validation=x_validation,
        y_validation=y_validation,
        class_names=classes,
        flip=flip,
    )


def _class_names(folder: Path) -> list[str]:
    names = sorted(entry.name for entry in folder.iterdir() if entry.is_dir())
    if not names:
        raise UserError(f"folder {folder}: expected a folder of pictures for each class, found no folder")
    return names


def _class_folders(folder: Path, classes: Sequence[str]) -> Labelled:
    """The pictures of a folder of class folders, in ImageFolder's order."""
    from torchvision.datasets.folder import IMG_EXTENSIONS, make_dataset

    present = _class_names(folder)
    for name in present:
        if name not in classes:
            raise UserError(f"folder {folder / name}: class {name!r} is not among those of training{nearest(name, classes)}")
    numbers = {name: number for number, name in enumerate(classes) if name in present}
    found = make_dataset(folder, numbers, extensions=IMG_EXTENSIONS, allow_empty=True)
    labels = [number for _, number in found]
    for name in set(numbers) - {classes[number] for number in labels}:
        raise UserError(f"folder {folder / name}: expected pictures ({', '.join(IMG_EXTENSIONS)}), found none")
    return Labelled([Path(path) for path, _ in found], labels)


def _lines(path: Path) -> list[str]:
    try:
        lines = [line.strip() for line in path.read_text().splitlines()]
    except (OSError, UnicodeDecodeError) as problem:
        raise UserError(f"{path} cannot be read ({one_line(problem)})") from problem
    return [line for line in lines if line]
