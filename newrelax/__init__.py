"""Convex relaxations of networks: bounds of any linear function of their outputs, and relaxations of one's own."""

from newrelax.bounds import bounds, certify
from newrelax.errors import UserError
from newrelax.methods.method import Method
from newrelax.network.operators.rule import composed, operator
from newrelax.propagations.base import Propagation
from newrelax.registry import Registry
from newrelax.relaxations.base import Lines, Relaxation, relaxation

__all__ = [
    "Lines",
    "Method",
    "Propagation",
    "Registry",
    "Relaxation",
    "UserError",
    "bounds",
    "certify",
    "composed",
    "operator",
    "relaxation",
]
