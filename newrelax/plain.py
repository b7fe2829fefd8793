"""The plain path: margins from auto_LiRPA's `BoundedModule`. The only caller of `compute_bounds`.

It takes any graph that auto_LiRPA can trace. The faster passes of `propagation.py` are tested against it.
"""

from __future__ import annotations

import contextlib
import io
import logging
from collections.abc import Iterator, Sequence
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from . import lirpa
from .errors import UserError
from .method import Method
from .operator import CONSTANT_OPERATORS, RelaxedRelu, relu_operator

_PROPAGATIONS = {
    "interval": dict(method="IBP"),
    "backward": dict(method="backward"),
    "ibp+backward": dict(IBP=True, method="backward"),
    "forward": dict(method="forward"),
    "hybrid": dict(method="forward"),  # with equal slopes the forward mode is the hybrid zonotope
}


def check_same(found: Tensor, logits: Tensor, model: nn.Module) -> None:
    """Refuse a graph that computes something else than the model, with `UserError`: its bounds would prove nothing.

    It happens with branches on the input's values, and with options that the parsed operator lacks (pooling with
    `ceil_mode`, say).
    """
    if found.shape != logits.shape or not torch.allclose(found, logits, rtol=1e-3, atol=1e-3 * (1 + float(logits.abs().max()))):
        raise UserError(
            f"the graph that auto_LiRPA {lirpa.VERSION} traced of {type(model).__name__} gives other outputs than the model: "
            "expected an operator-by-operator copy; remove branches on values and unusual pooling options"
        )


def trace(model: nn.Module, input_shape: Sequence[int], method: Method) -> tuple[nn.Module, Tensor, Tensor]:
    """The `BoundedModule` of a model under a method's ReLU relaxation, a sample input, and the model's logits there.

    Parameters stay the model's own. Raises `UserError` if auto_LiRPA cannot trace the model, or traces another function.
    """
    if any(parametrize.is_parametrized(module) for module in model.modules()):
        raise UserError(
            f"{type(model).__name__} computes weights from others, which auto_LiRPA {lirpa.VERSION} bounds wrongly: expected plain "
            "parameters; torch.nn.utils.parametrize.remove_parametrizations makes them so"
        )
    custom_ops: dict[str, object] = dict(CONSTANT_OPERATORS)
    options: dict[str, object] = {"sparse_intermediate_bounds": False}
    relaxation = method.relaxation
    if relaxation is not None:
        if relaxation.native is not None and not method.random_slopes and method.propagation in ("backward", "ibp+backward"):
            options[lirpa.RELU_OPTION] = relaxation.native
        else:
            custom_ops["onnx::Relu"] = relu_operator(relaxation)
    like = next(model.parameters())
    generator = torch.Generator().manual_seed(0)
    sample = torch.rand((2, *input_shape), generator=generator, dtype=like.dtype).to(like.device)
    auto_logger = logging.getLogger("auto_LiRPA")
    level = auto_logger.level
    auto_logger.setLevel(logging.CRITICAL)
    try:
        with _left_alone(model), lirpa.tracing(), contextlib.redirect_stdout(io.StringIO()):
            bounded = lirpa.BoundedModule(model.eval(), sample[:1], bound_opts=options, custom_ops=custom_ops)
            with torch.no_grad():
                logits = model.eval()(sample)
    except (NotImplementedError, KeyError, AttributeError, RuntimeError, AssertionError, TypeError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UserError(
            f"auto_LiRPA {lirpa.VERSION} cannot trace {type(model).__name__} on inputs of shape {tuple(input_shape)}: {reason}"
        ) from error
    finally:
        auto_logger.setLevel(level)
    _share_tensors(bounded, model)
    bounded.eval()
    with torch.no_grad(), lirpa.default_dtype(like.dtype):
        check_same(bounded(sample), logits, model)
    return bounded, sample, logits


@contextlib.contextmanager
def _left_alone(model: nn.Module) -> Iterator[None]:
    """Puts the model's mode back, its buffers with their values, and all of its tensors where they were.

    Tracing runs the model and moves it through the CPU. On a GPU that gives parameters and gradients new places, which
    captured steps would not know, and makes new buffers, which batch norm of a network traced before would not see.
    """
    training = model.training
    tensors = [tensor for parameter in model.parameters() for tensor in (parameter, parameter.grad) if tensor is not None]
    places = [(tensor, tensor.data) for tensor in tensors]
    buffers = [(m._buffers, name, b, b.clone()) for m in model.modules() for name, b in m._buffers.items() if b is not None]
    try:
        yield
    finally:
        model.train(training)
        with torch.no_grad():
            for tensor, place in places:
                tensor.data = place
            for owner, name, buffer, value in buffers:
                owner[name] = buffer
                buffer.copy_(value)


def _share_tensors(bounded: nn.Module, model: nn.Module) -> None:
    """Make every leaf give the model's own tensor, wherever tracing took it from.

    auto_LiRPA's parameter leaves would also switch its `requires_grad` with every change of mode.
    """
    own = dict(model.named_parameters()) | dict(model.named_buffers())
    for node in bounded._modules.values():
        if isinstance(node, (lirpa.BoundParams, lirpa.BoundBuffers)) and node.ori_name in own:
            tensor = own[node.ori_name]
            if isinstance(node, lirpa.BoundParams):
                node._parameters["param"] = tensor
            else:
                node._buffers["buffer"] = tensor
            node.forward = partial(_same, tensor)


def _same(tensor: Tensor) -> Tensor:
    return tensor


class PlainBounds:
    """Margins of a traced model by auto_LiRPA alone."""

    def __init__(self, model: nn.Module, bounded: nn.Module, method: Method) -> None:
        if method.propagation not in _PROPAGATIONS:
            raise UserError(f"{method.label}: auto_LiRPA has no {method.propagation} propagation")
        self.model = model
        self.method = method
        self.bounded = bounded
        self.relus = [n for n in self.bounded._modules.values() if isinstance(n, (lirpa.BoundRelu, RelaxedRelu))]

    def forward(self, x: Tensor) -> Tensor:
        self.bounded.train(self.model.training)
        return self.bounded(x)

    def margins(self, lower: Tensor, upper: Tensor, specification: Tensor, *, ibp: bool = False) -> Tensor:
        """Lower bounds of specification @ logits over the box; [batch, classes − 1].

        specification: [batch, classes − 1, classes]. `ibp`: by intervals, whatever the method's propagation.
        """
        center = (lower + upper) / 2
        box = lirpa.PerturbationLpNorm(norm=float("inf"), eps=1.0, x_L=lower, x_U=upper)
        arguments = _PROPAGATIONS["interval" if ibp else self.method.propagation]
        self.bounded.train(self.model.training)
        with contextlib.redirect_stdout(io.StringIO()), lirpa.default_dtype(lower.dtype):
            try:
                result, _ = self.bounded.compute_bounds(
                    x=(lirpa.BoundedTensor(center, box),), C=specification,
                    bound_upper=ibp or self.method.propagation == "interval", **arguments,
                )  # fmt: skip
            except NotImplementedError as error:
                raise UserError(
                    f"auto_LiRPA {lirpa.VERSION} cannot pass {self.method.label} through {type(self.model).__name__}: "
                    f"{str(error).splitlines()[0]}"
                ) from error
        return result

    def layers(self) -> tuple[tuple[Tensor, Tensor], ...]:
        """Pre-activation bounds (lower, upper) of every ReLU, as the last call of `margins` found them."""
        return tuple((node.inputs[0].lower.detach(), node.inputs[0].upper.detach()) for node in self.relus)
