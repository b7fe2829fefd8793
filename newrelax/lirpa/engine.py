"""auto_LiRPA as an engine, and as the oracle of our own passes: `compute_bounds` over the same steps."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import Tensor

from newrelax.errors import UserError
from newrelax.lirpa import bridge, trust
from newrelax.lirpa.candidates import LINES
from newrelax.lirpa.live import Live
from newrelax.lirpa.module import BoundedSteps
from newrelax.lirpa.natives import Native, native_of
from newrelax.lirpa.operators import own_class
from newrelax.methods.method import Method
from newrelax.network.graph import Graph
from newrelax.network.network import Step
from newrelax.propagations.base import Bounds, Layers, Problem, Propagation

_PROPAGATIONS: dict[str, dict[str, Any]] = {
    "interval": {"method": "IBP"},
    "backward": {"method": "backward"},
    "ibp+backward": {"IBP": True, "method": "backward"},
    "forward": {"method": "forward"},
    "hybrid": {"method": "forward"},  # with equal slopes the forward mode is the hybrid zonotope
}


class LirpaPropagation(Propagation):
    """A method's bounds by auto_LiRPA.

    For networks of ReLUs they are those of our own passes. Where a step needs bounds of what enters a smooth function or a
    product, our passes intersect them with intervals and these do not: both are sound, and they may differ.

    Raises `UserError` for methods that auto_LiRPA has no way for, and for graphs that it cannot take.
    """

    def __init__(self, graph: Graph, method: Method) -> None:
        if method.propagation.name not in _PROPAGATIONS:
            raise UserError(
                f"{method.label}: auto_LiRPA has no {method.propagation.name} propagation; leave the engine to newrelax"
            )
        self.name = method.propagation.name  # type: ignore[misc]
        self._method, self._model = method, type(graph.model).__name__
        relaxation = method.relaxation
        self._relu = relaxation.native if relaxation is not None and self.name in ("backward", "ibp+backward") else None
        self._lines = trust.passed(LINES, self._mode)
        with torch.no_grad():
            network = graph.network()
            tensors = (*graph.model.parameters(), *graph.model.buffers())
            like = next((tensor for tensor in tensors if tensor.is_floating_point()), torch.empty(0))
            self._bounded = BoundedSteps(
                Live(network, method.lines, like.detach()),
                self._choose,
                {} if self._relu is None else {bridge.RELU_OPTION: self._relu},
                self._model,
                patches=self._mode == "bounds" and all(map(self._keeps_patches, network.steps)),
                own=partial(own_class, lines=self._lines),
            )

    @property
    def _mode(self) -> trust.Mode:
        return "forward" if self.name in ("forward", "hybrid") else "bounds"

    def _choose(self, step: Step) -> Native | None:
        """auto_LiRPA's own operator for a step if it has one that passed the check."""
        native = native_of(step, self._relu)
        return native if native is not None and trust.passed(native.kind, self._mode) else None

    def _keeps_patches(self, step: Step) -> bool:
        """Whether a step takes patches, or never meets any."""
        native = self._choose(step)
        if native is not None:
            return trust.passed(native.kind, "patches")
        on_lines = issubclass(own_class(step.operator, lines=self._lines), bridge.BoundActivation)
        return len(step.shape) < 2 or (on_lines and trust.passed(LINES, "patches"))

    def bounds(self, problem: Problem, specification: Tensor) -> Bounds:
        lower, _ = self._computed(problem, specification, self.name)
        return Bounds(lower, self._layers(problem))

    def intervals(self, problem: Problem, matrix: Tensor) -> tuple[Tensor, Tensor, Layers]:
        """Lower and upper bounds of matrix @ outputs by plain intervals, each [batch, rows], and the layers' bounds."""
        lower, upper = self._computed(problem, matrix, "interval", widened=False)
        return lower, upper, self._layers(problem)

    def _computed(self, problem: Problem, matrix: Tensor, name: str, *, widened: bool = True) -> tuple[Tensor, Tensor]:
        live = self._bounded.live
        live.relaxations, live.like = problem.relaxations, problem.lower
        live.widened = widened and name == "interval" and problem.relaxations.widen is not None
        self._bounded.update(problem.network)
        box = bridge.PerturbationLpNorm(norm=float("inf"), eps=1.0, x_L=problem.lower, x_U=problem.upper)
        x = bridge.BoundedTensor((problem.lower + problem.upper) / 2, box)
        with bridge.quiet(), bridge.default_dtype(problem.lower.dtype):
            try:
                lower, upper = self._bounded.module.compute_bounds(
                    x=(x,), C=matrix, bound_upper=name == "interval", **_PROPAGATIONS[name]
                )
            except (UserError, torch.OutOfMemoryError):
                raise
            except Exception as error:  # another library's code may raise anything
                reason = " ".join((str(error) or type(error).__name__).split())[:160]
                raise UserError(
                    f"auto_LiRPA {bridge.VERSION} cannot pass {self._method.label} through {self._model}: {reason}"
                ) from error
        return lower, upper

    def _layers(self, problem: Problem) -> Layers:
        """Bounds of what entered the layers, as the last call found them."""
        nodes = self._bounded.nodes
        entered = {i: nodes[i].inputs[0] for i in problem.network.structure.layers if i in nodes}
        return problem.layers({i: (node.lower, node.upper) for i, node in entered.items() if bridge.has_bounds(node)})
