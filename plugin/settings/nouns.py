"""Open nouns by their names: what is built in and what plugins bring, without two of one name."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import ClassVar, Generic, NamedTuple, TypeVar

from newrelax.errors import UserError
from newrelax.names import read_spelling, unknown
from newrelax.plugins import Extension
from newrelax.registry import BUILTIN_SOURCE, Registry
from plugin.settings.table import Table, traits

T = TypeVar("T")


class Named(NamedTuple, Generic[T]):
    """A value, and where it comes from in words."""

    source: str
    value: T


def catalogue(kind: str, found: Iterable[tuple[str, T]], *, capitals: bool = False) -> Mapping[str, Named[T]]:
    """The values by their names. Raises UserError where two share one.

    capitals: whether they tell names apart.
    """
    known: dict[str, Named[T]] = {}
    taken: dict[str, str] = {}
    for source, value in found:
        name = str(getattr(value, "name", ""))
        letters = name if capitals else name.lower()
        earlier = taken.get(letters)
        if earlier is not None:
            raise UserError(
                f"{source} defines the {kind} {name!r}, but {known[earlier].source} already has {earlier!r}; "
                "give it another name"
            )
        taken[letters] = name
        known[name] = Named(source, value)
    return known


def listing(lines: Mapping[str, Named[str]]) -> str:
    """Names with a line on each, and where those from outside come from."""
    width = max(map(len, lines))
    return "\n".join(
        f"{name:<{width}}  {text}" + ("" if source == BUILTIN_SOURCE else f"  [{source}]")
        for name, (source, text) in lines.items()
    )


class Noun(Table, Extension):
    """Something that is chosen by `NAME:key=value,…`: a loss, a regulariser, …; its parameters are the class's fields.

    A subclass has a `name`, and a docstring whose first line lists show.
    """

    name: ClassVar[str]

    @property
    def label(self) -> str:
        """Its spelling, with the parameters: `adversarial:steps=10`."""
        return self.spelling()

    def spelling(self, *, quiet: bool = False) -> str:
        """NAME:key=value,… of its own parameters, then of those that it shares. quiet: those left at quiet defaults, too."""
        values, fields = self.to_json(), type(self).model_fields
        own = [name for each in type(self).__mro__ for name in vars(each).get("__annotations__", {}) if name in fields]
        ordered = sorted(dict.fromkeys(own), key=lambda name: traits(fields[name]).quiet)
        shown = [name for name in ordered if quiet or not self._is_quiet(name)]
        params = ",".join(f"{key}={_text(values[key])}" for name in shown if values[key := name.removesuffix("_")] is not None)
        return f"{self.name}:{params}" if params else self.name

    def _is_quiet(self, name: str) -> bool:
        field = type(self).model_fields[name]
        return traits(field).quiet and getattr(self, name) == field.default

    @classmethod
    def summary(cls) -> str:
        """The first line of its docstring."""
        return (cls.__doc__ or cls.name).strip().splitlines()[0]


N = TypeVar("N", bound=Noun)


@dataclass(frozen=True)
class Catalogue(Generic[N]):
    """The nouns of a kind: those that are built in, and those that plugins bring. capitals: whether they tell names apart."""

    kind: str
    base: type[N]
    builtin: tuple[type[N], ...]
    capitals: bool = False

    def known(self, registry: Registry) -> Mapping[str, Named[type[N]]]:
        """Every one with where it comes from. Raises UserError where two share a name."""
        outside = [
            (source, each) for source, each in registry.extensions if isinstance(each, type) and issubclass(each, self.base)
        ]
        found = [*((BUILTIN_SOURCE, each) for each in self.builtin), *outside]
        return catalogue(self.kind, found, capitals=self.capitals)

    def read(self, spelling: str, registry: Registry) -> N:
        """What `NAME:key=value,…` names. Raises UserError for an unknown name or parameter, or a wrong value."""
        name, params = read_spelling(spelling)
        known = self.known(registry)
        if name not in known:
            raise unknown(self.kind, name, known)
        return known[name].value.read(params, what=f"parameter of {self.kind} {name}")

    def listing(self, registry: Registry) -> str:
        """A line for each: its name with its parameters, what it is, and where those from outside come from."""
        known = self.known(registry).values()
        return listing({each.value().spelling(quiet=True): Named(each.source, each.value.summary()) for each in known})


def _text(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
