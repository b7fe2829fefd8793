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
    for part in filter(None, (part.strip() for part in text.split(","))):
        axis, separator, value = part.partition("=")
        if not separator or not value:
            raise UserError(f"--only: expected axis=value[,axis=value], got {part!r}")
        wanted[axis.strip()] = (*wanted.get(axis.strip(), ()), *(v.strip().lower() for v in value.split("|")))
    runs = expand(table)
    known = {axis: {str_value for run in runs for str_value in values_of(run, axis)} for axis in _axes(runs)}
    for axis, values in wanted.items():
        if axis not in known:
            raise UserError(f"--only: {table.name} has no axis {axis!r}; known: {', '.join(sorted(known))}")
        if missing := [value for value in values if value not in {v.lower() for v in known[axis]}]:
            listing = ", ".join(sorted(known[axis]))
            raise UserError(f"--only: {table.name} has no {axis} {missing[0]!r}; known: {listing}")
    return wanted


def _axes(runs: Iterable[Run]) -> set[str]:
    return {"seed"}.union(*({*run.options, *run.cell} for run in runs))
