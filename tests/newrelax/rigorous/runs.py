"""Networks of linear layers and ReLUs as somebody's device may run them: float32 sums in whatever order."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from fractions import Fraction

import numpy as np
from torch import nn

Order = Callable[[np.ndarray], np.float32]
"""Sums float32 terms."""


def one_by_one(terms: np.ndarray) -> np.float32:
    total = np.float32(0)
    for term in terms:
        total = np.float32(total + term)
    return total


def pairwise(terms: np.ndarray) -> np.float32:
    if len(terms) == 1:
        return np.float32(terms[0])
    half = len(terms) // 2
    return np.float32(pairwise(terms[:half]) + pairwise(terms[half:]))


def by_size(terms: np.ndarray) -> np.float32:
    """The largest first: small ones drown."""
    return one_by_one(terms[np.argsort(-np.abs(terms), kind="stable")])


def alternating(terms: np.ndarray) -> np.float32:
    """All above zero first, then all below: partial sums are as large as they can be."""
    return np.float32(one_by_one(terms[terms > 0]) + one_by_one(terms[terms <= 0]))


def shuffled(seed: int) -> Order:
    return lambda terms: one_by_one(np.random.default_rng(seed).permutation(terms))


ORDERS: dict[str, Order] = {
    "one by one": one_by_one,
    "from the end": lambda terms: one_by_one(terms[::-1]),
    "pairwise": pairwise,
    "by size": by_size,
    "alternating": alternating,
    "shuffled": shuffled(0),
    "numpy's": lambda terms: np.float32(terms.sum(dtype=np.float32)),
}


def layers(model: nn.Sequential) -> Iterator[tuple[np.ndarray, np.ndarray, bool]]:
    """Weight, bias, and whether a ReLU follows."""
    modules = [module for module in model if not isinstance(module, nn.Flatten)]
    for i, module in enumerate(modules):
        if isinstance(module, nn.Linear):
            yield module.weight.detach().numpy(), module.bias.detach().numpy(), i + 1 < len(modules)


def run(model: nn.Sequential, x: np.ndarray, order: Order) -> np.ndarray:
    """The outputs for one flat input, in float32 with sums in that order; the bias is a term like others."""
    for weight, bias, bent in layers(model):
        x = np.array([order(np.append(row * x, constant)) for row, constant in zip(weight, bias, strict=True)], np.float32)
        x = np.maximum(x, np.float32(0)) if bent else x
    return x


def exactly(model: nn.Sequential, x: np.ndarray) -> list[Fraction]:
    """The real-valued network's outputs for one flat input."""
    values = [Fraction(float(value)) for value in x]
    for weight, bias, bent in layers(model):
        values = [
            sum((Fraction(float(w)) * v for w, v in zip(row, values, strict=True)), Fraction(float(constant)))
            for row, constant in zip(weight, bias, strict=True)
        ]
        values = [max(value, Fraction(0)) for value in values] if bent else values
    return values
