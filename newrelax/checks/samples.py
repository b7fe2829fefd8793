"""A call of every operator that a rule exists for, to check the rule with."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

aten = torch.ops.aten


class Sample(NamedTuple):
    """call: x, [n, *shape], between low and high → a value of each example alone. Weights in it are constants."""

    shape: tuple[int, ...]
    call: Callable[[Tensor], Any]
    low: float = -2.0
    high: float = 2.0


def _constant(*shape: int) -> Tensor:
    """Fixed numbers around 0 for weights."""
    count = torch.Size(shape).numel()
    return torch.sin(torch.arange(1.0, count + 1, dtype=torch.float64) * 1.7).view(shape)


_W: dict[tuple[int, ...], Tensor] = {}


def _w(*shape: int) -> Tensor:
    """The same tensor for the same shape: tracing must not meet its making."""
    return _W[shape]


for _shape in (
    (3, 4),
    (4, 3),
    (4,),
    (3,),
    (2,),
    (5,),
    (2, 3, 3),
    (2, 2, 3),
    (2, 2, 2, 2),
    (2, 2, 2, 2, 2),
    (2, 3),
    (2, 1, 1),
    (3, 2, 2),
    (1, 3),
    (2, 3, 2),
    (2, 2),
):
    _W[_shape] = _constant(*_shape)
_POSITIVE = _constant(4).abs() + 0.5
_MASK = _constant(4) > 0
_PLACES = torch.tensor([2, 0, 0])
_GRID, _GRID3 = _constant(18).view(1, 3, 3, 2), _constant(24).view(1, 2, 2, 2, 3)

VECTOR, IMAGE = (4,), (2, 4, 4)
_LINE, _CUBE, _SMALL = (2, 6), (2, 3, 3, 3), (2, 2, 2, 2)


def _halves(call: Callable[..., Any], *more: Any) -> Callable[[Tensor], Any]:
    """A call of two steps: both halves of the features."""
    return lambda x: call(x[:, :2], x[:, 2:], *more)


def _same(name: str, shape: tuple[int, ...], *arguments: Any, low: float = -2.0, high: float = 2.0) -> tuple[str, Sample]:
    """The operator of that name called with x and the arguments."""
    packet, which = name.split(".")
    operator = getattr(getattr(aten, packet), which)
    return f"aten.{name}", Sample(shape, lambda x: operator(x, *arguments), low, high)


def _own(
    name: str, shape: tuple[int, ...], call: Callable[[Tensor], Any], low: float = -2.0, high: float = 2.0
) -> tuple[str, Sample]:
    return f"aten.{name}", Sample(shape, call, low, high)


_WEIGHTED = (
    _same("linear.default", VECTOR, _w(3, 4), _w(3)),
    _own("addmm.default", VECTOR, lambda x: aten.addmm.default(_w(3), x, _w(4, 3), beta=0.5, alpha=2.0)),
    _own("matmul.default", (2, 3), lambda x: aten.matmul.default(x, x.transpose(1, 2))),
    _same("mm.default", VECTOR, _w(4, 3)),
    _own("bmm.default", (2, 3), lambda x: aten.bmm.default(x, x.transpose(1, 2))),
    _own("mv.default", VECTOR, lambda x: aten.mv.default(x, _w(4)).unsqueeze(1)),
    _own("einsum.default", (2, 2), lambda x: aten.einsum.default("nij,jk->nik", [x, _w(2, 3)])),
    _same("conv1d.default", _LINE, _w(2, 2, 3), _w(2), [1], [1]),
    _same("conv2d.default", IMAGE, _w(2, 2, 2, 2), _w(2), [2, 1], [1, 0]),
    _same("conv3d.default", _CUBE, _w(2, 2, 2, 2, 2), _w(2)),
    _same("conv1d.padding", _LINE, _w(2, 2, 3), _w(2), [1], "same"),
    _same("conv2d.padding", IMAGE, _w(2, 2, 2, 2), None, [1, 1], "same"),
    _same("conv3d.padding", _CUBE, _w(2, 2, 2, 2, 2), None, [1, 1, 1], "valid"),
    _same("conv_transpose1d.default", _LINE, _w(2, 2, 3), _w(2), [2]),
    _same("conv_transpose2d.input", IMAGE, _w(2, 2, 2, 2), _w(2), [2, 2]),
    _same("conv_transpose3d.input", _SMALL, _w(2, 2, 2, 2, 2), _w(2)),
    _own(
        "_native_batch_norm_legit_no_training.default",
        (2, 3),
        lambda x: aten._native_batch_norm_legit_no_training.default(x, _w(2), _w(2), _w(2), _w(2).abs() + 0.5, 0.1, 1e-5)[0],
    ),
    _own(
        "batch_norm.default",
        (2, 3),
        lambda x: aten.batch_norm.default(x, _w(2), _w(2), _w(2), _w(2).abs() + 0.5, False, 0.1, 1e-5, False),
    ),
)

_ARITHMETIC = (
    _own("add.Tensor", VECTOR, _halves(lambda a, b: aten.add.Tensor(a, b, alpha=-2))),
    _same("add.Scalar", VECTOR, 1.5),
    _own("sub.Tensor", VECTOR, _halves(lambda a, b: aten.sub.Tensor(a, b, alpha=2))),
    _same("sub.Scalar", VECTOR, 1.5),
    _same("rsub.Scalar", VECTOR, 1.5),
    _own("rsub.Tensor", VECTOR, _halves(lambda a, b: aten.rsub.Tensor(a, b))),
    _same("neg.default", VECTOR),
    _own("mul.Tensor", VECTOR, _halves(aten.mul.Tensor)),
    _same("mul.Scalar", VECTOR, -1.5),
    _own("div.Tensor", VECTOR, _halves(aten.div.Tensor), 0.5, 2.0),
    _same("div.Scalar", VECTOR, -1.5),
    _same("pow.Tensor_Scalar", VECTOR, 3),
    _own("addcmul.default", VECTOR, lambda x: aten.addcmul.default(x[:, :2], x[:, 1:3], x[:, 2:], value=0.5)),
)

_ACTIVATIONS = (
    *(
        _same(f"{name}.default", VECTOR)
        for name in (
            "relu",
            "relu6",
            "abs",
            "hardsigmoid",
            "softshrink",
            "sigmoid",
            "tanh",
            "silu",
            "mish",
            "exp",
            "erf",
            "atan",
            "square",
            "sin",
            "cos",
            "gelu",
            "elu",
            "selu",
            "hardswish",
            "log_sigmoid",
            "expm1",
            "erfc",
            "exp2",
        )
    ),
    *(
        _same(f"{name}.default", VECTOR, low=0.1, high=3.0)
        for name in (
            "sqrt",
            "log",
            "reciprocal",
            "rsqrt",
            "log1p",
            "log2",
            "log10",
        )
    ),
    _same("leaky_relu.default", VECTOR, 1.5),
    _same("rrelu.default", VECTOR),
    _same("prelu.default", VECTOR, _w(4)),
    _same("hardtanh.default", VECTOR, -0.5, 1.5),
    _same("clamp.default", VECTOR, -0.5, 1.5),
    _own("clamp.Tensor", VECTOR, lambda x: aten.clamp.Tensor(x, -_POSITIVE, _POSITIVE)),
    _same("clip.default", VECTOR, -0.5, None),
    _own("clip.Tensor", VECTOR, lambda x: aten.clip.Tensor(x, -_POSITIVE, _POSITIVE)),
    _same("clamp_min.default", VECTOR, -0.5),
    _own("clamp_min.Tensor", VECTOR, _halves(aten.clamp_min.Tensor)),
    _same("clamp_max.default", VECTOR, 0.5),
    _own("clamp_max.Tensor", VECTOR, _halves(aten.clamp_max.Tensor)),
    _same("threshold.default", VECTOR, 0.5, 0.5),
    *(
        _own(name, VECTOR, _halves(call))
        for name, call in {
            "maximum.default": aten.maximum.default,
            "fmax.default": aten.fmax.default,
            "max.other": aten.max.other,
            "minimum.default": aten.minimum.default,
            "fmin.default": aten.fmin.default,
            "min.other": aten.min.other,
            "logaddexp.default": aten.logaddexp.default,
        }.items()
    ),
    _same("celu.default", VECTOR, 0.7),
    _same("softplus.default", VECTOR, 2.0),
)

_POOLING = (
    _same("avg_pool1d.default", _LINE, [2], [1], [1]),
    _same("avg_pool2d.default", IMAGE, [2, 2], [2, 2], [1, 1], True, False),
    _same("avg_pool3d.default", _CUBE, [2, 2, 2], [1, 1, 1]),
    _same("max_pool1d.default", _LINE, [3], [2], [1]),
    _same("max_pool2d.default", IMAGE, [3, 2], [1, 2], [1, 1]),
    _same("max_pool3d.default", _CUBE, [2, 2, 2], [1, 1, 1]),
    _same("amax.default", (2, 3), [2]),
    _same("amin.default", (2, 3), [1], True),
    _own("max.dim", (2, 3), lambda x: aten.max.dim(x, 2)[0]),
    _own("min.dim", (2, 3), lambda x: aten.min.dim(x, 1)[0]),
    _own("adaptive_max_pool1d.default", _LINE, lambda x: aten.adaptive_max_pool1d.default(x, [3])[0]),
    _own("adaptive_max_pool2d.default", IMAGE, lambda x: aten.adaptive_max_pool2d.default(x, [2, 2])[0]),
    _own("adaptive_max_pool3d.default", _SMALL, lambda x: aten.adaptive_max_pool3d.default(x, [1, 2, 1])[0]),
    _same("adaptive_avg_pool1d.default", _LINE, [3]),
    _same("adaptive_avg_pool2d.default", IMAGE, [3, 2]),
    _same("adaptive_avg_pool3d.default", _SMALL, [1, 2, 1]),
    _same("_adaptive_avg_pool2d.default", IMAGE, [3, 2]),
    _same("_adaptive_avg_pool3d.default", _SMALL, [1, 2, 1]),
)

_SHAPES = (
    _own("view.default", (2, 3), lambda x: aten.view.default(x, [x.shape[0], 6])),
    _own("reshape.default", (2, 3), lambda x: aten.reshape.default(x, [x.shape[0], 3, 2])),
    _own("_unsafe_view.default", (2, 3), lambda x: aten._unsafe_view.default(x, [x.shape[0], 6])),
    _same("flatten.using_ints", (2, 3), 1),
    _same("unflatten.int", VECTOR, 1, [2, 2]),
    _same("squeeze.dim", (1, 3), 1),
    _same("squeeze.dims", (1, 3), [1]),
    _same("unsqueeze.default", VECTOR, 1),
    *(_same(f"{name}.default", VECTOR) for name in ("clone", "contiguous", "alias", "lift_fresh_copy", "_to_copy")),
    _own("detach.default", VECTOR, lambda x: x + aten.detach.default(x)),
    _same("to.dtype", VECTOR, torch.float64),
    _own("to.dtype_layout", VECTOR, lambda x: aten.to.dtype_layout(x, dtype=torch.float64)),
    _own("to.device", VECTOR, lambda x: aten.to.device(x, x.device, torch.float64)),
    _same("type_as.default", VECTOR, _w(4)),
    *(
        _same(f"{name}.default", VECTOR, 0.5, False)
        for name in ("dropout", "feature_dropout", "alpha_dropout", "feature_alpha_dropout")
    ),
    _own("view_as.default", VECTOR, lambda x: aten.view_as.default(x, x)),
)

_MOVES = (
    _same("permute.default", (2, 3), [0, 2, 1]),
    _same("transpose.int", (2, 3), 1, 2),
    _own("t.default", VECTOR, lambda x: aten.t.default(aten.t.default(x))),
    _same("swapaxes.default", (2, 3), 1, 2),
    _same("movedim.int", (2, 3), 1, 2),
    _same("movedim.intlist", (2, 3), [1], [2]),
    _same("select.int", (2, 3), 1, 1),
    _same("narrow.default", (2, 3), 2, 1, 2),
    _same("flip.default", (2, 3), [2]),
    _same("roll.default", (2, 3), [1], [2]),
    _same("pixel_shuffle.default", (4, 2, 2), 2),
    _same("pixel_unshuffle.default", (1, 4, 4), 2),
    _same("channel_shuffle.default", (4, 2, 2), 2),
    _own("numpy_T.default", VECTOR, lambda x: aten.numpy_T.default(aten.numpy_T.default(x))),
    _same("diagonal.default", (3, 3), 0, 1, 2),
    _same("tril.default", (3, 3)),
    _same("triu.default", (3, 3), 1),
    _same("rot90.default", (2, 3), 1, [1, 2]),
    _same("mT.default", (2, 3)),
    _same("slice.Tensor", (2, 3), 2, 1, 3),
    _own("expand.default", (1, 3), lambda x: aten.expand.default(x, [-1, 2, 3])),
    _same("repeat.default", VECTOR, [1, 2]),
    _same("tile.default", VECTOR, [1, 2]),
    _same("index_select.default", VECTOR, 1, _PLACES),
    _same("repeat_interleave.self_int", VECTOR, 2, 1),
    _own("expand_as.default", (2, 3), lambda x: aten.expand_as.default(x[:, :1], x)),
    *(
        _same(f"upsample_{kind}{i}d.vec", shape, [3] * i, *more, None)
        for kind, more in (("nearest", ()),)
        for i, shape in ((1, _LINE), (2, IMAGE), (3, _SMALL))
    ),
    *(_same(f"upsample_nearest{i}d.default", shape, [3] * i) for i, shape in ((1, _LINE), (2, IMAGE), (3, _SMALL))),
    *(
        _same(f"upsample_{kind}{i}d.vec", shape, [3] * i, False, None)
        for kind, i, shape in (("linear", 1, _LINE), ("bilinear", 2, IMAGE), ("trilinear", 3, _SMALL))
    ),
    *(
        _same(f"upsample_{kind}{i}d.default", shape, [3] * i, True)
        for kind, i, shape in (("linear", 1, _LINE), ("bilinear", 2, IMAGE), ("trilinear", 3, _SMALL))
    ),
    _same("_upsample_bilinear2d_aa.default", IMAGE, [3, 3], False),
    _same("_upsample_bilinear2d_aa.vec", IMAGE, [3, 3], False, None),
    *(
        _same(f"{kind}_pad{i}d.default", shape, [1] * (2 * i))
        for kind in ("reflection", "replication")
        for i, shape in ((1, _LINE), (2, IMAGE), (3, _SMALL))
    ),
    _same("im2col.default", IMAGE, [2, 2], [1, 1], [1, 1], [2, 2]),
    _same("col2im.default", (8, 4), [3, 3], [2, 2], [1, 1], [0, 0], [1, 1]),
    _same("unfold.default", (2, 4), 2, 2, 1),
    _same("pad.default", (2, 3), [1, 1], "constant", 0.5),
    _same("constant_pad_nd.default", (2, 3), [1, 0], -0.5),
)

_PARTS = (
    _own("index.Tensor", VECTOR, lambda x: aten.index.Tensor(x, [None, _PLACES])),
    _own("_unsafe_index.Tensor", VECTOR, lambda x: aten._unsafe_index.Tensor(x, [None, _PLACES])),
    _own("gather.default", VECTOR, lambda x: aten.gather.default(x, 1, _PLACES.expand(x.shape[0], -1))),
    _same("masked_fill.Scalar", VECTOR, _MASK, 0.5),
    _same("masked_fill.Tensor", VECTOR, _MASK, torch.tensor(0.5, dtype=torch.float64)),
    _own("where.self", VECTOR, lambda x: aten.where.self(_MASK, x, -x)),
    _own("where.ScalarOther", VECTOR, lambda x: aten.where.ScalarOther(_MASK, x, 0.5)),
    _own("where.ScalarSelf", VECTOR, lambda x: aten.where.ScalarSelf(_MASK, 0.5, x)),
    _own("cat.default", VECTOR, lambda x: aten.cat.default([x, -x], 1)),
    _own("concat.default", VECTOR, lambda x: aten.concat.default([x, -x], 1)),
    _own("stack.default", VECTOR, lambda x: aten.stack.default([x, -x], 1)),
    _own("select_scatter.default", (2, 3), lambda x: aten.select_scatter.default(x, x[:, 0], 1, 1)),
    _own("diagonal_scatter.default", (3, 3), lambda x: aten.diagonal_scatter.default(x, x[:, 0], 0, 1, 2)),
    _own("slice_scatter.default", (2, 3), lambda x: aten.slice_scatter.default(x, x[:, :1], 1, 1, 2)),
    _own("index_add.default", VECTOR, lambda x: aten.index_add.default(x, 1, _PLACES, x[:, 1:], alpha=-0.5)),
    _own("index_copy.default", VECTOR, lambda x: aten.index_copy.default(x, 1, _PLACES[:2], -x[:, 2:])),
    _own("index_put.default", VECTOR, lambda x: aten.index_put.default(x, [None, _PLACES], x[:, 1:], True)),
    _own("scatter.src", VECTOR, lambda x: aten.scatter.src(x, 1, _PLACES[:2].expand(x.shape[0], -1), -x[:, 2:])),
    _own("scatter_add.default", VECTOR, lambda x: aten.scatter_add.default(x, 1, _PLACES.expand(x.shape[0], -1), x[:, 1:])),
    _own(
        "grid_sampler_2d.default",
        IMAGE,
        lambda x: aten.grid_sampler_2d.default(x, _GRID.expand(x.shape[0], -1, -1, -1), 0, 0, False),
    ),
    _own(
        "grid_sampler_3d.default",
        _SMALL,
        lambda x: aten.grid_sampler_3d.default(x, _GRID3.expand(x.shape[0], -1, -1, -1, -1), 0, 0, False),
    ),
    _own(
        "grid_sampler.default", IMAGE, lambda x: aten.grid_sampler.default(x, _GRID.expand(x.shape[0], -1, -1, -1), 0, 1, True)
    ),
    _own("copy.default", VECTOR, lambda x: x.clone().copy_(-x)),
    _own("fill.Scalar", VECTOR, lambda x: x + aten.fill.Scalar(x, 0.5)),
    _own("fill.Tensor", VECTOR, lambda x: x + aten.fill.Tensor(x, torch.tensor(0.5, dtype=torch.float64))),
    _own("zeros_like.default", VECTOR, lambda x: x + aten.zeros_like.default(x)),
    _own("ones_like.default", VECTOR, lambda x: x + aten.ones_like.default(x)),
    _own("full_like.default", VECTOR, lambda x: x + aten.full_like.default(x, 0.5)),
    _own("empty_like.default", VECTOR, lambda x: x + aten.fill.Scalar(aten.empty_like.default(x), 0.5)),
    _own("new_zeros.default", VECTOR, lambda x: x + aten.new_zeros.default(x, [x.shape[0], 4])),
    _own("new_ones.default", VECTOR, lambda x: x + aten.new_ones.default(x, [x.shape[0], 4])),
    _own("new_full.default", VECTOR, lambda x: x + aten.new_full.default(x, [x.shape[0], 4], 0.5)),
    _own("new_empty.default", VECTOR, lambda x: x + aten.fill.Scalar(aten.new_empty.default(x, [x.shape[0], 4]), 0.5)),
    _own("split.Tensor", VECTOR, lambda x: aten.split.Tensor(x, 3, 1)[0]),
    _own("split_with_sizes.default", VECTOR, lambda x: aten.split_with_sizes.default(x, [1, 3], 1)[1]),
    _own("split.sizes", VECTOR, lambda x: aten.split.sizes(x, [1, 3], 1)[1]),
    _own("chunk.default", VECTOR, lambda x: aten.chunk.default(x, 2, 1)[1]),
    _own("unbind.int", (2, 3), lambda x: aten.unbind.int(x, 1)[1]),
    _same("mean.dim", (2, 3), [2]),
    _own("mean.default", (2, 3), lambda x: aten.mean.dim(x, [1])),
    _same("sum.dim_IntList", (2, 3), [1], True),
    _own("sum.default", (2, 3), lambda x: aten.sum.dim_IntList(x, [1])),
    _same("cumsum.default", (2, 3), 2),
)

_COMPOSED = (
    *(_same(f"{name}.int", VECTOR, 1) for name in ("softmax", "log_softmax")),
    *(_same(f"_{name}.default", VECTOR, 1, False) for name in ("softmax", "log_softmax")),
    _same("logsumexp.default", VECTOR, [1], True),
    _same("layer_norm.default", VECTOR, [4], _w(4), _w(4)),
    _same("group_norm.default", IMAGE, 1, _w(2), _w(2)),
    _own(
        "instance_norm.default",
        (2, 4),
        lambda x: aten.instance_norm.default(x, _w(2), _w(2), None, None, True, 0.1, 1e-5, False),
    ),
    _same("rms_norm.default", VECTOR, [4], _w(4), 1e-2),
    _own("scaled_dot_product_attention.default", (3, 2), lambda x: aten.scaled_dot_product_attention.default(x, x, x)),
    _same("glu.default", VECTOR, 1),
    _own("addcdiv.default", VECTOR, lambda x: aten.addcdiv.default(x[:, :2], x[:, 1:3], x[:, 2:], value=0.5), 0.5, 2.0),
    _own("lerp.Scalar", VECTOR, _halves(aten.lerp.Scalar, 0.3)),
    _own("lerp.Tensor", VECTOR, lambda x: aten.lerp.Tensor(x, -x, _POSITIVE)),
    _own("var.correction", (2, 3), lambda x: aten.var.correction(x, [2], correction=1)),
    _own("std.correction", (2, 3), lambda x: aten.std.correction(x, [2], correction=1)),
    _own("var_mean.correction", (2, 3), lambda x: aten.var_mean.correction(x, [2], correction=1)[0]),
    _same("linalg_vector_norm.default", (2, 3), 2, [2]),
    _own("pow.Scalar", VECTOR, lambda x: aten.pow.Scalar(1.7, x)),
    _own("pow.Tensor_Tensor", VECTOR, lambda x: aten.pow.Tensor_Tensor(x, _POSITIVE), 0.5, 2.0),
    _own("hypot.default", VECTOR, lambda x: aten.hypot.default(x[:, :2], x[:, 2:])),
    _same("prod.dim_int", (3, 2), 1),
    _own("bilinear.default", VECTOR, lambda x: aten.bilinear.default(x[:, :2], x[:, 2:], _w(3, 2, 2), _w(3))),
    _own("cdist.default", (3, 2), lambda x: aten.cdist.default(x, _w(1, 3)[..., :2] + 4)),
)

SAMPLES: dict[str, Sample] = dict((*_WEIGHTED, *_ARITHMETIC, *_ACTIVATIONS, *_POOLING, *_SHAPES, *_MOVES, *_PARTS, *_COMPOSED))
"""By the operator's ATen name."""

WITHOUT = {
    "aten.max.default": "alone it is of the whole batch, which is refused",
    "aten.min.default": "alone it is of the whole batch, which is refused",
    "aten.squeeze.default": "it takes the examples' own axis away where there is one example",
    "aten.native_channel_shuffle.default": "torch.export fixes the batch's size with it",
    "aten._assert_tensor_metadata.default": "it gives no value",
}
"""Why an operator has no sample."""
