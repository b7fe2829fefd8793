"""Certified training with convex relaxations: train, certify and watch."""

from newrelax.bounds import certify

__all__ = ["certify"]
