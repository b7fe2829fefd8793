"""`plugin.CertifiedLoss`: the trainer's loss in a loop of one's own."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

import plugin
from newrelax import Method, certify, relaxation
from plugin.process.world import World
from plugin.training.loop import train_step
from plugin.training.losses.certified import certified_loss
from plugin.training.schedule import Values
from tests.plugin.api.tiny import FEATURES, assert_same_weights, network, rows, weights
from tests.plugin.process.test_distributed import in_processes
from tests.support.tiny_runs import tiny_state

SHAPE = (FEATURES,)
X, Y = rows(12)


def loss_of(method: Any = "CROWN-IBP", model: nn.Module | None = None, **more: Any) -> plugin.CertifiedLoss:
    return plugin.CertifiedLoss(network() if model is None else model, method, SHAPE, **more)


def gradients(loss: nn.Module, x: Tensor = X, y: Tensor = Y, eps: Any = 0.05, **shares: float) -> tuple[Tensor, list[Tensor]]:
    """The loss, and its gradients in the weights."""
    terms = loss(x, y, eps, **shares)
    terms.loss.backward()
    found = [parameter.grad.clone() for parameter in loss.parameters() if parameter.grad is not None]
    loss.zero_grad()
    return terms.loss.detach(), found


@pytest.mark.parametrize(("kappa", "beta"), [(1.0, 1.0), (0.0, 1.0), (0.0, 0.0), (0.5, 0.25)], ids=str)
@pytest.mark.parametrize(
    ("method", "loss"),
    [
        ("natural", None),
        ("IBP", None),
        ("CROWN-IBP", None),
        ("CROWN-IBP", "fused"),
        ("CROWN-IBP-R", None),
        ("DeepZ", None),
        ("IBP", "adversarial:steps=2"),
    ],
)
def test_loss_and_gradients_are_those_of_a_step_of_the_trainer(
    method: str, loss: str | None, kappa: float, beta: float
) -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 8), nn.ReLU(), nn.Linear(8, 10))
    state = tiny_state(method, model=model, lr=1e-3, l1=0, **({} if loss is None else {"loss": loss}))
    x, y = state.dataset.train_x[:20], state.dataset.train_y[:20]
    mine = plugin.CertifiedLoss(copy.deepcopy(model), method, state.dataset.input_shape, loss=loss)
    torch.manual_seed(7)
    expected = train_step(state, x, y, Values(0.05, kappa, beta, 1e-3))
    torch.manual_seed(7)
    found, grads = gradients(mine, x, y, kappa=kappa, beta=beta)
    assert found == expected.loss
    for grad, parameter in zip(grads, model.parameters(), strict=True):
        assert torch.equal(grad, parameter.grad)


def test_a_run_in_a_loop_of_ones_own_is_the_trainers_bit_for_bit() -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 8), nn.ReLU(), nn.Linear(8, 10))
    state = tiny_state("CROWN-IBP", model=model, l1=0)
    mine = plugin.CertifiedLoss(copy.deepcopy(model), "CROWN-IBP", state.dataset.input_shape)
    optimizer = torch.optim.Adam(mine.parameters(), lr=1e-3, fused=True)
    for start in (0, 20, 40):
        x, y = state.dataset.train_x[start : start + 20], state.dataset.train_y[start : start + 20]
        train_step(state, x, y, Values(0.05, 0.5, 0.5, 1e-3))
        optimizer.zero_grad()
        mine(x, y, 0.05, kappa=0.5, beta=0.5).loss.backward()
        optimizer.step()
    assert_same_weights(model, mine.model)


def test_by_default_everything_is_certified() -> None:
    terms = loss_of("CROWN-IBP-R")(X, Y, 0.05)
    margins = certify(network(), X, Y, 0.05, "CROWN-IBP-R")
    assert terms.loss.item() == pytest.approx(certified_loss(margins, Y).item(), rel=1e-6)
    assert list(terms.parts) == ["certified"]
    assert terms["certified"].right == (margins > 0).all(1).sum()


def test_natural_training_is_cross_entropy() -> None:
    assert loss_of("natural")(X, Y, 0.05).loss.item() == pytest.approx(F.cross_entropy(network()(X), Y).item(), rel=1e-6)


def test_observe_measures_what_counts_nothing() -> None:
    loss = loss_of("IBP")
    seen = loss(X, Y, 0.05, observe=True)
    assert torch.equal(seen.loss, loss(X, Y, 0.05).loss)
    assert set(seen.parts) == set(loss.terms) == {"natural", "certified"}
    assert seen.crossing.shape == (1,)


@pytest.mark.parametrize(
    "eps",
    [
        pytest.param(torch.linspace(0, 0.1, FEATURES), id="feature"),
        pytest.param(torch.linspace(0, 0.1, len(X)), id="example"),
        pytest.param(torch.linspace(0, 0.1, X.numel()).view_as(X), id="both"),
        pytest.param(torch.tensor(0.05), id="a tensor of one"),
    ],
)
def test_radii_for_each_feature_and_example(eps: Tensor) -> None:
    margins = certify(network(), X, Y, eps, "CROWN-IBP-R", data_range=(-1.0, 2.0))
    found = loss_of("CROWN-IBP-R", data_range=(-1.0, 2.0))(X, Y, eps).loss
    assert found.item() == pytest.approx(certified_loss(margins, Y).item(), rel=1e-6)


def test_ranges_of_each_feature_clip_the_ball() -> None:
    low, high = X.amin(0), X.amax(0)
    margins = certify(network(), X, Y, 0.3, "IBP", data_range=(low, high))
    found = loss_of("IBP", data_range=(low, high))(X, Y, 0.3).loss
    assert found.item() == pytest.approx(certified_loss(margins, Y).item(), rel=1e-6)
    assert found < loss_of("IBP", data_range=None)(X, Y, 0.3).loss


def test_one_logit_decides_by_its_sign() -> None:
    model = network(outputs=1)
    y = (Y > 0).long()
    margins = certify(model, X, y, 0.05, "CROWN-IBP-R")
    found = loss_of("CROWN-IBP-R", model)(X, y, 0.05).loss
    assert found.item() == pytest.approx(F.softplus(-margins).mean().item(), rel=1e-6)


OPTIMISERS: dict[str, Callable[[Any], torch.optim.Optimizer]] = {
    "SGD": lambda p: torch.optim.SGD(p, lr=0.5, momentum=0.9, nesterov=True),
    "AdamW": lambda p: torch.optim.AdamW(p, lr=5e-2),
    "LBFGS": lambda p: torch.optim.LBFGS(p, lr=0.5, max_iter=4),
}


@pytest.mark.parametrize("make", OPTIMISERS.values(), ids=list(OPTIMISERS))
def test_any_optimiser_lowers_the_loss(make: Callable[[Any], torch.optim.Optimizer]) -> None:
    loss = loss_of("CROWN-IBP")
    optimizer = make(loss.parameters())

    def closure() -> Tensor:
        optimizer.zero_grad()
        value = loss(X, Y, 0.03, kappa=0.5).loss
        value.backward()
        return value

    before = closure().item()
    for _ in range(15):
        optimizer.step(closure)
    assert closure().item() < 0.7 * before


def test_autocast_around_it_changes_nothing() -> None:
    expected, grads = gradients(loss_of(), kappa=0.5, beta=0.5)
    loss = loss_of()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert loss.model(X).dtype == torch.bfloat16
        found = loss(X, Y, 0.05, kappa=0.5, beta=0.5).loss
    found.backward()
    assert torch.equal(found, expected)
    assert all(torch.equal(p.grad, grad) for p, grad in zip(loss.parameters(), grads, strict=True))


def test_inputs_of_half_precision_are_taken_in_the_networks() -> None:
    assert torch.equal(loss_of()(X.half(), Y, 0.05).loss, loss_of()(X.half().float(), Y, 0.05).loss)


@pytest.mark.parametrize("method", ["IBP", "CROWN-IBP", "DeepZ"])
def test_in_double_precision_from_the_start_or_later(method: str) -> None:
    early, later = loss_of(method, network(dtype=torch.float64)), loss_of(method).to(torch.float64)
    one, other = gradients(early, X.double()), gradients(later, X.double())
    assert one[0].dtype == torch.float64
    assert torch.equal(one[0], other[0])
    assert all(map(torch.equal, one[1], other[1]))
    assert one[0].item() == pytest.approx(gradients(loss_of(method))[0].item(), rel=1e-5)


def test_a_copy_has_a_network_of_its_own() -> None:
    loss = loss_of("CROWN-IBP", network(nn.BatchNorm1d(8)), loss="fused", data_range=(X.amin(0), X.amax(0))).eval()
    other = copy.deepcopy(loss)
    assert not other.training
    assert torch.equal(loss(X, Y, 0.05).loss, other(X, Y, 0.05).loss)
    with torch.no_grad():
        other.model[0].weight.mul_(2)
    assert not torch.equal(loss(X, Y, 0.05).loss, other(X, Y, 0.05).loss)
    assert torch.equal(loss.model[0].weight * 2, other.model[0].weight)


def test_weight_averaging_of_torch_takes_it() -> None:
    loss = loss_of("IBP")
    averaged = torch.optim.swa_utils.AveragedModel(loss)
    with torch.no_grad():
        loss.model[0].bias.add_(1)
    averaged.update_parameters(loss)
    torch.testing.assert_close(averaged(X, Y, 0.05).loss, loss(X, Y, 0.05).loss)


def test_its_state_is_the_networks() -> None:
    loss, other = loss_of(), loss_of()
    with torch.no_grad():
        loss.model[0].weight.mul_(2)
    other.load_state_dict(loss.state_dict())
    assert set(loss.state_dict()) == {f"model.{name}" for name in loss.model.state_dict()}
    assert torch.equal(loss(X, Y, 0.05).loss, other(X, Y, 0.05).loss)


def test_batch_norm_uses_the_batchs_statistics_in_training_and_its_own_otherwise() -> None:
    model = network(nn.BatchNorm1d(8))
    loss = loss_of("CROWN-IBP-R", model)
    before = weights(model)
    trained = loss(X, Y, 0.05).loss
    assert not torch.equal(before["1.running_mean"], model[1].running_mean)
    mean, variance = (hidden := model[0](X)).mean(0), hidden.var(0, unbiased=False)
    fixed = copy.deepcopy(model)
    fixed[1].running_mean, fixed[1].running_var = mean.detach(), variance.detach()
    expected = certified_loss(certify(fixed, X, Y, 0.05, "CROWN-IBP-R"), Y)
    assert trained.item() == pytest.approx(expected.item(), rel=1e-5)
    loss.eval()
    expected = certified_loss(certify(model, X, Y, 0.05, "CROWN-IBP-R"), Y)
    assert loss(X, Y, 0.05).loss.item() == pytest.approx(expected.item(), rel=1e-5)


def half_each(world: World) -> dict[str, list[Tensor]]:
    """Gradients of each half of the batch, averaged by DDP."""
    refused = "no"
    try:
        loss_of(model=DistributedDataParallel(network()))
    except plugin.UserError as error:
        refused = str(error)
    found = {"refused": [torch.tensor(list(refused.encode()))]}
    part = slice(0, 6) if dist.get_rank() == 0 else slice(6, 12)
    for method in ("IBP", "CROWN-IBP"):
        wrapped = DistributedDataParallel(loss_of(method))
        loss, grads = gradients(wrapped, X[part], Y[part], kappa=0.5, beta=0.5)
        found[method] = [loss, *grads]
    return found


@pytest.mark.skipif(not dist.is_available() or not dist.is_gloo_available(), reason="needs torch.distributed with gloo")
def test_under_ddp_two_halves_are_the_whole_batch(tmp_path: Path) -> None:
    first, second = in_processes(half_each, tmp_path)
    message = bytes(first.pop("refused")[0].tolist()).decode()
    assert message.startswith("expected the network itself, got it wrapped in DistributedDataParallel: wrap CertifiedLoss")
    for method, (loss, *grads) in first.items():
        expected, expected_grads = gradients(loss_of(method), kappa=0.5, beta=0.5)
        assert (loss + second[method][0]).item() / 2 == pytest.approx(expected.item(), rel=1e-6)
        for grad, other, whole in zip(grads, second[method][1:], expected_grads, strict=True):
            assert torch.equal(grad, other)
            torch.testing.assert_close(grad, whole, rtol=1e-5, atol=1e-7)


@relaxation("Shrunk")
def shrunk(lower: Tensor, upper: Tensor) -> tuple[Any, Any, Any, Any]:
    """Not above ReLU."""
    chord = upper / (upper - lower)
    return torch.zeros_like(lower), torch.zeros_like(lower), chord, -0.5 * chord * lower


def test_an_estimate_is_not_called_certified() -> None:
    assert loss_of(Method("Shrunk", relaxation=shrunk, sound=False)).terms == ("natural", "estimated")
    assert loss_of("DeepZ-Cauchy:k=5").terms == ("natural", "estimated")


MADE_WRONGLY: dict[str, tuple[dict[str, Any], str]] = {
    "no input shape": ({"input_shape": ()}, "expected input_shape, the shape of one input"),
    "a number as shape": ({"input_shape": 4}, "expected input_shape, the shape of one input .* got 4"),
    "other features": ({"input_shape": (5,)}, r"the network fails on inputs of shape \(5,\)"),
    "no network": ({"model": lambda x: x}, "expected a torch.nn.Module, got function"),
    "half precision": ({"model": network(dtype=torch.float16)}, "expected a network in float32 or float64"),
    "no logits": ({"model": nn.Unflatten(1, (2, 2))}, r"expected logits \[n, classes\] from the network"),
    "DataParallel": ({"model": nn.DataParallel(network())}, "got it wrapped in DataParallel"),
    "unknown method": ({"method": "CRWN"}, "unknown method 'CRWN'; did you mean CROWN"),
    "no method": ({"method": None}, "expected method as a name or a newrelax.Method, got NoneType"),
    "unsound method": ({"method": Method("Shrunk", relaxation=shrunk)}, "Shrunk is not sound .* sound=False"),
    "unsound under a good name": ({"method": Method("CROWN", relaxation=shrunk)}, "CROWN is not sound"),
    "unknown loss": ({"loss": "fussed"}, "unknown loss 'fussed'; did you mean fused"),
    "parameter of a loss": ({"loss": "adversarial:steps=0"}, "steps: expected at least 1, got 0"),
    "a loss's class": ({"loss": plugin.Loss}, "expected loss as a name such as .* or a plugin.Loss"),
    "no bounds to fuse": ({"method": "IBP", "loss": "fused"}, "IBP has no such row"),
    "a certified loss without bounds": ({"method": "PGD", "loss": "certified"}, "needs bounds, and PGD gives none"),
    "range upside down": ({"data_range": (1, 0)}, "expected data_range with its smallest value first"),
    "range of other features": ({"data_range": (torch.zeros(3), torch.ones(3))}, "expected data_range for features of shape"),
    "unknown engine": ({"engine": "lirpa"}, "unknown engine 'lirpa'"),
}


@pytest.mark.parametrize(("given", "message"), MADE_WRONGLY.values(), ids=list(MADE_WRONGLY))
def test_what_it_cannot_be_made_of_is_one_line(given: dict[str, Any], message: str) -> None:
    arguments = {"model": network(), "method": "CROWN-IBP", "input_shape": SHAPE, **given}
    with pytest.raises(plugin.UserError, match=message) as caught:
        plugin.CertifiedLoss(**arguments)
    assert "\n" not in str(caught.value)


CALLED_WRONGLY: dict[str, tuple[dict[str, Any], str]] = {
    "other features": ({"x": X[:, :3]}, r"expected x of shape \[n, 4\] with n of at least 1, got \(12, 3\)"),
    "one input": ({"x": X[0]}, r"expected x of shape \[n, 4\]"),
    "nothing": ({"x": X[:0], "y": Y[:0]}, r"with n of at least 1, got \(0, 4\)"),
    "bytes": ({"x": (255 * X).byte()}, r"expected x as a floating tensor \[n, 4\], got uint8"),
    "an array": ({"x": X.numpy()}, "expected x as a floating tensor .* got ndarray"),
    "NaN": ({"x": X * torch.nan}, "x holds NaN or infinite values"),
    "outside the range": ({"x": 2 * X}, r"inputs range from .* expected \[0, 1\]"),
    "labels too high": ({"y": Y + 1}, "expected classes from 0 to 2, got 1 to 3"),
    "labels below zero": ({"y": Y - 1}, "expected classes from 0 to 2, got -1 to 1"),
    "fewer labels": ({"y": Y[:5]}, r"expected y as whole numbers \(classes\) of shape \(12,\)"),
    "labels as numbers": ({"y": Y.float()}, "expected y as whole numbers"),
    "labels as a list": ({"y": Y.tolist()}, "expected y as whole numbers .* got list"),
    "negative radius": ({"eps": -0.1}, "expected eps as a number of at least 0"),
    "radius NaN": ({"eps": float("nan")}, "expected eps as a number of at least 0"),
    "radii of other features": ({"eps": torch.ones(5)}, "expected eps as a number, or a tensor of shape"),
    "a negative radius among several": ({"eps": torch.tensor([0.1, 0.1, 0.1, -0.1])}, "eps of finite numbers of at least 0"),
    "kappa": ({"kappa": 2}, r"kappa: expected a number in \[0, 1\], got 2"),
    "kappa of another type": ({"kappa": "all"}, r"kappa: expected a number in \[0, 1\], got 'all'"),
    "beta": ({"beta": float("nan")}, r"beta: expected a number in \[0, 1\], got nan"),
}


@pytest.fixture(scope="module")
def shared() -> plugin.CertifiedLoss:
    return loss_of()


@pytest.mark.parametrize(("given", "message"), CALLED_WRONGLY.values(), ids=list(CALLED_WRONGLY))
def test_what_it_cannot_be_called_with_is_one_line(shared: plugin.CertifiedLoss, given: dict[str, Any], message: str) -> None:
    with pytest.raises(plugin.UserError, match=message) as caught:
        shared(**{"x": X, "y": Y, "eps": 0.05, **given})
    assert "\n" not in str(caught.value)


def test_adversarial_training_refuses_labels_too() -> None:
    with pytest.raises(plugin.UserError, match="expected classes from 0 to 2, got 1 to 3"):
        loss_of("PGD")(X, Y + 1, 0.05)


def test_a_network_that_turned_to_half_precision_is_refused() -> None:
    with pytest.raises(plugin.UserError, match="expected the network in float32 or float64"):
        loss_of().to(torch.bfloat16)(X, Y, 0.05)


@pytest.mark.gpu
def test_numbers_as_radii_never_make_a_gpu_wait() -> None:
    loss = plugin.CertifiedLoss(network().cuda(), "IBP", SHAPE)
    x, y = X.cuda(), Y.cuda()
    loss(x, y, 0.05).loss.backward()
    torch.cuda.set_sync_debug_mode("error")
    try:
        loss(x, y, 0.05, kappa=0.5).loss.backward()
    finally:
        torch.cuda.set_sync_debug_mode("default")
