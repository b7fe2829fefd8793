"""Small data sets that several files look at."""

import pytest

from plugin.data import Dataset, load


@pytest.fixture(scope="session")
def digits() -> Dataset:
    """The embedded digits. Tests must not change its tensors."""
    return load("digits")
