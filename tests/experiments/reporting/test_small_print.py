"""Small print stands once, as high as it is true: above the table, in a row's own column, or beside its figure."""

import pytest

from experiments.reporting.small_print import Field, arrange, shared
from newrelax.document import Grid, Paragraph


def measured(text, *notes):
    return Field(text, notes, measured=True)


NAME, ABSENT = Field("IBP"), Field("—")


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        pytest.param([], (), id="no field"),
        pytest.param([NAME, ABSENT], (), id="nothing measured"),
        pytest.param([measured("1", "n 5", "lr 1"), NAME, measured("2", "n 5", "lr 1")], ("n 5", "lr 1"), id="all agree"),
        pytest.param([measured("1", "n 5", "lr 1"), measured("2", "lr 1")], ("lr 1",), id="some differ"),
        pytest.param([measured("1", "n 5"), measured("2")], (), id="one says nothing"),
    ],
)
def test_shared_is_what_every_measured_field_says(fields, expected):
    assert shared(fields) == expected


CASES = [
    pytest.param(
        True,
        [[NAME, measured("1", "n 5"), measured("2", "n 5")], [NAME, measured("3", "n 5"), Field("missing")]],
        "n 5",
        ["run", "natural", "exact"],
        [["IBP", "1", "2"], ["IBP", "3", "missing"]],
        id="above the table",
    ),
    pytest.param(
        True,
        [[NAME, measured("1", "n 5"), measured("2", "n 5")], [NAME, measured("3"), measured("4")]],
        "",
        ["run", "natural", "exact", "recipe"],
        [["IBP", "1", "2", "n 5"], ["IBP", "3", "4", ""]],
        id="a column for rows that differ",
    ),
    pytest.param(
        True,
        [[NAME, measured("1"), measured("2", "first 9")], [NAME, measured("3"), measured("4", "first 9")]],
        "exact: first 9",
        ["run", "natural", "exact"],
        [["IBP", "1", "2"], ["IBP", "3", "4"]],
        id="of a whole column",
    ),
    pytest.param(
        True,
        [[NAME, measured("1", "n 5"), measured("2", "first 9", "n 5")], [NAME, measured("3", "n 5"), measured("4", "n 5")]],
        "n 5",
        ["run", "natural", "exact"],
        [["IBP", "1", "2 (first 9)"], ["IBP", "3", "4"]],
        id="of one figure",
    ),
    pytest.param(
        False,
        [[NAME, measured("1", "n 5", "×2"), measured("2", "n 5", "×2")], [NAME, measured("3", "n 5"), Field("missing")]],
        "n 5",
        ["run", "natural", "exact"],
        [["IBP", "1 (×2)", "2 (×2)"], ["IBP", "3", "missing"]],
        id="in the cells of a heatmap",
    ),
    pytest.param(
        True, [[NAME, measured("1"), ABSENT], [NAME, ABSENT, Field("")]], "", ["run", "natural"], [["IBP", "1"], ["IBP", "—"]],
        id="an empty column is left out",
    ),
]  # fmt: skip


@pytest.mark.parametrize(("by_row", "rows", "line", "header", "cells"), CASES)
def test_small_print_rises_as_far_as_it_is_true(by_row, rows, line, header, cells):
    *above, grid = arrange(["run", "natural", "exact"], rows, by_row=by_row)
    assert isinstance(grid, Grid)
    assert above == ([Paragraph(f"Behind each measured figure: {line}.")] if line else [])
    assert [column.name for column in grid.columns] == header
    assert [[f"{cell.text} ({cell.remark})" if cell.remark else cell.text for cell in row] for row in grid.rows] == cells


def test_nothing_is_lost():
    """Each figure's notes are all found again: above, in its row, or beside it."""
    rows = [[NAME, measured("1", "a", "b"), measured("2", "a", "b", "c")], [NAME, measured("3", "a", "d"), measured("4", "a")]]
    above, grid = arrange(["run", "natural", "exact"], rows, by_row=True)
    for row, cells in zip(rows, grid.rows, strict=True):
        for field, cell in zip(row[1:], cells[1:], strict=False):
            said = f"{above.text} {cells[-1].text} {cell.remark}"
            assert all(note in said for note in field.notes)
