"""A table's report as a document: accuracies beside the paper's, properties, pictures, and what is missing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from experiments.reporting.paper import paper_figures
from experiments.reporting.pictures import draw_curves, draw_heatmap, draw_tightness, row_label
from experiments.reporting.summary import Figure, Properties, Row
from experiments.runner.grid import Table
from newrelax.document import Block, Bullets, Cell, Grid, Heading, Paragraph, Picture, verdict

_REMARKS = (
    "Accuracies in percent of the test set. ± is the sample standard deviation over seeds (n − 1), left out for a "
    "single seed. Difference: measured minus the paper's certified accuracy, in percentage points. The small print "
    "beside a figure says how the recipe behind it was shortened: ×0.05, that part of its epochs (the whole schedule in "
    "proportion); n 2,000, that many training images; lr 0.002, that in place of the recipe's; without "
    "any, the whole recipe was run on all images."
)

_EXACT = (
    "Exact: the share of the test set that a ladder of certifiers verified, each image climbing until it is verified or "
    "falsified. What stayed undecided in its time does not count; its share stands beside the figure."
)


def build_report(
    table: Table, rows: Sequence[Row], properties: Mapping[str, Properties], certified: Sequence[Row]
) -> list[Block]:
    """The report's blocks.  `properties` by method; `certified`: rows of another table, for one that only analyses."""
    blocks: list[Block] = [Heading(table.title, 1), Paragraph(_REMARKS)]
    blocks += [Paragraph(_EXACT)] if table.decision else []
    blocks += _settings(rows)
    if table.analysis:
        blocks += [Heading("Properties"), _properties_grid(table, properties, certified)]
        paper = [figure for figure in paper_figures() if figure.tightness is not None]
        if svg := draw_tightness(certified, properties, "Certified accuracy and tightness", paper):
            blocks.append(Picture("tightness", "certified accuracy over tightness", svg))
    for group in _groups(table, rows):
        blocks += _group_blocks(table, group, properties)
    blocks += _gaps(rows)
    sources: dict[str, list[str]] = {}
    for row in rows:
        if row.paper:
            sources.setdefault(row.paper.source, []).append(_run_name(row))
    if sources:
        listing = [f"{source}: {'; '.join(names)}" for source, names in sources.items()]
        blocks += [Heading("Where the paper's figures are from"), Bullets(listing)]
    return blocks


def _settings(rows: Sequence[Row]) -> list[Block]:
    """What the figures were measured with, from the results themselves."""
    results = [result for row in rows for result in row.results]
    items = []
    for title, name in (("Device", "device"), ("Test images", "test_images"), ("ε", "eps")):
        values = dict.fromkeys(str(result[name]) for result in results if name in result)
        items += [f"{title}: {', '.join(values)}"] if values else []
    versions = dict.fromkeys(
        ", ".join(f"{name} {version}" for name, version in sorted(result["versions"].items()))
        for result in results
        if isinstance(result.get("versions"), dict)
    )
    items += [f"Versions: {line}" for line in versions]
    shortened = list(dict.fromkeys(row.shortened or "the whole recipe" for row in rows if row.results))
    items += [f"Length: {'; '.join(shortened)}"] if shortened else []
    ladders = dict.fromkeys(f"{each['ladder']}, {each['timeout']:g} s an image" for row in rows for each in row.verdicts)
    items += [f"Ladder: {'; '.join(ladders)}"] if ladders else []
    return [Bullets(items)] if items else []


def _groups(table: Table, rows: Sequence[Row]) -> list[list[Row]]:
    groups: dict[tuple[str, ...], list[Row]] = {}
    for row in rows:
        groups.setdefault(tuple(str(row.cell.get(axis, "")) for axis in table.layout.group), []).append(row)
    return list(groups.values())


