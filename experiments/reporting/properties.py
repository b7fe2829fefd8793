"""The relaxations' measured properties, from a table's finished analyses."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from experiments.reporting.summary import Figure
from experiments.runner.grid import Analysis, Table
from experiments.runner.store import places


@dataclass(frozen=True)
class Properties:
    """A relaxation's measured properties, over the seeds of the network they were measured on.

    `tightness`: mean certified radius × 100 per seed; `continuous`, `insensitive`: the verdicts, True when each seed
    says so, None when they differ or are missing.
    """

    method: str
    tightness: Figure | None = None
    continuous: bool | None = None
    insensitive: bool | None = None


@dataclass(frozen=True)
class Measurements:
    """The relaxations' properties on one network, by method, as far as they are measured; `asked`: what the table asks for."""

    asked: Analysis = field(default_factory=lambda: Analysis((), {}))
    properties: Mapping[str, Properties] = field(default_factory=dict)

    @property
    def network(self) -> str:
        """The network, and what was measured otherwise than by default, in a few words: `natural, mnist, CONV, epochs 2`."""
        leading, options = ("method", "dataset", "model"), self.asked.options
        words = [str(options[name]) for name in leading if name in options]
        words += [f"{name} {value}" for name, value in options.items() if name not in leading]
        protocol = [f"{name} {value}" for name, value in self.asked.protocol.chosen().items()]
        return ", ".join(words) + (f"; measured with {', '.join(protocol)}" if protocol else "")


def collect_properties(table: Table, out: Path) -> Measurements:
    """What a table's analyses measured on its first network, from its runs under `out`; empty when it asks for none."""
    if table.analysis is None:
        return Measurements()
    asked = table.analysis
    entries: dict[str, list[Mapping[str, Any]]] = defaultdict(list)
    for place in places(out / table.name):
        settings = place.read_settings() or {}
        same = settings.get("options") == asked.options and settings.get("protocol", {}) == asked.protocol.chosen()
        if settings.get("analyze") and same and (analysis := place.read_analysis()):
            for method, entry in analysis.get("methods", {}).items():
                entries[method].append(entry)
    return Measurements(asked, {method: _merge(method, measured) for method, measured in entries.items()})


def _merge(method: str, measured: Sequence[Mapping[str, Any]]) -> Properties:
    tightness = tuple(entry["tightness"]["radius"] for entry in measured if entry.get("tightness"))
    return Properties(
        method,
        Figure(tightness) if tightness else None,
        _agreed((entry.get("continuity") or {}).get("continuous") for entry in measured),
        _agreed((entry.get("sensitivity") or {}).get("insensitive") for entry in measured),
    )


def _agreed(verdicts: Iterable[bool | None]) -> bool | None:
    found = set(verdicts)
    return found.pop() if len(found) == 1 else None
