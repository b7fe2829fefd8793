"""Properties in VNN-LIB: what files say, what is refused in one line, and that what is written reads back the same."""

from __future__ import annotations

import gzip
import random
import re
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from newrelax.errors import UserError
from plugin.formats.extras import installed
from plugin.formats.property import Case, Conjunction, Property, robustness
from plugin.formats.vnnlib import read_property
from plugin.formats.vnnlib_writer import write_property

Read = Callable[[str], Property]

needs_parser = pytest.mark.skipif(not installed("vnnlib"), reason='no official parser: pip install "newrelax[onnx]"')
VERSIONS = [1, pytest.param(2, marks=needs_parser)]

HEAD = "(declare-const X_0 Real)\n(declare-const X_1 Real)\n(declare-const Y_0 Real)\n(declare-const Y_1 Real)\n"
BOX = "(assert (<= X_0 1))(assert (>= X_0 0))(assert (<= X_1 0.5))(assert (>= X_1 -0.5))\n"
SECOND = "(vnnlib-version <2.0>)\n(declare-network N\n(declare-input X float32 [1,2])\n(declare-output Y float32 [1,2]))\n"
SECOND_BOX = "(assert (<= X[0,0] 1.0))(assert (>= X[0,0] 0.0))(assert (<= X[0,1] 0.5))(assert (>= X[0,1] -0.5))\n"


@pytest.fixture
def read(tmp_path: Path) -> Read:
    def reads(text: str) -> Property:
        path = tmp_path / "asked.vnnlib"
        path.write_text(text)
        return read_property(path)

    return reads


def rows(asked: Property, case: int = 0) -> list[list[list[float]]]:
    """A case's conjunctions, each half-space as its factors and its limit."""
    return [
        [[*row, limit] for row, limit in zip(each.matrix.tolist(), each.limit.tolist(), strict=True)]
        for each in asked.cases[case].unsafe
    ]


@pytest.mark.parametrize(
    ("constraint", "expected"),
    [
        ("(<= Y_0 Y_1)", [[[1, -1, 0]]]),
        ("(>= Y_0 Y_1)", [[[-1, 1, 0]]]),
        ("(>= Y_0 3.5)", [[[-1, 0, -3.5]]]),
        ("(<= -2e-1 Y_1)", [[[0, -1, 0.2]]]),
        ("(<= (+ Y_0 (* 2 Y_1) 1) (- 4))", [[[1, 2, -5]]]),
        ("(<= (- Y_0 Y_1 1) (* (- 2) 3))", [[[1, -1, -5]]]),
        ("(= Y_0 2)", [[[1, 0, 2], [-1, 0, -2]]]),
        ("(and (<= Y_0 0) (<= Y_1 0))", [[[1, 0, 0], [0, 1, 0]]]),
        ("(or (<= Y_0 0) (and (<= Y_1 0) (<= Y_0 1)))", [[[1, 0, 0]], [[0, 1, 0], [1, 0, 1]]]),
        (
            "(and (or (<= Y_0 0) (<= Y_0 1)) (or (<= Y_1 0) (<= Y_1 1)))",
            [[[1, 0, i], [0, 1, j]] for i in (0, 1) for j in (0, 1)],
        ),
        ("(or (<= 1 0) (<= Y_0 0))", [[[1, 0, 0]]]),
        ("(<= 0 1)", [[]]),
    ],
)
def test_constraints_on_outputs_become_half_spaces(constraint: str, expected: object, read: Read) -> None:
    asked = read(f"; a comment\n{HEAD}{BOX}(assert {constraint}) ; another")
    assert (asked.inputs, asked.outputs, len(asked.cases)) == (2, 2, 1)
    assert asked.cases[0].lower.tolist() == [0, -0.5]
    assert asked.cases[0].upper.tolist() == [1, 0.5]
    assert rows(asked) == expected


