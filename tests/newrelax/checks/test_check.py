"""The checker: what it must find, and what it must not."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from newrelax import Method, Registry, Relaxation, UserError
from newrelax.check import Report, check, format_report, main
from newrelax.checks.jumps import find_jumps
from newrelax.checks.networks import check_propagations
from newrelax.checks.properties import find_inconsistency, find_nonfinite, measure_tightness, seems_parallel
from newrelax.checks.soundness import find_counterexample
from newrelax.relaxations.crown import chord
from tests.conftest import REPOSITORY

BUILTIN = Registry.load()
LINES = {method.relaxation.label: method.relaxation for method in BUILTIN.values() if method.relaxation is not None}
EVERY = pytest.mark.parametrize("value", LINES.values(), ids=list(LINES))

# The rule of the authors' released code: the new noise terms of neurons with u <= 0 are left
# out, so that only the shifted centre x - l/2 of the parallelogram is left there.
RELEASED = '''
import torch
from newrelax import relaxation

@relaxation("Released-Diag-C", handles_stable=True)
def released(lower, upper):
    """Released-Diag-C: x and x - l; for u <= 0 both x - l/2."""
    dead = upper <= 0
    below = torch.where(dead, -lower / 2, 0.0)
    above = torch.where(dead, -lower / 2, (-lower).clamp(min=0))
    return 1.0, below, 1.0, above
'''


def value_of(function: Callable, **options: object) -> Relaxation:
    return Relaxation("Mine", function, **options)  # type: ignore[arg-type]


@EVERY
def test_builtin_lines_pass(value: Relaxation) -> None:
    assert find_counterexample(value) is None
    assert find_nonfinite(value) is None
    assert find_inconsistency(value) is None


def sliver(l: Tensor, u: Tensor) -> tuple:
    """Wrong by 1 in 10,000 on a thin wedge, off the round numbers."""
    slope, offset = chord(l, u)
    return 0.0, 0.0, slope, offset * torch.where((l / u + 1.2345).abs() < 3e-3, 0.9999, 1.0)


UNSOUND = {
    "upper too low": lambda l, u: (0.0, 0.0, 0.0, 0.999 * u),
    "lower too high": lambda l, u: (1.0, 1e-3, 1.0, -l),
    "negative slope": lambda l, u: (-0.1, 0.0, 0.0, u),
    "only for large bounds": lambda l, u: (0.0, 0.0, 0.0, u.clamp(max=1e3)),
    "only for small bounds": lambda l, u: (0.0, 0.0, 0.0, torch.where(u < 1e-5, 0.0, u)),
    "thin wedge": sliver,
    "near -l = u": lambda l, u: ((-l <= 1.01 * u) * 1.0, torch.where(-l > u, 1e-2, 0.0) * u, 0.0, u),
    "not a number": lambda l, u: (0.0, 0.0, 0.0, torch.where(u == 1.0, torch.nan, u)),
    "infinite": lambda l, u: (0.0, 0.0, 0.0, u / (u > 1e-12)),
    "float32 cancels": lambda l, u: (0.0, 0.0, 0.0, (u + 1e3 * -l) + 1e3 * l),
}


@pytest.mark.parametrize("function", UNSOUND.values(), ids=list(UNSOUND))
def test_an_unsound_function_is_caught(function: Callable) -> None:
    value = value_of(function)
    found = find_counterexample(value)
    assert found is not None
    assert found.lower <= found.x <= found.upper
    dtype = getattr(torch, found.dtype)
    lines = value(*(torch.tensor([end], dtype=dtype) for end in (found.lower, found.upper)))
    slope, offset = lines[:2] if found.line == "lower" else lines[2:]
    at = slope.double() * found.x + offset.double()
    assert not (at <= max(found.x, 0) if found.line == "lower" else at >= max(found.x, 0)) or (not at.isfinite())


def test_stable_neurons_are_searched() -> None:
    def lines(l: Tensor, u: Tensor) -> tuple:
        return 0.0, 0.0, 0.0, u.clamp(min=0) * ((l < 0) | (u < 2))

    found = find_counterexample(value_of(lines, handles_stable=True))
    assert found is not None
    assert found.lower >= 0


@pytest.mark.parametrize(
    "function",
    [
        lambda l, u: (u / (u - l + 1e-8), 0.0, u / (u - l + 1e-8), -l * u / (u - l + 1e-8)),
        lambda l, u: (0.0, 0.0, u / (u - l).clamp(min=1e-12), -l * u / (u - l).clamp(min=1e-12)),
    ],
    ids=("added", "clamped"),
)
def test_a_guarded_division_passes(function: Callable) -> None:
    assert find_counterexample(value_of(function)) is None


@pytest.mark.parametrize(
    "interval",
    [
        lambda l, u: (l + 0.1, u),
        lambda l, u: (l, torch.where(u > 100, 0.5 * u, u)),
        lambda l, u: (l, u * torch.nan),
    ],
    ids=("lower", "upper", "nan"),
)
def test_an_interval_that_leaves_points_out_is_caught(interval: Callable) -> None:
    value = value_of(BUILTIN["IBP"].relaxation.function, handles_stable=True, interval=interval)
    found = find_counterexample(value)
    assert found is not None
    assert found.line == "interval"
    assert "leaves out" in str(found)


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (lambda l, u: (u.sqrt() - u.sqrt(), 0.0, 0.0, u / u * u), None),
        (lambda l, u: (0.0, 0.0, 0.0, u + (l + u).abs().sqrt() * 0), "d upper offset / d [lu] is nan"),
        (lambda l, u: (0.0, 0.0, u / u.square().sqrt(), u), "is (nan|inf)"),
    ],
    ids=("finite", "gradient", "value"),
)
def test_what_is_not_finite_is_found(function: Callable, message: str | None) -> None:
    found = find_nonfinite(value_of(function))
    if message is None:
        assert found is None
    else:
        assert found is not None
        with pytest.raises(AssertionError, match=message):
            raise AssertionError(found)


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (lambda l, u: (0.0, 0.0, 0.0, u + torch.rand_like(u)), "evaluated twice"),
        (lambda l, u: (0.0, 0.0, 0.0, u + torch.arange(u.numel()).reshape(u.shape)), "the order"),
        (lambda l, u: (0.0, 0.0, 0.0, u.max() + 0 * u), "the other neurons"),
        (lambda l, u: (0.0, 0.0, 0.0, u + u.dim()), "the tensor's shape"),
        (lambda l, u: (0.0, 0.0, 0.0, u.mul_(2)), "inputs in place"),
    ],
    ids=("random", "order", "batch", "shape", "in place"),
)
def test_what_is_not_elementwise_is_found(function: Callable, message: str) -> None:
    found = find_inconsistency(value_of(function, handles_stable=True))
    assert found is not None
    assert message in found


JUMPS = {
    "CROWN": ["-l = u"],
    "CROWN-0": ["l = 0"],
    "CROWN-1": ["u = 0"],
    "CROWN-0-Tria": ["l = 0", "u = 0"],
    "CROWN-1-Tria": ["l = 0", "u = 0"],
    "DeepZ-Box": ["l = 0"],
    "DeepZ-Diag": ["u = 0"],
    "DeepZ-Switch": ["-l = u"],
    "IBP-Round:omega=0.5,F=10": [f"{end} = n * 0.1 for whole n (10 per unit)" for end in ("l", "u")],
}


@pytest.mark.parametrize("spec", ["IBP-Round:omega=5,F=1000", "IBP-Round:F=0.01", "IBP-Widen:omega=0"])
def test_extreme_parameters_pass(spec: str) -> None:
    value = BUILTIN.get_method(spec).relaxation
    assert find_counterexample(value) is None
    assert find_nonfinite(value) is None


@EVERY
def test_jumps_are_where_the_definition_says(value: Relaxation) -> None:
    found = find_jumps(value)
    assert sorted(jump.condition for jump in found) == JUMPS.get(value.label, [])
    for jump in found:
        slopes = [size for name, size in jump.size.items() if name.endswith("slope")]
        assert slopes == pytest.approx([1.0] * len(slopes), abs=1e-6)


def jump(where: Tensor, size: float = 1.0) -> tuple:
    return where * size, 0.0, 0.0, 0.0


@pytest.mark.parametrize(
    ("function", "expected"),
    [
        (lambda l, u: jump(u > -2 * l, 1e-4), ["u = 2 * -l"]),
        (lambda l, u: jump(u - l > 1.25), ["u - l = 1.25"]),
        (lambda l, u: jump(u + l > 0.7), ["l + u = 0.7"]),
        (lambda l, u: jump(u > 0.7), ["u = 0.7"]),
        (lambda l, u: jump(l > -20.25), ["l = -20.25"]),
        (lambda l, u: jump(torch.floor(7 * u)), [f"u = n * {1 / 7:.6g} for whole n (7 per unit)"]),
        (lambda l, u: jump(u * u - l > 3), ["no simple condition"]),
        (lambda l, u: jump(torch.sigmoid((u + l) * 1e6)), []),
        (lambda l, u: jump((1e5 * (u + l)).clamp(0, 1)), []),
        (lambda l, u: jump((u + l).abs().sqrt()), []),
    ],
    ids=(
        "ratio",
        "width",
        "sum",
        "upper",
        "lower",
        "steps",
        "curve",
        "steep",
        "steep kinks",
        "root",
    ),
)
def test_jumps_of_other_functions(function: Callable, expected: list[str]) -> None:
    found = find_jumps(value_of(function, handles_stable=True))
    assert [found.condition.split(";")[0] for found in found] == expected
    assert all(set(jump.size) == {"lower_slope"} for jump in found)
    for one in found:
        assert one.places
        assert all(l <= u for l, u in one.places)


def test_tightness_against_known_areas() -> None:
    box = measure_tightness(LINES["DeepZ-Box"])
    assert box.within
    assert (box.area, box.worst_area) == pytest.approx((1, 1))
    assert measure_tightness(LINES["IBP"]).within
    triangle = measure_tightness(LINES["CROWN-0"])
    assert triangle.within
    assert (triangle.area, triangle.worst_area) == pytest.approx((0.5, 0.5))
    diagonal = measure_tightness(LINES["DeepZ-Diag"])
    assert not diagonal.within
    assert diagonal.worst_area == pytest.approx(30)
    assert diagonal.overshoot == pytest.approx(30 / 31)
    stable = measure_tightness(LINES["CROWN-1-C"])
    assert not stable.within, "x lies below 0 where u <= 0"


def test_parallel_lines_are_declared() -> None:
    parallel = {label for label, value in LINES.items() if value.parallel}
    assert {label for label in LINES if label.startswith(("DeepZ", "IBP"))} == parallel
    assert {label for label, value in LINES.items() if seems_parallel(value)} == parallel

    def sometimes(lower: Tensor, upper: Tensor) -> tuple:
        return 0.0, 0.0, torch.where(upper > 0.5, 0.0, 1.0), upper - lower

    assert not value_of(sometimes).parallel, "a number and a tensor that equals it in one place"
    assert find_inconsistency(value_of(sometimes)) is None
    found = find_inconsistency(value_of(sometimes, parallel=True))
    assert found is not None
    assert "parallel=True says that both lines have one slope" in found


def test_slopes_that_are_equal_need_not_be_one_object() -> None:
    def copied(lower: Tensor, upper: Tensor) -> tuple:
        slope, offset = chord(lower, upper)
        return slope, 0.0, slope.clone(), offset

    assert find_inconsistency(value_of(copied, parallel=True)) is None
    report = check(Method.from_relaxation(value_of(copied)))
    assert report.passed
    assert report.hint is not None
    assert "parallel=True" in format_report(report)


def test_a_chord_is_declared_and_checked() -> None:
    def chordal(lower: Tensor, upper: Tensor) -> tuple:
        return 0.0, 0.0, *chord(lower, upper)

    assert find_inconsistency(value_of(chordal, chord=True)) is None
    found = find_inconsistency(value_of(lambda l, u: (0.0, 0.0, 0.0, u), chord=True))
    assert found == "the upper line is not the chord, which chord=True says it is"


@pytest.fixture(scope="module")
def released(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("plugin") / "released.py"
    path.write_text(RELEASED)
    return path


@pytest.fixture(scope="module")
def deepz_report() -> Report:
    before = torch.get_rng_state()
    report = check(BUILTIN["DeepZ"])
    assert torch.equal(before, torch.get_rng_state())
    return report


def test_the_released_rule_is_caught(released: Path, capsys: pytest.CaptureFixture) -> None:
    assert main(["Released-Diag-C", "--plugin", str(released)]) == 1
    output = capsys.readouterr().out
    row = next(line for line in output.splitlines() if line.split()[:1] == ["sound"])
    assert row.split()[1] == "NO"
    assert "l = -3, u = 0, x = 0 (float64): the lower line, 1.5, is above ReLU(x) = 0" in row
    # The rule of the definition, on the same neurons, is sound.
    assert find_counterexample(LINES["DeepZ-Diag-C"]) is None


def test_a_report_of_a_sound_relaxation(deepz_report: Report) -> None:
    assert deepz_report.sound
    assert deepz_report.passed
    assert not deepz_report.estimate
    assert {p.name: p.verdict for p in deepz_report.propagations} == dict.fromkeys(("backward", "forward", "hybrid"), "holds")
    assert all(p.excess is not None and p.excess < 0 for p in deepz_report.propagations)
    text = format_report(deepz_report)
    assert text.splitlines()[0] == "DeepZ"
    assert "no jump found" in text
    again = json.loads(json.dumps(deepz_report.as_dict(), allow_nan=False))
    assert again["sound"] is True
    assert again["tightness"]["area"] == pytest.approx(0.5)


def test_the_network_check_sees_what_the_lines_do() -> None:
    method = BUILTIN["CROWN"]
    verdicts = {p.name: p.verdict for p in check_propagations(method)}
    assert verdicts == {"backward": "holds", "forward": "holds", "hybrid": "needs parallel lines"}

    slopes = {p.name: p.verdict for p in check_propagations(BUILTIN["CROWN-IBP-RandomSlope"])}
    assert slopes == {"ibp+backward-random": "holds", **verdicts}

    shrunk = value_of(lambda l, u: (0.0, 0.0, 0.0, 0.2 * u), propagation="hybrid", parallel=True)
    wrong = type(method).from_relaxation(shrunk)
    assert {p.verdict for p in check_propagations(wrong)} == {"violated"}


@pytest.mark.parametrize("name", ["DeepZ-Cauchy", "hBox-Cauchy"])
def test_estimates_are_never_sound(name: str) -> None:
    report = check(BUILTIN[name])
    assert report.estimate
    assert not report.sound
    assert not report.passed
    assert report.counterexample is None
    assert report.propagations[0].verdict == "estimate"
    assert "no (estimate)" in format_report(report)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["CRWN"], "unknown method 'CRWN'; did you mean CROWN"),
        (["natural"], "natural gives no bounds: there is nothing to check"),
        (["CROWN", "--plugin", "absent.py"], "no plugin file at"),
        (["CROWN-Soft:gamma=x"], "gamma must be a number"),
        ([], "Missing argument"),
    ],
    ids=("unknown", "natural", "file", "number", "nothing"),
)
def test_user_errors(arguments: list[str], message: str, capsys: pytest.CaptureFixture) -> None:
    assert main(arguments) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("error: ")
    assert captured.err.count("\n") == 1
    assert message in captured.err
    if arguments:
        with pytest.raises(UserError):
            main([*arguments, "--debug"])


def test_a_function_that_raises_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    path = tmp_path / "broken.py"
    path.write_text(
        "from newrelax import relaxation\n"
        "@relaxation('Broken')\n"
        "def broken(lower, upper):\n"
        "    return 0.0, 0.0, 0.0, lower @ upper.unsqueeze(0)\n"
    )
    assert main(["Broken", "--plugin", str(path)]) == 2
    assert "error: Broken: its function raised RuntimeError" in capsys.readouterr().err


def test_the_command_prints_json(released: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "newrelax.check", "Released-Diag-C", "--json", "--plugin", released],
        capture_output=True,
        text=True,
        cwd=released.parent,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
    )
    assert done.returncode == 1, done.stderr
    report = json.loads(done.stdout)
    assert report["sound"] is False
    found = report["counterexample"]
    assert found["upper"] <= 0
    assert found["violation"] > 0
    assert found["line"] in ("lower", "upper")
