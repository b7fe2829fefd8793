"""Pictures of the measurements, drawn from their JSON records. No global matplotlib state is touched."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

Records = Mapping[str, Mapping[str, Any]]
"""Method label → its record."""

COLORS = ("#4477aa", "#ee6677", "#228833", "#aa3377", "#ccbb44", "#66ccee", "#222222", "#ee7733", "#009988", "#bbbbbb")
JUMP_COLOR = "#cc3311"
ZOOM_POINTS = 30


def png(figure: Figure) -> bytes:
    """A figure as PNG."""
    buffer = io.BytesIO()
    FigureCanvasAgg(figure).print_png(buffer)  # type: ignore[no-untyped-call]  # matplotlib annotates a part only
    return buffer.getvalue()


def _figure(width: float, height: float) -> Figure:
    return Figure(figsize=(width, height), dpi=110, layout="constrained")


def _color(index: int) -> str:
    return COLORS[index % len(COLORS)]


def certified_fractions(records: Records) -> Figure:
    """Certified fraction vs ε for every relaxation; the area under a curve is its tightness."""
    figure = _figure(7, 4)
    _certified_fractions(figure.add_subplot(), records)
    return figure


def _certified_fractions(axes: Axes, records: Records) -> None:
    for i, (label, record) in enumerate((k, v) for k, v in records.items() if "tightness" in v):
        curve = record["tightness"]
        axes.plot(
            [*curve["eps"], curve["eps"][-1] + curve["step"]],
            [*curve["certified"], 0.0],
            marker=".",
            color=_color(i),
            linestyle="-" if record["sound"] else ":",
            label=f"{label}: {curve['radius']:.2f}",
        )
    axes.set(xlabel="ε (pixel units)", ylabel="certified fraction", ylim=(0, 1.02), title="How much each relaxation certifies")
    axes.set_xlim(left=0)
    axes.legend(title="100 × area", fontsize=8)
    axes.grid(alpha=0.3)


def overview(records: Records) -> Figure:
    """Tightness, continuity and sensitivity side by side."""
    figure = _figure(13, 4)
    for axes, draw in zip(figure.subplots(1, 3), (_certified_fractions, _shrinkage, _ladders), strict=True):
        draw(axes, records)
        axes.title.set_fontsize(10)
    return figure


def telling_scan(continuity: Mapping[str, Any]) -> Mapping[str, Any]:
    """The line with the largest jump, or the first one."""
    return max(continuity["scans"], key=lambda s: abs(s["jumps"][0]["change"]) if s["jumps"] else 0.0)


def draw_line(axes: Axes, scan: Mapping[str, Any], color: str) -> None:
    """Loss along a line; jumps as red bars between their two sides."""
    axes.plot(scan["t"], scan["values"], color=color, marker=".", markersize=2, linewidth=0.8)
    known = list(zip(scan["t"], scan["values"], strict=True))
    for jump in scan["jumps"]:
        left = max((p for p in known if p[0] <= jump["at"]), default=known[0])[1]
        axes.plot([jump["at"]] * 2, [left, left + jump["change"]], color=JUMP_COLOR, linewidth=2.5)
        axes.axvline(jump["at"], color=JUMP_COLOR, alpha=0.25, linewidth=1)


def lines(records: Records) -> Figure:
    """For every relaxation the loss along its most telling line, and the surroundings of the largest jump."""
    chosen = {k: v for k, v in records.items() if "continuity" in v}
    figure = _figure(9, 2.2 * max(1, len(chosen)))
    grid = figure.subplots(max(1, len(chosen)), 2, squeeze=False)
    for i, (label, record) in enumerate(chosen.items()):
        scan = telling_scan(record["continuity"])
        draw_line(grid[i][0], scan, _color(i))
        grid[i][0].set_title(f"{label}, {scan['direction']}: {len(scan['jumps'])} jump(s) found", fontsize=9)
        grid[i][0].set_ylabel("loss", fontsize=8)
        _zoom(grid[i][1], scan, _color(i))
    for axes in grid[-1]:
        axes.set_xlabel("t (relative weight change)", fontsize=8)
    for row in grid:
        for axes in row:
            axes.tick_params(labelsize=7)
            axes.grid(alpha=0.3)
    return figure


def _zoom(axes: Axes, scan: Mapping[str, Any], color: str) -> None:
    """The surroundings of the largest jump, or of the place where the search put its points closest."""
    if scan["jumps"]:
        center = scan["jumps"][0]["at"]
        causes = scan["jumps"][0]["causes"]
        axes.set_title("around the largest jump" + (f": {causes[0]['event']}" if causes else ""), fontsize=9)
    else:
        center = scan["t"][min(range(len(scan["t"]) - 1), key=lambda k: scan["t"][k + 1] - scan["t"][k])]
        axes.set_title("where the search looked closest", fontsize=9)
    width = sorted(abs(t - center) for t in scan["t"])[:ZOOM_POINTS][-1]
    points = [(t - center, v) for t, v in zip(scan["t"], scan["values"], strict=True) if abs(t - center) <= width]
    axes.plot([p[0] for p in points], [p[1] for p in points], color=color, marker=".", markersize=3, linewidth=0.8)
    axes.ticklabel_format(useOffset=True, style="sci", scilimits=(-2, 3))
    for axis in (axes.xaxis, axes.yaxis):
        axis.get_offset_text().set_fontsize(7)


def shrinkage(records: Records) -> Figure:
    """Change of the loss over an interval, while the interval is halved: a jump's stays, anything else falls."""
    figure = _figure(7, 4.5)
    _shrinkage(figure.add_subplot(), records)
    return figure


