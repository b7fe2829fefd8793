"""Certified margins: against the authors' figures, auto_LiRPA's own passes, sampled points and finite differences."""

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
from newrelax.lirpa import bridge as lirpa
from newrelax.methods.method import Method
from newrelax.registry import Registry
from newrelax.relaxations.base import relaxation
from plugin.models import build as models
from tests.support.nets import NETS, batch, make

REGISTRY = Registry.load()
BOUNDING = [name for name, method in REGISTRY.items() if method.propagation.name not in ("none", "attack")]
ESTIMATES = [name for name in BOUNDING if not REGISTRY[name].sound]
SOUND = [name for name in BOUNDING if REGISTRY[name].sound]
EPS = 0.05


def bounded(net, method, **options):
    return BoundedNetwork(net, (3, 8, 8), REGISTRY.get_method(method), **options)


@pytest.mark.parametrize("name", [name for name in SOUND if name != "CROWN-IBP-RandomSlope"])  # which only training knows
@pytest.mark.parametrize("net", NETS)
def test_equals_plain_auto_lirpa(net, name):
    """Bounds, layer bounds and gradients of the fast passes are those of `compute_bounds`."""
    x, y = batch()
    results = []
    for engine in ENGINES:
        model = make(net)
        if engine == "auto_LiRPA" and net == "residual" and REGISTRY[name].propagation.name == "hybrid" and lirpa.IS_03:
            pytest.skip("auto_LiRPA 0.3 has no forward mode for batch norm")
        found = bounded(model, name, engine=engine).bounds(*box(x, EPS), y)
        weight = torch.linspace(0.5, 1.5, found.margins.numel(), dtype=x.dtype).view_as(found.margins)
        (found.margins * weight).sum().backward()
        results.append((found, [p.grad for p in model.parameters()]))
    (fast, fast_grad), (plain, plain_grad) = results
    torch.testing.assert_close(fast.margins, plain.margins, rtol=1e-9, atol=1e-9)
    for (low, high), (plain_low, plain_high) in zip(fast.layers, plain.layers, strict=True):
        torch.testing.assert_close(low.flatten(1), plain_low.flatten(1), rtol=1e-9, atol=1e-9)
        torch.testing.assert_close(high.flatten(1), plain_high.flatten(1), rtol=1e-9, atol=1e-9)
    for a, b in zip(fast_grad, plain_grad, strict=True):
        torch.testing.assert_close(a, torch.zeros_like(a) if b is None else b, rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize("name", SOUND)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["float32", "float64"])
@pytest.mark.parametrize("eps", [0.01, 0.1, 1.0])
def test_no_sampled_point_beats_the_bound(name, dtype, eps):
    x, y = batch(4, dtype)
    for net in ("odd strides", "residual"):
        model = make(net, dtype)
        lower, upper = box(x, eps)
        margins = bounded(model, name).bounds(lower, upper, y).margins
        generator = torch.Generator().manual_seed(0)
        corners = torch.rand((200, *x.shape), generator=generator, dtype=dtype).round()
        inside = torch.rand((200, *x.shape), generator=generator, dtype=dtype)
        for at in (corners, inside):
            points = lower + at * (upper - lower)
            logits = model(points.flatten(0, 1)).view(200, len(x), -1)
            true = logits.gather(2, y.view(1, -1, 1).expand(200, -1, 1))
            others = torch.stack([logits[:, i, [j for j in range(5) if j != y[i]]] for i in range(len(x))], 1)
            slack = 1e-4 if dtype is torch.float32 else 1e-10
            assert ((true - others).amin(0) >= margins - slack * (1 + margins.abs())).all()


