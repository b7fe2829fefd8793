"""Branch and bound: halves of the box for few inputs, cases of crossing neurons for many."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch

from newrelax.bounds import specification
from newrelax.branching.boxes import FEW, Boxes
from newrelax.branching.neurons import Neurons
from newrelax.branching.root import Before, back_substituted
from newrelax.branching.unsafe import Unsafe
from newrelax.errors import UserError
from newrelax.exact.minimum import Minimum
from newrelax.methods.method import Method
from newrelax.network.network import Network
from newrelax.propagations.base import Problem
from newrelax.propagations.memory import Memory
from plugin.certification.certifiers.base import Certifier, Example, Question
from plugin.certification.certifiers.bound import check_decides

POSITIVE = 1e-7
"""What a bound in float64 must exceed to count: far more than it has rounded by."""


@dataclass(frozen=True)
class Branch(Certifier):
    """The worst margins by branch and bound in float64, with any method's lines, and any method where the box is halved.

    steps: of ascent for each case of neurons; batch_size: cases or boxes at once.
    """

    method: Method
    steps: int = 20
    batch_size: int = 64
    name: str = field(default="branch", init=False)

    def __post_init__(self) -> None:
        check_decides(self.method)
        if self.steps < 0 or self.batch_size < 1:
            raise UserError(f"branch: expected steps from 0 and batch_size from 1, got {self.steps} and {self.batch_size}")

    @property
    def label(self) -> str:
        return f"{self.name}:method={self.method.label},steps={self.steps},batch_size={self.batch_size}"

    def decide(self, question: Question, examples: Sequence[Example], deadline: float) -> None:
        network = question.in_double(examples[0].x.shape[1:])
        for example in examples:
            self._decide(question, network, example, deadline)

    def _decide(self, question: Question, network: Network, example: Example, deadline: float) -> None:
        lower, upper = question.box(example.x.double())
        problem = Problem(network, lower, upper, self.method.lines, Memory.of(None, lower.device))
        matrix = specification(example.y, torch.Size(network.steps[-1].shape).numel(), torch.float64)
        with torch.no_grad():
            before, known = back_substituted(problem, matrix)
        if example.margins is not None:
            known = torch.maximum(known, example.margins.double())
        known = known[0] if known.ndim > 1 else known
        still = ~(known >= POSITIVE)
        if bool(still.any()):
            found = self._searched(problem, Unsafe.either(matrix[0, still]), before, deadline - time.monotonic())
            if found.bound < POSITIVE:
                if found.point is None or not example.refute(question, found.point.view_as(example.x), self.name):
                    example.note = f"branching ended at {found.bound:.3g}"
                return
            known[still] = found.bound
        example.bound(known.to(example.x.dtype), self.name)

    def _searched(self, problem: Problem, unsafe: Unsafe, before: Before, seconds: float) -> Minimum:
        if problem.lower[0].numel() <= FEW:
            boxes = Boxes(self.method.propagation, batch=8 * self.batch_size)
            return boxes.minimum(problem, unsafe, seconds=seconds, above=POSITIVE, below=0)
        cases = Neurons(steps=self.steps, batch=self.batch_size)
        return cases.minimum(problem, unsafe, before, seconds=seconds, above=POSITIVE, below=0)
