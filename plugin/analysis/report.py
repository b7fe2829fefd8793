"""The table of a set of relaxations, as Markdown and as a page that needs nothing but itself."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from matplotlib.figure import Figure

from newrelax import document
from newrelax.document import Block, Column, Definitions, Details, Grid, Heading, Paragraph, Picture, verdict
from plugin.analysis import figures
from plugin.analysis.figures import Records

LISTED_JUMPS = 12  # of each relaxation, the largest

COLUMNS = (
    Column("relaxation", "The method that bounds."),
    Column("tightness", "Mean certified radius × 100 on this network, ± half of its 95 % interval over images."),
    Column("gap to PGD", "Mean of the attack's smallest margin minus the certified one, in logits; 0 would be exact."),
    Column("continuity", "✓: no jump of the certified loss was found on any line through weight space."),
    Column("largest jump", "Relative to the loss. Without a jump: the largest change at the narrowest width, after ≤."),
    Column("jumps per unit", "Jumps found per unit of relative weight change; a lower bound."),
    Column("sensitivity", "✓: the margins' bounds are piecewise linear in each single weight that was tried."),
    Column("curved bounds", "Share of bounds that are curved in a single weight, in the layer where it is largest."),
    Column("order", "Highest degree seen in a single weight; 1 is piecewise linear, 6 means at least 6."),
    Column("slope", "Change of the loss, relative to itself, per unit of relative weight change."),
    Column("unpredicted", "Share of the loss's change in an optimiser step that its gradient does not predict."),
    Column("gradient cosine", "Mean cosine of the loss's gradient with those down the slope, up to five steps of it."),
    Column("certified %", "Share of the same images that this relaxation certifies on this network at ε."),
    Column("trained %", "Certified accuracy of the network that was trained with this relaxation."),
)


_MEANINGS = Definitions({column.name: column.meaning for column in COLUMNS})

PICTURES: tuple[tuple[str, Callable[[Records], Figure], str], ...] = (
    (
        "lines",
        figures.lines,
        "Left: the certified loss while all weights move along one direction through weight space "
        "(the line on which the largest jump was found, or the first). Red bars are jumps, found by halving intervals until "
        "the float type allows no more. Right: what the search saw where it looked closest.",
    ),
    (
        "shrinkage",
        figures.shrinkage,
        "The test that decides. While an interval is halved around a place, the change of a "
        "continuous loss shrinks with it, however steep; the change at a jump stays what it is. ▼: the largest change left at "
        "the narrowest width on a line without jumps.",
    ),
    (
        "certified_fractions",
        figures.certified_fractions,
        "The share of test images that is proven robust, for growing ε. "
        "The area under a curve is the mean certified radius: tightness. Dotted curves are estimates.",
    ),
    (
        "ladders",
        figures.ladders,
        "Second differences of the margins' bounds while one weight moves by ± h, one curve per weight. "
        "Curvature follows the dashed line, ∝ h², down to rounding noise. Piecewise linear bounds drop to the noise as soon as "
        "no kink lies within ± h.",
    ),
    (
        "layer_slopes",
        figures.layer_slopes,
        "How fast the certified loss changes when a single parameter moves in a random direction.",
    ),
)
"""Name, drawing and caption of every picture, in reading order."""


def _number(value: float | None, form: str) -> str:
    return "" if value is None else format(value, form)


def row(label: str, record: Mapping[str, Any]) -> list[str]:
    """One line of the table, in the order of COLUMNS; what was not measured stays empty."""
    tight, smooth, sharp, even = (record.get(k) for k in ("tightness", "continuity", "sensitivity", "landscape"))
    cells = [label if record["sound"] else f"{label} (estimate, not sound)"]
    if tight:
        cells += [f"{tight['radius']:.2f} ± {(tight['high'] - tight['low']) / 2:.2f}", _number(tight["gap"], ".3g")]
    else:
        cells += ["", ""]
    if smooth:
        jump = (
            f"{smooth['largest_jump']:.1e}"
            if smooth["continuous"] is False
            else f"≤ {max(smooth['narrowest_change'], smooth['resolution']):.0e}"
        )
        cells += [verdict(smooth["continuous"]), jump, f"{smooth['jumps_per_unit']:.0f}"]
    else:
        cells += ["", "", ""]
    if sharp:
        cells += [
            verdict(sharp["insensitive"]),
            f"{100 * sharp['curved_share']:.0f} %",
            str(sharp["order"]),
            f"{sharp['relative_slope']:.2g}",
            _number(sharp["unpredicted"], ".2g"),
        ]
    else:
        cells += [""] * 5
    cells.append(_number(even["cosine"], ".3f") if even else "")
    certified = f"{100 * tight['certified_at_eps']:.1f}" if tight and record["sound"] else ""
    trained = record.get("trained_certified")
    return [*cells, certified, "" if trained is None else f"{100 * trained:.2f}"]


def table(records: Records) -> Grid:
    """A line for each relaxation."""
    return Grid.of(COLUMNS, (row(label, record) for label, record in records.items()))


def markdown(title: str, notes: Sequence[str], records: Records) -> str:
    """The table with its column meanings."""
    return document.markdown([Heading(title, 1), *map(Paragraph, notes), table(records), _MEANINGS])


def page(title: str, notes: Sequence[str], records: Records, settings: Mapping[str, Any]) -> str:
    """A self-contained HTML page: the table, the pictures, the jumps with their causes, and how all was measured."""
    jumps: list[Block] = [folded for label, record in records.items() for folded in _jumps(label, record)]
    blocks: list[Block] = [
        Heading(title, 1),
        *map(Paragraph, notes),
        table(records),
        Details("What the columns mean", [_MEANINGS]),
        *(
            Picture(name, name.replace("_", " "), figures.png(draw(records)), "png", caption)
            for name, draw, caption in PICTURES
        ),
        Heading("Jumps and their causes"),
        *(jumps or [Paragraph("No jump was found.")]),
        Heading("How it was measured"),
        Paragraph(
            "The verdicts come from the measured numbers alone, with the same thresholds for every relaxation; "
            "no name is looked at."
        ),
        Grid.of(["", ""], ((str(name), str(value)) for name, value in settings.items())),
    ]
    return document.page(title, blocks)


def _jumps(label: str, record: Mapping[str, Any]) -> Iterator[Details]:
    """The largest jumps with their causes, folded; nothing where there are none."""
    found = record.get("continuity")
    if not found or found["continuous"] is not False:
        return
    jumps = sorted(((s["direction"], j) for s in found["scans"] for j in s["jumps"]), key=lambda p: -abs(p[1]["change"]))
    scale = max(abs(found["loss"]), 1e-300)
    rows = (
        [direction, f"{jump['at']:.6g}", f"{jump['width']:.0e}", f"{abs(jump['change']) / scale:.2e}", _cause(jump)]
        for direction, jump in jumps[:LISTED_JUMPS]
    )
    grid = Grid.of(["line", "t", "found within", "jump / loss", "cause"], rows)
    yield Details(f"{label}: {len(jumps)} jumps, the largest and their causes", [grid])


def _cause(jump: Mapping[str, Any]) -> str:
    """Which neuron's bounds made the jump, in words."""
    if not jump["causes"]:
        return "not looked up"
    cause = jump["causes"][0]
    where = f"ReLU layer {cause['layer'] + 1}"
    if cause["neuron"] >= 0:
        where += f", neuron {cause['neuron']}, image {cause['image']}"
    bounds = f" (l = {cause['lower']:.4g}, u = {cause['upper']:.4g})" if cause["lower"] is not None else ""
    return f"{where}: {cause['event']}{bounds}"
