"""Networks that have no bounds: each has to be refused in one line that names what stands in the way, and where.

`REFUSED` maps a readable name to the network, the shape of one input, and what the line has to say.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tests.support.nets import Net


@dataclass(frozen=True)
class Refused:
    """make: → the network; says: parts of the line; code: of the user's own line, as it is quoted."""

    make: Callable[[], nn.Module]
    says: tuple[str, ...]
    code: str = ""
    shape: tuple[int, ...] = (12,)


class Own(nn.Module):
    """A network whose forward is a line of its own: `code` of the case."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(12, 16), nn.Linear(16, 4)


class Centred(Own):
    def forward(self, x: Tensor) -> Tensor:
        h = self.a(x)
        h = h - h.mean(0)
        return self.b(h)


class CentredKept(Own):
    def forward(self, x: Tensor) -> Tensor:
        h = self.a(x)
        h = h - h.mean(0, keepdim=True)
        return self.b(h)


class SoftmaxOverBatch(Own):
    def forward(self, x: Tensor) -> Tensor:
        h = torch.softmax(self.a(x), 0)
        return self.b(h)


class Similarities(Own):
    def forward(self, x: Tensor) -> Tensor:
        h = self.a(x)
        h = (h @ h.T) @ h
        return self.b(h)


class FlippedBatch(Own):
    def forward(self, x: Tensor) -> Tensor:
        h = self.a(x).flip(0)
        return self.b(h)


class Neighbours(Own):
    def forward(self, x: Tensor) -> Tensor:
        h = self.a(x) + self.a(x.roll(1, 0))
        return self.b(h)


class CumulativeBatch(Own):
    def forward(self, x: Tensor) -> Tensor:
        h = self.a(x).cumsum(0)
        return self.b(h)


class MixedByView(Own):
    def forward(self, x: Tensor) -> Tensor:
        h = self.a(x).view(16, -1).t()
        return self.b(h)


class TiledBatch(Own):
    def forward(self, x: Tensor) -> Tensor:
        h = self.a(x).repeat(2, 1)[: x.shape[0]]
        return self.b(h)


class Divided(Own):
    def forward(self, x: Tensor) -> Tensor:
        h = self.a(x) / x.shape[0]
        return self.b(h)


class Root(Own):
    def forward(self, x: Tensor) -> Tensor:
        h = self.a(x) * x.shape[0] ** 0.5
        return self.b(h)


class Numbered(Own):
    def forward(self, x: Tensor) -> Tensor:
        h = self.a(x) + torch.arange(x.shape[0], dtype=x.dtype)[:, None]
        return self.b(h)


class BranchOnSize(Own):
    def forward(self, x: Tensor) -> Tensor:
        h = self.a(x)
        if x.shape[0] > 1:
            h = h * 2
        return self.b(h)


class SizeAsNumber(Own):
    def forward(self, x: Tensor) -> Tensor:
        h = self.a(x)
        if int(x.shape[0]) == 2:
            h = h * 2
        return self.b(h)


class Dropped(Own):
    def forward(self, x: Tensor) -> Tensor:
        h = F.dropout(self.a(x))
        return self.b(h)


class DroppedChannels(Own):
    def forward(self, x: Tensor) -> Tensor:
        h = F.feature_alpha_dropout(self.a(x), 0.5, True)
        return self.b(h)


class Noisy(Own):
    def forward(self, x: Tensor) -> Tensor:
        h = self.a(x) + 0.1 * torch.rand_like(x[:, :1])
        return self.b(h)


class NoisyConstant(Own):
    def forward(self, x: Tensor) -> Tensor:
        h = self.a(x) + torch.rand(16)
        return self.b(h)


class BranchOnValue(Own):
    def forward(self, x: Tensor) -> Tensor:
        h = self.a(x)
        if h.sum() > 0:
            h = -h
        return self.b(h)


class Item(Own):
    def forward(self, x: Tensor) -> Tensor:
        h = self.a(x)
        h = h * h.max().item()
        return self.b(h)


class ArgMax(Own):
    def forward(self, x: Tensor) -> Tensor:
        h = F.one_hot(self.a(x).argmax(1), 16).float()
        return self.b(h)


class TopK(Own):
    def forward(self, x: Tensor) -> Tensor:
        h = self.a(x).topk(16, 1).values
        return self.b(h)


class Sorted(Own):
    def forward(self, x: Tensor) -> Tensor:
        h = self.a(x).sort(1).values
        return self.b(h)


class WhereOnValues(Own):
    def forward(self, x: Tensor) -> Tensor:
        h = self.a(x)
        h = torch.where(h > 0, h, 0.1 * h)
        return self.b(h)


class MaskedByValue(Own):
    def forward(self, x: Tensor) -> Tensor:
        h = self.a(x)
        h = h * (h > 0.5)
        return self.b(h)


class Rounded(Own):
    def forward(self, x: Tensor) -> Tensor:
        h = self.a(x).round()
        return self.b(h)


class Signs(Own):
    def forward(self, x: Tensor) -> Tensor:
        h = torch.sign(self.a(x))
        return self.b(h)


class ToWholeNumbers(Own):
    def forward(self, x: Tensor) -> Tensor:
        h = self.a(x).long().float()
        return self.b(h)


class ToHalf(Own):
    def forward(self, x: Tensor) -> Tensor:
        h = self.a(x).half().float()
        return self.b(h)


class TwoOutputs(Own):
    def forward(self, x: Tensor) -> Any:
        h = self.a(x)
        return self.b(h), h


class NothingOfInput(Own):
    def forward(self, x: Tensor) -> Tensor:
        h = self.a.weight.sum(1)
        return self.b(h).expand(x.shape[0], -1)


class NothingButZero(Own):
    def forward(self, x: Tensor) -> Tensor:
        h = torch.zeros_like(self.a(x))
        return self.b(h)


class Inverse(Own):
    def forward(self, x: Tensor) -> Tensor:
        h = torch.linalg.inv(self.a(x).view(-1, 4, 4)).flatten(1)
        return self.b(h)


class Spectrum(Own):
    def forward(self, x: Tensor) -> Tensor:
        h = torch.fft.fft(self.a(x)).real
        return self.b(h)


class InverseOfErf(Own):
    def forward(self, x: Tensor) -> Tensor:
        h = torch.erfinv(torch.tanh(self.a(x)) / 2)
        return self.b(h)


class OutputsTransposed(Own):
    def forward(self, x: Tensor) -> Tensor:
        h = self.a(x)
        return self.b(h).t()


def _standardised(h: Tensor) -> Tensor:
    spread = h.std(0)
    return h / (spread + 1e-3)


def _kept(h: Tensor) -> Tensor:
    return h * torch.sign(h)


class HelperCalled(Own):
    def forward(self, x: Tensor) -> Tensor:
        h = _standardised(self.a(x))
        return self.b(h)


class SecondHelperCalled(Own):
    def forward(self, x: Tensor) -> Tensor:
        h = torch.relu(_kept(self.a(x)))
        return self.b(h)


class Counting(Own):
    """Counts its calls in a buffer, in evaluation mode too."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        return self.b(self.a(x)) * self.calls


