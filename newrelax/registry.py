"""Names to methods: the built-in ones, installed packages' and local files'."""

from __future__ import annotations

import difflib
import hashlib
import importlib.util
import sys
from collections.abc import Iterator, Mapping, Sequence
from importlib.metadata import entry_points
from pathlib import Path
from types import ModuleType

from newrelax.errors import UserError
from newrelax.methods.builtin import BUILTIN
from newrelax.methods.method import Method
from newrelax.network.operators.rule import Rule
from newrelax.network.rules import BUILTIN_RULES
from newrelax.relaxations.base import Relaxation

_BUILTIN_SOURCE = "newrelax (built-in)"

ENTRY_POINT_GROUP = "newrelax.relaxations"


class Registry(Mapping[str, Method]):
    """An immutable map of names to methods; `get_method` also takes parameters."""

    def __init__(self, entries: Sequence[tuple[str, Method]], rules: Sequence[tuple[str, Rule]] = ()) -> None:
        """Args: (source, method) pairs, in the order in which names are listed; (source, rule) pairs for operators beside the
            built-in ones.

        Raises:
            UserError: two entries share a name (capitals do not tell names apart).
        """
        self._methods: dict[str, Method] = {}
        self._sources: dict[str, str] = {}
        taken: dict[str, str] = {}
        for source, method in entries:
            earlier = taken.get(method.name.lower())
            if earlier is not None:
                raise UserError(
                    f"{source} defines {method.name!r}, but {self._sources[earlier]} already has "
                    f"{earlier!r}; give the relaxation another name"
                )
            taken[method.name.lower()] = method.name
            self._methods[method.name] = method
            self._sources[method.name] = source
        self._operators = (*BUILTIN_RULES, *_checked(rules))

    @property
    def operators(self) -> tuple[Rule, ...]:
        """The rules for operators of torch: the built-in ones, then plugins'."""
        return self._operators

    @classmethod
    def load(cls, plugins: Sequence[Path | str] = ()) -> Registry:
        """Built-in methods, then entry points of installed packages, then files.

        Args:
            plugins: Python files, each with relaxations or methods at module level.

        Raises:
            UserError: a file or package that cannot be loaded, has no
                relaxation, or defines a name that exists already.
        """
        entries = [(_BUILTIN_SOURCE, method) for method in BUILTIN]
        rules: list[tuple[str, Rule]] = []
        for point in entry_points(group=ENTRY_POINT_GROUP):
            source = f"entry point {point.name!r} ({point.value})"
            try:
                loaded = point.load()
            except Exception as error:
                raise UserError(
                    f"{source} cannot be loaded: {type(error).__name__}: {error}; repair or uninstall that package"
                ) from error
            methods, found = _collect(loaded, source)
            entries += [(source, method) for method in methods]
            rules += [(source, rule) for rule in found]
        for path in dict.fromkeys(Path(plugin).expanduser().resolve() for plugin in plugins):
            methods, found = _collect(_import_file(path), str(path))
            entries += [(str(path), method) for method in methods]
            rules += [(str(path), rule) for rule in found]
        return cls(entries, rules)

    def get_method(self, spec: str) -> Method:
        """The method that a spelling such as ``IBP-Round:omega=0.5,F=10`` names.

        Raises:
            UserError: an unknown name or parameter, or a malformed spelling.
        """
        name, colon, text = spec.strip().partition(":")
        method = self._methods.get(name)
        if method is None:
            spelled = {known.lower(): known for known in self}
            close = difflib.get_close_matches(name.lower(), spelled, n=3, cutoff=0.7)
            hint = f"; did you mean {' or '.join(spelled[key] for key in close)}?" if close else ""
            raise UserError(f"unknown method {name!r}{hint} (known: {', '.join(self)})")
        return method.with_params(**_parse_params(spec, text)) if colon else method

    def source(self, name: str) -> str:
        """Where the method of that name comes from.

        Raises:
            UserError: an unknown name.
        """
        return self._sources[self.get_method(name).name]

    def is_builtin(self, name: str) -> bool:
        """Whether the method of that name is this package's own. Raises UserError for an unknown one."""
        return self.source(name) == _BUILTIN_SOURCE

    def __getitem__(self, name: str) -> Method:
        return self._methods[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._methods)

    def __len__(self) -> int:
        return len(self._methods)


def _parse_params(spec: str, text: str) -> dict[str, float]:
    params: dict[str, float] = {}
    for part in text.split(","):
        key, equals, value = (piece.strip() for piece in part.partition("="))
        if not equals or not key:
            raise UserError(f"expected NAME:key=number,key=number, got {spec!r}")
        if key in params:
            raise UserError(f"{spec!r} gives parameter {key!r} twice")
        try:
            params[key] = float(value)
        except ValueError:
            raise UserError(f"{spec!r}: parameter {key} must be a number, got {value!r}") from None
    return params


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
        raise UserError(f"plugin file {path} cannot be loaded: {type(error).__name__}: {error}") from error
    return module


def _checked(rules: Sequence[tuple[str, Rule]]) -> list[Rule]:
    """Rules for operators that none of the built-in ones, or of the others, is for."""
    taken = {name: _BUILTIN_SOURCE for rule in BUILTIN_RULES for name in rule.names}
    for source, rule in rules:
        for name in rule.names:
            if name in taken:
                raise UserError(f"{source} has a rule for {name}, but {taken[name]} already has one")
            taken[name] = source
    return [rule for _, rule in rules]


def _collect(loaded: object, source: str) -> tuple[list[Method], list[Rule]]:
    """The methods and operators' rules that a module, or a value, contributes.

    What a plugin merely imports from the built-in ones is not its own.
    """
    values = list(vars(loaded).values()) if isinstance(loaded, ModuleType) else [loaded]
    foreign = {id(method) for method in BUILTIN} | {id(rule) for rule in BUILTIN_RULES}
    foreign |= {id(relaxation) for method in BUILTIN for relaxation in method.relaxations}
    own = {id(value): value for value in values if id(value) not in foreign}.values()
    methods = [value for value in own if isinstance(value, Method)]
    named = {method.name for method in methods}
    methods += [Method.from_relaxation(value) for value in own if isinstance(value, Relaxation) and value.name not in named]
    rules = [value for value in own if isinstance(value, Rule)]
    if not methods and not rules:
        raise UserError(
            f"{source} has nothing to add: expected a function with @newrelax.relaxation(NAME), a newrelax.Method, or an "
            "operator's rule (@newrelax.operator, @newrelax.composed) at module level"
        )
    return methods, rules
