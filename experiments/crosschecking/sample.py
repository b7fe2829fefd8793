"""Some of the verdicts that `plugin.evaluate --complete` kept, the same number of each rung as far as there are."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from newrelax.errors import UserError
from plugin.certification.verdicts import VERDICTS, Line
from plugin.process.journal import QUESTION


def read_verdicts(folder: Path) -> tuple[dict[str, Any], list[Line]]:
    """The question of a folder, and its verdicts in the order of the images.

    Raises:
        UserError: it holds none.
    """
    path = folder / QUESTION
    if not path.is_file() or not (folder / VERDICTS).is_file():
        raise UserError(f"{folder} holds no verdicts: expected a folder made by python -m plugin.evaluate --complete")
    question = dict(json.loads(path.read_text(encoding="utf-8")))
    lines = [line for text in (folder / VERDICTS).read_text(encoding="utf-8").splitlines() if (line := _line(text))]
    return question, sorted(lines, key=lambda line: line.image)


def _line(text: str) -> Line | None:
    """A verdict; None for a line that is being written, or was cut short."""
    try:
        values = json.loads(text)
    except ValueError:
        return None
    return Line.from_json(values)


def verdict_folder(run: Path | None, given: Path | None) -> Path:
    """The folder that was given, or the only one in the run's. Raises UserError where there is none or a choice."""
    if given is not None:
        return given
    if run is None:
        raise UserError("expected --verdicts FOLDER, or --run DIR with verdicts in it")
    found = sorted(path.parent for path in run.glob(f"complete-eps*/{QUESTION}"))
    if len(found) != 1:
        names = ", ".join(path.name for path in found) or "none"
        raise UserError(f"{run}: expected one folder of verdicts, got {names}: {_ADVICE[bool(found)]}")
    return found[0]


_ADVICE = {True: "choose one with --verdicts", False: "make them with python -m plugin.evaluate --run … --complete"}


def sample(lines: Iterable[Line], count: int) -> list[Line]:
    """At most `count` decided lines: from each rung in turn, spread over its images; in the order of the images."""
    rungs: dict[str, list[Line]] = defaultdict(list)
    for line in lines:
        if line.rung:
            rungs[line.rung].append(line)
    shares = _shares([len(each) for each in rungs.values()], count)
    chosen = [line for share, each in zip(shares, rungs.values(), strict=True) for line in _spread(each, share)]
    return sorted(chosen, key=lambda line: line.image)


def _shares(sizes: list[int], count: int) -> list[int]:
    """How many to take of each size, as equal as can be, `count` in all where there are so many."""
    shares = [0] * len(sizes)
    while sum(shares) < min(count, sum(sizes)):
        _, least = min((share, i) for i, share in enumerate(shares) if share < sizes[i])
        shares[least] += 1
    return shares


def _spread(lines: list[Line], count: int) -> list[Line]:
    return [lines[i * len(lines) // count] for i in range(count)]
