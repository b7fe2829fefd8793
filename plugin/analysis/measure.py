"""The measurements on a network, as the command line and the training callback make them."""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from newrelax.errors import UserError
from plugin.analysis.continuity import LENGTH, continuity
from plugin.analysis.directions import default_directions, random_directions
from plugin.analysis.landscape import STEPS, landscape
from plugin.analysis.probe import Analysed, Probe
from plugin.analysis.records import Continuity, Landscape, Sensitivity, to_json
from plugin.analysis.sensitivity import sensitivity
from plugin.analysis.smoothed import SmoothedProbe
from plugin.analysis.tightness import tightness
from plugin.analysis.weights import WeightSpace
from plugin.certification.attacks import pgd
from plugin.certification.classification import worst_margin
from plugin.training.smoothing import Smoothing

Tick = Callable[[int], None]


@dataclass(frozen=True)
class Protocol:
    """How much is measured. It is the same for all relaxations: none of it depends on a method's name.

    eps: radius of the probe and of the gap to the attack. probe: images of the probe batch. budget: evaluations of the
    loss for continuity. single_weights: tried per parameter. length: of a line, in relative weight change.
    learning_rate: of the step whose predictability is measured, the first one Adam would take: lr · sign(gradient).
    images: for tightness. step: grid of ε. pgd_steps: of the attack behind the gap. random_lines, weight_lines:
    directions for continuity besides the gradient and the last step. smoothing: measure the loss averaged over noise.
    """

    eps: float
    probe: int = 4
    budget: int = 800
    single_weights: int = 5
    length: float = LENGTH
    learning_rate: float = 5e-4
    images: int = 100
    step: float = 0.01
    pgd_steps: int = 20
    random_lines: int = 3
    weight_lines: bool = True
    seed: int = 0
    smoothing: Smoothing | None = None

    def make_probe(self, model: nn.Module, analysed: Analysed, x: Tensor, y: Tensor) -> Probe:
        """The loss under analysis, on the first images of x."""
        x, y = x[: self.probe], y[: self.probe]
        if self.smoothing is None:
            return Probe(model, analysed, x, y, self.eps)
        return SmoothedProbe(model, analysed, x, y, self.eps, self.smoothing, self.seed)


PARTS = ("continuity", "sensitivity", "landscape", "tightness")


