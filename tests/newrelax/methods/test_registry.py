"""Names, parameters, plugin files, and a real installed package."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest
import torch

from newrelax import Method, Registry, UserError, relaxation
from newrelax.methods.builtin import BUILTIN
from tests.conftest import REPOSITORY

PLUGIN = '''
"""A plugin of somebody else's."""
from newrelax import relaxation
from newrelax.relaxations.crown import crown, chord

@relaxation("Half", minimum={"slope": 0.0})
def half(lower, upper, *, slope: float = 0.5):
    """Half: lower slope 1/2; upper the chord."""
    steep, offset = chord(lower, upper)
    return slope, 0.0, steep, offset
'''

METHODS = """
from newrelax import Method, relaxation

@relaxation("Lines", propagation="hybrid", parallel=True)
def lines(lower, upper):
    return 0.0, 0.0, 0.0, upper

also = lines
backward = Method("Lines", propagation="backward", relaxation=lines)
hybrid = Method("hLines", propagation="hybrid", relaxation=lines)
"""


@pytest.fixture(scope="module")
def registry() -> Registry:
    return Registry.load()


def write(folder: Path, text: str, name: str = "mine.py") -> Path:
    path = folder / name
    path.write_text(text)
    return path


NAMES = [
    "alpha-CROWN:steps=20,depth=1",
    "natural",
    "PGD",
    "IBP",
    "CROWN",
    "CROWN-IBP",
    "CROWN-IBP-R",
    "hBox",
    "hBox-Diag",
    "hBox-Diag-C",
    "hBox-Switch",
    "hBox-DeepZ",
    "DeepZ",
    "DeepZ-Box",
    "DeepZ-Diag",
    "DeepZ-Diag-C",
    "DeepZ-Switch",
    "DeepZ-Soft:gamma=1",
    "DeepZ-IBP-R",
    "CROWN-0",
    "CROWN-0-C",
    "CROWN-1",
    "CROWN-1-C",
    "CROWN-0-Tria",
    "CROWN-0-Tria-C",
    "CROWN-1-Tria",
    "CROWN-1-Tria-C",
    "CROWN-Soft:gamma=1",
    "CROWN-Soft-IBP-R:gamma=10",
    "IBP-Widen:omega=0.5",
    "IBP-Round:omega=0.5,F=10",
    "DeepZ-Cauchy:k=50",
    "hBox-Cauchy:k=50",
    "CROWN-IBP-RandomSlope",
]


@pytest.mark.parametrize("label", NAMES)
def test_every_name_exists_with_its_default_parameters(registry: Registry, label: str) -> None:
    method = registry.get_method(label)
    assert method.label == label == registry.get_method(method.name).label
    assert registry.source(method.name) == "newrelax (built-in)"
    assert method.summary
    assert method.certify_with is None or method.certify_with in registry
    assert method.sound == ("Cauchy" not in label)


def test_the_builtin_names_are_exactly_these(registry: Registry) -> None:
    assert {method.label for method in registry.values()} >= set(NAMES)
    assert {method.label for method in BUILTIN} == set(NAMES)


def test_parameters_reach_the_lines(registry: Registry) -> None:
    lower, upper = torch.tensor([-1.0]), torch.tensor([2.0])
    slopes = [
        registry.get_method(f"CROWN-Soft:gamma={gamma}").relaxation(lower, upper).lower_slope.item() for gamma in (0, 1, 2)
    ]
    assert slopes == pytest.approx([0.5, 1 / (1 + 2.718281828**-1.5), 1 / (1 + 2.718281828**-3)])
    assert registry.get_method("IBP-Round:F=3").label == "IBP-Round:omega=0.5,F=3"
    assert registry.get_method(" IBP-Round: omega = 1 , F=2").label == "IBP-Round:omega=1,F=2"
    assert registry.get_method("DeepZ-Cauchy:k=7").propagation.k == 7
    # The value in the registry is untouched.
    assert registry.get_method("CROWN-Soft").label == "CROWN-Soft:gamma=1"


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("crown", r"unknown method 'crown'; did you mean CROWN.*known: natural, PGD, IBP"),
        ("nothing", r"unknown method 'nothing' \(known: natural"),
        ("", "unknown method ''"),
        ("CROWN:gamma=1", "CROWN has no parameter 'gamma'; its parameters: none"),
        ("CROWN-Soft:gama=1", "no parameter 'gama'; its parameters: gamma"),
        ("CROWN-Soft:gamma=high", "gamma must be a number, got 'high'"),
        ("CROWN-Soft:gamma=nan", "gamma must be a finite number, got nan"),
        ("CROWN-Soft:gamma=-1", "gamma must be at least 0, got -1"),
        ("IBP-Widen:omega=-0.5", "omega must be at least 0"),
        ("IBP-Round:F=0", "F must be at least 1e-06, got 0"),
        ("CROWN-Soft:", "expected NAME:key=value"),
        ("CROWN-Soft:1", "expected NAME:key=value"),
        ("CROWN-Soft:gamma=1,gamma=2", "gives parameter 'gamma' twice"),
        ("DeepZ-Cauchy:k=0", "k must be at least 1"),
        ("DeepZ-Cauchy:k=2.5", "k must be a whole number"),
    ],
)
def test_a_wrong_spelling_is_explained(registry: Registry, spec: str, message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        registry.get_method(spec)
    assert "\n" not in str(caught.value)


def test_a_plugin_file_joins(tmp_path: Path) -> None:
    path = write(tmp_path, PLUGIN)
    registry = Registry.load([path, str(path)])
    method = registry.get_method("Half:slope=0.25")
    assert method.summary == "Half: lower slope 1/2; upper the chord."
    assert (method.propagation.name, method.recipe, method.sound) == ("backward", "CROWN", True)
    assert method.relaxation is not None
    assert method.relaxation(torch.tensor([-1.0]), torch.tensor([1.0])).lower_slope.item() == 0.25
    assert registry.source("Half") == str(path.resolve())
    assert len(registry) == len(Registry.load()) + 1
    assert "Half" not in Registry.load(), "loading must not register anything globally"


def test_a_plugin_file_may_hold_methods(tmp_path: Path) -> None:
    registry = Registry.load([write(tmp_path, METHODS)])
    assert registry["Lines"].propagation.name == "backward"
    assert registry["hLines"].propagation.name == "hybrid"
    assert registry["hLines"].recipe == "hBox"


def test_two_plugin_files_of_one_stem(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    first = write(tmp_path / "a", PLUGIN)
    second = write(tmp_path / "b", PLUGIN.replace('"Half"', '"Third"'))
    assert {"Half", "Third"} <= set(Registry.load([first, second]))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (PLUGIN.replace('"Half"', '"CROWN"'), "built-in.* already has 'CROWN'"),
        (PLUGIN.replace('"Half"', '"hbox"'), "built-in.* already has 'hBox'"),
        ("from newrelax.relaxations.crown import crown\n", "has nothing to add: expected at module level a function with"),
        ("def broken(:\n", "cannot be loaded: SyntaxError"),
        ("import does_not_exist_anywhere\n", "cannot be loaded: ModuleNotFoundError"),
        (PLUGIN.replace('"Half"', '"a b"'), "expected a name without spaces"),
        (PLUGIN.replace(": float = 0.5", ""), "parameter slope must be a finite number"),
        (METHODS.replace('"backward"', '"sideways"'), "unknown propagation 'sideways'"),
    ],
    ids=("taken", "capitals", "nothing", "syntax", "import", "name", "default", "propagation"),
)
def test_a_wrong_plugin_is_explained(tmp_path: Path, text: str, message: str) -> None:
    path = write(tmp_path, text)
    with pytest.raises(UserError, match=message) as caught:
        Registry.load([path])
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_missing_plugin_is_explained(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no plugin file at .*absent.py"):
        Registry.load([tmp_path / "absent.py"])


def test_a_method_checks_itself() -> None:
    @relaxation("Loose", sound=False)
    def loose(lower, upper):  # type: ignore[no-untyped-def]
        return 0.0, 0.0, 0.0, 0.0

    assert not Method.from_relaxation(loose).sound
    with pytest.raises(UserError, match="needs a relaxation, got None"):
        Method("Bare", propagation="backward")
    with pytest.raises(UserError, match="unknown recipe 'soup'"):
        Method("Bare", propagation="interval", recipe="soup")


PYPROJECT = """
[project]
name = "someones-relaxations"
version = "1.0"
[project.entry-points."newrelax.relaxations"]
half = "someones_relaxations"
[build-system]
requires = ["setuptools"]
build-backend = "setuptools.build_meta"
[tool.setuptools]
py-modules = ["someones_relaxations"]
"""


def test_an_installed_package_joins_by_entry_point(tmp_path: Path) -> None:
    """Builds a real package, installs it in an environment of its own, and asks by name there."""
    if importlib.util.find_spec("setuptools") is None:
        pytest.skip("setuptools, which builds the package, is not installed")
    package = tmp_path / "package"
    package.mkdir()
    third = PLUGIN.replace('"Half"', '"Third"').replace("def half", "def third")
    write(package, PYPROJECT, "pyproject.toml")
    write(package, PLUGIN + third, "someones_relaxations.py")
    environment = tmp_path / "environment"
    subprocess.run([sys.executable, "-m", "venv", environment], check=True)
    python = environment / "bin" / "python"
    purelib = subprocess.run(
        [python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"],
        check=True,
        capture_output=True,
        text=True,
    ).stdout.strip()
    # Torch and setuptools come from this environment; nothing is downloaded.
    outer = sysconfig.get_path("purelib")
    Path(purelib, "outer.pth").write_text(outer + "\n")
    subprocess.run(
        [
            python,
            "-m",
            "pip",
            "install",
            "--quiet",
            "--disable-pip-version-check",
            "--no-index",
            "--no-build-isolation",
            "--no-deps",
            package,
        ],
        check=True,
        env={**os.environ, "PYTHONPATH": outer},
    )
    code = (
        "from newrelax import Registry\n"
        "r = Registry.load()\n"
        "print(r.get_method('Half:slope=0.75').label, '|', r.source('Half'), '|', 'Third' in r)\n"
    )
    done = subprocess.run(
        [python, "-c", code],
        check=True,
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
    )
    assert done.stdout.strip() == ("Half:slope=0.75 | entry point 'half' (someones_relaxations) | True")


def test_a_plugin_s_path_makes_it_no_builtin(tmp_path: Path) -> None:
    folder = tmp_path / "newrelax (built-in)"
    folder.mkdir()
    (folder / "half.py").write_text(PLUGIN)
    registry = Registry.load([folder / "half.py"])
    assert not registry.is_builtin("Half")
    assert registry.is_builtin("CROWN")


@pytest.mark.parametrize("gamma", [1.23456789, 0.9999999, 1e-7, 10.0])
def test_a_label_names_the_exact_parameter(registry: Registry, gamma: float) -> None:
    method = registry.get_method(f"CROWN-Soft:gamma={gamma!r}")
    assert registry.get_method(method.label) == method
