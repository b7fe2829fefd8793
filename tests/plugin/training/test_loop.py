"""The loss and the training loop: what a step computes, what callbacks see, what a NaN does."""

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from newrelax.bounds import box, certify
from plugin.callbacks import Callback, EpochInfo, StepInfo
from plugin.certification.attacks import pgd, worst_margin
from plugin.training.capture import CapturedSteps, Rerun
from plugin.training.finite import NonFiniteLoss
from plugin.training.loop import OBSERVE_EVERY, TrainState, l1_penalty, train, train_step
from plugin.training.losses.base import l1_norm
from plugin.training.losses.certified import certified_loss
from plugin.training.schedule import Values
from tests.support.tiny_runs import terms_of, tiny_state

METHODS = ["natural", "PGD", "IBP", "CROWN", "CROWN-IBP", "CROWN-IBP-R", "CROWN-IBP fused"]

STEPS = [
    "natural",
    "PGD",
    "IBP",
    "IBP-Round:omega=0.5,F=10",
    "hBox",
    "DeepZ",
    "DeepZ-Switch",
    "CROWN",
    "CROWN-1-Tria-C",
    "CROWN-Soft",
    "CROWN-IBP",
    "CROWN-IBP fused",
    "CROWN-IBP-R",
    "CROWN-IBP-RandomSlope",
    "hBox-Cauchy:k=3",
    "DeepZ-Cauchy:k=3",
]


class Recorder(Callback):
    def __init__(self) -> None:
        self.calls: list[str] = []
        self.steps: list[StepInfo] = []
        self.epochs: list[EpochInfo] = []

    def on_start(self, state: TrainState) -> None:
        self.calls.append("start")

    def on_step(self, state: TrainState, info: StepInfo) -> None:
        self.calls.append("step")
        self.steps.append(info)
        assert state.step == info.step + 1

    def on_epoch(self, state: TrainState, info: EpochInfo) -> None:
        self.calls.append("epoch")
        self.epochs.append(info)
        assert state.epoch == info.epoch

    def on_trained(self, state: TrainState) -> None:
        self.calls.append("trained")


def batch(state: TrainState, size: int = 20) -> tuple[Tensor, Tensor]:
    return state.dataset.train_x[:size], state.dataset.train_y[:size]


def weights(model: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def test_certified_loss_is_cross_entropy_of_worst_logits() -> None:
    margins = torch.tensor([[1.0, -2.0], [0.5, 3.0]])
    y = torch.tensor([1, 0])
    # True class 1: the margins are to classes 0 and 2; true class 0: to 1 and 2.
    logits = torch.tensor([[-1.0, 0.0, 2.0], [0.0, -0.5, -3.0]])
    assert torch.allclose(certified_loss(margins, y), F.cross_entropy(logits, y))


def test_l1_counts_weights_of_linear_and_convolutional_layers_only() -> None:
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Flatten(), nn.Linear(2, 3))
    expected = model[0].weight.abs().sum() + model[3].weight.abs().sum()
    assert torch.allclose(l1_norm(model), expected)
    assert l1_norm(nn.ReLU()) is None
    assert l1_norm(model.requires_grad_(False)) is None


@pytest.mark.parametrize("kappa", [1.0, 0.3, 0.0])
@pytest.mark.parametrize("method", ["IBP", "CROWN-IBP", "CROWN-IBP-R"])
def test_loss_is_the_papers(method: str, kappa: float) -> None:
    state = tiny_state(method, l1=1e-3)
    x, y = batch(state)
    values = Values(eps=0.03, kappa=kappa, beta=0.25 if method == "CROWN-IBP" else 1.0, lr=1e-3)
    terms = terms_of(state, x, y, values)
    natural = F.cross_entropy(state.model(x), y)
    margins = certify(state.model, x, y, 0.03, "IBP" if method == "IBP" else "CROWN-IBP-R")
    if method == "CROWN-IBP":
        margins = 0.25 * margins + 0.75 * certify(state.model, x, y, 0.03, "IBP")
    expected = kappa * natural + (1 - kappa) * certified_loss(margins, y)
    assert terms.loss.item() == pytest.approx(expected.item(), rel=1e-5)
    assert l1_penalty(state).item() == pytest.approx(1e-3 * l1_norm(state.model).item())
    # What the loss does not need is not computed.
    assert ("certified" not in terms.parts) == (kappa == 1)
    assert ("natural" not in terms.parts) == (kappa == 0)


