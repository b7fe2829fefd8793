"""`python -m experiments.bench`: what a training step costs with each method, against auto_LiRPA's own passes.

Everything is timed in one process, in turn, so that a drifting machine hits all sides alike: ratios are medians of the
rounds' own ratios. A step is the training loop's: clean forward, bounds, κ = 1/2 loss, backward, Adam. "auto_LiRPA
alone" is the same step with `BoundedModule.compute_bounds` instead of this project's passes, in a process like that of
any script: this project's command lines keep the memory that tensors give back (`plugin.process.allocator`), it does not.
"Arithmetic alone" estimates the floor: the operations in the step's convolutions and matrix products, as their definitions
count them, at the speed of a large matrix product in the same rounds.

`gpu` measures steps per second and memory on a GPU, `size` how cost grows with batch, width and depth.
"""

from __future__ import annotations

import json
import statistics
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import click
import torch
from click.core import ParameterSource
from torch.utils.flop_counter import FlopCounterMode

from experiments.bench_gpu import gpu
from experiments.bench_size import size
from experiments.bench_step import SHAPES, Case, Step, make_step, timed
from newrelax.cli import run_command
from newrelax.errors import UserError
from plugin.fitting.run import check_device
from plugin.process.allocator import keep_freed_memory
from plugin.process.files import write_json
from plugin.runs.folder import device_name, versions
from plugin.settings.config import default_device
from plugin.settings.options import RADIUS

NATURAL = "natural"
PLAIN = " plain"
PRODUCT = "matrix product"
PRODUCT_SIZE = {"cpu": 1024, "cuda": 8192}  # of its square matrices: large enough for the device's full speed


@dataclass(frozen=True)
class Network:
    """A network of the suite, with the methods whose steps are timed on it."""

    model: str
    shape: str
    batch_size: int
    eps: float
    methods: tuple[str, ...]

    @property
    def label(self) -> str:
        return f"{self.model}, {self.shape} shape, batch {self.batch_size}, eps {self.eps:.4g}"


_LAST_LAYER = ("IBP+only", "IBP", "CROWN-IBP", "CROWN-IBP+fusion", "CROWN-IBP-R")
SUITE = (
    Network("CONV", "mnist", 100, 0.3, (*_LAST_LAYER, "hBox", "DeepZ", "CROWN")),
    Network("CNN7", "cifar10", 16, 8 / 255, _LAST_LAYER),
)

Rounds = Mapping[str, Sequence[float]]  # seconds of a step in every round; "NAME plain" is auto_LiRPA's
Operations = Mapping[str, int]  # of a step's convolutions and matrix products, a multiplication and an addition being two


def time_in_turn(steps: Mapping[str, Step], repeat: int, device: torch.device) -> Rounds:
    """Seconds of each step in each round; a step before each that counts settles the allocator."""
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    try:
        for _ in range(repeat):
            for name, step in steps.items():
                keep_freed_memory(not name.endswith(PLAIN))
                step()
                seconds[name].append(timed(step, 1, device))
    finally:
        keep_freed_memory(False)
    return seconds


def matrix_product(device: torch.device) -> Step:
    """The product of two square matrices, as a step."""
    size = PRODUCT_SIZE[device.type]
    left, right = torch.rand(2, size, size, device=device)

    def step() -> None:
        left @ right

    return step


def count_operations(step: Step) -> int:
    """The floating-point operations of one step's convolutions and matrix products."""
    with FlopCounterMode(display=False) as counter:
        step()
    return counter.get_total_flops()


def time_network(network: Network, repeat: int, device: torch.device, plain: bool) -> tuple[Rounds, Operations]:
    """Rounds of natural training, of each method, and of a matrix product, with auto_LiRPA's side if `plain`."""
    steps: dict[str, Step] = {PRODUCT: matrix_product(device)}
    for name in (NATURAL, *network.methods):
        case = Case(name, network.model, network.shape, network.batch_size, network.eps)
        steps[name] = make_step(case, device)
        if plain and name != NATURAL:
            steps[name + PLAIN] = make_step(replace(case, plain=True), device)
    operations = {name: count_operations(step) for name, step in steps.items() if not name.endswith(PLAIN)}
    return time_in_turn(steps, repeat, device), operations


def paired_ratio(rounds: Rounds, over: str, under: str) -> float | None:
    """The median over the rounds of one step's time over another's; None where one was not timed."""
    if over not in rounds or under not in rounds:
        return None
    return statistics.median(a / b for a, b in zip(rounds[over], rounds[under], strict=True))


def arithmetic(rounds: Rounds, operations: Operations, name: str) -> float | None:
    """Seconds of a step's convolutions and matrix products at the speed of the rounds' large product; None if unknown."""
    if PRODUCT not in rounds or name not in operations:
        return None
    return operations[name] / operations[PRODUCT] * statistics.median(rounds[PRODUCT])


