"""Moving through weight space and leaving no trace."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from types import TracebackType

import torch
from torch import Tensor

Closure = Callable[[], Tensor]
"""A loss or bounds at the present weights."""


class WeightSpace:
    """The neighbourhood of the present weights, as a context.

    Inside, `evaluate` calls a closure with the weights moved; on leaving, the parameters are restored bit for bit and
    the random streams (CPU, and the devices the parameters live on) are as they were. Each evaluation starts from the
    same random state, so that a loss that draws random numbers is a fixed function of the weights.

    Raises:
        ValueError: no parameters, or some that are not of a floating type.
    """

    def __init__(self, parameters: Sequence[Tensor]) -> None:
        if not parameters:
            raise ValueError("expected at least one parameter, got none")
        for p in parameters:
            if not p.is_floating_point():
                raise ValueError(f"expected floating-point parameters, got {p.dtype}")
        self.parameters = list(parameters)
        self.base: list[Tensor] = []
        self.origin: list[Tensor] = []
        self.evaluations = 0
        self._devices = sorted({p.device.index or 0 for p in parameters if p.device.type == "cuda"})

    def __enter__(self) -> WeightSpace:
        self.base = [p.detach().clone() for p in self.parameters]
        self.origin = self.base
        self._cpu_state = torch.get_rng_state()
        self._cuda_states = {d: torch.cuda.get_rng_state(d) for d in self._devices}
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.home()
        self._rewind()

    def _rewind(self) -> None:
        torch.set_rng_state(self._cpu_state)
        for device, state in self._cuda_states.items():
            torch.cuda.set_rng_state(state, device)

    def displace(self, direction: Sequence[Tensor] | None) -> None:
        """Measure moves from base + direction from now on; None: from the base again."""
        self.origin = self.base if direction is None else [b + d for b, d in zip(self.base, direction, strict=True)]

    @torch.no_grad()
    def home(self) -> None:
        """Put the original weights back."""
        for p, b in zip(self.parameters, self.base, strict=True):
            p.copy_(b)

    @torch.no_grad()
    def move(self, direction: Sequence[Tensor], t: float) -> None:
        """Set the weights to origin + t * direction."""
        for p, b, d in zip(self.parameters, self.origin, direction, strict=True):
            p.copy_(b + t * d)

    @torch.no_grad()
    def move_one(self, parameter: int, index: int, by: float) -> None:
        """Change one weight, by flat index, relative to the origin; only this parameter is written."""
        p = self.parameters[parameter]
        moved = self.origin[parameter].clone()
        moved.view(-1)[index] += by
        p.copy_(moved)

    @torch.no_grad()
    def evaluate(self, closure: Closure) -> Tensor:
        """The closure's value at the present weights, detached, in float64 on the CPU."""
        self._rewind()
        self.evaluations += 1
        return closure().detach().double().cpu()

    def gradient(self, loss: Closure) -> tuple[float, list[Tensor]]:
        """Loss and gradient at the present weights; the parameters' .grad is not touched.

        The parameters must require gradients. A parameter the loss does not depend on has gradient 0.
        """
        self._rewind()
        self.evaluations += 1
        with torch.enable_grad():
            value = loss()
            grads = torch.autograd.grad(value, self.parameters, allow_unused=True)
        return float(value.detach()), [
            torch.zeros_like(p) if g is None else g for g, p in zip(grads, self.parameters, strict=True)
        ]
