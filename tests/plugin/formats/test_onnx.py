"""Networks in ONNX files: written as they compute, read as they compute, refused in one line."""

from __future__ import annotations

import gzip
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from newrelax.arguments import box
from newrelax.bounds import BoundedNetwork
from newrelax.errors import UserError
from newrelax.registry import Registry
from plugin.formats.extras import installed
from plugin.formats.onnx_reader import OnnxNetwork, read_network
from plugin.formats.onnx_writer import to_onnx
from plugin.formats.runtime import Runtime
from plugin.models.build import build

PACKAGES = ("onnx", "onnxscript", "onnx2torch", "onnxruntime")
pytestmark = pytest.mark.skipif(not all(map(installed, PACKAGES)), reason='no ONNX here: pip install "newrelax[onnx]"')

REGISTRY = Registry.load()
SHAPES = {"FC": (1, 8, 8), "CONV": (3, 8, 8), "CONV+": (1, 8, 8), "CNN7": (1, 8, 8)}


def fresh(name: str) -> nn.Module:
    shape = SHAPES[name]
    return build(name, shape, 10, (0.3, 0.4, 0.5)[: shape[0]], (0.4, 0.3, 0.2)[: shape[0]], seed=0).eval()


def bounds(model: nn.Module, x: Tensor) -> Tensor:
    method = REGISTRY.get_method("CROWN")
    network = BoundedNetwork(model, x.shape[1:], method, operators=REGISTRY.operators)
    lower, upper = box(x, 0.01)
    y = torch.zeros(len(x), dtype=torch.long)
    with torch.no_grad():
        return network.bounds(lower, upper, y).margins


@pytest.mark.parametrize("name", SHAPES)
def test_a_file_computes_what_its_network_computes(name: str, tmp_path: Path) -> None:
    model, x = fresh(name), torch.rand(4, *SHAPES[name], generator=torch.Generator().manual_seed(0))
    content = to_onnx(model, SHAPES[name])
    (tmp_path / "net.onnx").write_bytes(content)
    read = read_network(tmp_path / "net.onnx")
    with torch.no_grad():
        logits = model(x)
        assert (Runtime(content).outputs(x) - logits).abs().max() <= 1e-5
        assert (read(x) - logits).abs().max() <= 1e-5
    assert read.input_shape == SHAPES[name]
    weights = sum(p.numel() for m in model.modules() if isinstance(m, (nn.Conv2d, nn.Linear)) for p in m.parameters())
    assert sum(p.numel() for p in read.parameters() if p.requires_grad) == weights, "normalisation is not trained"


def test_a_file_says_nothing_of_where_it_was_made() -> None:
    content = to_onnx(fresh("FC"), SHAPES["FC"])
    assert str(Path(__file__).parents[3]).encode() not in content
    assert b".py" not in content


