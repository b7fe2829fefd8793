"""Verdicts as they come: a line each in a file that survives `kill -9`, and what they add up to."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from plugin.certification.certifiers.base import Example, Verdict
from plugin.process.journal import Journal

LEFT_OPEN = "left open"
VERDICTS = "verdicts.jsonl"


@dataclass(frozen=True)
class Line:
    """One decided example. rung: who decided it ("" for undecided). bound: the smallest lower bound of its margins, if any;
    margin: the network's own at the counterexample. seconds: on all rungs. point: the counterexample, flat."""

    image: int
    label: int
    verdict: str
    rung: str
    bound: float | None
    margin: float | None
    seconds: float
    note: str = ""
    point: tuple[float, ...] | None = None

    @classmethod
    def of(cls, example: Example) -> Line:
        return cls(
            image=example.number,
            label=int(example.y),
            verdict=example.verdict.value,
            rung=example.rung,
            bound=None if example.margins is None else float(example.margins.min()),
            margin=example.point_margin,
            seconds=round(example.seconds, 4),
            note="" if not example.open else example.note or "every rung left it open",
            point=None if example.point is None else tuple(example.point.flatten().tolist()),
        )

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Line:
        """Raises TypeError or KeyError for what is no line."""
        return cls(**{**values, "point": None if values["point"] is None else tuple(values["point"])})


class Store:
    """A folder with the verdicts of one question; lines: of the examples that are decided, by their numbers."""

    def __init__(self, folder: Path, question: Mapping[str, Any]) -> None:
        """Opens or makes the folder. Raises UserError when it holds verdicts of another question."""
        self._journal = Journal(folder, question, VERDICTS, read=Line.from_json, key=lambda line: line.image)
        self.lines = {line.image: line for line in self._journal.entries.values()}

    def add(self, lines: Sequence[Line]) -> None:
        """Keeps verdicts, on the disk before it returns."""
        self._journal.add(lines)
        self.lines.update({line.image: line for line in lines})


@dataclass(frozen=True)
class Summary:
    """What verdicts add up to. Fractions of all examples; rungs: for each, how many it decided, and their mean seconds."""

    count: int
    natural_accuracy: float
    pgd_accuracy: float
    verified: float
    falsified: float
    undecided: float
    rungs: Mapping[str, tuple[int, float]]
    seconds: float

    @classmethod
    def of(cls, lines: Sequence[Line], order: Sequence[str] = ()) -> Summary:
        """Of one line or more; order: of the rungs, as far as they decided anything."""
        count = len(lines)
        verdicts = Counter(line.verdict for line in lines)
        wrong = sum(line.rung == "natural" for line in lines)
        attacked = sum(line.rung == "attack" for line in lines)
        deciding = {line.rung or LEFT_OPEN for line in lines}
        rungs = {}
        for name in dict.fromkeys(["natural", *order, *sorted(deciding - {LEFT_OPEN}), LEFT_OPEN]):
            if name not in deciding:
                continue
            times = [line.seconds for line in lines if (line.rung or LEFT_OPEN) == name]
            rungs[name] = (len(times), sum(times) / len(times))
        return cls(
            count=count,
            natural_accuracy=(count - wrong) / count,
            pgd_accuracy=(count - wrong - attacked) / count,
            verified=verdicts[Verdict.VERIFIED.value] / count,
            falsified=verdicts[Verdict.FALSIFIED.value] / count,
            undecided=verdicts[Verdict.UNDECIDED.value] / count,
            rungs=rungs,
            seconds=sum(line.seconds for line in lines),
        )

    def to_json(self) -> dict[str, Any]:
        """JSON types; `certified_accuracy` is `verified`."""
        rungs = {name: {"decided": count, "mean_seconds": seconds} for name, (count, seconds) in self.rungs.items()}
        return {**asdict(self), "certified_accuracy": self.verified, "rungs": rungs}

    def table(self) -> str:
        """For people: the accuracies, and what each rung decided."""
        shares = [
            ("natural accuracy", self.natural_accuracy),
            ("PGD accuracy", self.pgd_accuracy),
            ("verified", self.verified),
            ("falsified", self.falsified),
            ("undecided", self.undecided),
        ]
        lines = [f"{name:<18}{100 * share:>8.2f} %" for name, share in shares]
        width = max(len("rung"), *map(len, self.rungs))
        lines += ["", f"{'rung':<{width}}  {'decided':>8}  {'s each':>8}"]
        lines += [f"{name:<{width}}  {count:>8}  {seconds:>8.3f}" for name, (count, seconds) in self.rungs.items()]
        return "\n".join(lines)
