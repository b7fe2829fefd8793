"""A table's report as a document: accuracies beside the paper's, properties, pictures, and what is missing."""

from __future__ import annotations

from collections.abc import Sequence

from experiments.reporting.accuracies import accuracy_grids, accuracy_table, property_line, property_table
from experiments.reporting.paper import paper_figures
from experiments.reporting.pictures import draw_curves, draw_heatmap, draw_tightness, row_label
from experiments.reporting.properties import Measurements
from experiments.reporting.summary import Row
from experiments.runner.grid import Table, file_name
from newrelax.document import Block, Bullets, Heading, Paragraph, Picture

_REMARKS = (
    "Accuracies in percent of the test set. ± is the sample standard deviation over seeds (n − 1), left out for a "
    "single seed. What all measured figures of a table share stands above it, what only some do beside them."
)

_DIFFERENCE = "Difference: measured minus the paper's certified accuracy, in percentage points."

_SHORTENED = (
    "×0.05: the part of the recipe's epochs that was run, the whole schedule in proportion; n 2,000: that many training "
    "images; test 500: the first test images; lr 0.002: that in place of the recipe's. Without any of these the whole recipe "
    "was run on all images."
)

_EXACT = (
    "Exact: the share of the test set that a ladder of certifiers verified, each image climbing until it is verified or "
    "falsified. What stayed undecided in its time does not count; its share stands beside the figure."
)


def build_report(table: Table, rows: Sequence[Row], measured: Measurements, certified: Sequence[Row]) -> list[Block]:
    """The report's blocks.  `measured`: the relaxations' properties; `certified`: rows of another table, for one that
    only analyses."""
    remarks = [_REMARKS, *([_DIFFERENCE] if any(row.difference is not None for row in rows) else [])]
    remarks += [_SHORTENED] if any(row.shortened for row in rows) else []
    blocks: list[Block] = [Heading(table.title, 1), Paragraph(" ".join(remarks))]
    blocks += [Paragraph(_EXACT)] if table.decision else []
    blocks += _settings(rows)
    if not table.grids:
        blocks += _analysis_blocks(measured, certified)
    for group in _groups(table, rows):
        blocks += _group_blocks(table, group, measured)
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
    ladders = dict.fromkeys(f"{each['ladder']}, {each['timeout']:g} s an image" for row in rows for each in row.verdicts)
    items += [f"Ladder: {'; '.join(ladders)}"] if ladders else []
    return [Bullets(items)] if items else []


def _analysis_blocks(measured: Measurements, certified: Sequence[Row]) -> list[Block]:
    network = Paragraph(f"Measured on a fixed network: {measured.network}.")
    blocks: list[Block] = [Heading("Properties"), network, *property_table(measured, certified)]
    paper = [figure for figure in paper_figures() if figure.tightness is not None]
    if svg := draw_tightness(certified, measured.properties, "Certified accuracy and tightness", paper):
        blocks.append(Picture("tightness", "certified accuracy over tightness", svg))
    return blocks


def _groups(table: Table, rows: Sequence[Row]) -> list[list[Row]]:
    groups: dict[tuple[str, ...], list[Row]] = {}
    for row in rows:
        groups.setdefault(tuple(str(row.cell.get(axis, "")) for axis in table.layout.group), []).append(row)
    return list(groups.values())


def _group_blocks(table: Table, rows: Sequence[Row], measured: Measurements) -> list[Block]:
    values = [str(rows[0].cell[axis]) for axis in table.layout.group if axis in rows[0].cell]
    name, slug = ", ".join(values) or table.name, file_name(*values) or table.name
    lengths = {row.shortened for row in rows if row.results}
    title = " — ".join(filter(None, (name, ", ".join(*lengths) if len(lengths) == 1 else "")))
    blocks: list[Block] = [Heading(name)] if values else []
    if table.layout.heatmap:
        vertical, horizontal = table.layout.heatmap
        for kind, grid in accuracy_grids(table, rows).items():
            blocks += [Heading(f"{kind[0].upper()}{kind[1:]} accuracy", 3), *grid]
            if kind == "certified" and (svg := draw_heatmap(rows, vertical, horizontal, title)):
                blocks.append(Picture(f"heatmap-{slug}", f"certified accuracy over {vertical} and {horizontal}, {name}", svg))
    else:
        blocks += [*property_line(rows, measured), *accuracy_table(table, rows, measured), *_ranking(rows)]
    if svg := draw_tightness(rows, measured.properties, title):
        blocks.append(Picture(f"tightness-{slug}", f"certified accuracy over tightness, {name}", svg))
    if svg := draw_curves(rows, title):
        blocks.append(Picture(f"training-{slug}", f"certified accuracy over training, {name}", svg))
    return blocks


def _ranking(rows: Sequence[Row]) -> list[Block]:
    """The order by certified accuracy, what the paradox is about; none between recipes of different lengths."""
    ranked = sorted((row for row in rows if row.certified), key=lambda row: -row.certified.mean)  # type: ignore[union-attr]
    if len(ranked) < 2 or len({row.shortened for row in ranked}) > 1:
        return []
    order = ", ".join(f"{row_label(row)} {row.certified.mean:.2f}" for row in ranked if row.certified)
    return [Paragraph(f"Certified accuracy, best first: {order}.")]


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


def _run_name(row: Row) -> str:
    return ", ".join([*(str(row.cell[axis]) for axis in ("dataset", "model") if axis in row.cell), row_label(row)])
