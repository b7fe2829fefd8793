"""One operator of auto_LiRPA's under examination: do its lines and its bounds hold?"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from newrelax.lirpa import bridge

ROUNDINGS = 256
"""Units of rounding, of the largest number that enters a bound, that are no violation."""

_MODES: dict[str, dict[str, str]] = {
    "interval": {"method": "IBP"},
    "backward": {"method": "backward"},
    "forward": {"method": "forward"},
}


class Failed(Exception):
    """Why an operator may not bound, in one line."""


@dataclass(frozen=True)
class Subject:
    """A traced function with a few boxes of inputs.

    function: what the module has to be. boxes: (lower, upper), each [n, *shape]. weights: whose gradients have to be finite.
    entered: nodes whose bounds are looked at, too; values: what is true there, [n, …] for inputs [n, *shape].
    """

    label: str
    module: Any
    function: Callable[[Tensor], Tensor]
    boxes: tuple[Tensor, Tensor]
    weights: Sequence[Tensor]
    entered: Mapping[int, Any]
    values: Callable[[Tensor], Mapping[int, Tensor]]


def boxes(shape: tuple[int, ...], count: int, dtype: torch.dtype, *, positive: bool = False) -> tuple[Tensor, Tensor]:
    """Boxes from points to wide ones, around zero and far from it, or above zero."""
    generator = torch.Generator().manual_seed(0)

    def draw() -> Tensor:
        return torch.rand((count, *shape), generator=generator, dtype=torch.float64)

    width = 10 ** (6 * draw() - 5) * (draw() > 0.1)
    if positive:
        lower = 10 ** (4 * draw() - 2)
        return lower.to(dtype), (lower + width).to(dtype)
    center = (2 * draw() - 1) * 10 ** (2 * draw() - 1)
    return (center - width / 2).to(dtype), (center + width / 2).to(dtype)


def examine(subject: Subject, modes: Sequence[str]) -> None:
    """Raises `Failed` if a line or a bound does not hold, is not finite, or has no finite gradient."""
    points = _points(subject)
    for mode in modes:
        lower, upper = (end.clone().requires_grad_() for end in subject.boxes)
        try:
            found = _bounds(subject, lower, upper, mode)
        except Exception as error:  # another library's code may raise anything
            text = " ".join((str(error) or type(error).__name__).split())
            raise Failed(f"{subject.label}: {mode} bounds raise {type(error).__name__}: {text[:100]}") from error
        try:
            _check_ends(subject, mode, found[:2], points)
            if mode == "backward":
                _check_lines(subject, found[2], points)
            _check_gradients(mode, found[:2], (lower, upper, *subject.weights))
        except Failed as failure:
            raise Failed(f"{subject.label}: {failure}") from failure


def _points(subject: Subject) -> list[Tensor]:
    """Ends, places between, random ones, and for each output the corners where its gradient points."""
    lower, upper = subject.boxes
    generator = torch.Generator().manual_seed(1)
    shares = [torch.full_like(lower, share) for share in (0.0, 0.1, 0.25, 0.4, 0.5, 0.6, 0.75, 0.9, 1.0)]
    drawn = [torch.rand(lower.shape, generator=generator, dtype=lower.dtype) for _ in range(12)]
    shares += [*drawn, *(share.round() for share in drawn[:4])]
    points = [lower + share * (upper - lower) for share in shares]
    x = ((lower + upper) / 2).requires_grad_()
    outputs = subject.function(x).flatten(1)
    for k in torch.linspace(0, outputs.shape[1] - 1, min(outputs.shape[1], 12)).long().tolist():
        (slope,) = torch.autograd.grad(outputs[:, k].sum(), x, retain_graph=True)
        points += [torch.where(slope > 0, upper, lower), torch.where(slope > 0, lower, upper)]
    return [torch.minimum(torch.maximum(point, lower), upper) for point in points]


def _bounds(subject: Subject, lower: Tensor, upper: Tensor, mode: str) -> tuple[Tensor, Tensor, Any]:
    box = bridge.PerturbationLpNorm(norm=math.inf, eps=1.0, x_L=lower, x_U=upper)
    module, x = subject.module, bridge.BoundedTensor((lower + upper) / 2, box)
    lines: dict[str, Any] = {}
    if mode == "backward":
        name = next(node.name for node in module._modules.values() if getattr(node, "input_index", None) is not None)
        lines = {"return_A": True, "needed_A_dict": {module.final_name: [name]}}
    with bridge.quiet(), bridge.default_dtype(lower.dtype):
        low, high, *rest = module.compute_bounds(x=(x,), **_MODES[mode], **lines)
    return low.flatten(1), high.flatten(1), rest[0][module.final_name][name] if rest else None


def _check_ends(subject: Subject, mode: str, ends: tuple[Tensor, Tensor], points: Sequence[Tensor]) -> None:
    low, high = (end.detach() for end in ends)
    _check_finite(mode, low, high)
    for x in points:
        with torch.no_grad():
            true, inside = subject.function(x).flatten(1), subject.values(x)
        _check_between(f"{mode} bounds", low, true, high, low.abs() + high.abs())
        for index, node in subject.entered.items():
            below, above = node.lower.detach().flatten(1), node.upper.detach().flatten(1)
            value = inside[index].flatten(1)
            _check_between(f"{mode} bounds of a layer", below, value, above, below.abs() + above.abs())


def _check_lines(subject: Subject, lines: Mapping[str, Tensor | None], points: Sequence[Tensor]) -> None:
    """The outputs' lines in the inputs, [n, outputs, inputs] and [n, outputs]."""
    count, size = len(subject.boxes[0]), subject.boxes[0][0].numel()
    slopes, offsets = [], []
    for side in "lu":
        slope, offset = lines[f"{side}A"], lines[f"{side}bias"]
        if slope is None:
            raise Failed("lines are missing")
        slopes.append(slope.detach().reshape(count, -1, size))
        offsets.append(torch.zeros_like(slopes[-1][..., 0]) if offset is None else offset.detach().reshape(count, -1))
    _check_finite("lines", *slopes, *offsets)
    for x in points:
        flat = x.flatten(1).unsqueeze(2)
        below, above = ((slope @ flat).squeeze(2) + offset for slope, offset in zip(slopes, offsets, strict=True))
        sizes = [(slope.abs() @ flat.abs()).squeeze(2) + offset.abs() for slope, offset in zip(slopes, offsets, strict=True)]
        with torch.no_grad():
            true = subject.function(x).flatten(1)
        _check_between("lines", below, true, above, sizes[0] + sizes[1])


def _check_between(what: str, low: Tensor, value: Tensor, high: Tensor, size: Tensor) -> None:
    allowed = ROUNDINGS * torch.finfo(value.dtype).eps * (1 + size + value.abs())
    excess = torch.maximum(low - value, value - high) - allowed
    if not bool((excess <= 0).all()):
        raise Failed(f"{what} are {float(excess.nan_to_num(math.inf).max() + allowed.max()):.2g} on the wrong side")


def _check_finite(what: str, *tensors: Tensor) -> None:
    if not all(bool(tensor.isfinite().all()) for tensor in tensors):
        raise Failed(f"{what} not finite")


def _check_gradients(mode: str, ends: tuple[Tensor, Tensor], of: Sequence[Tensor]) -> None:
    total = ends[0].sum() + (2 * ends[1]).sum()
    wanted = [tensor for tensor in of if tensor.requires_grad]
    if not total.requires_grad:
        raise Failed(f"{mode} bounds have no gradient")
    gradients = torch.autograd.grad(total, wanted, allow_unused=True)
    if not all(bool(part.isfinite().all()) for part in gradients if part is not None):
        raise Failed(f"{mode} bounds' gradient is not finite")
