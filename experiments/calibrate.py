"""Do the blind verdicts on continuity and sensitivity agree with the paper's table?

`python -m experiments.calibrate --network untrained:0.1 --network PGD:0.1=runs/pgd-{seed}/model.pt …` measures the
paper's five relaxations on every network and seed, with the thresholds of `plugin.analysis`, and holds the verdicts
against `paper.toml`. What an interrupted call has measured is taken up again.
"""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import click
import torch
from torch import nn
from tqdm import tqdm

from experiments.paper import paper_figures
from newrelax.errors import UserError
from newrelax.registry import Registry
from plugin.analysis.measure import Protocol, measure
from plugin.analysis.report import verdict
from plugin.cli import invoke
from plugin.data.builtin import Dataset, load
from plugin.models import build as models
from plugin.process.files import write_atomically, write_json
from plugin.runs.folder import versions

PROPERTIES = {"continuity": "continuous", "sensitivity": "insensitive"}
"""Measurement → the key of its verdict."""


@dataclass(frozen=True)
class Network:
    """A network to calibrate on. eps: radius of the probe. weights: file, with {seed} for the seed; None: untrained."""

    name: str
    eps: float
    weights: str | None = None

    @classmethod
    def parse(cls, text: str) -> Network:
        """Reads NAME:EPS or NAME:EPS=FILE. Raises UserError for anything else."""
        match = re.fullmatch(r"([^:=]+):([0-9]*\.?[0-9]+)(?:=(.+))?", text)
        if match is None:
            raise UserError(f"--network: expected NAME:EPS or NAME:EPS=FILE, got {text!r}")
        return cls(match[1], float(match[2]), match[3])

    def build(self, architecture: str, dataset: Dataset, seed: int) -> nn.Module:
        model = models.build(architecture, dataset.input_shape, dataset.classes, dataset.mean, dataset.std, seed=seed)
        if self.weights is not None:
            models.load_weights(model, Path(self.weights.replace("{seed}", str(seed))))
        return model.eval()


@dataclass(frozen=True)
class Verdict:
    """One cell, measured: `value` None where too little was resolved, `expected` the paper's, `figures` what decided."""

    network: str
    seed: int
    method: str
    property: str
    value: bool | None
    expected: bool
    figures: Mapping[str, float]

    @property
    def agrees(self) -> bool:
        return self.value is self.expected


def paper_cells() -> dict[tuple[str, str], bool]:
    """(method, property) → ✓ or ✗ in the paper's table of properties, measured there on MNIST, CONV."""
    cells = {}
    for figure in paper_figures():
        if figure.continuous is not None and figure.insensitive is not None:
            method = str(figure.where["method"])
            cells[method, "continuity"], cells[method, "sensitivity"] = figure.continuous, figure.insensitive
    return cells


def measure_cell(
    network: Network, architecture: str, dataset: Dataset, method: str, name: str, protocol: Protocol, expected: bool
) -> Verdict:
    """One verdict. The seed of the protocol chooses initial weights, directions, single weights and probe images."""
    seed = protocol.seed
    first = seed * protocol.probe
    x, y = dataset.test_x[first : first + protocol.probe], dataset.test_y[first : first + protocol.probe]
    model = network.build(architecture, dataset, seed)
    record = measure(name, model, Registry.load().get_method(method), x, y, protocol)
    return Verdict(network.name, seed, method, name, record[PROPERTIES[name]], expected, _figures(name, record))


def _figures(name: str, record: Mapping[str, Any]) -> dict[str, float]:
    if name == "continuity":
        kept = ("largest_jump", "narrowest_change", "resolution", "unexplored", "jumps_per_unit", "loss", "seconds")
        lines = sum(bool(scan["jumps"]) for scan in record["scans"])
        return {k: record[k] for k in kept} | {"lines_with_jumps": lines, "lines": len(record["scans"])}
    kept = ("curved_share", "order", "relative_slope", "unpredicted", "seconds")
    counts = {k: sum(w[k] for w in record["weights"]) for k in ("linear", "curved", "unresolved")}
    return {k: record[k] for k in kept} | counts


def report(verdicts: Sequence[Verdict], settings: Mapping[str, object]) -> str:
    """Markdown: the verdicts against the paper's, network by network, and the figures behind them."""
    wrong = [v for v in verdicts if not v.agrees]
    lines = [
        "# Blind verdicts against the paper's table",
        "",
        f"{len(verdicts) - len(wrong)} of {len(verdicts)} verdicts equal the paper's. One protocol and one set of "
        "thresholds for all; a (!) differs, a ? resolved too little.",
        "",
        "| network | seed | " + " | ".join(f"{m}: {p}" for m, p in paper_cells()) + " |",
        "|---|---|" + "---|" * len(paper_cells()),
        "| *the paper* | | " + " | ".join(verdict(e) for e in paper_cells().values()) + " |",
    ]
    found = {(v.network, v.seed, v.method, v.property): v for v in verdicts}
    for network, seed in dict.fromkeys((v.network, v.seed) for v in verdicts):
        cells = [found.get((network, seed, *key)) for key in paper_cells()]
        lines.append(f"| {network} | {seed} | " + " | ".join(_cell(c) for c in cells) + " |")
    lines += ["", "What decided, over all networks and seeds:", "", *_spread(verdicts), ""]
    lines += [f"- {key}: {value}" for key, value in settings.items()]
    return "\n".join([*lines, ""])