@pytest.mark.parametrize("name", SOUND)
def test_gradient_equals_finite_differences(name):
    """In float64, along a random direction of all weights, away from jumps (none lies within the step here)."""
    model, (x, y) = make("odd strides", seed=3), batch(2)
    net = bounded(model, name)
    parameters = list(model.parameters())
    generator = torch.Generator().manual_seed(5)
    direction = [torch.randn(p.shape, generator=generator, dtype=p.dtype) for p in parameters]

    def value(t):
        with torch.no_grad():
            for p, d in zip(parameters, direction, strict=True):
                p.add_(d, alpha=t)
            result = net.bounds(*box(x, EPS), y).margins.sum()
            for p, d in zip(parameters, direction, strict=True):
                p.sub_(d, alpha=t)
        return result.item()

    net.bounds(*box(x, EPS), y).margins.sum().backward()
    slope = sum((p.grad * d).sum().item() for p, d in zip(parameters, direction, strict=True) if p.grad is not None)
    h = 1e-7
    assert (value(h) - value(-h)) / (2 * h) == pytest.approx(slope, rel=1e-4, abs=1e-5)


@pytest.mark.parametrize("name", ["CROWN", "DeepZ", "hBox", "CROWN-0-C"])
def test_chunks_change_nothing(name):
    """A small memory cuts the coefficients into pieces; bounds and gradients stay."""
    x, y = batch()
    results = []
    for memory in (1 << 28, 1 << 14):
        model = make("odd strides")
        margins = bounded(model, name, memory=memory).bounds(*box(x, EPS), y).margins
        margins.sum().backward()
        results.append([margins.detach(), *(p.grad for p in model.parameters())])
    for whole, pieces in zip(*results, strict=True):
        torch.testing.assert_close(whole, pieces, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("name", ["IBP", "CROWN", "DeepZ", "CROWN-IBP-R"])
def test_max_pooling(name):
    model, (x, y) = make("max pool"), batch()
    margins = certify(model, x, y, EPS, name)
    assert margins.shape == (3, 4)
    assert margins.isfinite().all()
    logits = model(x)
    true = logits.gather(1, y.unsqueeze(1))
    others = torch.stack([logits[i, [j for j in range(5) if j != y[i]]] for i in range(3)])
    assert (true - others >= margins).all()


@pytest.mark.parametrize("name", ESTIMATES)
def test_estimates_come_close_with_many_projections(name):
    """With k = 20,000 the Cauchy estimate of a zonotope radius is within a few per cent."""
    exact_name = {"DeepZ-Cauchy": "DeepZ", "hBox-Cauchy": "hBox"}[name]
    model, (x, y) = make("mlp"), batch()
    torch.manual_seed(0)
    estimate = bounded(model, f"{name}:k=20000").bounds(*box(x, EPS), y).margins
    exact = bounded(model, exact_name).bounds(*box(x, EPS), y).margins
    assert (estimate - exact).abs().max() < 0.05 * exact.abs().max()
    assert not REGISTRY[name].sound


def test_mixing_is_of_logits():
    model, (x, y) = make("residual"), batch()
    net = bounded(model, "CROWN-IBP")
    ends = [net.bounds(*box(x, EPS), y, beta=b).margins for b in (0.0, 1.0)]
    torch.testing.assert_close(ends[0], certify(model, x, y, EPS, "IBP"))
    torch.testing.assert_close(ends[1], certify(model, x, y, EPS, "CROWN-IBP-R"))
    mixed = net.bounds(*box(x, EPS), y, beta=0.3).margins
    torch.testing.assert_close(mixed, 0.7 * ends[0] + 0.3 * ends[1])


def test_random_slopes_train_and_move():
    model, (x, y) = make("residual").train(), batch(8)
    net = bounded(model, "CROWN-IBP-RandomSlope")
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
    net = bounded(model, "CROWN-IBP-R")
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
        bounded(Deceptive(turns), "IBP")


def test_tracing_leaves_the_model_alone():
    model = make("residual").train()
    before = {k: v.clone() for k, v in model.state_dict().items()}
    bounded(model, "CROWN")
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
    net = bounded(model, "CROWN-IBP-R")
    assert places() == before
    with torch.no_grad():
        for tensor in (*model.parameters(), *(b for b in model.buffers() if b.is_floating_point())):
            tensor.mul_(0.5)
    expected = bounded(model.eval(), "CROWN-IBP-R").bounds(*box(x, EPS), y).margins
    torch.testing.assert_close(net.bounds(*box(x, EPS), y).margins, expected)


def test_weights_that_are_computed_follow_their_parameters():
    """Made anew for each bound, with gradients."""
    x, y = batch()
    model = nn.Sequential(nn.Flatten(), nn.Linear(192, 9), nn.ReLU(), nn.Linear(9, 5)).double()
    nn.utils.parametrize.register_parametrization(model[1], "weight", nn.Softplus())
    net = bounded(model, "CROWN-IBP-R")
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
    expected = bounded(plain, "CROWN-IBP-R").bounds(*box(x, EPS), y).margins
    expected.sum().backward()
    torch.testing.assert_close(margins, expected)
    torch.testing.assert_close(raw.grad, plain[1].weight.grad * torch.sigmoid(raw.detach()))


@pytest.mark.parametrize("engine", ENGINES)
def test_bounds_follow_weights_that_layers_share(engine):
    first, x, y = nn.Linear(192, 192), *batch(4)
    second = nn.Linear(192, 192)
    second.weight = first.weight
    model = nn.Sequential(nn.Flatten(), first, nn.ReLU(), second, nn.ReLU(), nn.Linear(192, 5)).double()
    net = bounded(model, "CROWN-IBP-R", engine=engine)
    with torch.no_grad():
        first.weight.mul_(0.5)
    expected = bounded(model, "CROWN-IBP-R").bounds(*box(x, EPS), y).margins
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
# Relaxations that jump at u = 0 give one of two bounds there, as the processor rounds; so ε may differ by a few of its own roundings.
NEAR = (1.0, 1 - 2**-23, 1 + 2**-23, 1 + 2**-21)
AT_A_JUMP = {("CONV", "crownibp1to1", "0.3", "hBox-Diag-C"): [1]}


@pytest.fixture(scope="session")
def reference_model(reference_dir, mnist):
    """(NET, WEIGHTS) → the published network."""

    @functools.cache
    def load(net, weights):
        model = models.build(net, mnist.input_shape, 10, mnist.mean, mnist.std)
        models.load_weights(model, reference_dir / f"mnist_{net}_{weights}.pt")
        return model.eval()

    return load


@pytest.mark.parametrize("name", sorted({*SOUND} - {"DeepZ-Diag-C", "CROWN-IBP", "CROWN-IBP-RandomSlope"}))
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
        for share in NEAR:
            if off[keep].max() >= 1e-3:
                with torch.no_grad():
                    found = certify(reference_model(net, weights), x, y, share * float(eps), spec)
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
    nets = [BoundedNetwork(make("odd strides"), (3, 8, 8), method, engine=engine) for engine in ENGINES]
    margins = [net.bounds(*box(x, EPS), y).margins for net in nets]
    torch.testing.assert_close(*margins, rtol=1e-9, atol=1e-9)


def test_who_says_chord_gives_chords():
    said = {name for name, method in REGISTRY.items() if method.relaxation is not None and method.relaxation.chord}
    assert said == {name for name in BOUNDING if name.startswith("CROWN") and "Tria" not in name}
    assert all(find_inconsistency(REGISTRY[name].relaxation) is None for name in said)
    assert "not the chord" in find_inconsistency(replace(blunt, chord=True))


@pytest.mark.parametrize("name", ["IBP", "CROWN-IBP", "CROWN", "DeepZ"])
def test_a_network_may_end_with_relu(name):
    x, y = batch()
    margins = certify(nn.Sequential(make("odd strides"), nn.ReLU()), x, y, EPS, name)
    assert margins.isfinite().all()
