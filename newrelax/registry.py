"""Names to methods, and what else plugins bring: the built-in ones, installed packages' and local files'."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from newrelax.errors import UserError
from newrelax.methods.builtin import BUILTIN
from newrelax.methods.method import Method
from newrelax.names import read_spelling, unknown
from newrelax.network.operators.rule import Rule
from newrelax.network.rules import BUILTIN_RULES
from newrelax.plugins import load_all

BUILTIN_SOURCE = "newrelax (built-in)"


class Registry(Mapping[str, Method]):
    """An immutable map of names to methods; `get_method` also takes parameters."""

    def __init__(
        self,
        entries: Sequence[tuple[str, Method]],
        rules: Sequence[tuple[str, Rule]] = (),
        extensions: Sequence[tuple[str, Any]] = (),
    ) -> None:
        """Args: (source, method) pairs, in the order in which names are listed; (source, rule) pairs for operators beside the
            built-in ones; (source, `newrelax.plugins.Extension`) pairs.

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
        self._extensions = tuple(extensions)

    @property
    def operators(self) -> tuple[Rule, ...]:
        """The rules for operators of torch: the built-in ones, then plugins'."""
        return self._operators

    @property
    def extensions(self) -> tuple[tuple[str, Any], ...]:
        """What else plugins bring, each with its source: `newrelax.plugins.Extension`."""
        return self._extensions

    @classmethod
    def load(cls, plugins: Sequence[Path | str] = ()) -> Registry:
        """Built-in methods, then entry points of installed packages, then files.

        Args:
            plugins: Python files with relaxations, methods, or other nouns at module level.

        Raises:
            UserError: a file or package that cannot be loaded, has nothing to add, or defines a name that exists already.
        """
        found = load_all(plugins)
        return cls(
            [(BUILTIN_SOURCE, method) for method in BUILTIN]
            + [(each.source, method) for each in found for method in each.methods],
            [(each.source, rule) for each in found for rule in each.rules],
            [(each.source, extension) for each in found for extension in each.extensions],
        )

    def including(self, method: Method) -> Registry:
        """The same with a method more, in place of one of its name."""
        others = [(self._sources[name], each) for name, each in self._methods.items() if name != method.name]
        made = Registry([*others, ("given from Python", method)], (), self._extensions)
        made._operators = self._operators
        return made

    def get_method(self, spec: str) -> Method:
        """The method that a spelling such as `IBP-Round:omega=0.5,F=10` names.

        Raises:
            UserError: an unknown name or parameter, or a malformed spelling.
        """
        name, params = read_spelling(spec)
        method = self._methods.get(name)
        if method is None:
            raise unknown("method", name, self)
        numbers = {}
        for key, value in params.items():
            try:
                numbers[key] = float(value)
            except ValueError:
                raise UserError(f"{spec!r}: parameter {key} must be a number, got {value!r}") from None
        return method.with_params(**numbers) if params else method

    def source(self, name: str) -> str:
        """Where the method of that name comes from.

        Raises:
            UserError: an unknown name.
        """
        return self._sources[self.get_method(name).name]

    def is_builtin(self, name: str) -> bool:
        """Whether the method of that name is this package's own. Raises UserError for an unknown one."""
        return self.source(name) == BUILTIN_SOURCE

    def __getitem__(self, name: str) -> Method:
        return self._methods[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._methods)

    def __len__(self) -> int:
        return len(self._methods)


def _checked(rules: Sequence[tuple[str, Rule]]) -> list[Rule]:
    """Rules for operators that none of the built-in ones, or of the others, is for."""
    taken = {name: BUILTIN_SOURCE for rule in BUILTIN_RULES for name in rule.names}
    for source, rule in rules:
        for name in rule.names:
            if name in taken:
                raise UserError(f"{source} has a rule for {name}, but {taken[name]} already has one")
            taken[name] = source
    return [rule for _, rule in rules]
