"""Does the rule of an operator hold? A tiny network around a call of it, bounds against points."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from newrelax.bounds import NO_STATISTICS
from newrelax.checks.samples import SAMPLES, VECTOR, WITHOUT, Sample
from newrelax.errors import with_type
from newrelax.methods.builtin import BUILTIN
from newrelax.network.graph import Graph
from newrelax.network.operators.rule import Rule
from newrelax.network.same import check_traced
from newrelax.propagations.base import Problem
from newrelax.propagations.memory import Memory

METHODS = ("IBP", "CROWN", "CROWN-IBP-R", "hBox-DeepZ", "DeepZ")
RADII = (0.02, 0.3, 1.0)
"""Of the boxes, as shares of the sample's range."""

POINTS = 200
_MEMORY = Memory(1 << 26, 1 << 26)
_ROUNDING = 1e-9


@dataclass(frozen=True)
class OperatorReport:
    """What is known of one operator.

    name: of torch's. bounded: how, see `Rule`. engines: which of them bound it. verdict: "holds", "violated", "failed", or "not
    checked". detail: what was looked at, or what went wrong. foreign: what auto_LiRPA's own operator is used for, "—" where it
    has none or was not looked at.
    """

    name: str
    bounded: str
    engines: tuple[str, ...]
    verdict: str
    detail: str
    foreign: str = "—"

    @property
    def passed(self) -> bool:
        """Not found wrong; what has no sample is said not to be checked."""
        return self.verdict in ("holds", "not checked")

    def as_dict(self) -> dict[str, object]:
        """Plain values, for JSON."""
        return {**asdict(self), "engines": list(self.engines), "passed": self.passed}


class _Around(nn.Module):
    """Features mixed by a matrix whose rows sum to 1 (a range stays the range that it was), then the call, flattened, and
    beside its outputs what went into it: a line that fails inside an interval shows against the input only."""

    def __init__(self, shape: tuple[int, ...], call: Callable[[Tensor], Any]) -> None:
        super().__init__()
        self.shape, self.call = shape, call
        count = torch.Size(shape).numel()
        generator = torch.Generator().manual_seed(6)
        mixed = torch.rand(count, count, generator=generator, dtype=torch.float64) * 0.3 / count
        self.weight = nn.Parameter(mixed + torch.diag(1 - mixed.sum(1)))

    def forward(self, x: Tensor) -> Tensor:
        mixed = x.flatten(1) @ self.weight.t()
        found: Tensor = self.call(mixed.unflatten(1, self.shape))
        return torch.cat([found.flatten(1), mixed], 1)


def check_operator(name: str, rule: Rule, rules: Sequence[Rule]) -> OperatorReport:
    """The check of one operator, by the sample of its name; those without are tried as functions of one step.

    rules: all that are known, for what surrounds the operator.
    """
    engines, foreign = _engines(name, rule)
    report = partial(OperatorReport, name, rule.bounded, engines, foreign=foreign)
    if name in SAMPLES:
        return report(*_tried(name, SAMPLES[name], rule, rules))
    if name in WITHOUT:
        return report("not checked", WITHOUT[name])
    call = _overload(name)
    if call is None:
        return report("not checked", "the installed torch has no such operator")
    for low in (-2.0, 0.1):
        sample = Sample(VECTOR, call, low, 2.0)
        try:
            usable = call(torch.full((2, *VECTOR), low + 0.5, dtype=torch.float64))
            fits = isinstance(usable, Tensor) and len(usable) == 2 and bool(usable.isfinite().all())
        except Exception:  # it may take other arguments, or numbers of other kinds
            fits = False
        if fits and bool(call(torch.full((2, *VECTOR), low, dtype=torch.float64)).isfinite().all()):
            return report(*_tried(name, sample, rule, rules))
    return report("not checked", "no sample of it is known, and it is no function of one step")


def _overload(name: str) -> Any:
    parts = name.split(".")
    found: Any = torch.ops
    for part in parts:
        found = getattr(found, part, None)
        if found is None:
            return None
    return found


def _tried(name: str, sample: Sample, rule: Rule, rules: Sequence[Rule]) -> tuple[str, str]:
    """Verdict and detail."""
    met: list[str] = []
    watched = [replace(r, function=_watching(r, met)) if r is rule else r for r in rules]
    try:
        graph = Graph(_Around(sample.shape, sample.call).eval(), sample.shape, watched)
        check_traced(graph)
        excess, slack = _excess(graph, sample)
    except Exception as error:  # whatever a rule raises is what the check is for
        return "failed", with_type(error, 160)
    by = "" if met else "; torch writes it in others before it gets here"
    if not excess <= _ROUNDING:  # NaN counts
        text = f"a point lies beyond its bound by {excess:.3g}" if excess == excess else "bounds are not numbers"
        return "violated", text + by
    # Affine steps lose nothing: some corner of the box attains every bound.
    if rule.bounded == "exact affine" and slack > 1e-7:
        return "violated", f"bounds are {slack:.3g} from any point, though it is said to be exact{by}"
    return "holds", f"{POINTS} points in each of {len(RADII)} boxes by {len(METHODS)} methods{by}"


def _watching(rule: Rule, met: list[str]) -> Callable[..., Any]:
    """The rule's function, which notes when it is asked."""

    def function(*arguments: Any, **keywords: Any) -> Any:
        met.append(rule.names[0])
        return rule.function(*arguments, **keywords)

    return function