def table(rounds: Rounds, operations: Operations, earlier: Rounds | None = None) -> str:
    """Markdown: milliseconds, the floor, natural and IBP steps, speed against auto_LiRPA alone, and an earlier run's."""
    head = ["step", "ms", "arithmetic alone, ms", "natural steps", "IBP steps", "auto_LiRPA alone, ms", "speed-up"]
    head += ["earlier, ms", "in natural steps"] if earlier is not None else []
    lines = ["| " + " | ".join(head) + " |", "|---" * len(head) + "|"]

    def milliseconds(seconds: float | None) -> str:
        return "" if seconds is None else f"{seconds * 1e3:.1f}"

    def median(found: Rounds, name: str) -> str:
        return milliseconds(statistics.median(found[name]) if name in found else None)

    def ratio(found: Rounds, over: str, under: str, unit: str = "") -> str:
        value = paired_ratio(found, over, under)
        return "" if value is None else f"{value:.2f}{unit}"

    for name in rounds:
        if name.endswith(PLAIN) or name == PRODUCT:
            continue
        plain = name + PLAIN
        row = [name, median(rounds, name), milliseconds(arithmetic(rounds, operations, name))]
        row += [ratio(rounds, name, NATURAL), ratio(rounds, name, "IBP")]
        row += [median(rounds, plain), ratio(rounds, plain, name, "×")]
        if earlier is not None:
            row += [median(earlier, name), ratio(earlier, name, NATURAL)]
        lines.append("| " + " | ".join(row) + " |")
    return "\n".join(lines)


def read_earlier(path: Path) -> Mapping[str, Rounds]:
    """The rounds of a --json file, by network. Raises UserError when it is none."""
    try:
        return {entry["network"]: entry["seconds"] for entry in json.loads(path.read_text())["results"]}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"--against: expected a file that --json wrote, {path} is none ({error})") from error


@click.group(invoke_without_command=True)
@click.option("--model", help="FC, CONV, CONV+, CNN7 or package.module:factory; default: the suite's, CONV and CNN7.")
@click.option("--methods", help="Names, comma-separated; NAME+fusion: --loss-fusion, NAME+only: without the natural loss.")
@click.option("--shape", type=click.Choice(list(SHAPES)), help="Of the images.")
@click.option("--batch-size", type=click.IntRange(1))
@click.option("--eps", type=RADIUS)
@click.option("--repeat", type=click.IntRange(1), default=5, show_default=True, help="Counted rounds.")
@click.option("--device", default=default_device(), show_default=True)
@click.option("--threads", type=click.IntRange(1), help="Of the CPU; 1: its own time is measured; default torch's number.")
@click.option("--no-plain", is_flag=True, help="Leave auto_LiRPA's own passes out.")
@click.option("--json", "json_path", type=click.Path(path_type=Path), help="Write the figures here.")
@click.option("--against", type=click.Path(path_type=Path), help="An earlier --json file to compare with.")
@click.option("--debug", is_flag=True, help="Show tracebacks of user errors.")
@click.pass_context
def command(
    context: click.Context,
    model: str | None,
    methods: str | None,
    shape: str | None,
    batch_size: int | None,
    eps: float | None,
    repeat: int,
    device: str,
    threads: int | None,
    no_plain: bool,
    json_path: Path | None,
    against: Path | None,
    debug: bool,
) -> int:
    """Time a training step with each method, and with auto_LiRPA alone."""
    if context.invoked_subcommand is not None:
        given = [name for name in context.params if context.get_parameter_source(name) is ParameterSource.COMMANDLINE]
        if given:
            raise UserError(f"{context.invoked_subcommand}: options come after it, got --{given[0].replace('_', '-')} before")
        return 0
    target = check_device(device)
    if threads is not None:
        torch.set_num_threads(threads)
    earlier = None if against is None else read_earlier(against)
    names = None if methods is None else tuple(name.strip() for name in methods.split(",") if name.strip() != NATURAL)
    given = {"methods": names, "shape": shape, "batch_size": batch_size, "eps": eps}
    given = {name: value for name, value in given.items() if value is not None}
    networks = [network for network in SUITE if model in (None, network.model)]
    networks = networks or [replace(SUITE[0], model=str(model))]
    results = []
    click.echo(device_name(target))
    for network in (replace(network, **given) for network in networks):
        rounds, operations = time_network(network, repeat, target, not no_plain)
        found = None if earlier is None else earlier.get(network.label, {})
        click.echo(f"\n{network.label}\n\n{table(rounds, operations, found)}")
        results.append({"network": network.label, "seconds": rounds, "operations": operations})
    if json_path is not None:
        write_json(json_path, {"device": device_name(target), "versions": versions(), "repeat": repeat, "results": results})
    return 0


command.add_command(gpu)
command.add_command(size)


def main(argv: Sequence[str] | None = None) -> int:
    return run_command(command, argv, "python -m experiments.bench")


if __name__ == "__main__":
    sys.exit(main())
