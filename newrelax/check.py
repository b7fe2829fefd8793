"""`python -m newrelax.check NAME`: is this relaxation sound, finite, consistent, and where does it jump?

With `--operators`: which operators of torch are known, how each is bounded, and does that hold?
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path

import click
import torch

from newrelax.checks.operators import OperatorReport, check_operator, format_operator, operators_heading
from newrelax.checks.report import Report, check, format_report
from newrelax.cli import debug_option, run_command
from newrelax.registry import Registry

__all__ = ["Report", "check", "format_report", "main"]


@click.command(help="Check relaxations: soundness, finiteness, jumps, tightness, propagations. Or all operators.")
@click.argument("names", nargs=-1, metavar="NAME...")
@click.option("--operators", "with_operators", is_flag=True, help="Check every operator that is known, too.")
@click.option("--plugin", "plugins", multiple=True, type=click.Path(path_type=Path), help="A Python file with relaxations.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of tables: an object, or a list for several names.")
@debug_option
def command(names: tuple[str, ...], with_operators: bool, plugins: tuple[Path, ...], as_json: bool) -> int:
    """Print a table (or JSON) for each name; 0 when every check passed, else 1."""
    if not names and not with_operators:
        raise click.UsageError("Missing argument 'NAME...', or --operators.")
    torch.set_num_threads(1)  # the tensors are small: threads would only wait for each other
    registry = Registry.load(plugins)
    methods = [registry.get_method(name) for name in names]
    reports = []
    for method in methods:
        reports.append(check(method, registry.operators))
        if not as_json:
            click.echo(format_report(reports[-1]) + "\n")
    found = _operators(registry, quiet=as_json) if with_operators else []
    if as_json:
        values = [report.as_dict() for report in reports]
        shown: object = values[0] if len(values) == 1 else values
        if with_operators:
            listed = [operator.as_dict() for operator in found]
            shown = {"operators": listed, "methods": values} if names else listed
        click.echo(json.dumps(shown, indent=2, allow_nan=False))
    return 0 if all(report.passed for report in reports) and all(report.passed for report in found) else 1


def _operators(registry: Registry, quiet: bool) -> list[OperatorReport]:
    """The check of every operator, printed as it comes: all of them take a minute or two."""
    found = []
    if not quiet:
        click.echo(operators_heading())
    for rule in registry.operators:
        for name in rule.names:
            found.append(check_operator(name, rule, registry.operators))
            if not quiet:
                click.echo(format_operator(found[-1]))
    if not quiet:
        checked = [operator for operator in found if operator.verdict != "not checked"]
        held = sum(operator.verdict == "holds" for operator in checked)
        click.echo(f"\n{len(found)} operators, {len(checked)} checked, {held} hold")
    return found


def main(argv: Sequence[str] | None = None) -> int:
    """The command line; returns the exit code (1: a check failed, 2: a user error)."""
    return run_command(command, argv, "python -m newrelax.check")


if __name__ == "__main__":
    sys.exit(main())
