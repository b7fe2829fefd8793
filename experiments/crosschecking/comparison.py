"""One of our verdicts beside a stranger's, and what onnxruntime computes at everybody's counterexamples."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from experiments.crosschecking.marabou import Marabou, Reply
from plugin.certification.verdicts import Line
from plugin.formats.answer import replay
from plugin.formats.property import Property

Function = Callable[[Tensor], Tensor]
"""Outputs [batch, outputs] of flat inputs [batch, inputs] in float32."""


@dataclass(frozen=True)
class Compared:
    """Two verdicts on an image. ours_holds, theirs_holds: whether onnxruntime confirms a counterexample; None where is none."""

    line: Line
    theirs: Reply
    ours_holds: bool | None
    theirs_holds: bool | None

    @property
    def disagreement(self) -> str:
        """Who says that we are wrong; empty where nobody does who has not been refuted himself."""
        if self.ours_holds is False:
            return "onnxruntime: our counterexample is none"
        if self.line.verdict == "verified" and self.theirs_holds:
            return "Marabou: verified, but it has a counterexample that onnxruntime confirms"
        return ""

    @property
    def refuted(self) -> bool:
        """Whether Marabou denies a counterexample that onnxruntime confirms."""
        return bool(self.ours_holds) and self.theirs.verdict == "unsat"

    @property
    def remark(self) -> str:
        """What is no contradiction of ours, but no agreement either."""
        if self.refuted:
            return "Marabou is wrong: onnxruntime confirms our counterexample"
        if self.theirs.verdict in ("timeout", "unknown"):
            return "Marabou left it open"
        if self.theirs.verdict == "void":
            return "Marabou calls the ball itself empty: its answer is void"
        if self.theirs_holds is False:
            return "Marabou's point is within its tolerance: onnxruntime does not confirm it"
        return ""


def compare(line: Line, asked: Property, x: Tensor, stranger: Marabou, function: Function, seconds: float) -> Compared:
    """Asks the stranger about the property that belongs to a verdict, and replays counterexamples.

    x: the image itself, which is the counterexample where the network is wrong there already.
    """
    point = x.flatten().double() if line.rung == "natural" else None
    if line.point is not None:
        point = torch.tensor(line.point, dtype=torch.float64)
    ours = None if line.verdict == "verified" or point is None else replay(asked, point, function) is not None
    theirs = stranger.answer(asked, seconds)
    found = None if theirs.point is None else _nearest(asked, theirs.point, function)
    return Compared(line, theirs, ours, found)


def _nearest(asked: Property, point: Tensor, function: Function) -> bool:
    """Whether a point that may leave its box by a solver's tolerance is a counterexample when it is put back."""
    return any(replay(asked, point.clamp(case.lower, case.upper).float(), function) is not None for case in asked.cases)
