"""Smoothing in the training loop: what a step leaves behind, and what keeps its meaning beside it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from newrelax.errors import UserError
from plugin.data import load
from plugin.models.build import build
from plugin.process.world import World
from plugin.training.finite import NonFiniteLoss
from plugin.training.loop import TrainState, take_step, train, train_step
from plugin.training.schedule import Values
from plugin.training.smoothing.noise import flat, layer_sizes
from tests.plugin.process.test_distributed import in_processes
from tests.plugin.runs.test_checkpoint import Killed, at_step, kill
from tests.support.tiny_runs import REGISTRY, assert_same_run, tiny_config, tiny_state, train_cli

VALUES = Values(eps=0.1, kappa=0.5, beta=1.0, lr=0.0)
SPELLINGS = ["rgs", "pgpe", "controlled", "controlled:pairs=2", "rgs:pairs=2,parts=true", "pgpe:relative=true,schedule=lr"]
METHODS = ["natural", "PGD", "IBP", "CROWN-IBP-R", "CROWN-IBP-RandomSlope", "DeepZ", "CROWN", "hBox"]


def batch(state: TrainState, size: int = 20) -> tuple[Tensor, Tensor]:
    return state.dataset.train_x[:size], state.dataset.train_y[:size]


def gradient(state: TrainState, values: Values = VALUES, size: int = 20) -> Tensor:
    """A step's gradient; the step itself has a learning rate of 0."""
    take_step(state, *batch(state, size), values, state.step, observe=False)
    return flat([p.grad for p in state.model.parameters() if p.grad is not None])


def kept(state: TrainState) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in state.model.state_dict().items()}


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("spelling", ["rgs", "pgpe", "controlled:pairs=2"])
def test_steps_without_a_learning_rate_leave_the_weights_bit_for_bit(method: str, spelling: str) -> None:
    state = tiny_state(method, smoothing=spelling)
    before = kept(state)
    for _ in range(3):
        train_step(state, *batch(state), VALUES)
        state.step += 1
    assert gradient(state).norm() > 0
    for name, value in state.model.state_dict().items():
        assert torch.equal(value, before[name]), name


@pytest.mark.parametrize("spelling", ["rgs", "controlled", "controlled:pairs=3"])
def test_little_noise_gives_nearly_the_plain_gradient(spelling: str) -> None:
    """IBP's loss does not jump, and is smooth on this scale but for a kink here and there."""
    plain = gradient(tiny_state("IBP"))
    separator = "," if ":" in spelling else ":"
    found = gradient(tiny_state("IBP", smoothing=f"{spelling}{separator}sigma=1e-5"))
    assert torch.cosine_similarity(found, plain, dim=0) > 0.95


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_pieces_of_a_batch_add_up_to_its_estimate(spelling: str) -> None:
    one, three = (gradient(tiny_state("CROWN-IBP", smoothing=spelling, accumulate=pieces)) for pieces in (1, 3))
    torch.testing.assert_close(three, one, rtol=1e-3, atol=1e-4 * float(one.abs().max()))


@pytest.mark.parametrize("size", [2, 1])
def test_more_pairs_than_inputs_is_no_error(size: int) -> None:
    assert gradient(tiny_state("IBP", smoothing="rgs:pairs=3,parts=true"), size=size).isfinite().all()


@pytest.mark.parametrize("method", ["PGD", "CROWN-IBP-RandomSlope"])
def test_other_random_streams_are_where_a_plain_step_leaves_them(method: str) -> None:
    after = []
    for smoothing in (None, "controlled:pairs=3"):
        state = tiny_state(method, smoothing=smoothing)
        gradient(state)
        after.append((torch.get_rng_state(), state.order.get_state()))
    for plain, smoothed in zip(*after, strict=True):
        assert torch.equal(plain, smoothed)


def test_both_sides_of_a_pair_see_the_same_random_numbers() -> None:
    """A loss that is all chance has no gradient then."""
    state = tiny_state("IBP", nn.Sequential(nn.Flatten(), nn.Dropout(), nn.Linear(64, 10)), smoothing="pgpe:sigma=1e-6")
    sizes = [float(gradient(state).norm()) for state.step in range(5)]
    assert max(sizes) < 1e3  # different drops on the two sides: about 1e6


def test_batch_norm_moves_once_a_step_to_about_where_a_plain_one_moves_it() -> None:
    plain, smoothed = tiny_state("IBP", batch_normed()), tiny_state("IBP", batch_normed(), smoothing="rgs:pairs=3,sigma=1e-4")
    for state in (plain, smoothed):
        gradient(state)
    for (name, expected), found in zip(plain.model.state_dict().items(), smoothed.model.state_dict().values(), strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-2, atol=1e-3, msg=name)


def batch_normed() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 20), nn.BatchNorm1d(20), nn.ReLU(), nn.Linear(20, 10))


