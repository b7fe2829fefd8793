"""The benchmarks: their tables, their files, comparison with an earlier run. No time is asserted."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from experiments import bench, bench_gpu, bench_size, bench_step
from experiments.bench_gpu import NETWORKS
from experiments.bench_step import Case, Cost, cost, make_step, training_state
from newrelax.errors import UserError
from plugin.training.loop import train_step

TINY = ["--model", "CONV", "--shape", "digits", "--batch-size", "4", "--repeat", "2", "--device", "cpu"]
CPU = torch.device("cpu")
CASE = Case("CROWN-IBP", "CONV", "digits", 4, 0.1)


def rows(text: str) -> list[list[str]]:
    """The cells of a Markdown table, its head first."""
    lines = [line for line in text.splitlines() if line.startswith("|") and not line.startswith("|---")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def test_writes_a_table_and_compares_with_an_earlier_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first = tmp_path / "first.json"
    assert bench.main([*TINY, "--methods", "IBP,CROWN-IBP+fusion,IBP+only", "--json", str(first)]) == 0
    (result,) = json.loads(first.read_text())["results"]
    timed = {"natural", "IBP", "CROWN-IBP+fusion", "IBP+only"}
    assert set(result["seconds"]) == timed | {f"{name} plain" for name in timed - {"natural"}} | {"matrix product"}
    assert all(len(rounds) == 2 and min(rounds) > 0 for rounds in result["seconds"].values())
    capsys.readouterr()
    assert bench.main([*TINY, "--methods", "IBP", "--no-plain", "--against", str(first)]) == 0
    head, natural, ibp = rows(capsys.readouterr().out)
    assert head[-2:] == ["earlier, ms", "in natural steps"]
    assert ibp[0] == "IBP"
    assert ibp[4] == "1.00"
    assert natural[3] == "1.00"
    assert ibp[5:7] == ["", ""]
    assert float(ibp[-2]) == pytest.approx(1e3 * sum(result["seconds"]["IBP"]) / 2, abs=0.051)


def test_ratios_are_of_the_same_round() -> None:
    """A machine that slows down in one round does not move them."""
    rounds = {"natural": [1.0, 10.0, 1.0], "IBP": [2.0, 20.0, 2.2], "IBP plain": [4.0, 60.0, 8.8]}
    assert bench.paired_ratio(rounds, "IBP", "natural") == 2.0
    assert bench.paired_ratio(rounds, "IBP plain", "IBP") == 3.0
    assert bench.paired_ratio(rounds, "CROWN", "natural") is None
    _head, _natural, ibp = rows(bench.table(rounds, {}, {}))
    assert ibp == ["IBP", "2200.0", "", "2.00", "1.00", "8800.0", "3.00×", "", ""]


def test_the_floor_is_the_steps_operations_at_the_products_speed() -> None:
    rounds = {"matrix product": [0.2, 0.1, 0.1], "natural": [1.0, 1.0, 1.0]}
    head, natural = rows(bench.table(rounds, {"matrix product": 50, "natural": 200}))
    assert head[2] == "arithmetic alone, ms"
    assert natural[2] == "400.0"


def test_operations_are_those_of_products_and_convolutions() -> None:
    assert bench.count_operations(bench.matrix_product(CPU)) == 2 * 1024**3
    # Forward, weights' gradient, and the input's but for the first layer: 48 images' patches at 4 × 4 positions.
    network = torch.nn.Sequential(torch.nn.Conv2d(1, 5, 3), torch.nn.Flatten(), torch.nn.Linear(80, 10))
    images = torch.rand(48, 1, 6, 6)
    assert bench.count_operations(lambda: network(images).sum().backward()) == 2 * 48 * (2 * 16 * 9 * 5 + 3 * 80 * 10)


def test_the_suite_has_both_networks() -> None:
    assert [(network.model, network.batch_size) for network in bench.SUITE] == [("CONV", 100), ("CNN7", 16)]
    for network in bench.SUITE:
        assert {"IBP+only", "IBP", "CROWN-IBP", "CROWN-IBP+fusion"} <= set(network.methods)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([*TINY, "--methods", "nonsense"], "unknown method"),
        ([*TINY, "--methods", "IBP+colour"], "IBP+colour: unknown variant 'colour'; known: NAME+fusion, NAME+only"),
        ([*TINY, "--methods", "IBP+fusion"], "IBP has no such row"),
        ([*TINY, "--against", "absent.json"], "--against: expected a file that --json wrote"),
        (["--model", "CONVV"], "unknown model"),
        (["gpu", "--device", "cpu"], "this benchmark needs a CUDA device"),
        (["size", "--methods", "nonsense", "--device", "cpu"], "unknown method"),
    ],
    ids=["method", "variant", "fusion", "earlier file", "model", "gpu on a CPU", "method of size"],
)
def test_errors_are_one_line(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert bench.main(arguments) == 2
    error = capsys.readouterr().err
    assert message in error
    assert len(error.strip().splitlines()) == 1


def test_no_gpu_is_one_line(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert bench.main(["gpu"]) == 2
    assert capsys.readouterr().err.startswith("error: --device cuda: this benchmark needs a CUDA device")


@pytest.mark.parametrize("name", ["--json", "--against", "gpu", "size"])
def test_help(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert bench.main(["--help"]) == 0
    assert name in capsys.readouterr().out


def test_both_sides_take_the_same_step() -> None:
    """auto_LiRPA's side computes the same loss and gradient."""
    for method in ("IBP", "IBP+only", "CROWN-IBP", "CROWN-IBP+fusion", "CROWN"):
        taken = []
        for plain in (False, True):
            state, values = training_state(replace(CASE, method=method, plain=plain), CPU)
            taken.append(train_step(state, state.dataset.train_x, state.dataset.train_y, values))
        assert taken[0].loss.item() == pytest.approx(taken[1].loss.item(), rel=1e-5)
        assert taken[0].gradient_norm.item() == pytest.approx(taken[1].gradient_norm.item(), rel=1e-3)


