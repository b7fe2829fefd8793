"""The data set of a run: what it decides before it is loaded, and loading it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from newrelax.registry import Registry
from plugin.data import COMPUTED, Dataset, NamedData, find, hold_back, load
from plugin.data.arrays import with_range
from plugin.data.catalogue import check_known
from plugin.data.splits import limit
from plugin.settings.config import GIVEN, Config
from plugin.settings.types import Range


@dataclass(frozen=True)
class DataTraits:
    """What a data set decides of a run: the default radius and network (None: there is none)."""

    name: str
    eps: float | None = None
    model: str | None = None


def data_traits(spec: str, registry: Registry, shape: tuple[int, ...] | None = None) -> DataTraits:
    """The traits of a named data set, or of data of one's own with inputs of that shape.

    Raises:
        UserError: an unknown name.
    """
    found = find(spec, named(registry))
    if found is not None:
        return DataTraits(spec, found.eps, found.model)
    if spec != GIVEN:
        check_known(spec, named(registry))
    return DataTraits(spec, None, None if shape is None else "CONV" if len(shape) == 3 else "FC")


def named(registry: Registry) -> list[tuple[str, NamedData]]:
    """The data sets that plugins bring, each with its source."""
    return [(source, value) for source, value in registry.extensions if isinstance(value, NamedData)]


def read_range(said: Range) -> Any:
    """The data range of a setting, as `plugin.data.load` takes it."""
    if isinstance(said, str):
        return COMPUTED if said == "data" else None
    return said


def load_dataset(config: Config, registry: Registry, device: torch.device | str) -> Dataset:
    """What `config.dataset` names, on the device. Raises UserError for whatever does not exist or fit."""
    return load(
        config.dataset,
        config.data_dir,
        device,
        limit_train=config.limit_train,
        validation=config.validation,
        seed=config.seed,
        data_range=read_range(config.data_range),
        named=named(registry),
    )


def part_of(dataset: Dataset, config: Config) -> Dataset:
    """A data set that was given as a value, limited and held back as the config says."""
    if config.data_range != "data":
        dataset = with_range(dataset, read_range(config.data_range))
    if config.limit_train is not None:
        dataset = limit(dataset, config.limit_train, config.seed)
    return hold_back(dataset, config.validation, config.seed) if config.validation else dataset
