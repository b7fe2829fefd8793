"""ReLU relaxations as pure functions, and the methods that are built on them."""

from newrelax.errors import UserError
from newrelax.method import Method
from newrelax.registry import Registry
from newrelax.relaxation import Lines, Relaxation, relaxation

__all__ = ["Lines", "Method", "Registry", "Relaxation", "UserError", "relaxation"]
