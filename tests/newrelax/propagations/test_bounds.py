"""Certified margins: against the authors' figures, sampled points and finite differences.

Against auto_LiRPA's own passes: `tests/newrelax/lirpa/test_lirpa_engine.py`.
"""

from __future__ import annotations

import functools
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from newrelax.bounds import ENGINES, BoundedNetwork, box, certify, worst_logits
from newrelax.checks.properties import find_inconsistency
from newrelax.errors import UserError
from newrelax.methods.method import Method
from newrelax.registry import Registry
from newrelax.relaxations.base import relaxation
from plugin.models.build import build
from plugin.models.weights import load_weights
from tests.support.nets import SHAPE, batch, bounded, make, traced, under

REGISTRY = Registry.load()
BOUNDING = [name for name, method in REGISTRY.items() if method.propagation.name not in ("none", "attack")]
ESTIMATES = [name for name in BOUNDING if not REGISTRY[name].sound]
SOUND = [name for name in BOUNDING if REGISTRY[name].sound]
EPS = 0.05


def bounding(model, method, **options):
    """A network that is traced here, because its weights or its mode change, or tracing is what is tested."""
    return BoundedNetwork(model, SHAPE, REGISTRY.get_method(method), **options)


@functools.cache
def least_margins(net, dtype, eps):
    """The smallest margins met at 200 corners and 200 points inside, [batch, classes − 1]."""
    x, y = batch(4, dtype)
    lower, upper = box(x, eps)
    generator = torch.Generator().manual_seed(0)
    corners = torch.rand((200, *x.shape), generator=generator, dtype=dtype).round()
    inside = torch.rand((200, *x.shape), generator=generator, dtype=dtype)
    points = lower + torch.cat([corners, inside]) * (upper - lower)
    with torch.no_grad():
        logits = traced(net, dtype).model(points.flatten(0, 1)).unflatten(0, points.shape[:2])
    true = logits.gather(2, y.view(1, -1, 1).expand(len(logits), -1, 1))
    others = torch.stack([logits[:, i, [j for j in range(5) if j != y[i]]] for i in range(len(x))], 1)
    return (true - others).amin(0)


@pytest.mark.parametrize("name", SOUND)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["float32", "float64"])
@pytest.mark.parametrize("eps", [0.01, 0.1, 1.0])
def test_no_sampled_point_beats_the_bound(name, dtype, eps):
    x, y = batch(4, dtype)
    slack = 1e-4 if dtype is torch.float32 else 1e-10
    for net in ("odd strides", "residual"):
        margins = bounded(net, REGISTRY[name], dtype).bounds(*box(x, eps), y).margins
        assert (least_margins(net, dtype, eps) >= margins - slack * (1 + margins.abs())).all()


# α-CROWN takes the slopes that it has found as constants
@pytest.mark.parametrize("name", [name for name in SOUND if name != "alpha-CROWN"])
def test_gradient_equals_finite_differences(name):
    """In float64, along a random direction of all weights, away from jumps (none lies within the step here)."""
    net, (x, y) = bounded("odd strides", REGISTRY[name], seed=3), batch(2)
    parameters = list(net.model.parameters())
    generator = torch.Generator().manual_seed(5)
    direction = [torch.randn(p.shape, generator=generator, dtype=p.dtype) for p in parameters]

    @torch.no_grad()
    def value(t):
        before = [p.clone() for p in parameters]
        for p, d in zip(parameters, direction, strict=True):
            p.add_(d, alpha=t)
        result = net.bounds(*box(x, EPS), y).margins.sum()
        for p, old in zip(parameters, before, strict=True):
            p.copy_(old)
        return result.item()

    margins = net.bounds(*box(x, EPS), y).margins
    gradients = torch.autograd.grad(margins.sum(), parameters, materialize_grads=True)
    slope = sum((g * d).sum().item() for g, d in zip(gradients, direction, strict=True))
    h = 1e-7
    assert (value(h) - value(-h)) / (2 * h) == pytest.approx(slope, rel=1e-4, abs=1e-5)


