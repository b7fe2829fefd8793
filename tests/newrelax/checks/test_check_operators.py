"""`python -m newrelax.check --operators`: every rule has a check, and the check finds what is wrong."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace

import pytest
import torch

import newrelax.check as command
from newrelax import Registry
from newrelax.check import main
from newrelax.checks.operators import check_operator
from newrelax.checks.samples import SAMPLES, WITHOUT
from newrelax.network.operators.rule import Rule
from newrelax.network.rules import BUILTIN_RULES
from newrelax.relaxations.activation import GELU_TANH, TANH

RULES = {name: rule for rule in BUILTIN_RULES for name in rule.names}
SOME = (
    "aten.linear.default",
    "aten.conv2d.default",
    "aten.conv_transpose2d.input",
    "aten.batch_norm.default",
    "aten.mul.Tensor",
    "aten.matmul.default",
    "aten.leaky_relu.default",
    "aten.softshrink.default",
    "aten.maximum.default",
    "aten.gelu.default",
    "aten.sin.default",
    "aten.max_pool2d.default",
    "aten.permute.default",
    "aten.copy.default",
    "aten.cat.default",
    "aten.softmax.int",
    "aten.layer_norm.default",
)


def test_every_operator_has_a_sample_or_a_reason() -> None:
    assert set(RULES) <= set(SAMPLES) | set(WITHOUT)
    assert not set(SAMPLES) & set(WITHOUT)


@pytest.mark.parametrize("name", SOME)
def test_a_rule_holds(name: str) -> None:
    report = check_operator(name, RULES[name], BUILTIN_RULES)
    assert (report.verdict, report.passed) == ("holds", True), report.detail
    assert report.bounded == RULES[name].bounded
    assert "newrelax" in report.engines


@pytest.mark.slow
def test_every_rule_holds(capsys: pytest.CaptureFixture) -> None:
    assert main(["--operators"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert {line.split()[0] for line in lines[1:] if line.startswith("aten.")} == set(RULES)


def changed(name: str, function: object) -> tuple[Rule, list[Rule]]:
    """The rule with another function, and all rules with it in its place."""
    rule = replace(RULES[name], names=(name,), function=function)  # type: ignore[arg-type]
    return rule, [rule, *(replace(r, names=tuple(n for n in r.names if n != name)) for r in BUILTIN_RULES)]


WRONG = {
    "another activation": ("aten.tanh.default", lambda build, x: build.smooth(x, GELU_TANH), "failed"),
    "loose where exact": ("aten.neg.default", lambda build, x: build.add(build.negate(x), build.add(x, x, sign=-1)), "holds"),
    "interval too narrow": (
        "aten.sin.default",
        lambda build, x: build.smooth(x, replace(TANH, name="sin", function=torch.sin)),
        "violated",
    ),
    "raises": ("aten.exp.default", lambda build, x: 1 / 0, "failed"),
    "nothing there": ("aten.exp.default", lambda build, x: build.refuse("has no bounds here"), "failed"),
}


@pytest.mark.parametrize(("name", "function", "verdict"), WRONG.values(), ids=list(WRONG))
def test_a_wrong_rule_is_found(name: str, function: object, verdict: str) -> None:
    report = check_operator(name, *changed(name, function))
    assert report.verdict == verdict, report.detail
    assert report.passed == (verdict == "holds")
    assert report.detail


def test_an_unknown_operator_is_not_checked() -> None:
    rule = Rule(("aten.affine_grid_generator.default",), "planes", lambda build, x: x)
    report = check_operator("aten.affine_grid_generator.default", rule, [*BUILTIN_RULES, rule])
    assert report.verdict == "not checked"
    assert report.passed
    assert "no sample" in report.detail
    rule = Rule(("aten.nothing_of_the_kind.default",), "planes", lambda build, x: x)
    assert "no such operator" in check_operator("aten.nothing_of_the_kind.default", rule, [rule]).detail


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> Sequence[Rule]:
    """A registry that lists a few operators only; their networks still know all rules."""
    shown = tuple(rule for rule in BUILTIN_RULES if set(rule.names) & {"aten.tanh.default", "aten.neg.default"})
    monkeypatch.setattr(command, "check_operator", lambda name, rule, rules: check_operator(name, rule, BUILTIN_RULES))
    monkeypatch.setattr(Registry, "operators", shown)
    return shown


def test_the_command_lists_operators(few: Sequence[Rule], capsys: pytest.CaptureFixture) -> None:
    assert main(["--operators"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split()[:4] == ["operator", "bounded", "engines", "check"]
    rows = {line.split()[0]: line for line in lines if line.startswith("aten.")}
    assert set(rows) == {"aten.tanh.default", "aten.neg.default"}
    assert " lines " in rows["aten.tanh.default"]
    assert " yes " in rows["aten.tanh.default"]
    assert "exact affine" in rows["aten.neg.default"]
    assert "newrelax" in rows["aten.neg.default"]
    assert lines[-1] == "2 operators, 2 checked, 2 hold"


def test_the_command_lists_operators_as_json(few: Sequence[Rule], capsys: pytest.CaptureFixture) -> None:
    assert main(["--operators", "--json"]) == 0
    listed = json.loads(capsys.readouterr().out)
    assert {entry["name"] for entry in listed} == {"aten.tanh.default", "aten.neg.default"}
    assert all(entry["verdict"] == "holds" and entry["passed"] for entry in listed)
