"""Everybody's network: bounded, soundly, or refused in one line that says what stands in the way and where."""

from __future__ import annotations

import re
import warnings

import pytest
import torch
from torch import Tensor, nn

from newrelax import UserError, certify
from newrelax.bounds import NO_STATISTICS, BoundedNetwork, box, specification
from newrelax.network.graph import Graph
from newrelax.network.rules import BUILTIN_RULES
from newrelax.network.same import check_traced
from newrelax.propagations.base import Problem
from newrelax.propagations.memory import Memory
from newrelax.registry import Registry
from tests.support.zoo import ZOO, Case
from tests.support.zoo_examples import EXAMPLES
from tests.support.zoo_refused import REFUSED

SLACK = 1e-5
POINTS = 40
MEMORY = Memory(1 << 27, 1 << 27)

CASES = [pytest.param(case, id=name, marks=[pytest.mark.slow] if case.slow else []) for name, case in (ZOO | EXAMPLES).items()]


def _built(case: Case) -> tuple[nn.Module, Tensor, Tensor]:
    """The network in evaluation mode, inputs, and the classes that it gives them."""
    torch.manual_seed(0)
    with torch.no_grad(), warnings.catch_warnings(action="ignore"):  # people's networks may warn of themselves, bounds may not
        net, x = case.make().to(case.dtype).eval(), torch.rand(3, *case.shape, dtype=case.dtype)
        outputs = net(x)
    return net, x, outputs.argmax(1) if outputs.shape[1] > 1 else (outputs[:, 0] > 0).long()


def _points(net: nn.Module, x: Tensor, eps: float) -> Tensor:
    """Corners, points inside, and the corners that gradients pick, [points, batch, *shape]."""
    few = POINTS if x.numel() < 5000 else 4
    step = torch.rand(few, *x.shape, dtype=x.dtype) * 2 - 1
    step[::2] = step[::2].sign()
    at = x.clone().requires_grad_()
    outputs = net(at)
    picked = []
    for column in range(outputs.shape[1]):
        (gradient,) = torch.autograd.grad(outputs[:, column].sum(), at, materialize_grads=True, retain_graph=True)
        picked += [gradient.sign(), -gradient.sign()]
    return (x + eps * torch.cat([step, torch.stack(picked)])).clamp(0, 1)


@pytest.mark.parametrize("case", CASES)
def test_bounded_and_sound(case: Case) -> None:
    net, x, y = _built(case)
    points = _points(net, x, case.eps)
    with torch.no_grad():
        outputs = net(points.flatten(0, 1)).unflatten(0, points.shape[:2])
    matrix = specification(y, outputs.shape[2], x.dtype)
    margins = torch.einsum("bro,pbo->pbr", matrix, outputs)
    weights = [p for p in net.parameters() if p.requires_grad]
    scale = 1 + float(outputs.abs().max())
    graph = Graph(net, case.shape, BUILTIN_RULES)
    check_traced(graph)
    registry = Registry.load()
    lower, upper = box(x, case.eps)
    for name in case.methods:
        method = registry.get_method(name)
        found = method.propagation.bounds(
            Problem(graph.network(NO_STATISTICS), lower, upper, method.lines, MEMORY), matrix
        ).lower
        assert found.isfinite().all(), f"{name}: bounds that say nothing"
        excess = float((found.detach() - margins).max())
        assert excess <= SLACK * scale, f"{name}: a point is {excess:.3g} below its bound"
        if weights:
            gradients = torch.autograd.grad(found.sum(), weights, allow_unused=True)
            assert all(g.isfinite().all() for g in gradients if g is not None), f"{name}: a gradient is not finite"


@pytest.mark.parametrize("name", REFUSED)
def test_refused_in_a_line(name: str, capfd: pytest.CaptureFixture[str]) -> None:
    case = REFUSED[name]
    torch.manual_seed(0)
    with warnings.catch_warnings(action="ignore"):
        net = case.make().eval()
    with pytest.raises(UserError) as found:
        certify(net, torch.rand(3, *case.shape), torch.zeros(3, dtype=torch.long), 0.1, method="IBP")
    text = str(found.value)
    assert "\n" not in text
    for part in case.says:
        assert part in text
    if case.code:
        assert re.search(r"line \d+ of zoo_refused.py: ", text)
        assert case.code in text
    assert capfd.readouterr() == ("", "")


def test_buffers_that_change_after_tracing() -> None:
    """A graph is traced once; its weights, masks and buffers are those of the moment."""
    case = ZOO["masked weights"]
    net, x, y = _built(case)
    traced = BoundedNetwork(net, case.shape, Registry.load().get_method("CROWN"))
    before = traced.bounds(*box(x, case.eps), y).margins
    with torch.no_grad():
        net.mask.copy_(1 - net.mask)
        net.out.bias.add_(torch.arange(4.0))
    after = traced.bounds(*box(x, case.eps), y).margins
    assert not torch.allclose(before, after)
    assert torch.equal(after, certify(net, x, y, case.eps, method="CROWN"))


def test_a_model_is_left_as_it_was() -> None:
    """Tracing changes neither modes nor what attention layers call."""
    net, x, y = _built(ZOO["attention, batch first"])
    net.train()
    before = torch.backends.mha.get_fastpath_enabled()
    certify(net, x, y, 0.001, method="IBP")
    assert all(module.training for module in net.modules())
    assert torch.backends.mha.get_fastpath_enabled() == before


def test_any_batch_size() -> None:
    """Examples behind another axis, or folded into one, with other examples: bounds of each are its own."""
    for name in ("attention, sequence first, frozen", "examples folded into channels", "vit"):
        case = ZOO[name]
        net, x, y = _built(case)
        traced, (lower, upper) = BoundedNetwork(net, case.shape, Registry.load()["CROWN"]), box(x, case.eps)
        together = traced.bounds(lower, upper, y).margins
        parts = zip(lower.split(1), upper.split(1), y.split(1), strict=True)
        alone = torch.cat([traced.bounds(*part).margins for part in parts])
        assert torch.allclose(together, alone, atol=1e-5)
