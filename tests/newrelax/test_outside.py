"""From outside, in a file of one's own: a relaxation of tanh, a propagation, operators; checked, drawn, trained."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from newrelax import Method, Registry, UserError, bounds, certify
from newrelax.check import check, main
from newrelax.checks.networks import check_propagations
from newrelax.checks.operators import check_operator
from newrelax.plot import main as plot
from newrelax.relaxations.activation import ACTIVATIONS, TANH
from newrelax.relaxations.smooth import smooth_lines
from plugin.train import main as train
from tests.support.calls import invoke
from tests.support.tiny_runs import TINY

TANH_LINES = '''
"""Lines around tanh: constants where it bends both ways, else the chord and the tangent in the middle."""
import torch
from newrelax import relaxation


@relaxation("Bend", activation="tanh", minimum={"narrow": 1e-6})
def bend(lower, upper, *, narrow: float = 1e-3):
    """Bend: chord and middle tangent on one side of 0, constants across it."""
    low, high, middle = lower.tanh(), upper.tanh(), (lower + upper) / 2
    tangent = 1 - middle.tanh() ** 2
    wide = upper - lower > narrow * (1 + middle.abs())
    chord = torch.where(wide, (high - low) / torch.where(wide, upper - lower, 1.0), tangent)
    beside = torch.minimum(low - chord * lower, high - chord * upper)
    above = torch.maximum(low - chord * lower, high - chord * upper)
    touch = middle.tanh() - tangent * middle
    rises, falls = upper <= 0, lower >= 0  # convex, concave
    one_sided = wide & (rises | falls)
    below_slope = torch.where(one_sided, torch.where(rises, tangent, chord), 0.0)
    above_slope = torch.where(one_sided, torch.where(rises, chord, tangent), 0.0)
    return (below_slope, torch.where(one_sided, torch.where(rises, touch, beside), low),
            above_slope, torch.where(one_sided, torch.where(rises, above, touch), high))
'''

OWN = '''
"""A propagation, and operators of torch that have no rule."""
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from newrelax import Method, Propagation, composed, operator, relaxation
from newrelax.propagations.backward import BackwardPropagation
from newrelax.propagations.base import Bounds
from newrelax.relaxations.activation import Activation
from newrelax.relaxations.crown import crown


@dataclass(frozen=True)
class Halves(Propagation):
    """CROWN on both halves of each box, cut across its widest feature, `times` times over."""

    times: int = 1
    name: ClassVar[str] = "halves"

    def bounds(self, problem, specification):
        whole = BackwardPropagation().bounds(problem, specification)
        return Bounds(self._below(problem, specification, self.times), whole.layers)

    def _below(self, problem, specification, times):
        if times == 0:
            return BackwardPropagation().bounds(problem, specification).lower
        low, high = problem.lower.flatten(1), problem.upper.flatten(1)
        cut = (high - low).argmax(1, keepdim=True)
        middle = ((low + high) / 2).gather(1, cut)
        parts = (
            replace(problem, upper=high.scatter(1, cut, middle).view_as(problem.upper)),
            replace(problem, lower=low.scatter(1, cut, middle).view_as(problem.lower)),
        )
        return torch.minimum(*(self._below(part, specification, times - 1) for part in parts))


halves = Method("CROWN-Halves", propagation=Halves(), relaxation=crown)

ASINH = Activation(
    "asinh", torch.asinh, lambda x: (1 + x * x).rsqrt(),
    critical=lambda slope: (place := (1 / slope.square() - 1).clamp(min=0).sqrt(), -place),
)


@operator("aten.asinh.default", bounded="lines")
def asinh(build, x):
    """asinh, by lines."""
    return build.smooth(x, ASINH)


@composed("aten.cosh.default")
def cosh(x):
    """(exp x + exp −x)/2."""
    return (x.exp() + (-x).exp()) / 2


@relaxation("AsinhBox", activation=ASINH, parallel=True)
def asinh_box(lower, upper):
    """AsinhBox: constants."""
    return 0.0, lower.asinh(), 0.0, upper.asinh()
'''


class Own(nn.Module):
    """Both operators of the plugin, between linear layers."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(4, 6), nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        h = torch.asinh(self.first(x))
        return self.second(h * 0.5) + torch.cosh(x[..., :3] - 0.5)


@pytest.fixture
def tanh_file(tmp_path: Path) -> Path:
    path = tmp_path / "bend.py"
    path.write_text(TANH_LINES)
    return path


@pytest.fixture(scope="module")
def own_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("own") / "own.py"
    path.write_text(OWN)
    return path


