"""The traces: a relaxation, a propagation, a loss, an operator, a number in TensorBoard, a table, a data set.

Each is one file in a folder outside the repository, and is used by the command lines from there. Elsewhere stand a relaxation
and a propagation checked, drawn and used from Python (tests/newrelax/test_outside.py), and a table's report
(tests/experiments/test_own_table.py).
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from experiments import run as table
from plugin.analysis.measure import Protocol
from plugin.analyze import main as analyze
from plugin.callbacks.analysis import Analysis
from plugin.evaluate import main as evaluate
from plugin.train import main as train
from plugin.training.loop import TrainState
from plugin.training.schedule import Values
from tests.support.calls import Called, invoke

QUICK = ("--limit-train", "40", "--limit-test", "10", "--batch-size", "20", "--epochs", "2", "--warmup", "0", "--ramp", "1")
ANALYZE = ("--analyze", "--analyze-budget", "1e6", "--analyze-every", "2")
NETWORK = ("--model", "tests.support.own_networks:two_hidden")

RELAXATION = '''
from newrelax import relaxation


@relaxation("Clamp", minimum={"steep": 1.0})
def clamp(lower, upper, *, steep: float = 2.0):
    """Clamp: CROWN's lower slope without its jump."""
    chord = upper / (upper - lower).clamp(min=1e-12)
    return (steep * (chord - 0.5) + 0.5).clamp(0, 1), 0.0, chord, -lower * chord
'''

PROPAGATION = '''
from dataclasses import dataclass
from typing import ClassVar

import torch
from newrelax import Method, Propagation
from newrelax.propagations.backward import BackwardPropagation
from newrelax.propagations.base import Bounds
from newrelax.propagations.interval import IntervalPropagation
from newrelax.relaxations.crown import crown


@dataclass(frozen=True)
class Better(Propagation):
    """The better of intervals and of back-substitution, margin by margin."""

    name: ClassVar[str] = "better"

    def bounds(self, problem, specification):
        both = [each.bounds(problem, specification) for each in (BackwardPropagation(), IntervalPropagation())]
        return Bounds(torch.maximum(both[0].lower, both[1].lower), both[0].layers)


better = Method("CROWN-Better", "The better of IBP and CROWN.", propagation=Better(), relaxation=crown)
'''

LOSS = '''
from typing import ClassVar

import plugin
import torch
from plugin.certification.attacks import pgd
from plugin.training.losses.base import measured
from plugin.training.losses.certified import certified_loss


class Sabr(plugin.Loss):
    """Bounds of a small box inside the ball, around what an attack finds (Müller et al., 2023)."""

    name: ClassVar[str] = "sabr"
    tau: float = plugin.setting("Half-width of the small box, as a share of the ball's.", 0.4, gt=0, le=1)
    steps: int = plugin.setting("Steps of the attack.", 4, ge=1)

    def terms(self, method):
        return ("natural", "small_box")

    def __call__(self, learner, batch, values):
        x, y, total, _ = batch
        natural = measured(learner.net(x), y)
        low, high = learner.box(x, values.eps)
        half = self.tau * (high - low) / 2
        attacked = pgd(learner.model, x, y, values.eps, steps=self.steps, region=learner.region)
        centre = attacked.clamp(low + half, high - half)
        margins = learner.net.bounds(centre - half, centre + half, y, beta=values.beta).margins
        worst = plugin.Term(certified_loss(margins, y, reduction="sum"), (margins > 0).all(1).sum())
        loss = values.kappa * natural.loss + (1 - values.kappa) * worst.loss
        return plugin.Terms(loss / total, {"natural": natural, "small_box": worst})
'''

OPERATOR = '''
import torch
from newrelax import composed
from torch import nn


@composed("aten.cosh.default")
def cosh(x):
    """(exp x + exp −x)/2."""
    return (x.exp() + (-x).exp()) / 2


class Waves(nn.Module):
    """A network with an operator that has no rule."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Linear(64, 12), nn.Linear(12, 10)

    def forward(self, x):
        return self.second(torch.cosh(0.1 * self.first(x.flatten(1))))
'''

NUMBER = '''
import plugin


@plugin.scalar("norms/weights")
def norm(state):
    """The weights' L2 norm."""
    return sum(p.square().sum().item() for p in state.model.parameters()) ** 0.5
'''

DATA = '''
import torch
from plugin.data import dataset