def test_fused_loss_is_the_papers_with_another_bound() -> None:
    state = tiny_state("CROWN-IBP", loss_fusion=True)
    x, y = batch(state)
    terms = terms_of(state, x, y, Values(eps=0.03, kappa=0.3, beta=0.25, lr=1e-3), observe=True)
    bounds = state.learner.net.cross_entropy(*box(x, 0.03), y, beta=0.25)
    expected = 0.3 * F.cross_entropy(state.model(x), y) + 0.7 * bounds.loss.mean()
    assert terms.loss.item() == pytest.approx(expected.item(), rel=1e-5)
    assert terms.crossing is not None
    proved = (bounds.margins > 0).all(1) | (bounds.loss < math.log(2))
    assert terms["certified"].right == proved.sum()


def test_what_the_fused_loss_counts_as_right_is() -> None:
    state = tiny_state("CROWN-IBP-R", loss_fusion=True, epochs=12, eps=0.02, warmup=2, ramp=2, lr=3e-3)
    train(state)
    x, y = state.dataset.train_x, state.dataset.train_y
    bounds = state.learner.net.cross_entropy(*box(x, 0.005), y)
    proved = bounds.loss < math.log(2)
    assert proved.any()
    assert (worst_margin(state.model(pgd(state.model, x, y, 0.005, steps=20)), y)[proved] > 0).all()


def test_observed_steps_measure_the_natural_loss_at_kappa_zero_without_changing_the_loss() -> None:
    state = tiny_state("IBP")
    x, y = batch(state)
    values = Values(eps=0.03, kappa=0.0, beta=1.0, lr=1e-3)
    plain, observed = terms_of(state, x, y, values), terms_of(state, x, y, values, observe=True)
    assert torch.equal(plain.loss, observed.loss)
    assert "natural" not in plain.parts
    assert plain.crossing is None
    assert not observed["natural"].loss.requires_grad
    assert observed.crossing is not None
    assert observed.crossing.shape == (2,)
    assert ((observed.crossing >= 0) & (observed.crossing <= 1)).all()


def test_batch_norm_always_gets_its_clean_pass() -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 10))
    state = tiny_state("IBP", model=model)
    x, y = batch(state)
    before = model[2].running_mean.clone()
    terms = terms_of(state, x, y, Values(eps=0.03, kappa=0.0, beta=1.0, lr=1e-3))
    assert "natural" in terms.parts
    assert not torch.equal(before, model[2].running_mean)


def test_adversarial_training_meets_points_in_the_box() -> None:
    state = tiny_state("PGD", eps=0.1)
    x, y = batch(state)
    seen: list[Tensor] = []
    hook = state.model.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].detach().clone()))
    terms = terms_of(state, x, y, Values(eps=0.1, kappa=0.0, beta=1.0, lr=1e-3))
    hook.remove()
    lower, upper = box(x, 0.1)
    assert all(((lower <= point) & (point <= upper)).all() for point in seen)
    attacked = seen[-1]  # what the loss is made of is the last pass
    assert (attacked != x).any()
    assert terms.loss.item() == pytest.approx(F.cross_entropy(state.model(attacked), y).item(), rel=1e-6)
    # An attack never lifts the accuracy above the clean one.
    assert terms["pgd"].right <= (state.model(x).argmax(1) == y).sum()


@pytest.mark.parametrize("method", METHODS)
def test_every_method_trains_and_lowers_its_loss(method: str) -> None:
    recorder = Recorder()
    kappa = (1.0, 1.0) if method == "natural" else (0.5, 0.5)
    fusion = method.endswith(" fused")
    state = tiny_state(
        method.removesuffix(" fused"), loss_fusion=fusion, eps=0.02, epochs=12, warmup=0, ramp=1, kappa=kappa, lr=3e-3
    )
    train(state, [recorder])
    losses = [info.means["loss"] for info in recorder.epochs]
    assert losses[-1] < 0.7 * losses[0]
    assert (state.epoch, state.step) == (12, 36)


def test_hooks_come_in_order() -> None:
    recorder = Recorder()
    train(tiny_state("IBP", epochs=2, warmup=0), [recorder])
    assert recorder.calls == ["start", *["step"] * 3, "epoch", *["step"] * 3, "epoch", "trained"]
    assert [info.step for info in recorder.steps] == list(range(6))
    assert [info.epoch for info in recorder.epochs] == [1, 2]
    assert recorder.epochs[-1].means["crossing"] is not None  # however short the epoch


