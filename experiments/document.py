"""A report as blocks, written out as Markdown or as one self-contained HTML page."""

import base64
import html
from collections.abc import Sequence
from dataclasses import dataclass

_STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; max-width: 70rem; margin: 2rem auto; padding: 0 1rem; color: #1b1b1b; }
table { border-collapse: collapse; margin: 1rem 0; display: block; overflow-x: auto; }
th, td { padding: .3rem .7rem; border-bottom: 1px solid #ddd; text-align: right; white-space: nowrap; }
th:first-child, td:first-child { text-align: left; }
th { background: #f5f5f5; }
sub { display: block; width: 9em; white-space: normal; margin-left: auto; color: #666; font-size: .75em; line-height: 1.2; }
img { max-width: 100%; height: auto; }
"""


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
class Cell:
    """A table's field: a text and, smaller beside it, a remark that belongs to it."""

    text: str
    remark: str = ""


@dataclass(frozen=True)
class Grid:
    """A table: `header`, then rows as long as it."""

    header: Sequence[str]
    rows: Sequence[Sequence[Cell]]


@dataclass(frozen=True)
class Picture:
    """An SVG picture; `name` becomes its file beside the Markdown, `text` describes it."""

    name: str
    text: str
    svg: bytes


Block = Heading | Paragraph | Bullets | Grid | Picture


def to_markdown(blocks: Sequence[Block]) -> str:
    """GitHub-flavoured Markdown; pictures are referred to as NAME.svg beside it."""
    return "\n\n".join(_markdown(block) for block in blocks) + "\n"


def to_html(blocks: Sequence[Block], title: str) -> str:
    """One page without anything outside of it."""
    body = "\n".join(_html(block) for block in blocks)
    head = f'<meta charset="utf-8"><title>{html.escape(title)}</title><style>{_STYLE}</style>'
    return f'<!doctype html>\n<html lang="en"><head>{head}</head>\n<body>\n{body}\n</body></html>\n'


def _markdown(block: Block) -> str:
    match block:
        case Heading(text, level):
            return f"{'#' * level} {text}"
        case Paragraph(text):
            return text
        case Bullets(items):
            return "\n".join(f"- {item}" for item in items)
        case Grid(header, rows):
            lines = [header, [":--", *["--:"] * (len(header) - 1)], *([_markdown_cell(c) for c in row] for row in rows)]
            return "\n".join(f"| {' | '.join(line)} |" for line in lines)
        case Picture(name, text, _):
            return f"![{text}]({name}.svg)"


def _markdown_cell(cell: Cell) -> str:
    text = cell.text.replace("|", "\\|")
    return f"{text} <sub>{cell.remark}</sub>" if cell.remark else text


def _html(block: Block) -> str:
    match block:
        case Heading(text, level):
            return f"<h{level}>{html.escape(text)}</h{level}>"
        case Paragraph(text):
            return f"<p>{html.escape(text)}</p>"
        case Bullets(items):
            return "<ul>" + "".join(f"<li>{html.escape(item)}</li>" for item in items) + "</ul>"
        case Grid(header, rows):
            head = "".join(f"<th>{html.escape(name)}</th>" for name in header)
            body = "\n".join("<tr>" + "".join(f"<td>{_html_cell(cell)}</td>" for cell in row) + "</tr>" for row in rows)
            return f"<table><thead><tr>{head}</tr></thead>\n<tbody>{body}</tbody></table>"
        case Picture(_, text, svg):
            # As an image, so that the identifiers inside of one picture can't meet those of another.
            data = base64.b64encode(svg).decode()
            return f'<p><img alt="{html.escape(text)}" src="data:image/svg+xml;base64,{data}"></p>'


def _html_cell(cell: Cell) -> str:
    remark = f" <sub>{html.escape(cell.remark)}</sub>" if cell.remark else ""
    return html.escape(cell.text) + remark
