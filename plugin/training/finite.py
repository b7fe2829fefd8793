"""A NaN or infinite loss: noticed without waiting for the device, kept out of the weights, and traced to a layer."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from newrelax.errors import UserError
from plugin.training.losses.base import Batch, Learner, Loss
from plugin.training.schedule import Values

# How often a device that computes ahead of the host is asked; a CPU is asked every step.
ACCELERATOR_INTERVAL = 20


class NonFiniteLoss(UserError):
    """The loss or its gradient became NaN or infinite."""


@dataclass(frozen=True)
class Step:
    """What is needed to repeat one step's forward pass."""

    number: int
    x: Tensor
    y: Tensor
    values: Values


class FiniteGuard:
    """Skips every update from the first bad step on, and tells the host now and then.

    The flag lives on the device: a fused optimiser that finds `found_inf` set leaves weights and
    its own state alone. So the weights stay those of the last good step, and the first bad step
    can be looked into when the host gets to know of it.
    """

    def __init__(self, optimizer: torch.optim.Optimizer, device: torch.device) -> None:
        self._optimizer = optimizer
        self._first_bad = torch.full((), -1, dtype=torch.int64, device=device)
        self._interval = 1 if device.type == "cpu" else ACCELERATOR_INTERVAL
        self._recent: deque[Step] = deque(maxlen=self._interval)

    def remember(self, step: Step) -> None:
        """Call before the step."""
        self._recent.append(step)

    def watch(self, number: int | Tensor, loss: Tensor, gradient_norm: Tensor) -> None:
        """Call between backward and the update of that step: `loss` and `gradient_norm` are scalars."""
        good = torch.isfinite(loss.detach()) & torch.isfinite(gradient_norm)
        self._first_bad.copy_(torch.where(good | (self._first_bad >= 0), self._first_bad, number))
        self._optimizer.found_inf = (self._first_bad >= 0).float()  # type: ignore[attr-defined]

    def is_due(self, step: int) -> bool:
        """Whether the host should ask after this step."""
        return (step + 1) % self._interval == 0

    def bad_step(self) -> Step | None:
        """The first bad step, or None; waits for the device."""
        number = int(self._first_bad)
        if number < 0:
            return None
        return next(step for step in self._recent if step.number == number)


def first_offender(learner: Learner, loss: Loss, step: Step) -> str:
    """Names the first place where the step's forward or backward pass is not finite.

    Looks at weights, then at activations in the order of the forward pass, the bounds, the
    margins, and last at gradients in the order of the backward pass.
    """
    model = learner.model
    for name, parameter in model.named_parameters():
        if not torch.isfinite(parameter).all():
            return f"{name}: the weights themselves"
    return (
        _bad_activation(model, step)
        or _bad_bound(learner, step)
        or _bad_gradient(learner, loss, step)
        or "none when the step was repeated (a random method, or noise on the weights?)"
    )


def _bad_activation(model: nn.Module, step: Step) -> str | None:
    if not torch.isfinite(step.x).all():
        return "the input itself"
    bad: list[str] = []

    def watch(name: str, module: nn.Module) -> torch.utils.hooks.RemovableHandle:
        def hook(_module: nn.Module, _inputs: object, output: object) -> None:
            if isinstance(output, Tensor) and not torch.isfinite(output).all():
                bad.append(f"{name} ({type(module).__name__}): its output on the clean batch")

        return module.register_forward_hook(hook)

    handles = [watch(name, m) for name, m in model.named_modules() if not any(m.children())]
    try:
        with torch.no_grad():
            model(step.x)
    finally:
        for handle in handles:
            handle.remove()
    return bad[0] if bad else None


def _bad_bound(learner: Learner, step: Step) -> str | None:
    if step.values.kappa == 1 or not learner.method.gives_bounds:
        return None
    net = learner.net
    with torch.no_grad():
        clean = net.observe(step.x)
        bounds = net.bounds(*learner.box(step.x, step.values.eps), step.y, beta=step.values.beta, statistics=clean.statistics)
    relus = [name for name, m in net.model.named_modules() if isinstance(m, nn.ReLU)]
    for index, (lower, upper) in enumerate(bounds.layers):
        if not (torch.isfinite(lower).all() and torch.isfinite(upper).all()):
            name = relus[index] if len(relus) == len(bounds.layers) else f"number {index + 1}"
            return f"ReLU {name}: the bounds that enter it"
    return None if torch.isfinite(bounds.margins).all() else "the output layer: the margins' bounds"


def _bad_gradient(learner: Learner, loss: Loss, step: Step) -> str | None:
    model = learner.model
    model.zero_grad(set_to_none=True)
    loss(learner, Batch.whole(step.x, step.y), step.values).loss.backward()
    for name, parameter in reversed(list(model.named_parameters())):
        if parameter.grad is not None and not torch.isfinite(parameter.grad).all():
            return f"{name}: its gradient"
    return None
