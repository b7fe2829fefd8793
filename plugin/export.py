"""A network and questions about it for other tools: `python -m plugin.export --run DIR --out DIR`."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import click
import torch
from torch import Tensor

from newrelax.cli import debug_option
from newrelax.errors import UserError
from plugin.certification.classification import predictions
from plugin.cli import invoke
from plugin.fitting.subject import FOLDER, Asked, Subject, find_subject, subject_options
from plugin.formats.extras import installed
from plugin.formats.onnx_writer import to_onnx
from plugin.formats.property import robustness
from plugin.formats.runtime import Runtime
from plugin.formats.vnnlib_writer import write_property
from plugin.process.files import write_atomically, write_output
from plugin.settings.table import Table, setting
from plugin.settings.types import Radius

NETWORK, PROPERTIES, INSTANCES = "model.onnx", "vnnlib", "instances.csv"
COMPARED = 100
"""Test images on which the file's logits are compared with the network's."""
TOLERANCE = 1e-5
"""Of logits, relative to the largest where that is above 1."""


class _Radius(Table):
    eps: Radius = setting("Radius of the L∞ ball.", gt=0)


@click.command(context_settings={"max_content_width": 120})
@subject_options
@click.option("--out", type=FOLDER, required=True, help=f"Folder for {NETWORK}, {PROPERTIES}/ and {INSTANCES}.")
@click.option("--eps", "radius", help="Radius in --eps-unit; default the run's, or the data set's.")
@click.option("--limit", type=click.IntRange(min=1), help="Only the first examples of the test set.")
@click.option("--vnnlib", "version", type=click.Choice(["1", "2"]), default="1", show_default=True, help="Version of VNN-LIB.")
@click.option("--timeout", type=click.FloatRange(0, min_open=True), default=120, show_default=True, help="Seconds an instance.")
@debug_option
def command(asked: Asked, out: Path, radius: str | None, limit: int | None, version: str, timeout: float) -> None:
    """A network as ONNX, and for each correctly classified test image whether all of its ball is, as VNN-LIB."""
    subject = find_subject(asked)
    eps = subject.eps if radius is None else _Radius.read({"eps": radius}).eps
    if eps is None:
        raise UserError(f"data set {subject.dataset.name} has no default eps: expected a radius, give --eps")
    subject.region.check(eps)
    if limit is None and subject.config is not None:
        limit = subject.config.limit_test
    said = export(subject, eps, out, limit=limit, version=int(version), timeout=timeout)
    click.echo(said)


def export(subject: Subject, eps: float, out: Path, *, limit: int | None, version: int, timeout: float) -> str:
    """Writes the network, a property for each of the first `limit` test images that it classifies correctly, and their list.

    Returns what was written, for people.

    Raises:
        UserError: a package is not installed, or the file computes other logits than the network.
    """
    x, y = subject.dataset.test_x[:limit], subject.dataset.test_y[:limit]
    with torch.no_grad():
        logits = torch.cat([subject.model(part) for part in x.split(500)])
    network = to_onnx(subject.model, subject.dataset.input_shape)
    compared = check_logits(network, x[:COMPARED], logits[:COMPARED])
    (out / PROPERTIES).mkdir(parents=True, exist_ok=True)
    write_atomically(out / NETWORK, network)
    correct = (predictions(logits) == y).nonzero().flatten().tolist()
    lower, upper = subject.region.box(x, eps)
    instances = []
    for image in correct:
        label = int(y[image])
        asked = robustness(lower[image], upper[image], label, logits.shape[1])
        text = write_property(
            asked,
            version,
            comment=f"{subject.dataset.name}, test image {image}, eps {eps:g}: unsat iff it is of class {label} everywhere",
            input_shape=(1, *subject.dataset.input_shape),
            output_shape=(1, logits.shape[1]),
        )
        name = f"{PROPERTIES}/image_{image}.vnnlib"
        write_output(out / name, text)
        instances.append(f"{NETWORK},{name},{timeout:g}\n")
    write_output(out / INSTANCES, "".join(instances))
    return (
        f"{out / NETWORK}: {compared}\n"
        f"{out / INSTANCES}: {len(correct)} properties, of the correctly classified among {len(y)} test images, eps {eps:g}"
    )


def check_logits(network: bytes, x: Tensor, logits: Tensor) -> str:
    """Compares an ONNX file's logits with the network's own, [n, classes]; returns what was found.

    Raises:
        UserError: they differ.
    """
    if not installed("onnxruntime"):
        return "not compared with the network, since onnxruntime is not installed"
    difference = float((Runtime(network).outputs(x) - logits.cpu()).abs().max())
    if not difference <= TOLERANCE * max(1.0, float(logits.abs().max())):
        raise UserError(f"the ONNX file's logits differ from the network's by {difference:.2g}: expected {TOLERANCE:g} at most")
    return f"logits equal the network's to {difference:.1g} on {len(x)} test images"


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line and returns its exit code."""
    return invoke(command, argv, "python -m plugin.export")


if __name__ == "__main__":
    sys.exit(main())
