"""The paper's own figures, from `paper.toml`, to lay beside the measured ones."""

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from experiments.runner.options import Scalar


@dataclass(frozen=True)
class PaperFigure:
    """What the paper (or its released weights, see `source`) gives for some runs.

    `certified` in percent; `tightness`: mean certified radius × 100; `continuous` and `insensitive`: the paper's
    verdicts, True where favourable.  None: not given.
    """

    where: Mapping[str, Scalar]
    source: str
    certified: float | None = None
    tightness: float | None = None
    continuous: bool | None = None
    insensitive: bool | None = None


@cache
def paper_figures() -> tuple[PaperFigure, ...]:
    """All figures of `paper.toml`."""
    data = tomllib.loads((Path(__file__).parent / "paper.toml").read_text(encoding="utf-8"))
    return tuple(PaperFigure(**figure) for figure in data["figure"])


def find_paper_figure(options: Mapping[str, Scalar]) -> PaperFigure | None:
    """The figure for a run with these trainer options, if the paper has one (at the data set's usual ε)."""
    for figure in paper_figures():
        if all(options.get(name) == value for name, value in figure.where.items()) and "eps" not in options:
            return figure
    return None
