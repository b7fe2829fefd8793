"""Losses: their terms against a direct computation, their names and parameters, and how pieces of a batch add up."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from newrelax import Method, Registry, UserError, certify
from newrelax.bounds import box
from plugin.certification.attacks import pgd
from plugin.settings.table import setting
from plugin.train import main
from plugin.training.losses import Batch, Learner, Loss, Term, Terms, list_losses, losses, read_loss
from plugin.training.losses.base import measured
from plugin.training.losses.certified import certified_loss
from plugin.training.meter import Meter, StepSums
from plugin.training.schedule import Values
from tests.support.calls import invoke
from tests.support.tiny_runs import REGISTRY, TINY, tiny_state

EPS = 0.03
VALUES = Values(eps=EPS, kappa=0.25, beta=0.5, lr=1e-3)


class Direct:
    """What the terms of each loss are, from the network alone."""

    def __init__(self, model: nn.Module, x: Tensor, y: Tensor) -> None:
        self.model, self.x, self.y = model, x, y

    def natural(self) -> Tensor:
        return self.model(self.x)

    def margins(self, beta: float) -> Tensor:
        back, intervals = (certify(self.model, self.x, self.y, EPS, method) for method in ("CROWN-IBP-R", "IBP"))
        return beta * back + (1 - beta) * intervals

    def attacked(self, steps: int) -> Tensor:
        torch.manual_seed(5)
        return self.model(pgd(self.model, self.x, self.y, EPS, steps=steps))


def worst_of(direct: Direct, loss: str) -> tuple[Tensor, int]:
    """The worst case's summed loss and how many are right."""
    y = direct.y
    if loss == "certified":
        margins = direct.margins(VALUES.beta)
        return certified_loss(margins, y, reduction="sum"), int((margins > 0).all(1).sum())
    if loss.startswith("adversarial"):
        logits = direct.attacked(int(loss.rpartition("=")[2]) if "=" in loss else 10)
        return F.cross_entropy(logits, y, reduction="sum"), int((logits.argmax(1) == y).sum())
    raise AssertionError(loss)


@pytest.mark.parametrize(
    ("loss", "name"), [("certified", "certified"), ("adversarial", "pgd"), ("adversarial:steps=2", "pgd")], ids=str
)
def test_terms_and_value_are_those_of_a_direct_computation(loss: str, name: str) -> None:
    state = tiny_state("CROWN-IBP", loss=loss)
    x, y = state.dataset.train_x[:30], state.dataset.train_y[:30]
    torch.manual_seed(5)
    terms = state.loss(state.learner, Batch.whole(x, y), VALUES)
    direct = Direct(state.model, x, y)
    logits, (worst, right) = direct.natural(), worst_of(direct, loss)
    assert tuple(terms.parts) == state.loss.terms(state.method) == ("natural", name)
    assert terms["natural"].loss.item() == pytest.approx(F.cross_entropy(logits, y, reduction="sum").item(), rel=1e-5)
    assert terms["natural"].right == (logits.argmax(1) == y).sum()
    assert terms[name].loss.item() == pytest.approx(worst.item(), rel=1e-5)
    assert terms[name].right == right
    expected = (0.25 * terms["natural"].loss + 0.75 * terms[name].loss) / 30
    assert terms.loss.item() == pytest.approx(expected.item(), rel=1e-6)


def test_the_fused_loss_is_an_upper_bound_of_the_cross_entropy() -> None:
    state = tiny_state("CROWN-IBP-R", loss="fused")
    x, y = state.dataset.train_x[:30], state.dataset.train_y[:30]
    terms = state.loss(state.learner, Batch.whole(x, y), VALUES._replace(kappa=0.0, beta=1.0))
    attacked = F.cross_entropy(state.model(pgd(state.model, x, y, EPS, steps=10)), y, reduction="sum")
    bounds = state.learner.net.cross_entropy(*box(x, EPS), y)
    assert terms["certified"].loss.item() == pytest.approx(bounds.loss.sum().item(), rel=1e-6)
    assert terms["certified"].loss >= attacked


