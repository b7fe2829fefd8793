"""Documents as blocks: written out as Markdown, as one self-contained HTML page, as CSV, or as text for a terminal."""

from __future__ import annotations

import base64
import csv as csv_module
import html
import io
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, Self

YES, NO, UNKNOWN = "✓", "✗", "?"


def verdict(value: bool | None, unknown: str = UNKNOWN) -> str:
    """A verdict as a sign, which pages colour where it is all that a cell says."""
    return unknown if value is None else YES if value else NO


@dataclass(frozen=True)
class Heading:
    """A heading; `level` 1 is the title."""

    text: str
    level: int = 2


@dataclass(frozen=True)
class Paragraph:
    """Plain text."""

    text: str


@dataclass(frozen=True)
class Bullets:
    """A list of plain texts."""

    items: Sequence[str]


@dataclass(frozen=True)
class Definitions:
    """Terms, each with its meaning."""

    meanings: Mapping[str, str]


@dataclass(frozen=True)
class Column:
    """A column's head: its name, and what it means where that needs words (a page shows them under the pointer)."""

    name: str
    meaning: str = ""


@dataclass(frozen=True)
class Cell:
    """A table's field: a text and, smaller beside it, a remark that belongs to it."""

    text: str
    remark: str = ""


@dataclass(frozen=True)
class Grid:
    """A table: its columns, and rows as long as they are. `headless`: the columns have no names, and show none.

    Raises ValueError for a row of another length.
    """

    columns: Sequence[Column]
    rows: Sequence[Sequence[Cell]]

    def __post_init__(self) -> None:
        for row in self.rows:
            if len(row) != len(self.columns):
                raise ValueError(f"a row of {len(row)} cells in a grid of {len(self.columns)} columns")

    @classmethod
    def of(cls, header: Iterable[str | Column], rows: Iterable[Iterable[str | Cell]]) -> Self:
        """A grid whose heads and cells may be plain texts."""
        columns = tuple(Column(head) if isinstance(head, str) else head for head in header)
        return cls(columns, tuple(tuple(Cell(cell) if isinstance(cell, str) else cell for cell in row) for row in rows))

    @property
    def headless(self) -> bool:
        return not any(column.name for column in self.columns)


@dataclass(frozen=True)
class Picture:
    """A picture; `file`, its name beside the Markdown, comes from `name`. `text` describes it, `caption` stands below."""

    name: str
    text: str
    content: bytes
    kind: Literal["svg", "png"] = "svg"
    caption: str = ""

    @property
    def file(self) -> str:
        return f"{self.name}.{self.kind}"


@dataclass(frozen=True)
class Details:
    """Blocks that a reader unfolds from a line of summary."""

    summary: str
    blocks: Sequence[Block]


Block = Heading | Paragraph | Bullets | Definitions | Grid | Picture | Details


def markdown(blocks: Iterable[Block]) -> str:
    """GitHub-flavoured Markdown, ending in a newline; pictures are referred to by their file beside it."""
    return "\n\n".join(_markdown(block) for block in blocks) + "\n"


def page(title: str, blocks: Iterable[Block]) -> str:
    """One HTML page without anything outside of it."""
    body = "\n".join(_html(block) for block in blocks)
    head = '<meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">'
    head += f"<title>{html.escape(title)}</title><style>{_STYLE}</style>"
    return f'<!doctype html>\n<html lang="en"><head>{head}</head>\n<body>\n{body}\n</body></html>\n'


def csv(grid: Grid) -> str:
    """Comma-separated values under a line of the columns' names; remarks are left out."""
    buffer = io.StringIO()
    writer = csv_module.writer(buffer, lineterminator="\n")
    writer.writerow(column.name for column in grid.columns)
    writer.writerows([cell.text for cell in row] for row in grid.rows)
    return buffer.getvalue()


def text(grid: Grid, indent: str = "  ") -> str:
    """Columns side by side for a terminal, without an end of line; the last one is as wide as it is."""
    lines = [] if grid.headless else [[column.name for column in grid.columns]]
    lines += [[f"{cell.text} ({cell.remark})" if cell.remark else cell.text for cell in row] for row in grid.rows]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)][:-1]
    padded = ([*map(str.ljust, line[:-1], widths), line[-1]] for line in lines)
    return "\n".join((indent + "  ".join(line)).rstrip() for line in padded)


