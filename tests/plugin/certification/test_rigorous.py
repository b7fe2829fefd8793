"""`--rigorous`: rungs whose proofs count only if they hold for the network as it runs, and the comparison that is shown."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torch import nn

from newrelax import UserError
from plugin.certification.certifiers.base import Example, Question, Verdict
from plugin.certification.certifiers.ladder import Ladder
from plugin.certification.certifiers.rigorous import rigorous
from plugin.certification.region import Region
from plugin.certification.rigorous import Comparison, comparison_table
from plugin.evaluate import main
from plugin.train import main as train
from tests.newrelax.rigorous.test_rigorous import absorbing
from tests.support.tiny_runs import REGISTRY, TINY

QUIET = "attack:steps=1,restarts=1"


def decided(model: nn.Module, x: torch.Tensor, eps: float, spelling: str, *, rigorously: bool) -> Example:
    """What a ladder, its attack at the end, says about class 0."""
    ladder = Ladder.read(f"{spelling},{QUIET}", REGISTRY)
    ladder = Ladder((rigorous(ladder) if rigorously else ladder).rungs[:-1])
    question = Question(model, eps, Region(None), REGISTRY)
    (found,) = ladder.climb(question, [Example(0, x, torch.tensor([0]))], 10)
    return found


@pytest.mark.parametrize("spelling", ["CROWN", "exact", "CROWN,alpha-CROWN:steps=2,exact"])
def test_a_proof_that_rounding_breaks_does_not_count(spelling: str) -> None:
    model, x = absorbing(), torch.tensor([[2.0]])
    assert decided(model, x, 1.05, spelling, rigorously=False).verdict is Verdict.VERIFIED
    found = decided(model, x, 1.05, spelling, rigorously=True)
    assert found.verdict is Verdict.UNDECIDED
    assert "but for rounding" in found.note
    assert found.margins is None or found.margins.min() <= 0


def test_a_proof_with_room_for_rounding_counts() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 8), nn.ReLU(), nn.Linear(8, 2)).eval()
    model[2].bias.data[0] += 2.0
    plain, found = (decided(model, torch.rand(1, 3), 0.05, "IBP", rigorously=each) for each in (False, True))
    assert plain.verdict is found.verdict is Verdict.VERIFIED
    assert found.rung == "IBP"
    assert plain.margins is not None
    assert found.margins is not None
    assert 0 < found.margins.min() < plain.margins.min()


def test_a_ladder_says_that_it_is_rigorous_and_leaves_attacks_alone() -> None:
    ladder = rigorous(Ladder.read("IBP,exact", REGISTRY))
    assert ladder.label == "attack:steps=40,restarts=3,rigorous(IBP),rigorous(exact)"
    assert [rung.name for rung in ladder.rungs] == ["attack", "IBP", "exact"]


def test_a_network_that_is_not_covered_is_refused() -> None:
    model = nn.Sequential(nn.Linear(3, 2), nn.Tanh()).eval()
    model[0].bias.data[0] += 3.0
    with pytest.raises(UserError, match="aten.tanh.default has no rigorous bounds of its rounding"):
        decided(model, torch.rand(1, 3), 0.01, "CROWN", rigorously=True)


def test_a_comparison_counts_verdicts_and_differences() -> None:
    plain = torch.tensor([[1.0], [0.25], [-1.0], [torch.nan]])
    found = Comparison(
        0.1, plain, torch.tensor([[1.0], [-0.25], [-1.0], [-1.0]]), torch.tensor([[0.5], [-0.5], [-1.0], [-torch.inf]]), 0.5
    )
    values = found.to_json()
    assert (values["certified_accuracy"], values["certified_float64"], values["certified_rigorous"]) == (0.5, 0.25, 0.25)
    assert (values["verdicts_changed_by_float64"], values["images_taken_away"]) == (1, 1)
    assert values["largest_difference_plain_float64"] == 0.5
    assert values["largest_difference_float64_rigorous"] == 0.5
    assert "50.00 %" in comparison_table([found])


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("trained") / "run"
    assert train([*TINY, "--method", "IBP", "--epochs", "8", "--eps", "0.02", "--model", "FC", "--out", str(folder)]) == 0
    return folder


def test_the_command_compares(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["--run", str(run), "--limit", "20", "--pgd-steps", "2", "--json", str(tmp_path / "o.json")]
    assert main([*command, "--eps", "0.0001,0.0002", "--rigorous"]) == 0
    assert "certified rigorously" in capsys.readouterr().out
    figures = json.loads((tmp_path / "o.json").read_text())
    for result, compared in zip(figures["results"], figures["rigorous"], strict=True):
        assert result["eps"] == compared["eps"]
        assert result["certified_accuracy"] == compared["certified_accuracy"] >= compared["certified_rigorous"] > 0
        assert 0 < compared["largest_difference_plain_float64"] < compared["largest_difference_float64_rigorous"] < 1e-2
    assert main(command) == 0
    assert "rigorous" not in json.loads((tmp_path / "o.json").read_text())


def test_the_command_decides_rigorously(run: Path, tmp_path: Path) -> None:
    command = ["--run", str(run), "--complete", "--ladder", "IBP,CROWN", "--limit", "20", "--rigorous", "--eps", "0.0001"]
    assert main([*command, "--out", str(tmp_path / "v"), "--json", str(tmp_path / "o.json")]) == 0
    (figures,) = json.loads((tmp_path / "o.json").read_text())["results"]
    assert figures["ladder"].endswith("rigorous(IBP),rigorous(CROWN)")
    assert figures["verified"] > 0
