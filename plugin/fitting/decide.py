"""`plugin.evaluate --complete`: every example of a subject decided, kept in a folder, shown as table, JSON and picture."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from plugin.certification.complete import Work, decide_all
from plugin.certification.verdicts import Line, Store, Summary
from plugin.fitting.subject import Subject
from plugin.process.device import device_name
from plugin.process.files import write_atomically, write_json
from plugin.process.lock import locked
from plugin.process.tensors import weights_digest
from plugin.runs.folder import verdicts_folder
from plugin.runs.versions import versions

SUMMARY, PICTURE, LOCK = "complete.json", "decided.png", ".lock"


def default_folder(run: Path | None, subject: Subject, eps: float) -> Path:
    """Where verdicts are kept unless somebody says otherwise: in the run's folder, or in verdicts/."""
    if run is not None:
        return verdicts_folder(run, eps)
    weights = "untrained" if subject.weights is None else subject.weights.stem
    return Path("verdicts") / f"{Path(subject.name).name}-{subject.dataset.name}-{weights}-eps{eps:g}"


def decide(
    subject: Subject, work: Work, folder: Path, *, limit: int | None = None, jobs: int = 1
) -> tuple[Summary, dict[str, Any]]:
    """Decides the first `limit` test examples, or all. Returns the summary, and what is written to complete.json.

    Raises:
        UserError: the folder holds verdicts of another question, or another process decides there.
    """
    x, y = subject.dataset.test_x[:limit].cpu(), subject.dataset.test_y[:limit].cpu()
    facts = {"model": subject.name, "weights": weights_digest(subject.model), "dataset": subject.dataset.name, **work.facts()}
    folder.mkdir(parents=True, exist_ok=True)
    with locked(folder / LOCK):  # two processes would decide the same examples
        store = Store(folder, facts)
        summary = decide_all(work, x, y, store, jobs=jobs)
    values = {
        "model": subject.name,
        "dataset": subject.dataset.name,
        "weights": str(subject.weights),
        **work.facts(),
        **summary.to_json(),
        "device": device_name(subject.dataset.test_x.device),
        "versions": versions(),
    }
    write_json(folder / SUMMARY, values)
    write_atomically(folder / PICTURE, picture([store.lines[number] for number in range(len(y))]))
    return summary, values


def head(subject: Subject, work: Work, summary: Summary) -> str:
    """The table's first line."""
    return f"{subject.name} on {subject.dataset.name}, eps {work.eps:.4g}, {summary.count} test images, {work.seconds:g} s each"


def picture(lines: Sequence[Line]) -> bytes:
    """The share of examples decided within so many seconds each, for each rung on top of those before it; a PNG."""
    from matplotlib.figure import Figure  # brings a second that other commands need not wait for

    figure = Figure(figsize=(6, 4), layout="constrained")
    axes = figure.subplots()
    ordered = sorted((line for line in lines if line.rung), key=lambda line: line.seconds)
    seconds = [max(line.seconds, 1e-3) for line in ordered]
    axes.step(seconds, [100 * (i + 1) / len(lines) for i in range(len(ordered))], where="post", color="black")
    for rung in dict.fromkeys(line.rung for line in ordered):
        times = [max(line.seconds, 1e-3) for line in ordered if line.rung == rung]
        axes.step(times, [100 * (i + 1) / len(lines) for i in range(len(times))], where="post", label=f"{rung}: {len(times)}")
    axes.set(xscale="log", xlabel="seconds an image", ylabel="decided, % of the images", ylim=(0, 101))
    axes.legend(fontsize="small")
    from plugin.analysis.figures import png

    return png(figure)
