"""A `BoundedModule` written from a network's steps: auto_LiRPA sees the same function as our own passes, node by node."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from newrelax.errors import UserError
from newrelax.lirpa import bridge
from newrelax.lirpa.live import Live
from newrelax.lirpa.natives import Native
from newrelax.lirpa.operators import own_class
from newrelax.network.network import Network, Step
from newrelax.network.operators.arithmetic import Concatenate
from newrelax.network.operators.base import Affine, Nonlinear, Operator, Shape
from newrelax.network.operators.move import Reshape

Choose = Callable[[Step], Native | None]
"""auto_LiRPA's own operator for a step, or None for ours."""

Own = Callable[[Operator], type]
"""The class of bound operators of ours that bounds a step."""

_NODE = "newrelax::Step"


class _Placed(torch.autograd.Function):
    """A step as one node of the traced graph; its value is the bound operator's business, not the tracer's."""

    @staticmethod
    def forward(ctx: Any, index: int, shape: Shape, *tensors: Tensor) -> Tensor:
        return tensors[0].new_zeros(shape)

    @staticmethod
    def symbolic(g: Any, index: int, shape: Shape, *tensors: Any) -> Any:
        node = g.op(_NODE, *tensors, index_i=index)
        node.setType(tensors[0].type().with_sizes(list(shape)))  # torch knows no rule for it
        return node


class Steps(nn.Module):
    """A network's steps, each one node; what auto_LiRPA's own operators need beside their inputs is a parameter.

    natives: auto_LiRPA's own operator for each step, None for ours.
    """

    def __init__(self, network: Network, natives: Sequence[Native | None]) -> None:
        super().__init__()
        self._network, self._natives = network, natives
        for index, native in enumerate(natives):
            for place, tensor in enumerate(() if native is None else native.tensors):
                copy = nn.Parameter(tensor.detach().clone(), requires_grad=False)
                self.register_parameter(_name(index, place), copy)

    def forward(self, x: Tensor) -> Tensor:
        """A tensor [1, outputs] whose graph is the network; x: [1, *input_shape]."""
        values: list[Tensor] = []
        for index, (step, native) in enumerate(zip(self._network.steps, self._natives, strict=True)):
            inputs = [x if i < 0 else values[i] for i in step.inputs]
            count = 0 if native is None else len(native.tensors)
            tensors = [getattr(self, _name(index, place)) for place in range(count)]
            values.append(_Placed.apply(index, (1, *step.shape), *inputs, *tensors))
        return values[-1]


def _name(index: int, place: int) -> str:
    return f"step{index}_{place}"


def flat(network: Network) -> Network:
    """The network with its outputs along one axis: the only kind that auto_LiRPA's specifications take."""
    last = network.steps[-1]
    if len(last.shape) == 1:
        return network
    flattened = Step(Reshape(last.shape, (math.prod(last.shape),)), (network.last,), (math.prod(last.shape),))
    return Network((*network.steps, flattened), network.input_shape, network.structure, network.training)


class _Bounded(bridge.BoundedModule):  # type: ignore[misc]
    """auto_LiRPA's module, which takes the bounds of what follows a nonlinear step where our own passes do."""

    def check_IBP_intermediate(self, node: Any) -> bool:
        """Whether intervals give a node's bounds from bounds that are known, and then their computation."""
        if not _follows(node):
            return False
        node.interval = self.IBP_general(node)
        return True

    def compute_intermediate_bounds(self, node: Any, prior_checked: bool = False) -> None:
        """Forward mode bounds what comes out of a nonlinear step by its lines; the interval of what enters it is the range
        itself, and what our own passes take."""
        super().compute_intermediate_bounds(node, prior_checked)
        step: Step | None = getattr(node, "step", None)
        nonlinear = step is not None and isinstance(step.operator, Nonlinear)
        if self.use_forward and nonlinear and all(map(bridge.has_bounds, node.inputs)):
            node.lower, node.upper = node.interval_propagate(*((part.lower, part.upper) for part in node.inputs))
            node.linear.lower, node.linear.upper = node.lower, node.upper


