"""Rooms import one way, in the order that `plugin/README.md` gives, a ← b where b imports a; each says what it is for."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from newrelax.registry import Registry
from tests.conftest import REPOSITORY

PACKAGE = REPOSITORY / "plugin"
FILES = sorted(PACKAGE.rglob("*.py"))
ROOMS = sorted(path.parent.name for path in PACKAGE.glob("*/__init__.py"))


def order() -> dict[str, int]:
    """A room's place in the README's chain: what it may import has a smaller one."""
    (said,) = re.findall(
        r"^Imports run one way \(.*?\): (.*?)← command lines", (PACKAGE / "README.md").read_text(), re.M | re.S
    )
    return {name: i for i, names in enumerate(said.split("←")) for name in re.findall(r"`(\w+)`", names)}


ORDER = order()


def imported(node: ast.AST) -> Iterator[str]:
    """Names of modules that are imported anywhere below, but for type checkers only."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.If) and ast.unparse(child.test) == "TYPE_CHECKING":
            continue
        if isinstance(child, ast.Import):
            yield from (alias.name for alias in child.names)
        elif isinstance(child, ast.ImportFrom):
            assert child.level == 0, "imports are absolute"
            yield from (f"{child.module}.{alias.name}" for alias in child.names)
        yield from imported(child)


def uses(file: Path) -> set[tuple[str, ...]]:
    return {tuple(name.split(".")) for name in imported(ast.parse(file.read_text()))}


def test_the_readme_orders_every_room() -> None:
    assert sorted(ORDER) == ROOMS


@pytest.mark.parametrize("room", ROOMS)
def test_a_room_imports_those_before_it_only(room: str) -> None:
    others = {parts[1] for file in (PACKAGE / room).rglob("*.py") for parts in uses(file) if parts[0] == "plugin"} - {room}
    assert others <= {other for other in ORDER if ORDER[other] < ORDER[room]}


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(PACKAGE)))
def test_no_file_imports_what_builds_on_this_package(file: Path) -> None:
    assert not {parts[0] for parts in uses(file)} & {"experiments", "tests"}


@pytest.mark.parametrize("room", [*ROOMS, "training/losses"])
def test_a_room_says_what_it_is_for(room: str) -> None:
    heading, *lines = (PACKAGE / room / "README.md").read_text().splitlines()
    assert heading.startswith("# ")
    assert len(lines) > 5


@pytest.mark.parametrize(
    ("readme", "name"),
    [("training/losses", "hinge"), ("callbacks", "norms/first_layer"), ("data", "two-moons")],
)
def test_the_example_of_a_readme_is_a_plugin(readme: str, name: str, tmp_path: Path) -> None:
    (block,) = re.findall(r"```python\n(.*?)```", (PACKAGE / readme / "README.md").read_text(), re.S)
    (tmp_path / "mine.py").write_text(block)
    assert [each.name for _, each in Registry.load([tmp_path / "mine.py"]).extensions] == [name]
