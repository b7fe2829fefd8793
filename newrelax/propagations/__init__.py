"""How lines become bounds: one propagation a file."""

from newrelax.propagations.alpha import AlphaPropagation
from newrelax.propagations.backward import BackwardPropagation
from newrelax.propagations.base import Attack, Natural, Propagation
from newrelax.propagations.cauchy import CauchyPropagation, HybridCauchyPropagation
from newrelax.propagations.forward import ForwardPropagation
from newrelax.propagations.hybrid import HybridPropagation
from newrelax.propagations.ibp_backward import IntervalBackwardPropagation
from newrelax.propagations.interval import IntervalPropagation
from newrelax.propagations.random_slopes import RandomSlopesPropagation

BUILTIN_PROPAGATIONS: tuple[Propagation, ...] = (
    Natural(),
    Attack(),
    IntervalPropagation(),
    BackwardPropagation(),
    AlphaPropagation(),
    IntervalBackwardPropagation(),
    ForwardPropagation(),
    HybridPropagation(),
    CauchyPropagation(),
    HybridCauchyPropagation(),
    RandomSlopesPropagation(),
)

__all__ = [
    "BUILTIN_PROPAGATIONS",
    "AlphaPropagation",
    "Attack",
    "BackwardPropagation",
    "CauchyPropagation",
    "ForwardPropagation",
    "HybridCauchyPropagation",
    "HybridPropagation",
    "IntervalBackwardPropagation",
    "IntervalPropagation",
    "Natural",
    "Propagation",
    "RandomSlopesPropagation",
]
