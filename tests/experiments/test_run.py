"""The runner: what is skipped, resumed, tried again, listed; and what kills may not do."""

import os
import random
import re
import signal
import time

import pytest

from experiments.run import main
from experiments.runner.slots import local_slots
from experiments.runner.store import Place
from newrelax.errors import UserError
from tests.support.calls import invoke
from tests.support.fake_runs import IDS, TABLE, Bench


@pytest.fixture
def bench(tmp_path):
    return Bench(tmp_path)


def test_all_cells_run_once(bench, capsys):
    assert bench.run() == 0
    assert set(bench.results()) == IDS
    assert bench.run() == 0
    assert bench.count("start") == dict.fromkeys(IDS, 1)
    assert "6 skipped" in capsys.readouterr().out


def test_dry_run_only_prints(bench):
    result = invoke(main, [str(bench.table), "--dry-run", "--out", str(bench.out), "--only", "method=IBP"])
    assert result.exit_code == 0
    assert "to run   FC-IBP-seed0" in result.output
    assert "CROWN" not in result.output
    assert "-m plugin.train --dataset digits --model FC --method IBP --seed 0" in result.output
    assert list(bench.out.iterdir()) == []


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--only", "model=X"], "error: --only"),
        (["--jobs", "x"], "error: .*--jobs"),
        (["--jobs", "-1"], "error: .*--jobs"),
        (["--set", "weights={x}", "--dry-run"], "error: --set: .*axes: dataset"),
        (["--set", "weights={x", "--dry-run"], "error: --set: .*axis"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_user_error_is_one_line(options, message):
    result = invoke(main, ["table2", *options])
    assert result.exit_code == 2
    assert re.match(message, result.output)
    assert result.output.count("\n") == 1


def test_an_option_can_be_switched_off():
    result = invoke(main, ["table2", "--only", "dataset=cifar10,method=IBP", "--set", "augment=false", "--dry-run"])
    assert "--no-augment" in result.output


def test_a_run_has_a_gpu_of_its_own(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,5")
    assert local_slots(None, 1, 1.0) == [{"CUDA_VISIBLE_DEVICES": "3"}, {"CUDA_VISIBLE_DEVICES": "5"}]


@pytest.mark.parametrize(
    "cause",
    [
        "kill",
        "CUDA out of memory. Tried to allocate 2.00 GiB",
        "[Errno 28] No space left on device: 'checkpoint.pt'",
        "all CUDA-capable devices are busy or unavailable",
    ],
)
def test_passing_causes_are_tried_again(bench, cause):
    bench.misbehave(CROWN=[cause, cause])
    assert bench.run(only="seed=0") == 0
    assert bench.count("start")["FC-CROWN-seed0"] == 3
    assert bench.count("end")["FC-CROWN-seed0"] == 1


@pytest.mark.parametrize(
    ("plan", "starts", "message"),
    [
        (["the loss is not finite at step 7, layer 2"] * 9, 1, "the loss is not finite at step 7, layer 2"),
        (["silent"] * 9, 1, "ended without a result"),
        (["kill"] * 9, 3, "gave up after 3 attempts: ended by SIGKILL"),
    ],
    ids=["error", "no result", "passing again and again"],
)
def test_failures_for_good_are_listed_and_the_rest_goes_on(bench, capsys, plan, starts, message):
    bench.misbehave(CROWN=plan)
    assert bench.run(only="seed=0", retries=2) == 1
    assert bench.count("start")["FC-CROWN-seed0"] == starts
    assert set(bench.results()) == {"FC-IBP-seed0", "FC-hBox-seed0"}
    output = capsys.readouterr().out
    assert "failed for good:" in output
    assert f"FC-CROWN-seed0: {message}" in output
    bench.misbehave()
    assert bench.run(only="seed=0") == 0
    assert not Place(bench.out / "small", "FC-CROWN-seed0").note("failure.json").exists()


@pytest.mark.parametrize("damage", ['{"method": "CR', '{"seed": 0}', '{"seed": 7, "dataset": "digits"}'])
def test_a_damaged_result_is_no_result(bench, damage):
    bench.run(only="method=CROWN,seed=0")
    (bench.out / "small/FC-CROWN-seed0/result.json").write_text(damage)
    assert bench.run(only="method=CROWN,seed=0") == 0
    assert bench.count("start")["FC-CROWN-seed0"] == 2
    assert bench.results()["FC-CROWN-seed0"]["seed"] == 0


def test_a_folder_with_other_settings_is_left_alone(bench, capsys):
    bench.run(only="method=CROWN,seed=0")
    bench.table.write_text(TABLE.replace('"digits"', '"digits"\nepochs = 9'))
    assert bench.run(only="method=CROWN,seed=0") == 1
    output = capsys.readouterr().out
    assert "holds a run with other settings" in output
    assert "'epochs': 9" in output
    assert bench.count("start")["FC-CROWN-seed0"] == 1


def test_sigint_ends_the_runs_gently(bench):
    runner = bench.start(pause=2.0)
    wait_for(lambda: len(bench.journal()) == 2)
    os.kill(runner.process.pid, signal.SIGINT)
    assert runner.wait() == 130
    assert sum(bench.count("saved").values()) == 2, runner.output
    assert "run the same command again" in runner.output
    assert "6 stopped" in runner.output
    assert bench.run() == 0
    assert bench.count("end") == dict.fromkeys(IDS, 1)


def test_two_runners_share_the_work(bench):
    runners = [bench.start(pause=0.02), bench.start(pause=0.02)]
    assert [runner.wait() for runner in runners] == [0, 0], [runner.output for runner in runners]
    assert bench.count("start") == dict.fromkeys(IDS, 1)


def test_an_orphan_is_waited_for(bench):
    runner = bench.start(pause=0.15)
    wait_for(lambda: len(bench.journal()) == 2)
    runner.kill()
    assert bench.run() == 0
    assert bench.count("start") == dict.fromkeys(IDS, 1)
    assert not bench.count("overlap")


def test_ten_kills_lose_nothing_and_repeat_nothing(bench, tmp_path):
    (tmp_path / "calm").mkdir()
    undisturbed = Bench(tmp_path / "calm")
    undisturbed.run()
    draw = random.Random(7)
    runner = bench.start(pause=0.15)
    for victim in draw.sample(["runner", "trainer"] * 5, 10):
        wait_for(lambda: runner.process.exitcode is not None or bench.live_trainers())
        time.sleep(draw.uniform(0.0, 0.4))
        if victim == "trainer" and (living := bench.live_trainers()):
            os.kill(draw.choice(living), signal.SIGKILL)
        else:
            runner.kill()
            runner = bench.start(pause=0.15)
    assert runner.wait() == 0, runner.output
    assert bench.count("start").total() > len(IDS), "no kill has hit a trainer"
    assert bench.results() == undisturbed.results()
    assert bench.count("end") == dict.fromkeys(IDS, 1)
    assert not bench.count("overlap")


DECIDED = TABLE + '[decide]\nladder = "IBP,exact"\ntimeout = 3\n'


def test_trained_networks_are_decided_once(bench, capsys):
    bench.table.write_text(DECIDED)
    assert bench.run() == 0
    assert set(bench.verdicts()) == IDS
    assert bench.run() == 0
    assert bench.count("decided") == bench.count("end") == dict.fromkeys(IDS, 1)
    assert "6 skipped" in capsys.readouterr().out


def test_what_was_trained_before_is_only_decided(bench):
    bench.run()
    assert not bench.verdicts()
    bench.table.write_text(DECIDED)
    result = invoke(main, [str(bench.table), "--dry-run", "--out", str(bench.out)])
    assert result.output.count("begun") == len(IDS)
    assert bench.run() == 0
    assert set(bench.verdicts()) == IDS
    assert bench.count("start") == dict.fromkeys(IDS, 1)


@pytest.mark.parametrize(
    "section",
    [
        pytest.param("ladder = 'CROWN,exact'\ntimeout = 3", id="ladder"),
        pytest.param("ladder = 'IBP,exact'\ntimeout = 9", id="timeout"),
    ],
)
def test_verdicts_of_another_question_are_left_alone(bench, capsys, section):
    bench.table.write_text(DECIDED)
    bench.run(only="method=IBP,seed=0")
    bench.table.write_text(f"{TABLE}[decide]\n{section}\n")
    assert bench.run(only="method=IBP,seed=0") == 1
    assert "holds verdicts of another question" in capsys.readouterr().out
    assert bench.count("start")["FC-IBP-seed0"] == 1
    assert bench.verdicts()["FC-IBP-seed0"]["timeout"] == 3


def test_more_examples_of_the_same_question(bench):
    bench.table.write_text(f"{DECIDED}limit = 20")
    bench.run(only="method=IBP,seed=0")
    bench.table.write_text(f"{DECIDED}limit = 30")
    assert bench.run(only="method=IBP,seed=0") == 0
    assert bench.verdicts()["FC-IBP-seed0"]["count"] == 30


@pytest.mark.parametrize(
    ("plan", "decisions", "message"),
    [
        pytest.param(["kill", "CUDA out of memory"], 3, "", id="passing"),
        pytest.param(["unknown certifier 'IPB'"] * 9, 1, "unknown certifier 'IPB'", id="for good"),
        pytest.param(["silent"] * 9, 1, "ended without a result", id="no verdicts"),
    ],
)
def test_a_failed_decision_keeps_the_network(bench, capsys, plan, decisions, message):
    bench.table.write_text(DECIDED)
    bench.misbehave(**{"decide CROWN": plan})
    assert bench.run(only="method=CROWN,seed=0") == (1 if message else 0)
    assert message in capsys.readouterr().out
    assert bench.count("decide")["FC-CROWN-seed0"] == decisions
    assert bench.count("start")["FC-CROWN-seed0"] == 1
    assert ("FC-CROWN-seed0" in bench.verdicts()) == (not message)
    bench.misbehave()
    assert bench.run(only="method=CROWN,seed=0") == 0
    assert bench.count("start")["FC-CROWN-seed0"] == 1
    assert not Place(bench.out / "small", "FC-CROWN-seed0").note("failure.json").exists()


def wait_for(condition, seconds=20.0):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.02)


def test_fractions_of_a_gpu_share_it(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,3")
    assert [slot["CUDA_VISIBLE_DEVICES"] for slot in local_slots(None, 1, 0.5)] == ["0", "3", "0", "3"]
    assert [slot["CUDA_VISIBLE_DEVICES"] for slot in local_slots(None, 1, 2)] == ["0,3"]
    with pytest.raises(UserError, match="this machine has 2 GPU"):
        local_slots(None, 1, 3)
