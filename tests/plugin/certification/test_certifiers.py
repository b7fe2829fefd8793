"""Certifiers and ladders: no rung contradicts brute force, counterexamples are replayed, verdicts survive anything."""

from __future__ import annotations

import contextlib
import functools
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from torch import nn

from newrelax import UserError
from plugin.certification.certifiers.base import Example, Question, Verdict
from plugin.certification.certifiers.ladder import DEFAULT, Ladder
from plugin.certification.complete import Work, decide_all
from plugin.certification.region import Region
from plugin.certification.verdicts import VERDICTS, Line, Store, Summary
from plugin.evaluate import main
from plugin.fitting.decide import LOCK
from plugin.process.lock import locked
from plugin.train import main as train
from tests.conftest import REPOSITORY
from tests.newrelax.exact import brute_force
from tests.newrelax.exact.test_program import small_network
from tests.support.tiny_runs import REGISTRY, TINY

EPS = 0.25
SMALL = [seed for seed in range(100) if sum(m.out_features for m in small_network(seed) if isinstance(m, nn.Linear)) <= 11][:6]
"""Seeds of networks with at most eight ReLUs, so that brute force takes less than a second."""
UNBOUNDED = Region(None)


def radius(seed: int) -> float:
    """Small for even seeds, where the network holds, wide for odd ones, where it does not."""
    return 3.0 if seed % 2 else EPS


@functools.cache
def asked_model(seed: int) -> tuple[nn.Sequential, torch.Tensor, torch.Tensor, float]:
    """A small network, an input of the class that the network says, and its true smallest margin."""
    eps = radius(seed)
    model = small_network(SMALL[seed]).float()
    x = torch.rand(1, 3, generator=torch.Generator().manual_seed(seed))
    y = model(x).argmax(1)
    lower, upper = (x[0] - eps).double().numpy(), (x[0] + eps).double().numpy()
    functions = [torch.eye(3)[y[0]] - torch.eye(3)[j] for j in range(3) if j != y[0]]
    least = min(brute_force.minimum(model, lower, upper, function.double().numpy()) for function in functions)
    return model, x, y, least


def asked(seed: int) -> tuple[nn.Sequential, Example, float]:
    """A network, a fresh example, and its true smallest margin."""
    model, x, y, least = asked_model(seed)
    return model, Example(0, x, y), least


@pytest.mark.parametrize("ladder", [DEFAULT, "attack,exact", "hBox,DeepZ", "attack,branch", "branch:method=DeepZ,steps=5"])
@pytest.mark.parametrize("seed", range(6))
def test_verdicts_are_brute_forces(ladder: str, seed: int) -> None:
    model, example, least = asked(seed)
    rungs = Ladder.read(ladder, REGISTRY)
    (decided,) = rungs.climb(Question(model, radius(seed), UNBOUNDED, REGISTRY), [example], 30)
    assert abs(least) > 1e-3, "choose another seed: the margin is too near to zero to tell"
    if decided.verdict is not Verdict.UNDECIDED or "exact" in ladder:
        assert (decided.verdict is Verdict.VERIFIED) == (least > 0)
    if decided.margins is not None:
        assert decided.margins.min() <= least + 1e-4
    if decided.verdict is Verdict.FALSIFIED:
        assert decided.point is not None
        assert (decided.point - example.x).abs().max() <= radius(seed) * (1 + 1e-6)
        assert model(decided.point).argmax(1) != example.y


def test_both_kinds_are_among_them() -> None:
    assert {asked(seed)[2] > 0 for seed in range(6)} == {True, False}


def test_what_no_rung_can_do_is_left_open_with_a_reason() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 8), nn.GELU(), nn.Linear(8, 3)).eval()
    x = torch.rand(1, 3)
    (decided,) = Ladder.read("exact", REGISTRY).climb(
        Question(model, 2.0, UNBOUNDED, REGISTRY), [Example(0, x, model(x).argmax(1))], 10
    )
    assert decided.verdict is Verdict.FALSIFIED or "is not made of ReLUs" in decided.note