def test_what_has_no_file_is_told_in_one_line() -> None:
    class Sorted(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x if float(x.sum()) > 0 else -x

    with pytest.raises(UserError, match="^Sorted cannot be written as ONNX") as told:
        to_onnx(Sorted(), (3,))
    assert "\n" not in str(told.value)


@pytest.mark.parametrize(
    ("file", "shape", "weights"),
    [("acasxu/onnx/ACASXU_run2a_1_1_batch_2000", (1, 1, 5), 7), ("mnist_fc/onnx/mnist-net_256x2", (784, 1), 3)],
    ids=["acasxu", "mnist_fc"],
)
def test_the_competitions_networks(file: str, shape: tuple[int, ...], weights: int, shared_dir: Path) -> None:
    """ACAS Xu's are of version 8, with weights among the inputs: they become linear layers that train and are bounded."""
    path = shared_dir / "vnncomp" / f"{file}.onnx.gz"
    read = read_network(path)
    x = torch.rand(50, *shape, generator=torch.Generator().manual_seed(1)) - 0.5
    with torch.no_grad():
        assert torch.allclose(read(x), Runtime.of(path).outputs(x), atol=1e-5)
    assert read.input_shape == shape
    assert sum(isinstance(module, nn.Linear) for module in read.modules()) == weights
    assert bounds(read, x[:2]).isfinite().all()


def graph(*nodes: Any, inputs: list[Any] | None = None, outputs: int = 1, rank: int = 4, **weights: Tensor) -> bytes:
    """A file made by hand, from X [1, 1, 2, 2] to Y, which has so many axes."""
    from onnx import TensorProto, helper, numpy_helper

    x = [helper.make_tensor_value_info("X", TensorProto.FLOAT, [1, 1, 2, 2])] if inputs is None else inputs
    y = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, [f"n{i}" for i in range(rank)]) for name in ("Y", "Z")[:outputs]
    ]
    constants = [numpy_helper.from_array(value.numpy(), name) for name, value in weights.items()]
    made = helper.make_graph(list(nodes), "g", x, y, initializer=constants)
    model = helper.make_model(made, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    return bytes(model.SerializeToString())


def node(kind: str, *inputs: str, to: str = "Y", **attributes: Any) -> Any:
    from onnx import helper

    return helper.make_node(kind, list(inputs), [to], **attributes)


def value(sizes: list[Any], kind: int = 1, name: str = "X") -> Any:
    from onnx import helper

    return helper.make_tensor_value_info(name, kind, sizes)


def whole() -> bytes:
    return to_onnx(nn.Sequential(nn.Flatten(), nn.Linear(4, 3)).eval(), (1, 2, 2))


BAD: dict[str, tuple[Callable[[], bytes], str]] = {
    "empty": (lambda: b"", "expected an ONNX file, got a damaged one"),
    "truncated": (lambda: whole()[:-20], "expected an ONNX file, got a damaged one"),
    "text": (lambda: b"(declare-const X_0 Real)", "expected an ONNX file, got a damaged one"),
    "unknown operators": (
        lambda: graph(node("Det", "X", to="D"), node("Acosh", "D"), rank=2),
        "operators that are not read: Det, Acosh",
    ),
    "two inputs": (
        lambda: graph(node("Relu", "X"), inputs=[value([1, 2]), value([1, 2], name="X2")], rank=2),
        "expected one input, got 2",
    ),
    "two outputs": (lambda: graph(node("Relu", "X"), node("Neg", "X", to="Z"), outputs=2), "expected one output, got 2"),
    "double": (lambda: graph(node("Relu", "X"), inputs=[value([1, 2], 11)], rank=2), "expected float32 inputs"),
    "no batch": (lambda: graph(node("Relu", "X"), inputs=[value([4])], rank=1), "expected inputs [batch, …] of known sizes"),
    "batch of 5": (
        lambda: graph(node("Relu", "X"), inputs=[value([5, 2])], rank=2),
        "expected inputs [batch, …] of known sizes",
    ),
    "unknown size": (
        lambda: graph(node("Relu", "X"), inputs=[value([1, "n"])], rank=2),
        "expected inputs [batch, …] of known sizes",
    ),
    "examples see each other": (
        lambda: graph(node("ReduceMean", "X", axes=[0], keepdims=1, to="M"), node("Sub", "X", "M")),
        "examples see each other",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_files_are_told_in_one_line(name: str, tmp_path: Path) -> None:
    make, expected = BAD[name]
    path = tmp_path / "net.onnx"
    path.write_bytes(make())
    with pytest.raises(UserError, match=re.escape(expected)) as told:
        read_network(path)
    assert str(told.value).startswith(f"network {path}")
    assert "\n" not in str(told.value)


@pytest.mark.parametrize(
    "make",
    [
        lambda: graph(node("Reshape", "X", "shape", to="R"), node("Relu", "R"), shape=torch.tensor([1, 4]), rank=2),
        lambda: graph(node("Reshape", "X", "shape", to="R"), node("Relu", "R"), shape=torch.tensor([-1, 4]), rank=2),
        lambda: graph(
            node("Flatten", "X", to="F"),
            node("MatMul", "F", "W", to="M"),
            node("Add", "b", "M"),
            W=torch.eye(4),
            b=-torch.ones(4) / 2,
            rank=2,
        ),
        lambda: graph(node("Flatten", "X", to="F"), node("MatMul", "F", "W"), W=torch.ones(4, 2), rank=2),
        lambda: graph(
            node("Flatten", "X", to="F"), node("MatMul", "F", "W", to="M"), node("Add", "M", "M"), W=torch.ones(4, 2), rank=2
        ),
    ],
    ids=["reshape to one example", "reshape to any number", "linear", "without bias", "a sum with itself"],
)
def test_files_for_one_input_take_many(make: Callable[[], bytes], tmp_path: Path) -> None:
    (tmp_path / "net.onnx.gz").write_bytes(gzip.compress(make()))
    read, x = read_network(tmp_path / "net.onnx.gz"), torch.rand(3, 1, 2, 2)
    with torch.no_grad():
        assert torch.allclose(read(x), Runtime(make()).outputs(x))
        assert torch.equal(read(x.flatten(1)), read(x)), "any shape with as many entries will do"


def test_without_the_packages_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("plugin.formats.extras.installed", lambda package: False)
    with pytest.raises(
        UserError, match=re.escape("reading ONNX files needs the package onnx2torch, which is not installed: pip")
    ):
        read_network("net.onnx")


def test_what_is_read_is_bounded_as_the_network_is(tmp_path: Path) -> None:
    model, x = fresh("CONV"), torch.rand(2, *SHAPES["CONV"], generator=torch.Generator().manual_seed(0))
    (tmp_path / "net.onnx").write_bytes(to_onnx(model, SHAPES["CONV"]))
    read: OnnxNetwork = read_network(tmp_path / "net.onnx")
    assert torch.allclose(bounds(read, x), bounds(model, x), atol=1e-4)
