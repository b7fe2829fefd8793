"""Parts of a training set, each class in proportion."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from newrelax.errors import UserError
from plugin.data.dataset import Dataset
from plugin.data.words import refusal


def stratified_part(labels: Tensor, count: int, seed: int) -> Tensor:
    """Ascending indices of `count` of the `labels` (on the CPU), drawn with `seed`, each class in proportion.

    Shares are rounded by largest remainder (ties to the smaller class number), so the sum is exactly `count`.
    """
    sizes = torch.bincount(labels)
    quotas = sizes.double() * count / len(labels)
    shares = quotas.floor().long()
    remainders = quotas - shares
    for label in torch.argsort(remainders, descending=True, stable=True)[: count - int(shares.sum())]:
        shares[label] += 1
    generator = torch.Generator().manual_seed(seed)
    parts = []
    for label, share in enumerate(shares.tolist()):
        members = (labels == label).nonzero().flatten()
        parts.append(members[torch.randperm(len(members), generator=generator)[:share]])
    return torch.cat(parts).sort().values


def limit(dataset: Dataset, count: int, seed: int) -> Dataset:
    """The data set with a stratified part of at most `count` training examples; mean, std and range stay the whole set's.

    Raises:
        UserError: count < 1.
    """
    if count < 1:
        raise UserError(f"limit-train: expected at least 1 training example, got {count}")
    if count >= len(dataset.train_y):
        return dataset
    kept = stratified_part(dataset.train_y.cpu(), count, seed).to(dataset.train_y.device)
    return replace(dataset, train_x=dataset.train_x[kept], train_y=dataset.train_y[kept])


def hold_back(dataset: Dataset, fraction: float, seed: int) -> Dataset:
    """The data set with a stratified part of its training examples moved to validation, drawn with `seed`.

    Raises:
        UserError: a fraction that is not between 0 and 1 or leaves one of both parts empty, or a data set that has a validation
            part already.
    """
    if not 0 < fraction < 1:
        raise UserError(f"validation: expected a fraction between 0 and 1 of the training set, got {fraction:g}")
    if dataset.validation_y is not None:
        raise refusal(dataset.name, "it brings a validation part of its own; leave --validation out")
    total = len(dataset.train_y)
    count = round(fraction * total)
    if count in (0, total):
        raise refusal(
            dataset.name,
            f"holding back {fraction:g} of {total} training examples leaves {total - count} to train and {count} to validate; "
            "choose another fraction, or more training examples",
        )
    held = torch.zeros(total, dtype=torch.bool)
    held[stratified_part(dataset.train_y.cpu(), count, seed)] = True
    held = held.to(dataset.train_y.device)
    return replace(
        dataset,
        train_x=dataset.train_x[~held],
        train_y=dataset.train_y[~held],
        validation_x=dataset.train_x[held],
        validation_y=dataset.train_y[held],
    )