@pytest.mark.parametrize(
    ("ladder", "message"),
    [
        ("IBQ", "unknown certifier 'IBQ'; did you mean IBP"),
        ("natural", "natural gives no bounds, so that it decides nothing"),
        ("DeepZ-Cauchy", "only estimates, so that it decides nothing"),
        ("", "expected certifiers with commas between them"),
        ("attack:steps=x", "expected whole-number parameters of attack"),
        ("attack:stops=3", "expected whole-number parameters of attack"),
    ],
)
def test_a_wrong_ladder_is_told(ladder: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        Ladder.read(ladder, REGISTRY)


def test_an_attack_comes_first_unless_it_stands_elsewhere() -> None:
    assert Ladder.read("IBP,exact", REGISTRY).label == "attack:steps=40,restarts=3,IBP,exact"
    assert Ladder.read("IBP,attack:restarts=1,steps=5,exact", REGISTRY).label == "IBP,attack:steps=5,restarts=1,exact"


def work_and_data(count: int = 12) -> tuple[Work, torch.Tensor, torch.Tensor]:
    model = small_network(1).float()
    x = torch.rand(count, 3, generator=torch.Generator().manual_seed(0))
    return Work(model, EPS, UNBOUNDED, ladder="attack:steps=5,restarts=1,IBP,exact"), x, model(x).argmax(1)


def facts(summary: Summary) -> tuple[float, ...]:
    return summary.natural_accuracy, summary.pgd_accuracy, summary.verified, summary.falsified, summary.undecided


def test_two_processes_give_the_verdicts_of_one(tmp_path: Path) -> None:
    work, x, y = work_and_data()
    one = Store(tmp_path / "one", work.facts())
    two = Store(tmp_path / "two", work.facts())
    summaries = [facts(decide_all(work, x, y, store, jobs=jobs)) for jobs, store in ((1, one), (2, two))]
    assert summaries[0] == summaries[1]
    assert {n: line.verdict for n, line in one.lines.items()} == {n: line.verdict for n, line in two.lines.items()}


def test_what_is_in_the_store_is_not_computed_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    work, x, y = work_and_data()
    first = decide_all(work, x[:5], y[:5], Store(tmp_path, work.facts()))
    assert first.count == 5
    seen: list[int] = []
    climb = Ladder.climb

    def spied(self: Ladder, question: Question, examples: list[Example], seconds: float) -> object:
        seen.extend(example.number for example in examples)
        return climb(self, question, examples, seconds)

    monkeypatch.setattr(Ladder, "climb", spied)
    whole = decide_all(work, x, y, Store(tmp_path, work.facts()))
    assert seen == list(range(5, 12))
    assert whole.count == 12


def test_a_line_that_a_kill_cut_short_is_computed_again_and_no_other(tmp_path: Path) -> None:
    work, x, y = work_and_data()
    whole = decide_all(work, x, y, Store(tmp_path, work.facts()))
    path = tmp_path / VERDICTS
    path.write_bytes(path.read_bytes()[:-10])
    store = Store(tmp_path, work.facts())
    assert len(store.lines) == 11
    assert facts(decide_all(work, x, y, store)) == facts(whole)
    assert len([json.loads(line) for line in path.read_text().splitlines()]) == 12


def test_a_folder_with_another_question_is_refused(tmp_path: Path) -> None:
    work, _, _ = work_and_data()
    Store(tmp_path, work.facts())
    with pytest.raises(UserError, match="holds verdicts with eps 0.25, not 0.5: choose another folder with --out"):
        Store(tmp_path, {**work.facts(), "eps": 0.5})


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("trained") / "run"
    assert train([*TINY, "--method", "IBP", "--epochs", "8", "--eps", "0.02", "--model", "FC", "--out", str(folder)]) == 0
    return folder


def command(run: Path, out: Path) -> list[str]:
    return ["--run", str(run), "--complete", "--ladder", "IBP,exact", "--limit", "20", "--timeout", "20", "--out", str(out)]


def test_the_command_decides_and_writes(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*command(run, tmp_path / "v"), "--json", str(tmp_path / "v.json")]) == 0
    shown = capsys.readouterr().out
    assert "verified" in shown
    (figures,) = json.loads((tmp_path / "v.json").read_text())["results"]
    assert figures["verified"] + figures["falsified"] + figures["undecided"] == pytest.approx(1)
    assert figures["certified_accuracy"] == figures["verified"] <= figures["pgd_accuracy"] <= figures["natural_accuracy"]
    assert (tmp_path / "v" / "decided.png").stat().st_size > 1000
    assert json.loads((tmp_path / "v" / "complete.json").read_text()) == figures
    lines = [json.loads(line) for line in (tmp_path / "v" / VERDICTS).read_text().splitlines()]
    assert sorted(line["image"] for line in lines) == list(range(20))


def test_two_processes_do_not_decide_in_one_folder(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "v").mkdir()
    with locked(tmp_path / "v" / LOCK):
        assert main(command(run, tmp_path / "v")) == 2
    assert "wait for it" in capsys.readouterr().err
    assert main(command(run, tmp_path / "v")) == 0