def test_natural_training_has_one_term_and_no_worst_case() -> None:
    state = tiny_state("natural")
    x, y = state.dataset.train_x[:30], state.dataset.train_y[:30]
    terms = state.loss(state.learner, Batch.whole(x, y), VALUES)
    assert tuple(terms.parts) == state.loss.terms(state.method) == ("natural",)
    assert terms.loss.item() == pytest.approx(F.cross_entropy(state.model(x), y).item(), rel=1e-6)


@pytest.mark.parametrize(
    ("method", "names"),
    [("CROWN-IBP", ("natural", "certified")), ("DeepZ-Cauchy:k=3", ("natural", "estimated"))],
    ids=["sound", "estimate"],
)
def test_a_worst_case_is_named_after_what_bounds_it(method: str, names: tuple[str, ...]) -> None:
    assert read_loss("certified", REGISTRY).terms(REGISTRY.get_method(method)) == names


def test_the_built_in_losses_are_listed() -> None:
    names = ["natural", "certified", "fused", "adversarial", "MTL", "CC", "Exp", "SABR", "TAPS", "STAPS"]
    assert list(losses(REGISTRY)) == names
    lines = list_losses(REGISTRY).splitlines()
    assert [line.split()[0].split(":")[0] for line in lines] == names
    assert [line.split()[0] for line in lines if line.startswith(("adversarial", "SABR"))] == [
        "adversarial:steps=10,radius=1.0,restarts=1",
        "SABR:lambda=0.4,steps=10,radius=1.0,restarts=1",
    ]
    assert all(len(line.split()) > 3 for line in lines)


@pytest.mark.parametrize(
    ("spelling", "message"),
    [
        ("adversarial:steps=0", "steps: expected at least 1, got 0"),
        ("adversarial:steps=2.5", "steps: expected a whole number, got '2.5'"),
        ("adversarial:steps=many", "steps: expected a whole number, got 'many'"),
        (
            "adversarial:stepps=3",
            "unknown parameter of loss adversarial 'stepps'; did you mean steps or step_size? (known: radius, ",
        ),
        ("adversarial:steps", "expected NAME:key=value,key=value, got 'adversarial:steps'"),
        ("adversarial:steps=1,steps=2", "'adversarial:steps=1,steps=2' gives parameter 'steps' twice"),
        ("certified:x=1", "unknown parameter of loss certified 'x' (known: none)"),
        ("certifed", "unknown loss 'certifed'; did you mean certified? (known: natural, certified, fused, adversarial, "),
        ("", "unknown loss ''"),
    ],
)
def test_spellings_are_checked_by_the_table(spelling: str, message: str) -> None:
    with pytest.raises(UserError) as caught:
        read_loss(spelling, REGISTRY)
    assert str(caught.value).startswith(message)


def test_a_wrong_spelling_is_one_line_of_the_command_line(tmp_path: Path) -> None:
    called = invoke(main, [*TINY, "--loss", "adversarial:steps=0", "--out", str(tmp_path / "run")])
    assert (called.exit_code, called.output) == (2, "error: steps: expected at least 1, got 0\n")
    assert not (tmp_path / "run").exists()


class Three(Loss):
    """Natural, certified, and a weight norm that is right or wrong about nothing."""

    name: ClassVar[str] = "three"
    share: float = setting("Of the norm.", 0.1, ge=0)

    def terms(self, method: Method) -> tuple[str, ...]:
        return ("natural", "norm", "certified")

    def __call__(self, learner: Learner, batch: Batch, values: Values) -> Terms:
        x, y, total, _ = batch
        natural = measured(learner.net(x), y)
        margins = learner.net.bounds(*learner.box(x, values.eps), y).margins
        certified = Term(certified_loss(margins, y, reduction="sum"), (margins > 0).all(1).sum())
        norm = Term(len(x) * torch.stack([p.square().sum() for p in learner.model.parameters()]).sum())
        loss = (natural.loss + certified.loss + self.share * norm.loss) / total
        return Terms(loss, {"natural": natural, "norm": norm, "certified": certified})


