"""Network architectures, models of the user's own, and reading weights."""

import importlib
import inspect
import zipfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from types import MappingProxyType

import torch
from torch import Tensor, nn

from newrelax.errors import UserError
from newrelax.network.modes import evaluating
from plugin.process.streams import seeded

Shape = tuple[int, int, int]
NORMALIZE_KEYS = {"layers.0.mean": "mean", "layers.0.sigma": "std"}  # as published state dicts name them


class Normalize(nn.Module):
    """(x − mean) / std for each channel; x: (batch, channels, height, width), pixels in [0, 1].

    mean and std are buffers of shape (channels, 1, 1) that move with the model but are not part of its state dict:
    they belong to the data set, not to the training.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(mean).view(-1, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(-1, 1, 1), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        return (x - self.mean) / self.std


class Network(nn.Module):
    """Layers one after the other, normalisation first. State-dict keys are `layers.N.*`, N counting every layer."""

    def __init__(self, mean: Sequence[float], std: Sequence[float], *layers: nn.Module) -> None:
        super().__init__()
        self.layers = nn.Sequential(Normalize(mean, std), *layers)

    def forward(self, x: Tensor) -> Tensor:
        """Logits (batch, classes) of pixels (batch, channels, height, width)."""
        return self.layers(x)


def _size(shape: Shape) -> int:
    channels, height, width = shape
    return channels * height * width


def _conv(shape: Shape, filters: int, kernel: int, stride: int, padding: int) -> tuple[nn.Conv2d, Shape]:
    """A convolution of images of `shape`, with the shape of what it gives.

    The kernel is cut to the padded image where that is smaller, as happens in CONV+ on 8×8 digits.
    """
    channels, *sides = shape
    kernels = tuple(min(kernel, side + 2 * padding) for side in sides)
    height, width = ((side + 2 * padding - k) // stride + 1 for side, k in zip(sides, kernels, strict=True))
    return nn.Conv2d(channels, filters, (kernels[0], kernels[1]), stride, padding), (filters, height, width)


def fc(input_shape: Shape, classes: int) -> list[nn.Module]:
    """Fully connected, hidden layers 400-200-100-100 (the paper's FC)."""
    layers: list[nn.Module] = [nn.Flatten()]
    width = _size(input_shape)
    for hidden in (400, 200, 100, 100):
        layers += [nn.Linear(width, hidden), nn.ReLU()]
        width = hidden
    return [*layers, nn.Linear(width, classes)]


def conv(input_shape: Shape, classes: int) -> list[nn.Module]:
    """16 filters 4×4 stride 2 padding 1, then fully connected 100 (the paper's CONV)."""
    first, shape = _conv(input_shape, 16, kernel=4, stride=2, padding=1)
    return [first, nn.ReLU(), nn.Flatten(), nn.Linear(_size(shape), 100), nn.ReLU(), nn.Linear(100, classes)]


def conv_plus(input_shape: Shape, classes: int) -> list[nn.Module]:
    """16 filters 4×4 stride 2, 32 filters 4×4 stride 1, no padding, then fully connected 100 (the paper's CONV+)."""
    first, shape = _conv(input_shape, 16, kernel=4, stride=2, padding=0)
    second, shape = _conv(shape, 32, kernel=4, stride=1, padding=0)
    head = [nn.Flatten(), nn.Linear(_size(shape), 100), nn.ReLU(), nn.Linear(100, classes)]
    return [first, nn.ReLU(), second, nn.ReLU(), *head]


def cnn7(input_shape: Shape, classes: int) -> list[nn.Module]:
    """The seven-layer batch-norm network of Shi et al., "Fast certified robust training with short warmup" (2021).

    3×3 convolutions with 64, 64, 128 (stride 2), 128, 128 filters, fully connected 512; each of the six hidden
    layers is followed by batch norm and ReLU (the variant with batch norm after the fully connected layer too).
    """
    layers: list[nn.Module] = []
    shape = input_shape
    for filters, stride in ((64, 1), (64, 1), (128, 2), (128, 1), (128, 1)):
        layer, shape = _conv(shape, filters, kernel=3, stride=stride, padding=1)
        layers += [layer, nn.BatchNorm2d(filters), nn.ReLU()]
    hidden = [nn.Linear(_size(shape), 512), nn.BatchNorm1d(512), nn.ReLU()]
    return [*layers, nn.Flatten(), *hidden, nn.Linear(512, classes)]


ARCHITECTURES: Mapping[str, Callable[[Shape, int], list[nn.Module]]] = MappingProxyType(
    {"FC": fc, "CONV": conv, "CONV+": conv_plus, "CNN7": cnn7}
)


def build(
    name: str,
    input_shape: Shape,
    classes: int,
    mean: Sequence[float],
    std: Sequence[float],
    seed: int | None = None,
) -> nn.Module:
    """A network with freshly drawn weights, on the CPU: pixels (batch, *input_shape) in [0, 1] to (batch, classes).

    name: one of ARCHITECTURES, or `package.module:factory` for the user's own; the factory is called with those of
    input_shape, classes, mean and std that it takes as keyword arguments, and normalises by itself if it wants to.
    seed: the weights are drawn from this seed, and the global random stream is left as it was; None draws from the
    global stream. Layers keep torch's default initialisation.
    Raises UserError for an unknown name, and for a factory that fails or gives something else than such a network.
    """
    stream = nullcontext if seed is None else partial(seeded, seed)
    if name in ARCHITECTURES:
        with stream():
            return Network(mean, std, *ARCHITECTURES[name](input_shape, classes))
    if ":" not in name:
        known = ", ".join(ARCHITECTURES)
        raise UserError(f"unknown model {name!r}: expected one of {known}, or package.module:factory")
    with stream():  # apart from building: what a module draws when it is first imported must not move the weights
        factory = _find_factory(name)
    with stream():
        return _build_own(name, factory, input_shape=input_shape, classes=classes, mean=tuple(mean), std=tuple(std))


def _find_factory(name: str) -> Callable[..., object]:
    module_name, _, factory_name = name.partition(":")
    try:
        factory = getattr(importlib.import_module(module_name), factory_name)
    except Exception as problem:  # the user's module may fail in any way when it is imported
        raise UserError(f"model {name}: cannot be imported ({_brief(problem)})") from problem
    if not callable(factory) or isinstance(factory, nn.Module):
        raise UserError(f"model {name}: expected a function or class that makes an nn.Module, got {type(factory).__name__}")
    return factory


def _build_own(name: str, factory: Callable[..., object], **known: object) -> nn.Module:
    try:
        model = factory(**_accepted(factory, known))
    except Exception as problem:
        raise UserError(f"model {name}: its factory failed ({_brief(problem)})") from problem
    if not isinstance(model, nn.Module):
        raise UserError(f"model {name}: expected the factory to give an nn.Module, got {type(model).__name__}")
    _check_output(name, model, known["input_shape"], known["classes"])
    return model


def _accepted(factory: Callable[..., object], known: Mapping[str, object]) -> dict[str, object]:
    try:
        parameters = inspect.signature(factory).parameters.values()
    except ValueError:  # some classes written in C tell nothing about their arguments
        return {}
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters):
        return dict(known)
    by_keyword = {p.name for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)}
    return {key: value for key, value in known.items() if key in by_keyword}