def _follows(node: Any) -> bool:
    """As `LinearPass` decides it: bounds that are known, of nonlinear steps, and of features that only move from there."""
    if bridge.has_bounds(node):
        return True
    step: Step | None = getattr(node, "step", None)
    if step is None or isinstance(step.operator, Nonlinear):
        return step is not None
    alone = isinstance(step.operator, Affine) and step.operator.pointwise
    alone = alone and (len(step.inputs) == 1 or isinstance(step.operator, Concatenate))
    return alone and all(_follows(part) for part in node.inputs[: len(step.inputs)])


class BoundedSteps:
    """The traced module of a network, whose weights `update` replaces.

    choose: where auto_LiRPA's own operators bound. own: our class for any other step. patches: whether coefficients of
    convolutions are kept as patches. options: auto_LiRPA's. name: of the user's model, for errors.
    """

    def __init__(
        self, live: Live, choose: Choose, options: dict[str, Any], name: str, *, patches: bool, own: Own = own_class
    ) -> None:
        live.network = flat(live.network)
        self.live, self._choose, self._own = live, choose, own
        natives = self._natives()
        given = {"sparse_intermediate_bounds": False, "conv_mode": "patches" if patches else "matrix", **options}
        self.nodes: dict[int, Any] = {}
        sample = torch.rand((2, *live.network.input_shape), generator=torch.Generator().manual_seed(0), dtype=live.like.dtype)
        sample = sample.to(live.like.device)
        steps = Steps(live.network, natives).eval()
        with bridge.quiet(), bridge.tracing(), bridge.default_dtype(live.like.dtype), torch.no_grad():
            try:
                self.module = _Bounded(
                    steps,
                    sample[:1],
                    bound_opts=given,
                    device=live.like.device,
                    custom_ops={_NODE: partial(self._node, natives)},
                )
            except (NotImplementedError, KeyError, AttributeError, RuntimeError, AssertionError, TypeError) as error:
                raise UserError(f"auto_LiRPA {bridge.VERSION} cannot trace {name}: {_first_line(error)}") from error
        self.module.eval()
        # auto_LiRPA reads the type of its tensors off the first parameter
        self.module._parameters["like"] = nn.Parameter(live.like.new_empty(0), requires_grad=False)
        self._leaves = {node.ori_name: node for node in self.module._modules.values() if isinstance(node, bridge.BoundParams)}
        self.update(live.network)
        with bridge.quiet(), bridge.default_dtype(live.like.dtype), torch.no_grad():
            found, expected = self.module(sample), live.network.forward(sample)
        if found.shape != expected.shape or not torch.allclose(found, expected, rtol=1e-3, atol=1e-3, equal_nan=True):
            raise UserError(f"auto_LiRPA {bridge.VERSION} traces another function than the steps of {name}: nothing is bounded")

    def _natives(self) -> list[Native | None]:
        return [self._choose(step) for step in self.live.network.steps]

    def _node(
        self, natives: Sequence[Native | None], attr: dict[str, Any], inputs: Any, output_index: int, options: Any
    ) -> Any:
        """The bound operator of one step."""
        index = int(attr["index"])
        step, native = self.live.network.steps[index], natives[index]
        if native is None:
            node = self._own(step.operator)(attr, inputs, output_index, options)
            node.stands_for(self.live, index)
        else:
            if len(step.shape) != 3:  # an addition of vectors would take them for images
                options = {**options, "conv_mode": "matrix"}
            node = native.operator({**native.attributes, "device": attr.get("device")}, inputs, output_index, options)
        node.step = step
        self.nodes[index] = node
        return node

    def update(self, network: Network) -> None:
        """Take the weights of another network of the same structure."""
        self.live.network = flat(network)
        for index, native in enumerate(self._natives()):
            for place, tensor in enumerate(() if native is None else native.tensors):
                leaf = self._leaves[_name(index, place)]
                leaf._parameters["param"] = None  # the copy that was traced
                leaf.forward = partial(_same, tensor)


def _same(tensor: Tensor) -> Tensor:
    return tensor


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:200]
