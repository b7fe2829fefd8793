"""Is a loss a continuous function of the weights?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial

from torch import Tensor

from plugin.analysis.bisection import scan_line
from plugin.analysis.events import Probe, causes
from plugin.analysis.records import Continuity, Direction, Jump, LineScan, machine_epsilon
from plugin.analysis.weights import Closure, WeightSpace

LENGTH = 0.1
"""Default length of a line: the weights change by a tenth of their norm."""
TRACED_JUMPS = 8
"""Jumps, the largest first, whose causes are looked up."""
STEPS_OF_ROUNDING = 64
"""The narrowest interval moves the weights by this many roundings of their own."""
SMALLEST_SHARE = 1e-3
"""Weights that are smaller than this share of what a direction adds to them at t = 1 are taken to be of that size."""
SMALLEST_LOSS = 1e-300
"""What relative figures are divided by where the loss is 0."""


def narrowest_step(parameters: Sequence[Tensor], direction: Direction) -> float:
    """The smallest t that the float type resolves: weights move by 64 machine epsilons of the norm of those moved.

    Raises:
        ValueError: the direction is zero.
    """
    size = direction.norm()
    if size == 0:
        raise ValueError(f"expected a direction other than zero, got {direction.name!r} with norm 0")
    moved = [(p.detach().double(), d) for p, d in zip(parameters, direction.tensors, strict=True) if bool(d.any())]
    weights = float(sum(float(p.square().sum()) for p, _ in moved) ** 0.5)
    if sum(int(d.count_nonzero()) for _, d in moved) == 1:
        # A single weight: its own size counts, not that of its layer.
        parameter, changes = moved[0]
        weights = float(parameter.flatten()[int(changes.flatten().abs().argmax())].abs()) or size
    return STEPS_OF_ROUNDING * machine_epsilon(parameters) * max(weights / size, SMALLEST_SHARE)


def continuity(
    loss: Closure,
    params: Sequence[Tensor],
    directions: Sequence[Direction],
    *,
    length: float = LENGTH,
    grid: int = 16,
    budget: int = 800,
    probe: Probe | None = None,
) -> Continuity:
    """Looks for jumps of a loss along lines θ + t·d, t from −length/2 to length/2.

    Protocol: plugin.analysis.bisection. A jump is a change that stays whole down to the narrowest interval the
    parameters' float type resolves (64 roundings of the weights), exceeds 32 standard deviations of the rounding
    noise measured on the same line, and cannot be explained by the slopes on its two sides. The parameters are
    restored bit for bit and random streams stay as they were; all evaluations run without gradients.

    Args:
        loss: gives a scalar that depends on `params`, which it reads in place.
        directions: scaled so that t = 1 is a relative weight change of 1 (see plugin.analysis.directions); several are
            needed, since one can miss.
        length: of each line. grid: intervals that it is first cut into.
        budget: evaluations of the loss in all, shared evenly between the directions; what one leaves goes to the next.
        probe: pre-activation bounds at the present weights; with it, the largest jumps name the neurons behind them.

    Raises:
        ValueError: no directions, a loss that is not finite, or a budget below the coarse grids.
    """
    if not directions:
        raise ValueError("expected at least one direction, got none")
    epsilon = machine_epsilon(params)
    scans: list[LineScan] = []
    with WeightSpace(params) as space:
        here = float(space.evaluate(loss))
        remaining = budget
        for i, direction in enumerate(directions):
            scan = scan_line(
                partial(_loss_at, space, direction, loss),
                -length / 2,
                length / 2,
                narrowest=narrowest_step(space.base, direction),
                budget=remaining // (len(directions) - i),
                grid=grid,
                epsilon=epsilon,
                name=direction.name,
            )
            if probe is not None:
                scan = _with_causes(scan, space, direction, probe)
            scans.append(scan)
            remaining -= scan.evaluations
    unit = max(abs(here), SMALLEST_LOSS)
    jumps = [abs(j.change) for s in scans for j in s.jumps]
    return Continuity(
        continuous=False if jumps else True if all(s.followed for s in scans) else None,
        loss=here,
        largest_jump=max(jumps, default=0.0) / unit,
        narrowest_change=max(s.narrowest_change for s in scans) / unit,
        jumps_per_unit=len(jumps) / (length * len(directions)),
        resolution=max(s.resolution for s in scans) / unit,
        unexplored=max(s.unexplored for s in scans) / unit,
        scans=tuple(scans),
        evaluations=sum(s.evaluations for s in scans) + 1,
    )


def _loss_at(space: WeightSpace, direction: Direction, loss: Closure, t: float) -> float:
    space.move(direction.tensors, t)
    return float(space.evaluate(loss))


def _layers_at(space: WeightSpace, direction: Direction, probe: Probe, t: float) -> list[tuple[Tensor, Tensor]]:
    space.move(direction.tensors, t)
    layers: list[tuple[Tensor, Tensor]] = []

    def call() -> Tensor:
        layers.extend((lower.detach().clone(), upper.detach().clone()) for lower, upper in probe())
        return layers[0][0].sum()

    space.evaluate(call)
    return layers


def _with_causes(scan: LineScan, space: WeightSpace, direction: Direction, probe: Probe) -> LineScan:
    """The same record, with the neurons behind its largest jumps."""

    def traced(jump: Jump) -> Jump:
        sides = (jump.at - jump.width / 2, jump.at + jump.width / 2)
        before, after = (_layers_at(space, direction, probe, t) for t in sides)
        return replace(jump, causes=causes(before, after))

    return replace(scan, jumps=tuple(traced(jump) for jump in scan.jumps[:TRACED_JUMPS]) + scan.jumps[TRACED_JUMPS:])
