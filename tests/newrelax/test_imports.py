"""Rooms import one way: the order is read from `newrelax/README.md`, a ← b where b imports a."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import REPOSITORY

PACKAGE = REPOSITORY / "newrelax"


def order() -> dict[str, int]:
    """A room's or module's place in the README's chain: what it may import has a smaller one."""
    (said,) = re.findall(
        r"^Imports run one way \(.*?\): (.*?)← command lines", (PACKAGE / "README.md").read_text(), re.M | re.S
    )
    return {name: i for i, names in enumerate(said.split("←")) for name in re.findall(r"`(\w+)(?:\.py)?`", names)}


def room(file: Path) -> str:
    return file.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imported(file: Path, *, later: bool) -> Iterator[str]:
    """Names of modules that a file imports; later: also those that its functions import once they are called."""
    tree = ast.parse(file.read_text())
    for node in ast.walk(tree) if later else tree.body:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}: imports are absolute"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


FILES = sorted(PACKAGE.rglob("*.py"))
ORDER = order()


@pytest.fixture(scope="module")
def uses() -> dict[str, set[str]]:
    """For each room or module: the others that it imports when it is imported itself."""
    found: dict[str, set[str]] = {}
    for file in FILES:
        parts = [name.split(".") for name in imported(file, later=False)]
        found.setdefault(room(file), set()).update(part[1] for part in parts if part[0] == "newrelax" and part[1:])
    return found


def test_the_readme_names_every_room(uses: dict[str, set[str]]) -> None:
    assert {path.name for path in PACKAGE.iterdir() if (path / "__init__.py").is_file()} <= set(ORDER)
    assert set(ORDER) <= set(uses)


@pytest.mark.parametrize("name", ORDER)
def test_a_room_imports_those_before_it(name: str, uses: dict[str, set[str]]) -> None:
    """Or what stands in no room, such as errors; then that imports no room."""
    before = {other for other in ORDER if ORDER[other] < ORDER[name]}
    apart = uses[name] - set(ORDER)
    assert uses[name] - apart - {name} <= before
    assert not any(uses[other] & set(ORDER) for other in apart)


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(PACKAGE)))
def test_no_file_imports_a_package_that_builds_on_this_one(file: Path) -> None:
    assert not {name.split(".")[0] for name in imported(file, later=True)} & {"plugin", "experiments", "tests"}