def source(body: str) -> str:
    return (
        "from typing import ClassVar\nimport torch\nimport plugin\n\n\nclass Mine(plugin.Loss):\n"
        '    """What it is."""\n\n    name: ClassVar[str] = "mine"\n\n'
        '    def terms(self, method):\n        return ("natural", "norm")\n\n'
        "    def __call__(self, learner, batch, values):\n"
        "        natural = torch.nn.functional.cross_entropy(learner.net(batch.x), batch.y, reduction='sum')\n"
        "        norm = len(batch.x) * sum(p.square().sum() for p in learner.model.parameters())\n"
        "        loss = (natural + 0.1 * norm) / batch.total\n"
        f"        return {body}\n"
    )


def test_a_term_without_right_has_no_accuracy(tmp_path: Path) -> None:
    file = tmp_path / "mine.py"
    file.write_text(source("plugin.Terms(loss, {'natural': plugin.Term(natural), 'norm': plugin.Term(norm)})"))
    out = tmp_path / "run"
    called = invoke(main, [*TINY, "--model", "FC", "--loss", "mine", "--plugin", str(file), "--out", str(out), "--epochs", "2"])
    assert called.exit_code == 0, called.output
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    assert all({name for name in line if name.endswith("_accuracy")} == set() for line in lines)
    assert all(line["norm_loss"] > 0 < line["natural_loss"] for line in lines)
    assert "norm loss" in called.output


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (
            "plugin.Terms(loss, {'nrom': plugin.Term(norm)})",
            "loss mine gives a term 'nrom' that its terms() do not name: natural, norm",
        ),
        ("loss", "loss mine: expected plugin.Terms, got Tensor"),
        ("plugin.Terms(natural.new_ones(3), {})", "loss mine: expected a scalar to minimise, got the shape (3,)"),
        ("plugin.Terms(loss.detach(), {})", "loss mine: expected a scalar that depends on the weights"),
    ],
    ids=["undeclared term", "no terms", "no scalar", "no gradient"],
)
def test_a_loss_that_gives_something_else_is_refused_in_one_line(tmp_path: Path, body: str, message: str) -> None:
    file = tmp_path / "mine.py"
    file.write_text(source(body))
    called = invoke(
        main,
        [*TINY, "--model", "FC", "--loss", "mine", "--plugin", str(file), "--out", str(tmp_path / "run"), "--device", "cpu"],
    )
    assert called.exit_code == 2, called.output
    assert f"error: {message}" in called.output
    assert "Traceback" not in called.output


def means_of(loss: Loss, pieces: int) -> dict[str, Any]:
    """What the meter says of one batch that went through in pieces, and its gradient's norm."""
    state = tiny_state("CROWN-IBP", loss="certified")
    x, y = state.dataset.train_x[:30], state.dataset.train_y[:30]
    sums = StepSums(torch.device("cpu"), loss.terms(state.method))
    for part_x, part_y in zip(x.chunk(pieces), y.chunk(pieces), strict=True):
        terms = loss(state.learner, Batch(part_x, part_y, 30, observe=True), VALUES)
        terms.loss.backward()
        sums.add(terms, len(part_x))
    meter = Meter(torch.device("cpu"), loss.terms(state.method))
    grads = [p.grad for p in state.model.parameters() if p.grad is not None]
    meter.add(sums.vector(), torch.nn.utils.get_total_norm(grads))
    return meter.means()


