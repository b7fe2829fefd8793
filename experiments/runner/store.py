"""Where a table's runs live on disk, and how to tell a finished one.

OUT/TABLE/ID/          the trainer's own run folder, nothing else in it
OUT/TABLE/.runner/     the runner's notes: ID.json (settings), ID.lock, ID.log, ID.attempts.jsonl, ID.failure.json
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from experiments.runner.grid import Decision
from newrelax.names import read_spelling, split_spellings
from plugin.runs.folder import verdicts_folder

RESULT = "result.json"
ANALYSIS = "analysis/analysis.json"
VERDICTS = "complete.json"
METRICS = "metrics.jsonl"
CONFIG = "config.json"
_RESULT_KEYS = ("method", "dataset", "model", "seed", "natural_accuracy", "pgd_accuracy", "certified_accuracy")


@dataclass(frozen=True)
class Place:
    """The files of one run."""

    table: Path
    id: str

    @property
    def folder(self) -> Path:
        """The trainer's run folder."""
        return self.table / self.id

    def note(self, kind: str) -> Path:
        """One of the runner's notes on the run: `json`, `lock`, `log`, `attempts.jsonl`, `failure.json`."""
        return self.table / ".runner" / f"{self.id}.{kind}"

    def read_settings(self) -> dict[str, Any] | None:
        """The settings the folder was made with; None when it was never started."""
        return read_json(self.note("json"))

    def read_result(self) -> dict[str, Any] | None:
        """`result.json` when it is whole and says the same as the run's settings; else None."""
        result, settings = read_json(self.folder / RESULT), self.read_settings()
        if result is None or settings is None or any(key not in result for key in _RESULT_KEYS):
            return None
        expected = {**settings["options"], "seed": settings["seed"]}
        said = {key: result[key] for key in ("dataset", "model", "seed") if key in expected}
        return result if all(_alike(value, expected[key]) for key, value in said.items()) else None

    def read_analysis(self) -> dict[str, Any] | None:
        """The finished analysis of the run's network, else None."""
        return read_json(self.folder / ANALYSIS)

    def read_verdicts(self, decision: Decision) -> dict[str, Any] | None:
        """What became of the test examples at the run's radius, when all are decided as `decision` says; else None."""
        result = self.read_result() or {}
        verdicts = read_json(verdicts_folder(self.folder, result["eps"]) / VERDICTS) if "eps" in result else None
        if verdicts is None or verdicts.get("timeout") != decision.timeout:
            return None
        count = min(decision.limit or float("inf"), result.get("test_images", float("inf")))
        if count not in (verdicts.get("count"), float("inf")):
            return None
        return verdicts if _rungs(verdicts.get("ladder", "")) == _rungs(decision.ladder) else None

    def read_epochs(self) -> int | None:
        """How many epochs the trainer has set out for; None before it has."""
        epochs = (read_json(self.folder / CONFIG) or {}).get("epochs")
        return epochs if isinstance(epochs, int) else None

    def read_metrics(self) -> list[dict[str, Any]]:
        """The whole lines of `metrics.jsonl`, one per epoch; a line cut short by a kill is left out."""
        try:
            text = (self.folder / METRICS).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError):
            return []
        lines = []
        for line in text.splitlines():
            try:
                lines.append(json.loads(line))
            except json.JSONDecodeError:
                continue
        return [line for line in lines if isinstance(line, dict)]


def places(table: Path) -> list[Place]:
    """Every run that was ever started under a table's folder, by name."""
    notes = (path for path in (table / ".runner").glob("*.json") if not path.name.endswith(".failure.json"))
    return [Place(table, path.name.removesuffix(".json")) for path in sorted(notes)]


def _alike(said: object, asked: object) -> bool:
    """Whether a result speaks of what was asked for; the trainer writes down paths as absolute ones."""
    return said == asked or (isinstance(said, str) and isinstance(asked, str) and Path(said).name == Path(asked).name)


def _rungs(ladder: str) -> list[str]:
    """The names of a ladder's certifiers; the attack comes first unless it stands elsewhere."""
    names = [read_spelling(rung).name for rung in split_spellings(ladder)]
    return names if "attack" in names else ["attack", *names]


def read_json(path: Path) -> dict[str, Any] | None:
    """A JSON object from a file; None when it is missing, cut short or no object."""
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return data if isinstance(data, dict) else None