def _shrinkage(axes: Axes, records: Records) -> None:
    for i, (label, record) in enumerate((k, v) for k, v in records.items() if "continuity" in v):
        found = record["continuity"]
        scan = telling_scan(found)
        trace = scan["jumps"][0]["trace"] if scan["jumps"] else scan["trace"]
        unit = max(abs(found["loss"]), 1e-300)
        points = [(w, c / unit) for w, c in trace if c > 0]
        axes.loglog(
            [p[0] for p in points],
            [p[1] for p in points],
            color=_color(i),
            marker=".",
            linewidth=1,
            label=f"{label} ({'jump' if scan['jumps'] else 'no jump'})",
        )
        if not scan["jumps"]:
            axes.loglog([scan["narrowest"]], [max(found["narrowest_change"], 1e-17)], color=_color(i), marker="v", markersize=7)
    axes.invert_xaxis()
    axes.set(
        xlabel="width of the interval (relative weight change)",
        ylabel="change across it / loss",
        title="Halving an interval: a jump keeps its size",
    )
    axes.legend(fontsize=8)
    axes.grid(alpha=0.3, which="major")


def ladders(records: Records) -> Figure:
    """Second differences of the margins' bounds in single weights: curvature follows h², straight bounds fall to noise."""
    figure = _figure(7, 4.5)
    _ladders(figure.add_subplot(), records)
    return figure


def _ladders(axes: Axes, records: Records) -> None:
    widest = 1e-3
    for i, (label, record) in enumerate((k, v) for k, v in records.items() if "sensitivity" in v):
        for j, weight in enumerate(record["sensitivity"]["weights"]):
            points = [(h, max(s, 1e-18)) for h, s in weight["ladder"]]
            if not points or max(s for _, s in points) < 1e-16:
                continue
            widest = max(widest, *(s for _, s in points))
            axes.loglog(
                [p[0] for p in points],
                [p[1] for p in points],
                color=_color(i),
                alpha=0.45,
                linewidth=1,
                marker=".",
                markersize=3,
                label=label if j == 0 else None,
            )
    guide = [2.0**-3, 2.0**-19]
    axes.loglog(guide, [widest * (h / guide[0]) ** 2 for h in guide], color="black", linestyle="--", label="∝ h²")
    axes.invert_xaxis()
    axes.set(
        xlabel="step h / root mean square of the weights",
        ylabel="mean |second difference| / |bound|",
        title="Bounds in a single weight: curved, or straight pieces",
    )
    axes.legend(fontsize=8)
    axes.grid(alpha=0.3, which="major")


def layer_slopes(records: Records) -> Figure:
    """|d loss| per unit of relative change of each parameter alone."""
    chosen = {k: v for k, v in records.items() if "sensitivity" in v}
    names: Sequence[str] = [n for n, _ in next(iter(chosen.values()))["sensitivity"]["layer_slopes"]] if chosen else []
    figure = _figure(max(6.0, 1.3 * len(names)), 3.5)
    axes = figure.add_subplot()
    for i, (label, record) in enumerate(chosen.items()):
        slopes = [max(s, 1e-12) for _, s in record["sensitivity"]["layer_slopes"]]
        width = 0.8 / len(chosen)
        axes.bar(
            [k + (i - len(chosen) / 2 + 0.5) * width for k in range(len(slopes))], slopes, width, color=_color(i), label=label
        )
    axes.set_yscale("log")
    axes.set_xticks(range(len(names)), names, rotation=20, fontsize=8)
    axes.set(ylabel="loss per unit of relative change", title="Slope of the certified loss, parameter by parameter")
    axes.legend(fontsize=8)
    axes.grid(alpha=0.3, axis="y")
    return figure
