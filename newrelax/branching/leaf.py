"""What branching leaves to the solver: a part in which next to nothing bends."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping

import torch
from torch import Tensor

from newrelax.branching.unsafe import Unsafe
from newrelax.errors import UserError
from newrelax.exact.encoding import Encoding, encode
from newrelax.exact.minimum import Minimum
from newrelax.exact.program import minimum
from newrelax.propagations.base import Ends, Problem
from newrelax.propagations.linear_pass import LinearPass, Mode


def encoded(problem: Problem, before: Mapping[int, tuple[Ends, ...]] | None = None) -> Encoding | None:
    """The network over the problem's box, [1, *input_shape]; None if a step is not made of ReLUs.

    before: ends of the nonlinear steps' inputs there; found by back-substitution unless given.
    """
    with torch.no_grad():
        if before is None:
            found = LinearPass(problem, Mode())
            outputs = torch.Size(problem.network.steps[-1].shape).numel()
            found.lower_bounds(torch.zeros(1, 1, outputs).to(problem.lower))
            before = found.before
        try:
            return encode(problem.network, problem.lower, problem.upper, before)
        except UserError:
            return None


def solve(encoding: Encoding, unsafe: Unsafe, seconds: float, signs: Tensor | None = None, above: float = math.inf) -> Minimum:
    """The least worth over the encoding's box, or where its crossing units have the signs (0: either); the least over the
    conjunctions of what the solver finds for each."""
    deadline = time.monotonic() + seconds
    found = []
    for number in range(len(unsafe)):
        part, share = unsafe.parts([number]), (deadline - time.monotonic()) / (len(unsafe) - number)
        found.append(minimum(encoding, part.matrix, -part.limit, seconds=max(0.01, share), above=above, signs=signs))
    least = min(found, key=lambda each: each.value)
    return Minimum(min(each.bound for each in found), least.value, least.point, all(each.proven for each in found))
