"""`--only`: which of a table's runs are meant."""

from __future__ import annotations

from collections.abc import Iterable

from experiments.runner.grid import Run, Table, expand, values_of
from newrelax.errors import UserError


def parse_only(text: str, table: Table) -> dict[str, tuple[str, ...]]:
    """Read `model=CONV,dataset=mnist`; one key given twice, or `IBP|CROWN`, allows either value.

    Returns axis -> allowed values in lower case.  Raises UserError, with what is known, for an axis or a value
    that no run of the table has.
    """
    wanted: dict[str, tuple[str, ...]] = {}
    runs = expand(table)
    known = {axis: {str_value for run in runs for str_value in values_of(run, axis)} for axis in _axes(runs)}
    for part in _parts(text, known):
        axis, separator, value = part.partition("=")
        if not separator or not value:
            raise UserError(f"--only: expected axis=value[,axis=value], got {part!r}")
        wanted[axis.strip()] = (*wanted.get(axis.strip(), ()), *(v.strip().lower() for v in value.split("|")))
    for axis, values in wanted.items():
        if axis not in known:
            raise UserError(f"--only: {table.name} has no axis {axis!r}; known: {', '.join(sorted(known))}")
        if missing := [value for value in values if value not in {v.lower() for v in known[axis]}]:
            listing = ", ".join(sorted(known[axis]))
            raise UserError(f"--only: {table.name} has no {axis} {missing[0]!r}; known: {listing}")
    return wanted


def _parts(text: str, axes: Iterable[str]) -> list[str]:
    """`axis=value` each; the parameters of a spelling (`loss=STAPS:split=1,lambda=0.4`) stay with it."""
    parts: list[str] = []
    for part in filter(None, (part.strip() for part in text.split(","))):
        if parts and ":" in parts[-1] and part.partition("=")[0].strip() not in axes:
            parts[-1] += f",{part}"
        else:
            parts.append(part)
    return parts


def _axes(runs: Iterable[Run]) -> set[str]:
    return {"seed"}.union(*({*run.options, *run.cell} for run in runs))
