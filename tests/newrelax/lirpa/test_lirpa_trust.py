"""No operator of auto_LiRPA's bounds anything before the check has passed it, and the check finds what is wrong."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from newrelax.bounds import BoundedNetwork, box
from newrelax.lirpa import bridge, trust
from newrelax.lirpa.candidates import FOREIGN, USED
from newrelax.lirpa.examination import Failed, Subject, examine
from newrelax.lirpa.natives import native_of
from newrelax.lirpa.operators import AffineStep, LinesStep, PlanesStep
from newrelax.network.rules import BUILTIN_RULES
from newrelax.registry import Registry
from tests.support.nets import SHAPE, batch, bounded, traced, under

REGISTRY = Registry.load()
EPS = 0.05


@pytest.fixture
def afresh() -> Iterator[None]:
    """Verdicts are found anew, and forgotten afterwards."""
    trust._why.cache_clear()
    yield
    trust._why.cache_clear()


@pytest.mark.parametrize("kind", [*USED, *FOREIGN])
def test_every_operator_has_a_verdict(kind: str) -> None:
    found = trust.verdict(kind)
    assert found.kind == kind
    assert found.used == (kind in USED)
    assert "\n" not in found.reason
    assert f"auto_LiRPA {bridge.VERSION}" in found.reason
    assert found.passed == trust.passed(kind)


@pytest.mark.parametrize(
    "kind", ["lines", "linear", "conv2d", "add", "sub", "cat", "flatten", "relu (adaptive)", "relu (same-slope)"]
)
def test_what_most_networks_are_made_of_passes(kind: str) -> None:
    assert trust.passed(kind)
    assert trust.passed(kind, "forward")
    assert trust.passed(kind, "patches")


@pytest.mark.parametrize("kind", ["leaky_relu", "avg_pool2d (uneven)", "sin", "cos"])
def test_what_is_known_to_be_wrong_fails(kind: str) -> None:
    found = trust.verdict(kind)
    assert not found.passed
    assert "wrong side" in found.reason


@pytest.mark.skipif(not bridge.IS_03, reason="mended since auto_LiRPA 0.3")
@pytest.mark.parametrize("kind", ["sqrt", "reciprocal", "conv2d (dilation)"])
def test_what_is_known_to_be_wrong_in_03_fails(kind: str) -> None:
    assert not trust.passed(kind)


@functools.cache
def pooled() -> BoundedNetwork:
    """Windows of its pooling overlap."""
    layers = nn.Conv2d(3, 4, 3, 1, 1), nn.ReLU(), nn.AvgPool2d(3, 2), nn.Flatten(), nn.Linear(36, 5)
    return BoundedNetwork(nn.Sequential(*layers).double(), SHAPE, REGISTRY["IBP"])


def nodes(net: BoundedNetwork, method: str) -> dict[int, Any]:
    by_lirpa = under(net, REGISTRY[method], engine="auto_LiRPA")
    found: dict[int, Any] = by_lirpa._propagation._bounded.nodes  # type: ignore[attr-defined]
    return found


def margins_by_both(net: str, method: str) -> list[Tensor]:
    """auto_LiRPA's, and our own passes'."""
    x, y = batch()
    return [
        bounded(net, REGISTRY[method], engine=engine).bounds(*box(x, EPS), y).margins for engine in ("auto_LiRPA", "newrelax")
    ]


def test_only_what_passed_is_taken() -> None:
    """Every node is one of ours, or of a kind with a good verdict."""
    for net in (pooled(), traced("residual"), traced("max pool")):
        for method in ("CROWN", "hBox"):
            for node in nodes(net, method).values():
                if not isinstance(node, (LinesStep, AffineStep, PlanesStep)):
                    native = native_of(node.step, "adaptive")
                    assert native is not None
                    assert trust.passed(native.kind, "forward" if method == "hBox" else "bounds")
    kinds = {type(node) for node in nodes(pooled(), "CROWN").values()}
    assert {bridge.BoundConv, bridge.BoundRelu, bridge.BoundFlatten, bridge.BoundLinear} <= kinds
    assert bridge.BoundAveragePool not in kinds  # its backward pass is wrong where windows overlap


def test_patches_are_taken_where_all_pass() -> None:
    def mode(net: BoundedNetwork) -> str:
        return next(node.mode for node in nodes(net, "CROWN").values() if isinstance(node, bridge.BoundConv))

    assert mode(traced("residual")) == ("patches" if trust.passed("avg_pool2d", "patches") else "matrix")
    assert mode(pooled()) == "matrix"
    assert mode(traced("odd strides")) == ("patches" if trust.passed("conv2d (uneven)", "patches") else "matrix")


def test_a_broken_operator_is_replaced(monkeypatch: pytest.MonkeyPatch, afresh: None) -> None:
    """Coefficients that lose a tenth in Flatten: the check sees it, and bounds come from ours."""
    original = bridge.BoundFlatten.bound_backward

    def lossy(self: Any, last_lA: Any, last_uA: Any, *x: Any, **more: Any) -> Any:
        shrunk = (None if a is None else 0.9 * a for a in (last_lA, last_uA))
        return original(self, *shrunk, *x, **more)

    monkeypatch.setattr(bridge.BoundFlatten, "bound_backward", lossy)
    assert not trust.passed("flatten")
    assert "wrong side" in trust.verdict("flatten").reason
    assert bridge.BoundFlatten not in {type(node) for node in nodes(traced("odd strides"), "CROWN").values()}
    torch.testing.assert_close(*margins_by_both("odd strides", "CROWN"), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("method", ["CROWN", "CROWN-IBP-R", "IBP", "DeepZ", "hBox"])
def test_without_any_operator_of_its_own_the_bounds_are_the_same(method: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where nothing passes, every node is ours; only intervals lose that the specification merges into the last layer."""
    monkeypatch.setattr(trust, "passed", lambda *_: False)
    for name in ("odd strides", "residual", "max pool"):
        assert all(isinstance(node, (AffineStep, PlanesStep)) for node in nodes(traced(name), method).values())
        margins, own = margins_by_both(name, method)
        if method in ("IBP", "hBox"):
            assert (margins <= own + 1e-9).all()
            assert margins.isfinite().all()
        else:
            torch.testing.assert_close(margins, own, rtol=1e-9, atol=1e-9)


