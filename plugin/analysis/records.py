"""What the measurements report: plain immutable values that turn into JSON."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True)
class Direction:
    """A direction d in weight space: one tensor per parameter, the shapes of the parameters."""

    name: str
    tensors: tuple[Tensor, ...]

    def norm(self) -> float:
        """Euclidean length over all parameters."""
        return math.sqrt(sum(float(d.double().square().sum()) for d in self.tensors))


@dataclass(frozen=True)
class Jump:
    """A place where the loss jumps.

    at: position t on the line (units of the direction).
    width: width of the bracket in which the change was still whole, same units.
    change: loss right of the bracket minus loss left of it, less what the slope beside it explains; units of the loss.
    trace: (interval width, absolute change over it) from the coarse grid down to the bracket.
    causes: ReLU events in the bracket, when a probe was given.
    """

    at: float
    width: float
    change: float
    trace: tuple[tuple[float, float], ...] = ()
    causes: tuple[Cause, ...] = ()


@dataclass(frozen=True)
class Cause:
    """A neuron whose bounds (l, u) passed a condition inside a jump's bracket.

    layer: index of the ReLU layer, counted from the input. image: index in the probe batch.
    neuron: flat index inside the layer; -1 where only the layer is known.
    event: "l = 0", "u = 0", "-l = u", or what is known of any other condition.
    """

    layer: int
    image: int
    neuron: int
    event: str
    lower: float
    upper: float


@dataclass(frozen=True)
class LineScan:
    """The loss along one line, and the jumps found on it.

    t, values: every evaluated point, in ascending t. jumps: by descending size.
    resolution: a change smaller than this is rounding noise and is never called a jump (units of the loss).
    unexplored: the largest kink-or-jump signature left in intervals the budget did not reach (units of the loss);
        jumps larger than this have been followed.
    narrowest_change: largest absolute change left over the intervals that were halved down to rounding
        (a jump's size, or next to nothing).
    narrowest: width of these intervals. A slope above change/narrowest cannot be told from a jump.
    trace: (width, absolute change) of the intervals around the narrowest one without a jump, by descending width.
    followed: how many suspicious intervals were followed to the narrowest width, or until nothing stood above the noise.
    """

    direction: str
    start: float
    stop: float
    t: tuple[float, ...]
    values: tuple[float, ...]
    jumps: tuple[Jump, ...]
    resolution: float
    unexplored: float
    narrowest_change: float
    narrowest: float
    evaluations: int
    trace: tuple[tuple[float, float], ...] = ()
    followed: int = 0


@dataclass(frozen=True)
class Continuity:
    """Verdict on continuity of a loss in the weights.

    continuous: no jump was found on any line; None when on some line the budget did not suffice to follow a single
        suspicion down to the narrowest width or the noise, so that too little is known.
    loss: the loss at the point itself, the unit of relative figures.
    largest_jump: largest jump / |loss|; 0 without a jump.
    narrowest_change: largest change over an interval of the narrowest width / |loss|, jump or not.
    jumps_per_unit: jumps found per unit of relative weight change (a lower bound where the budget ran out).
    resolution: smallest jump / |loss| that could have been reported. unexplored: see LineScan, / |loss|.
    """

    continuous: bool | None
    loss: float
    largest_jump: float
    narrowest_change: float
    jumps_per_unit: float
    resolution: float
    unexplored: float
    scans: tuple[LineScan, ...]
    evaluations: int

    @property
    def jumps(self) -> tuple[Jump, ...]:
        """All jumps, largest first."""
        return tuple(sorted((j for s in self.scans for j in s.jumps), key=lambda j: -abs(j.change)))


@dataclass(frozen=True)
class WeightOrder:
    """Second differences of the bounds in one weight.

    parameter, index: which weight. step: the largest step of the ladder (units of the weight).
    linear, curved, unresolved: how many bounds were found straight, curved, or too kinky to tell.
    order: the degree of the highest divided difference that stands above noise and scales as a polynomial's
        (1: straight); None where it was not measured.
    curvature: median over the curved bounds of |second derivative| x (root mean square of the parameter)**2, divided
        by the mean |bound|: no unit.
    ladder: (step / root mean square of the parameter, mean |second difference| / mean |bound|), by descending step;
        curvature falls with the square of the step down to the noise, straight bounds fall to it at once.
    noise: what counts as noise of one bound's second difference / mean |bound|.
    """

    parameter: int
    index: int
    step: float
    linear: int
    curved: int
    unresolved: int
    order: int | None = None
    curvature: float = 0.0
    ladder: tuple[tuple[float, float], ...] = ()
    noise: float = 0.0


@dataclass(frozen=True)
class Sensitivity:
    """Verdict and figures on sensitivity; see plugin.analysis.sensitivity for the protocol.

    insensitive: the bounds are piecewise linear in every single weight tried; None: not enough bounds resolved.
    curved_share: the largest share, over parameters, of curved bounds among the resolved ones.
    order: the highest order seen in a single weight (1: piecewise linear; top of the stencil: at least that).
    slope: mean |d loss| per unit of relative weight change, by central differences over random directions.
    relative_slope: the same / |loss|.
    unpredicted: |loss(step) - loss - gradient . step| / |loss(step) - loss|, at the step given; None without one.
    step_change: loss(step) - loss.
    layer_slopes: per parameter, |d loss| per unit of relative change of that parameter alone.
    """

    insensitive: bool | None
    curved_share: float
    order: int
    slope: float
    relative_slope: float
    unpredicted: float | None
    step_change: float | None
    layer_slopes: tuple[tuple[str, float], ...]
    weights: tuple[WeightOrder, ...]
    evaluations: int


@dataclass(frozen=True)
class Landscape:
    """The loss and its gradient on the way that gradient descent takes; see plugin.analysis.landscape.

    loss, gradient_norm: at the weights themselves. learning_rate: of the steps.
    spread: (largest − smallest loss on the way) / |loss|. difference: the largest |gradient there − here| / |gradient here|.
    cosine: mean cosine of the gradients there with the one here; None where one is zero.
    steps: points on the way, in learning rates; losses, differences, cosines: at each of them.
    """

    loss: float
    gradient_norm: float
    learning_rate: float
    spread: float
    difference: float
    cosine: float
    steps: tuple[float, ...]
    losses: tuple[float, ...]
    differences: tuple[float, ...]
    cosines: tuple[float, ...]


@dataclass(frozen=True)
class Tightness:
    """Mean certified radius on a fixed network.

    radius: 100 x area under (certified fraction vs eps). low, high: 95 % confidence interval over the images.
    eps, certified: the curve. step: spacing of eps. gap: mean over images of PGD's margin minus the certified
    margin at gap_eps (units of logits); None when not asked for.
    """

    radius: float
    low: float
    high: float
    eps: tuple[float, ...]
    certified: tuple[float, ...]
    step: float
    images: int
    gap: float | None = None
    gap_eps: float | None = None
    radii: tuple[float, ...] = field(default=(), repr=False)


def to_json(record: Any) -> Any:
    """A record as JSON types; infinities and NaN as None, which JSON cannot hold."""
    if dataclasses.is_dataclass(record) and not isinstance(record, type):
        return {f.name: to_json(getattr(record, f.name)) for f in dataclasses.fields(record)}
    if isinstance(record, dict):
        return {str(k): to_json(v) for k, v in record.items()}
    if isinstance(record, (tuple, list)):
        return [to_json(v) for v in record]
    if isinstance(record, Tensor):
        return to_json(record.tolist())
    if isinstance(record, float) and not math.isfinite(record):
        return None
    return record


def machine_epsilon(parameters: Sequence[Tensor]) -> float:
    """The coarsest machine epsilon among the parameters' float types."""
    return max(torch.finfo(p.dtype).eps for p in parameters)
