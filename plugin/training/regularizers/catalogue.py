"""Regularisers by their names: the built-in one, and those that plugins bring."""

from __future__ import annotations

from collections.abc import Mapping

from newrelax.names import read_spelling, unknown
from newrelax.registry import BUILTIN_SOURCE, Registry
from plugin.settings.nouns import Named, catalogue, listing
from plugin.training.regularizers.base import Regularizer
from plugin.training.regularizers.shi import Shi

BUILTIN: tuple[type[Regularizer], ...] = (Shi,)


def regularizers(registry: Registry) -> Mapping[str, Named[type[Regularizer]]]:
    """Every regulariser with where it comes from. Raises UserError where two share a name."""
    outside = [
        (source, kind) for source, kind in registry.extensions if isinstance(kind, type) and issubclass(kind, Regularizer)
    ]
    return catalogue("regularizer", [*((BUILTIN_SOURCE, each) for each in BUILTIN), *outside])


def read_regularizer(spelling: str, registry: Registry) -> Regularizer:
    """The regulariser that `NAME:key=value,…` names. Raises UserError for an unknown name or parameter, or a wrong value."""
    name, params = read_spelling(spelling)
    known = regularizers(registry)
    if name not in known:
        raise unknown("regularizer", name, known)
    return known[name].value.read(params, what=f"parameter of regularizer {name}")


def list_regularizers(registry: Registry) -> str:
    """A line for each regulariser: its name with its parameters, what it is, and where those from outside come from."""
    known = regularizers(registry)
    return listing({each.value().label: Named(each.source, each.value.summary()) for each in known.values()})
