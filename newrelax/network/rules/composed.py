"""Operators that are written in others: torch traces these functions in the operators' place."""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from newrelax.network.operators.rule import composed

FAR = 60.0
"""Beyond this exponents are taken apart: exp(−60) is nothing beside 1, and sums of exp(60) are numbers in float32."""


@composed("aten.softmax.int", "aten._softmax.default")
def softmax(x: Tensor, dim: int, dtype: Any = None) -> Tensor:
    """1 / Σⱼ exp(xⱼ − xᵢ): bounds of differences are tighter than quotients of bounds."""
    dim = dim % x.ndim
    excess = _excess(x, dim)
    return (-excess).exp() * _ratios(x, dim, excess).reciprocal()


def _excess(x: Tensor, dim: int) -> Tensor:
    """By how much the largest difference xⱼ − xᵢ is beyond `FAR`, i along dim: 0 for logits that are not far apart."""
    return (x.amax(dim, keepdim=True) - x - FAR).relu()


def _exp(x: Tensor) -> Tensor:
    """exp x for x up to `FAR`; bounds, which may be wider, stay numbers."""
    return x.clamp(max=FAR + 20).exp()


def _ratios(x: Tensor, dim: int, excess: Tensor) -> Tensor:
    """Σⱼ exp(xⱼ − xᵢ − excess), i along dim: what the feature itself gives, which intervals would not know, and something
    above 0 for each other. No exponent is above `FAR`, and the sum is 1 at least; bounds forget both."""
    differences = x.unsqueeze(dim + 1) - x.unsqueeze(dim) - excess.unsqueeze(dim)  # j along dim, i along dim + 1
    count = x.shape[dim]
    own = torch.eye(count, dtype=torch.bool, device=x.device).view(count, count, *[1] * (x.ndim - dim - 1))
    return (_exp(differences).masked_fill(own, 0.0).sum(dim) + (-excess).exp()).clamp(min=1.0)


@composed("aten.log_softmax.int", "aten._log_softmax.default")
def log_softmax(x: Tensor, dim: int, dtype: Any = None) -> Tensor:
    """−log Σⱼ exp(xⱼ − xᵢ)."""
    dim = dim % x.ndim
    excess = _excess(x, dim)
    return -(excess + _ratios(x, dim, excess).log())


@composed("aten.logsumexp.default")
def logsumexp(x: Tensor, dim: list[int], keepdim: bool = False) -> Tensor:
    """log Σ exp x."""
    largest = x.amax(dim, keepdim=True)
    excess = (largest - FAR).relu() - (-FAR - largest).relu()
    found = _exp(x - excess).sum(dim, keepdim=True).clamp(min=math.exp(-FAR - 1)).log() + excess
    return found if keepdim else found.squeeze(dim)


@composed("aten.layer_norm.default")
def layer_norm(
    x: Tensor, shape: list[int], weight: Tensor | None = None, bias: Tensor | None = None, eps: float = 1e-5, cudnn: bool = True
) -> Tensor:
    """Features centred, divided by their standard deviation."""
    found = _normalised(x, list(range(-len(shape), 0)), eps)
    found = found if weight is None else found * weight
    return found if bias is None else found + bias


def _normalised(x: Tensor, dims: list[int], eps: float) -> Tensor:
    centred = x - x.mean(dims, keepdim=True)
    return centred * (centred.square().mean(dims, keepdim=True) + eps).rsqrt()


