"""What users give, checked once where it comes in: inputs, labels, radii, ranges, specifications."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from newrelax.errors import UserError

DataRange = tuple[float | Tensor, float | Tensor] | None
"""Smallest and largest value of an input, for all features or for each; None: a ball is not clipped."""

UNIT_RANGE: DataRange = (0.0, 1.0)


def box(x: Tensor, eps: float | Tensor, data_range: DataRange = UNIT_RANGE) -> tuple[Tensor, Tensor]:
    """The L∞ ball of radius eps (in input units) around x, clipped to the data range: (lower, upper), each like x.

    eps: a number, or a tensor that broadcasts against x; nothing is checked here.
    """
    lower, upper = x - eps, x + eps
    if data_range is None:
        return lower, upper
    low, high = data_range
    if isinstance(low, Tensor) or isinstance(high, Tensor):
        low, high = torch.as_tensor(low).to(x), torch.as_tensor(high).to(x)
        return lower.clamp(low, high), upper.clamp(low, high)
    return lower.clamp(low, high), upper.clamp(low, high)


def model_dtype(model: nn.Module) -> torch.dtype:
    """The floating type that the model computes in."""
    tensors = (t for t in (*model.parameters(), *model.buffers()) if t.is_floating_point())
    return next((t.dtype for t in tensors), torch.get_default_dtype())


def check_model(model: object) -> nn.Module:
    """A module with finite float32 or float64 weights; raises `UserError` otherwise."""
    if not isinstance(model, nn.Module):
        raise UserError(f"expected a torch.nn.Module, got {_kind(model)}")
    for name, tensor in (*model.named_parameters(), *model.named_buffers()):
        if tensor.is_meta:
            raise UserError(
                f"{name} of {type(model).__name__} is on the meta device, without values: there is nothing to bound"
            )
        if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()) and not _is_mask(tensor):
            raise UserError(f"{name} of {type(model).__name__} holds NaN or infinite values: there is nothing to bound")
    if model_dtype(model) not in (torch.float32, torch.float64):
        raise UserError(f"expected a network in float32 or float64, got {model_dtype(model)}: use .float() or .double()")
    return model


def _is_mask(tensor: Tensor) -> bool:
    """Whether it is added to scores before a softmax: 0, and −∞ for what is hidden."""
    return not isinstance(tensor, nn.Parameter) and bool(((tensor == 0) | (tensor == -torch.inf)).all())


def check_inputs(x: object, model: nn.Module, what: str = "x") -> Tensor:
    """A finite batch of the model's floating type; raises `UserError` otherwise."""
    if not isinstance(x, Tensor):
        raise UserError(f"expected {what} as a tensor [batch, *features], got {_kind(x)}")
    if x.layout != torch.strided:
        raise UserError(f"expected {what} as a dense tensor, got one of layout {x.layout}: use .to_dense()")
    if x.ndim < 2:
        raise UserError(f"expected {what} as [batch, *features], got the shape {tuple(x.shape)}")
    dtype = model_dtype(model)
    if x.dtype != dtype:
        raise UserError(
            f"expected {what} in the network's type {_short(dtype)}, got {_short(x.dtype)}: use .to(torch.{_short(dtype)})"
        )
    if not bool(torch.isfinite(x).all()):
        raise UserError(f"{what} holds NaN or infinite values")
    return x.detach()


def check_labels(y: object, count: int, outputs: int) -> Tensor:
    """Classes [count], long; raises `UserError` otherwise. outputs: how many logits there are, 1 for a binary classifier."""
    classes = max(outputs, 2)
    if not isinstance(y, Tensor):
        try:
            y = torch.as_tensor(y)
        except (TypeError, ValueError, RuntimeError):
            raise UserError(f"expected y as classes [batch], got {_kind(y)}") from None
    if y.is_floating_point() or y.is_complex() or y.dtype == torch.bool:
        raise UserError(f"expected y as whole numbers (classes), got {_short(y.dtype)}")
    if y.shape != (count,):
        raise UserError(f"expected y of shape ({count},), one class for each input, got {tuple(y.shape)}")
    y = y.long()
    if count and (int(y.min()) < 0 or int(y.max()) >= classes):
        raise UserError(f"expected classes from 0 to {classes - 1}, got {int(y.min())} to {int(y.max())}")
    return y


def check_range(data_range: object, x: Tensor) -> DataRange:
    """A data range that holds x; raises `UserError` otherwise."""
    if data_range is None:
        return None
    if not isinstance(data_range, (tuple, list)) or len(data_range) != 2:
        raise UserError(f"expected data_range as (smallest, largest) or None, got {_kind(data_range)}")
    low, high = (_end(end, x) for end in data_range)
    if not bool((torch.as_tensor(low) < torch.as_tensor(high)).all()):
        raise UserError(f"expected data_range with its smallest value first, got ({_show(low)}, {_show(high)})")
    if x.numel():
        slack = 1e-6 * (torch.as_tensor(high) - torch.as_tensor(low)).abs()
        outside = (x < low - slack.to(x)) | (x > high + slack.to(x))
        if bool(outside.any()):
            raise UserError(
                f"inputs range from {float(x.min()):g} to {float(x.max()):g}, expected [{_show(low)}, {_show(high)}]: scale "
                "them, or give data_range=(smallest, largest), numbers or one a feature, or None for no limits"
            )
    return low, high


