"""A small table that the tests of tables vary."""

from typing import Any

from experiments.runner.grid import Table
from experiments.runner.table_file import parse_table

SWEEP = {
    "title": "a sweep",
    "seeds": [3, 5],
    "options": {"dataset": "digits", "method": "IBP-Round:omega={omega},F={F}"},
    "grid": {"omega": [0.5, 1], "F": ["none", 10]},
    "override": [{"where": {"F": "none"}, "options": {"method": "IBP-Widen:omega={omega}", "lr": 1}}],
}


def make_table(**changes: Any) -> Table:
    """The sweep with other keys in place of its own."""
    return parse_table({**SWEEP, **changes}, "sweep", "sweep.toml")
