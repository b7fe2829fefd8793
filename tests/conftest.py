"""Shared fixtures: the real data, the published networks and the bounds they must give; and how the suite runs."""

import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from plugin import data

REPOSITORY = Path(__file__).resolve().parents[1]


def pytest_addoption(parser: pytest.Parser, pluginmanager: pytest.PytestPluginManager) -> None:
    parser.addoption("--slow", action="store_true", help="run tests marked slow, too")
    if not pluginmanager.hasplugin("xdist"):
        # pyproject.toml names these; without the plugin the suite runs in one process
        parser.addoption("--numprocesses", help="ignored: pytest-xdist is not installed")
        parser.addoption("--dist", help="ignored: pytest-xdist is not installed")


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers(config: pytest.Config) -> int | None:
    """0 where tests or files are picked by name: to start workers would take longer than to run them. None: one a core."""
    picked = config.option.keyword or config.option.lf or any(".py" in given for given in config.args)
    return 0 if picked else None


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Skip what this machine or this call has no place for, and say why."""
    reasons = {}
    if not torch.cuda.is_available():
        reasons["gpu"] = "no CUDA device"
    if not config.getoption("--slow"):
        reasons["slow"] = "slow: runs with --slow"
    for item in items:
        for marker, reason in reasons.items():
            if marker in item.keywords:
                item.add_marker(pytest.mark.skip(reason=reason))


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> Iterator[None]:
    """The suite's tensors are small, and workers share the cores: more threads would only wait for each other.

    Programs that tests start inherit it.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OMP_NUM_THREADS", "1")
        yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def shared_dir() -> Path:
    """The folder with real data and reference networks: `../shared`, or what NEWRELAX_SHARED names."""
    folder = Path(os.environ.get("NEWRELAX_SHARED", REPOSITORY.parent / "shared"))
    if not folder.is_dir():
        pytest.skip(f"no reference data in {folder} (set NEWRELAX_SHARED)")
    return folder


@pytest.fixture(scope="session")
def reference_dir(shared_dir: Path) -> Path:
    """Published state dicts `mnist_NET_WEIGHTS.pt` and `expected_bounds.npz`."""
    folder = shared_dir / "reference"
    if not folder.is_dir():
        pytest.skip(f"no reference networks in {folder}")
    return folder


@pytest.fixture(scope="session")
def mnist(shared_dir: Path) -> data.Dataset:
    """The real MNIST on the CPU, read once in each worker. Tests must not change its tensors."""
    if not (shared_dir / "data" / "MNIST" / "raw").is_dir():
        pytest.skip(f"no MNIST in {shared_dir / 'data'}")
    return data.load("mnist", shared_dir / "data", "cpu")


@pytest.fixture(scope="session")
def expected_bounds(reference_dir: Path) -> dict[str, np.ndarray]:
    """Margins' lower bounds of the published networks, keyed `NET|WEIGHTS|eps|METHOD` (and `NET|WEIGHTS|logits`)."""
    path = reference_dir / "expected_bounds.npz"
    if not path.is_file():
        pytest.skip(f"no expected bounds in {reference_dir}")
    with np.load(path) as archive:
        return dict(archive)
