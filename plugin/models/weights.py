"""Weights from files that may be anything: read without ever running code, and fitted by name."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from newrelax.errors import UserError
from plugin.models.architectures import Normalize
from plugin.process.tensors import Unreadable, load_checked

WRAPPERS = ("model", "state_dict")
"""Keys under which checkpoints keep a state dict: this program's and most others'."""
PREFIXES = ("module.", "_orig_mod.")
"""What DataParallel, DistributedDataParallel and torch.compile put before every name."""
NORMALIZE_KEYS = {"layers.0.mean": "mean", "layers.0.sigma": "std"}
"""How published state dicts name what Normalize keeps outside its own."""
NAMES_SHOWN = 2


def load_weights(model: nn.Module, path: Path | str) -> None:
    """Copies the weights in the file `path` into `model`, all or nothing; see `read_weights` and `set_weights`.

    Raises:
        UserError: the file is absent, damaged, of another kind, or made for another network.
    """
    set_weights(model, read_weights(path), path)


def read_weights(path: Path | str) -> dict[str, Tensor]:
    """The state dict in a file of `torch.save`, alone or under one of WRAPPERS, or in a `.safetensors` file, on the CPU.

    No code in it can run. A changed byte is noticed where the file has checksums, as torch's archives and this program's
    checkpoints have; `.safetensors` files have none, so that only their header and length are checked.

    Raises:
        UserError: the file is absent, damaged, or holds something else.
    """
    path = Path(path)
    try:
        content = _read(path)
    except FileNotFoundError:
        raise UserError(f"weights {path}: no such file") from None
    except OSError as problem:
        raise UserError(f"weights {path} cannot be read ({problem.strerror or problem})") from problem
    except SafetensorError as problem:
        raise UserError(
            f"weights {path} cannot be read: expected a safetensors file, got a damaged one ({problem})"
        ) from problem
    except Unreadable as problem:
        raise UserError(
            f"weights {path} cannot be read: expected a state dict saved by torch.save, got a damaged file "
            "or one that holds more than tensors (never loaded, since it could run code)"
        ) from problem
    for key in WRAPPERS:
        if isinstance(content, Mapping) and isinstance(content.get(key), Mapping):
            content = content[key]
    if not isinstance(content, Mapping) or not content or not all(isinstance(v, Tensor) for v in content.values()):
        raise UserError(f"weights {path}: expected a state dict (names to tensors), got {type(content).__name__}")
    return {str(name): tensor for name, tensor in content.items()}


def set_weights(model: nn.Module, weights: Mapping[str, Tensor], path: Path | str) -> None:
    """Copies a state dict, which came from the file `path`, into `model`, all or nothing.

    A prefix of PREFIXES that every name has and the model's names have not is dropped. State dicts that also store the
    mean and std of normalisation (`layers.0.mean`, `layers.0.sigma`) must have the model's.

    Raises:
        UserError: what is missing, left over or of another shape, by name.
    """
    expected = model.state_dict()
    given = _without_prefixes(weights, expected)
    _take_normalization(model, given, path)
    problem = misfit(given, expected)
    if problem:
        raise UserError(
            f"weights {path} do not fit the model: {problem}; choose the --model and --dataset that they were trained with"
        )
    with torch.no_grad():
        for name, tensor in expected.items():
            tensor.copy_(given[name])


def misfit(given: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> str:
    """How two state dicts differ, in terms of names; nothing where one can be copied into the other."""
    parts = {
        "missing": [name for name in expected if name not in given],
        "left over": [name for name in given if name not in expected],
        "other shape": [
            f"{name} is {tuple(given[name].shape)}, expected {tuple(tensor.shape)}"
            for name, tensor in expected.items()
            if name in given and given[name].shape != tensor.shape
        ],
    }
    return "; ".join(f"{what}: {_first(names)}" for what, names in parts.items() if names)


def _first(names: list[str]) -> str:
    more = len(names) - NAMES_SHOWN
    return ", ".join(names[:NAMES_SHOWN]) + (f" (and {more} more)" if more > 0 else "")


def _read(path: Path) -> object:
    if path.suffix.lower() == ".safetensors":
        return safetensors.torch.load(path.read_bytes())
    return load_checked(path)


def _without_prefixes(weights: Mapping[str, Tensor], expected: Iterable[str]) -> dict[str, Tensor]:
    """The same tensors, without the prefixes that wrappers put before every name, in whatever order they were put."""
    given, names = dict(weights), list(expected)
    while True:
        wrapped = [prefix for prefix in PREFIXES if _all_start(given, prefix) and not _all_start(names, prefix)]
        if not wrapped:
            return given
        given = {name.removeprefix(wrapped[0]): tensor for name, tensor in given.items()}


def _all_start(names: Iterable[str], prefix: str) -> bool:
    names = list(names)
    return bool(names) and all(name.startswith(prefix) for name in names)


def _take_normalization(model: nn.Module, given: dict[str, Tensor], path: Path | str) -> None:
    """Takes the stored normalisation out of `given`, if the model keeps its own outside its state dict.

    Raises:
        UserError: it is not the model's.
    """
    layers = getattr(model, "layers", None)
    first = layers[0] if isinstance(layers, nn.Sequential) and len(layers) else None
    if not isinstance(first, Normalize):
        return
    for key, name in NORMALIZE_KEYS.items():
        if key not in given:
            continue
        stored, own = given.pop(key).flatten(), getattr(first, name).flatten().cpu()
        if stored.shape != own.shape or not torch.allclose(stored.to(own.dtype), own, atol=1e-4):
            raise UserError(
                f"weights {path} expect inputs normalised with {name} {stored.tolist()}, the model has {own.tolist()}; "
                "choose the --dataset that they were trained with"
            )