def seeded(make: type[nn.Module] | None = None) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        layers = nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 3)
        return (nn.Sequential(*layers) if make is None else make()).double()


def test_the_relaxation_is_short() -> None:
    assert len(TANH_LINES.strip().splitlines()) < 25


def test_a_relaxation_of_tanh_is_checked(tanh_file: Path, capsys: pytest.CaptureFixture) -> None:
    assert main(["Bend", "--plugin", str(tanh_file)]) == 0
    rows = {line.split()[0]: line for line in capsys.readouterr().out.splitlines()[1:] if line.strip()}
    assert rows["sound"].split()[1] == rows["finite"].split()[1] == rows["backward"].split()[1] == "yes"
    assert "tanh" in rows["finite"]
    assert "lower and upper slope differ" in rows["hybrid"]


WRONG = {
    "touch": ("tangent * middle", "tangent * middle + 1e-3", "tanh(x)"),
    "constant": ("rises, above, touch), high)", "rises, above, touch), 0.99 * high)", "the upper line"),
    "slope": ("tangent = 1 - middle.tanh() ** 2", "tangent = 1 - middle.tanh()", "line"),
}


@pytest.mark.parametrize(("old", "new", "message"), WRONG.values(), ids=list(WRONG))
def test_a_wrong_relaxation_of_tanh_is_caught(
    tanh_file: Path, old: str, new: str, message: str, capsys: pytest.CaptureFixture
) -> None:
    assert old in TANH_LINES
    tanh_file.write_text(TANH_LINES.replace(old, new))
    assert main(["Bend", "--plugin", str(tanh_file), "--json"]) == 1
    report = json.loads(capsys.readouterr().out)
    assert report["sound"] is False
    assert report["activation"] == "tanh"
    found = report["counterexample"]
    low, high, x = torch.tensor([found["lower"], found["upper"], found["x"]], dtype=getattr(torch, found["dtype"]))
    assert low <= x <= high
    assert found["exact"] == pytest.approx(float(x.double().tanh()))
    assert found["violation"] > 0


def test_a_relaxation_of_relu_is_none_of_tanh() -> None:
    from newrelax.relaxations.crown import crown

    as_tanh = Method.from_relaxation(type(crown)("As", crown.function, activation="tanh"))
    report = check(as_tanh)
    assert not report.sound
    assert "tanh(x)" in str(report.counterexample)


def test_a_relaxation_of_tanh_is_drawn(tanh_file: Path, tmp_path: Path) -> None:
    picture, page = tmp_path / "lines.png", tmp_path / "page.html"
    called = invoke(plot, ["Bend", "CROWN", "--plugin", str(tanh_file), "--out", str(picture), "--html", str(page)])
    assert called.exit_code == 0, called.output
    assert picture.read_bytes().startswith(b"\x89PNG")
    text = page.read_text("utf-8")
    data = json.loads(text.split('id="data">')[1].split("</script>")[0])
    assert data["menu"] == [["Bend:narrow=0.001", 0], ["CROWN", 1]]
    assert [entry["activation"] for entry in data["relaxations"]] == ["tanh", "ReLU"]
    assert data["relaxations"][0]["counterexample"] is None
    assert data["relaxations"][0]["height"][1] < 2 < data["relaxations"][1]["height"][1]


def test_a_relaxation_of_tanh_gives_its_own_bounds(tanh_file: Path) -> None:
    registry = Registry.load([tanh_file])
    net = seeded()
    lower = torch.zeros(2, 4, dtype=torch.float64)
    low, high = bounds(net, lower, lower + 0.3, method="Bend", registry=registry)
    other, _ = bounds(net, lower, lower + 0.3, method="CROWN", registry=registry)
    assert not torch.equal(low, other)
    points = net(lower[:, None] + 0.3 * torch.rand(2, 500, 4, dtype=torch.float64))
    assert (points >= low[:, None] - 1e-12).all()
    assert (points <= high[:, None] + 1e-12).all()


