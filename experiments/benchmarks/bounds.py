"""`python -m experiments.bench bounds`: bounds without their gradient, beside auto_LiRPA's own passes on the same model.

Both sides as in a script of anybody's: one thread, memory as the C library gives it.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable

import click
import torch
from torch import Tensor, nn

from experiments.benchmarks.step import SHAPES, random_images
from newrelax.bounds import BoundedNetwork, box, specification
from newrelax.cli import debug_option
from newrelax.document import Grid, markdown
from newrelax.lirpa import bridge
from newrelax.names import split_spellings
from newrelax.registry import Registry
from plugin.models.build import build
from plugin.process.device import device_name

RESIDUAL = ",".join(f"experiments.benchmarks.residual_networks:{name}" for name in ("two_blocks", "four_blocks", "wide"))
CPU = torch.device("cpu")

Side = Callable[[], Tensor]
"""Lower bounds of the margins, [images, classes − 1]."""


def ours(model: nn.Module, x: Tensor, y: Tensor, eps: float, method: str) -> Side:
    network = BoundedNetwork(model, x.shape[1:], Registry.load().get_method(method))
    return lambda: network.bounds(*box(x, eps), y).margins


def theirs(model: nn.Module, x: Tensor, y: Tensor, eps: float, method: str) -> Side:
    """auto_LiRPA's `compute_bounds`, convolutions in patches."""
    lower, upper = box(x, eps)
    point = bridge.BoundedTensor(x, bridge.PerturbationLpNorm(norm=float("inf"), eps=eps, x_L=lower, x_U=upper))
    matrix = specification(y, 10, x.dtype)
    with bridge.quiet(), bridge.tracing():
        module = bridge.BoundedModule(model, x, bound_opts={"conv_mode": "patches"})

    def side() -> Tensor:
        with bridge.quiet(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            found: Tensor = module.compute_bounds(x=(point,), C=matrix, method=method, bound_upper=False)[0]
        return found

    return side


def seconds(sides: list[Side], repeat: int) -> list[float]:
    """The least of this thread's time that each side took, in turn; the first time does not count."""
    found = [float("inf")] * len(sides)
    for turn in range(repeat + 1):
        for k, side in enumerate(sides):
            began = time.thread_time()
            side()
            found[k] = min(found[k], time.thread_time() - began) if turn else found[k]
    return found


@click.command()
@click.option("--model", "models", default=RESIDUAL, help="Names, or package.module:factory; default three residual networks.")
@click.option("--shape", type=click.Choice(list(SHAPES)), default="cifar10", show_default=True)
@click.option("--batch-size", type=click.IntRange(min=1), default=1, show_default=True)
@click.option("--eps", type=click.FloatRange(min=0), default=2 / 255, show_default="2/255")
@click.option("--method", type=click.Choice(["IBP", "CROWN"]), default="CROWN", show_default=True)
@click.option("--repeat", type=click.IntRange(min=1), default=5, show_default=True)
@debug_option
def bounds(models: str, shape: str, batch_size: int, eps: float, method: str, repeat: int) -> None:
    """Bounds without their gradient, beside auto_LiRPA's; one thread's own time."""
    torch.set_num_threads(1)
    lines = []
    for name in split_spellings(models):
        images = random_images(shape, batch_size, CPU)
        model = build(name, images.input_shape, 10, images.mean, images.std, seed=0).eval()
        sides = [make(model, images.test_x, images.test_y, eps, method) for make in (ours, theirs)]
        with torch.no_grad():
            apart = float((sides[0]() - sides[1]()).abs().max())
            own, other = seconds(sides, repeat)
        lines.append([name.rpartition(":")[2], f"{own * 1e3:.1f}", f"{other * 1e3:.1f}", f"{other / own:.1f}×", f"{apart:.1e}"])
    click.echo(f"{method}, {shape} shape, batch {batch_size}; {device_name(CPU)}, auto_LiRPA {bridge.VERSION}\n")
    click.echo(markdown([Grid.of(["network", "ms", "auto_LiRPA, ms", "speed-up", "bounds differ by"], lines)]))
