"""Smoothings by their names: the built-in ones, and those that plugins bring."""

from __future__ import annotations

from collections.abc import Mapping

from newrelax.names import read_spelling, unknown
from newrelax.registry import BUILTIN_SOURCE, Registry
from plugin.settings.nouns import Named, catalogue, listing
from plugin.training.smoothing.base import Smoothing
from plugin.training.smoothing.controlled import Controlled
from plugin.training.smoothing.pgpe import Pgpe
from plugin.training.smoothing.rgs import Rgs

BUILTIN: tuple[type[Smoothing], ...] = (Rgs, Pgpe, Controlled)


def smoothings(registry: Registry) -> Mapping[str, Named[type[Smoothing]]]:
    """Every smoothing with where it comes from. Raises UserError where two share a name."""
    outside = [(source, each) for source, each in registry.extensions if isinstance(each, type) and issubclass(each, Smoothing)]
    return catalogue("smoothing", [*((BUILTIN_SOURCE, each) for each in BUILTIN), *outside])


def read_smoothing(spelling: str, registry: Registry) -> Smoothing:
    """The smoothing that `NAME:key=value,…` names. Raises UserError for an unknown name or parameter, or a wrong value."""
    name, params = read_spelling(spelling)
    known = smoothings(registry)
    if name not in known:
        raise unknown("smoothing", name, known)
    return known[name].value.read(params, what=f"parameter of smoothing {name}")


def list_smoothings(registry: Registry) -> str:
    """A line for each smoothing: its name with its parameters, what it is, and where those from outside come from."""
    known = smoothings(registry)
    return listing({each.value().label: Named(each.source, each.value.summary()) for each in known.values()})