def test_l1_is_added_to_the_estimate_and_clipping_acts_on_the_sum() -> None:
    plain, with_l1 = (gradient(tiny_state("IBP", smoothing="rgs", l1=l1)) for l1 in (0.0, 0.01))
    state = tiny_state("IBP")
    signs = [(p.detach().sign() if p.dim() > 1 else torch.zeros_like(p)) for p in state.model.parameters()]
    torch.testing.assert_close(with_l1 - plain, 0.01 * flat(signs), rtol=0, atol=1e-5)
    clipped = gradient(tiny_state("IBP", smoothing="rgs", l1=0.01, clip_grad=0.1))
    assert clipped.norm().item() == pytest.approx(0.1, rel=1e-4)


def test_a_loss_that_is_not_finite_stops_the_run() -> None:
    state = tiny_state("IBP", smoothing="pgpe:sigma=1e30")
    with pytest.raises(NonFiniteLoss, match="step 0"):
        train(state)


def test_capture_is_refused_in_one_line() -> None:
    with pytest.raises(UserError, match="--capture: a smoothed step draws its noise on the host"):
        tiny_config("IBP", smoothing="rgs", device="cuda", capture=True)


def test_sigma_follows_the_learning_rate_where_asked() -> None:
    state = tiny_state("IBP", smoothing="rgs:sigma=0.02,schedule=lr")
    assert state.smoothing is not None
    assert state.smoothing.scale(state.model, 0.1) == pytest.approx(0.002)


def test_relative_noise_is_on_the_scale_of_each_layer() -> None:
    model = nn.Sequential(nn.Linear(3, 1), nn.Linear(1, 2))
    with torch.no_grad():
        for parameter, value in zip(model.parameters(), (2.0, 0.0, 0.0, 5.0), strict=True):
            parameter.fill_(value)
    expected = [(3 * 2.0**2 / 4) ** 0.5] * 4 + [(2 * 5.0**2 / 4) ** 0.5] * 4
    assert layer_sizes(model).tolist() == pytest.approx(expected)


def test_a_layer_of_zeros_gets_no_noise_and_no_nan() -> None:
    state = tiny_state("IBP", smoothing="pgpe:relative=true")
    last = [module for module in state.model.modules() if isinstance(module, nn.Linear)][-1]
    with torch.no_grad():
        for parameter in last.parameters():
            parameter.zero_()
    assert gradient(state).isfinite().all()


def test_a_killed_run_ends_as_the_undisturbed_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Saved in the middle of an epoch, the sums of its figures included."""
    smoothing = "controlled:pairs=2,sigma=0.3,relative=true,schedule=lr"
    options = ("--method", "CROWN-IBP-RandomSlope", "--smoothing", smoothing, "--checkpoint-every", "2steps")
    train_cli(tmp_path / "whole", *options)
    with monkeypatch.context() as patch:
        at_step(patch, 5, kill)
        with pytest.raises(Killed):
            train_cli(tmp_path / "killed", *options)
    train_cli(tmp_path / "killed", *options, "--resume")
    assert_same_run(tmp_path / "whole", tmp_path / "killed")


def test_a_run_shows_its_figures(tmp_path: Path) -> None:
    train_cli(tmp_path, "--method", "IBP", "--smoothing", "controlled:pairs=2")
    (line, *_) = map(json.loads, (tmp_path / "metrics.jsonl").read_text().splitlines())
    assert line["smoothed_loss"] == pytest.approx(line["loss"], rel=0.1)  # but for L1
    assert line["signal_to_noise"] > 0 < line["unforetold"]
    assert 0 < line["jump_share"] < 1.5


def test_list_is_printed(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    train_cli(tmp_path, "--smoothing", "list")
    assert "controlled:sigma=0.01,pairs=1" in capsys.readouterr().out


def two_steps(world: World) -> dict[str, Tensor]:
    dataset = load("digits", limit_train=60)
    found = {}
    for spelling in ("pgpe:pairs=2", "controlled:pairs=2", "controlled"):
        config = tiny_config("IBP", smoothing=spelling, l1=1e-4)
        model = build("CONV", dataset.input_shape, dataset.classes, dataset.mean, dataset.std, seed=0)
        state = TrainState.create(config, REGISTRY.get_method("IBP"), model, dataset, world)
        for size in (11, 1):  # the second process has no part of a batch of one
            found[f"{spelling} {size}"] = gradient(state, size=size)
        found[f"{spelling} loss"] = torch.tensor(state.meter.means()["loss"] or 0.0)
    return found


def test_several_processes_estimate_what_one_does(tmp_path: Path) -> None:
    alone = two_steps(World())
    for found in in_processes(two_steps, tmp_path):  # type: ignore[no-untyped-call]
        for name, expected in alone.items():
            torch.testing.assert_close(found[name], expected, rtol=1e-3, atol=1e-3 * float(expected.abs().max()), msg=name)
