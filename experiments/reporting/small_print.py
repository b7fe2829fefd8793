"""Small print of figures: how the recipe behind them was shortened, what they leave out; said once, as high as it is true."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from newrelax.document import Block, Cell, Grid, Paragraph

NOTHING = "—"


@dataclass(frozen=True)
class Field:
    """A table's field whose small print, `notes`, has not found its place yet; `measured`: whether a figure stands in it."""

    text: str
    notes: tuple[str, ...] = ()
    measured: bool = False

    def without(self, notes: Sequence[str]) -> Field:
        """The field when these notes are said elsewhere."""
        return replace(self, notes=tuple(note for note in self.notes if note not in notes))


def shared(fields: Iterable[Field]) -> tuple[str, ...]:
    """The notes of every measured field, in the first one's order; none without a measured field."""
    measured = [field for field in fields if field.measured]
    return tuple(note for note in measured[0].notes if all(note in other.notes for other in measured)) if measured else ()


def arrange(header: Sequence[str], rows: Sequence[Sequence[Field]], *, by_row: bool) -> list[Block]:
    """A table below a line of the small print that all its measured figures share.

    `by_row`: a row is something of its own (not only a value of an axis), so that what its figures share stands in a last
    column, `recipe`, and what a column's share in the line above.  The rest stands in the field it belongs to.  Columns
    that say nothing in any row are left out, but for the first.
    """
    common = shared(field for row in rows for field in row)
    rows = [[field.without(common) for field in row] for row in rows]
    line = [", ".join(common)] if common else []
    if by_row:
        recipes = [shared(row) for row in rows]
        rows = [[field.without(recipe) for field in row] for row, recipe in zip(rows, recipes, strict=True)]
        for number, name in enumerate(header):
            column = [row[number] for row in rows if row[number].measured]
            if len(column) > 1 and (notes := shared(column)):
                line.append(f"{name}: {', '.join(notes)}")
                rows = [[*row[:number], row[number].without(notes), *row[number + 1 :]] for row in rows]
        header = [*header, "recipe"]
        rows = [[*row, Field(", ".join(recipe))] for row, recipe in zip(rows, recipes, strict=True)]
    said = [number for number in range(len(header)) if not number or any(row[number].text not in ("", NOTHING) for row in rows)]
    lines = [[Cell(row[number].text, ", ".join(row[number].notes)) for number in said] for row in rows]
    above = [Paragraph(f"Behind each measured figure: {'; '.join(line)}.")] if line else []
    return [*above, Grid.of([header[number] for number in said], lines)]
