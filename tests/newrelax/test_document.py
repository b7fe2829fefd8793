"""One document, written out in four ways: nothing of it is lost, and no sign in a text is taken for one of the format's."""

from __future__ import annotations

import base64
import csv as csv_module
import html.parser

import pytest

from newrelax.document import (
    Block,
    Bullets,
    Cell,
    Column,
    Definitions,
    Details,
    Grid,
    Heading,
    Paragraph,
    Picture,
    csv,
    markdown,
    page,
    text,
    verdict,
)

GRID = Grid.of(
    [Column("run", "Which one."), "accuracy"],
    [["a|b", Cell("81.2", "n 2,000")], ["<c>", verdict(True)], ["d", verdict(False)], ["e", verdict(None)]],
)
BLOCKS: list[Block] = [
    Heading("A & B", 1),
    Paragraph("1 < 2"),
    Bullets(["one", "two"]),
    Definitions({"run": "Which <one>."}),
    GRID,
    Picture("curve", "a curve", b"<svg/>", caption="It rises."),
    Details("More", [Paragraph("folded")]),
]


class Reader(html.parser.HTMLParser):
    """The texts and tags of a page, and the attributes that were seen; every tag must be closed in order."""

    def __init__(self, source: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.texts: list[str] = []
        self.attributes: list[tuple[str, str, str | None]] = []
        self.feed(source)
        assert not self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.attributes += [(tag, name, value) for name, value in attrs]
        if tag not in ("meta", "img"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.texts.append(data.strip())


def test_markdown_has_every_block_in_github_s_spelling() -> None:
    assert markdown(BLOCKS) == (
        "# A & B\n\n1 < 2\n\n- one\n- two\n\n- **run**: Which <one>.\n\n"
        "| run | accuracy |\n| :-- | --: |\n| a\\|b | 81.2 <sub>n 2,000</sub> |\n| <c> | ✓ |\n| d | ✗ |\n| e | ? |\n\n"
        "![a curve](curve.svg)\n\nIt rises.\n\n<details><summary>More</summary>\n\nfolded\n\n</details>\n"
    )


def test_a_page_has_the_same_texts_whatever_signs_they_hold() -> None:
    reader = Reader(page("A & B", BLOCKS))
    wanted = ["A & B", "1 < 2", "one", "two", "Which <one>.", "a|b", "81.2", "n 2,000", "<c>", "✓", "✗", "It rises.", "folded"]
    assert [each for each in wanted if each not in reader.texts] == []


def test_a_page_needs_nothing_but_itself() -> None:
    attributes = Reader(page("", [Picture("p", "", b"\x89PNG", "png")])).attributes
    (source,) = [value for _, name, value in attributes if name in ("src", "href")]
    assert source == "data:image/png;base64," + base64.b64encode(b"\x89PNG").decode()


def test_a_page_explains_columns_and_colours_verdicts() -> None:
    attributes = Reader(page("", [GRID])).attributes
    assert ("th", "title", "Which one.") in attributes
    assert [value for tag, name, value in attributes if (tag, name) == ("td", "class")] == ["good", "bad"]


def test_csv_is_read_back() -> None:
    lines = list(csv_module.reader(csv(GRID).splitlines()))
    assert lines == [["run", "accuracy"], ["a|b", "81.2"], ["<c>", "✓"], ["d", "✗"], ["e", "?"]]


@pytest.mark.parametrize(
    ("grid", "lines"),
    [
        pytest.param(GRID, ["  run  accuracy", "  a|b  81.2 (n 2,000)", "  <c>  ✓", "  d    ✗", "  e    ?"], id="with heads"),
        pytest.param(Grid.of(["", ""], [["long", ""], ["s", "x"]]), ["  long", "  s     x"], id="headless"),
        pytest.param(Grid.of(["", ""], []), [""], id="empty"),
    ],
)
def test_text_puts_columns_side_by_side(grid: Grid, lines: list[str]) -> None:
    assert text(grid).split("\n") == lines


def test_a_row_of_another_length_is_refused() -> None:
    with pytest.raises(ValueError, match="a row of 1 cells in a grid of 2 columns"):
        Grid.of(["a", "b"], [["1"]])
