"""Exact answers about piecewise linear networks."""