def test_a_relaxation_of_tanh_trains(tanh_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "own_tanh_model.py").write_text(
        "from torch import nn\n"
        "def small(input_shape, classes):\n"
        "    features = input_shape[0] * input_shape[1] * input_shape[2]\n"
        "    return nn.Sequential(nn.Flatten(), nn.Linear(features, 12), nn.Tanh(), nn.Linear(12, classes))\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    out = tmp_path / "run"
    called = invoke(
        train,
        [
            *TINY,
            "--method",
            "Bend",
            "--plugin",
            str(tanh_file),
            "--model",
            "own_tanh_model:small",
            "--eps",
            "0.02",
            "--out",
            str(out),
        ],
    )
    assert called.exit_code == 0, called.output
    result = json.loads((out / "result.json").read_text())
    assert result["method"].startswith("Bend")
    assert result["sound"] is True


def test_a_propagation_from_outside(own_file: Path) -> None:
    registry = Registry.load([own_file])
    method = registry.get_method("CROWN-Halves:times=3")
    assert method.label == "CROWN-Halves:times=3"
    assert method.propagation.name == "halves"
    verdicts = {verdict.name: verdict.verdict for verdict in check_propagations(method)}
    assert verdicts["halves"] == verdicts["backward"] == "holds"
    net = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3)).double()
    x = torch.rand(3, 4, dtype=torch.float64)
    margins = [
        certify(net, x, [0, 1, 2], 0.3, spec, registry=registry) for spec in ("CROWN", "CROWN-Halves", "CROWN-Halves:times=3")
    ]
    assert (margins[1] >= margins[0] - 1e-9).all()
    assert (margins[2] > margins[0]).any()
    with pytest.raises(UserError, match="whole number"):
        registry.get_method("CROWN-Halves:times=1.5")


def test_operators_from_outside(own_file: Path) -> None:
    registry = Registry.load([own_file])
    net = seeded(Own)
    lower, upper = torch.zeros(2, 4, dtype=torch.float64), torch.full((2, 4), 0.6, dtype=torch.float64)
    with pytest.raises(UserError, match=r"aten\.(asinh|cosh)\.default has no rule"):
        bounds(net, lower, upper)
    share = torch.rand(2, 400, 4, dtype=torch.float64)
    points = net(lower[:, None] + share * (upper - lower)[:, None])
    for method in ("IBP", "CROWN", "hBox-DeepZ", "AsinhBox"):
        low, high = bounds(net, lower, upper, method=method, registry=registry)
        assert (points >= low[:, None] - 1e-12).all() and (points <= high[:, None] + 1e-12).all(), method
    for name in ("aten.asinh.default", "aten.cosh.default"):
        rule = next(rule for rule in registry.operators if name in rule.names)
        report = check_operator(name, rule, registry.operators)
        assert report.verdict == "holds"
        assert report.bounded == rule.bounded


def test_a_relaxation_of_an_own_activation(own_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    assert main(["AsinhBox", "--plugin", str(own_file)]) in (0, 1)
    rows = {line.split()[0]: line.split()[1] for line in capsys.readouterr().out.splitlines()[1:] if line.strip()}
    assert rows["sound"] == rows["finite"] == rows["backward"] == rows["hybrid"] == "yes"
    assert invoke(plot, ["AsinhBox", "--plugin", str(own_file), "--out", str(tmp_path / "lines.png")]).exit_code == 0


def test_a_wrong_operator_is_caught(own_file: Path, tmp_path: Path) -> None:
    wrong = tmp_path / "wrong.py"
    text = OWN.replace("(x.exp() + (-x).exp()) / 2", "(x.exp() + (-x).exp()) / 2.001")
    wrong.write_text(text.replace("slope.square() - 1", "slope.square() + 1"))
    registry = Registry.load([wrong])
    found = {}
    for name in ("aten.asinh.default", "aten.cosh.default"):
        rule = next(rule for rule in registry.operators if name in rule.names)
        found[name] = check_operator(name, rule, registry.operators)
    assert found["aten.cosh.default"].verdict in ("failed", "violated"), "another function than torch's"
    assert found["aten.asinh.default"].verdict == "violated", "offsets at other places than the slope's"
    assert not found["aten.asinh.default"].passed


def test_an_unknown_activation_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "wrong.py"
    path.write_text(TANH_LINES.replace('activation="tanh"', 'activation="tahn"'))
    with pytest.raises(UserError, match="unknown activation 'tahn'; known: relu, sigmoid, tanh"):
        Registry.load([path])


def test_lines_of_tanh_by_default_are_as_good_as_the_plugins(tanh_file: Path) -> None:
    """On one side of 0 both are the chord and the tangent in the middle."""
    value = Registry.load([tanh_file])["Bend"].relaxations[-1]
    lower = torch.tensor([-3.0, 0.5], dtype=torch.float64)
    upper = torch.tensor([-0.5, 2.0], dtype=torch.float64)
    assert ACTIVATIONS["tanh"] is TANH
    for mine, default in zip(value(lower, upper), smooth_lines(TANH, lower, upper, parallel=False), strict=True):
        torch.testing.assert_close(mine, default, rtol=1e-12, atol=1e-12)
