"""`python -m newrelax.plot NAME...`: a relaxation's lines as a picture or an interactive page."""

from __future__ import annotations

import base64
import io
import json
import sys
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING

import click
import torch
from torch import Tensor

from newrelax.checks.jumps import find_jumps, jump_points
from newrelax.checks.places import display
from newrelax.checks.soundness import find_counterexample
from newrelax.cli import debug_option, run_command
from newrelax.errors import UserError
from newrelax.methods.builtin import BUILTIN
from newrelax.methods.method import Method
from newrelax.registry import Registry
from newrelax.relaxations.activation import RELU
from newrelax.relaxations.base import Relaxation

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

GRID = ((-3.0, -1.0), (-3.0, 1.0), (-2.0, 2.0), (-1.0, 3.0), (1.0, 3.0))
"""The intervals (l, u) of the picture, one column each."""

POSITIVE_GRID = ((0.1, 1.0), (0.1, 3.0), (0.5, 2.0), (1.0, 3.0), (2.0, 3.0))
"""The same for activations that are not defined everywhere."""

EDGE = 3.4
"""Pictures go from -EDGE to EDGE."""

RELU_HEIGHT = (-3.3, 4.3)

SPAN, STEP = 3.0, 0.05
"""The page's sliders go from -SPAN to SPAN in steps of STEP."""

_LOWER, _UPPER, _CURVE, _AREA = "#2563c9", "#d9570b", "#1d2433", "#8c6bd6"


@dataclass(frozen=True)
class Drawing:
    """Lines to draw and the names of the methods that use them."""

    labels: tuple[str, ...]
    relaxation: Relaxation

    @property
    def title(self) -> str:
        return " = ".join(self.labels)


def draw(drawings: Sequence[Drawing], grid: Sequence[tuple[float, float]] = GRID) -> Figure:
    """One figure: a row per relaxation, a column per interval (l, u), the two lines around the activation."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(2.3 * len(grid) + 0.8, 2.1 * len(drawings) + 0.9), layout="constrained")
    axes = figure.subplots(len(drawings), len(grid), squeeze=False, sharex=True, sharey="row")
    titled: Sequence[tuple[float, float]] = ()
    for row, drawing in zip(axes, drawings, strict=True):
        relaxation = drawing.relaxation
        own = grid if relaxation.function_of.is_everywhere else POSITIVE_GRID[: len(grid)]
        lines = _lines(relaxation, torch.tensor([l for l, _ in own]), torch.tensor([u for _, u in own]))
        for axis, (lower, upper), four in zip(row, own, lines.tolist(), strict=True):
            _draw_one(axis, relaxation, lower, upper, four)
            if own != titled:
                axis.set_title(f"l = {lower:g}, u = {upper:g}", fontsize=9)
        titled = own
        jumps = ", ".join(jump.condition.split(";")[0] for jump in find_jumps(relaxation))
        text = [drawing.title, f"jumps: {jumps}" if jumps else "continuous"]
        if relaxation.activation != RELU.name:
            text.insert(1, f"around {relaxation.activation}")
        row[0].set_ylabel("\n".join(textwrap.fill(line, 34) for line in text), fontsize=8)
    handles, labels = axes[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=4, frameon=False, fontsize=9)
    return figure


def _draw_one(axis: Axes, relaxation: Relaxation, lower: float, upper: float, four: list[float]) -> None:
    x = torch.linspace(lower, upper, 2).tolist()
    below, above = ([four[k] * at + four[k + 1] for at in x] for k in (0, 2))
    axis.axhline(0, color="#c9ced8", linewidth=0.7, zorder=0)
    axis.axvspan(lower, upper, color="#f2f4f8", zorder=-1)
    axis.fill_between(x, below, above, color=_AREA, alpha=0.25, linewidth=0, label="relaxed area")
    places, values = _curve(relaxation)
    name = "ReLU" if relaxation.activation == RELU.name else "activation"
    axis.plot(places.tolist(), values.tolist(), color=_CURVE, linewidth=1.1, alpha=0.55, label=name)
    axis.plot(x, above, color=_UPPER, linewidth=1.8, label="upper line", solid_capstyle="butt")
    axis.plot(x, below, color=_LOWER, linewidth=1.8, label="lower line", solid_capstyle="butt")
    axis.set_xlim(-EDGE, EDGE)
    axis.set_ylim(*_height(relaxation))
    axis.tick_params(labelsize=7, length=2)
    for side in ("top", "right"):
        axis.spines[side].set_visible(False)


def _curve(relaxation: Relaxation, count: int = 273) -> tuple[Tensor, Tensor]:
    """Places from -EDGE to EDGE and the activation there, each [count]; NaN where it is not defined."""
    places = torch.linspace(-EDGE, EDGE, count, dtype=torch.float64)
    activation = relaxation.function_of
    inside, at, _ = activation.within(places, places)
    return places, torch.where(inside, activation(at), torch.nan)


def _height(relaxation: Relaxation) -> tuple[float, float]:
    """The smallest and the largest value that a picture shows: a bit more than the activation's own between -SPAN and SPAN."""
    if relaxation.function_of is RELU:
        return RELU_HEIGHT
    places, values = _curve(relaxation)
    known = values[(places.abs() <= SPAN) & (places.abs() >= 0.1) & values.isfinite()]
    low, high = min(float(known.min()), 0.0), max(float(known.max()), 0.0)
    room = 0.35 * max(high - low, 0.5)
    return low - room, high + room