def _group_blocks(table: Table, rows: Sequence[Row], properties: Mapping[str, Properties]) -> list[Block]:
    name = ", ".join(str(rows[0].cell[axis]) for axis in table.layout.group if axis in rows[0].cell)
    lengths = "; ".join(dict.fromkeys(row.shortened for row in rows if row.results and row.shortened))
    title = " — ".join(filter(None, (name or table.name, lengths)))
    slug = "-".join(filter(None, (name.replace(", ", "-"),))) or table.name
    blocks: list[Block] = [Heading(name)] if name else []
    if table.layout.heatmap:
        blocks += _heatmap_blocks(table, rows, slug, title)
    else:
        blocks += [_rows_grid(table, rows), *_ranking(table, rows)]
    if (svg := draw_tightness(rows, properties, title)) and not table.analysis:
        blocks.append(Picture(f"tightness-{slug}", f"certified accuracy over tightness, {title}", svg))
    if svg := draw_curves(rows, title):
        blocks.append(Picture(f"training-{slug}", f"certified accuracy over training, {title}", svg))
    return blocks


def _rows_grid(table: Table, rows: Sequence[Row]) -> Grid:
    baseline = next((row for row in rows if row.cell.get("method") == table.layout.baseline), None)
    header = ["run", "natural", "PGD", "certified", *(["exact"] if table.decision else []), "paper certified", "difference"]
    header += [f"against {table.layout.baseline}"] if table.layout.baseline else []
    header += ["epochs", "seeds"]
    lines: list[list[str | Cell]] = []
    for row in rows:
        paper = "—" if row.paper is None or row.paper.certified is None else f"{row.paper.certified:g}"
        line: list[str | Cell] = [row_label(row), *(_cell(row, each) for each in (row.natural, row.pgd)), _certified_cell(row)]
        line += [_exact_cell(row)] if table.decision else []
        line += [paper, _signed(row, row.difference)]
        if table.layout.baseline:
            line.append(_signed(row, _against(row, baseline)))
        epochs = "/".join(dict.fromkeys(str(result.get("epochs", "")) for result in row.results))
        line += [epochs or "—", f"{len(row.seeds)} of {len(row.seeds) + len(row.missing)}"]
        lines.append(line)
    return Grid.of(header, lines)


def _ranking(table: Table, rows: Sequence[Row]) -> list[Block]:
    """The order by certified accuracy: what the paradox is about."""
    ranked = sorted((row for row in rows if row.certified), key=lambda row: -row.certified.mean)  # type: ignore[union-attr]
    if len(ranked) < 2:
        return []
    order = ", ".join(f"{row_label(row)} {row.certified.mean:.2f}" for row in ranked if row.certified)
    remark = f" ({ranked[0].shortened})" if ranked[0].shortened else ""
    return [Paragraph(f"Certified accuracy, best first{remark}: {order}.")]


def _heatmap_blocks(table: Table, rows: Sequence[Row], slug: str, title: str) -> list[Block]:
    vertical, horizontal = table.layout.heatmap
    down = list(dict.fromkeys(row.cell[vertical] for row in rows))
    across = list(dict.fromkeys(row.cell[horizontal] for row in rows))
    at = {(row.cell[vertical], row.cell[horizontal]): row for row in rows}
    blocks: list[Block] = []
    for name in ("certified", *(["exact"] if table.decision else []), "PGD", "natural"):
        lines = []
        for y in down:
            line = [Cell(str(y))]
            for x in across:
                row = at.get((y, x))
                if row is None:
                    line.append(Cell("—"))
                elif name == "certified":
                    line.append(_certified_cell(row))
                elif name == "exact":
                    line.append(_exact_cell(row))
                else:
                    line.append(_cell(row, row.pgd if name == "PGD" else row.natural))
            lines.append(line)
        header = [f"{vertical} \\ {horizontal}", *map(str, across)]
        blocks += [Heading(f"{name[0].upper()}{name[1:]} accuracy", 3), Grid.of(header, lines)]
        if name == "certified" and (svg := draw_heatmap(rows, vertical, horizontal, title)):
            blocks.append(Picture(f"heatmap-{slug}", f"certified accuracy over {vertical} and {horizontal}, {title}", svg))
    return blocks


