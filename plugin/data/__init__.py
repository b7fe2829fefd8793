"""Data sets are values: built-in ones, and anybody's own, from arrays, files, folders and functions."""

from plugin.data.arrays import from_arrays
from plugin.data.batches import batches
from plugin.data.catalogue import find, list_datasets, load
from plugin.data.dataset import Dataset
from plugin.data.named import NamedData, dataset
from plugin.data.ranges import COMPUTED, Computed
from plugin.data.splits import hold_back, stratified_part

__all__ = [
    "COMPUTED",
    "Computed",
    "Dataset",
    "NamedData",
    "batches",
    "dataset",
    "find",
    "from_arrays",
    "hold_back",
    "list_datasets",
    "load",
    "stratified_part",
]