def _cell(found: Verdict | None) -> str:
    return "" if found is None else verdict(found.value) + ("" if found.agrees else " (!)")


def _spread(verdicts: Sequence[Verdict]) -> list[str]:
    """Per method, the range of the figures that the verdicts rest on."""
    lines = ["| method | largest jump / loss | change at the narrowest width / loss | curved bounds | highest order |"]
    lines.append("|---|---|---|---|---|")
    for method in dict.fromkeys(v.method for v in verdicts):
        smooth = [v.figures for v in verdicts if v.method == method and v.property == "continuity"]
        sharp = [v.figures for v in verdicts if v.method == method and v.property == "sensitivity"]
        if not smooth or not sharp:
            continue
        ranges = [
            _range([f["largest_jump"] for f in smooth], ".0e"),
            _range([f["narrowest_change"] for f in smooth], ".0e"),
            _range([100 * f["curved_share"] for f in sharp], ".0f") + " %",
            _range([f["order"] for f in sharp], ".0f"),
        ]
        lines.append(f"| {method} | " + " | ".join(ranges) + " |")
    return lines


def _range(values: Sequence[float], form: str) -> str:
    low, high = format(min(values), form), format(max(values), form)
    return low if low == high else f"{low} to {high}"


class Seeds(click.ParamType):
    """Seeds with commas between them."""

    name = "numbers"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[int, ...]:
        if isinstance(value, tuple):
            return value
        try:
            return tuple(int(seed) for seed in value.split(","))
        except ValueError:
            self.fail(f"expected whole numbers with commas between them, got {value!r}", param, ctx)


def _read(path: Path) -> dict[str, Any]:
    """What an earlier call wrote; nothing where there is no such file. Raises UserError for another one."""
    if not path.exists():
        return {}
    try:
        return dict(json.loads(path.read_text()))
    except (OSError, ValueError) as error:
        raise UserError(f"{path} is no calibration ({error}): choose another --out, or remove it") from error


@click.command(context_settings={"max_content_width": 120})
@click.option(
    "--network", "networks", multiple=True, required=True, help="NAME:EPS, untrained, or NAME:EPS=FILE; {seed} in FILE."
)
@click.option("--dataset", default="digits", show_default=True)
@click.option("--data-dir", type=click.Path(path_type=Path), default=Path("data"), show_default=True)
@click.option("--model", default="CONV", show_default=True)
@click.option("--seeds", type=Seeds(), default="0,1,2", show_default=True)
@click.option("--probe", type=click.IntRange(min=1), default=2, show_default=True, help="Images, per seed.")
@click.option("--budget", type=click.IntRange(min=240), default=640, show_default=True, help="For continuity.")
@click.option("--single-weights", type=click.IntRange(min=1), default=3, show_default=True, help="Per layer.")
@click.option("--out", type=click.Path(path_type=Path), default=Path("runs/calibration"), help="No suffix.")
@click.option("--debug", is_flag=True, help="Show tracebacks of user errors.")
def command(
    networks: tuple[str, ...],
    dataset: str,
    data_dir: Path,
    model: str,
    seeds: tuple[int, ...],
    probe: int,
    budget: int,
    single_weights: int,
    out: Path,
    debug: bool,
) -> None:
    """Hold the blind verdicts on networks against the paper's table; writes OUT.json and OUT.md."""
    del debug
    chosen = [Network.parse(text) for text in networks]
    source = load(dataset, data_dir, torch.device("cpu"))
    settings = {
        "data set": dataset,
        "network": model,
        "weights": "; ".join(networks),
        "seeds": ",".join(map(str, seeds)),
        "probe images": probe,
        "evaluations for continuity": budget,
        "single weights per layer": single_weights,
        "machine": f"{os.cpu_count()} CPU cores",
        **versions(),
    }
    held = _read(out.with_suffix(".json"))
    verdicts = [Verdict(**v) for v in held.get("verdicts", [])] if held.get("settings") == settings else []
    done = {(v.network, v.seed, v.method, v.property) for v in verdicts}
    todo = [
        (network, seed, method, name, expected)
        for seed in seeds
        for network in chosen
        for (method, name), expected in paper_cells().items()
        if (network.name, seed, method, name) not in done
    ]
    for network, seed, method, name, expected in tqdm(todo, unit="cell", disable=None):
        protocol = Protocol(eps=network.eps, probe=probe, budget=budget, single_weights=single_weights, seed=seed)
        verdicts.append(measure_cell(network, model, source, method, name, protocol, expected))
        write_json(out.with_suffix(".json"), {"settings": settings, "verdicts": [asdict(v) for v in verdicts]})
    text = report(sorted(verdicts, key=lambda v: [n.name for n in chosen].index(v.network)), settings)
    write_atomically(out.with_suffix(".md"), text.encode())
    click.echo(text)


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line and returns its exit code."""
    return invoke(command, argv, "python -m experiments.calibrate")


if __name__ == "__main__":
    sys.exit(main())
