"""The exact answer: a mixed-integer program over the ReLUs that the tightest bounds leave open."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from newrelax.bounds import specification
from newrelax.branching.root import back_substituted
from newrelax.errors import UserError
from newrelax.exact.encoding import Encoding, encode
from newrelax.exact.program import CLEARANCE, minimum
from newrelax.network.network import Network
from newrelax.propagations.base import Problem
from newrelax.propagations.memory import Memory
from plugin.certification.certifiers.base import Certifier, Example, Question


@dataclass(frozen=True)
class Exact(Certifier):
    """The smallest of each margin that is not proven, by HiGHS; its own points are tried as counterexamples.

    Computes in float64. A margin counts as proven only if the solver's bound clears zero by CLEARANCE.
    """

    name = "exact"

    def decide(self, question: Question, examples: Sequence[Example], deadline: float) -> None:
        network = question.in_double(examples[0].x.shape[1:])
        for example in examples:
            try:
                self._decide(question, network, example, deadline)
            except UserError as problem:
                example.note = str(problem)

    def _decide(self, question: Question, network: Network, example: Example, deadline: float) -> None:
        lower, upper = question.box(example.x.double())
        matrix = specification(example.y, torch.Size(network.steps[-1].shape).numel(), torch.float64)
        with torch.no_grad():
            problem = Problem(network, lower, upper, question.registry.get_method("CROWN").lines, Memory.of(None, lower.device))
            before, bounds = back_substituted(problem, matrix)
            margins = bounds[0]
            known = margins if example.margins is None else torch.maximum(margins, example.margins.double())
            example.bound(known.to(example.x.dtype), self.name)
            if not example.open:
                return
            encoding = encode(network, lower, upper, before)
        proven = known > 0
        for row in known.argsort().tolist():
            if proven[row]:
                continue
            left = deadline - time.monotonic()
            if left <= 0:
                example.note = "out of time"
                return
            if self._row(question, example, encoding, matrix[0, row], left):
                proven[row] = True
            elif not example.open:
                return
        if bool(proven.all()):
            example.bound(torch.full_like(known, CLEARANCE).to(example.x.dtype), self.name)

    def _row(self, question: Question, example: Example, encoding: Encoding, function: Tensor, seconds: float) -> bool:
        """Whether the margin of that function is proven; refutes the example where the solver's point does."""
        found = minimum(encoding, function, seconds=seconds, above=CLEARANCE)
        if found.point is not None:
            example.refute(question, found.point.view_as(example.x), self.name)
        if found.bound >= CLEARANCE:
            return True
        if example.open:
            example.note = "within the solver's tolerance of zero" if found.proven else "out of time"
        return False