def test_memory_is_of_tensors_alive_at_once() -> None:
    with bench_step.LiveTensors() as tensors:
        first = torch.zeros(1000)
        second = first + 1
        view = second.view(10, 100)
        del first
        third = view * 2
        del second, third
    assert (tensors.peak, tensors.live) == (8000, 4000)  # the view keeps its tensor


def test_cost_of_a_step(monkeypatch: pytest.MonkeyPatch) -> None:
    found = cost(CASE, CPU, budget=0.0)
    assert found.seconds > 0
    assert found.memory > 0
    assert found.note == ""
    assert cost(replace(CASE, batch_size=8), CPU, budget=0.0).memory > 1.5 * found.memory
    slow = cost(replace(CASE, batch_size=10**6), CPU, budget=0.0, limit=0.001)
    assert slow.seconds is None
    assert slow.note == "over 0.001 s, not run"


@pytest.mark.parametrize(
    "problem", [torch.OutOfMemoryError("CUDA out of memory"), RuntimeError("DefaultCPUAllocator: can't allocate memory")]
)
def test_no_memory_is_a_cell(problem: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(case: Case, *more: object) -> bench_step.Step:
        if case.batch_size > 2:
            raise problem
        return make_step(case, CPU)

    monkeypatch.setattr(bench_step, "make_step", fail)
    assert cost(CASE, CPU) == Cost(note="out of memory")


def test_other_problems_are_not_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*given: object) -> bench_step.Step:
        raise RuntimeError("a bug")

    monkeypatch.setattr(bench_step, "make_step", fail)
    with pytest.raises(RuntimeError, match="a bug"):
        cost(CASE, CPU)


