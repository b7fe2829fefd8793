"""Packages that only these formats need: there, or one line that says how to get them."""

from __future__ import annotations

import importlib
import importlib.util
import warnings
from types import ModuleType

from newrelax.errors import UserError


def installed(package: str) -> bool:
    """Whether there is such a package; of a module in one, whether there is the package."""
    return importlib.util.find_spec(package.partition(".")[0]) is not None


def require(package: str, purpose: str, extra: str = "onnx") -> ModuleType:
    """The package, or a module in it. purpose: what it is needed for, as the message begins.

    Raises:
        UserError: it is not installed.
    """
    if not installed(package):
        name = package.partition(".")[0]
        raise UserError(f'{purpose} needs the package {name}, which is not installed: pip install "newrelax[{extra}]"')
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the package's own source, which its user cannot mend
        return importlib.import_module(package)
