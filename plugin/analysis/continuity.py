"""Is a loss a continuous function of the weights?"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from torch import Tensor

from plugin.analysis.bisection import scan_line
from plugin.analysis.events import Probe, causes
from plugin.analysis.records import Continuity, Direction, Jump, LineScan, machine_epsilon
from plugin.analysis.weights import WeightSpace

LENGTH = 0.1
"""Default length of a line: the weights change by a tenth of their norm."""
TRACED_JUMPS = 8
"""Jumps, the largest first, whose causes are looked up."""
STEPS_OF_ROUNDING = 64
"""The narrowest interval moves the weights by this many roundings of their own."""


def narrowest_step(parameters: Sequence[Tensor], direction: Direction) -> float:
    """The smallest t that the float type resolves: weights move by 64 machine epsilons of the norm of those moved."""
    moved = [p.detach().double() for p, d in zip(parameters, direction.tensors, strict=False) if bool(d.any())]
    weights = sum(float(p.square().sum()) for p in moved) ** 0.5
    size = direction.norm()
    if size == 0:
        raise ValueError(f"expected a direction other than zero, got {direction.name!r} with norm 0")
    if len(moved) == 1 and (direction_count := int(sum(int(d.count_nonzero()) for d in direction.tensors))) == 1:
        # A single weight: its own size counts, not that of its layer.
        flat = next(d for d in direction.tensors if bool(d.any())).flatten()
        weights = float(moved[0].flatten()[int(flat.abs().argmax())].abs()) or size * direction_count
    return STEPS_OF_ROUNDING * machine_epsilon(list(parameters)) * max(weights / size, 1e-3)


def continuity(
    loss: Callable[[], Tensor],
    params: Sequence[Tensor],
    directions: Sequence[Direction],
    *,
    length: float = LENGTH,
    grid: int = 16,
    budget: int = 800,
    probe: Probe | None = None,
) -> Continuity:
    """Look for jumps of a loss along lines θ + t·d, t from −length/2 to length/2.

    loss: gives a scalar that depends on `params`, which it reads in place. directions: scaled so that t = 1 is a
    relative weight change of 1 (see plugin.analysis.directions); several are needed, since one can miss.
    budget: evaluations of the loss in all, shared evenly between the directions; what one leaves goes to the next.
    probe: pre-activation bounds at the present weights; with it, the largest jumps name the neurons behind them.

    Protocol: plugin.analysis.bisection. A jump is a change that stays whole down to the narrowest interval the
    parameters' float type resolves (64 roundings of the weights), exceeds 32 standard deviations of the rounding
    noise measured on the same line, and cannot be explained by the slopes on its two sides. The parameters are
    restored bit for bit and random streams stay as they were; all evaluations run without gradients.

    Raises ValueError without directions, for a loss that is not finite or for a budget below the coarse grids.
    """
    if not directions:
        raise ValueError("expected at least one direction, got none")
    epsilon = machine_epsilon(list(params))
    scans: list[LineScan] = []
    with WeightSpace(params) as space:
        here = float(space.evaluate(loss))
        remaining = budget
        for i, direction in enumerate(directions):

            def along(t: float) -> float:
                space.move(direction.tensors, t)
                return float(space.evaluate(loss))

            scan = scan_line(
                along,
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
    unit = max(abs(here), 1e-300)
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


def _with_causes(scan: LineScan, space: WeightSpace, direction: Direction, probe: Probe) -> LineScan:
    def at(t: float) -> list[tuple[Tensor, Tensor]]:
        space.move(direction.tensors, t)
        kept: list[tuple[Tensor, Tensor]] = []

        def call() -> Tensor:
            kept.extend((lower.detach().clone(), upper.detach().clone()) for lower, upper in probe())
            return kept[0][0].sum()

        space.evaluate(call)
        return kept

    def traced(jump: Jump) -> Jump:
        return replace(jump, causes=causes(at(jump.at - jump.width / 2), at(jump.at + jump.width / 2)))

    largest = tuple(traced(j) for j in scan.jumps[:TRACED_JUMPS])
    return replace(scan, jumps=largest + scan.jumps[TRACED_JUMPS:])