@dataset("stripes", eps=0.05, model="FC")
def stripes(*, points: int = 40, seed: int = 0):
    """Two stripes."""
    x = torch.rand(points, 3, generator=torch.Generator().manual_seed(seed))
    y = (x[:, 0] > 0.5).long()
    return x, y, x, y
'''


@pytest.fixture
def outside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder outside the repository, from which commands are called."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture(autouse=True)
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    """The analysis along the way measures enough for its figures, too little for fine verdicts."""
    original = Analysis._protocol

    def protocol(self: Analysis, state: TrainState, values: Values) -> Protocol:
        return replace(original(self, state, values), budget=240, single_weights=1, images=4, step=0.05)

    monkeypatch.setattr(Analysis, "_protocol", protocol)


def analysed(folder: Path) -> set[str]:
    """What was measured of the loss while it was trained."""
    lines = [json.loads(line) for line in (folder / "run" / "analysis.jsonl").read_text().splitlines()]
    return {line["measurement"] for line in lines}


def write(folder: Path, name: str, text: str) -> Path:
    path = folder / name
    path.write_text(text)
    return path


def trained(plugin: Path, *options: str, network: tuple[str, ...] = NETWORK) -> Called:
    """A quick run in the folder `run` beside the file."""
    out = str(plugin.parent / "run")
    called = invoke(train, [*QUICK, *network, "--plugin", str(plugin), "--out", out, "--device", "cpu", *options])
    assert called.exit_code == 0, called.output
    return called


def metrics(folder: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in (folder / "run" / "metrics.jsonl").read_text().splitlines()]


def tags(folder: Path) -> set[str]:
    return set(EventAccumulator(str(folder / "run")).Reload().Tags()["scalars"])


def listed(noun: str, plugin: Path) -> str:
    """The line of `--NOUN list` whose source is the file."""
    called = invoke(train, [f"--{noun}", "list", "--plugin", str(plugin)])
    assert called.exit_code == 0, called.output
    (line,) = [line for line in called.output.splitlines() if line.endswith(f"[{plugin}]")]
    return line


def test_a_relaxation(outside: Path) -> None:
    file = write(outside, "clamp.py", RELAXATION)
    assert listed("method", file).startswith("Clamp:steep=2 ")
    called = trained(file, "--method", "Clamp:steep=4", *ANALYZE)
    assert "certified loss" in called.output
    result = json.loads((outside / "run" / "result.json").read_text())
    assert (result["method"], result["certify_method"], result["sound"]) == ("Clamp:steep=4", "Clamp:steep=4", True)
    assert {"loss/certified", "accuracy/certified", "tightness/certified_radius"} <= tags(outside)
    assert analysed(outside) == {"tightness", "sensitivity", "continuity"}
    assert invoke(evaluate, ["--run", "run", "--limit", "5", "--method", "Clamp:steep=3"]).exit_code == 0


def test_a_propagation(outside: Path) -> None:
    file = write(outside, "better.py", PROPAGATION)
    assert listed("method", file).startswith("CROWN-Better ")
    called = trained(file, "--method", "CROWN-Better")
    assert "certified loss" in called.output
    result = json.loads((outside / "run" / "result.json").read_text())
    assert (result["certify_method"], result["sound"]) == ("CROWN-Better", True)
    assert metrics(outside)[-1]["certified_loss"] > 0
    options = ["--limit", "2", "--probe", "1", "--budget", "240", "--single-weights", "1", "--eps-step", "0.05"]
    called = invoke(analyze, ["--run", "run", "--methods", "CROWN-Better", *options])
    assert called.exit_code == 0, called.output
    assert "| CROWN-Better |" in called.output


def test_a_loss(outside: Path) -> None:
    file = write(outside, "sabr.py", LOSS)
    assert listed("loss", file).startswith("sabr:tau=0.4,steps=4 ")
    called = trained(file, "--method", "CROWN-IBP", "--loss", "sabr:tau=0.5", "--kappa", "0.5", *ANALYZE)
    assert "small_box loss" in called.output
    for line in metrics(outside):
        assert line["small_box_loss"] > 0 < line["natural_loss"]
        assert 0 <= line["small_box_accuracy"] <= 1
        assert not any(name.startswith("certified") for name in line)
    assert {"loss/small_box", "accuracy/small_box", "loss/natural", "accuracy/natural"} <= tags(outside)
    assert json.loads((outside / "run" / "result.json").read_text())["loss"] == "sabr:tau=0.5,steps=4"
    assert json.loads((outside / "run" / "config.json").read_text())["loss"] == "sabr:tau=0.5,steps=4"
    assert analysed(outside) == {"tightness", "sensitivity", "continuity"}
    assert "tightness/small_box_radius" in tags(outside)


def test_the_whole_ball_as_the_small_box_is_the_certified_loss(outside: Path) -> None:
    file = write(outside, "sabr.py", LOSS)
    trained(file, "--method", "IBP", "--kappa", "0.5", "--loss", "sabr:tau=1")
    whole = metrics(outside)
    (outside / "run").rename(outside / "sabr")
    trained(file, "--method", "IBP", "--kappa", "0.5", "--loss", "certified")
    for line, expected in zip(whole, metrics(outside), strict=True):
        assert line["small_box_loss"] == pytest.approx(expected["certified_loss"], rel=1e-4)


def test_an_operator(outside: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = write(outside, "waves_operator.py", OPERATOR)
    monkeypatch.syspath_prepend(outside)
    network = ("--model", "waves_operator:Waves")
    called = invoke(train, [*QUICK, *network, "--method", "CROWN-IBP", "--out", str(outside / "refused"), "--device", "cpu"])
    assert called.exit_code == 2
    assert "aten.cosh.default has no rule" in called.output
    trained(file, "--method", "CROWN-IBP", network=network)
    assert json.loads((outside / "run" / "result.json").read_text())["certified_accuracy"] is not None
    assert invoke(evaluate, ["--run", "run", "--limit", "5", "--method", "CROWN"]).exit_code == 0


def test_a_number_in_tensorboard(outside: Path) -> None:
    file = write(outside, "norm.py", NUMBER)
    trained(file, "--method", "natural")
    values = [line["norms/weights"] for line in metrics(outside)]
    assert len(set(values)) == 2
    shown = EventAccumulator(str(outside / "run")).Reload().Scalars("norms/weights")
    assert [event.value for event in shown] == pytest.approx(values)


def test_a_data_set(outside: Path) -> None:
    file = write(outside, "stripes.py", DATA)
    assert listed("dataset", file).startswith("stripes:points=40 ")
    trained(file, "--dataset", "stripes:points=60", "--method", "IBP", network=())
    result = json.loads((outside / "run" / "result.json").read_text())
    assert (result["eps"], result["model"], result["train_images"]) == (0.05, "FC", 40)


def test_a_table_of_a_loss_from_outside(outside: Path) -> None:
    file = write(outside, "sabr.py", LOSS)
    write(
        outside,
        "mine.toml",
        f'title = "Small boxes"\n[options]\ndataset = "digits"\nmodel = "FC"\nplugin = "{file}"\nmethod = "IBP"\n'
        'batch-size = 20\nlimit-test = 10\nepochs = 1\n[grid]\nloss = ["sabr:tau=0.2"]\n',
    )
    called = invoke(table.main, ["mine.toml", "--limit-train", "40", "--device", "cpu", "--jobs", "1"])
    assert called.exit_code == 0, called.output
    assert "1 finished" in called.output
    (path,) = (outside / "runs" / "mine").glob("**/result.json")
    assert json.loads(path.read_text())["loss"] == "sabr:tau=0.2,steps=4"


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('"sabr"', '"certified"', "defines the loss 'certified', but newrelax (built-in) already has 'certified'"),
        ("import plugin\n", "import plugin\nraise RuntimeError('broken')\n", "cannot be loaded: RuntimeError: broken"),
        ("class Sabr(plugin.Loss)", "class Sabr", "has nothing to add"),
        ('return ("natural", "small_box")', 'return ("natural",)', "gives a term 'small_box' that its terms() do not name"),
    ],
    ids=["a taken name", "a broken file", "no noun", "an undeclared term"],
)
def test_a_wrong_loss_is_one_line(outside: Path, old: str, new: str, message: str) -> None:
    assert old in LOSS
    file = write(outside, "sabr.py", LOSS.replace(old, new))
    called = invoke(train, [*QUICK, *NETWORK, "--plugin", str(file), "--method", "IBP", "--loss", "sabr", "--out", "run"])
    assert called.exit_code == 2, called.output
    assert message in called.output
    assert sum(line.startswith("error: ") for line in called.output.splitlines()) == 1
    assert "Traceback" not in called.output
