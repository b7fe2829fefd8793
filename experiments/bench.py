"""`python -m experiments.bench`: what a training step costs with each method, against auto_LiRPA's own passes.

Everything is timed in one process, in turn, so that a drifting machine hits all sides alike; the median of the
repetitions counts. A step is: clean forward, bounds, κ = 1/2 loss, backward, Adam. "plain" is the same step with
`BoundedModule.compute_bounds` instead of this project's passes.
"""

from __future__ import annotations

import json
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import click
import torch
import torch.nn.functional as F

from newrelax.bounds import BoundedNetwork, box, worst_logits
from newrelax.cli import run_command
from newrelax.errors import UserError
from newrelax.registry import Registry
from plugin import models
from plugin.files import write_json
from plugin.records import device_name, versions

SHAPES = {"mnist": (1, 28, 28), "cifar10": (3, 32, 32), "digits": (1, 8, 8)}
DEFAULT_METHODS = "IBP,CROWN-IBP,CROWN-IBP-R,hBox,DeepZ,CROWN"

Step = Callable[[], None]


def make_step(
    model_name: str, shape: tuple[int, ...], method_name: str | None, batch_size: int, eps: float, device: torch.device, plain: bool
) -> Step:
    """One training step on random images; method None is natural training. CROWN-IBP is taken at β = 1/2."""
    model = models.build(model_name, shape, 10, (0.3,) * shape[0], (0.3,) * shape[0], seed=0).to(device).train()
    optimizer = torch.optim.Adam(model.parameters())
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(batch_size, *shape, generator=generator).to(device)
    y = torch.randint(0, 10, (batch_size,), generator=generator).to(device)
    method = None if method_name is None else Registry.load().get_method(method_name)
    net = None if method is None else BoundedNetwork(model, shape, method, plain=plain)
    beta = 0.5 if method is not None and method.beta is not None else 1.0

    def step() -> None:
        optimizer.zero_grad()
        loss = F.cross_entropy(model(x) if net is None else net(x), y)
        if net is not None:
            margins = net.bounds(*box(x, eps), y, beta=beta).margins
            loss = (loss + F.cross_entropy(worst_logits(margins, y), y)) / 2
        loss.backward()
        optimizer.step()

    return step


def measure(steps: dict[str, Step], repeat: int, device: torch.device) -> dict[str, float]:
    """Median seconds of each step, taken in turn after one warm-up round."""
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    for round_ in range(repeat + 1):
        for name, step in steps.items():
            if device.type == "cuda":
                torch.cuda.synchronize(device)
            start = time.perf_counter()
            step()
            if device.type == "cuda":
                torch.cuda.synchronize(device)
            if round_:
                seconds[name].append(time.perf_counter() - start)
    return {name: statistics.median(values) for name, values in seconds.items()}


def table(medians: dict[str, float], earlier: dict[str, float] | None = None) -> str:
    """Markdown: milliseconds a step, natural steps, speed against plain, and against an earlier run."""
    natural = medians["natural"]
    lines = ["| method | ms a step | natural steps | auto_LiRPA alone, ms | speed-up |" + (" earlier, ms |" if earlier else "")]
    lines.append("|---|---|---|---|---|" + ("---|" if earlier else ""))
    for name, seconds in medians.items():
        if name.endswith(" plain"):
            continue
        plain = medians.get(f"{name} plain")
        row = [name, f"{seconds * 1e3:.1f}", f"{seconds / natural:.1f}"]
        row += ["" if plain is None else f"{plain * 1e3:.1f}", "" if plain is None else f"{plain / seconds:.1f}×"]
        if earlier:
            row.append(f"{earlier[name] * 1e3:.1f}" if name in earlier else "")
        lines.append("| " + " | ".join(row) + " |")
    return "\n".join(lines)


@click.command()
@click.option("--methods", default=DEFAULT_METHODS, show_default=True, help="Names, comma-separated.")
@click.option("--model", default="CONV", show_default=True, help="FC, CONV, CONV+, CNN7 or package.module:factory.")
@click.option("--shape", type=click.Choice(list(SHAPES)), default="mnist", show_default=True, help="Of the images.")
@click.option("--batch-size", type=click.IntRange(1), default=100, show_default=True)
@click.option("--eps", type=float, default=0.3, show_default=True)
@click.option("--repeat", type=click.IntRange(1), default=5, show_default=True, help="Counted repetitions.")
@click.option("--device", default="cuda" if torch.cuda.is_available() else "cpu", show_default=True)
@click.option("--no-plain", is_flag=True, help="Leave auto_LiRPA's own passes out.")
@click.option("--json", "json_path", type=click.Path(path_type=Path), help="Write the figures here.")
@click.option("--against", type=click.Path(path_type=Path), help="An earlier --json file to compare with.")
@click.option("--debug", is_flag=True, help="Show tracebacks of user errors.")
def command(
    methods: str, model: str, shape: str, batch_size: int, eps: float, repeat: int, device: str, no_plain: bool,
    json_path: Path | None, against: Path | None, debug: bool,
) -> int:  # fmt: skip
    """Time a training step with each method, and with auto_LiRPA alone."""
    target = torch.device(device)
    if target.type == "cuda" and not torch.cuda.is_available():
        raise UserError("--device cuda: no CUDA device here; use --device cpu")
    earlier = None
    if against is not None:
        try:
            earlier = json.loads(against.read_text())["seconds"]
        except (OSError, ValueError, KeyError) as error:
            raise UserError(f"--against: expected a file that --json wrote, {against} is none ({error})") from error
    steps: dict[str, Step] = {"natural": make_step(model, SHAPES[shape], None, batch_size, eps, target, False)}
    for name in methods.split(","):
        steps[name] = make_step(model, SHAPES[shape], name, batch_size, eps, target, False)
        if not no_plain:
            steps[f"{name} plain"] = make_step(model, SHAPES[shape], name, batch_size, eps, target, True)
    medians = measure(steps, repeat, target)
    where = device_name(target)
    click.echo(f"{model} on {shape}-shaped images, batch {batch_size}, eps {eps:g}; {where}\n")
    click.echo(table(medians, earlier))
    if json_path is not None:
        settings = dict(model=model, shape=shape, batch_size=batch_size, eps=eps, repeat=repeat, device=where)
        write_json(json_path, {"settings": settings, "versions": versions(), "seconds": medians})
    return 0


def main(argv: Sequence[str] | None = None) -> int:
    return run_command(command, argv, "python -m experiments.bench")


if __name__ == "__main__":
    sys.exit(main())
