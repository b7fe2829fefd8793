"""Data sets under a name: @dataset in a plugin file, its defaults and its parameters."""

from __future__ import annotations

from pathlib import Path

import pytest

from newrelax.errors import UserError
from newrelax.registry import Registry
from plugin.data import NamedData, dataset, find, list_datasets, load

PLUGIN = '''
from pathlib import Path
from typing import Annotated, Literal

import torch
from pydantic import Field

from plugin.data import dataset
from plugin.data.builtin import BUILTIN

digits = BUILTIN[0]  # imported: not this file's own


@dataset("two-moons", eps=0.25, model="FC")
def two_moons(*, points: int = 20, noise: Annotated[float, Field(ge=0)] = 0.1, kind: Literal["a", "b"] = "a",
              grey=False, data_dir: Path = Path("unset"), seed: int = -1):
    """Two half circles.

    More about them."""
    assert isinstance(data_dir, Path), data_dir
    x = torch.full((points, 2), float(seed))
    x[0, 0] = noise + {"a": 0, "b": 10}[kind] + 100 * grey
    y = torch.arange(points) % 2
    return x, y, x, y
'''


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    path = tmp_path / "moons.py"
    path.write_text(PLUGIN)
    return Registry.load([path])


def corner(registry: Registry, spec: str, seed: int = 0) -> tuple[int, float, float]:
    """How many points, and what the function made of its parameters."""
    made = load(spec, named=registry.extensions, seed=seed)
    return len(made.train_x), round(made.train_x[0, 0].item(), 4), made.train_x[1, 0].item()


def test_a_plugin_file_brings_a_data_set_and_its_defaults(registry: Registry) -> None:
    assert [each.name for _, each in registry.extensions] == ["two-moons"]
    found = find("two-moons:points=5", registry.extensions)
    assert isinstance(found, NamedData)
    assert (found.eps, found.model, found.summary) == (0.25, "FC", "Two half circles.")
    made = load("two-moons", named=registry.extensions, limit_train=10, validation=0.2)
    assert (made.name, made.classes, len(made.train_y), len(made.test_y)) == ("two-moons", 2, 8, 20)


def test_list_shows_parameters_and_where_a_data_set_comes_from(registry: Registry, tmp_path: Path) -> None:
    lines = list_datasets(registry.extensions).splitlines()
    assert [line.split()[0] for line in lines[:5]] == ["digits", "mnist", "fashion-mnist", "svhn", "cifar10"]
    assert "[" not in "".join(lines[:5])
    assert lines[5] == f"two-moons:points=20,noise=0.1,kind=a,grey=False  Two half circles.  [{tmp_path / 'moons.py'}]"


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ("two-moons", (20, 0.1, 7)),
        ("two-moons:points=6", (6, 0.1, 7)),
        ("two-moons:noise=0.5,kind=b", (20, 10.5, 7)),
        ("two-moons:grey=yes", (20, 100.1, 7)),
        ("two-moons:seed=3", (20, 0.1, 3)),
        ("two-moons:data_dir=a/b.npz", (20, 0.1, 7)),
    ],
)
def test_parameters_are_converted_by_annotation_and_seed_is_given(
    registry: Registry, spec: str, expected: tuple[int, float, float]
) -> None:
    assert corner(registry, spec, seed=7) == expected


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ("two-moons:pionts=3", "unknown parameter of data set two-moons 'pionts'; did you mean points"),
        ("two-moons:points=many", "data set two-moons: parameter points: expected a valid integer, .* got 'many'"),
        ("two-moons:points=2.5", "parameter points: expected a valid integer.* got '2.5'"),
        ("two-moons:noise=-1", "parameter noise: expected greater than or equal to 0, got '-1'"),
        ("two-moons:kind=c", "parameter kind: expected 'a' or 'b', got 'c'"),
        ("two-moons:grey=perhaps", "parameter grey: expected a valid boolean.* got 'perhaps'"),
        ("two-moons:points", "expected NAME:key=value"),
        ("two-moons:points=3,points=4", "gives parameter 'points' twice"),
        ("two-moon", "unknown data set 'two-moon'; did you mean two-moons"),
        ("digits:points=3", "unknown parameter of data set digits 'points'"),
    ],
)
def test_wrong_parameters_are_one_line(registry: Registry, spec: str, expected: str) -> None:
    with pytest.raises(UserError, match=expected) as caught:
        load(spec, named=registry.extensions)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["digits", "DIGITS"])
def test_a_name_that_exists_is_refused(name: str) -> None:
    taken = dataset(name)(lambda: None)
    with pytest.raises(UserError, match=f"mine.py defines the data set '{name}', but .* already has 'digits'"):
        list_datasets([("mine.py", taken)])


@pytest.mark.parametrize("name", ["", "two moons", "two:moons", "two,moons", "a=b", "a/b"])
def test_a_name_that_cannot_be_typed_is_refused(name: str) -> None:
    with pytest.raises(UserError, match="data set's name without spaces"):
        dataset(name)


def test_other_extensions_are_passed_over() -> None:
    assert find("mine", [("mine.py", object())]) is None


def test_decorated_function_can_still_be_called() -> None:
    @dataset("mine")
    def mine(points: int) -> int:
        return 2 * points

    assert mine(3) == 6
    assert mine.__module__ == __name__