@composed("aten.group_norm.default")
def group_norm(
    x: Tensor, groups: int, weight: Tensor | None = None, bias: Tensor | None = None, eps: float = 1e-5, cudnn: bool = True
) -> Tensor:
    """As layer norm, over groups of channels."""
    parts = x.unflatten(1, (groups, x.shape[1] // groups))
    found = _normalised(parts, list(range(2, parts.ndim)), eps).flatten(1, 2)
    shape = (-1, *[1] * (x.ndim - 2))
    found = found if weight is None else found * weight.view(shape)
    return found if bias is None else found + bias.view(shape)


@composed("aten.instance_norm.default")
def instance_norm(
    x: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    mean: Tensor | None,
    variance: Tensor | None,
    use_input: bool,
    momentum: float,
    eps: float,
    cudnn: bool,
) -> Tensor:
    """As layer norm, over each channel's image; or with running statistics."""
    shape = (-1, *[1] * (x.ndim - 2))
    if use_input or mean is None or variance is None:
        found = _normalised(x, list(range(2, x.ndim)), eps)
    else:
        found = (x - mean.view(shape)) * (variance + eps).rsqrt().view(shape)
    found = found if weight is None else found * weight.view(shape)
    return found if bias is None else found + bias.view(shape)


@composed("aten.rms_norm.default")
def rms_norm(x: Tensor, shape: list[int], weight: Tensor | None = None, eps: float | None = None) -> Tensor:
    """Features divided by the root of their mean square."""
    dims = list(range(-len(shape), 0))
    found = x * (x.square().mean(dims, keepdim=True) + (torch.finfo(x.dtype).eps if eps is None else eps)).rsqrt()
    return found if weight is None else found * weight


@composed("aten.scaled_dot_product_attention.default")
def attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mask: Tensor | None = None,
    dropout: float = 0.0,
    causal: bool = False,
    *,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Tensor:
    """softmax(QKᵀ·scale + mask)·V."""
    scores = query @ key.transpose(-2, -1) * (1 / math.sqrt(query.shape[-1]) if scale is None else scale)
    if causal:
        hidden = torch.ones(scores.shape[-2:], dtype=torch.bool, device=scores.device).triu(1)
        scores = scores.masked_fill(hidden, -1e4)
    if mask is not None:
        scores = scores.masked_fill(~mask, -1e4) if mask.dtype == torch.bool else scores + mask
    return scores.softmax(-1) @ value


@composed("aten.hardswish.default")
def hardswish(x: Tensor) -> Tensor:
    """x·hardsigmoid(x)."""
    return x * F.hardsigmoid(x)


@composed("aten.glu.default")
def glu(x: Tensor, dim: int = -1) -> Tensor:
    """The first half times the sigmoid of the second."""
    first, second = x.chunk(2, dim)
    return first * second.sigmoid()


@composed("aten.log_sigmoid.default")
def log_sigmoid(x: Tensor) -> Tensor:
    """−softplus(−x)."""
    return -F.softplus(-x)


@composed("aten.expm1.default")
def expm1(x: Tensor) -> Tensor:
    """exp(x) − 1."""
    return x.exp() - 1


@composed("aten.erfc.default")
def erfc(x: Tensor) -> Tensor:
    """1 − erf x."""
    return 1 - torch.erf(x)


@composed("aten.hypot.default")
def hypot(x: Tensor, y: Tensor) -> Tensor:
    """√(x² + y²)."""
    return (x.square() + y.square()).sqrt()


@composed("aten.log1p.default")
def log1p(x: Tensor) -> Tensor:
    """log(1 + x)."""
    return (x + 1).log()


@composed("aten.addcdiv.default")
def addcdiv(x: Tensor, y: Tensor, z: Tensor, *, value: float = 1) -> Tensor:
    """x + value·y / z."""
    return x + value * (y / z)


@composed("aten.lerp.Scalar", "aten.lerp.Tensor")
def lerp(x: Tensor, y: Tensor, weight: Any) -> Tensor:
    """x + weight·(y − x)."""
    found: Tensor = x + (y - x) * weight
    return found


@composed("aten.var.correction")
def variance(x: Tensor, dim: list[int] | None = None, *, correction: float | None = None, keepdim: bool = False) -> Tensor:
    """The mean square of what is centred."""
    dims = list(range(x.ndim)) if dim is None else list(dim)
    count = math.prod(x.shape[d] for d in dims)
    centred = x - x.mean(dims, keepdim=True)
    return centred.square().sum(dims, keepdim) / (count - (1 if correction is None else correction))


@composed("aten.std.correction")
def deviation(x: Tensor, dim: list[int] | None = None, *, correction: float | None = None, keepdim: bool = False) -> Tensor:
    """The root of the variance."""
    return torch.var(x, dim, correction=1 if correction is None else correction, keepdim=keepdim).sqrt()


@composed("aten.linalg_vector_norm.default")
def vector_norm(x: Tensor, order: float = 2, dim: Any = None, keepdim: bool = False, *, dtype: Any = None) -> Tensor:
    """Norms of any order but 0."""
    dims = list(range(x.ndim)) if dim is None else dim
    if order == 1:
        return x.abs().sum(dims, keepdim)
    if order == 2:
        return x.square().sum(dims, keepdim).sqrt()
    if math.isinf(order):
        return x.abs().amax(dims, keepdim) if order > 0 else x.abs().amin(dims, keepdim)
    return (x.abs() ** order).sum(dims, keepdim) ** (1 / order)


@composed("aten.var_mean.correction")
def variance_and_mean(
    x: Tensor, dim: list[int] | None = None, *, correction: float | None = None, keepdim: bool = False
) -> tuple[Tensor, Tensor]:
    """Both."""
    dims = list(range(x.ndim)) if dim is None else list(dim)
    return torch.var(x, dims, correction=1 if correction is None else correction, keepdim=keepdim), x.mean(dims, keepdim)


@composed("aten.logaddexp.default")
def logaddexp(x: Tensor, y: Tensor) -> Tensor:
    """log(exp x + exp y)."""
    return y + F.softplus(x - y)


@composed("aten.exp2.default")
def exp2(x: Tensor) -> Tensor:
    """2 to the power x."""
    return (x * math.log(2)).exp()


@composed("aten.log2.default")
def log2(x: Tensor) -> Tensor:
    """log x / log 2."""
    return x.log() / math.log(2)


@composed("aten.log10.default")
def log10(x: Tensor) -> Tensor:
    """log x / log 10."""
    return x.log() / math.log(10)


@composed("aten.pow.Scalar")
def power_of(base: float, x: Tensor) -> Tensor:
    """A constant to the power x."""
    return (x * math.log(base)).exp()


@composed("aten.pow.Tensor_Tensor")
def power_by(x: Tensor, y: Tensor) -> Tensor:
    """exp(y·log x), x above 0."""
    return (y * x.log()).exp()


@composed("aten.bilinear.default")
def bilinear(x: Tensor, y: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """A linear layer of all products."""
    return F.linear((x.unsqueeze(-1) * y.unsqueeze(-2)).flatten(-2), weight.flatten(1), bias)


@composed("aten.prod.dim_int")
def product(x: Tensor, dim: int, keepdim: bool = False, *, dtype: Any = None) -> Tensor:
    """One product after another."""
    parts = x.unbind(dim)
    found = parts[0]
    for part in parts[1:]:
        found = found * part
    return found.unsqueeze(dim) if keepdim else found


@composed("aten.cdist.default")
def distances(x: Tensor, y: Tensor, p: float = 2, mode: int | None = None) -> Tensor:
    """Norms of all differences of rows."""
    found: Tensor = torch.linalg.vector_norm(x.unsqueeze(-2) - y.unsqueeze(-3), p, -1)
    return found


RULES = (
    softmax,
    log_softmax,
    logsumexp,
    layer_norm,
    group_norm,
    instance_norm,
    rms_norm,
    attention,
    hardswish,
    glu,
    log_sigmoid,
    expm1,
    log1p,
    addcdiv,
    lerp,
    variance,
    deviation,
    vector_norm,
    variance_and_mean,
    logaddexp,
    exp2,
    log2,
    log10,
    power_of,
    power_by,
    bilinear,
    product,
    distances,
    erfc,
    hypot,
)
