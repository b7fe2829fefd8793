"""How strongly, and in how complicated a way, do a loss and its bounds react to small weight changes?"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence

from torch import Tensor

from plugin.analysis.directions import jitter, layer_directions, single_weights
from plugin.analysis.order import CURVED, LADDERS, LINEAR, UNRESOLVED, classify, order
from plugin.analysis.records import Direction, Sensitivity, WeightOrder
from plugin.analysis.weights import WeightSpace

SLOPE_STEP = 1e-3
"""Relative weight change of the central differences for slopes."""
CURVED_LIMIT = 0.05
"""Share of curved bounds, in the parameter where it is largest, from which the bounds do not count as piecewise linear.
Piecewise-linear bounds give 0 but for coincidences of kinks."""
DISPLACEMENT = 0.01
"""Orders are measured this far from the weights (in root mean squares of each parameter), each weight at a point of its
own: regularised training parks dead neurons at l = u = 0, where every step, however small, crosses a crowd of kinks."""
RESOLVED_LIMIT = 20
"""Bounds that must have been resolved, straight or curved, for a verdict."""


def sensitivity(
    loss: Callable[[], Tensor],
    params: Sequence[Tensor],
    directions: Sequence[Direction],
    *,
    bounds: Callable[[], Tensor] | None = None,
    step: Sequence[Tensor] | None = None,
    weights_per_parameter: int = 8,
    seed: int = 0,
    names: Sequence[str] | None = None,
    budget: int | None = None,
) -> Sensitivity:
    """Slopes of a loss, what its gradient leaves unpredicted, and the order of bounds in single weights.

    loss: gives a scalar that depends on `params`. bounds: gives a tensor of bounds (margins, not a loss: cross-entropy
    is curved by itself); `loss` where absent. directions: for slopes, scaled so that t = 1 is a relative weight change
    of 1. step: a change of the weights, such as the optimiser's last step; it needs parameters with gradients.
    budget: evaluations for the orders; fewer weights are tried when it is short (20 to 33 evaluations a weight).

    Figures:
      slope: mean over directions of |loss(θ + hd) − loss(θ − hd)| / 2h, h = 1e-3: loss per unit of relative change.
      unpredicted: |loss(θ + s) − loss(θ) − ∇loss · s| / |loss(θ + s) − loss(θ)| for the step s; no unit.
      order, curved_share: see plugin.analysis.order; random weights, equally many from each parameter of two or more
        dimensions, each against all bounds at once. A curved bound is not piecewise linear in that weight.

    The verdict `insensitive` holds when at most CURVED_LIMIT of the resolved bounds are curved in every parameter.
    The parameters are restored bit for bit and random streams stay as they were.
    """
    with WeightSpace(params) as space:
        here = float(space.evaluate(loss))
        slopes = [_slope(space, loss, d) for d in directions]
        names = list(names) if names is not None else [f"parameter {i}" for i in range(len(params))]
        layers = [
            (n, _slope(space, loss, d)) for n, d in zip(names, layer_directions(space.base, seed), strict=False) if d.norm() > 0
        ]
        change, unpredicted = _step(space, loss, step, here) if step is not None else (None, None)
        orders = _orders(space, bounds or loss, weights_per_parameter, seed, budget)
        slope = sum(slopes) / len(slopes) if slopes else 0.0
        shares = _shares(orders)
        resolved = sum(w.linear + w.curved for w in orders)
        share = max(shares.values(), default=0.0)
        return Sensitivity(
            insensitive=None if resolved < RESOLVED_LIMIT and share == 0 else share <= CURVED_LIMIT,
            curved_share=share,
            order=max((w.order or 1 for w in orders), default=1),
            slope=slope,
            relative_slope=slope / max(abs(here), 1e-300),
            unpredicted=unpredicted,
            step_change=change,
            layer_slopes=tuple(layers),
            weights=tuple(orders),
            evaluations=space.evaluations,
        )


def weight_slopes(loss: Callable[[], Tensor], params: Sequence[Tensor]) -> list[Tensor]:
    """Per parameter, its shape: the change of the loss per unit of relative change of each single weight.

    That is ∂loss/∂w times the root mean square of the weight's parameter; one backward pass. `.grad` stays as it is.
    """
    with WeightSpace(params) as space:
        _, gradient = space.gradient(loss)
    return [g * p.detach().square().mean().sqrt() for g, p in zip(gradient, params, strict=False)]


def _slope(space: WeightSpace, loss: Callable[[], Tensor], direction: Direction) -> float:
    values = []
    for t in (SLOPE_STEP, -SLOPE_STEP):
        space.move(direction.tensors, t)
        values.append(float(space.evaluate(loss)))
    space.home()
    return abs(values[0] - values[1]) / (2 * SLOPE_STEP)


def _step(space: WeightSpace, loss: Callable[[], Tensor], step: Sequence[Tensor], here: float) -> tuple[float, float | None]:
    space.home()
    _, gradient = space.gradient(loss)
    predicted = sum(float((g.double() * s.double()).sum()) for g, s in zip(gradient, step, strict=False))
    space.move(step, 1.0)
    change = float(space.evaluate(loss)) - here
    space.home()
    return change, abs(change - predicted) / abs(change) if change != 0 else None


def _shares(orders: Sequence[WeightOrder]) -> dict[int, float]:
    """Per parameter, the share of curved bounds among the resolved ones."""
    shares = {}
    for parameter in {w.parameter for w in orders}:
        own = [w for w in orders if w.parameter == parameter]
        resolved = sum(w.linear + w.curved for w in own)
        if resolved:
            shares[parameter] = sum(w.curved for w in own) / resolved
    return shares


def _orders(space: WeightSpace, bounds: Callable[[], Tensor], count: int, seed: int, budget: int | None) -> list[WeightOrder]:
    result: list[WeightOrder] = []
    chosen = single_weights(space.base, count, seed)
    # Round robin over the parameters, so that a short budget covers all of them.
    groups: dict[int, list[tuple[int, int]]] = {}
    for weight in chosen:
        groups.setdefault(weight[0], []).append(weight)
    depth = max(len(g) for g in groups.values())
    queue = [g[i] for i in range(depth) for g in groups.values() if i < len(g)]
    measured: set[int] = set()
    started = space.evaluations
    for parameter, index in queue:
        if budget is not None and result and space.evaluations - started >= budget:
            break
        base = space.base[parameter]
        noise = jitter(space.base, seed * 10007 + len(result))
        space.displace([DISPLACEMENT * n for n in noise])
        space.move(noise, 0.0)
        scale = float(base.double().square().mean().sqrt()) or 1.0
        ladder = LADDERS[base.dtype] if base.dtype in LADDERS else next(iter(LADDERS.values()))

        def at(change: float) -> Tensor:
            space.move_one(parameter, index, change)
            return space.evaluate(bounds).flatten()

        shape = classify(at, scale, ladder)
        curved = shape.kind == CURVED
        degree = None if not curved.any() else 2
        if not curved.any() and (shape.kind == LINEAR).any():
            degree = 1
        if curved.any() and parameter not in measured:
            # Divided differences once per parameter: they cost as much as the second differences again.
            measured.add(parameter)
            reach = float(shape.smooth[curved].median())
            inside = curved & (shape.smooth >= reach)
            # High orders show at large steps, where there is no kink in the way; a kink hides orders, it makes none.
            tries = [order(at, reach * factor * scale, inside, shape.noise) for factor in (1, 4, 16)]
            degree = max(2, round(statistics.median(max(found) for found in zip(*tries, strict=False))))
        space.displace(None)
        space.home()
        result.append(
            WeightOrder(
                parameter=parameter,
                index=index,
                step=ladder.largest * scale,
                linear=int((shape.kind == LINEAR).sum()),
                curved=int(curved.sum()),
                unresolved=int((shape.kind == UNRESOLVED).sum()),
                order=degree,
                curvature=float(shape.curvature[curved].median()) if curved.any() else 0.0,
                ladder=tuple((h, s / max(shape.size, 1e-300)) for h, s in zip(ladder.steps(), shape.second, strict=False)),
                noise=shape.noise / max(shape.size, 1e-300),
            )
        )
    return result