def test_callbacks_see_the_schedule() -> None:
    recorder = Recorder()
    state = tiny_state("CROWN-IBP", eps=0.1, kappa=(1, 0.5), milestones=(3,))
    train(state, [recorder])
    assert [info.values for info in recorder.steps] == [state.schedule.values(step) for step in range(12)]
    assert recorder.steps[-1].values == pytest.approx((0.1, 0.5, 0.0, state.config.lr * 0.1))
    assert state.optimizer.param_groups[0]["lr"] == pytest.approx(state.config.lr * 0.1)


def test_epoch_means_are_means_over_the_images() -> None:
    recorder = Recorder()
    state = tiny_state("IBP", batch_size=25, epochs=1, warmup=0, ramp=0, kappa=(0.5, 0.5), lr=1e-12)
    x, y = state.dataset.train_x, state.dataset.train_y
    train(state, [recorder])
    means = recorder.epochs[0].means
    # With a learning rate of nearly nothing the network is the same all along; 60 = 25 + 25 + 10.
    assert means["natural_loss"] == pytest.approx(F.cross_entropy(state.model(x), y).item(), rel=1e-4)
    margins = certify(state.model, x, y, 0.1, "IBP")
    assert means["certified_loss"] == pytest.approx(certified_loss(margins, y).item(), rel=1e-4)
    assert means["certified_accuracy"] == pytest.approx((margins > 0).all(1).float().mean().item())
    assert len(means["crossing"]) == 2


def test_natural_phase_has_no_certified_figures() -> None:
    recorder = Recorder()
    train(tiny_state("IBP", epochs=1, warmup=1, ramp=0), [recorder])
    record = recorder.epochs[0].record()
    assert record["crossing"] is None
    assert record["certified_loss"] is None
    assert record["certified_accuracy"] is None
    assert record["natural_loss"] is not None


@pytest.mark.parametrize("method", ["natural", "CROWN-IBP-R"])
@pytest.mark.parametrize("pieces", [2, 3, 7])
def test_pieces_of_a_batch_equal_the_whole(method: str, pieces: int) -> None:
    whole = tiny_state(method, l1=1e-4)
    parts = tiny_state(method, l1=1e-4, accumulate=pieces)
    values = Values(eps=0.05, kappa=1.0 if method == "natural" else 0.3, beta=1.0, lr=1e-3)
    a, b = (train_step(state, *batch(state), values) for state in (whole, parts))
    assert a.loss.item() == pytest.approx(b.loss.item(), rel=1e-6)
    assert a.gradient_norm.item() == pytest.approx(b.gradient_norm.item(), rel=1e-5)
    for one, other in zip(whole.model.parameters(), parts.model.parameters(), strict=False):
        assert torch.allclose(one.grad, other.grad, rtol=1e-4, atol=1e-7)


def test_gradient_is_clipped_to_its_limit_and_reported_unclipped() -> None:
    free, clipped = tiny_state("IBP"), tiny_state("IBP", clip_grad=0.01)
    values = Values(eps=0.1, kappa=0.0, beta=1.0, lr=1e-3)
    a, b = (train_step(state, *batch(state), values) for state in (free, clipped))
    assert a.gradient_norm == b.gradient_norm > 0.01
    norm = torch.cat([p.grad.flatten() for p in clipped.model.parameters()]).norm()
    assert norm.item() == pytest.approx(0.01, rel=1e-3)


def test_sgd_step_is_the_gradient_times_the_rate() -> None:
    state = tiny_state("IBP", optimizer="sgd", momentum=0.0)
    before = weights(state.model)
    train_step(state, *batch(state), Values(eps=0.05, kappa=0.5, beta=1.0, lr=0.1))
    for name, parameter in state.model.named_parameters():
        assert torch.allclose(parameter, before[name] - 0.1 * parameter.grad, atol=1e-6)


def test_same_seed_same_weights_other_seed_others() -> None:
    def final(seed: int) -> Tensor:
        state = tiny_state("PGD", epochs=1, seed=seed)
        train(state)
        return torch.cat([p.detach().flatten() for p in state.model.parameters()])

    first = final(1)
    assert torch.equal(first, final(1))
    assert not torch.equal(first, final(2))


class HostReads(TorchDispatchMode):
    """Notes the operators whose result the host has to wait for: a number, or a size that depends on the data."""

    WAITING = {"_local_scalar_dense", "nonzero", "masked_select", "equal", "_unique2", "unique_dim"}

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = function.overloadpacket.__name__
        by_mask = name.startswith("index") and any(t.dtype == torch.bool for t in tree_leaves(args[1]) if t is not None)
        if name in self.WAITING or by_mask:
            self.found.append(name)
        return function(*args, **(kwargs or {}))


