"""What logits say: one for each class, or a single one that decides between two classes by its sign."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def predictions(logits: Tensor) -> Tensor:
    """The class of each input, [batch]; logits: [batch, classes] or [batch, 1]."""
    return (logits[:, 0] > 0).long() if logits.shape[1] == 1 else logits.argmax(1)


def cross_entropy(logits: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
    """Cross-entropy of logits [batch, classes] or [batch, 1] for classes y [batch]."""
    if logits.shape[1] == 1:
        return F.binary_cross_entropy_with_logits(logits[:, 0], y.to(logits.dtype), reduction=reduction)
    return F.cross_entropy(logits, y, reduction=reduction)


def worst_margin(logits: Tensor, y: Tensor) -> Tensor:
    """min over j ≠ y of z_y − z_j, [batch]; negative where another class wins. For one logit z or −z, as y says."""
    if logits.shape[1] == 1:
        return torch.where(y == 1, logits[:, 0], -logits[:, 0])
    own = logits.gather(1, y[:, None])
    others = logits.scatter(1, y[:, None], -torch.inf)
    return own[:, 0] - others.amax(1)
