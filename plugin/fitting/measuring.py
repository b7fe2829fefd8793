"""Relaxations measured on a subject, part by part, into a folder from which an interrupted call goes on."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, astuple, dataclass
from pathlib import Path
from typing import Any

from tqdm import tqdm

from newrelax.errors import UserError
from newrelax.methods.method import Method
from plugin.analysis import figures
from plugin.analysis.measure import PARTS, Protocol, cost
from plugin.analysis.measurement import Failure, Measurement, Part
from plugin.analysis.report import markdown, page
from plugin.analysis.side_by_side import side_by_side
from plugin.fitting.subject import Subject
from plugin.process.files import write_atomically, write_json
from plugin.process.tensors import weights_digest
from plugin.runs.folder import finished_in, finished_result, read_json
from plugin.runs.versions import versions

FORMAT = 2
"""Of the files with partial results; raised when an older file must not be taken up."""


def certified_by(folders: Sequence[Path]) -> dict[str, float]:
    """Certified accuracy by the method that trained, from the results of finished runs."""
    known: dict[str, float] = {}
    for folder in folders:
        for path in finished_in(folder):
            result = finished_result(path) or {}
            accuracy = result.get("certified_accuracy")
            if isinstance(accuracy, float) and result.get("sound", True):
                known[str(result["method"])] = accuracy
    return known


@dataclass(frozen=True)
class Work:
    """What is measured, and the folder that keeps it. trained: certified accuracies of training, by method."""

    subject: Subject
    protocol: Protocol
    folder: Path
    weights: str
    trained: Mapping[str, float]

    def measure_all(
        self, methods: Sequence[Method], *, tolerant: bool, jobs: int
    ) -> tuple[dict[str, dict[str, Any]], list[str]]:
        """Every part of every method, by so many processes, and what failed where failures are tolerated.

        What the folder holds already from a call with the same settings is taken up.
        """
        subject = self.subject
        parameters = sum(1 for p in subject.model.parameters() if p.requires_grad)
        costs = {part: cost(part, self.protocol, parameters) for part in PARTS}
        weights = weights_digest(subject.model)
        records = {method.label: self._record(method, self._key(weights, method)) for method in methods}
        # The longest parts first, so that no process waits long for another at the end.
        todo = [Part(part, m.label, m.sound) for part in PARTS for m in methods if part not in records[m.label]]
        x, y = subject.dataset.test_x, subject.dataset.test_y
        measurement = Measurement.of(subject.model, x, y, subject.region, self.protocol, subject.plugins)
        failures: dict[str, str] = {}
        with tqdm(total=sum(costs[part.name] for part in todo), unit="ev", disable=None, leave=False) as bar:
            for place, found in side_by_side(measurement, todo, jobs=jobs, tick=bar.update):
                part = todo[place]
                bar.set_description(f"{part.method}: {part.name}", refresh=False)
                if isinstance(found, Failure):
                    if not tolerant:
                        raise UserError(found.reason)
                    failures.setdefault(part.method, found.reason)
                    continue
                records[part.method][part.name] = found
                write_json(self._part_file(part.method), records[part.method])
        whole = {method.label: self._whole(records[method.label]) for method in methods if method.label not in failures}
        return whole, [f"{label}: {failures[label]}" for label in records if label in failures]

    def write(
        self,
        records: Mapping[str, Mapping[str, Any]],
        failed: Sequence[str],
        said: Sequence[str] = (),
        prediction: Mapping[str, Any] | None = None,
    ) -> str:
        """Writes table, figures and page; returns the table. said: sentences above it. prediction: what analysis.json adds."""
        protocol, dataset = self.protocol, self.subject.dataset.name
        settings = {
            "model": self.subject.name,
            "dataset": dataset,
            "weights": Path(self.weights).name,
            **asdict(protocol),
            "smoothing": None if protocol.smoothing is None else protocol.smoothing.label,
            **versions(),
        }
        title = f"Relaxations on {self.subject.name}, {dataset}"
        notes = [
            *said,
            f"Weights: {settings['weights']}. ε = {protocol.eps:g} for the probe ({protocol.probe} images, float64). "
            f"Tightness on {protocol.images} test images, ε in steps of {protocol.step:g}. Seed {protocol.seed}.",
            *_smoothed_notes(protocol),
            *(f"Left out: {reason}" for reason in failed),
        ]
        text = markdown(title, notes, records)
        foretold = {} if prediction is None else {"prediction": prediction}
        write_json(self.folder / "analysis.json", {"settings": settings, "methods": records, "failed": failed, **foretold})
        write_atomically(self.folder / "table.md", text.encode())
        write_atomically(self.folder / "overview.png", figures.png(figures.overview(records)))
        write_atomically(self.folder / "report.html", page(title, notes, records, settings).encode())
        return text

    def _whole(self, record: Mapping[str, Any]) -> dict[str, Any]:
        """A record with its parts in their order, whichever was measured first, and the accuracy of training."""
        facts = {name: value for name, value in record.items() if name not in PARTS}
        accuracy = self.trained.get(record["method"])
        trained = {} if accuracy is None else {"trained_certified": accuracy}
        return facts | {part: record[part] for part in PARTS} | trained

    def _record(self, method: Method, key: str) -> dict[str, Any]:
        """What an earlier call with the same settings has measured, or a record without measurements."""
        file = self._part_file(method.label)
        fresh = {"key": key, "method": method.label, "sound": method.sound}
        if not file.exists():
            return fresh
        try:
            known = read_json(file)
        except UserError:
            return fresh  # a damaged partial result is measured again
        return known if known.get("key") == key else fresh

    def _part_file(self, label: str) -> Path:
        return self.folder / "parts" / (re.sub(r"[^\w.=-]+", "_", label) + ".json")

    def _key(self, weights: str, method: Method) -> str:
        """What a partial result depends on."""
        subject = self.subject
        source = subject.registry.source(method.name)
        code = Path(source).read_bytes() if Path(source).is_file() else source.encode()
        where = repr((subject.region.data_range, subject.region.unit))
        facts = (
            FORMAT,
            weights,
            subject.name,
            subject.dataset.name,
            where,
            astuple(self.protocol),
            method.label,
            method.sound,
            versions(),
        )
        return hashlib.sha256(repr(facts).encode() + code).hexdigest()


def _smoothed_notes(protocol: Protocol) -> list[str]:
    if protocol.smoothing is None:
        return []
    copies = 2 * protocol.smoothing.pairs
    return [
        f"Continuity and sensitivity are those of the loss and the margins averaged over noise on the weights, "
        f"{protocol.smoothing.label}: the mean of {copies} noisy copies, the same noise at every point. A mean of so many "
        f"still jumps, {copies} times as often by a {copies}th; the expectation does not. Tightness is without noise."
    ]
