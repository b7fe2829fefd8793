"""Data sets from package.module:factory: what a factory may give, and how it may fail."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch

from newrelax.errors import UserError
from plugin.data import Dataset, load

FACTORIES = '''
from __future__ import annotations

import torch

from plugin.data import dataset, from_arrays

LABELS = torch.arange(8) % 2


def rows(features: int = 3, data_dir=None, *, seed: int = 0):
    """Rows."""
    x = torch.rand(8, features) + seed
    return x, LABELS, x, LABELS


def mapping(scale: float = 1.0):
    x = torch.linspace(0, scale, 32).view(8, 1, 2, 2)
    return {"x_train": x, "y_train": LABELS, "x_test": x, "y_test": LABELS, "data_range": (0, 2), "class_names": ["no", "yes"]}


def finished():
    return from_arrays("theirs", *rows())


class Made:
    def __new__(cls, features: int = 2):
        return rows(features)


@dataset("registered", eps=0.1)
def registered(points: int = 4):
    x = torch.rand(points, 1)
    return x, LABELS[:points], x, LABELS[:points]


def fails():
    raise ValueError("no such\\n  table")


def module(layer: torch.nn.Module | None = None):
    return rows()


def bad_labels():
    return rows()[0], LABELS + 1, rows()[0], LABELS


def nothing():
    pass


'''


@pytest.fixture
def importable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Modules that can be imported in this test only."""
    (tmp_path / "someones_package").mkdir()
    (tmp_path / "someones_package" / "factories.py").write_text(FACTORIES)
    monkeypatch.syspath_prepend(tmp_path)
    for name in ("someones_package", "someones_package.factories"):
        monkeypatch.delitem(sys.modules, name, raising=False)


def from_factory(call: str, seed: int = 0) -> Dataset:
    return load(f"someones_package.factories:{call}", seed=seed)


@pytest.mark.usefixtures("importable")
def test_a_factory_may_give_tuples_mappings_and_data_sets() -> None:
    rows = from_factory("rows:features=5", seed=10)
    assert (rows.name, rows.input_shape) == ("someones_package.factories:rows", (5,))
    assert rows.train_x.min() >= 10
    mapping = from_factory("mapping:scale=2")
    assert (mapping.data_range, mapping.class_names, mapping.train_x.max()) == ((0.0, 2.0), ("no", "yes"), 2)
    assert from_factory("finished").name == "theirs"
    assert from_factory("Made").input_shape == (2,)
    assert from_factory("module").input_shape == (3,)
    registered = from_factory("registered:points=6")
    assert (registered.name, len(registered.train_x)) == ("registered", 6)


@pytest.mark.usefixtures("importable")
def test_what_a_factory_draws_follows_the_seed_and_moves_nobodys_stream() -> None:
    before = torch.get_rng_state()
    drawn = [from_factory("registered", seed=seed).train_x for seed in (0, 0, 1)]
    assert torch.equal(drawn[0], drawn[1])
    assert not torch.equal(drawn[0], drawn[2])
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize(
    ("call", "expected"),
    [
        ("fails", r"its factory failed \(ValueError: no such table\)"),
        ("bad_labels", "y_train has labels up to 2, but none is 0"),
        ("nothing", "expected a Dataset, .* got NoneType"),
        ("row", "has no 'row'; did you mean rows"),
    ],
)
@pytest.mark.usefixtures("importable")
def test_a_factory_that_fails_is_one_line(call: str, expected: str) -> None:
    with pytest.raises(UserError, match=f"data set someones_package.factories:{call.partition(':')[0]}.*{expected}") as caught:
        from_factory(call)
    assert "\n" not in str(caught.value)
