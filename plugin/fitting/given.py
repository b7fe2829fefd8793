"""What `fit` is handed, checked before anything is traced or written."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn

from newrelax.arguments import check_model, model_dtype
from newrelax.errors import UserError
from plugin.data import Dataset
from plugin.data.arrays import checked, from_returned
from plugin.models.build import check_output
from plugin.settings.config import GIVEN
from plugin.training.callback import Callback


def read_data(data: object) -> Dataset:
    """A data set, or x_train, y_train, x_test, y_test as a sequence or by name, as one to train with.

    Raises:
        UserError: something else, or arrays that cannot be trained with.
    """
    if isinstance(data, Dataset):
        return checked(data)
    if isinstance(data, (Mapping, tuple, list)):
        return from_returned(GIVEN, data if isinstance(data, Mapping) else tuple(data))
    raise UserError(
        "data: expected a plugin.Dataset, a name, or x_train, y_train, x_test, y_test as a sequence or by name, "
        f"got {type(data).__name__}"
    )


def check_network(model: object) -> None:
    """Raises UserError for what is neither a network in float32 with weights to train, nor the name of one."""
    if isinstance(model, str):
        return
    if not isinstance(model, nn.Module):
        raise UserError(f"model: expected a torch.nn.Module or the name of a network, got {type(model).__name__}")
    check_model(model)
    if model_dtype(model) != torch.float32:
        raise UserError(f"model: expected a network in float32, as data sets are, got {model_dtype(model)}: use .float()")
    if not any(parameter.requires_grad for parameter in model.parameters()):
        raise UserError(f"model: expected weights to train, {type(model).__name__} has none with requires_grad")


def check_fits(model: nn.Module, dataset: Dataset) -> None:
    """Raises UserError for a network that does not take the data set's inputs, or gives no logits for its classes."""
    check_output(f"model {type(model).__name__}", model, dataset.input_shape, dataset.classes)


def check_callbacks(callbacks: object) -> None:
    """Raises UserError for anything but a sequence of callbacks."""
    each = callbacks if isinstance(callbacks, Sequence) else [callbacks]
    wrong = [one for one in each if not isinstance(one, Callback)]
    if wrong or each is not callbacks:
        got = wrong[0] if wrong else callbacks
        kind = f"the class {got.__name__}" if isinstance(got, type) else type(got).__name__
        raise UserError(f"callbacks: expected a sequence of plugin.Callback objects, got {kind}")


def check_settings(settings: Mapping[str, Any], plugins: object) -> None:
    """Raises UserError for a setting that fit takes as an argument of its own, and for a single file in place of several."""
    if "dataset" in settings:
        raise UserError("unknown setting 'dataset': what to train on is the second argument, data")
    if not isinstance(plugins, (tuple, list)):
        raise UserError(f"plugins: expected a sequence of files, got {plugins!r:.80}")
