"""Open nouns by their names: what is built in and what plugins bring, without two of one name."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Generic, NamedTuple, TypeVar

from newrelax.errors import UserError
from newrelax.registry import BUILTIN_SOURCE

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
