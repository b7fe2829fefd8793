"""What comes from outside: installed packages, by their entry points, and local files."""

from __future__ import annotations

import hashlib
import importlib.util
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import entry_points
from pathlib import Path
from types import ModuleType
from typing import Any

from newrelax.errors import UserError, with_type
from newrelax.methods.builtin import BUILTIN
from newrelax.methods.method import Method
from newrelax.network.operators.rule import Rule
from newrelax.network.rules import BUILTIN_RULES
from newrelax.relaxations.base import Relaxation

ENTRY_POINT_GROUP = "newrelax.relaxations"


class Extension:
    """Base of what a plugin may bring beside relaxations, methods and operators.

    A package that builds on this one makes each of its open nouns (a loss, a data set) a subclass. Values and
    subclasses of it at the level of a plugin's module are found; which they are is the noun's own choice.
    Each has a `name`, which people type, and a `__module__`, where it is defined: what a plugin merely imports is not its own.
    """


@dataclass(frozen=True)
class Contribution:
    """What one package or file brings. source: where from, in words."""

    source: str
    methods: tuple[Method, ...]
    rules: tuple[Rule, ...]
    extensions: tuple[Any, ...]


def load_all(files: Sequence[Path | str] = ()) -> list[Contribution]:
    """The contributions of installed packages, then of files.

    Raises:
        UserError: a file or package that cannot be loaded or has nothing to add.
    """
    found = []
    for point in entry_points(group=ENTRY_POINT_GROUP):
        source = f"entry point {point.name!r} ({point.value})"
        try:
            loaded = point.load()
        except Exception as error:
            raise UserError(f"{source} cannot be loaded: {with_type(error)}; repair or uninstall that package") from error
        found.append(_collect(loaded, source))
    for path in dict.fromkeys(Path(file).expanduser().resolve() for file in files):
        found.append(_collect(_import_file(path), str(path)))
    return found


def is_extension(value: object) -> bool:
    """Whether a value, or a class, is an extension; bases of a noun have no name and are none."""
    kind = value if isinstance(value, type) else type(value)
    return issubclass(kind, Extension) and isinstance(getattr(value, "name", None), str)


def _import_file(path: Path) -> ModuleType:
    if not path.is_file():
        raise UserError(f"no plugin file at {path}")
    # Different files of the same stem must not share a module.
    digest = hashlib.sha256(str(path).encode()).hexdigest()[:8]
    name = f"newrelax_plugin_{path.stem}_{digest}"
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise UserError(f"expected a Python file ending in .py, got {path}")
    module = importlib.util.module_from_spec(spec)
    # dataclasses and pickle look their module up while the file is executed.
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except UserError as error:
        del sys.modules[name]
        raise UserError(f"{path}: {error}") from error
    except Exception as error:
        del sys.modules[name]
        raise UserError(f"plugin file {path} cannot be loaded: {with_type(error)}") from error
    return module


def _collect(loaded: object, source: str) -> Contribution:
    """What a module, or a value, contributes; what it merely imports is not its own."""
    values = list(vars(loaded).values()) if isinstance(loaded, ModuleType) else [loaded]
    foreign = {id(method) for method in BUILTIN} | {id(rule) for rule in BUILTIN_RULES}
    foreign |= {id(relaxation) for method in BUILTIN for relaxation in method.relaxations}
    own = list({id(value): value for value in values if id(value) not in foreign}.values())
    methods = [value for value in own if isinstance(value, Method)]
    named = {method.name for method in methods}
    methods += [Method.from_relaxation(value) for value in own if isinstance(value, Relaxation) and value.name not in named]
    rules = [value for value in own if isinstance(value, Rule)]
    extensions = [
        value
        for value in own
        if is_extension(value) and (not isinstance(loaded, ModuleType) or getattr(value, "__module__", "") == loaded.__name__)
    ]
    if not methods and not rules and not extensions:
        raise UserError(
            f"{source} has nothing to add: expected at module level a function with @newrelax.relaxation(NAME), a "
            "newrelax.Method, an operator's rule (@newrelax.operator, @newrelax.composed), or what plugin/README.md lists "
            "(a loss, a data set, a number for TensorBoard)"
        )
    return Contribution(source, tuple(methods), tuple(rules), tuple(extensions))