def test_host_reads_are_seen() -> None:
    x = torch.rand(4)
    with HostReads() as reads:
        x.sum().item(), bool(x.any()), x[x > 0.5], x.nonzero()
    assert reads.found == ["_local_scalar_dense", "_local_scalar_dense", "index", "nonzero"]


def step_of(method: str, **options: object) -> tuple[TrainState, Values]:
    """A run with a method of STEPS, and what its step trains with."""
    name, *fused = method.split()
    kappa = 1.0 if name == "natural" else 0.5
    state = tiny_state(name, eps=0.05, loss_fusion=bool(fused), kappa=(kappa, kappa), **options)
    return state, Values(eps=0.05, kappa=kappa, beta=0.5, lr=1e-3)


@pytest.mark.parametrize("captured", [False, True], ids=["as it is", "captured"])
@pytest.mark.parametrize("method", STEPS)
def test_no_step_waits_for_the_device(method: str, captured: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    # The CPU's guard asks every step, so it is told to ask as rarely as a GPU's.
    state, values = step_of(method)
    if captured:
        state.captured = CapturedSteps(20, state.device, Rerun())
    x, y = batch(state)
    train_step(state, x, y, values)  # what is done once may ask
    state.step = state.epoch_step = OBSERVE_EVERY
    for name in ("cpu", "numpy", "tolist"):  # no operators where the tensor is on the host already
        monkeypatch.setattr(Tensor, name, lambda *_: pytest.fail("copies to the host"))
    with HostReads() as reads:
        train_step(state, x, y, values)
    assert reads.found == []


@pytest.mark.gpu
@pytest.mark.parametrize("method", STEPS)
def test_no_step_waits_for_the_gpu(method: str) -> None:
    state, values = step_of(method, device="cuda")
    x, y = batch(state)
    train_step(state, x, y, values)
    torch.cuda.set_sync_debug_mode("error")
    try:
        train_step(state, x, y, values)
    finally:
        torch.cuda.set_sync_debug_mode("default")


def test_bad_weights_are_named() -> None:
    state = tiny_state("IBP", epochs=1)
    with torch.no_grad():
        state.model.layers[4].weight[0, 0] = math.nan
    with pytest.raises(NonFiniteLoss, match=r"^step 0 \(epoch 1\): .*first offending layer: layers\.4\.weight: the weights"):
        train(state)


def test_bad_activation_is_named() -> None:
    state = tiny_state("natural", epochs=1)
    with torch.no_grad():
        state.model.layers[4].weight.fill_(3e38)  # finite, but their sums are not
        state.model.layers[4].bias.fill_(3e38)
    with pytest.raises(NonFiniteLoss, match=r"first offending layer: layers\.4 \(Linear\): its output on the clean batch"):
        train(state)


def test_bad_bound_is_named() -> None:
    state = tiny_state("IBP", epochs=1, warmup=0, ramp=0, eps=1.0, kappa=(0, 0))
    with torch.no_grad():  # opposite weights: clean sums cancel, intervals do not
        state.model.layers[4].weight.fill_(2e38)
        state.model.layers[4].weight[:, ::2] = -2e38
        state.model.layers[1].weight.fill_(1e-3)
        state.model.layers[1].bias.zero_()
        state.dataset.train_x.mul_(0)
    with pytest.raises(NonFiniteLoss, match=r"first offending layer: ReLU layers\.5: the bounds that enter it"):
        train(state)


def test_no_update_from_the_bad_step_on() -> None:
    state = tiny_state("natural")
    x, y = batch(state)
    values = Values(eps=0.1, kappa=1.0, beta=1.0, lr=1e-2)
    train_step(state, x, y, values)
    good = weights(state.model)
    moments = [entry["exp_avg"].clone() for entry in state.optimizer.state.values()]
    state.step = 1
    train_step(state, x * math.nan, y, values)
    state.step = 2
    train_step(state, x, y, values)  # a GPU's host may come to know of it only later
    assert all(torch.equal(tensor, good[name]) for name, tensor in state.model.state_dict().items())
    assert all(torch.equal(a, b["exp_avg"]) for a, b in zip(moments, state.optimizer.state.values(), strict=False))
    bad = replace(state.guard._recent[-1], number=1, x=x * math.nan)
    state.guard._recent.append(bad)
    with pytest.raises(NonFiniteLoss, match=r"step 1 .*: the input itself"):
        state.check_finite()
