"""The bridge: the one module that knows which auto_LiRPA and which torch are installed.

auto_LiRPA 0.3 (the newest release on PyPI) was written for torch 1.x and numpy 1.x; upstream 0.7 for torch
2.x. Both work with today's torch once the few private helpers that they look up are supplied. Only what the
installed versions lack is patched. Everything else of this project gets auto_LiRPA's classes from here.
"""

from __future__ import annotations

import contextlib
import importlib
import inspect
import io
import logging
import sys
import types
import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch

from newrelax.errors import UserError

INSTALL_HINT = "install auto_LiRPA 0.3 (PyPI) or 0.7 (github.com/Verified-Intelligence/auto_LiRPA)"
SUPPORTED = ("0.3", "0.4", "0.5", "0.6", "0.7")


def _first(attribute: str, *modules: str) -> Any:
    """The attribute from the first of the modules that has it; torch moved these helpers in 2.9."""
    for name in modules:
        with contextlib.suppress(ImportError):
            module = importlib.import_module(name)
            if hasattr(module, attribute):
                return getattr(module, attribute)
    raise UserError(
        f"torch {torch.__version__} has no {attribute} in any of {', '.join(modules)}; this project supports torch 2.8 to 2.15"
    )


_EXPORTER = "torch.onnx._internal.torchscript_exporter"
_GLOBALS = _first("GLOBALS", f"{_EXPORTER}._globals", "torch.onnx._globals")
_node_get = _first("_node_get", f"{_EXPORTER}.symbolic_helper", "torch.onnx.symbolic_helper")


def _set_opset_version(version: int) -> None:
    _GLOBALS.export_onnx_opset_version = version


def _patch() -> None:
    import torch.onnx.symbolic_helper as symbolic_helper
    import torch.onnx.utils as onnx_utils

    if "numpy.lib.arraysetops" not in sys.modules and not hasattr(np.lib, "arraysetops"):
        arraysetops = types.ModuleType("numpy.lib.arraysetops")
        arraysetops.isin = np.isin  # type: ignore[attr-defined]
        sys.modules["numpy.lib.arraysetops"] = arraysetops
    if not hasattr(symbolic_helper, "_set_opset_version"):
        symbolic_helper._set_opset_version = _set_opset_version  # type: ignore[attr-defined]
    if not hasattr(onnx_utils, "_optimize_graph"):
        onnx_utils._optimize_graph = _first("_optimize_graph", f"{_EXPORTER}.utils")
    if not hasattr(torch._C.Node, "__getitem__"):
        torch._C.Node.__getitem__ = _node_get  # type: ignore[method-assign]


@contextlib.contextmanager
def _global_settings_kept() -> Iterator[None]:
    """auto_LiRPA's import sets up the root logger, the warning filters and the recursion limit: undo that."""
    root, extensions = logging.getLogger(), logging.getLogger("torch.utils.cpp_extension")
    handlers, level, limit = list(root.handlers), root.level, sys.getrecursionlimit()
    extensions.addFilter(_refuse)  # it reports the absence of a GPU, which is no news here
    with warnings.catch_warnings():
        # a filter would not do: the import sets filters of its own
        warnings.showwarning = lambda *args, **kwargs: None
        try:
            yield
        finally:
            extensions.removeFilter(_refuse)
            root.handlers[:] = handlers
            root.setLevel(level)
            sys.setrecursionlimit(limit)


def _refuse(record: logging.LogRecord) -> bool:
    return False


def _load() -> types.ModuleType:
    _patch()
    with _global_settings_kept():
        try:
            module = importlib.import_module("auto_LiRPA")
        except ImportError as error:
            raise UserError(f"auto_LiRPA cannot be imported ({error}); {INSTALL_HINT}") from error
    version = getattr(module, "__version__", "unknown")
    if not version.startswith(SUPPORTED):
        raise UserError(f"auto_LiRPA {version} is not supported; {INSTALL_HINT}")
    logging.getLogger("auto_LiRPA").setLevel(logging.WARNING)
    return module


auto_LiRPA = _load()
VERSION: str = auto_LiRPA.__version__
IS_03 = VERSION.startswith("0.3")

