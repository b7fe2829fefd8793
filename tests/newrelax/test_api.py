"""`newrelax.bounds` and `newrelax.certify`: what they give, what they mean by ε and ranges, what they refuse in one line."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from newrelax import Method, UserError, bounds, certify
from newrelax.bounds import box, specification
from plugin import train
from plugin.evaluate import main as evaluate

SOUND = ["IBP", "CROWN-IBP-R", "CROWN", "DeepZ", "hBox"]


def small(outputs: int = 3, features: int = 4) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(nn.Linear(features, 8), nn.ReLU(), nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, outputs)).double()


def inputs(n: int = 3, features: int = 4) -> Tensor:
    return torch.rand(n, features, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


LABELS = torch.tensor([0, 1, 2])


def sampled(model: nn.Module, lower: Tensor, upper: Tensor) -> Tensor:
    """Outputs at points of the box, [points, batch, outputs]."""
    draws = torch.rand((500, *lower.shape), generator=torch.Generator().manual_seed(2), dtype=lower.dtype)
    draws[:250] = draws[:250].round()
    points = lower + draws * (upper - lower)
    with torch.no_grad():
        return model(points.flatten(0, 1)).unflatten(0, points.shape[:2])


@pytest.mark.parametrize("method", SOUND)
def test_bounds_hold_the_outputs(method: str) -> None:
    model, x = small(), inputs()
    lower, upper = box(x, 0.2, None)
    low, high = bounds(model, lower, upper, method=method)
    seen = sampled(model, lower, upper)
    assert low.shape == high.shape == (3, 3)
    assert (seen.amin(0) >= low - 1e-9).all()
    assert (seen.amax(0) <= high + 1e-9).all()
    gradients = torch.autograd.grad(low.sum() - high.sum(), list(model.parameters()), allow_unused=True)
    assert all(g is None or g.isfinite().all() for g in gradients)
    assert gradients[0] is not None
    assert gradients[0].abs().max() > 0


@pytest.mark.parametrize("method", SOUND)
@pytest.mark.parametrize("own", [False, True], ids=["[rows, outputs]", "[batch, rows, outputs]"])
def test_bounds_of_linear_functions(method: str, own: bool) -> None:
    model, x = small(), inputs()
    matrix = torch.randn(2, 3, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    rows = matrix.expand(3, -1, -1) * torch.tensor([1.0, 2.0, -1.0]).view(3, 1, 1) if own else matrix
    lower, upper = box(x, 0.2, None)
    low, high = bounds(model, lower, upper, rows, method)
    seen = torch.einsum("bro,pbo->pbr", rows if own else matrix.expand(3, -1, -1), sampled(model, lower, upper))
    assert low.shape == (3, 2)
    assert (seen.amin(0) >= low - 1e-9).all()
    assert (seen.amax(0) <= high + 1e-9).all()


@pytest.mark.parametrize("method", SOUND)
def test_certify_is_margins_over_bounds(method: str) -> None:
    model, x = small(), inputs()
    lower, _ = bounds(model, *box(x, 0.1), specification(LABELS, 3, torch.float64), method)
    torch.testing.assert_close(certify(model, x, LABELS, 0.1, method), lower)


def test_bounds_of_images_keep_their_shape() -> None:
    model = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, 3, 1))
    low, high = bounds(model, torch.zeros(2, 1, 5, 5), torch.ones(2, 1, 5, 5))
    assert low.shape == high.shape == (2, 3, 5, 5)
    assert (low <= high).all()


EPS = {
    "an example": (torch.tensor([0.0, 0.1, 0.2]), lambda e, i: e[i]),
    "a feature": (torch.tensor([0.0, 0.1, 0.2, 0.05]), lambda e, i: e),
    "each": (torch.rand(3, 4, generator=torch.Generator().manual_seed(4)) * 0.2, lambda e, i: e[i : i + 1]),
    "both, broadcast": (torch.tensor([[0.0], [0.1], [0.2]]), lambda e, i: e[i : i + 1]),
    "all, as a tensor": (torch.tensor(0.1), lambda e, i: e),
}


@pytest.mark.parametrize("kind", EPS)
def test_radius_for(kind: str) -> None:
    eps, of = EPS[kind]
    model, x = small(), inputs()
    together = certify(model, x, LABELS, eps, "CROWN")
    apart = [certify(model, x[i : i + 1], LABELS[i : i + 1], of(eps, i), "CROWN") for i in range(3)]
    torch.testing.assert_close(together, torch.cat(apart))


def test_data_range_for_each_feature() -> None:
    model, x = small(), inputs() * 10
    low, high = torch.tensor([0.0, 0.0, -5.0, 0.0]), torch.tensor([10.0, 10.0, 10.0, 20.0])
    found = certify(model, x, LABELS, 3.0, "IBP", data_range=(low, high))
    ends = torch.maximum(x - 3, low.double()), torch.minimum(x + 3, high.double())
    torch.testing.assert_close(found, bounds(model, *ends, specification(LABELS, 3, torch.float64), "IBP")[0])
    free = certify(model, x, LABELS, 3.0, "IBP", data_range=None)
    assert (free <= found + 1e-9).all()
    assert (free < found).any()


def refusal(call: Callable[[], object]) -> str:
    with pytest.raises(UserError) as caught:
        call()
    text = str(caught.value)
    assert "\n" not in text
    return text


X, Y, NET = inputs(), LABELS, small()
REFUSED = {
    "eps negative": (lambda: certify(NET, X, Y, -0.1), "eps"),
    "eps NaN": (lambda: certify(NET, X, Y, float("nan")), "eps"),
    "eps infinite in one place": (lambda: certify(NET, X, Y, torch.tensor([0.1, float("inf"), 0.1])), "eps"),
    "eps of another count": (lambda: certify(NET, X, Y, torch.rand(5)), r"\(3,\), \(4,\) or \(3, 4\)"),
    "eps that could be two things": (lambda: certify(NET, inputs(4), [0, 1, 2, 0], torch.rand(4)), "could be"),
    "range reversed": (lambda: certify(NET, X, Y, 0.1, data_range=(1.0, 0.0)), "smallest value first"),
    "range NaN": (lambda: certify(NET, X, Y, 0.1, data_range=(float("nan"), 1.0)), "NaN"),
    "range of three": (lambda: certify(NET, X, Y, 0.1, data_range=(0, 1, 2)), "data_range"),
    "inputs outside": (lambda: certify(NET, X * 255, Y, 0.1), r"inputs range from .* expected \[0, 1\].*data_range"),
    "inputs NaN": (lambda: certify(NET, X * float("nan"), Y, 0.1), "NaN"),
    "inputs of another type": (lambda: certify(NET, X.float(), Y, 0.1), "float64"),
    "inputs as numpy": (lambda: certify(NET, X.numpy(), Y, 0.1), "tensor"),
    "inputs of another shape": (lambda: certify(NET, X[:, :3], Y, 0.1), "torch.export|fails on inputs"),
    "labels −1": (lambda: certify(NET, X, torch.tensor([0, -1, 2]), 0.1), "classes from 0 to 2"),
    "labels too large": (lambda: certify(NET, X, Y + 1, 0.1), "classes from 0 to 2"),
    "labels of another count": (lambda: certify(NET, X, Y[:1], 0.1), "one class for each"),
    "labels in columns": (lambda: certify(NET, X, Y[:, None], 0.1), "one class for each"),
    "labels as floats": (lambda: certify(NET, X, Y.float(), 0.1), "whole numbers"),
    "an estimate": (lambda: certify(NET, X, Y, 0.1, "DeepZ-Cauchy"), "allow_estimates"),
    "an estimate of bounds": (lambda: bounds(NET, X, X, method="hBox-Cauchy"), "allow_estimates"),
    "no method": (lambda: certify(NET, X, Y, 0.1, None), "method"),
    "an unknown method": (lambda: certify(NET, X, Y, 0.1, "CROWNN"), "did you mean CROWN"),
    "an unknown engine": (lambda: certify(NET, X, Y, 0.1, engine="marabou"), "newrelax, auto_LiRPA"),
    "no module": (lambda: certify(torch.relu, X, Y, 0.1), "Module"),
    "half precision": (lambda: certify(small().half(), X.half(), Y, 0.1), "float32 or float64"),
    "a box inside out": (lambda: bounds(NET, X + 1, X), "lower ≤ upper"),
    "boxes of two shapes": (lambda: bounds(NET, X, X[:2]), "one shape"),
    "a specification without rows": (
        lambda: bounds(NET, X, X, torch.rand(0, 3).double()),
        r"with rows, got the shape \(0, 3\)",
    ),
    "a network without values": (
        lambda: bounds(nn.Linear(4, 3, device="meta"), X, X),
        "weight of Linear is on the meta device",
    ),
    "a sparse box": (lambda: bounds(NET, X.to_sparse(), X), r"dense tensor, got one of layout torch.sparse_coo: use .to_dense"),
    "a specification of other outputs": (lambda: bounds(NET, X, X, torch.rand(2, 5).double()), r"\[rows, 3\]"),
    "a specification of whole numbers": (lambda: bounds(NET, X, X, torch.ones(2, 3, dtype=torch.long)), "floating"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused(name: str) -> None:
    call, expected = REFUSED[name]
    assert re.search(expected, refusal(call))


TAKEN = {
    "labels in a list": lambda: certify(NET, X, [0, 1, 2], 0.1),
    "labels of bytes": lambda: certify(NET, X, Y.to(torch.uint8), 0.1),
    "labels of 16 bits": lambda: certify(NET, X, Y.to(torch.int16), 0.1),
    "an estimate that is asked for": lambda: certify(NET, X, Y, 0.1, "DeepZ-Cauchy", allow_estimates=True),
    "a Method": lambda: certify(NET, X, Y, 0.1, Method("Mine", propagation="interval")),  # type: ignore[arg-type]
}


@pytest.mark.parametrize("name", TAKEN)
def test_taken(name: str) -> None:
    assert TAKEN[name]().shape == (3, 2)


def test_no_inputs_no_bounds() -> None:
    assert certify(NET, X[:0], Y[:0], 0.1).shape == (0, 2)
    assert bounds(NET, X[:0], X[:0])[0].shape == (0, 3)


@pytest.mark.parametrize("method", SOUND)
def test_one_logit_decides_by_its_sign(method: str) -> None:
    model, x = small(outputs=1), inputs()
    y = torch.tensor([1, 0, 1])
    found = certify(model, x, y, 0.1, method)
    low, high = bounds(model, *box(x, 0.1), method=method)
    torch.testing.assert_close(found, torch.where(y[:, None] == 1, low, -high))
    assert "classes from 0 to 1" in refusal(lambda: certify(model, x, LABELS, 0.1, method))


@pytest.mark.parametrize("engine", ["newrelax", "auto_LiRPA"])
def test_the_engine_that_ran_is_written_down(engine: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = tmp_path / "run"
    tiny = "--epochs 1 --ramp 1 --warmup 0 --limit-train 40 --limit-test 10 --batch-size 20 --eps 0.02 --model FC --device cpu"
    assert train.main(["--method", "CROWN-IBP-R", "--engine", engine, "--out", str(run), *tiny.split()]) == 0
    assert json.loads((run / "result.json").read_text())["engine"] == engine
    assert ("auto_LiRPA" in capsys.readouterr().out) is (engine == "auto_LiRPA")
    assert evaluate(["--run", str(run), "--json", str(tmp_path / "again.json")]) == 0
    assert json.loads((tmp_path / "again.json").read_text())["engine"] == engine
