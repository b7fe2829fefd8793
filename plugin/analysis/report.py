"""The table of a set of relaxations, as Markdown and as a page that needs nothing but itself."""

from __future__ import annotations

import base64
import html
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from matplotlib.figure import Figure

from plugin.analysis import figures
from plugin.analysis.figures import Records

YES, NO, UNKNOWN = "✓", "✗", "?"

COLUMNS = (
    ("relaxation", "The method that bounds."),
    ("tightness", "Mean certified radius × 100 on this network, ± half of its 95 % interval over images."),
    ("gap to PGD", "Mean of the attack's smallest margin minus the certified one, in logits; 0 would be exact."),
    ("continuity", "✓: no jump of the certified loss was found on any line through weight space."),
    ("largest jump", "Relative to the loss. Without a jump: the largest change at the narrowest width, after ≤."),
    ("jumps per unit", "Jumps found per unit of relative weight change; a lower bound."),
    ("sensitivity", "✓: the margins' bounds are piecewise linear in each single weight that was tried."),
    ("curved bounds", "Share of bounds that are curved in a single weight, in the layer where it is largest."),
    ("order", "Highest degree seen in a single weight; 1 is piecewise linear, 6 means at least 6."),
    ("slope", "Change of the loss, relative to itself, per unit of relative weight change."),
    ("unpredicted", "Share of the loss's change in an optimiser step that its gradient does not predict."),
    ("certified %", "Share of the same images that this relaxation certifies on this network at ε."),
    ("trained %", "Certified accuracy of the network that was trained with this relaxation."),
)


def verdict(value: bool | None) -> str:
    return UNKNOWN if value is None else YES if value else NO


def _number(value: float | None, form: str) -> str:
    return "" if value is None else format(value, form)


def row(label: str, record: Mapping[str, Any]) -> list[str]:
    """One line of the table, in the order of COLUMNS; what was not measured stays empty."""
    tight, smooth, sharp = (record.get(k) for k in ("tightness", "continuity", "sensitivity"))
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
    certified = f"{100 * tight['certified_at_eps']:.1f}" if tight and record["sound"] else ""
    trained = record.get("trained_certified")
    return [*cells, certified, "" if trained is None else f"{100 * trained:.2f}"]


def markdown(title: str, notes: Sequence[str], records: Records) -> str:
    """The table with its column meanings."""
    lines = [f"# {title}", "", *[f"{n}  " for n in notes], ""]
    lines.append("| " + " | ".join(name for name, _ in COLUMNS) + " |")
    lines.append("|" + "---|" * len(COLUMNS))
    lines += ["| " + " | ".join(row(label, record)) + " |" for label, record in records.items()]
    lines += ["", *(f"- **{name}**: {meaning}" for name, meaning in COLUMNS), ""]
    return "\n".join(lines)


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
        "continuous loss shrinks with it, however steep; the change at a jump stays what it is. ▼: the largest change left at the "
        "narrowest width on a line without jumps.",
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
        "Curvature follows the dashed line, ∝ h², down to rounding noise. Piecewise linear bounds drop to the noise as soon as no "
        "kink lies within ± h.",
    ),
    (
        "layer_slopes",
        figures.layer_slopes,
        "How fast the certified loss changes when a single parameter moves in a random direction.",
    ),
)
"""Name, drawing and explanation of every picture, in reading order."""

_STYLE = """
:root{color-scheme:light dark;--line:#8884;--good:#2a7f3f;--bad:#c0392b}
body{font:16px/1.5 system-ui,sans-serif;max-width:1100px;margin:2rem auto;padding:0 1rem}
table{border-collapse:collapse;font-size:.85rem;width:100%}th,td{padding:.35rem .5rem;border-bottom:1px solid var(--line);text-align:right}
th:first-child,td:first-child{text-align:left}th{cursor:help;vertical-align:bottom}.scroll{overflow-x:auto}
.good{color:var(--good);font-weight:700;font-size:1.1rem}.bad{color:var(--bad);font-weight:700;font-size:1.1rem}
figure{margin:2rem 0}img{max-width:100%;background:#fff;border:1px solid var(--line)}figcaption{max-width:75ch;margin-top:.4rem}
details{margin:.5rem 0}code{font-size:.85em}dt{font-weight:600}
"""


def _cell(text: str) -> str:
    kind = {YES: ' class="good"', NO: ' class="bad"'}.get(text, "")
    return f"<td{kind}>{html.escape(text)}</td>"


def _jumps(label: str, record: Mapping[str, Any]) -> str:
    """The largest jumps with their causes, folded."""
    found = record.get("continuity")
    if not found or found["continuous"] is not False:
        return ""
    jumps = sorted(((s["direction"], j) for s in found["scans"] for j in s["jumps"]), key=lambda p: -abs(p[1]["change"]))
    rows = []
    for direction, jump in jumps[:12]:
        cause = jump["causes"][0] if jump["causes"] else None
        if cause is None:
            text = "not looked up"
        else:
            where = f"ReLU layer {cause['layer'] + 1}" + (
                f", neuron {cause['neuron']}, image {cause['image']}" if cause["neuron"] >= 0 else ""
            )
            bounds = f" (l = {cause['lower']:.4g}, u = {cause['upper']:.4g})" if cause["lower"] is not None else ""
            text = f"{where}: {cause['event']}{bounds}"
        size = abs(jump["change"]) / max(abs(found["loss"]), 1e-300)
        rows.append(
            f"<tr><td>{html.escape(direction)}</td><td>{jump['at']:.6g}</td><td>{jump['width']:.0e}</td><td>{size:.2e}</td><td>{html.escape(text)}</td></tr>"
        )
    head = "<tr><th>line</th><th>t</th><th>found within</th><th>jump / loss</th><th>cause</th></tr>"
    return f"<details><summary>{html.escape(label)}: {len(jumps)} jumps, the largest and their causes</summary><table>{head}{''.join(rows)}</table></details>"


def page(title: str, notes: Sequence[str], records: Records, settings: Mapping[str, Any]) -> str:
    """A self-contained HTML page: the table, the pictures, the jumps with their causes, and how all was measured."""
    head = "".join(f'<th title="{html.escape(meaning)}">{html.escape(name)}</th>' for name, meaning in COLUMNS)
    body = "".join("<tr>" + "".join(_cell(c) for c in row(label, record)) + "</tr>" for label, record in records.items())
    pictures = []
    for name, draw, text in PICTURES:
        data = base64.b64encode(figures.png(draw(records))).decode()
        pictures.append(
            f'<figure id="{name}"><img alt="{html.escape(text)}" src="data:image/png;base64,{data}"><figcaption>{html.escape(text)}</figcaption></figure>'
        )
    meanings = "".join(f"<dt>{html.escape(n)}</dt><dd>{html.escape(m)}</dd>" for n, m in COLUMNS)
    used = "".join(f"<tr><td>{html.escape(str(k))}</td><td>{html.escape(str(v))}</td></tr>" for k, v in settings.items())
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>{html.escape(title)}</title><style>{_STYLE}</style></head><body>
<h1>{html.escape(title)}</h1>
<p>{"<br>".join(html.escape(n) for n in notes)}</p>
<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>
<details><summary>What the columns mean</summary><dl>{meanings}</dl></details>
{"".join(pictures)}
<h2>Jumps and their causes</h2>
{"".join(_jumps(label, record) for label, record in records.items()) or "<p>No jump was found.</p>"}
<h2>How it was measured</h2>
<p>The verdicts come from the measured numbers alone, with the same thresholds for every relaxation; no name is looked at.</p>
<table>{used}</table>
</body></html>
"""
