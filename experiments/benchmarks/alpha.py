"""`python -m experiments.bench alpha`: α-CROWN beside auto_LiRPA's own, with the same number of steps: tightness and time."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import click
import torch
from torch import Tensor, nn

from newrelax.bounds import BoundedNetwork, specification
from newrelax.cli import debug_option
from newrelax.document import Grid, Paragraph, markdown
from newrelax.errors import UserError
from newrelax.lirpa import bridge
from plugin.fitting.subject import Asked, Subject, find_subject
from plugin.models.architectures import Network
from plugin.process.device import device_name

BATCH = 10
"""Inputs that both sides bound at once."""
FILE, FOLDER = click.Path(path_type=Path, dir_okay=False), click.Path(path_type=Path, file_okay=False)


Bounded = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]
"""Inputs, classes, and both ends of their boxes, to lower bounds of the margins."""


@dataclass(frozen=True)
class Side:
    """Who bounded; lower bounds of the margins, [inputs, classes − 1]; seconds of this process's own time."""

    name: str
    margins: Tensor
    seconds: float

    @property
    def row(self) -> list[str]:
        certified = int((self.margins > 0).all(1).sum())
        return [self.name, f"{self.margins.mean():.3f}", str(certified), f"{self.seconds:.1f}"]


def ours(subject: Subject, method: str) -> Bounded:
    network = BoundedNetwork(subject.model, subject.dataset.input_shape, subject.registry.get_method(method))

    def bounded(x: Tensor, y: Tensor, lower: Tensor, upper: Tensor) -> Tensor:
        with torch.no_grad():
            return network.bounds(lower, upper, y).margins

    return bounded


def theirs(model: Network, steps: int) -> Bounded:
    """auto_LiRPA's CROWN-Optimized with its own settings, but for the steps and for slopes of stable neurons, too: 0.3 fails
    where it leaves them out.

    It gets what comes after normalisation, whose division it cannot pass in patches, and the box's image there; a module for
    each batch, since one keeps which neurons crossed in the batch before.
    """
    normalise, *layers = model.layers
    options = {"optimize_bound_args": {"iteration": steps, "ob_iteration": steps}, "sparse_features_alpha": False}

    def bounded(x: Tensor, y: Tensor, lower: Tensor, upper: Tensor) -> Tensor:
        box = bridge.PerturbationLpNorm(norm=float("inf"), eps=1.0, x_L=normalise(lower), x_U=normalise(upper))
        point, matrix = bridge.BoundedTensor(normalise(x), box), specification(y, len(model(x[:1])[0]), x.dtype)
        with bridge.quiet(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            module = bridge.BoundedModule(nn.Sequential(*layers), normalise(x), bound_opts=options)
            found: Tensor = module.compute_bounds(x=(point,), C=matrix, method="CROWN-Optimized", bound_upper=False)[0]
        return found.detach()

    return bounded


def timed(name: str, bounded: Bounded, subject: Subject, eps: float, limit: int) -> Side:
    x, y = subject.dataset.test_x[:limit], subject.dataset.test_y[:limit]
    found, seconds = [], 0.0
    for start in range(0, len(x), BATCH):
        part = slice(start, start + BATCH)
        box = subject.region.box(x[part], eps)
        began = time.process_time()
        found.append(bounded(x[part], y[part], *box))
        seconds += time.process_time() - began
    return Side(name, torch.cat(found), seconds)


@click.command(context_settings={"max_content_width": 120})
@click.argument("weights", type=FILE, nargs=-1, required=True)
@click.option("--model", default="CONV", show_default=True)
@click.option("--dataset", default="mnist", show_default=True)
@click.option("--data-dir", type=FOLDER)
@click.option("--eps", type=float, default=0.3, show_default=True)
@click.option("--limit", type=click.IntRange(min=1), default=100, show_default=True, help="The first test inputs.")
@click.option("--steps", type=click.IntRange(min=1), default=20, show_default=True)
@debug_option
def alpha(
    weights: tuple[Path, ...], model: str, dataset: str, data_dir: Path | None, eps: float, limit: int, steps: int
) -> None:
    """α-CROWN beside auto_LiRPA's own, for networks with these WEIGHTS; one thread."""
    torch.set_num_threads(1)
    click.echo(f"{device_name(torch.device('cpu'))}, auto_LiRPA {bridge.VERSION}")
    for file in weights:
        subject = find_subject(Asked(None, model, file, dataset, data_dir, None, None, (), "cpu"))
        if not isinstance(subject.model, Network):
            raise UserError(f"expected a network that comes with the project, got {model}")
        sides = [
            timed("CROWN", ours(subject, "CROWN"), subject, eps, limit),
            timed(f"alpha-CROWN:steps={steps}", ours(subject, f"alpha-CROWN:steps={steps}"), subject, eps, limit),
            timed(f"auto_LiRPA, {steps} steps", theirs(subject.model, steps), subject, eps, limit),
        ]
        grid = Grid.of(["", "mean margin", f"certified of {limit}", "seconds"], [side.row for side in sides])
        click.echo(markdown([Paragraph(f"{file.name}, ε = {eps:g}"), grid]))