class _Wrong(bridge.BoundActivation):  # type: ignore[misc]
    """Tanh by lines that a test chooses."""

    lines: tuple[float, float, float, float]

    def init_linear_relaxation(self, x: Any, dim_opt: Any = None) -> None:
        pass

    def bound_relax(self, x: Any, init: bool = False, **_: Any) -> None:
        self.lw, self.lb, self.uw, self.ub = (torch.full_like(x.lower, part) + 0 * x.lower for part in self.lines)

    def forward(self, x: Tensor) -> Tensor:
        return torch.tanh(x)


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ((0.0, -1.0, 0.0, 1.0), None),
        ((0.0, -0.7, 0.0, 1.0), "wrong side"),
        ((0.5, -0.5, 0.0, 1.0), "wrong side"),
        ((0.0, float("-inf"), 0.0, 1.0), "not finite"),
    ],
    ids=["sound", "offset", "slope", "infinite"],
)
def test_lines_are_looked_at(lines: tuple[float, ...], message: str | None) -> None:
    operator = type("Wrong", (_Wrong,), {"lines": lines})
    lower = torch.linspace(-3, 2, 40, dtype=torch.float64).view(-1, 1)
    with bridge.quiet(), bridge.tracing(), bridge.default_dtype(torch.float64):
        module = bridge.BoundedModule(nn.Tanh(), torch.zeros(1, 1), custom_ops={"onnx::Tanh": operator}, device="cpu")
    module._parameters["like"] = nn.Parameter(torch.empty(0, dtype=torch.float64))
    subject = Subject("tanh", module, torch.tanh, (lower, lower + 1.5), [], {}, lambda x: {})
    if message is None:
        examine(subject, ("interval", "backward"))
    else:
        with pytest.raises(Failed, match=message):
            examine(subject, ("interval", "backward"))


def test_rules_have_verdicts_where_auto_lirpa_has_an_operator() -> None:
    found = {rule.names[0]: [verdict.kind for verdict in trust.verdicts_of(rule)] for rule in BUILTIN_RULES}
    assert found["aten.linear.default"] == ["linear"]
    assert "conv2d (groups)" in found["aten.conv1d.default"]
    assert found["aten.relu.default"][0] == "relu (adaptive)"
    assert found["aten.leaky_relu.default"] == ["leaky_relu"]
    assert found["aten.sqrt.default"] == ["sqrt"]
    assert found["aten.mish.default"] == []
    known = {kind for kinds in found.values() for kind in kinds}
    assert known >= {*USED, *FOREIGN} - {"lines"}