# The name of the option that selects auto_LiRPA's own ReLU relaxation; a wrong key silently means CROWN.
RELU_OPTION = "relu" if IS_03 else "activation_bound_option"

BoundedModule = auto_LiRPA.BoundedModule
if "remove_duplicate" not in inspect.signature(BoundedModule._named_members).parameters:
    # torch 2 passes the argument; auto_LiRPA 0.3 overrides the method without it and lists parameters itself
    def _named_members(
        self: Any,
        members_of: Any,
        prefix: str = "",
        recurse: bool = True,
        remove_duplicate: bool = True,
        _original: Any = BoundedModule._named_members,
    ) -> Any:
        return _original(self, members_of, prefix, recurse)

    BoundedModule._named_members = _named_members
BoundedTensor = auto_LiRPA.BoundedTensor
PerturbationLpNorm = auto_LiRPA.PerturbationLpNorm


def _operators(*names: str) -> list[Any]:
    modules = [
        importlib.import_module(f"auto_LiRPA.{m}")
        for m in (
            (
                "operators.base",
                "operators.activation",
                "operators.bivariate",
                "operators.linear",
                "operators.convolution",
                "operators.shape",
                "operators.leaf",
                "operators.pooling",
                "linear_bound",
            )
            if IS_03
            else (
                "operators.base",
                "operators.activation_base",
                "operators.relu",
                "operators.add_sub",
                "operators.linear",
                "operators.convolution",
                "operators.reshape",
                "operators.leaf",
                "operators.pooling",
                "operators.slice_concat",
                "linear_bound",
            )
        )
    ]
    found = []
    for name in names:
        owner = next((m for m in modules if hasattr(m, name)), None)
        if owner is None:
            raise UserError(f"auto_LiRPA {VERSION} has no operator {name}; {INSTALL_HINT}")
        found.append(getattr(owner, name))
    return found


(
    Bound,
    BoundActivation,
    BoundRelu,
    BoundAdd,
    BoundSub,
    BoundLinear,
    BoundConv,
    BoundFlatten,
    BoundAveragePool,
    BoundConcat,
    BoundParams,
    LinearBound,
) = _operators(
    "Bound",
    "BoundActivation",
    "BoundRelu",
    "BoundAdd",
    "BoundSub",
    "BoundLinear",
    "BoundConv",
    "BoundFlatten",
    "BoundAveragePool",
    "BoundConcat",
    "BoundParams",
    "LinearBound",
)


def has_bounds(node: Any) -> bool:
    """Whether the running call of `compute_bounds` has found the node's bounds already."""
    if hasattr(node, "is_lower_bound_current"):
        return bool(node.is_lower_bound_current())
    return getattr(node, "lower", None) is not None


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """auto_LiRPA prints, warns and logs while it works, and recurses along the graph: none of it reaches the user."""
    logger = logging.getLogger("auto_LiRPA")
    level, limit = logger.level, sys.getrecursionlimit()
    logger.setLevel(logging.CRITICAL)
    sys.setrecursionlimit(max(limit, 100_000))
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        warnings.simplefilter("ignore")
        try:
            yield
        finally:
            logger.setLevel(level)
            sys.setrecursionlimit(limit)


@contextlib.contextmanager
def tracing() -> Iterator[None]:
    """Settings under which BoundedModule can trace a module: opset 12, custom autograd functions not inlined."""
    opset, inlining = _GLOBALS.export_onnx_opset_version, _GLOBALS.autograd_inlining
    _GLOBALS.autograd_inlining = False
    try:
        yield
    finally:
        _GLOBALS.autograd_inlining = inlining
        _GLOBALS.export_onnx_opset_version = opset


@contextlib.contextmanager
def default_dtype(dtype: torch.dtype) -> Iterator[None]:
    """Tensors that auto_LiRPA creates without a dtype get this one, so that float64 networks can be bounded."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


def traced(module: torch.nn.Module, sample: Any) -> Any:
    """The `BoundedModule` of a user's own module, as auto_LiRPA itself makes it; inside `quiet` and `tracing`."""
    bounded = BoundedModule(module, sample, bound_opts={"sparse_intermediate_bounds": False}, device=sample.device)
    bounded.eval()
    bounded._parameters["like"] = torch.nn.Parameter(sample.new_empty(0), requires_grad=False)
    return bounded