def verdicts(folder: Path) -> list[tuple[int, str, str]]:
    """Image, verdict and rung of each line, in order; each image once."""
    lines = [json.loads(line) for line in (folder / VERDICTS).read_text().splitlines()]
    assert len({line["image"] for line in lines}) == len(lines)
    return sorted((line["image"], line["verdict"], line["rung"]) for line in lines)


def kill_when(command: list[str], path: Path, seen: int) -> None:
    """Starts a command and kills it as soon as so many lines stand in a file, unless it ends before."""
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY), "OMP_NUM_THREADS": "1"}
    words = [sys.executable, "-m", "plugin.evaluate", *command]
    process = subprocess.Popen(words, env=environment, stdout=subprocess.DEVNULL, start_new_session=True)
    while process.poll() is None and (not path.exists() or len(path.read_text().splitlines()) < seen):
        time.sleep(0.001)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


TEN = [int(moment) for moment in torch.randint(1, 19, (10,), generator=torch.Generator().manual_seed(0)).sort().values]


@pytest.mark.parametrize("jobs", ["1", "2"])
@pytest.mark.parametrize("moments", [[1, 8], pytest.param(TEN, marks=pytest.mark.slow, id="ten random moments")])
def test_killed_at_any_moment_it_ends_the_same(run: Path, tmp_path: Path, moments: list[int], jobs: str) -> None:
    if jobs == "2" and len(moments) < 10:
        pytest.skip("two processes are killed in the slow test")
    assert main(command(run, tmp_path / "whole")) == 0
    killed = [*command(run, tmp_path / "killed"), "--jobs", jobs]
    path, kept = tmp_path / "killed" / VERDICTS, []
    for seen in moments:
        kill_when(killed, path, seen)
        lines = path.read_text().splitlines() if path.exists() else []
        assert lines[: len(kept)] == kept  # nothing is lost, nothing computed again
        kept = lines[:-1]  # the last one may be cut short
    assert main(killed) == 0
    assert verdicts(tmp_path / "killed") == verdicts(tmp_path / "whole")


def test_what_is_found_for_an_example_does_not_depend_on_the_others(tmp_path: Path) -> None:
    """The attack draws for each example by itself, so that a run that goes on decides as one that never stopped."""
    work, x, y = work_and_data()
    whole = decide_all(work, x, y, Store(tmp_path / "whole", work.facts()))
    store = Store(tmp_path / "parts", work.facts())
    for number in (7, 2, 9):
        (line,) = map(Line.of, work.decide([Example(number, x[number : number + 1], y[number : number + 1])]))
        store.add([line])
    assert facts(decide_all(work, x, y, store)) == facts(whole)
    assert verdicts(tmp_path / "parts") == verdicts(tmp_path / "whole")


@pytest.mark.parametrize("shift", [0.05, -0.05], ids=["verified", "falsified"])
def test_branching_on_neurons_decides_where_inputs_are_many(shift: float) -> None:
    """More inputs than those whose box is halved; the margin's minimum is moved to `shift`."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(12, 5), nn.ReLU(), nn.Linear(5, 4), nn.ReLU(), nn.Linear(4, 2)).eval()
    x = torch.rand(1, 12)
    ends = [(x[0] + side * 1.0).double().numpy() for side in (-1, 1)]
    least = brute_force.minimum(model, *ends, torch.tensor([1.0, -1.0]).double().numpy())
    with torch.no_grad():
        model[-1].bias[0] += shift - least
    example = Example(0, x, torch.tensor([0]))
    ladder = Ladder.read("IBP,branch", REGISTRY)
    list(ladder.climb(Question(model, 1.0, UNBOUNDED, REGISTRY), [example], 30))
    assert example.verdict is (Verdict.VERIFIED if shift > 0 else Verdict.FALSIFIED)


@pytest.mark.parametrize(
    ("ladder", "problem"),
    [
        ("branch:method=PGD", "PGD gives no bounds"),
        ("branch:method=hBox-Cauchy:k=5", "only estimates"),
        ("branch:depth=1", "expected whole-number parameters of branch"),
        ("branhc", "did you mean branch"),
    ],
)
def test_rungs_that_decide_nothing_are_told(ladder: str, problem: str) -> None:
    with pytest.raises(UserError, match=problem):
        Ladder.read(ladder, REGISTRY)


@pytest.mark.parametrize("option", [["--ladder", "IBP"], ["--timeout", "3"], ["--jobs", "2"], ["--out", "x"]])
def test_settings_of_complete_need_it(run: Path, option: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--run", str(run), *option]) == 2
    assert f"error: {option[0]} is a setting of --complete: give that, too\n" == capsys.readouterr().err