def _excess(graph: Graph, sample: Sample) -> tuple[float, float]:
    """How far any point lies beyond a bound, and how far CROWN's bounds of the outputs are from the nearest corner met."""
    generator = torch.Generator().manual_seed(7)
    width = sample.high - sample.low
    lower, upper = _boxes(sample, generator)
    share = torch.rand(POINTS, *lower.shape, generator=generator, dtype=lower.dtype)
    share[: POINTS // 2] = (share[: POINTS // 2] < 0.5).double()
    points = torch.cat([lower + share * (upper - lower), _picked(graph.model, lower, upper)])
    with torch.no_grad():
        values = graph.model(points.flatten(0, 1)).unflatten(0, points.shape[:2])
    rows = _rows(values, torch.Size(sample.shape).numel(), width, generator)
    values = values @ rows.t()
    matrix = rows.expand(len(lower), -1, -1)
    worst, slack = -float("inf"), 0.0
    scale = 1 + float(values.abs().max()) + width
    for method in BUILTIN:
        if method.name not in METHODS:
            continue
        problem = Problem(graph.network(NO_STATISTICS), lower, upper, method.lines, _MEMORY)
        found = method.propagation.bounds(problem, torch.cat([matrix, -matrix], 1)).lower
        (gradient,) = torch.autograd.grad(found.sum(), list(graph.model.parameters()))
        if not bool(gradient.isfinite().all() & found.isfinite().all()):
            return float("nan"), slack
        below, above = found.detach().chunk(2, dim=1)
        worst = max(worst, float((below - values).max()) / scale, float((values + above).max()) / scale)
        if method.name == "CROWN":
            gaps = torch.maximum(values.amin(0) - below, -above - values.amax(0))
            slack = float(gaps[:, : len(rows) // 4].max()) / scale
    return worst, slack


def _rows(values: Tensor, features: int, width: float, generator: torch.Generator) -> Tensor:
    """Linear functions of the network's outputs, [4·k, outputs]: each of the call's k outputs, and each with multiples of a
    feature that went into the call: minus and plus the steepness of chords, and any. values: [points, batch, outputs]."""
    count = values.shape[2] - features
    own = torch.eye(values.shape[2], dtype=values.dtype)[:count]
    steep = (values.amax((0, 1)) - values.amin((0, 1)))[:count] / width
    parts = [own]
    places = count + torch.arange(count) % features
    for multiple in (-1.0, 1.0, torch.randn(count, generator=generator, dtype=values.dtype)):
        beside, slopes = torch.zeros_like(own), multiple * steep
        parts.append(own + beside.scatter(1, places.unsqueeze(1), slopes.unsqueeze(1)))
    return torch.cat(parts)


def _boxes(sample: Sample, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Around random centres, one of each radius; the last one is the sample's whole range."""
    middle, half = (sample.low + sample.high) / 2, (sample.high - sample.low) / 2
    radius = torch.tensor(RADII, dtype=torch.float64).view(-1, *[1] * len(sample.shape)) * half
    place = torch.rand(len(RADII), *sample.shape, generator=generator, dtype=torch.float64) * 2 - 1
    center = middle + place * (half - radius)
    return center - radius, center + radius


def _picked(model: nn.Module, lower: Tensor, upper: Tensor) -> Tensor:
    """The two corners of each box that the gradient of each output points at, [corners, batch, *shape]."""
    center = ((lower + upper) / 2).requires_grad_()
    outputs = model(center)
    corners = []
    for column in range(outputs.shape[1]):
        (gradient,) = torch.autograd.grad(outputs[:, column].sum(), center, retain_graph=True, materialize_grads=True)
        corners += [torch.where(gradient > 0, lower, upper), torch.where(gradient > 0, upper, lower)]
    return torch.stack(corners).detach()


def _engines(name: str, rule: Rule) -> tuple[tuple[str, ...], str]:
    """Which engines bound the operator, and what auto_LiRPA's own one is used for."""
    try:
        from newrelax.lirpa.trust import verdicts_of  # auto_LiRPA may not be installed
    except Exception:
        return ("newrelax",), "—"
    own = name.split(".")[1].strip("_")
    found = [verdict for verdict in verdicts_of(rule) if verdict.kind.split(" (")[0] == own]
    if not found:
        return ("newrelax", "auto_LiRPA"), "—"
    failed = [verdict for verdict in found if not verdict.passed]
    if failed:
        return ("newrelax", "auto_LiRPA"), f"its own one failed ({failed[0].reason}): ours in its place"
    used = all(verdict.used for verdict in found)
    return ("newrelax", "auto_LiRPA"), "its own one passed" + ("" if used else ", ours is used")


_WIDTHS = (46, 13, 21, 11)


def operators_heading() -> str:
    """The line above a table of operators."""
    return _row("operator", "bounded", "engines", "check", "evidence; auto_LiRPA's own operator")


def format_operator(report: OperatorReport) -> str:
    """One line of the table."""
    verdict = {"holds": "yes", "violated": "NO", "failed": "NO"}.get(report.verdict, report.verdict)
    return _row(report.name, report.bounded, ", ".join(report.engines), verdict, f"{report.detail}; {report.foreign}")


def _row(*cells: str) -> str:
    padded = [f"{cell:<{width}}" for cell, width in zip(cells, _WIDTHS, strict=False)]
    return "  ".join([*padded, cells[-1]])
