"""The cross-check: whom it asks about what, and who is said to be wrong."""

from __future__ import annotations

import json
import re
from dataclasses import asdict, dataclass
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from experiments.crosscheck import main
from experiments.crosschecking.comparison import compare
from experiments.crosschecking.marabou import Marabou, Reply, Verdict
from experiments.crosschecking.sample import read_verdicts, sample, verdict_folder
from newrelax.errors import UserError
from plugin.certification.verdicts import Line
from plugin.formats.extras import installed
from plugin.formats.onnx_writer import to_onnx
from plugin.formats.property import robustness


def line(image: int, rung: str, point: tuple[float, ...] | None = None) -> Line:
    verdict = "falsified" if rung in ("natural", "attack") else "verified" if rung else "undecided"
    return Line(image, 0, verdict, rung, None, None, 0.1, point=point)


def test_a_sample_takes_from_each_rung_in_turn() -> None:
    lines = [line(i, rung) for i, rung in enumerate(["IBP"] * 20 + ["exact"] * 2 + ["attack"] * 5 + [""] * 3)]
    chosen = sample(lines, 8)
    assert [each.rung for each in chosen] == ["IBP"] * 3 + ["exact"] * 2 + ["attack"] * 3
    assert [each.image for each in chosen] == [0, 6, 13, 20, 21, 22, 23, 25]
    assert sample(lines, 100) == lines[:27]


def test_verdicts_are_read_but_for_a_line_that_is_cut(tmp_path: Path) -> None:
    folder = tmp_path / "complete-eps0.1"
    folder.mkdir()
    (folder / "question.json").write_text('{"eps": 0.1}')
    texts = [json.dumps(asdict(each)) for each in (line(3, "IBP"), line(1, "attack", (0.5, 1.0)))]
    (folder / "verdicts.jsonl").write_text("\n".join([*texts, texts[0][:30]]))
    assert verdict_folder(tmp_path, None) == folder
    assert read_verdicts(folder) == ({"eps": 0.1}, [line(1, "attack", (0.5, 1.0)), line(3, "IBP")])


@dataclass
class Stranger:
    verdict: Verdict
    point: Tensor | None = None

    def answer(self, asked: object, seconds: float) -> Reply:
        return Reply(self.verdict, self.point, 0.1)


HIGH, LOW = (0.9, 0.9), (0.1, 0.1)


@pytest.mark.parametrize(
    ("ours", "theirs", "disagreement", "remark"),
    [
        (line(0, "IBP"), Stranger("unsat"), "", ""),
        (line(0, "IBP"), Stranger("sat", torch.tensor(HIGH)), "Marabou: verified, but", ""),
        (line(0, "IBP"), Stranger("sat", torch.tensor(LOW)), "", "within its tolerance"),
        (line(0, "IBP"), Stranger("timeout"), "", "left it open"),
        (line(0, "IBP"), Stranger("void"), "", "its answer is void"),
        (line(0, "attack", HIGH), Stranger("sat", torch.tensor(HIGH)), "", ""),
        (line(0, "attack", HIGH), Stranger("unsat"), "", "Marabou is wrong"),
        (line(0, "attack", LOW), Stranger("sat", torch.tensor(HIGH)), "onnxruntime: our counterexample is none", ""),
        (line(0, "natural"), Stranger("sat", torch.tensor(HIGH)), "", ""),
    ],
)
def test_who_is_wrong(ours: Line, theirs: Stranger, disagreement: str, remark: str) -> None:
    """Class 0 loses where X_0 + X_1 >= 1; the image itself is (0.8, 0.8)."""
    asked = robustness(torch.zeros(2), torch.ones(2), 0, 2)

    def function(x: Tensor) -> Tensor:
        return torch.stack([1 - x.sum(1), torch.zeros(len(x))], 1)

    found = compare(ours, asked, torch.tensor([[0.8, 0.8]]), theirs, function, 1.0)
    assert found.disagreement.startswith(disagreement)
    assert bool(found.disagreement) == bool(disagreement)
    assert remark in found.remark


@pytest.mark.skipif(
    not all(map(installed, ("maraboupy", "onnxscript"))), reason='no Marabou here: pip install "newrelax[onnx,crosscheck]"'
)
@pytest.mark.parametrize(("width", "verdict"), [(0.4, "unsat"), (0.6, "sat")])
def test_marabou_knows_a_small_network(width: float, verdict: str) -> None:
    """Y_0 = |X_0 − 0.5| + |2 X_1 − 1| against Y_1 = 0.75, by hand; each channel has its own mean and deviation."""
    mean, std = torch.tensor([0.5, 0.25]).view(2, 1, 1), torch.tensor([1.0, 0.5]).view(2, 1, 1)

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = nn.Linear(2, 4), nn.Linear(4, 2)
            with torch.no_grad():
                self.first.weight.copy_(torch.tensor([[1.0, 0.0], [-1.0, 0.0], [0.0, 1.0], [0.0, -1.0]]))
                self.first.bias.copy_(torch.tensor([0.0, 0.0, -0.5, 0.5]))
                self.second.weight.copy_(torch.tensor([[1.0] * 4, [0.0] * 4]))
                self.second.bias.copy_(torch.tensor([0.0, 0.75]))
            self.register_buffer("mean", mean)
            self.register_buffer("std", std)

        def forward(self, x: Tensor) -> Tensor:
            return self.second(torch.relu(self.first(((x - self.mean) / self.std).flatten(1))))

    x = torch.tensor([0.5, 0.5]).view(2, 1, 1)
    low, high = (x - width).clamp(0, 1), (x + width).clamp(0, 1)
    asked = robustness(torch.stack([low[0], x[1]]), torch.stack([high[0], x[1] + width / 4]), 1, 2)
    reply = Marabou(to_onnx(Net().eval(), (2, 1, 1))).answer(asked, 20)
    assert reply.verdict == verdict


def test_without_marabou_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("plugin.formats.extras.installed", lambda package: False)
    with pytest.raises(
        UserError, match=re.escape('needs the package maraboupy, which is not installed: pip install "newrelax[crosscheck]"')
    ):
        Marabou(b"").answer(robustness(torch.zeros(1), torch.ones(1), 0, 2), 1.0)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "expected --verdicts FOLDER, or --run DIR"),
        (["--verdicts", "{tmp}"], "holds no verdicts"),
        (["--run", "{tmp}"], "got none"),
    ],
    ids=["nothing", "no verdicts", "a run without"],
)
def test_mistakes_are_one_line(arguments: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([each.replace("{tmp}", str(tmp_path)) for each in arguments]) == 2
    told = capsys.readouterr().err
    assert message in told
    assert told.count("\n") == 1
