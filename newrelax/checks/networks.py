"""Does a method hold on a network? A small convolutional one, against sampled points."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import cycle, islice

import torch
from torch import Tensor, nn

from newrelax.bounds import BoundedNetwork, box
from newrelax.errors import UserError, with_type
from newrelax.methods.method import Method
from newrelax.network.operators.rule import Rule
from newrelax.network.rules import BUILTIN_RULES
from newrelax.propagations import BackwardPropagation, ForwardPropagation, HybridPropagation, Propagation
from newrelax.relaxations.activation import RELU, Activation

INPUT_SHAPE = (1, 6, 6)
CLASSES = 4
BATCH = 4
EPS = 0.1
SAMPLES = 200

OTHERS: tuple[Propagation, ...] = (BackwardPropagation(), ForwardPropagation(), HybridPropagation())
"""What a method's lines are tried with besides its own propagation."""


@dataclass(frozen=True)
class Verdict:
    """How one propagation did on the small network.

    name: the propagation's. verdict: "holds", "violated" (a sampled point has a smaller margin, or a pre-activation outside
    its bounds), "estimate" (the same for methods that promise no bound), "needs parallel lines", or "failed" (with the reason
    in detail). excess: the most by which a sampled margin lies below its bound; negative when it never does.
    """

    name: str
    verdict: str
    detail: str
    excess: float | None = None


def check_propagations(method: Method, operators: Sequence[Rule] = BUILTIN_RULES) -> tuple[Verdict, ...]:
    """The method's own propagation, then backward, forward and hybrid where they apply.

    operators: rules for the network's operators, where a relaxation is of an activation that the built-in ones do not know.
    """
    if not method.gives_bounds:
        raise UserError(f"{method.label} gives no bounds: there is nothing to check")
    found = [_check(method, operators)]
    if method.propagation.name == "interval" or not method.relaxations:
        return tuple(found)
    for other in OTHERS:
        if other.name == method.propagation.name:
            continue
        if other.needs_parallel and not method.parallel:
            found.append(Verdict(other.name, "needs parallel lines", "lower and upper slope differ, so there is no zonotope"))
            continue
        # Only the lines are tried here: what the method adds to its own propagation stays there.
        changed = Method(
            method.name,
            propagation=other,
            relaxation=method.relaxation,
            activations=method.activations,
        )
        found.append(_check(changed, operators))
    return tuple(found)


def _check(method: Method, operators: Sequence[Rule]) -> Verdict:
    name = method.propagation.name
    worst = -float("inf")
    for dtype in (torch.float64, torch.float32):
        try:
            excess, finite = _measure(method, dtype, operators)
        except Exception as error:  # a plugin's function may raise anything
            return Verdict(name, "failed", with_type(error))
        if not finite:
            return Verdict(name, "failed", f"bounds or gradients are not finite in {dtype}")
        # Bounds round at the size of the network's activations, which are of order one.
        worst = max(worst, excess - (1e-9 if dtype == torch.float64 else 1e-4))
    if not method.propagation.sound:
        found = f"sampled points lie beyond it by {worst:.3g}" if worst > 0 else "no sampled point lies beyond it"
        return Verdict(name, "estimate", found, worst)
    if worst > 0:
        return Verdict(name, "violated", f"a sampled point lies beyond its bound by {worst:.3g}", worst)
    return Verdict(name, "holds", f"{SAMPLES} points in each of {BATCH} boxes", worst)


class _Apply(nn.Module):
    """An activation as a layer, where it is defined: elsewhere than above 0, of max(x, 0) + 1/2."""

    def __init__(self, activation: Activation) -> None:
        super().__init__()
        self.activation = activation

    def forward(self, x: Tensor) -> Tensor:
        if not self.activation.is_everywhere:
            x = torch.relu(x) + 0.5
        return self.activation.function(x)


def _network(method: Method, dtype: torch.dtype) -> nn.Module:
    """Fixed weights, drawn apart from the global random streams; every activation that the method has a relaxation for."""
    known = [part.function_of for part in (*method.activations, method.relaxation) if part is not None] or [RELU]
    first, second, third = (nn.ReLU() if activation is RELU else _Apply(activation) for activation in islice(cycle(known), 3))
    model = nn.Sequential(
        nn.Conv2d(1, 3, 3, stride=2, padding=1),
        first,
        nn.Conv2d(3, 4, 2),
        second,
        nn.Flatten(),
        nn.Linear(16, 8),
        third,
        nn.Linear(8, CLASSES),
    )
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for parameter in model.parameters():
            fan_in = parameter[0].numel() if parameter.dim() > 1 else 8
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * (1.5 / fan_in) ** 0.5)
        if method.activations:
            _calm(model)
    return model.to(dtype)


def _calm(model: nn.Sequential) -> None:
    """Pre-activations of standard deviation 1/4 around 0, so that what grows fast does not grow out of sight."""
    x = torch.rand(64, *INPUT_SHAPE, generator=torch.Generator().manual_seed(5))
    for layer in model:
        if isinstance(layer, (nn.Conv2d, nn.Linear)) and layer.bias is not None:
            values = layer(x)
            layer.weight.div_(4 * values.std())
            layer.bias.zero_()
            layer.bias.sub_(layer(x).transpose(0, 1).flatten(1).mean(1))
        x = layer(x)


def _measure(method: Method, dtype: torch.dtype, operators: Sequence[Rule]) -> tuple[float, bool]:
    """The largest excess of bounds over sampled values, and whether bounds and gradients are finite."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(4)
        model = _network(method, dtype)
        x = torch.rand(BATCH, *INPUT_SHAPE, dtype=dtype)
        y = torch.arange(BATCH) % CLASSES
        lower, upper = box(x, EPS)
        net = BoundedNetwork(model, INPUT_SHAPE, method, operators=operators)
        net(x)
        bounds = net.bounds(lower, upper, y)
        bounds.margins.sum().backward()
        gradients = [parameter.grad for parameter in model.parameters() if parameter.grad is not None]
        samples = _samples(model, lower, upper, y)
    finite = all(bool(part.isfinite().all()) for part in [bounds.margins, *gradients])
    with torch.no_grad():
        excess = float((bounds.margins - _margins(model, samples, y)).max())
        if method.activations or not bounds.layers:  # nonlinear steps besides the model's own ReLUs
            return excess, finite
        activations, value = [], samples
        assert isinstance(model, nn.Sequential)
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
    found: Tensor = layer(value.flatten(0, 1))
    return found.view(*value.shape[:2], *found.shape[1:])


def _margins(model: nn.Module, samples: Tensor, y: Tensor) -> Tensor:
    """[samples, batch, classes - 1]: z_y - z_j, j != y ascending."""
    logits = _per_sample(model, samples)
    rows = [logits[:, i, int(c)][:, None] - logits[:, i, [j for j in range(CLASSES) if j != c]] for i, c in enumerate(y)]
    return torch.stack(rows, 1)
