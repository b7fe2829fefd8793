"""One question of somebody else's answered: `python -m plugin.verify NET.onnx PROPERTY.vnnlib`."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import click
import torch
from torch import Tensor, nn

from newrelax.cli import debug_option
from plugin.certification.properties import Answer, decide
from plugin.cli import invoke
from plugin.formats.answer import counterexample, replay
from plugin.formats.extras import installed
from plugin.formats.onnx_reader import OnnxNetwork, read_network
from plugin.formats.property import Property
from plugin.formats.runtime import Runtime
from plugin.formats.vnnlib import read_property
from plugin.process.files import write_output

FILE = click.Path(path_type=Path, dir_okay=False)

Decide = Callable[[nn.Module, tuple[int, ...], Property, float], Answer]
"""(network, shape of one input, property, seconds) → what was found."""


@click.command(context_settings={"max_content_width": 120})
@click.argument("network", type=FILE, metavar="NET.onnx")
@click.argument("asked", type=FILE, metavar="PROPERTY.vnnlib")
@click.option("--timeout", type=click.FloatRange(0, min_open=True), default=120, show_default=True, help="Seconds in all.")
@click.option("--out", type=FILE, help="Write the answer there, too.")
@debug_option
def command(network: Path, asked: Path, timeout: float, out: Path | None) -> None:
    """Whether a network has a point in a property's box with outputs that the property calls unsafe.

    Answers unsat, sat with the point and its outputs, unknown or timeout. Both files may be compressed (.gz).
    """
    answer = verify(network, asked, timeout, decide)
    click.echo(answer.text)
    if answer.note:
        click.echo(answer.note, err=True)
    if out is not None:
        write_output(out, answer.text + "\n")


@dataclass(frozen=True)
class Told:
    """An answer as the competition has it, and what people may want to know beside it."""

    text: str
    note: str = ""


def verify(network_file: Path, property_file: Path, seconds: float, decide: Decide) -> Told:
    """Asks `decide`; a counterexample is told only if it is one by onnxruntime, or by the network where that is not installed.

    Raises:
        UserError: a file that cannot be read, or files that do not belong together.
    """
    began = time.monotonic()
    asked = read_property(property_file)
    network = read_network(network_file)
    function = _function(network, network_file)
    entries = math.prod(network.input_shape)
    asked.check_fits(entries, function(torch.zeros(1, entries)).shape[1])
    left = seconds - (time.monotonic() - began)
    if left <= 0:
        return Told("timeout", "reading the files took all of the time")
    answer = decide(network, network.input_shape, asked, left)
    if answer.verdict != "sat":
        return Told(answer.verdict, answer.note)
    found = None if answer.point is None else replay(asked, answer.point, function)
    if found is None:
        return Told("unknown", "the point that was found is no counterexample in float32")
    return Told(f"sat\n{counterexample(*found)}", answer.note)


def _function(network: OnnxNetwork, path: Path) -> Callable[[Tensor], Tensor]:
    """Outputs [batch, outputs] of flat inputs, as somebody else will compute them."""
    if installed("onnxruntime"):
        return Runtime.of(path).outputs

    def own(x: Tensor) -> Tensor:
        with torch.no_grad():
            found: Tensor = network(x)
        return found

    return own


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line and returns its exit code: 0 for every answer."""
    return invoke(command, argv, "python -m plugin.verify")


if __name__ == "__main__":
    sys.exit(main())