@pytest.mark.parametrize("net", ["odd strides", "mlp"])
@pytest.mark.parametrize("name", ["CROWN", "DeepZ", "hBox", "CROWN-0-C"])
def test_chunks_change_nothing(name, net):
    """A small memory cuts the coefficients into pieces; bounds and gradients stay."""
    x, y = batch()
    results = []
    for memory in (1 << 28, 1 << 14):
        found = bounded(net, REGISTRY[name], memory=memory)
        margins = found.bounds(*box(x, EPS), y).margins
        gradients = torch.autograd.grad(margins.sum(), list(found.model.parameters()), materialize_grads=True)
        results.append([margins.detach(), *gradients])
    for whole, pieces in zip(*results, strict=True):
        torch.testing.assert_close(whole, pieces, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("name", ["IBP", "CROWN", "DeepZ", "CROWN-IBP-R"])
def test_max_pooling(name):
    net, (x, y) = bounded("max pool", REGISTRY[name]), batch()
    margins = net.bounds(*box(x, EPS), y).margins
    assert margins.shape == (3, 4)
    assert margins.isfinite().all()
    logits = net(x)
    true = logits.gather(1, y.unsqueeze(1))
    others = torch.stack([logits[i, [j for j in range(5) if j != y[i]]] for i in range(3)])
    assert (true - others >= margins).all()


@pytest.mark.parametrize("name", ESTIMATES)
def test_estimates_come_close_with_many_projections(name):
    """With k = 20,000 the Cauchy estimate of a zonotope radius is within a few per cent."""
    exact_name = {"DeepZ-Cauchy": "DeepZ", "hBox-Cauchy": "hBox"}[name]
    x, y = batch()
    torch.manual_seed(0)
    estimate = bounded("mlp", REGISTRY.get_method(f"{name}:k=20000")).bounds(*box(x, EPS), y).margins
    exact = bounded("mlp", REGISTRY[exact_name]).bounds(*box(x, EPS), y).margins
    assert (estimate - exact).abs().max() < 0.05 * exact.abs().max()
    assert not REGISTRY[name].sound


def test_mixing_is_of_logits():
    x, y = batch()
    net = bounded("residual", REGISTRY["CROWN-IBP"])
    ends = [net.bounds(*box(x, EPS), y, beta=b).margins for b in (0.0, 1.0)]
    for end, name in zip(ends, ("IBP", "CROWN-IBP-R"), strict=True):
        torch.testing.assert_close(end, bounded("residual", REGISTRY[name]).bounds(*box(x, EPS), y).margins)
    mixed = net.bounds(*box(x, EPS), y, beta=0.3).margins
    torch.testing.assert_close(mixed, 0.7 * ends[0] + 0.3 * ends[1])


def test_random_slopes_train_and_move():
    model, (x, y) = make("residual").train(), batch(8)
    net = bounding(model, "CROWN-IBP-RandomSlope")
    net(x)
    torch.manual_seed(0)
    first = net.bounds(*box(x, EPS), y).margins
    second = net.bounds(*box(x, EPS), y).margins
    assert not torch.equal(first, second)
    first.sum().backward()
    assert all(p.grad is not None for p in model.parameters())


def test_batch_norm_in_training_uses_the_clean_batch():
    """eps = 0 gives the clean training-mode margins, and the running statistics move as torch moves them."""
    x, y = batch(6)
    model, reference = make("residual").train(), make("residual").train()
    net = bounding(model, "CROWN-IBP-R")
    clean, expected = net.observe(x), reference(x)
    torch.testing.assert_close(clean.logits, expected)
    for mine, theirs in zip(model.state_dict().values(), reference.state_dict().values(), strict=True):
        torch.testing.assert_close(mine, theirs)
    margins = net.bounds(x, x, y, statistics=clean.statistics).margins
    torch.testing.assert_close(worst_logits(margins, y), expected - expected.gather(1, y.unsqueeze(1)), atol=1e-9, rtol=0)


class Deceptive(nn.Module):
    """Computes one thing while it is traced and another afterwards, or takes turns."""

    def __init__(self, turns):
        super().__init__()
        self.out = nn.Linear(3 * 64, 5)
        self.turns, self.calls = turns, 0

    def forward(self, x):
        self.calls += 1
        z = self.out(x.flatten(1))
        return -z if (self.calls % 2 if self.turns else torch.compiler.is_exporting()) else z


@pytest.mark.parametrize(("turns", "message"), [(False, "other outputs than the model"), (True, "two answers to one question")])
def test_a_graph_that_is_another_function_is_refused(turns, message):
    with pytest.raises(UserError, match=message):
        bounding(Deceptive(turns), "IBP")


def test_tracing_leaves_the_model_alone():
    model = make("residual").train()
    before = {k: v.clone() for k, v in model.state_dict().items()}
    bounding(model, "CROWN")
    assert model.training
    assert all(torch.equal(before[k], v) for k, v in model.state_dict().items())


def test_tracing_leaves_tensors_where_they_are():
    """Captured steps and networks traced before rely on the places of weights, gradients and buffers."""
    model, (x, y) = make("residual").train(), batch()
    model(x).sum().backward()

    def places():
        tensors = [*model.parameters(), *(p.grad for p in model.parameters()), *model.buffers()]
        return [(id(tensor), tensor.data_ptr()) for tensor in tensors]

    before = places()
    net = bounding(model, "CROWN-IBP-R")
    assert places() == before
    with torch.no_grad():
        for tensor in (*model.parameters(), *(b for b in model.buffers() if b.is_floating_point())):
            tensor.mul_(0.5)
    expected = bounding(model.eval(), "CROWN-IBP-R").bounds(*box(x, EPS), y).margins
    torch.testing.assert_close(net.bounds(*box(x, EPS), y).margins, expected)


def test_weights_that_are_computed_follow_their_parameters():
    """Made anew for each bound, with gradients."""
    x, y = batch()
    model = nn.Sequential(nn.Flatten(), nn.Linear(192, 9), nn.ReLU(), nn.Linear(9, 5)).double()
    nn.utils.parametrize.register_parametrization(model[1], "weight", nn.Softplus())
    net = bounding(model, "CROWN-IBP-R")
    raw = model[1].parametrizations.weight.original
    with torch.no_grad():
        raw.mul_(0.5)
    margins = net.bounds(*box(x, EPS), y).margins
    margins.sum().backward()
    plain = nn.Sequential(nn.Flatten(), nn.Linear(192, 9), nn.ReLU(), nn.Linear(9, 5)).double()
    with torch.no_grad():
        for layer, like in ((1, model[1]), (3, model[3])):
            plain[layer].weight.copy_(like.weight)
            plain[layer].bias.copy_(like.bias)
    expected = bounding(plain, "CROWN-IBP-R").bounds(*box(x, EPS), y).margins
    expected.sum().backward()
    torch.testing.assert_close(margins, expected)
    torch.testing.assert_close(raw.grad, plain[1].weight.grad * torch.sigmoid(raw.detach()))


@pytest.mark.parametrize("engine", ENGINES)
def test_bounds_follow_weights_that_layers_share(engine):
    first, x, y = nn.Linear(192, 192), *batch(4)
    second = nn.Linear(192, 192)
    second.weight = first.weight
    model = nn.Sequential(nn.Flatten(), first, nn.ReLU(), second, nn.ReLU(), nn.Linear(192, 5)).double()
    net = bounding(model, "CROWN-IBP-R", engine=engine)
    with torch.no_grad():
        first.weight.mul_(0.5)
    expected = bounding(model, "CROWN-IBP-R").bounds(*box(x, EPS), y).margins
    torch.testing.assert_close(net.bounds(*box(x, EPS), y).margins, expected)


@pytest.mark.parametrize(
    ("spec", "message"),
    [("CROWNN", "unknown method"), ("CROWN-0:gamma=1", "no parameter"), ("natural", "gives no bounds")],
)
def test_errors(spec, message):
    x, y = batch()
    with pytest.raises(UserError, match=message):
        certify(make("mlp"), x, y, EPS, spec)


# A neuron of the CONV network (image 1, channel 11, row 1, column 5) has its upper bound at 3e-8, which the authors'
# float32 arithmetic rounds to exactly 0; their hBox-Diag-C has no case for u = 0, so that image is left out there.
# Relaxations that jump at u = 0 give one of two bounds there, as the processor rounds; so ε may differ by a few of its own
# roundings.
NEAR = (1.0, 1 - 2**-23, 1 + 2**-23, 1 + 2**-21)
AT_A_JUMP = {("CONV", "crownibp1to1", "0.3", "hBox-Diag-C"): [1]}


@pytest.fixture(scope="session")
def reference_model(reference_dir, mnist):
    """(NET, WEIGHTS) → the published network, traced once."""

    @functools.cache
    def load(net, weights):
        model = build(net, mnist.input_shape, 10, mnist.mean, mnist.std)
        load_weights(model, reference_dir / f"mnist_{net}_{weights}.pt")
        return BoundedNetwork(model.eval(), mnist.input_shape, REGISTRY["IBP"])

    return load


NOT_THE_AUTHORS = {"DeepZ-Diag-C", "CROWN-IBP", "CROWN-IBP-RandomSlope", "alpha-CROWN"}


@pytest.mark.parametrize("name", sorted({*SOUND} - NOT_THE_AUTHORS))
def test_authors_bounds(name, expected_bounds, reference_model, mnist):
    """`expected_bounds.npz` to 1e-3, absolute, or relative where margins are large."""
    checked = 0
    for key in expected_bounds:
        parts = key.split("|")
        if len(parts) != 4 or parts[3].split(":")[0] != name:
            continue
        net, weights, eps, spec = parts
        expected = torch.from_numpy(np.asarray(expected_bounds[key]))
        keep = [i for i in range(len(expected)) if i not in AT_A_JUMP.get((net, weights, eps, spec), [])]
        x, y = mnist.test_x[: len(expected)], mnist.test_y[: len(expected)]
        scale = expected.abs().amax(1, keepdim=True).clamp(min=1)
        off = torch.full(expected.shape[:1], torch.inf)
        bounded_network = under(reference_model(net, weights), REGISTRY.get_method(spec))
        for share in NEAR:
            if off[keep].max() >= 1e-3:
                with torch.no_grad():
                    found = bounded_network.bounds(*box(x, share * float(eps)), y).margins
                off = torch.minimum(off, ((found - expected).abs() / scale).amax(1))
        assert off[keep].max() < 1e-3, key
        checked += 1
    assert checked == 5


@relaxation("Blunt")
def blunt(lower, upper):
    """A sound upper line that is the chord for narrow intervals only."""
    slope = upper / (upper - lower)
    wide = upper - lower > 0.5
    return 0.0, 0.0, torch.where(wide, 0.0, slope), torch.where(wide, upper, -lower * slope)


def test_no_upper_line_is_taken_for_a_chord_that_does_not_say_so():
    x, y = batch()
    method = Method("Blunt-IBP", propagation="ibp+backward", relaxation=blunt)
    margins = [bounded("odd strides", method, engine=engine).bounds(*box(x, EPS), y).margins for engine in ENGINES]
    torch.testing.assert_close(*margins, rtol=1e-9, atol=1e-9)


def test_who_says_chord_gives_chords():
    said = {name for name, method in REGISTRY.items() if method.relaxation is not None and method.relaxation.chord}
    assert said == {name for name in BOUNDING if "CROWN" in name and "Tria" not in name}
    assert all(find_inconsistency(REGISTRY[name].relaxation) is None for name in said)
    assert "not the chord" in find_inconsistency(replace(blunt, chord=True))


@pytest.mark.parametrize("name", ["IBP", "CROWN-IBP", "CROWN", "DeepZ"])
def test_a_network_may_end_with_relu(name):
    x, y = batch()
    margins = certify(nn.Sequential(make("odd strides"), nn.ReLU()), x, y, EPS, name)
    assert margins.isfinite().all()