def _properties_grid(table: Table, properties: Mapping[str, Properties], certified: Sequence[Row]) -> Grid:
    assert table.analysis is not None
    network = table.analysis.options
    header = ["relaxation", "tightness", "paper", "continuity", "paper", "sensitivity", "paper", "certified", "paper"]
    lines = []
    for method in table.analysis.methods:
        found = properties.get(method)
        where = {"dataset": network.get("dataset"), "model": network.get("model"), "method": method}
        paper = next((f for f in paper_figures() if f.where == where), None)
        row = next((r for r in certified if all(r.options.get(k) == v for k, v in where.items())), None)
        lines.append(
            [
                Cell(method),
                Cell("missing" if found is None or found.tightness is None else _text(found.tightness)),
                Cell("—" if paper is None or paper.tightness is None else f"{paper.tightness:g}"),
                Cell("missing" if found is None else verdict(found.continuous, "—")),
                Cell(verdict(paper.continuous if paper else None, "—")),
                Cell("missing" if found is None else verdict(found.insensitive, "—")),
                Cell(verdict(paper.insensitive if paper else None, "—")),
                Cell("missing") if row is None else _certified_cell(row),
                Cell("—" if paper is None or paper.certified is None else f"{paper.certified:g}"),
            ]
        )
    return Grid.of(header, lines)


def _gaps(rows: Sequence[Row]) -> list[Block]:
    blocks: list[Block] = []
    failed = [f"{_run_name(row)}, seed {seed}: {message}" for row in rows for seed, message in row.failures.items()]
    if failed:
        blocks += [Heading("Failed"), Bullets(failed)]
    missing = [
        f"{_run_name(row)}: seed{'s' if len(row.missing) > 1 else ''} {', '.join(map(str, row.missing))}"
        for row in rows
        if row.missing
    ]
    missing += [f"{_run_name(row)}: verdicts of seed {', '.join(map(str, row.unsettled))}" for row in rows if row.unsettled]
    if missing:
        blocks += [Heading("Missing"), Bullets(missing)]
    return blocks


def _cell(row: Row, figure: Figure | None) -> Cell:
    if figure is None:
        return Cell("failed" if row.failures else "missing")
    return Cell(_text(figure), row.shortened)


def _certified_cell(row: Row) -> Cell:
    if row.estimated is not None:
        remark = ", ".join(filter(None, ("estimate, not certified", row.shortened)))
        return Cell(_text(row.estimated), remark)
    return _cell(row, row.certified)


def _exact_cell(row: Row) -> Cell:
    if row.exact is None or row.undecided is None:
        return _cell(row, None)
    counts = {each["count"] for each in row.verdicts} - {each.get("test_images") for each in row.results}
    parts = [f"undecided {row.undecided.mean:.2f}"] if row.undecided.mean else []
    parts += [f"{len(row.verdicts)} of {len(row.seeds)} seeds"] if row.unsettled else []
    parts += [f"first {count:,} images" for count in sorted(counts)]
    return Cell(_text(row.exact), ", ".join(filter(None, (*parts, row.shortened))))


def _text(figure: Figure) -> str:
    return f"{figure.mean:.2f}" + (f" ± {figure.spread:.2f}" if figure.spread is not None else "")


def _signed(row: Row, value: float | None) -> Cell:
    return Cell("—") if value is None else Cell(f"{value:+.2f}", row.shortened)


def _against(row: Row, baseline: Row | None) -> float | None:
    """Certified accuracy minus the baseline's; None where they were shortened differently."""
    if baseline is None or row is baseline or not row.certified or not baseline.certified:
        return None
    return row.certified.mean - baseline.certified.mean if row.shortened == baseline.shortened else None


def _run_name(row: Row) -> str:
    return ", ".join([*(str(row.cell[axis]) for axis in ("dataset", "model") if axis in row.cell), row_label(row)])
