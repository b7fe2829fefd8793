"""Everything that is checked of a method, as one value and as a table."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass

from newrelax import document
from newrelax.checks.jumps import Jump, find_jumps
from newrelax.checks.networks import Verdict, check_propagations
from newrelax.checks.places import display
from newrelax.checks.properties import (
    Tightness,
    find_inconsistency,
    find_nonfinite,
    measure_tightness,
    seems_parallel,
    worst_excess,
)
from newrelax.checks.soundness import Counterexample, find_counterexample
from newrelax.errors import UserError
from newrelax.methods.method import Method
from newrelax.network.operators.rule import Rule
from newrelax.network.rules import BUILTIN_RULES
from newrelax.relaxations.activation import RELU
from newrelax.relaxations.base import Relaxation


@dataclass(frozen=True)
class Report:
    """Everything `check` found about a method.

    sound: all lines bound their activations, every bound held on the small network, and the method promises bounds at all
    (Cauchy estimates do not). estimate: the method gives estimates by construction. counterexample: where a line fails, if one
    does. nonfinite, inconsistent: what is wrong with lines, in words, or None. activation: whose lines the rest is about (a
    method of several activations: its last relaxation's). excess: the lines' largest excess for |l|, |u| <= 10 in float64 (0 or
    a guard's size). rounding: the largest excess in units of what rounding and guards explain. jumps: conditions in (l, u) at
    which the lines jump; empty for a continuous relaxation. hint: what could be declared, or None.
    """

    label: str
    sound: bool
    estimate: bool
    counterexample: Counterexample | None
    excess: float
    rounding: float
    nonfinite: str | None
    inconsistent: str | None
    jumps: tuple[Jump, ...]
    tightness: Tightness
    propagations: tuple[Verdict, ...]
    activation: str = RELU.name
    hint: str | None = None

    @property
    def passed(self) -> bool:
        """Sound, finite and consistent, and no propagation failed."""
        clean = self.nonfinite is None and self.inconsistent is None
        return self.sound and clean and all(p.verdict != "failed" for p in self.propagations)

    def as_dict(self) -> dict[str, object]:
        """Plain values, for JSON (numbers that are not finite as text)."""
        return plain({**asdict(self), "passed": self.passed})  # type: ignore[return-value]

    def rows(self) -> list[tuple[str, str, str]]:
        """The table: what was asked, the answer, the evidence."""
        lines_sound = self.counterexample is None
        sound = "yes" if self.sound else "no (estimate)" if self.estimate and lines_sound else "NO"
        searched = "slopes, offsets and gradients, 1e-30 to 1e30"
        if self.activation != RELU.name:
            searched = f"slopes, offsets and gradients wherever products of {self.activation}'s values are finite"
        rows = [
            ("sound", sound, self._soundness()),
            ("finite", "yes" if self.nonfinite is None else "NO", self.nonfinite or searched),
            ("consistent", "yes" if self.inconsistent is None else "NO", self.inconsistent or "over batch, order and shape"),
            ("continuous", "no" if self.jumps else "yes", str(self.jumps[0]) if self.jumps else "no jump found in (l, u)"),
        ]
        rows += [("", "", str(jump)) for jump in self.jumps[1:]]
        tight = self.tightness
        evidence = f"area {tight.area:.2f} of IBP's box on average, {tight.worst_area:.2f} at worst"
        if not tight.within:
            evidence += f"; a line leaves the box by {tight.overshoot:.2g} widths"
        rows.append(("within IBP", "yes" if tight.within else "no", evidence))
        if self.hint is not None:
            rows.append(("hint", "", self.hint))
        return rows + [(p.name, _answer(p), p.detail) for p in self.propagations]

    def _soundness(self) -> str:
        if self.counterexample is not None:
            return str(self.counterexample)
        if self.estimate:
            name = display(self.activation)
            return f"the lines bound {name}; random projections only estimate the bounds: never a certificate"
        if not self.sound:
            broken = [p.name for p in self.propagations if p.verdict == "violated"]
            return f"bounds violated in {', '.join(broken)}" if broken else "declared not sound"
        return f"no counterexample; largest excess {self.excess:.2g}, {self.rounding:.2g} of what rounding explains"


def check(method: Method, operators: Sequence[Rule] = BUILTIN_RULES) -> Report:
    """Check a method's lines and its bounds on a small network. Takes a few seconds.

    operators: rules for the small network, where a relaxation is of an activation that the built-in ones do not know.

    Raises:
        UserError: the method has no lines (natural, PGD), or its function returns something else.
    """
    if not method.relaxations:
        raise UserError(f"{method.label} gives no bounds: there is nothing to check")
    lines = method.relaxations[-1]
    counterexample = next((c for part in method.relaxations if (c := find_counterexample(part)) is not None), None)
    propagations = check_propagations(method, operators)
    excess, rounding = worst_excess(lines)
    violated = any(p.verdict == "violated" for p in propagations)
    return Report(
        label=method.label,
        sound=method.sound and counterexample is None and not violated,
        estimate=not method.propagation.sound,
        counterexample=counterexample,
        excess=excess,
        rounding=rounding,
        nonfinite=_first(method, [find_nonfinite(part) for part in method.relaxations]),
        inconsistent=_first(method, [find_inconsistency(part) for part in method.relaxations]),
        jumps=find_jumps(lines),
        tightness=measure_tightness(lines),
        propagations=propagations,
        activation=lines.activation,
        hint=_hint(lines),
    )


def _first(method: Method, complaints: list[str | None]) -> str | None:
    """The first complaint about one of the method's relaxations, named where there are several."""
    for part, text in zip(method.relaxations, complaints, strict=True):
        if text is not None:
            return text if len(complaints) == 1 else f"{part.label}: {text}"
    return None


def _hint(lines: Relaxation) -> str | None:
    if lines.parallel or not seems_parallel(lines):
        return None
    return "both lines had one slope everywhere: parallel=True says so, and hybrid propagation can take them"


def _answer(verdict: Verdict) -> str:
    return {"holds": "yes", "violated": "NO", "failed": "NO", "estimate": "estimate"}.get(verdict.verdict, "-")


def plain(value: object) -> object:
    """Values as JSON has them: numbers that are not finite as text."""
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return value


def format_report(report: Report) -> str:
    """The report as a table of text."""
    return "\n".join([report.label, document.text(document.Grid.of([""] * 3, report.rows()))])
