"""The picture: for each network a bar from what its own relaxation certifies to what is true, the baseline's as lines."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from matplotlib.figure import Figure as Canvas

from experiments.deciding.comparison import BASELINE, Row
from experiments.reporting.pictures import svg

_OWN, _EXACT, _OPEN = "#e69f00", "#0072b2", "#999999"


@dataclass(frozen=True)
class Panel:
    """One group of networks under its title."""

    title: str
    rows: Sequence[Row]


def draw(panels: Sequence[Panel]) -> bytes | None:
    """The panels below each other as an SVG, the same bytes for the same rows; None without any."""
    if not panels:
        return None
    heights = [1.3 + 0.32 * len(panel.rows) for panel in panels]
    canvas = Canvas(figsize=(7.5, sum(heights) + 0.3), layout="constrained")
    for axes, panel in zip(canvas.subplots(len(panels), 1, squeeze=False, height_ratios=heights)[:, 0], panels, strict=True):
        for line, row in enumerate(panel.rows):
            axes.plot([row.own.mean, row.exact.low], [line, line], color=_OWN, linewidth=5, solid_capstyle="butt", zorder=1)
            axes.plot([row.exact.low, row.exact.high], [line, line], color=_OPEN, linewidth=2, zorder=1)
            axes.scatter(row.own.mean, line, s=45, facecolor="white", edgecolor=_OWN, linewidth=1.5, zorder=2)
            axes.scatter(row.exact.middle, line, s=45, color=_EXACT, zorder=3)
            if row.method == BASELINE:
                axes.axvline(row.own.mean, color=_OWN, linestyle=":", linewidth=1, zorder=0)
                axes.axvline(row.exact.middle, color=_EXACT, linestyle=":", linewidth=1, zorder=0)
        axes.set_yticks(range(len(panel.rows)), [_label(row, panel) for row in panel.rows])
        axes.invert_yaxis()
        axes.margins(y=0.15)
        axes.spines[["top", "right"]].set_visible(False)
        axes.set_title(panel.title, fontsize=10, loc="left")
    axes.set_xlabel("robust accuracy, % of the test images")
    _legend(canvas)
    return svg(canvas, "exact")


def _label(row: Row, panel: Panel) -> str:
    is_part = row.images < max(each.images for each in panel.rows)
    return f"{row.method}, first {row.images:,}" if is_part else row.method


def _legend(canvas: Canvas) -> None:
    axes = canvas.axes[0]
    handles = [
        axes.scatter([], [], s=45, facecolor="white", edgecolor=_OWN, linewidth=1.5, label="certified by its own relaxation"),
        axes.plot([], [], color=_OWN, linewidth=5, label="lost by the certifier")[0],
        axes.scatter([], [], s=45, color=_EXACT, label="exact"),
        axes.plot([], [], color="black", linestyle=":", linewidth=1, label=f"{BASELINE}'s")[0],
    ]
    canvas.legend(handles=handles, loc="outside lower center", ncols=4, fontsize=8, frameon=False)
