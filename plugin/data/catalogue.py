"""What people may write after `--dataset`, and the data set that it stands for."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch

from newrelax.arguments import DataRange
from newrelax.errors import UserError
from newrelax.names import nearest, read_spelling
from newrelax.registry import BUILTIN_SOURCE
from plugin.data.archive import read_archive
from plugin.data.arrays import with_range
from plugin.data.builtin import BUILTIN
from plugin.data.dataset import Dataset
from plugin.data.folder import read_folder
from plugin.data.named import NamedData
from plugin.data.ranges import COMPUTED, Computed
from plugin.data.splits import hold_back, limit
from plugin.settings.factories import Factory
from plugin.settings.nouns import Named, catalogue, listing

Extensions = Sequence[tuple[str, object]]
"""What plugins bring, each with its source, as `newrelax.registry.Registry.extensions` gives it."""

ARCHIVE = ".npz"


def datasets(named: Extensions = ()) -> Mapping[str, Named[NamedData]]:
    """Every data set that has a name, the built-in ones first. Raises UserError where two share one."""
    outside = [(source, each) for source, each in named if isinstance(each, NamedData)]
    return catalogue("data set", [*((BUILTIN_SOURCE, each) for each in BUILTIN), *outside])


def find(spec: str, named: Extensions = ()) -> NamedData | None:
    """The named data set that a spelling asks for; None where it is a path, a factory, or unknown."""
    if _path(spec) is not None:
        return None
    found = datasets(named).get(spec.partition(":")[0].strip())
    return None if found is None else found.value


def load(
    spec: str,
    data_dir: Path | str = "data",
    device: torch.device | str = "cpu",
    *,
    limit_train: int | None = None,
    validation: float = 0.0,
    seed: int = 0,
    data_range: DataRange | Computed = COMPUTED,
    named: Extensions = (),
) -> Dataset:
    """The data set that `spec` asks for, on `device`.

    Args:
        spec: a name, `NAME:key=value`; `package.module:factory`, also with parameters; a folder of pictures; or an .npz file.
            An existing path wins over a name if it has a separator or a suffix.
        data_dir: where data sets with a name are looked for, and downloaded to.
        limit_train: keep a stratified part of this many training examples. Mean, std and range stay those of the whole set, so
            that models for different parts see the same inputs.
        validation: the fraction of these that is held back for validation, stratified; 0: none.
        seed: for both parts, and for factories that take it.
        data_range: instead of the data set's own; None: no limits.
        named: data sets that plugins bring.

    Raises:
        UserError: nothing of that name or at that place, or data that cannot be trained with.
    """
    dataset = _read(spec, Path(data_dir), seed, named)
    if not isinstance(data_range, Computed):
        dataset = with_range(dataset, data_range)
    if limit_train is not None:
        dataset = limit(dataset, limit_train, seed)
    if validation:
        dataset = hold_back(dataset, validation, seed)
    return dataset.to(device)


def list_datasets(named: Extensions = ()) -> str:
    """A line for each data set that has a name: its parameters, what it is, and where those from outside come from."""
    return listing({each.value.label: Named(each.source, each.value.summary) for each in datasets(named).values()})


def _read(spec: str, data_dir: Path, seed: int, named: Extensions) -> Dataset:
    path = _path(spec)
    if path is not None:
        return _read_path(path)
    known = datasets(named)
    name = spec.partition(":")[0].strip()
    if name in known:
        return known[name].value.make(read_spelling(spec).params, data_dir=data_dir, seed=seed)
    if ":" not in spec:
        raise _unknown(spec, named)
    factory = Factory.find("data set", spec)
    made = factory.make if isinstance(factory.make, NamedData) else NamedData(factory.name, factory.make)
    return made.make(factory.typed, data_dir=data_dir, seed=seed)


def check_known(spec: str, named: Extensions = ()) -> None:
    """Raises UserError for a spelling that is no name, no path that exists, and no factory; nothing is read."""
    if _path(spec) is None and ":" not in spec and spec.strip() not in datasets(named):
        raise _unknown(spec, named)


def _unknown(spec: str, named: Extensions) -> UserError:
    if os.sep in spec or spec.endswith(ARCHIVE):
        return UserError(f"data set {spec}: expected a folder of pictures or an {ARCHIVE} file, found nothing at that path")
    if Path(spec).is_dir():
        return UserError(f"unknown data set {spec!r}: write {os.path.join(os.curdir, spec)} for the folder of that name")
    known = datasets(named)
    hint = nearest(spec.partition(":")[0], known)
    return UserError(
        f"unknown data set {spec!r}{hint} (known: {', '.join(known)}; others as package.module:factory, a folder of pictures, "
        f"or an {ARCHIVE} file)"
    )


def _path(spec: str) -> Path | None:
    """The existing path that a spelling means, if it means one: a bare word is a name."""
    path = Path(spec).expanduser()
    return path if (os.sep in spec or path.suffix) and path.exists() else None


def _read_path(path: Path) -> Dataset:
    if path.is_dir():
        return read_folder(path)
    if path.suffix == ARCHIVE:
        return read_archive(path)
    raise UserError(
        f"{path}: expected a folder of pictures or an {ARCHIVE} file, got a file that ends in {path.suffix or path.name}"
    )
