"""Networks as ONNX files, by torch's own exporter.

It takes what bounds take, whatever torch.export traces; nodes written by hand would know those operators that somebody
thought of.
"""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import nn

from newrelax.errors import UserError, with_type
from plugin.formats.extras import require

OPSET = 18
"""The oldest that torch writes: other people's readers lag behind."""


def to_onnx(model: nn.Module, input_shape: tuple[int, ...]) -> bytes:
    """The file of a network in evaluation mode: input X [batch, *input_shape], logits Y [batch, classes], float32.

    Whatever normalisation the model has is part of it. Divisions by constants are written as products, which differ by
    roundings: not every verifier reads Div.

    Raises:
        UserError: a package is not installed, or the model has no such file.
    """
    onnx = require("onnx", "writing ONNX files")
    require("onnxscript", "writing ONNX files")
    still = copy.deepcopy(model).cpu().float().eval()
    try:
        program = torch.onnx.export(
            still,
            (torch.zeros(2, *input_shape),),
            dynamo=True,
            opset_version=OPSET,
            dynamic_shapes=({0: torch.export.Dim("batch")},),
            input_names=["X"],
            output_names=["Y"],
            verbose=False,
        )
    except Exception as problem:  # torch's exporter fails in its own ways and in those of the user's model
        reason = with_type(problem.__cause__ or problem)
        raise UserError(f"{type(model).__name__} cannot be written as ONNX ({reason})") from problem
    assert program is not None
    written: Any = program.model_proto
    _plain(onnx, written.graph)
    for each in (written, written.graph, *written.graph.node, *written.graph.value_info, *written.graph.initializer):
        _forget(each)
    for each in (*written.graph.input, *written.graph.output):
        _forget(each)
    onnx.checker.check_model(written)
    return bytes(written.SerializeToString())


def _forget(proto: Any) -> None:
    """Without where it was made: the exporter keeps source lines with their paths."""
    proto.ClearField("doc_string")
    if "metadata_props" in proto.DESCRIPTOR.fields_by_name:
        proto.ClearField("metadata_props")


def _plain(onnx: Any, graph: Any) -> None:
    """Divisions by constants as products; shapes without a flag that only concerns empty tensors."""
    constants = {each.name: each for each in graph.initializer}
    for node in graph.node:
        if node.op_type == "Div" and node.input[1] in constants:
            inverse = 1 / onnx.numpy_helper.to_array(constants[node.input[1]])
            name = f"{node.input[1]}.inverse"
            if name not in constants:
                constants[name] = onnx.numpy_helper.from_array(inverse, name)
                graph.initializer.append(constants[name])
            node.op_type, node.input[1] = "Mul", name
        elif node.op_type == "Reshape":
            kept = [each for each in node.attribute if each.name != "allowzero"]
            del node.attribute[:]
            node.attribute.extend(kept)
    used = {name for node in graph.node for name in node.input}
    for each in [each for each in graph.initializer if each.name not in used]:
        graph.initializer.remove(each)
