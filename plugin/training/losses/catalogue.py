"""Losses by their names: the built-in ones, and those that plugins bring."""

from __future__ import annotations

from collections.abc import Mapping

from newrelax.methods.method import Method
from newrelax.names import read_spelling, unknown
from newrelax.registry import BUILTIN_SOURCE, Registry
from plugin.settings.nouns import Named, catalogue, listing
from plugin.training.losses.adversarial import Adversarial
from plugin.training.losses.base import Loss
from plugin.training.losses.cc import CC
from plugin.training.losses.certified import Certified
from plugin.training.losses.exp import Exp
from plugin.training.losses.fused import Fused
from plugin.training.losses.mtl import MTL
from plugin.training.losses.natural import Natural
from plugin.training.losses.sabr import SABR
from plugin.training.losses.staps import STAPS
from plugin.training.losses.taps import TAPS

BUILTIN: tuple[type[Loss], ...] = (Natural, Certified, Fused, Adversarial, MTL, CC, Exp, SABR, TAPS, STAPS)


def losses(registry: Registry) -> Mapping[str, Named[type[Loss]]]:
    """Every loss with where it comes from; capitals tell them apart. Raises UserError where two share a name."""
    outside = [(source, each) for source, each in registry.extensions if isinstance(each, type) and issubclass(each, Loss)]
    return catalogue("loss", [*((BUILTIN_SOURCE, each) for each in BUILTIN), *outside], capitals=True)


def read_loss(spelling: str, registry: Registry) -> Loss:
    """The loss that `NAME:key=value,…` names. Raises UserError for an unknown name or parameter, or a wrong value."""
    name, params = read_spelling(spelling)
    known = losses(registry)
    if name not in known:
        raise unknown("loss", name, known)
    return known[name].value.read(params, what=f"parameter of loss {name}")


def default_loss(method: Method) -> str:
    """What a method trains with unless `--loss` says otherwise."""
    return {"none": Natural.name, "attack": Adversarial.name}.get(method.propagation.name, Certified.name)


def list_losses(registry: Registry) -> str:
    """A line for each loss: its name with its parameters, what it is, and where those from outside come from."""
    known = losses(registry)
    return listing({each.value().spelling(quiet=True): Named(each.source, each.value.summary()) for each in known.values()})