def _check_output(name: str, model: nn.Module, input_shape: object, classes: object) -> None:
    assert isinstance(input_shape, tuple)
    try:
        with evaluating(model), torch.no_grad():
            output = model(torch.zeros(2, *input_shape))
    except Exception as problem:
        raise UserError(f"model {name}: fails on images of shape {input_shape} ({_brief(problem)})") from problem
    shapes = [(2, classes)] + ([(2, 1)] if classes == 2 else [])  # one logit decides between two classes by its sign
    if not isinstance(output, Tensor) or tuple(output.shape) not in shapes:
        got = tuple(output.shape) if isinstance(output, Tensor) else type(output).__name__
        raise UserError(f"model {name}: expected logits of shape (2, {classes}) for 2 images, got {got}")


def load_weights(model: nn.Module, path: Path | str) -> None:
    """Copy the weights in the file `path` into `model`, all or nothing.

    The file holds a state dict, alone or under the key "model" (as in a run's checkpoint). It is read with
    torch.load(weights_only=True): it cannot run code. Published state dicts that also store the mean and std of
    normalisation (`layers.0.mean`, `layers.0.sigma`) must have the model's.
    Raises UserError for a file that is absent, damaged, of another kind, or made for another network.
    """
    path = Path(path)
    set_weights(model, _read_state(path), path)


