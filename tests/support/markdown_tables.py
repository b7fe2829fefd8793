"""Markdown tables read back: their cells as texts, and whether a cell shows what was committed."""

from __future__ import annotations

import re
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path

from newrelax.document import NO, YES


@dataclass(frozen=True)
class Grid:
    """A Markdown table: its header and rows as texts without emphasis and links, and the section that it stands in."""

    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    section: str

    @property
    def is_measured(self) -> bool:
        """Whether most of its cells, but for the first column, are figures or verdicts."""
        cells = [cell for row in self.rows for cell in row[1:]]
        return sum(bool(re.match(rf"[≤+-]? ?(\d|{YES}|{NO})", cell)) for cell in cells) > len(cells) / 2


def grids(text: str) -> list[Grid]:
    """The tables of a Markdown document, outside of code blocks."""
    found: list[Grid] = []
    for section in re.split(r"^(?=#+ )", re.sub(r"^```.*?^```$", _quoted, text, flags=re.M | re.S), flags=re.M):
        for block in re.findall(r"(?:^\|.*\n?)+", section, flags=re.M):
            header, _, *rows = [tuple(map(plain, line.strip().strip("|").split("|"))) for line in block.splitlines()]
            found.append(Grid(header, tuple(rows), section))
    return found


def has_command(section: str, folder: Path) -> bool:
    """Whether a section shows a command line, or links to a page that does."""
    pages = [folder / link for link in re.findall(r"\]\(([^)#:]+\.md)\)", section)]
    return any("python -m " in text for text in (section, *(page.read_text() for page in pages if page.exists())))


def _quoted(code: re.Match[str]) -> str:
    """A code block that holds no heading and no table."""
    return re.sub(r"^", "    ", code[0], flags=re.M)


def plain(cell: str) -> str:
    """A cell without emphasis and links."""
    return re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", cell).replace("*", "").replace("−", "-").strip()


def agree(shown: str, committed: str) -> bool:
    """Whether each figure and verdict of a cell is the committed one at its place, rounded to the digits that it shows."""
    ours, theirs = figures(shown), figures(committed)
    return len(ours) <= len(theirs) and all(map(_rounded, ours, theirs))


def figures(text: str) -> list[str]:
    """The numbers and verdicts of a cell, in order."""
    return [each.replace(",", "") for each in re.findall(rf"[+-]?\d[\d,]*(?:\.\d+)?(?:e[+-]?\d+)?|{YES}|{NO}", text)]


def _rounded(ours: str, theirs: str) -> bool:
    if {ours, theirs} & {YES, NO}:
        return ours == theirs
    unit = Decimal(1).scaleb(int(Decimal(ours).as_tuple().exponent))
    return abs(Decimal(ours) - Decimal(theirs)) <= unit / 2
