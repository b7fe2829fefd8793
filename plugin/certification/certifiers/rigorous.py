"""A rung whose proofs count only if they hold for the network as it runs, roundings included (`newrelax.rigorous`)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from plugin.certification.certifiers.attack import Attack
from plugin.certification.certifiers.base import Certifier, Example, Question, Verdict
from plugin.certification.certifiers.bound import Bound
from plugin.certification.certifiers.ladder import Ladder


@dataclass(frozen=True)
class Rigorous(Certifier):
    """Another rung, which may falsify as it likes; what it verifies is bounded again, rigorously, with its method's lines."""

    rung: Certifier

    @property
    def name(self) -> str:  # type: ignore[override]
        return self.rung.name

    @property
    def batch(self) -> int:  # type: ignore[override]
        return self.rung.batch

    @property
    def label(self) -> str:
        return f"rigorous({self.rung.label})"

    def decide(self, question: Question, examples: Sequence[Example], deadline: float) -> None:
        proven = [example.margins for example in examples]
        self.rung.decide(question, examples, deadline)
        claimed = []
        for example, margins in zip(examples, proven, strict=True):
            example.margins = margins  # what is rounded to nearest proves nothing, not with later bounds either
            if example.verdict is Verdict.VERIFIED:
                example.verdict, example.rung = Verdict.UNDECIDED, ""
                claimed.append(example)
        if not claimed:
            return
        if not isinstance(self.rung, Bound):
            for example in claimed:
                example.note = f"proven by {self.name} but for rounding, which counts with --rigorous"
            return
        x, y = torch.cat([example.x for example in claimed]), torch.cat([example.y for example in claimed])
        margins = question.rigorous(self.rung.method, x.shape[1:]).margins(*question.box(x), y)
        for example, found in zip(claimed, margins, strict=True):
            example.bound(found, self.name)
            if example.open:
                example.note = f"proven by {self.name} but for rounding: rigorous margin {float(found.min()):.3g}"


def rigorous(ladder: Ladder) -> Ladder:
    """The same ladder with rigorous rungs; attacks stay as they are, since the network itself answers them."""
    return Ladder(tuple(rung if isinstance(rung, Attack) else Rigorous(rung) for rung in ladder.rungs))
