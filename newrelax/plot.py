"""``python -m newrelax.plot NAME...``: a relaxation's lines as a picture or an interactive page."""

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

from newrelax.cli import run_command
from newrelax.errors import UserError
from newrelax.jumps import find_jumps, jump_points
from newrelax.registry import Registry
from newrelax.relaxation import Relaxation
from newrelax.soundness import find_counterexample

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

GRID = ((-3.0, -1.0), (-3.0, 1.0), (-2.0, 2.0), (-1.0, 3.0), (1.0, 3.0))
"""The intervals (l, u) of the picture, one column each."""

SPAN, STEP = 3.0, 0.05
"""The page's sliders go from -SPAN to SPAN in steps of STEP."""

_LOWER, _UPPER, _RELU, _AREA = "#2563c9", "#d9570b", "#1d2433", "#8c6bd6"


@dataclass(frozen=True)
class Drawing:
    """Lines to draw and the names of the methods that use them."""

    labels: tuple[str, ...]
    relaxation: Relaxation

    @property
    def title(self) -> str:
        return " = ".join(self.labels)


def draw(drawings: Sequence[Drawing], grid: Sequence[tuple[float, float]] = GRID) -> Figure:
    """One figure: a row per relaxation, a column per interval (l, u), the two lines around ReLU."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(2.3 * len(grid) + 0.8, 2.1 * len(drawings) + 0.9), layout="constrained")
    axes = figure.subplots(len(drawings), len(grid), squeeze=False, sharex=True, sharey=True)
    for row, drawing in zip(axes, drawings, strict=True):
        relaxation = drawing.relaxation
        lines = _lines(relaxation, torch.tensor([l for l, _ in grid]), torch.tensor([u for _, u in grid]))
        for axis, (lower, upper), four in zip(row, grid, lines.tolist(), strict=True):
            _draw_one(axis, lower, upper, four)
        jumps = ", ".join(jump.condition.split(";")[0] for jump in find_jumps(relaxation))
        text = [drawing.title, f"jumps: {jumps}" if jumps else "continuous"]
        row[0].set_ylabel("\n".join(textwrap.fill(line, 34) for line in text), fontsize=8)
    for axis, (lower, upper) in zip(axes[0], grid, strict=True):
        axis.set_title(f"l = {lower:g}, u = {upper:g}", fontsize=9)
    handles, labels = axes[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=4, frameon=False, fontsize=9)
    return figure


def _draw_one(axis: Axes, lower: float, upper: float, four: list[float]) -> None:
    x = torch.linspace(lower, upper, 2).tolist()
    below, above = ([four[k] * at + four[k + 1] for at in x] for k in (0, 2))
    axis.axhline(0, color="#c9ced8", linewidth=0.7, zorder=0)
    axis.axvspan(lower, upper, color="#f2f4f8", zorder=-1)
    axis.fill_between(x, below, above, color=_AREA, alpha=0.25, linewidth=0, label="relaxed area")
    axis.plot([-3.4, 0, 3.4], [0, 0, 3.4], color=_RELU, linewidth=1.1, alpha=0.55, label="ReLU")
    axis.plot(x, above, color=_UPPER, linewidth=1.8, label="upper line", solid_capstyle="butt")
    axis.plot(x, below, color=_LOWER, linewidth=1.8, label="lower line", solid_capstyle="butt")
    axis.set_xlim(-3.4, 3.4)
    axis.set_ylim(-3.3, 4.3)
    axis.tick_params(labelsize=7, length=2)
    for side in ("top", "right"):
        axis.spines[side].set_visible(False)


def render_page(drawings: Sequence[Drawing]) -> str:
    """A self-contained HTML page with the lines of every (l, u) on a fine grid in it."""
    count = round(2 * SPAN / STEP) + 1
    values = torch.arange(count, dtype=torch.float64).sub(count // 2).mul(STEP)
    data = {
        "start": -SPAN,
        "step": STEP,
        "count": count,
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
            if method.relaxation is not None:
                key = method.relaxation.label
                values[key] = method.relaxation
                known = labels.setdefault(key, [])
                known += [method.label] if method.label not in known else []
            elif name != "all":
                raise UserError(f"{method.label} has no lines to draw")
    return [Drawing(tuple(labels[key]), value) for key, value in values.items()]


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
@click.option("--debug", is_flag=True, help="Show tracebacks.")
def command(names: tuple[str, ...], out: Path | None, html: Path | None, plugins: tuple[Path, ...], debug: bool) -> int:
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
