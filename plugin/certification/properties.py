"""Whether any point of a box has outputs that a property calls unsafe: an attack, then branch and bound, then the solver."""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Literal

import torch
from torch import Tensor, nn

from newrelax.arguments import model_dtype
from newrelax.branching.boxes import FEW, Boxes
from newrelax.branching.leaf import encoded, solve
from newrelax.branching.neurons import Neurons
from newrelax.branching.root import back_substituted, optimised
from newrelax.branching.unsafe import Unsafe
from newrelax.exact.program import CLEARANCE
from newrelax.network.graph import Graph
from newrelax.network.modes import evaluating
from newrelax.propagations.base import Problem
from newrelax.propagations.memory import Memory
from newrelax.registry import Registry
from plugin.formats.property import Case, Property

ABOVE = 1e-7
"""What a bound, computed in float64, must exceed before it counts."""
PROGRAM = 150
"""Crossing neurons up to which the solver gets most of the time, the search the rest."""


@dataclass(frozen=True)
class Answer:
    """unsat: proven for every real point of the boxes. sat: `point` [*input_shape] is a counterexample in the network's own
    precision, with these outputs. unknown: nothing more to try. timeout: no more time."""

    verdict: Literal["unsat", "sat", "unknown", "timeout"]
    point: Tensor | None = None
    outputs: Tensor | None = None
    note: str = ""


def decide(
    model: nn.Module, input_shape: tuple[int, ...], asked: Property, seconds: float, registry: Registry | None = None
) -> Answer:
    """The answer to a property after at most so many seconds, roughly; model: in evaluation mode, inputs [batch, *input_shape].

    Raises:
        UserError: a network that is not bounded, or that does not fit the property.
    """
    asked.check_fits(math.prod(input_shape), asked.outputs)
    deadline = time.monotonic() + seconds
    registry = Registry.load() if registry is None else registry
    double = copy.deepcopy(model).double().eval().requires_grad_(False)
    network = Graph(double, input_shape, registry.operators).network()
    asking = Asking(model, asked, deadline)
    notes: list[str] = []
    parts = [(case, Unsafe.any_of([(each.matrix, each.limit) for each in case.unsafe])) for case in asked.cases if case.unsafe]
    for case, unsafe in parts:
        if time.monotonic() > deadline:
            return Answer("timeout", note="no time was left to attack every case")
        if asking.tried(attacked(model, input_shape, case, unsafe)):
            return asking.answer("sat")
    method = registry.get_method("CROWN")
    for case, unsafe in parts:
        if time.monotonic() > deadline:
            return Answer("timeout", note=notes[0] if notes else "no time was left for every case")
        lower, upper = case.lower.view(1, *input_shape), case.upper.view(1, *input_shape)
        problem = Problem(network, lower, upper, method.lines, Memory.of(None, lower.device))
        for point, bound in _searched(problem, unsafe, Boxes(method.propagation), deadline):
            if point is not None and asking.tried(point.view(1, *input_shape)):
                return asking.answer("sat")
            if bound is not None and not bound >= ABOVE:
                notes.append(f"the bound of a case is {bound:.3g}, not above zero")
    if not notes:
        return Answer("unsat")
    return Answer("timeout" if time.monotonic() >= deadline else "unknown", note=notes[0])


@dataclass
class Asking:
    """Replays points through the network in its own precision."""

    model: nn.Module
    asked: Property
    deadline: float
    point: Tensor | None = None
    outputs: Tensor | None = field(default=None)

    def tried(self, points: Tensor) -> bool:
        """Whether one of the points [batch, *input_shape] is a counterexample as the network computes."""
        with evaluating(self.model), torch.no_grad():
            outputs = self.model(points.to(model_dtype(self.model)))
        for point, found in zip(points.to(model_dtype(self.model)), outputs, strict=True):
            if self.asked.met_by(_inside(point, self.asked), found):
                self.point, self.outputs = point, found
                return True
        return False

    def answer(self, verdict: Literal["sat"]) -> Answer:
        return Answer(verdict, self.point, self.outputs)


def _inside(point: Tensor, asked: Property) -> Tensor:
    """The point, flat in float64; an end of the box that the network's precision rounds away is meant as the end itself."""
    flat = point.flatten().double()
    tolerance = 2 * torch.finfo(point.dtype).eps * flat.abs().clamp(min=torch.finfo(point.dtype).tiny)
    for case in asked.cases:
        near = torch.minimum(torch.maximum(flat, case.lower), case.upper)
        if bool(((near - flat).abs() <= tolerance).all()):
            return near
    return flat


def attacked(
    model: nn.Module, input_shape: tuple[int, ...], case: Case, unsafe: Unsafe, *, restarts: int = 20, steps: int = 60
) -> Tensor:
    """The points that signed gradient steps from random points of the box find for each conjunction; seeded."""
    dtype = model_dtype(model)
    lower, upper = (end.to(dtype).view(1, *input_shape) for end in (case.lower, case.upper))
    count = len(unsafe)
    draw = torch.Generator().manual_seed(0)
    start = torch.rand((restarts * count, *input_shape), generator=draw, dtype=dtype)
    point = lower + start * (upper - lower)
    target = torch.arange(count).repeat(restarts).unsqueeze(1)
    matrix, limit = unsafe.matrix.to(dtype), unsafe.limit.to(dtype)
    own = replace(unsafe, matrix=matrix, limit=limit)
    length = (upper - lower) / 2
    with evaluating(model), torch.enable_grad():
        for step in range(steps):
            point.requires_grad_()
            worth = own.of_each(model(point) @ matrix.t() - limit).gather(1, target)
            (gradient,) = torch.autograd.grad(worth.sum(), point)
            moved = point.detach() - length * 0.93**step * gradient.sign()
            stay = (worth.detach() <= 0).view(-1, *[1] * len(input_shape))
            point = torch.where(stay, point.detach(), torch.clamp(moved, lower, upper))
    return point.detach()


Found = tuple[Tensor | None, float | None]
"""A point to try, and the bound of what was searched for good."""


def _searched(problem: Problem, unsafe: Unsafe, boxes: Boxes, deadline: float) -> Iterator[Found]:
    """Points as they are found, and in the end a bound for each part."""

    def left() -> float:
        return deadline - time.monotonic()

    if problem.lower[0].numel() <= FEW or not problem.network.structure.layers:
        found = boxes.minimum(problem, unsafe, seconds=left(), above=ABOVE, below=0)
        yield found.point, found.bound
        return
    with torch.no_grad():
        before, rows = back_substituted(problem, unsafe.matrix.unsqueeze(0))
        bounds = unsafe.of_each(rows - unsafe.limit)[0]
    if bool((bounds > ABOVE).all()):
        return
    before = optimised(problem, before, 20, time.monotonic() + 0.2 * left())
    open_ones = unsafe.parts(torch.nonzero(~(bounds > ABOVE)).flatten().tolist())
    search = Neurons().search(problem, open_ones, before, above=ABOVE, below=0)
    found = search.run(0.1 * left())
    yield found.point, None
    encoding = encoded(problem, before)
    if found.bound < ABOVE and encoding is not None and encoding.crossing <= PROGRAM:
        proven = 0
        for k in range(len(open_ones)):
            if left() <= 0:
                break
            solved = solve(encoding, open_ones.parts([k]), 0.9 * left() / (len(open_ones) - k), above=CLEARANCE)
            yield solved.point, None
            proven += solved.bound >= CLEARANCE
        if proven == len(open_ones):
            return
    found = search.run(left())
    yield found.point, found.bound