def set_weights(model: nn.Module, weights: Mapping[str, Tensor], path: Path) -> None:
    """Copy a state dict, which came from the file `path`, into `model`, all or nothing; see load_weights."""
    state = dict(weights)
    expected = model.state_dict()
    _check_normalization(model, state, path)
    problems = [f"{key} is missing" for key in expected if key not in state]
    problems += [f"{key} is unknown" for key in state if key not in expected]
    problems += [
        f"{key} is {tuple(state[key].shape)}, expected {tuple(value.shape)}"
        for key, value in expected.items()
        if key in state and state[key].shape != value.shape
    ]
    if problems:
        more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
        raise UserError(
            f"weights {path} do not fit the model: {problems[0]}{more}; "
            "choose the --model and --dataset that they were trained with"
        )
    with torch.no_grad():
        for key, value in expected.items():
            value.copy_(state[key])


def _read_state(path: Path) -> dict[str, Tensor]:
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
        _check_sums(path)
    except FileNotFoundError:
        raise UserError(f"weights {path}: no such file") from None
    except OSError as problem:
        raise UserError(f"weights {path} cannot be read ({problem.strerror or problem})") from problem
    except Exception as problem:  # a damaged file fails wherever the unpickler happens to be
        raise UserError(
            f"weights {path} cannot be read: expected a state dict saved by torch.save, got a damaged file "
            "or one that holds more than tensors (never loaded, since it could run code)"
        ) from problem
    if isinstance(content, Mapping) and isinstance(content.get("model"), Mapping):
        content = content["model"]
    if not isinstance(content, Mapping) or not content or not all(isinstance(v, Tensor) for v in content.values()):
        raise UserError(f"weights {path}: expected a state dict (names to tensors), got {type(content).__name__}")
    return dict(content)


def _check_sums(path: Path) -> None:
    """Raises BadZipFile for changed bytes: torch.load does not look at the checksums that torch.save wrote."""
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            changed = archive.testzip()
        if changed is not None:
            raise zipfile.BadZipFile(changed)


def _check_normalization(model: nn.Module, state: dict[str, Tensor], path: Path) -> None:
    """Take the stored normalisation out of `state`, if the model keeps its own outside its state dict."""
    layers = getattr(model, "layers", None)
    first = layers[0] if isinstance(layers, nn.Sequential) and len(layers) else None
    if not isinstance(first, Normalize):
        return
    for key, name in NORMALIZE_KEYS.items():
        if key not in state:
            continue
        stored, own = state.pop(key).flatten(), getattr(first, name).flatten().cpu()
        if stored.shape != own.shape or not torch.allclose(stored.to(own.dtype), own, atol=1e-4):
            raise UserError(
                f"weights {path} expect pixels normalised with {name} {stored.tolist()}, the model has {own.tolist()}; "
                "choose the --dataset that they were trained with"
            )


def _brief(problem: BaseException) -> str:
    return f"{type(problem).__name__}: {' '.join(str(problem).split())}"
