"""``python -m newrelax.check NAME``: is this relaxation sound, finite, consistent, and where does it jump?"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import click
import torch

from newrelax.cli import run_command
from newrelax.errors import UserError
from newrelax.jumps import Jump, find_jumps
from newrelax.method import Method
from newrelax.networks import Propagation, check_propagations
from newrelax.properties import Tightness, find_inconsistency, find_nonfinite, measure_tightness, worst_excess
from newrelax.registry import Registry
from newrelax.soundness import Counterexample, find_counterexample


@dataclass(frozen=True)
class Report:
    """Everything `check` found about a method.

    sound: the lines bound ReLU, every bound held on the small network, and the method promises
        bounds at all (Cauchy estimates do not).
    estimate: the method gives estimates by construction.
    counterexample: where a line fails, if one does.
    excess: the lines' largest excess over ReLU for |l|, |u| <= 10 in float64 (0 or a guard's size).
    rounding: the largest excess in units of what rounding and guards explain.
    nonfinite, inconsistent: what is wrong, in words, or None.
    jumps: conditions in (l, u) at which the lines jump; empty for a continuous relaxation.
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
    propagations: tuple[Propagation, ...]

    @property
    def passed(self) -> bool:
        """Sound, finite and consistent, and no propagation failed."""
        clean = self.nonfinite is None and self.inconsistent is None
        return self.sound and clean and all(p.verdict != "failed" for p in self.propagations)

    def as_dict(self) -> dict[str, object]:
        """Plain values, for JSON (numbers that are not finite as text)."""
        return _plain({**asdict(self), "passed": self.passed})  # type: ignore[return-value]

    def rows(self) -> list[tuple[str, str, str]]:
        """The table: what was asked, the answer, the evidence."""
        lines_sound = self.counterexample is None
        rows = [
            (
                "sound",
                "yes" if self.sound else "no (estimate)" if self.estimate and lines_sound else "NO",
                self._soundness(),
            ),
            ("finite", "yes" if self.nonfinite is None else "NO", self.nonfinite or "slopes, offsets and gradients, 1e-30 to 1e30"),
            ("consistent", "yes" if self.inconsistent is None else "NO", self.inconsistent or "over batch, order and shape"),
            ("continuous", "no" if self.jumps else "yes", str(self.jumps[0]) if self.jumps else "no jump found in (l, u)"),
        ]
        rows += [("", "", str(jump)) for jump in self.jumps[1:]]
        tight = self.tightness
        rows.append(
            (
                "within IBP",
                "yes" if tight.within else "no",
                f"area {tight.area:.2f} of IBP's box on average, {tight.worst_area:.2f} at worst"
                + ("" if tight.within else f"; a line leaves the box by {tight.overshoot:.2g} widths"),
            )
        )
        rows += [(p.name, _verdict(p), p.detail) for p in self.propagations]
        return rows

    def _soundness(self) -> str:
        if self.counterexample is not None:
            return str(self.counterexample)
        if self.estimate:
            return "the lines bound ReLU; random projections only estimate the bounds: never a certificate"
        if not self.sound:
            broken = [p.name for p in self.propagations if p.verdict == "violated"]
            return f"bounds violated in {', '.join(broken)}" if broken else "declared not sound"
        return f"no counterexample; largest excess {self.excess:.2g}, {self.rounding:.2g} of what rounding explains"


def check(method: Method) -> Report:
    """Check a method's lines and its bounds on a small network. Takes a few seconds.

    Raises:
        UserError: the method has no lines (natural, PGD), or its function returns something else.
    """
    lines = method.relaxation
    if lines is None:
        raise UserError(f"{method.label} gives no bounds: there is nothing to check")
    counterexample = find_counterexample(lines)
    propagations = check_propagations(method)
    excess, rounding = worst_excess(lines)
    violated = any(p.verdict == "violated" for p in propagations)
    return Report(
        label=method.label,
        sound=method.sound and counterexample is None and not violated,
        estimate=method.propagation in ("cauchy", "cauchy-hybrid"),
        counterexample=counterexample,
        excess=excess,
        rounding=rounding,
        nonfinite=find_nonfinite(lines),
        inconsistent=find_inconsistency(lines),
        jumps=find_jumps(lines),
        tightness=measure_tightness(lines),
        propagations=propagations,
    )


def _verdict(propagation: Propagation) -> str:
    return {"holds": "yes", "violated": "NO", "failed": "NO", "estimate": "estimate"}.get(propagation.verdict, "-")


def _plain(value: object) -> object:
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return value


def format_report(report: Report) -> str:
    """The report as a table of text."""
    rows = report.rows()
    widths = [max(len(row[column]) for row in rows) for column in (0, 1)]
    body = [f"  {ask:<{widths[0]}}  {answer:<{widths[1]}}  {evidence}".rstrip() for ask, answer, evidence in rows]
    return "\n".join([report.label, *body])


@click.command(help="Check relaxations: soundness, finiteness, jumps, tightness, propagations.")
@click.argument("names", nargs=-1, required=True, metavar="NAME...")
@click.option("--plugin", "plugins", multiple=True, type=click.Path(path_type=Path), help="A Python file with relaxations.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of tables: an object, or a list for several names.")
@click.option("--debug", is_flag=True, help="Show tracebacks.")
def command(names: tuple[str, ...], plugins: tuple[Path, ...], as_json: bool, debug: bool) -> int:
    """Print a table (or JSON) for each name; 0 when every check passed, else 1."""
    torch.set_num_threads(1)  # the tensors are small: threads would only wait for each other
    registry = Registry.load(plugins)
    methods = [registry.get_method(name) for name in names]
    reports = []
    for method in methods:
        reports.append(check(method))
        if not as_json:
            click.echo(format_report(reports[-1]) + "\n")
    if as_json:
        values = [report.as_dict() for report in reports]
        click.echo(json.dumps(values[0] if len(values) == 1 else values, indent=2, allow_nan=False))
    return 0 if all(report.passed for report in reports) else 1


def main(argv: Sequence[str] | None = None) -> int:
    """The command line; returns the exit code (1: a check failed, 2: a user error)."""
    return run_command(command, argv, "python -m newrelax.check")


if __name__ == "__main__":
    sys.exit(main())