def _markdown(block: Block) -> str:
    match block:
        case Heading(words, level):
            return f"{'#' * level} {words}"
        case Paragraph(words):
            return words
        case Bullets(items):
            return "\n".join(f"- {item}" for item in items)
        case Definitions(meanings):
            return "\n".join(f"- **{term}**: {meaning}" for term, meaning in meanings.items())
        case Grid(columns, rows):
            head, rule = [column.name for column in columns], [":--", *["--:"] * (len(columns) - 1)]
            lines = [head, rule, *([_markdown_cell(cell) for cell in row] for row in rows)]
            return "\n".join(f"| {' | '.join(line)} |" for line in lines)
        case Picture(_, words, _, _, caption):
            return f"![{words}]({block.file})" + (f"\n\n{caption}" if caption else "")
        case Details(summary, inner):
            return f"<details><summary>{html.escape(summary)}</summary>\n\n{markdown(inner)}\n</details>"


def _markdown_cell(cell: Cell) -> str:
    words = cell.text.replace("|", "\\|")
    return f"{words} <sub>{cell.remark}</sub>" if cell.remark else words


def _html(block: Block) -> str:
    match block:
        case Heading(words, level):
            return f"<h{level}>{html.escape(words)}</h{level}>"
        case Paragraph(words):
            return f"<p>{html.escape(words)}</p>"
        case Bullets(items):
            return "<ul>" + "".join(f"<li>{html.escape(item)}</li>" for item in items) + "</ul>"
        case Definitions(meanings):
            entries = (f"<dt>{html.escape(term)}</dt><dd>{html.escape(words)}</dd>" for term, words in meanings.items())
            return f"<dl>{''.join(entries)}</dl>"
        case Grid(columns, rows):
            head = "" if block.headless else f"<thead><tr>{''.join(map(_html_head, columns))}</tr></thead>\n"
            body = "\n".join(f"<tr>{''.join(map(_html_cell, row))}</tr>" for row in rows)
            return f"<table>{head}<tbody>{body}</tbody></table>"
        case Picture(name, words, _, _, caption):
            below = f"<figcaption>{html.escape(caption)}</figcaption>" if caption else ""
            image = f'<img alt="{html.escape(words)}" src="{_data(block)}">'
            return f'<figure id="{html.escape(name)}">{image}{below}</figure>'
        case Details(summary, inner):
            return f"<details><summary>{html.escape(summary)}</summary>{''.join(map(_html, inner))}</details>"


def _html_head(column: Column) -> str:
    title = f' title="{html.escape(column.meaning)}"' if column.meaning else ""
    return f"<th{title}>{html.escape(column.name)}</th>"


def _html_cell(cell: Cell) -> str:
    kind = {YES: ' class="good"', NO: ' class="bad"'}.get(cell.text, "")
    remark = f" <sub>{html.escape(cell.remark)}</sub>" if cell.remark else ""
    return f"<td{kind}>{html.escape(cell.text)}{remark}</td>"


def _data(picture: Picture) -> str:
    # As an image of its own, so that the identifiers inside of one picture can't meet those of another.
    kind = {"svg": "image/svg+xml", "png": "image/png"}[picture.kind]
    return f"data:{kind};base64,{base64.b64encode(picture.content).decode()}"


_STYLE = """
:root { color-scheme: light dark; --line: #8884; --good: #2a7f3f; --bad: #c0392b; }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 70rem; margin: 2rem auto; padding: 0 1rem; }
table { border-collapse: collapse; margin: 1rem 0; display: block; overflow-x: auto; font-size: .9rem; }
th, td { padding: .3rem .6rem; border-bottom: 1px solid var(--line); text-align: right; white-space: nowrap; }
th:first-child, td:first-child { text-align: left; }
th { background: #8881; vertical-align: bottom; white-space: normal; }
th[title] { cursor: help; }
sub { display: block; width: 9em; white-space: normal; margin-left: auto; opacity: .7; font-size: .75em; line-height: 1.2; }
.good, .bad { font-weight: 700; font-size: 1.1rem; color: var(--good); }
.bad { color: var(--bad); }
figure { margin: 2rem 0; }
img { max-width: 100%; height: auto; background: #fff; }
figcaption { max-width: 75ch; margin-top: .4rem; }
details { margin: .5rem 0; }
dt { font-weight: 600; }
"""