def test_the_tightest_of_several_ends_counts_also_with_a_factor(read: Read) -> None:
    asked = read(f"{HEAD}{BOX}(assert (<= (* 4 X_0) 3))(assert (<= (* -2 X_0) -0.5))(assert (<= X_1 9))(assert (<= Y_0 0))")
    assert (asked.cases[0].lower.tolist(), asked.cases[0].upper.tolist()) == ([0.25, -0.5], [0.75, 0.5])


def test_boxes_within_or_are_cases_and_those_without_points_are_left_out(read: Read) -> None:
    boxes = "(or (and (<= X_0 0.25) (>= X_1 0)) (>= X_0 0.75) (>= X_0 2))"
    asked = read(f"{HEAD}{BOX}(assert {boxes})(assert (or (<= Y_0 0) (<= Y_1 0)))")
    assert [(c.lower.tolist(), c.upper.tolist()) for c in asked.cases] == [([0, 0], [0.25, 0.5]), ([0.75, -0.5], [1, 0.5])]
    assert rows(asked, 0) == rows(asked, 1) == [[[1, 0, 0]], [[0, 1, 0]]]


BAD = {
    "empty": ("; nothing\n", "is empty: expected declarations"),
    "truncated in an assertion": (
        f"{HEAD}{BOX}(assert (or (<= Y_0",
        "line 6: the group that begins here has no ): the file is cut",
    ),
    "truncated before assertions": (HEAD, "asserts nothing: the file is cut short"),
    "one ) too many": (f"{HEAD}{BOX}(assert (<= Y_0 0)))", "line 6: expected a group before this )"),
    "contradictory box": (f"{HEAD}{BOX}(assert (>= X_0 2))(assert (<= Y_0 0))", "line 6: X_0 is at least 2 and at most 1"),
    "no case with a point": (f"{HEAD}{BOX}(assert (or (>= X_0 2) (>= X_0 3)))", "line 6: X_0 is at least 2 and at most 1"),
    "no upper end": (
        f"{HEAD}(assert (>= X_0 0))(assert (>= X_1 0))(assert (<= Y_0 0))",
        "expected upper ends for every input, got none for X_0",
    ),
    "unknown symbol": (f"{HEAD}{BOX}(assert (<= Y_2 0))", "line 6: unknown symbol 'Y_2'"),
    "unknown operator": (f"{HEAD}{BOX}(assert (=> Y_0 0))", "line 6: expected and, or, <=, >= or =, got =>"),
    "unknown sum": (f"{HEAD}{BOX}(assert (<= (/ Y_0 2) 0))", "line 6: expected a sum of +, - and *, got /"),
    "strict": (f"{HEAD}{BOX}(assert (< Y_0 0))", "line 6: expected <= or >=, got <: strict constraints"),
    "product": (f"{HEAD}{BOX}(assert (<= (* Y_0 Y_1) 0))", "line 6: expected a number in every product"),
    "polytope": (
        f"{HEAD}{BOX}(assert (<= (+ X_0 X_1) 0))",
        "line 6: expected each input bounded by numbers, got one constraint on X_0, X_1",
    ),
    "input with output": (f"{HEAD}{BOX}(assert (<= X_0 Y_1))", "line 6: expected each input bounded by numbers"),
    "three arguments": (f"{HEAD}{BOX}(assert (<= Y_0 0 1))", "line 6: expected 2 arguments of <=, got 3"),
    "infinite": (f"{HEAD}{BOX}(assert (<= Y_0 1e999))", "line 6: expected a finite number, got 1e999"),
    "declared twice": (f"{HEAD}(declare-const X_1 Real)", "line 5: declares X_1 twice"),
    "gap": ("(declare-const X_0 Real)(declare-const X_2 Real)", "declares X_2, but not X_1"),
    "no outputs": ("(declare-const X_0 Real)", "declares no outputs"),
    "other sort": ("(declare-const X_0 Int)", "line 1: expected (declare-const X_0 Real)"),
    "no VNN-LIB": ("network,property\na,b\n", "line 1: expected a declaration or an assertion, got 'network,property'"),
    "too large": (
        HEAD + BOX + "(assert (or (<= Y_0 0) (<= Y_0 1)))" * 14,
        "at most 10,000 conjunctions in normal form, got 16,384",
    ),
    "too deep": (
        f"{HEAD}{BOX}(assert {'(and ' * 101}(<= Y_0 0){')' * 102}",
        "line 6: expected at most 100 groups within each other",
    ),
    "version 3": ("(vnnlib-version <3.0>)", "line 1: expected (vnnlib-version <2.0>)"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_files_are_told_in_one_line(name: str, read: Read) -> None:
    text, expected = BAD[name]
    with pytest.raises(UserError, match=re.escape(expected)) as told:
        read(text)
    assert "\n" not in str(told.value)


@needs_parser
@pytest.mark.parametrize(
    ("assertion", "expected"),
    [
        ("(assert (<= Y[0,2] 0.0))", "line 6: Index out of bounds for variable Y[0,2]"),
        ("(assert (<= Z 0.0))", "line 6: Undeclared variable Z"),
        ("(assert (< Y[0,0] 0.0))", "line 6: expected <=, >= or ==, got"),
        ("(assert (<= (* Y[0,0] Y[0,1]) 0.0))", "line 6: expected a number in every product"),
        ("(assert (>= X[0,0] 2.0))", "line 6: X_0 is at least 2 and at most 1"),
        ("(assert (<= Y[0,0]", "line 6: the group that begins here has no )"),
        ("(assert (<= Y[0,0] 1e9))", "syntax error at line 6"),
    ],
)
def test_bad_files_of_version_2_are_told_in_one_line(assertion: str, expected: str, read: Read) -> None:
    with pytest.raises(UserError, match=re.escape(expected)) as told:
        read(f"{SECOND}{SECOND_BOX}{assertion}")
    assert "\n" not in str(told.value)


@needs_parser
def test_version_2_says_the_same_with_indices(read: Read) -> None:
    asked = read(f"{SECOND}{SECOND_BOX}(assert (or (<= (+ (- (- Y[0,0]) -1.0) (* 2.0 Y[0,1]) ) 4.0) (>= Y[0,1] Y[0,0])))")
    assert (asked.cases[0].lower.tolist(), asked.cases[0].upper.tolist()) == ([0, -0.5], [1, 0.5])
    assert rows(asked) == [[[-1, 2, 3]], [[1, -1, 0]]]


def test_version_2_without_its_parser_says_what_to_install(read: Read, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("plugin.formats.extras.installed", lambda package: False)
    with pytest.raises(
        UserError, match=re.escape('needs the package vnnlib, which is not installed: pip install "newrelax[onnx]"')
    ):
        read(f"{SECOND}{SECOND_BOX}")


@pytest.mark.parametrize("damage", ["absent", "cut", "no gzip", "no text"])
def test_files_that_cannot_be_read(damage: str, tmp_path: Path) -> None:
    path = tmp_path / ("asked.vnnlib" if damage == "no text" else "asked.vnnlib.gz")
    whole = gzip.compress((HEAD + BOX).encode())
    if damage != "absent":
        path.write_bytes({"cut": whole[:40], "no gzip": HEAD.encode(), "no text": b"\xff\xfe\x00"}[damage])
    with pytest.raises(UserError, match=f"property {re.escape(str(path))}.*(no such file|damaged|expected text)"):
        read_property(path)


def random_property(seed: int) -> Property:
    """Boxes with ends of all sizes, among them equal ones; conjunctions of sparse half-spaces."""
    draw = random.Random(seed)
    inputs, outputs = draw.randint(1, 6), draw.randint(1, 4)

    def number() -> float:
        return draw.choice([0.0, 1.0, -1.0, draw.uniform(-2, 2), draw.uniform(-1, 1) * 10.0 ** draw.randint(-30, 20)])

    cases = []
    for _ in range(draw.randint(1, 3)):
        ends = torch.tensor([sorted((number(), number())) for _ in range(inputs)], dtype=torch.float64)
        unsafe = []
        for _ in range(draw.randint(1, 3)):
            matrix = torch.tensor([[number() for _ in range(outputs)] for _ in range(draw.randint(1, 3))], dtype=torch.float64)
            matrix[matrix.abs().sum(1) == 0, 0] = 1.0  # a row without outputs says nothing, and is not written
            unsafe.append(Conjunction(matrix, torch.tensor([number() for _ in matrix], dtype=torch.float64)))
        cases.append(Case(ends[:, 0], ends[:, 1], tuple(unsafe)))
    return Property(inputs, outputs, tuple(cases))


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("seed", range(25))
def test_what_is_written_reads_back_the_same(seed: int, version: int, read: Read) -> None:
    asked = random_property(seed)
    again = read(write_property(asked, version, comment="a\nquestion"))
    assert (again.inputs, again.outputs) == (asked.inputs, asked.outputs)
    for found, case in zip(again.cases, asked.cases, strict=True):
        assert found.lower.equal(case.lower)
        assert found.upper.equal(case.upper)
        for mine, theirs in zip(found.unsafe, case.unsafe, strict=True):
            assert mine.matrix.equal(theirs.matrix)
            assert mine.limit.equal(theirs.limit)


@needs_parser
def test_the_official_parser_reads_version_2() -> None:
    import vnnlib

    lower, upper = torch.zeros(1, 2, 2), torch.full((1, 2, 2), 1e-9)
    text = write_property(robustness(lower, upper, 1, 3), 2, comment="x", input_shape=(1, 1, 2, 2), output_shape=(1, 3))
    query = vnnlib.parse_query_string(text)
    (network,) = query.networks
    assert (network.inputs[0].shape, network.outputs[0].shape) == ([1, 1, 2, 2], [1, 3])
    assert len(query.assertions) == 9
    assert "(<= Y[0,1] Y[0,2])" in text


@pytest.mark.parametrize(("label", "unsafe"), [(0, [[[-1, 0]]]), (1, [[[1, 0]]])])
def test_one_logit_is_unsafe_where_its_sign_turns(label: int, unsafe: object) -> None:
    assert rows(robustness(torch.zeros(2), torch.ones(2), label, 1)) == unsafe


@pytest.mark.parametrize(
    ("point", "outputs", "met"),
    [([0.5, 0.5], [1.0, 1.0], True), ([0.5, 0.5], [1.1, 1.0], False), ([0.5, 1.5], [0.0, 1.0], False)],
    ids=["tie", "safe", "outside"],
)
def test_a_counterexample_lies_in_the_box_and_in_the_half_spaces(point: list[float], outputs: list[float], met: bool) -> None:
    asked = robustness(torch.zeros(2), torch.ones(2), 0, 2)
    assert asked.met_by(torch.tensor(point), torch.tensor(outputs)) is met


@pytest.mark.parametrize(
    ("name", "cases"),
    [("prop_1", [[1]]), ("prop_3", [[4]]), ("prop_6", [[1] * 4] * 2), ("prop_7", [[3, 3]]), ("prop_8", [[2] * 3])],
)
def test_the_competitions_acasxu(name: str, cases: list[list[int]], shared_dir: Path) -> None:
    """How many half-spaces each conjunction of each box has, counted in the files by eye."""
    asked = read_property(shared_dir / "vnncomp/acasxu/vnnlib" / f"{name}.vnnlib.gz")
    assert (asked.inputs, asked.outputs) == (5, 5)
    assert [[len(each.limit) for each in case.unsafe] for case in asked.cases] == cases
