"""The order of bounds in some single weights of a network, each looked at from a point of its own."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain, zip_longest

from torch import Tensor

from plugin.analysis.directions import jitter, single_weights
from plugin.analysis.order import CURVED, LADDERS, LINEAR, SMALLEST, UNRESOLVED, Bounds, Ladder, Shape, classify, order
from plugin.analysis.records import WeightOrder
from plugin.analysis.weights import Closure, WeightSpace

DISPLACEMENT = 0.01
"""Orders are measured this far from the weights (in root mean squares of each parameter), each weight at a point of its
own: regularised training parks dead neurons at l = u = 0, where every step, however small, crosses a crowd of kinks."""
SEEDS_APART = 10007
"""Between the random points of two seeds: no two weights share one."""
REACHES = (1, 4, 16)
"""Multiples of the smallest smooth step at which degrees are measured: high orders show at large steps, where there is
no kink in the way. A kink hides orders, it makes none."""


@dataclass(frozen=True)
class Weight:
    """A single weight: the number of its parameter, and its place in the flat parameter."""

    parameter: int
    index: int


def weight_orders(space: WeightSpace, bounds: Closure, count: int, seed: int, budget: int | None) -> list[WeightOrder]:
    """The orders of bounds in random weights, `count` from each parameter of two or more dimensions.

    A degree above 2 is looked for in the first curved weight of each parameter only: it costs as much again.

    Args:
        bounds: gives a tensor of bounds at the present weights.
        budget: evaluations, overshot by those of one weight; one weight is always tried.
    """
    result: list[WeightOrder] = []
    measured: set[int] = set()
    started = space.evaluations
    for weight in in_turns([Weight(*each) for each in single_weights(space.base, count, seed)]):
        if budget is not None and result and space.evaluations - started >= budget:
            break
        noise = jitter(space.base, seed * SEEDS_APART + len(result))
        space.displace([DISPLACEMENT * n for n in noise])
        space.move(noise, 0.0)
        found = _weight_order(space, bounds, weight, with_degree=weight.parameter not in measured)
        space.displace(None)
        space.home()
        if found.curved:
            measured.add(weight.parameter)
        result.append(found)
    return result


def in_turns(weights: Sequence[Weight]) -> list[Weight]:
    """One weight of each parameter, then another of each, and so on: a short budget covers all parameters."""
    groups: dict[int, list[Weight]] = {}
    for weight in weights:
        groups.setdefault(weight.parameter, []).append(weight)
    return [weight for weight in chain.from_iterable(zip_longest(*groups.values())) if weight is not None]


def _weight_order(space: WeightSpace, bounds: Closure, weight: Weight, *, with_degree: bool) -> WeightOrder:
    """The order in one weight, from where the space has been displaced to."""

    def bounds_at(change: float) -> Tensor:
        space.move_one(weight.parameter, weight.index, change)
        return space.evaluate(bounds).flatten()

    base = space.base[weight.parameter]
    scale = float(base.double().square().mean().sqrt()) or 1.0
    ladder = LADDERS[base.dtype] if base.dtype in LADDERS else next(iter(LADDERS.values()))
    shape = classify(bounds_at, scale, ladder)
    return _record(weight, shape, scale, ladder, _degree(bounds_at, shape, scale, with_degree))


def _degree(bounds_at: Bounds, shape: Shape, scale: float, measure: bool) -> int | None:
    """The degree of the curved bounds, at least 2; 1 where all are straight, None where nothing was resolved."""
    curved = shape.kind == CURVED
    if not curved.any():
        return 1 if (shape.kind == LINEAR).any() else None
    if not measure:
        return 2
    reach = float(shape.smooth[curved].median())
    inside = curved & (shape.smooth >= reach)
    tries = [order(bounds_at, reach * factor * scale, inside, shape.noise) for factor in REACHES]
    median: float = statistics.median(max(degrees) for degrees in zip(*tries, strict=True))
    return max(2, round(median))


def _record(weight: Weight, shape: Shape, scale: float, ladder: Ladder, degree: int | None) -> WeightOrder:
    curved = shape.kind == CURVED
    size = max(shape.size, SMALLEST)
    return WeightOrder(
        parameter=weight.parameter,
        index=weight.index,
        step=ladder.largest * scale,
        linear=int((shape.kind == LINEAR).sum()),
        curved=int(curved.sum()),
        unresolved=int((shape.kind == UNRESOLVED).sum()),
        order=degree,
        curvature=float(shape.curvature[curved].median()) if curved.any() else 0.0,
        ladder=tuple((h, s / size) for h, s in zip(ladder.steps(), shape.second, strict=True)),
        noise=shape.noise / size,
    )
