"""ONNX files made uniform before they become modules: one version, one input, weights apart, linear layers as such."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

from newrelax.errors import UserError, with_type
from plugin.formats.extras import require
from plugin.formats.files import read_bytes

OLDEST, NEWEST = 13, 18
"""Versions of the operators that the reader of modules knows; others are converted to the nearest."""
FLOAT32 = 1
"""TensorProto.FLOAT."""


class Uniform(NamedTuple):
    """A file's content, and the shape of one input."""

    content: bytes
    model: Any
    input_shape: tuple[int, ...]


def read_uniform(path: Path) -> Uniform:
    """The network in a file .onnx or .onnx.gz; `content` is the file's own, `model` the uniform one.

    Raises:
        UserError: the file is absent, damaged, of another kind, or has not one float32 input [batch, …] and one output.
    """
    onnx = require("onnx", "reading ONNX files")
    what = f"network {path}"
    content = read_bytes("network", path)
    try:
        model = onnx.load_from_string(content)
        onnx.checker.check_model(model)
    except Exception as problem:  # protobuf's error, the checker's, or any of Python's
        raise UserError(
            f"{what} cannot be read: expected an ONNX file, got a damaged one ({with_type(problem, 160)})"
        ) from problem
    if any(each.external_data for each in model.graph.initializer):
        raise UserError(f"{what} keeps its weights in other files: expected them inside")
    _take_initializers(onnx, model)
    input_shape = _input_shape(what, model.graph)
    _take_constants(onnx, model.graph)
    try:
        model = _converted(onnx, model)
        model = onnx.shape_inference.infer_shapes(model)
    except Exception as problem:  # the converter's own
        raise UserError(f"{what} cannot be brought to ONNX's version {OLDEST} ({with_type(problem, 160)})") from problem
    _take_linear(onnx, model.graph)
    return Uniform(content, model, input_shape)


def _take_initializers(onnx: Any, model: Any) -> None:
    """Weights are no inputs: early versions listed them there."""
    names = {each.name for each in model.graph.initializer}
    inputs = [each for each in model.graph.input if each.name not in names]
    del model.graph.input[:]
    model.graph.input.extend(inputs)
    model.ir_version = max(model.ir_version, 8)  # before 4, they had to be


def _input_shape(what: str, graph: Any) -> tuple[int, ...]:
    for name, values in (("input", graph.input), ("output", graph.output)):
        if len(values) != 1:
            raise UserError(f"{what}: expected one {name}, got {len(values)}")
    kind = graph.input[0].type.tensor_type
    if kind.elem_type != FLOAT32:
        raise UserError(f"{what}: expected float32 inputs, got ONNX's type {kind.elem_type}")
    batch, *rest = [each.dim_value if each.HasField("dim_value") else None for each in kind.shape.dim] or [None]
    sizes = tuple(size for size in rest if size)
    if not rest or len(sizes) != len(rest) or batch not in (None, 0, 1):
        shown = ", ".join("?" if size is None else str(size) for size in (batch, *rest))
        raise UserError(f"{what}: expected inputs [batch, …] of known sizes, one at a time or any number, got [{shown}]")
    return sizes


def _take_constants(onnx: Any, graph: Any) -> None:
    """Nodes that hold a tensor become weights, so that there is one kind of constant."""
    for node in [each for each in graph.node if each.op_type == "Constant" and each.attribute[0].name == "value"]:
        tensor = node.attribute[0].t
        tensor.name = node.output[0]
        graph.initializer.append(tensor)
        graph.node.remove(node)


def _converted(onnx: Any, model: Any) -> Any:
    """The model in a version between OLDEST and NEWEST."""
    version = next((each.version for each in model.opset_import if each.domain in ("", "ai.onnx")), OLDEST)
    wanted = min(max(version, OLDEST), NEWEST)
    return model if version == wanted else onnx.version_converter.convert_version(model, wanted)


def _take_linear(onnx: Any, graph: Any) -> None:
    """MatMul with weights, and the Add behind it, as one Gemm: that becomes a linear layer, with parameters to train."""
    constants = {each.name: tuple(each.dims) for each in graph.initializer}
    ranks = {each.name: len(each.type.tensor_type.shape.dim) for each in (*graph.value_info, *graph.input)}
    users: dict[str, list[Any]] = {}
    for node in graph.node:
        for name in node.input:
            users.setdefault(name, []).append(node)
    ends = {each.name for each in graph.output}
    for node in list(graph.node):
        if node.op_type != "MatMul" or ranks.get(node.input[0]) != 2 or len(constants.get(node.input[1], ())) != 2:
            continue
        node.op_type = "Gemm"
        (result,) = node.output
        behind = users.get(result, [])
        if len(behind) == 1 and behind[0].op_type == "Add" and result not in ends:
            (other,) = [name for name in behind[0].input if name != result] or [""]
            if constants.get(other) == constants[node.input[1]][1:]:
                node.input.append(other)
                node.output[0] = behind[0].output[0]
                graph.node.remove(behind[0])


def unknown_operators(model: Any) -> list[str]:
    """Names of operators that the reader of modules has nothing for."""
    converters = require("onnx2torch.node_converters.registry", "reading ONNX files")
    versions = {each.domain: each.version for each in model.opset_import}
    unknown = []
    for node in model.graph.node:
        try:
            converters.get_converter(node.op_type, versions.get(node.domain, 1), node.domain)
        except NotImplementedError:
            unknown.append(node.op_type)
    return list(dict.fromkeys(unknown))
