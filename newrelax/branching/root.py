"""Bounds of every nonlinear step's inputs over a whole box, as tight as they are to be had: what a search stands on."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import Tensor

from newrelax.network.operators.elementwise import Relu
from newrelax.propagations.ascent import Ascent, Choices
from newrelax.propagations.base import Ends, Problem
from newrelax.propagations.linear_pass import LinearPass, Mode

Before = dict[int, tuple[Ends, ...]]
"""Ends of the nonlinear steps' inputs, [batch, *shape], by the step's index."""
ROWS = 512
"""Ends of crossing neurons that are moved at once."""


def back_substituted(problem: Problem, specification: Tensor) -> tuple[Before, Tensor]:
    """The tighter of intervals and back-substitution, and with these the bounds of specification @ outputs, [batch, rows]."""
    first = LinearPass(problem, Mode())
    margins = first.lower_bounds(specification)
    intervals = problem.intervals
    before = {
        index: tuple(
            (torch.maximum(low, intervals.steps[source].lower), torch.minimum(high, intervals.steps[source].upper))
            for (low, high), source in zip(ends, problem.network.steps[index].inputs, strict=True)
        )
        for index, ends in first.before.items()
    }
    again = LinearPass(problem, Mode(known=before)).lower_bounds(specification)
    return before, torch.maximum(margins, again)


def optimised(problem: Problem, before: Mapping[int, tuple[Ends, ...]], steps: int, deadline: float) -> Before:
    """The same ends after α-CROWN of every crossing ReLU's own, layer by layer; for a single box.

    Each end is bounded by itself, with slopes of its own below it, so that later layers gain from earlier ones. deadline: on
    `time.monotonic`'s clock, after which layers stay as they are.
    """
    found: Before = dict(before)
    if not movable(problem, found):
        return found
    for index in sorted(before):
        step = problem.network.steps[index]
        if not isinstance(step.operator, Relu) or not _bent_before(problem, found, index) or time.monotonic() > deadline:
            continue
        low, high = found[index][0]
        if not bool(((low < 0) & (high > 0)).any()):
            continue
        crossing = ((low < 0) & (high > 0)).flatten().nonzero().flatten()
        ends = torch.cat([low.flatten()[crossing], -high.flatten()[crossing]])
        signs = torch.cat([torch.ones_like(crossing), -torch.ones_like(crossing)]).to(low)
        at = crossing.repeat(2)
        for start in range(0, len(at), ROWS):
            if time.monotonic() > deadline:
                break
            part = slice(start, start + ROWS)
            ends[part] = torch.maximum(ends[part], _moved(problem, found, index, at[part], signs[part], steps))
        low, high = low.flatten().clone(), high.flatten().clone()
        low[crossing], high[crossing] = ends[: len(crossing)], -ends[len(crossing) :]
        shape = found[index][0][0].shape
        found[index] = ((low.view(shape), torch.maximum(high, low).view(shape)),)
    return found


def _moved(problem: Problem, before: Before, index: int, at: Tensor, signs: Tensor, steps: int) -> Tensor:
    """Lower bounds of signs·z at places `at` of the input of step `index`, each with slopes of its own, [rows]."""
    source, rows = problem.network.steps[index].inputs[0], len(at)
    each, known = copies(problem, before, rows)
    mode = Mode(known=known)
    shape = problem.network.steps[source].shape
    coefficients = torch.zeros(rows, 1, torch.Size(shape).numel()).to(problem.lower)
    coefficients[torch.arange(rows), 0, at] = signs
    coefficients = coefficients.view(rows, 1, *shape)
    start: Choices = {}
    ancestors = _ancestors(problem, index)
    for i, ends in before.items():
        operator = problem.network.steps[i].operator
        if i in ancestors and isinstance(operator, Relu):
            start[i] = repeated(operator.planes(*ends[0], problem.relaxations).lower_slopes[0], rows).clone()
    ascent = Ascent(steps, dict.fromkeys(start, 1.0))
    return ascent.best(start, lambda slopes: LinearPass(each, mode, slopes).lower_bounds_at(source, coefficients).squeeze(1))[1]


def movable(problem: Problem, before: Mapping[int, tuple[Ends, ...]]) -> bool:
    """Whether any slope in [0, 1] will do below a crossing ReLU: the relaxation's lower lines pass through the origin, and need
    not be parallel to the upper ones."""
    if problem.relaxations.parallel:
        return False
    for index, (ends, *_) in before.items():
        operator = problem.network.steps[index].operator
        if isinstance(operator, Relu):
            crossing = (ends[0] < 0) & (ends[1] > 0)
            if bool((operator.planes(*ends, problem.relaxations).lower_offset[crossing] != 0).any()):
                return False
    return True


def _ancestors(problem: Problem, index: int) -> set[int]:
    """The steps that a step is computed from."""
    found: set[int] = set()
    todo = list(problem.network.steps[index].inputs)
    while todo:
        step = todo.pop()
        if step >= 0 and step not in found:
            found.add(step)
            todo.extend(problem.network.steps[step].inputs)
    return found


def _bent_before(problem: Problem, before: Before, index: int) -> bool:
    """Whether any ReLU that a step is computed from crosses, so that there are slopes to move."""
    for i in _ancestors(problem, index) & set(before):
        if isinstance(problem.network.steps[i].operator, Relu):
            low, high = before[i][0]
            if bool(((low < 0) & (high > 0)).any()):
                return True
    return False


def copies(problem: Problem, before: Mapping[int, tuple[Ends, ...]], count: int) -> tuple[Problem, Before]:
    """A single box, and the ends over it, as so many examples."""
    each = replace(problem, lower=repeated(problem.lower, count), upper=repeated(problem.upper, count))
    known = {i: tuple((repeated(low, count), repeated(high, count)) for low, high in ends) for i, ends in before.items()}
    return each, known


def repeated(value: Tensor, count: int) -> Tensor:
    """A view of [1, …] as [count, …]."""
    return value.expand(count, *value.shape[1:])
