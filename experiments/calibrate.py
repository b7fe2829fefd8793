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
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any

import click
import torch
from pydantic import BeforeValidator
from torch import nn
from tqdm import tqdm

from experiments.reporting.calibration import Verdict, paper_cells, report
from newrelax.cli import debug_option
from newrelax.document import markdown
from newrelax.errors import UserError
from newrelax.registry import Registry
from plugin.analysis.measure import Protocol, measure
from plugin.analysis.probe import Analysed
from plugin.analysis.side_by_side import FieldsOnly, Tick, default_jobs, side_by_side
from plugin.cli import invoke
from plugin.data import Dataset, load
from plugin.models.build import build
from plugin.models.weights import load_weights
from plugin.process.files import write_atomically, write_json
from plugin.runs.versions import versions
from plugin.settings.options import options_of
from plugin.settings.table import Table, setting

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
        model = build(architecture, dataset.input_shape, dataset.classes, dataset.mean, dataset.std, seed=seed)
        if self.weights is not None:
            load_weights(model, Path(self.weights.replace("{seed}", str(seed))))
        return model.eval()


@dataclass(frozen=True)
class Cell:
    """A verdict that is due; name: of a measurement, one of PROPERTIES.

    The seed of the protocol chooses initial weights, directions, single weights and probe images.
    """

    network: Network
    method: str
    name: str
    protocol: Protocol
    expected: bool

    @property
    def key(self) -> tuple[str, int, str, str]:
        return (self.network.name, self.protocol.seed, self.method, self.name)


@dataclass(frozen=True)
class Bench(FieldsOnly):
    """Measures cells on networks of an architecture; in words that another process can be given."""

    architecture: str
    dataset_name: str
    data_dir: Path

    @cached_property
    def dataset(self) -> Dataset:
        return load(self.dataset_name, self.data_dir, "cpu")

    def __call__(self, cell: Cell, tick: Tick) -> Verdict:
        seed, images = cell.protocol.seed, cell.protocol.probe
        chosen = slice(seed * images, (seed + 1) * images)
        x, y = self.dataset.test_x[chosen], self.dataset.test_y[chosen]
        model = cell.network.build(self.architecture, self.dataset, seed)
        record = measure(cell.name, model, Analysed(Registry.load().get_method(cell.method)), x, y, cell.protocol, tick)
        return Verdict(*cell.key, record[PROPERTIES[cell.name]], cell.expected, _figures(cell.name, record))


def key_of(verdict: Verdict) -> tuple[str, int, str, str]:
    """The key of the cell that it is the verdict of."""
    return (verdict.network, verdict.seed, verdict.method, verdict.property)


def _figures(name: str, record: Mapping[str, Any]) -> dict[str, float]:
    if name == "continuity":
        smooth = ("largest_jump", "narrowest_change", "resolution", "unexplored", "jumps_per_unit", "loss", "seconds")
        lines = sum(bool(scan["jumps"]) for scan in record["scans"])
        return {k: record[k] for k in smooth} | {"lines_with_jumps": lines, "lines": len(record["scans"])}
    sharp = ("curved_share", "order", "relative_slope", "unpredicted", "seconds")
    counts = {k: sum(w[k] for w in record["weights"]) for k in ("linear", "curved", "unresolved")}
    return {k: record[k] for k in sharp} | counts


def _read(path: Path) -> dict[str, Any]:
    """What an earlier call wrote; nothing where there is no such file. Raises UserError for another one."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if not path.exists():
            return {}
        return dict(json.loads(path.read_text()))
    except (OSError, ValueError) as error:
        raise UserError(f"{path} is no calibration ({error}): choose another --out, or remove it") from error


def _seeds(value: Any) -> Any:
    """Whole numbers with commas between them."""
    if not isinstance(value, str):
        return value
    try:
        return tuple(int(seed) for seed in value.split(","))
    except ValueError:
        raise ValueError(f"expected whole numbers with commas between them, got {value!r}") from None


class Calibration(Table):
    """What the verdicts are measured on, and how closely it is looked at."""

    dataset: str = setting("Where the probe images are from.", "digits")
    model: str = setting("The networks' architecture.", "CONV")
    seeds: Annotated[tuple[int, ...], BeforeValidator(_seeds)] = setting("Each with its own images.", (0, 1, 2), said="0,1,2")
    probe: int = setting("Images, per seed.", 2, ge=1)
    budget: int = setting("Evaluations for continuity.", 640, ge=240)
    single_weights: int = setting("Weights tried in each layer for sensitivity.", 3, ge=1)

    def protocol(self, network: Network, seed: int) -> Protocol:
        """How one network is measured with one seed."""
        return Protocol(eps=network.eps, probe=self.probe, budget=self.budget, single_weights=self.single_weights, seed=seed)

    def described(self, networks: Sequence[str]) -> dict[str, object]:
        """What stands below the report, and decides whether an earlier call's verdicts still hold."""
        return {
            "data set": self.dataset,
            "network": self.model,
            "weights": "; ".join(networks),
            "seeds": ",".join(map(str, self.seeds)),
            "probe images": self.probe,
            "evaluations for continuity": self.budget,
            "single weights per layer": self.single_weights,
            "machine": f"{os.cpu_count()} CPU cores",
            **versions(),
        }


@click.command(context_settings={"max_content_width": 120})
@click.option(
    "--network", "networks", multiple=True, required=True, help="NAME:EPS, untrained, or NAME:EPS=FILE; {seed} in FILE."
)
@options_of(Calibration)
@click.option("--jobs", type=click.IntRange(min=1), help="Processes; default a core each, 4 at most.")
@click.option("--data-dir", type=click.Path(path_type=Path), default=Path("data"), show_default=True)
@click.option("--out", type=click.Path(path_type=Path), default=Path("runs/calibration"), help="No suffix.")
@debug_option
def command(networks: tuple[str, ...], jobs: int | None, data_dir: Path, out: Path, **given: str | None) -> None:
    """Hold the blind verdicts on networks against the paper's table; writes OUT.json and OUT.md."""
    calibration = Calibration.read({name: value for name, value in given.items() if value is not None})
    chosen = [Network.parse(text) for text in networks]
    bench = Bench(calibration.model, calibration.dataset, data_dir)
    settings = calibration.described(networks)
    held = _read(out.with_suffix(".json"))
    verdicts = [Verdict(**v) for v in held.get("verdicts", [])] if held.get("settings") == settings else []
    cells = [
        Cell(network, method, name, calibration.protocol(network, seed), expected)
        for network in chosen
        for seed in calibration.seeds
        for (method, name), expected in paper_cells().items()
    ]
    order = [cell.key for cell in cells]
    done = {key_of(verdict) for verdict in verdicts}
    todo = [cell for cell in cells if cell.key not in done]
    found = side_by_side(bench, todo, jobs=default_jobs(torch.device("cpu")) if jobs is None else jobs)
    for _, verdict in tqdm(found, total=len(todo), unit="cell", disable=None):
        verdicts = sorted([*verdicts, verdict], key=lambda each: order.index(key_of(each)))
        write_json(out.with_suffix(".json"), {"settings": settings, "verdicts": [asdict(v) for v in verdicts]})
    text = markdown(report(verdicts, settings))
    write_atomically(out.with_suffix(".md"), text.encode())
    click.echo(text, nl=False)


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line and returns its exit code."""
    return invoke(command, argv, "python -m experiments.calibrate")


if __name__ == "__main__":
    sys.exit(main())