def test_gpu_benchmark_but_for_the_gpu(tmp_path: Path) -> None:
    networks = [Case("", "CONV", "digits", 4, 0.1), Case("", "FC", "digits", 8, 0.1)]
    found = list(bench_gpu.measure(networks, ["natural", "IBP"], CPU, budget=0.0, limit=60, captures=(False,)))
    captured = [(replace(case, capture=True), replace(what, seconds=what.seconds / 2)) for case, what in found[:-1]]
    captured.append((replace(found[-1][0], capture=True), Cost(note="out of memory")))
    bench_gpu.write(tmp_path / "out", [*found, *captured], CPU)
    text = (tmp_path / "out" / "gpu.md").read_text()
    _head, *body = rows(text)
    assert [row[:3] for row in body] == [
        [f"{model}, digits shape", batch, method]
        for model, batch in (("CONV", "4"), ("FC", "8"))
        for method in ("natural", "IBP")
    ]
    assert body[0][-1] == "2.0×"
    assert body[-1][5:] == ["out of memory", "", ""]
    assert f"torch {torch.__version__}" in text
    assert "cuda " in text
    content = json.loads((tmp_path / "out" / "gpu.json").read_text())
    assert len(content["results"]) == 8
    assert content["results"][-1]["note"] == "out of memory"
    assert content["where"]["torch"] == torch.__version__


def test_gpu_table_tells_the_recipes_time() -> None:
    case = replace(NETWORKS[0], method="CROWN-IBP")
    text = bench_gpu.table([(case, Cost(0.002, 1)), (replace(case, capture=True), Cost(0.001, 1))])
    assert text.endswith("200 epochs of 600 CROWN-IBP steps at the fastest of these rates: 2.0 minutes.")


def test_what_cannot_be_captured_is_a_cell(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(case: Case, *more: object) -> bench_step.Step:
        raise UserError("--capture: this step cannot be recorded as a CUDA graph")

    monkeypatch.setattr(bench_step, "make_step", fail)
    assert cost(replace(CASE, capture=True), CPU).note.startswith("--capture: this step cannot be recorded")
    with pytest.raises(UserError):
        cost(CASE, CPU)


@pytest.mark.gpu
def test_gpu_benchmark() -> None:
    networks = [Case("", "CONV", "digits", 4, 0.1)]
    cuda = torch.device("cuda")
    found = list(bench_gpu.measure(networks, bench_gpu.METHODS, cuda, budget=0.1, limit=60, captures=(False, True)))
    assert all(what.seconds and what.memory for _, what in found)


def test_size_benchmark(tmp_path: Path) -> None:
    sizes = {"batch": (2, 4), "width": (8, 16), "depth": (1, 2)}
    base = {"batch": 2, "width": 8, "depth": 1}
    points = bench_size.measure(["natural", "CROWN"], CPU, sizes=sizes, base=base, budget=0.0)
    assert len(points) == 12
    assert all(point.cost.seconds and point.cost.memory for point in points)
    bench_size.write(tmp_path / "out", points, "a machine")
    text = (tmp_path / "out" / "size.md").read_text()
    assert "a machine" in text
    assert text.count("| CROWN |") == 3
    picture = (tmp_path / "out" / "size.png").read_bytes()
    assert picture.startswith(b"\x89PNG")
    assert len(picture) < 150_000
    content = json.loads((tmp_path / "out" / "size.json").read_text())
    assert len(content["results"]) == 12
    assert content["results"][0]["cost"]["memory"] > 0


def test_exponents_are_those_of_powers() -> None:
    def points(law: dict[int, float | None]) -> list[bench_size.Point]:
        return [bench_size.Point("IBP", "width", size, Cost(value, 1)) for size, value in law.items()]

    square = {size: 1e-6 * size**2 for size in (32, 64, 128, 256)}
    assert bench_size.exponent(points(square), "seconds") == pytest.approx(2.0)
    # Small sizes, where fixed costs rule, do not count; what was not measured does not either.
    assert bench_size.exponent(points({8: 1.0, **square, 512: None}), "seconds") == pytest.approx(2.0)
    assert bench_size.exponent(points({8: 1.0}), "seconds") is None


def test_networks_are_as_deep_and_wide_as_asked() -> None:
    layers = [layer for layer in bench_size.network(16, 3) if isinstance(layer, torch.nn.Linear)]
    assert [(layer.in_features, layer.out_features) for layer in layers] == [(64, 16), (16, 16), (16, 16), (16, 10)]


def test_options_before_a_subcommand_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert bench.main(["--threads", "1", "size"]) == 2
    assert "size: options come after it, got --threads before" in capsys.readouterr().err