def _end(end: object, x: Tensor) -> float | Tensor:
    if isinstance(end, bool) or not isinstance(end, (int, float, Tensor)):
        raise UserError(f"expected data_range of numbers or tensors, got {_kind(end)}")
    if not isinstance(end, Tensor):
        if math.isnan(end):
            raise UserError("expected data_range of numbers, got NaN")
        return float(end)
    if end.ndim and _broadcasts(end, x.shape[1:]) is None:
        raise UserError(f"expected data_range for features of shape {tuple(x.shape[1:])}, got {tuple(end.shape)}")
    if bool(end.isnan().any()):
        raise UserError("expected data_range of numbers, got NaN")
    return end.to(x)


def _broadcasts(tensor: Tensor, shape: Sequence[int]) -> Tensor | None:
    try:
        return torch.broadcast_to(tensor, tuple(shape))
    except RuntimeError:
        return None


def check_eps(eps: object, x: Tensor) -> float | Tensor:
    """A radius, or one for each example, feature, or both, as it broadcasts against x; raises `UserError` otherwise."""
    if not isinstance(eps, Tensor):
        if isinstance(eps, bool) or not isinstance(eps, (int, float)) or not math.isfinite(eps) or eps < 0:
            raise UserError(f"expected eps as a number of at least 0 or a tensor, got {eps!r}"[:200])
        return float(eps)
    if eps.is_complex() or eps.dtype == torch.bool or not bool(torch.isfinite(eps).all()) or bool((eps < 0).any()):
        raise UserError("expected eps of finite numbers of at least 0")
    eps = eps.to(x)
    batch, features = x.shape[0], tuple(x.shape[1:])
    if eps.ndim == 0 or eps.shape == x.shape:
        return eps
    meanings = {
        "one for each example": (batch,) == tuple(eps.shape),
        "one for each feature": features == tuple(eps.shape),
    }
    if all(meanings.values()):
        raise UserError(
            f"eps of shape {tuple(eps.shape)} could be one for each example or for each feature of x {tuple(x.shape)}: "
            "give it as [batch, *features], eps[:, None].expand_as(x) for one"
        )
    if meanings["one for each example"]:
        return eps.view(-1, *[1] * (x.ndim - 1))
    if meanings["one for each feature"]:
        return eps.unsqueeze(0)
    if eps.ndim == x.ndim and _broadcasts(eps, x.shape) is not None:
        return eps
    raise UserError(
        f"expected eps as a number, or a tensor of shape ({batch},), {features} or {tuple(x.shape)}, got {tuple(eps.shape)}"
    )


def check_specification(specification: object, batch: int, outputs: int, like: Tensor) -> Tensor:
    """Linear functions of the outputs as [batch, rows, outputs]; raises `UserError` otherwise."""
    if specification is None:
        return torch.eye(outputs, dtype=like.dtype, device=like.device).expand(batch, -1, -1)
    if not isinstance(specification, Tensor) or not specification.is_floating_point():
        raise UserError(
            f"expected specification as a floating tensor [rows, outputs] or [batch, rows, outputs], got {_kind(specification)}"
        )
    if specification.numel() == 0 and outputs > 0 and batch > 0:
        raise UserError(f"expected a specification with rows, got the shape {tuple(specification.shape)}")
    if not bool(torch.isfinite(specification).all()):
        raise UserError("specification holds NaN or infinite values")
    found = specification.to(like)
    if found.ndim == 2 and found.shape[1] == outputs:
        return found.expand(batch, -1, -1)
    if found.ndim == 3 and found.shape[0] == batch and found.shape[2] == outputs:
        return found
    raise UserError(
        f"expected specification of shape [rows, {outputs}] or [{batch}, rows, {outputs}], got {tuple(specification.shape)}"
    )


def check_box(lower: object, upper: object, model: nn.Module) -> tuple[Tensor, Tensor]:
    """Two batches of one shape, the lower nowhere above the upper; raises `UserError` otherwise."""
    low, high = check_inputs(lower, model, "lower"), check_inputs(upper, model, "upper")
    if low.shape != high.shape:
        raise UserError(f"expected lower and upper of one shape, got {tuple(low.shape)} and {tuple(high.shape)}")
    if bool((low > high).any()):
        raise UserError("expected lower ≤ upper everywhere")
    return low, high


def _short(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _show(value: float | Tensor) -> str:
    return f"{value:g}" if not isinstance(value, Tensor) else f"{float(value.min()):g}…{float(value.max()):g}"


def _kind(value: Any) -> str:
    if isinstance(value, Tensor):
        return f"{_short(value.dtype)} tensor of shape {tuple(value.shape)}"
    return type(value).__name__
