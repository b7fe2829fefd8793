"""How strongly, and in how complicated a way, do a loss and its bounds react to small weight changes?"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from plugin.analysis.directions import layer_directions
from plugin.analysis.records import Direction, Sensitivity, WeightOrder
from plugin.analysis.weight_orders import weight_orders
from plugin.analysis.weights import Closure, WeightSpace

SLOPE_STEP = 1e-3
"""Relative weight change of the central differences for slopes."""
CURVED_LIMIT = 0.05
"""Share of curved bounds, in the parameter where it is largest, from which the bounds do not count as piecewise linear.
Piecewise-linear bounds give 0 but for coincidences of kinks."""
RESOLVED_LIMIT = 20
"""Bounds that must have been resolved, straight or curved, for a verdict."""
SMALLEST_LOSS = 1e-300
"""What relative slopes are divided by where the loss is 0."""


def sensitivity(
    loss: Closure,
    params: Sequence[Tensor],
    directions: Sequence[Direction],
    *,
    bounds: Closure | None = None,
    step: Sequence[Tensor] | None = None,
    weights_per_parameter: int = 8,
    seed: int = 0,
    names: Sequence[str] | None = None,
    budget: int | None = None,
) -> Sensitivity:
    """Slopes of a loss, what its gradient leaves unpredicted, and the order of bounds in single weights.

    The verdict `insensitive` holds when at most CURVED_LIMIT of the resolved bounds are curved in every parameter.
    The parameters are restored bit for bit and random streams stay as they were.

    Figures:
        slope: mean over directions of |loss(θ + hd) − loss(θ − hd)| / 2h, h = 1e-3: loss per unit of relative change.
        unpredicted: |loss(θ + s) − loss(θ) − ∇loss · s| / |loss(θ + s) − loss(θ)| for the step s; no unit.
        order, curved_share: see plugin.analysis.order; random weights, equally many from each parameter of two or more
            dimensions, each against all bounds at once. A curved bound is not piecewise linear in that weight.

    Args:
        loss: gives a scalar that depends on `params`.
        bounds: gives a tensor of bounds (margins, not a loss: cross-entropy is curved by itself); `loss` where absent.
        directions: for slopes, scaled so that t = 1 is a relative weight change of 1.
        step: a change of the weights, such as the optimiser's last step; it needs parameters with gradients.
        names: of the parameters, for the slope of each alone.
        budget: evaluations for the orders; fewer weights are tried when it is short (20 to 33 evaluations a weight).
    """
    with WeightSpace(params) as space:
        here = float(space.evaluate(loss))
        slopes = [_slope(space, loss, direction) for direction in directions]
        named = zip(names or [f"parameter {i}" for i in range(len(params))], layer_directions(space.base, seed), strict=True)
        layers = [(name, _slope(space, loss, direction)) for name, direction in named if direction.norm() > 0]
        change, unpredicted = _step(space, loss, step, here) if step is not None else (None, None)
        orders = weight_orders(space, bounds or loss, weights_per_parameter, seed, budget)
        slope = sum(slopes) / len(slopes) if slopes else 0.0
        share = max(curved_shares(orders).values(), default=0.0)
        resolved = sum(weight.linear + weight.curved for weight in orders)
        return Sensitivity(
            insensitive=None if resolved < RESOLVED_LIMIT and share == 0 else share <= CURVED_LIMIT,
            curved_share=share,
            order=max((weight.order or 1 for weight in orders), default=1),
            slope=slope,
            relative_slope=slope / max(abs(here), SMALLEST_LOSS),
            unpredicted=unpredicted,
            step_change=change,
            layer_slopes=tuple(layers),
            weights=tuple(orders),
            evaluations=space.evaluations,
        )


def weight_slopes(loss: Closure, params: Sequence[Tensor]) -> list[Tensor]:
    """For each parameter, of its shape: the change of the loss per unit of relative change of each single weight.

    That is ∂loss/∂w times the root mean square of the weight's parameter; one backward pass. `.grad` stays as it is.
    """
    with WeightSpace(params) as space:
        _, gradient = space.gradient(loss)
    return [g * p.detach().square().mean().sqrt() for g, p in zip(gradient, params, strict=True)]


def curved_shares(orders: Sequence[WeightOrder]) -> dict[int, float]:
    """For each parameter with resolved bounds, the share of curved ones among them."""
    shares = {}
    for parameter in {weight.parameter for weight in orders}:
        own = [weight for weight in orders if weight.parameter == parameter]
        resolved = sum(weight.linear + weight.curved for weight in own)
        if resolved:
            shares[parameter] = sum(weight.curved for weight in own) / resolved
    return shares


def _slope(space: WeightSpace, loss: Closure, direction: Direction) -> float:
    """|loss(θ + hd) − loss(θ − hd)| / 2h."""
    values = []
    for t in (SLOPE_STEP, -SLOPE_STEP):
        space.move(direction.tensors, t)
        values.append(float(space.evaluate(loss)))
    space.home()
    return abs(values[0] - values[1]) / (2 * SLOPE_STEP)


def _step(space: WeightSpace, loss: Closure, step: Sequence[Tensor], here: float) -> tuple[float, float | None]:
    """The change of the loss over a step, and the share of it that the gradient does not foretell; None without change."""
    space.home()
    _, gradient = space.gradient(loss)
    predicted = sum(float((g.double() * s.double()).sum()) for g, s in zip(gradient, step, strict=True))
    space.move(step, 1.0)
    change = float(space.evaluate(loss)) - here
    space.home()
    return change, abs(change - predicted) / abs(change) if change != 0 else None