@pytest.mark.parametrize(
    "loss", ["natural", "certified", "fused", Three()], ids=["natural", "certified", "fused", "three terms"]
)
def test_pieces_of_a_batch_add_up_to_the_whole(loss: str | Loss) -> None:
    made = loss if isinstance(loss, Loss) else read_loss(loss, REGISTRY)
    whole = means_of(made, 1)
    assert {name for name in whole if name.endswith("_loss")} == {f"{name}_loss" for name in made.terms(REGISTRY["CROWN-IBP"])}
    for pieces in (2, 3, 7):
        found = means_of(made, pieces)
        assert found.keys() == whole.keys()
        for name, value in whole.items():
            assert found[name] == (value if value is None else pytest.approx(value, rel=1e-5)), name


@pytest.mark.parametrize("loss", ["natural", "certified", "adversarial:steps=1"])
def test_accumulated_steps_train_as_whole_ones(tmp_path: Path, loss: str) -> None:
    def metrics(pieces: int) -> list[dict[str, Any]]:
        out = tmp_path / str(pieces)
        method = "natural" if loss == "natural" else "CROWN-IBP"
        options = ["--model", "FC", "--method", method, "--loss", loss, "--epochs", "2", "--accumulate", str(pieces)]
        assert invoke(main, [*TINY, *options, "--warmup", "0", "--ramp", "1", "--out", str(out)]).exit_code == 0
        return [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]

    # An attack draws its start for each piece anew.
    names = ["natural_loss", *(["certified_loss"] if loss == "certified" else [])]
    for whole, pieces in zip(metrics(1), metrics(4), strict=True):
        for name in names:
            tolerance = 5e-2 if loss.startswith("adversarial") else 1e-3
            assert pieces[name] == pytest.approx(whole[name], rel=tolerance), name


def test_a_term_that_cannot_tell_has_no_accuracy_and_others_have() -> None:
    means = means_of(Three(), 2)
    assert {name for name in means if name.endswith("_accuracy")} == {"natural_accuracy", "certified_accuracy"}
    assert not any(isinstance(value, float) and math.isnan(value) for value in means.values())


def test_labels_are_spellings_that_are_read_back() -> None:
    registry = Registry([("here", REGISTRY["IBP"])], (), [("here", Three)])
    made = read_loss("three:share=0.5", registry)
    assert made.label == "three:share=0.5"
    assert read_loss(made.label, registry) == made == Three(share=0.5)
    with pytest.raises(UserError, match=r"share: expected at least 0, got -1"):
        read_loss("three:share=-1", registry)


def test_two_losses_of_one_name_are_refused() -> None:
    class Other(Three):
        name: ClassVar[str] = "certified"

    registry = Registry([("here", REGISTRY["IBP"])], (), [("mine.py", Other)])
    with pytest.raises(UserError, match="mine.py defines the loss 'certified', but .* already has 'certified'"):
        losses(registry)


FAULTY = """
import plugin


class Faulty(plugin.Loss):
    \"\"\"Breaks.\"\"\"

    name = "Faulty"

    def terms(self, method):
        return ("natural",)

    def __call__(self, learner, batch, values):
        return batch.nothing


@plugin.scalar("norms/none")
def norm(state):
    return state.model.nothing.norm()
"""


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            ("--loss", "Faulty"),
            "error: loss Faulty: AttributeError: 'Batch' object has no attribute 'nothing' (line 14 of mine.py",
        ),
        ((), "error: scalar norms/none: AttributeError: 'Network' object has no attribute 'nothing' (line 19 of mine.py"),
    ],
    ids=["a loss", "a number"],
)
def test_a_fault_in_somebody_elses_code_is_one_line_with_the_place(
    options: tuple[str, ...], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "mine.py").write_text(FAULTY)
    call = [*TINY, "--method", "IBP", "--plugin", str(tmp_path / "mine.py"), *options, "--out", str(tmp_path / "run")]
    assert main(call) == 2
    last = capsys.readouterr().err.splitlines()[-1]
    assert last.startswith(message)
