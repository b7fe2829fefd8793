"""The smoothed loss under analysis: a fixed function of the weights, whose jumps are smaller."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from newrelax.registry import Registry
from plugin import analyze, train
from plugin.analysis.measure import Protocol, probe_continuity
from plugin.analysis.probe import Analysed, Probe
from plugin.analysis.smoothed import PAIRS, SmoothedProbe, for_analysis
from plugin.analysis.weights import WeightSpace
from plugin.training.smoothing import read_smoothing
from plugin.training.smoothing.noise import flat

REGISTRY = Registry.load()
SIGMA = 0.02


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(8, 12), nn.ReLU(), nn.Linear(12, 12), nn.ReLU(), nn.Linear(12, 4))


def data() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    return torch.rand(4, 8, generator=generator), torch.randint(4, (4,), generator=generator)


def smoothed(method: str, spelling: str) -> SmoothedProbe:
    analysed = Analysed(REGISTRY.get_method(method))
    return SmoothedProbe(network(), analysed, *data(), 0.1, read_smoothing(spelling, REGISTRY))


def value(probe: Probe) -> Tensor:
    with torch.no_grad():
        return probe.loss()


@pytest.mark.parametrize("method", ["hBox", "CROWN-IBP-RandomSlope"])
def test_the_smoothed_loss_is_a_fixed_function_and_leaves_the_weights(method: str) -> None:
    probe = smoothed(method, f"pgpe:sigma={SIGMA},pairs=3")
    before = flat(probe.parameters)
    assert torch.equal(value(probe), value(probe))
    probe.loss()
    probe.margins()
    assert torch.equal(flat(probe.parameters), before)


def test_little_noise_gives_the_loss_and_margins_themselves() -> None:
    probe = smoothed("DeepZ", "rgs:sigma=1e-9,pairs=2")
    plain = Probe(network(), probe.analysed, *data(), 0.1)
    torch.testing.assert_close(value(probe), value(plain), rtol=1e-6, atol=0)
    torch.testing.assert_close(probe.margins(), plain.margins(), rtol=1e-6, atol=1e-8)


def test_its_gradient_by_rgs_is_that_of_the_mean_of_copies() -> None:
    """By central differences."""
    probe = smoothed("IBP", f"rgs:sigma={SIGMA},pairs=2")
    generator = torch.Generator().manual_seed(2)
    direction = [torch.randn(p.shape, generator=generator, dtype=p.dtype) for p in probe.parameters]
    with WeightSpace(probe.parameters) as space:
        found, gradient = space.gradient(probe.loss)
        ends = []
        for t in (1e-6, -1e-6):
            space.move(direction, t)
            ends.append(float(space.evaluate(probe.loss)))
    slope = sum(float((g * d).sum()) for g, d in zip(gradient, direction, strict=True))
    assert found == pytest.approx(float(value(probe)), rel=1e-12)
    assert (ends[0] - ends[1]) / 2e-6 == pytest.approx(slope, rel=1e-4)


def test_jumps_of_a_mean_of_copies_are_smaller_by_their_number() -> None:
    """hBox jumps; of 8 copies one jumps at a time."""
    protocol = Protocol(eps=0.1, budget=300, random_lines=1, weight_lines=False)
    analysed = Analysed(REGISTRY.get_method("hBox"))
    plain = probe_continuity(Probe(network(), analysed, *data(), 0.1), protocol)
    means = probe_continuity(smoothed("hBox", f"rgs:sigma={SIGMA},pairs=4"), protocol)
    assert plain.continuous is False
    assert 0 < means.largest_jump < plain.largest_jump / 2


def test_pairs_are_many_unless_the_spelling_says() -> None:
    assert for_analysis(read_smoothing("pgpe:sigma=0.02", REGISTRY)).pairs == PAIRS
    assert for_analysis(read_smoothing("pgpe:sigma=0.02,pairs=1", REGISTRY)).pairs == 1


def test_the_command_line_says_what_it_measured(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = tmp_path / "run"
    tiny = "--method IBP --epochs 1 --limit-train 60 --limit-test 20 --batch-size 30 --eps 0.05 --model FC --device cpu"
    assert train.main([*tiny.split(), "--out", str(run)]) == 0
    capsys.readouterr()
    quick = "--methods IBP --limit 2 --probe 1 --budget 240 --single-weights 1 --smoothing pgpe:sigma=0.01,pairs=1"
    assert analyze.main(["--run", str(run), *quick.split()]) == 0
    out = capsys.readouterr().out
    assert "averaged over noise on the weights, pgpe:sigma=0.01,pairs=1" in out
    assert "the mean of 2 noisy copies" in out
    (folder,) = run.glob("analysis-pgpe*")
    assert (folder / "analysis.json").exists()


def test_an_unknown_smoothing_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert analyze.main(["--model", "FC", "--dataset", "digits", "--smoothing", "rsg", "--out", str(tmp_path)]) == 2
    assert "unknown smoothing 'rsg'; did you mean rgs" in capsys.readouterr().err
