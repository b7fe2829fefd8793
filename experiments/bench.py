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
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import click
import torch
from click.core import ParameterSource

from experiments.benchmarks.alpha import alpha
from experiments.benchmarks.bounds import bounds
from experiments.benchmarks.gpu import gpu
from experiments.benchmarks.size import size
from experiments.benchmarks.suite import Network, Rounds, chosen, table, time_network
from newrelax.cli import debug_option, run_command
from newrelax.document import markdown
from newrelax.errors import UserError
from plugin.process.device import check_device, default_device, device_name
from plugin.process.files import write_json
from plugin.runs.versions import versions
from plugin.settings.options import options_of


def read_earlier(path: Path) -> Mapping[str, Rounds]:
    """The rounds of a --json file, by network. Raises UserError when it is none."""
    try:
        return {entry["network"]: entry["seconds"] for entry in json.loads(path.read_text())["results"]}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"--against: expected a file that --json wrote, {path} is none ({error})") from error


@click.group(invoke_without_command=True)
@options_of(Network)
@click.option("--repeat", type=click.IntRange(1), default=5, show_default=True, help="Counted rounds.")
@click.option("--device", default=default_device(), show_default=True)
@click.option("--threads", type=click.IntRange(1), help="Of the CPU; 1: its own time is measured; default torch's number.")
@click.option("--no-plain", is_flag=True, help="Leave auto_LiRPA's own passes out.")
@click.option("--json", "json_path", type=click.Path(path_type=Path), help="Write the figures here.")
@click.option("--against", type=click.Path(path_type=Path), help="An earlier --json file to compare with.")
@debug_option
@click.pass_context
def command(
    context: click.Context,
    /,
    repeat: int,
    device: str,
    threads: int | None,
    no_plain: bool,
    json_path: Path | None,
    against: Path | None,
    **settings: str | None,
) -> int:
    """Time a training step with each method, and with auto_LiRPA alone."""
    if context.invoked_subcommand is not None:
        _refuse_options(context, context.invoked_subcommand)
        return 0
    target = check_device(device)
    if threads is not None:
        torch.set_num_threads(threads)
    earlier = None if against is None else read_earlier(against)
    results = []
    click.echo(device_name(target))
    for network in chosen({name: value for name, value in settings.items() if value is not None}):
        rounds, operations = time_network(network, repeat, target, not no_plain)
        held = None if earlier is None else earlier.get(network.label, {})
        click.echo(f"\n{network.label}\n\n{markdown([table(rounds, operations, held)])}", nl=False)
        results.append({"network": network.label, "seconds": rounds, "operations": operations})
    if json_path is not None:
        write_json(json_path, {"device": device_name(target), "versions": versions(), "repeat": repeat, "results": results})
    return 0


def _refuse_options(context: click.Context, subcommand: str) -> None:
    """Raises UserError for an option before the subcommand, which would do nothing."""
    for name in context.params:
        if context.get_parameter_source(name) is ParameterSource.COMMANDLINE:
            raise UserError(f"{subcommand}: options come after it, got --{name.replace('_', '-')} before")


command.add_command(alpha)
command.add_command(bounds)
command.add_command(gpu)
command.add_command(size)


def main(argv: Sequence[str] | None = None) -> int:
    return run_command(command, argv, "python -m experiments.bench")


if __name__ == "__main__":
    sys.exit(main())
