"""Does a method hold on a network? A small convolutional one, against sampled points."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from newrelax.bounds import BoundedNetwork, box
from newrelax.errors import UserError
from newrelax.method import Method

INPUT_SHAPE = (1, 6, 6)
CLASSES = 4
BATCH = 4
EPS = 0.1
SAMPLES = 200


@dataclass(frozen=True)
class Propagation:
    """How one propagation did on the small network.

    verdict: "holds", "violated" (a sampled point has a smaller margin, or a pre-activation outside
        its bounds), "estimate" (the same for methods that promise no bound), "needs parallel
        lines", or "failed" (with the reason in detail).
    excess: the most by which a sampled margin lies below its bound; negative when it never does.
    """

    name: str
    verdict: str
    detail: str
    excess: float | None = None


def check_propagations(method: Method) -> tuple[Propagation, ...]:
    """The method's own propagation, then backward, forward and hybrid where they apply."""
    if method.relaxation is None:
        raise UserError(f"{method.label} gives no bounds: there is nothing to check")
    names = [method.propagation]
    if method.propagation != "interval":
        names += [name for name in ("backward", "forward", "hybrid") if name not in names]
    return tuple(_check(method, name) for name in names)


def _check(method: Method, propagation: str) -> Propagation:
    assert method.relaxation is not None
    if propagation == "hybrid" and not method.relaxation.parallel:
        return Propagation(
            propagation, "needs parallel lines", "lower and upper slope differ, so there is no zonotope"
        )
    changed = method
    if propagation != method.propagation:
        # Only the lines are tried here: what the method adds to its own propagation stays there.
        changed = Method(method.name, propagation=propagation, relaxation=method.relaxation)
    worst = -float("inf")
    for dtype in (torch.float64, torch.float32):
        try:
            excess, finite = _measure(changed, dtype)
        except Exception as error:  # a plugin's function may raise anything
            text = " ".join(str(error).split()) or "no message"
            return Propagation(propagation, "failed", f"{type(error).__name__}: {text}")
        if not finite:
            return Propagation(propagation, "failed", f"bounds or gradients are not finite in {dtype}")
        # Bounds round at the size of the network's activations, which are of order one.
        worst = max(worst, excess - (1e-9 if dtype == torch.float64 else 1e-4))
    if propagation in ("cauchy", "cauchy-hybrid"):
        found = f"sampled points lie beyond it by {worst:.3g}" if worst > 0 else "no sampled point lies beyond it"
        return Propagation(propagation, "estimate", found, worst)
    if worst > 0:
        return Propagation(propagation, "violated", f"a sampled point lies beyond its bound by {worst:.3g}", worst)
    return Propagation(propagation, "holds", f"{SAMPLES} points in each of {BATCH} boxes", worst)


def _network(dtype: torch.dtype) -> nn.Module:
    """Fixed weights, drawn apart from the global random streams."""
    model = nn.Sequential(
        nn.Conv2d(1, 3, 3, stride=2, padding=1), nn.ReLU(), nn.Conv2d(3, 4, 2), nn.ReLU(),
        nn.Flatten(), nn.Linear(16, 8), nn.ReLU(), nn.Linear(8, CLASSES),
    )  # fmt: skip
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for parameter in model.parameters():
            fan_in = parameter[0].numel() if parameter.dim() > 1 else 8
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * (1.5 / fan_in) ** 0.5)
    return model.to(dtype)


def _measure(method: Method, dtype: torch.dtype) -> tuple[float, bool]:
    """The largest excess of bounds over sampled values, and whether bounds and gradients are finite."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(4)
        model = _network(dtype)
        x = torch.rand(BATCH, *INPUT_SHAPE, dtype=dtype)
        y = torch.arange(BATCH) % CLASSES
        lower, upper = box(x, EPS)
        net = BoundedNetwork(model, INPUT_SHAPE, method)
        net(x)
        bounds = net.bounds(lower, upper, y)
        bounds.margins.sum().backward()
        gradients = [parameter.grad for parameter in model.parameters() if parameter.grad is not None]
        samples = _samples(model, lower, upper, y)
    finite = all(bool(part.isfinite().all()) for part in [bounds.margins, *gradients])
    with torch.no_grad():
        excess = float((bounds.margins - _margins(model, samples, y)).max())
        activations, value = [], samples
        for layer in model:
            if isinstance(layer, nn.ReLU):
                activations.append(value)
            value = _per_sample(layer, value)
        for (low, high), inside in zip(bounds.layers, activations, strict=True):
            excess = max(excess, float((low - inside).max()), float((inside - high).max()))
    return excess, finite


def _samples(model: nn.Module, lower: Tensor, upper: Tensor, y: Tensor) -> Tensor:
    """[SAMPLES, batch, ...]: points inside, corners, and the corners that each margin's gradient picks."""
    inside = lower + (upper - lower) * torch.rand(SAMPLES // 2, *lower.shape, dtype=lower.dtype)
    corners = torch.where(torch.rand(SAMPLES // 2, *lower.shape) < 0.5, lower, upper)
    center = ((lower + upper) / 2).requires_grad_()
    picked = []
    margins = _margins(model, center[None], y)[0]
    for column in range(margins.shape[1]):
        (gradient,) = torch.autograd.grad(margins[:, column].sum(), center, retain_graph=True)
        picked.append(torch.where(gradient > 0, lower, upper))
    return torch.cat([inside, corners, torch.stack(picked)]).detach()


def _per_sample(layer: nn.Module, value: Tensor) -> Tensor:
    return layer(value.flatten(0, 1)).unflatten(0, value.shape[:2])


def _margins(model: nn.Module, samples: Tensor, y: Tensor) -> Tensor:
    """[samples, batch, classes - 1]: z_y - z_j, j != y ascending."""
    logits = _per_sample(model, samples)
    rows = [logits[:, i, int(c)][:, None] - logits[:, i, [j for j in range(CLASSES) if j != c]] for i, c in enumerate(y)]
    return torch.stack(rows, 1)
