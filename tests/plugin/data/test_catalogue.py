"""What a word after --dataset means: a path, a name, a factory."""

from pathlib import Path

import numpy as np
import pytest

from newrelax.errors import UserError
from plugin.data import dataset, find, load
from plugin.data.builtin import BUILTIN


def write_archive(path: Path, features: int) -> None:
    x, y = np.zeros((4, features)), np.arange(4) % 2
    np.savez(path, x_train=x, y_train=y, x_test=x, y_test=y)


@dataset("mine.npz", eps=0.5)
def mine() -> tuple[np.ndarray, ...]:
    """A data set with a name like a file's."""
    return np.zeros((4, 7)), np.arange(4) % 2, np.zeros((4, 7)), np.arange(4) % 2


NAMED = [("here", mine)]


def test_defaults_of_the_built_in_ones() -> None:
    assert {each.name: (each.eps, each.model) for each in BUILTIN} == {
        "digits": (0.1, "CONV"),
        "mnist": (0.3, "CONV"),
        "fashion-mnist": (0.3, "CONV"),
        "svhn": (8 / 255, "CONV"),
        "cifar10": (8 / 255, "CONV+"),
    }
    assert find("digits") is BUILTIN[0]


def test_an_existing_path_with_a_suffix_wins_over_a_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert load("mine.npz", named=NAMED).input_shape == (7,)
    assert find("mine.npz", NAMED) is mine
    write_archive(tmp_path / "mine.npz", features=2)
    assert load("mine.npz", named=NAMED).input_shape == (2,)
    assert find("mine.npz", NAMED) is None


def test_a_bare_word_is_a_name_even_where_a_folder_has_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "digits").mkdir()
    (tmp_path / "pictures").mkdir()
    assert load("digits").input_shape == (1, 8, 8)
    with pytest.raises(UserError, match=r"unknown data set 'pictures': write \./pictures for the folder"):
        load("pictures")
    with pytest.raises(UserError, match="folder pictures: expected train/ and test/"):
        load("./pictures")


def test_home_is_expanded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    write_archive(tmp_path / "mine.npz", features=3)
    assert load("~/mine.npz").input_shape == (3,)


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ("cifar", "'cifar'; did you mean cifar10.*digits, mnist, fashion-mnist, svhn, cifar10"),
        (
            "nothing-like-it",
            "'nothing-like-it' .*known: digits, .*package.module:factory, a folder of pictures, or an .npz file",
        ),
        ("", "unknown data set ''"),
        ("absent.npz", "absent.npz: expected a folder of pictures or an .npz file, found nothing at that path"),
        ("absent/folder", "absent/folder: expected a folder of pictures or an .npz file, found nothing at that path"),
        ("table.csv", r"table.csv: expected a folder of pictures or an .npz file, got a file that ends in \.csv"),
    ],
)
def test_what_is_neither_is_told_what_there_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, spec: str, expected: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "table.csv").write_text("1,2")
    with pytest.raises(UserError, match=expected) as caught:
        load(spec)
    assert "\n" not in str(caught.value)
    assert find(spec) is None