def render_page(drawings: Sequence[Drawing]) -> str:
    """A self-contained HTML page with the lines of every (l, u) on a fine grid in it."""
    count = round(2 * SPAN / STEP) + 1
    values = torch.arange(count, dtype=torch.float64).sub(count // 2).mul(STEP)
    data = {
        "start": -SPAN,
        "step": STEP,
        "count": count,
        "edge": EDGE,
        "relaxations": [_describe(drawing.relaxation, values) for drawing in drawings],
        "menu": [[label, index] for index, drawing in enumerate(drawings) for label in drawing.labels],
    }
    template = resources.files("newrelax").joinpath("plot_page.html").read_text(encoding="utf-8")
    # "</" would end the script element that holds the data.
    return template.replace("__DATA__", json.dumps(data).replace("</", "<\\/"))


def _describe(relaxation: Relaxation, values: Tensor) -> dict[str, object]:
    first, second = torch.triu_indices(len(values), len(values))
    counterexample = find_counterexample(relaxation)
    return {
        "doc": relaxation.__doc__ or "",
        "activation": display(relaxation.activation),
        "curve": _encode(_curve(relaxation)[1]),
        "height": list(_height(relaxation)),
        "counterexample": None if counterexample is None else str(counterexample),
        "jumps": [str(jump) for jump in find_jumps(relaxation)],
        "jumpPoints": _encode(jump_points(relaxation, values)),
        "lines": _encode(_lines(relaxation, values[first], values[second])),
    }


def _lines(relaxation: Relaxation, lower: Tensor, upper: Tensor) -> Tensor:
    """[n, 4]: lower slope, lower offset, upper slope, upper offset."""
    with torch.no_grad():
        return torch.stack(relaxation(lower.double(), upper.double()), -1)


def _encode(values: Tensor) -> str:
    """Little-endian float32 in base64, which the page reads as a Float32Array."""
    return base64.b64encode(values.flatten().to(torch.float32).numpy().astype("<f4").tobytes()).decode()


def select(registry: Registry, names: Sequence[str]) -> list[Drawing]:
    """The methods of these names, those with the same lines together; "all" means every one.

    Raises:
        UserError: an unknown name, or a method without lines (natural, PGD).
    """
    labels: dict[str, list[str]] = {}
    values: dict[str, Relaxation] = {}
    for name in names:
        for method in registry.values() if name == "all" else [registry.get_method(name)]:
            parts = _drawn(method)
            for part in parts:
                key = f"{part.activation} {part.label}"
                values[key] = part
                known = labels.setdefault(key, [])
                label = method.label if len(parts) == 1 else f"{method.label} ({display(part.activation)})"
                known += [label] if label not in known else []
            if not parts and name != "all":
                raise UserError(f"{method.label} has no lines to draw")
    return [Drawing(tuple(labels[key]), value) for key, value in values.items()]


def _drawn(method: Method) -> tuple[Relaxation, ...]:
    """The method's relaxations; without a built-in one of ReLU that only stands beside one of another activation."""
    common = {other.relaxation for other in BUILTIN} if method.activations else set()
    return tuple(part for part in method.relaxations if part not in common)


def _write(path: Path, content: bytes) -> None:
    try:
        path.write_bytes(content)
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror}") from error
    click.echo(f"wrote {path}")


@click.command(help="Draw relaxations' lines: a picture (--out), an interactive page (--html), or both.")
@click.argument("names", nargs=-1, required=True, metavar="NAME...")
@click.option("--out", type=click.Path(path_type=Path), help="Picture to write [default: lines.png unless --html].")
@click.option("--html", type=click.Path(path_type=Path), help="Self-contained page with sliders to write.")
@click.option("--plugin", "plugins", multiple=True, type=click.Path(path_type=Path), help="A Python file with relaxations.")
@debug_option
def command(names: tuple[str, ...], out: Path | None, html: Path | None, plugins: tuple[Path, ...]) -> int:
    """Write the files that were asked for. NAME may be "all"."""
    torch.set_num_threads(1)  # the tensors are small: threads would only wait for each other
    drawings = select(Registry.load(plugins), names)
    if out is None and html is None:
        out = Path("lines.png")
    if out is not None:
        buffer = io.BytesIO()
        suffix = out.suffix.removeprefix(".").lower() or "png"
        try:
            draw(drawings).savefig(buffer, format=suffix, dpi=150)
        except ValueError as error:  # matplotlib names the formats that it knows
            raise UserError(f"--out {out}: {error}") from error
        _write(out, buffer.getvalue())
    if html is not None:
        _write(html, render_page(drawings).encode())
    return 0


def main(argv: Sequence[str] | None = None) -> int:
    """The command line; returns the exit code (2: a user error)."""
    return run_command(command, argv, "python -m newrelax.plot")


if __name__ == "__main__":
    sys.exit(main())
