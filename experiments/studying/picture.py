"""The study in one picture: every correlation with its interval, and predictions of relaxations left out."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure as Canvas

from experiments.reporting.pictures import svg
from experiments.studying.correlations import Correlation, Estimate
from experiments.studying.evaluation import Evaluation
from experiments.studying.findings import CERTIFIED, Findings
from plugin.analysis.prediction.properties import PROPERTIES

COLOURS = ("#0072b2", "#e69f00", "#009e73", "#cc79a7")
"""Of kinds of networks: told apart without seeing red and green."""
TITLE = "What predicts the certified accuracy that a relaxation trains to?"


def draw(findings: Findings) -> bytes:
    """Correlations alone, with tightness held fixed, and predicted against measured accuracy; SVG."""
    canvas = Canvas(figsize=(14, 6), layout="constrained")
    plain, partial, predicted = canvas.subplots(1, 3, width_ratios=(1, 0.8, 1.1))
    own = [each for each in findings.correlations.each if each.outcome == CERTIFIED]
    kinds = tuple(dict.fromkeys(each.kind for each in own))
    _forest(plain, own, [each.plain for each in own], kinds, findings.correlations.threshold)
    _forest(partial, own, [each.partial for each in own], kinds, findings.correlations.partial_threshold)
    plain.set(title="rank correlation with certified accuracy", xlabel="Spearman's ρ, 95 % bootstrap")
    partial.set(title="with tightness held fixed", xlabel="partial ρ", yticklabels=[])
    handles, labels = plain.get_legend_handles_labels()
    canvas.legend(handles, [f"{label} network" for label in labels], loc="outside lower left", ncols=len(kinds), fontsize=8)
    _predictions(predicted, findings.packaged)
    canvas.suptitle(TITLE)
    return svg(canvas, TITLE)


def _forest(
    axes: Axes, own: Sequence[Correlation], estimates: Sequence[Estimate | None], kinds: Sequence[str], threshold: float
) -> None:
    """A row for each property, a point with its interval for each kind; filled where it stands. Grey: what chance reaches."""
    names = [each.name for each in PROPERTIES]
    axes.axvspan(-threshold, threshold, color="#eeeeee", zorder=0)
    axes.axvline(0, color="#888888", linewidth=0.8)
    for number, kind in enumerate(kinds):
        colour = COLOURS[number % len(COLOURS)]
        axes.plot([], [], color=colour, marker="o", linewidth=1.2, label=kind)
        for each, estimate in zip(own, estimates, strict=True):
            if each.kind == kind and estimate is not None:
                y = len(names) - names.index(each.property) + (len(kinds) / 2 - number - 0.5) * 0.22
                axes.plot([estimate.low, estimate.high], [y, y], color=colour, linewidth=1.2)
                face = colour if estimate.stands else "white"
                axes.plot([estimate.rho], [y], marker="o", markersize=4.5, color=colour, markerfacecolor=face)
    axes.set(xlim=(-1.05, 1.05), ylim=(0.4, len(names) + 0.6))
    axes.set_yticks([len(names) - i for i in range(len(names))], names)


def _predictions(axes: Axes, held: Evaluation) -> None:
    """Predicted over measured accuracy of each relaxation left out, with its interval; crosses got none. Names stand where the
    prediction is worse than the root mean square error."""
    values = [value for each in held.held.values() for value in (each.measured, each.predicted)]
    ends = [min(values) - 2, max(values) + 2]
    axes.plot(ends, ends, color="#888888", linewidth=0.8)
    for name, each in held.held.items():
        if each.interval:
            axes.plot([each.measured] * 2, [each.interval.low, each.interval.high], color=COLOURS[0], alpha=0.3, linewidth=1)
        axes.plot([each.measured], [each.predicted], color=COLOURS[0], marker="o" if each.interval else "x", markersize=4.5)
        if abs(each.predicted - each.measured) > held.error:
            axes.annotate(name, (each.measured, each.predicted), xytext=(4, 3), textcoords="offset points", fontsize=7)
    axes.set(title="relaxations left out", xlabel="measured certified accuracy (%)", ylabel="predicted, 90 % interval (%)")