def cost(part: str, protocol: Protocol, parameters: int) -> int:
    """About how many ticks a measurement makes, for a progress bar."""
    return {
        "continuity": protocol.budget,
        "sensitivity": 30 * protocol.single_weights * max(1, parameters // 2) + 2 * parameters,
        "landscape": 1 + len(STEPS),
        "tightness": protocol.images,
    }[part]


def evaluations(part: str, protocol: Protocol, parameters: int) -> float:
    """About how long a measurement takes, in evaluations of the probe's loss; tightness sees all images at each ε."""
    if part == "tightness":
        return protocol.images / protocol.probe * (protocol.eps / protocol.step + 2)
    return float(cost(part, protocol, parameters))


def measure(
    part: str,
    model: nn.Module,
    analysed: Analysed,
    x: Tensor,
    y: Tensor,
    protocol: Protocol,
    tick: Tick = lambda n: None,
    step: Sequence[Tensor] | None = None,
) -> dict[str, Any]:
    """One of PARTS on a model; x: [images, ...] inputs, y: [images]. The model and random streams stay as they were.

    step: the optimiser's last, one tensor per trained parameter; without it, sensitivity takes Adam's first.
    Returns the record as JSON types, with `seconds`. Raises UserError when the loss at these weights is not finite.
    """
    started = time.perf_counter()
    if part == "tightness":
        result = _tightness(model, analysed, x[: protocol.images], y[: protocol.images], protocol, tick)
    else:
        probe = protocol.make_probe(model, analysed, x, y)
        check_finite(probe)
        chosen = {"continuity": probe_continuity, "sensitivity": probe_sensitivity, "landscape": probe_landscape}[part]
        result = to_json(chosen(probe, protocol, step=step, tick=tick))
    return result | {"seconds": time.perf_counter() - started}


def check_finite(probe: Probe) -> None:
    """Raises UserError where the certified loss is not a finite number."""
    with WeightSpace(probe.parameters) as space:
        value = float(space.evaluate(probe.loss))
    if not math.isfinite(value):
        raise UserError(f"{probe.method.label}: the certified loss at eps {probe.eps:g} is {value}; try a smaller --eps")


def ticking(closure: Callable[[], Tensor], tick: Tick) -> Callable[[], Tensor]:
    """A closure that counts its calls."""

    def counted() -> Tensor:
        tick(1)
        return closure()

    return counted


def probe_continuity(
    probe: Probe, protocol: Protocol, *, step: Sequence[Tensor] | None = None, tick: Tick = lambda n: None
) -> Continuity:
    """Continuity of a probe's certified loss, along the default directions and the optimiser's step where given."""
    directions = default_directions(
        probe.loss,
        probe.parameters,
        seed=protocol.seed,
        step=step,
        random=protocol.random_lines,
        single=protocol.weight_lines,
    )
    return continuity(
        ticking(probe.loss, tick),
        probe.parameters,
        directions,
        length=protocol.length,
        budget=protocol.budget,
        # What jumps with noise is the bounds of one of many copies: those without noise do not name its neurons.
        probe=probe.layers if protocol.smoothing is None else None,
    )


def probe_sensitivity(
    probe: Probe, protocol: Protocol, *, step: Sequence[Tensor] | None = None, tick: Tick = lambda n: None
) -> Sensitivity:
    """Sensitivity of a probe's certified loss and margins; the step is Adam's first where none is given."""
    if step is None:
        with WeightSpace(probe.parameters) as space:
            _, gradient = space.gradient(probe.loss)
        step = [-protocol.learning_rate * g.sign() for g in gradient]
    return sensitivity(
        ticking(probe.loss, tick),
        probe.parameters,
        random_directions(probe.parameters, 3, protocol.seed),
        bounds=ticking(probe.margins, tick),
        step=step,
        weights_per_parameter=protocol.single_weights,
        seed=protocol.seed,
        names=probe.names,
    )


def probe_landscape(
    probe: Probe, protocol: Protocol, *, step: Sequence[Tensor] | None = None, tick: Tick = lambda n: None
) -> Landscape:
    """Smoothness of a probe's certified loss along its gradient, by the protocol's learning rate; no step is needed."""
    return landscape(ticking(probe.loss, tick), probe.parameters, learning_rate=protocol.learning_rate)


def _tightness(model: nn.Module, analysed: Analysed, x: Tensor, y: Tensor, protocol: Protocol, tick: Tick) -> dict[str, Any]:
    """Tightness, the gap to PGD, and the share certified at the probe's radius.

    Estimates that draw random numbers start from the same stream, the protocol's seed, for every batch.
    """
    devices = [x.device] if x.device.type == "cuda" else []
    model = copy.deepcopy(model).eval()
    with torch.random.fork_rng(devices):
        torch.manual_seed(protocol.seed)
        network = analysed.bounding.network(model, x.shape[1:], analysed.method)

        def lower(images: Tensor, labels: Tensor, eps: float) -> Tensor:
            torch.manual_seed(protocol.seed)
            return network.bounds(*analysed.region.box(images, eps), labels, beta=analysed.beta).margins

        def attacked(images: Tensor, labels: Tensor, eps: float) -> Tensor:
            generator = torch.Generator().manual_seed(protocol.seed)
            found = pgd(model, images, labels, eps, steps=protocol.pgd_steps, region=analysed.region, generator=generator)
            return worst_margin(model(found), labels)[:, None]

        done = 0

        def progress(finished: int) -> None:
            nonlocal done
            tick(finished - done)
            done = finished

        record = tightness(lower, x, y, step=protocol.step, upper=attacked, upper_eps=protocol.eps, progress=progress)
        with torch.no_grad():
            passed = [(lower(x[i], y[i], protocol.eps) > 0).all(dim=1) for i in torch.arange(len(x), device=x.device).split(50)]
    certified = float(torch.cat(passed).double().mean())
    figures: dict[str, Any] = to_json(record)
    return figures | {"certified_at_eps": certified, "certified_eps": protocol.eps}