def _without_running_statistics() -> nn.Module:
    return nn.Sequential(nn.Linear(12, 16), nn.BatchNorm1d(16, track_running_stats=False), nn.ReLU(), nn.Linear(16, 4))


REFUSED: dict[str, Refused] = {
    "centred over the batch": Refused(Centred, ("aten.mean", "see each other"), "h - h.mean(0)"),
    "centred over the batch, axis kept": Refused(CentredKept, ("aten.mean", "see each other"), "h.mean(0, keepdim=True)"),
    "softmax over the batch": Refused(SoftmaxOverBatch, ("examples see each other",), "torch.softmax(self.a(x), 0)"),
    "similarities of examples": Refused(Similarities, ("aten.matmul", "examples see each other"), "(h @ h.T) @ h"),
    "flipped batch": Refused(FlippedBatch, ("aten.flip", "examples see each other"), "flip(0)"),
    "rolled batch": Refused(Neighbours, ("aten.roll", "examples see each other"), "x.roll(1, 0)"),
    "cumulative sum over the batch": Refused(CumulativeBatch, ("aten.cumsum", "examples see each other"), "cumsum(0)"),
    "view that takes examples apart": Refused(MixedByView, ("aten.view", "see each other"), "view(16, -1)"),
    "tiled batch": Refused(TiledBatch, ("see each other",), "repeat(2, 1)"),
    "batch norm without running statistics": Refused(_without_running_statistics, ("batch_norm", "batch's own statistics")),
    "divided by the batch's size": Refused(Divided, ("aten.div", "number of examples"), "self.a(x) / x.shape[0]"),
    "root of the batch's size": Refused(Root, ("aten.mul", "number of examples"), "x.shape[0] ** 0.5"),
    "numbered examples": Refused(Numbered, ("aten.arange", "number of examples"), "torch.arange(x.shape[0]"),
    "branch on the batch's size": Refused(BranchOnSize, ("whatever the batch's size",)),
    "functional dropout": Refused(Dropped, ("dropout", "random"), "F.dropout(self.a(x))"),
    "functional alpha dropout": Refused(DroppedChannels, ("dropout", "random"), "F.feature_alpha_dropout"),
    "noise like the input": Refused(Noisy, ("rand", "random"), "torch.rand_like"),
    "constant noise": Refused(NoisyConstant, ("aten.rand", "random"), "torch.rand(16)"),
    "branch on a value": Refused(BranchOnValue, ("branch",), "if h.sum() > 0"),
    "the size as a number": Refused(SizeAsNumber, ("one batch size",), "if int(x.shape[0]) == 2"),
    "item": Refused(Item, ("value",), "h.max().item()"),
    "argmax": Refused(ArgMax, ("aten.argmax", "order"), "argmax(1)"),
    "topk": Refused(TopK, ("aten.topk", "order"), "topk(16, 1)"),
    "sort": Refused(Sorted, ("aten.sort", "order"), "sort(1)"),
    "where on values": Refused(WhereOnValues, ("aten.gt", "relu, clamp, maximum"), "torch.where(h > 0, h, 0.1 * h)"),
    "masked by a value": Refused(MaskedByValue, ("aten.gt", "jumps"), "h * (h > 0.5)"),
    "round": Refused(Rounded, ("aten.round", "jumps"), "round()"),
    "sign": Refused(Signs, ("aten.sign", "jumps"), "torch.sign"),
    "whole numbers": Refused(ToWholeNumbers, ("int64",), "long()"),
    "half precision": Refused(ToHalf, ("float16",), "half()"),
    "hardshrink": Refused(lambda: nn.Sequential(nn.Linear(12, 4), nn.Hardshrink()), ("aten.", "layer 1, Hardshrink")),
    "threshold with a jump": Refused(
        lambda: nn.Sequential(nn.Linear(12, 4), nn.Threshold(0.5, 0.0)), ("aten.threshold", "jumps", "layer 1, Threshold")
    ),
    "two outputs": Refused(TwoOutputs, ("2 outputs", "expected one tensor")),
    "nothing of the input": Refused(NothingOfInput, ("the same outputs for all inputs",)),
    "nothing but zeros": Refused(NothingButZero, ("the same outputs for all inputs",)),
    "inverse": Refused(Inverse, ("aten.linalg_inv",), "torch.linalg.inv"),
    "fourier transform": Refused(Spectrum, ("aten._fft",), "torch.fft.fft"),
    "inverse of erf": Refused(InverseOfErf, ("aten.erfinv",), "torch.erfinv"),
    "examples last": Refused(OutputsTransposed, ("[batch, *outputs]",)),
    "in a helper": Refused(HelperCalled, ("see each other",), "spread = h.std(0)"),
    "in another helper": Refused(SecondHelperCalled, ("aten.sign", "jumps"), "return h * torch.sign(h)"),
    "in a lambda": Refused(
        lambda: Net(
            lambda m, x: m.b(torch.round(m.a(x))),
            a=nn.Linear(12, 16),
            b=nn.Linear(16, 4),
        ),
        ("aten.round",),
        "m.b(torch.round(m.a(x)))",
    ),
    "changes a buffer": Refused(Counting, ("changes", "calls")),
}
