"""Pictures of a table, as SVG: the same bytes for the same figures."""

import io
from collections.abc import Mapping, Sequence

import matplotlib
from matplotlib.figure import Figure as Canvas

from experiments.reporting.paper import PaperFigure
from experiments.reporting.properties import Properties
from experiments.reporting.summary import Row

# Two verdicts, four colours that are told apart without seeing red and green.
_VERDICT_COLOURS: Mapping[tuple[bool | None, bool | None], tuple[str, str]] = {
    (True, True): ("#0072b2", "continuous, insensitive"),
    (True, False): ("#56b4e9", "continuous, sensitive"),
    (False, True): ("#e69f00", "discontinuous, insensitive"),
    (False, False): ("#d55e00", "discontinuous, sensitive"),
}
_UNKNOWN = ("#999999", "verdicts unknown")


def draw_tightness(
    rows: Sequence[Row], properties: Mapping[str, Properties], title: str, paper: Sequence[PaperFigure] = ()
) -> bytes | None:
    """Certified accuracy (%) over tightness, coloured by the verdicts; None without a row that has both.

    Measured runs are discs; the paper's own figures for the same rows, rings.
    """
    points = [
        (measured.tightness.mean, row.certified.mean, (measured.continuous, measured.insensitive), _name(row), True)
        for row in rows
        if row.certified and (measured := properties.get(_name(row))) and measured.tightness
    ]
    points += [
        (figure.tightness, figure.certified, (figure.continuous, figure.insensitive), str(figure.where["method"]), False)
        for figure in paper
        if figure.tightness is not None and figure.certified is not None
    ]
    if not any(is_measured for *_, is_measured in points):
        return None
    canvas = Canvas(figsize=(7, 4.5), layout="constrained")
    axes = canvas.subplots()
    labels = set()
    for x, y, verdicts, name, is_measured in points:
        colour, label = _VERDICT_COLOURS.get(verdicts, _UNKNOWN)
        label = f"{label} ({'measured' if is_measured else 'paper'})"
        face = colour if is_measured else "none"
        axes.scatter(x, y, s=60, facecolor=face, edgecolor=colour, label=None if label in labels else label)
        axes.annotate(name, (x, y), xytext=(6, 4), textcoords="offset points", fontsize=8)
        labels.add(label)
    axes.set(title=title, xlabel="tightness (mean certified radius × 100)", ylabel="certified accuracy (%)")
    axes.legend(fontsize=8)
    return svg(canvas, title)


def draw_curves(rows: Sequence[Row], title: str) -> bytes | None:
    """Certified share of the training batches over training, a line per cell; None without any."""
    drawn = [row for row in rows if row.curve]
    if not drawn:
        return None
    canvas = Canvas(figsize=(8, 4.5), layout="constrained")
    axes = canvas.subplots()
    colours = matplotlib.colormaps["viridis" if len(drawn) > 10 else "tab10"]
    for number, row in enumerate(drawn):
        colour = colours(number / max(1, len(drawn) - 1)) if len(drawn) > 10 else colours(number)
        label = row_label(row) + (" (estimate)" if row.estimated else "")
        axes.plot(*zip(*row.curve, strict=True), color=colour, label=label, marker="." if len(row.curve) < 15 else "")
    axes.set(title=title, xlabel="part of training", ylabel="certified, training batches, at the ε of the moment (%)")
    canvas.legend(loc="outside right upper", fontsize=7, ncols=1 + len(drawn) // 25)
    return svg(canvas, title)


def draw_heatmap(rows: Sequence[Row], vertical: str, horizontal: str, title: str) -> bytes | None:
    """Certified accuracy (%) of each cell over two axes of the grid; what the grid leaves out is left blank."""
    down = list(dict.fromkeys(row.cell[vertical] for row in rows))
    across = list(dict.fromkeys(row.cell[horizontal] for row in rows))
    values = {(row.cell[vertical], row.cell[horizontal]): row.certified.mean for row in rows if row.certified}
    if not values:
        return None
    asked = {(row.cell[vertical], row.cell[horizontal]) for row in rows}
    left, below = (max(len(str(value)) for value in values) for values in (down, across))
    size = 1.2 + 0.07 * max(left, 6) + 0.9 * len(across), 1.6 + 0.5 * len(down)
    canvas = Canvas(figsize=size, layout="constrained")
    axes = canvas.subplots()
    grid = [[values.get((y, x), float("nan")) for x in across] for y in down]
    image = axes.imshow(grid, cmap="viridis", aspect="auto")
    low, high = image.get_clim()
    for i, y in enumerate(down):
        for j, x in enumerate(across):
            value = values.get((y, x))
            dark = value is not None and value < (low + high) / 2
            text = f"{value:.1f}" if value is not None else "missing" if (y, x) in asked else ""
            axes.text(j, i, text, ha="center", va="center", fontsize=8, color="white" if dark else "black")
    axes.set(title=title, xlabel=horizontal, ylabel=vertical)
    axes.set_xticks(range(len(across)), [str(value) for value in across], rotation=30 if below > 6 else 0)
    axes.set_yticks(range(len(down)), [str(value) for value in down])
    canvas.colorbar(image, label="certified accuracy (%)")
    return svg(canvas, title)


def row_label(row: Row) -> str:
    """A cell in a few words: its method if that says it, else its axes."""
    rest = [f"{axis}={value}" for axis, value in row.cell.items() if axis not in ("method", "dataset", "model")]
    return ", ".join([*([str(row.cell["method"])] if "method" in row.cell else []), *rest]) or _name(row)


def _name(row: Row) -> str:
    return str(row.options.get("method", ""))


def svg(canvas: Canvas, salt: str) -> bytes:
    """The picture without its date, its identifiers drawn from its title: equal figures give equal bytes."""
    buffer = io.BytesIO()
    with matplotlib.rc_context({"svg.hashsalt": salt, "svg.fonttype": "none"}):
        canvas.savefig(buffer, format="svg", metadata={"Date": None})
    return buffer.getvalue()
