"""Functions of anybody's own, `package.module:name:key=value`: found, given what was typed, or refused in one line."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import pytest

from newrelax.errors import UserError
from plugin.data import dataset
from plugin.settings.factories import Factory

if TYPE_CHECKING:
    from somewhere import Undefined

OWN = """
constant = 3
def plain(): return "plain"
def fails(): raise ValueError("no such\\n  table")
class Made:
    def __init__(self, width: int = 2): self.width = width
"""


def typed(function: Any, **text: str) -> Factory:
    return Factory("thing", "own.things:it", function, text)


def sized(
    seed: int, *, width: int = 5, slope=0.1, bias: bool = True, norm: Literal["none", "batch"] = "none", folder: Path = Path()
):
    return seed, width, slope, bias, norm, folder


def any_options(width: int = 5, **options: object) -> dict[str, object]:
    return {"width": width, **options}


def hidden(shape: Undefined = None, seed: int = 0) -> int:
    return seed


class Opaque:
    """What no text stands for."""


def exotic(inner: Opaque | None = None) -> object:
    return inner


def bare(classes, width=3):
    return classes, width


@pytest.mark.parametrize(
    ("text", "made"),
    [
        ({}, (7, 5, 0.1, True, "none", Path("a"))),
        ({"width": "6", "slope": "1"}, (7, 6, 1.0, True, "none", Path("a"))),
        ({"bias": "no", "norm": "batch"}, (7, 5, 0.1, False, "batch", Path("a"))),
        ({"seed": "3", "folder": "b"}, (3, 5, 0.1, True, "none", Path("b"))),
    ],
    ids=["defaults", "numbers", "a truth value and a choice", "what is typed goes before what is offered"],
)
def test_parameters_are_read_by_annotations_and_defaults(text: dict[str, str], made: tuple[object, ...]) -> None:
    assert typed(sized, **text)(seed=7, folder="a", unasked=None) == made


def test_without_annotations_what_is_offered_tells_the_type() -> None:
    assert typed(bare, classes="5", width="4")(classes=10) == (5, 4)


def test_a_function_of_any_options_gets_all_that_is_offered_and_text() -> None:
    assert typed(any_options, depth="2", width="3")(seed=7) == {"width": 3, "depth": "2", "seed": 7}


def test_annotations_for_type_checkers_only_do_no_harm_until_their_value_is_typed() -> None:
    assert typed(hidden)(shape=(1, 2), seed=4) == 4
    with pytest.raises(UserError, match=r"annotations of its parameters cannot be read \(NameError: .*Undefined"):
        typed(hidden, shape="3")()


@pytest.mark.parametrize(
    ("function", "text", "words"),
    [
        (sized, {"widht": "6"}, "^unknown parameter of thing own.things:it 'widht'; did you mean width"),
        (sized, {"seed": "1", "width": "wide"}, "parameter width: expected a valid integer.*got 'wide'"),
        (sized, {"seed": "1", "slope": "steep"}, "parameter slope: expected a valid number.*got 'steep'"),
        (sized, {"seed": "1", "bias": "perhaps"}, "parameter bias: expected a valid boolean.*got 'perhaps'"),
        (sized, {"seed": "1", "norm": "layer"}, "parameter norm: expected 'none' or 'batch', got 'layer'"),
        (sized, {}, "^thing own.things:it: expected a value for its parameter seed; give it as :seed=VALUE"),
        (exotic, {"inner": "x"}, "parameter inner: its type .* cannot be given as text"),
    ],
    ids=["unknown", "whole number", "number", "truth value", "choice", "missing", "a type that is no text's"],
)
def test_what_cannot_be_called_is_one_line(function: Any, text: dict[str, str], words: str) -> None:
    with pytest.raises(UserError, match=words) as caught:
        typed(function, **text)()
    assert "\n" not in str(caught.value)


@pytest.fixture
def _importable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Modules that can be imported in this test only."""
    (tmp_path / "own_things.py").write_text(OWN)
    (tmp_path / "own_broken.py").write_text("import nothing_like_this\n")
    (tmp_path / "own_raising.py").write_text("raise OSError('no\\nlicence')\n")
    monkeypatch.syspath_prepend(tmp_path)
    for name in ("own_things", "own_broken", "own_raising"):
        monkeypatch.delitem(sys.modules, name, raising=False)


@pytest.mark.usefixtures("_importable")
def test_functions_and_classes_are_found() -> None:
    assert Factory.find("thing", "own_things:plain")() == "plain"
    made = Factory.find("thing", "own_things:Made:width=9")
    assert (made.name, made.typed, vars(made(unasked=1))) == ("own_things:Made", {"width": "9"}, {"width": 9})


@pytest.mark.parametrize(
    ("spelling", "words"),
    [
        ("own_broken:plain", "module own_broken cannot be imported (ModuleNotFoundError: No module named 'nothing_like_this')"),
        ("own_raising:plain", "module own_raising cannot be imported (OSError: no licence)"),
        ("own_things.absent:plain", "module own_things.absent cannot be imported (ModuleNotFoundError"),
        (".relative:plain", "module .relative cannot be imported (TypeError"),
        (":plain", "module  cannot be imported (ValueError"),
        ("own_things:plian", "module own_things has no 'plian'; did you mean plain"),
        ("own_things:constant", "expected a function or class, got int"),
        ("own_things:fails", "its factory failed (ValueError: no such table)"),
    ],
)
@pytest.mark.usefixtures("_importable")
def test_what_cannot_be_found_or_fails_is_one_line(spelling: str, words: str) -> None:
    with pytest.raises(UserError) as caught:
        Factory.find("thing", spelling)()
    assert str(caught.value).startswith(f"thing {spelling}: {words}")
    assert "\n" not in str(caught.value)


def test_a_named_noun_may_stand_for_its_function(monkeypatch: pytest.MonkeyPatch) -> None:
    named = dataset("rows")(lambda: None)
    monkeypatch.setattr("plugin.data.named.rows", named, raising=False)
    assert Factory.find("data set", "plugin.data.named:rows").make is named


def test_a_functions_own_words_and_traceback_are_kept() -> None:
    def fails() -> None:
        raise RuntimeError

    def refuses() -> None:
        raise UserError("the table is not on this machine; mount it")

    with pytest.raises(UserError, match=r"its factory failed \(RuntimeError\)$") as caught:
        typed(fails)()
    assert isinstance(caught.value.__cause__, RuntimeError)
    with pytest.raises(UserError, match="^the table is not on this machine; mount it$"):
        typed(refuses)()
