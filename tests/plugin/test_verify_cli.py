"""`python -m plugin.verify`: answers in the competition's words, counterexamples only where others see them."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Literal

import pytest
import torch
from torch import Tensor, nn

from plugin.certification.properties import Answer
from plugin.formats.extras import installed
from plugin.formats.onnx_writer import to_onnx
from plugin.formats.property import Case, Property, robustness
from plugin.formats.runtime import Runtime
from plugin.formats.vnnlib_writer import write_property
from plugin.verify import Decide, main, verify

PACKAGES = ("onnx", "onnxscript", "onnx2torch", "onnxruntime")
pytestmark = pytest.mark.skipif(not all(map(installed, PACKAGES)), reason='no ONNX here: pip install "newrelax[onnx]"')


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Y_0 = |X_0| + X_1 and Y_1 = 1."""
    first, second = nn.Linear(2, 3), nn.Linear(3, 2)
    with torch.no_grad():
        first.weight.copy_(torch.tensor([[1.0, 0.0], [-1.0, 0.0], [0.0, 1.0]]))
        first.bias.zero_()
        second.weight.copy_(torch.tensor([[1.0, 1.0, 1.0], [0.0, 0.0, 0.0]]))
        second.bias.copy_(torch.tensor([0.0, 1.0]))
    path = tmp_path_factory.mktemp("verify") / "net.onnx"
    path.write_bytes(to_onnx(nn.Sequential(first, nn.ReLU(), second).eval(), (2,)))
    return path


def asked(folder: Path, lower: list[float], upper: list[float], label: int) -> Path:
    """Whether class `label` is the answer everywhere in a box of doubles, whose ends need not be float32's."""
    ends = [torch.tensor(end, dtype=torch.float64) for end in (lower, upper)]
    path = folder / "asked.vnnlib"
    question = robustness(*ends, label, 2)
    path.write_text(write_property(Property(2, 2, (Case(*ends, question.cases[0].unsafe),))))
    return path


@pytest.mark.parametrize(
    ("upper", "verdict"), [([0.4, 0.5], "unsat"), ([0.5, 0.5], "sat"), ([0.6, 0.5], "sat")], ids=["inside", "tie", "outside"]
)
def test_the_whole_command(
    upper: list[float], verdict: str, network: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """|X_0| + X_1 < 1: by hand."""
    path = asked(tmp_path, [-0.4, 0.0], upper, 1)
    assert main([str(network), str(path), "--timeout", "20", "--out", str(tmp_path / "answer.txt")]) == 0
    told = capsys.readouterr().out
    assert told.splitlines()[0] == verdict
    assert (tmp_path / "answer.txt").read_text() == told
    if verdict == "sat":
        found = re.fullmatch(r"sat\n\(\(X_0  (\S+)\)\n\(X_1  (\S+)\)\n\(Y_0  (\S+)\)\n\(Y_1  (\S+)\)\)\n", told)
        assert found is not None
        x, y = ([float(each) for each in part] for part in (found.groups()[:2], found.groups()[2:]))
        assert -0.4 <= x[0] <= upper[0]
        assert 0 <= x[1] <= upper[1]
        assert Runtime.of(network).outputs(torch.tensor([x]))[0].tolist() == y
        assert y[0] >= y[1]


def fake(verdict: Literal["unsat", "sat", "unknown", "timeout"], point: Tensor | None = None, note: str = "") -> Decide:
    def decide(model: nn.Module, input_shape: tuple[int, ...], question: Property, seconds: float) -> Answer:
        assert input_shape == (2,)
        assert not model.training
        assert 0 < seconds <= 50
        return Answer(verdict, point, None, note)

    return decide


@pytest.mark.parametrize("verdict", ["unsat", "unknown", "timeout"])
def test_an_answer_is_told_as_it_is(verdict: Literal["unsat", "unknown", "timeout"], network: Path, tmp_path: Path) -> None:
    told = verify(network, asked(tmp_path, [0, 0], [1, 1], 1), 50, fake(verdict, note="why"))
    assert (told.text, told.note) == (verdict, "why")


@pytest.mark.parametrize(
    ("point", "first"),
    [
        (torch.tensor([[0.9, 0.9]]), "sat"),
        (torch.tensor([0.1, 0.1]), "unknown"),
        (torch.tensor([2.0, 0.0]), "unknown"),
        (None, "unknown"),
    ],
    ids=["one", "not unsafe", "outside", "no point"],
)
def test_a_counterexample_is_replayed_before_it_is_told(
    point: Tensor | None, first: str, network: Path, tmp_path: Path
) -> None:
    told = verify(network, asked(tmp_path, [0, 0], [1, 1], 1), 50, fake("sat", point))
    assert told.text.splitlines()[0] == first


def test_a_point_at_an_end_that_is_no_float32_is_told_inside_the_box(network: Path, tmp_path: Path) -> None:
    """The float32 of 0.7 is below it and that of 0.6 above: the network is run at those, and 0.7 and 0.6 are told."""
    assert torch.tensor(0.7).double() < 0.7
    assert torch.tensor(0.6).double() > 0.6
    for end in (0.7, 0.6):
        told = verify(network, asked(tmp_path, [end, end], [end, end], 1), 50, fake("sat", torch.tensor([end, end])))
        assert told.text.startswith(f"sat\n((X_0  {end})\n(X_1  {end})\n")


@pytest.mark.parametrize("what", ["network", "property", "other counts"])
def test_mistakes_are_one_line(what: str, network: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    question = tmp_path / "asked.vnnlib"
    question.write_text(write_property(robustness(torch.zeros(3), torch.ones(3), 0, 2)))
    given = {"network": ["none.onnx", question], "property": [network, "none.vnnlib"], "other counts": [network, question]}[
        what
    ]
    assert main([str(each) for each in given]) == 2
    told = capsys.readouterr().err
    assert told.count("\n") == 1
    expected = "the property speaks of 3 inputs, the network has 2" if what == "other counts" else f"{what} none."
    assert expected in told
