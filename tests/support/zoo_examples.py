"""Networks with a number for each example, with constants that are repeated for each, with masks, and with powers."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tests.support.zoo import IMAGE, VECTOR, Case, applied, on_image

HIDDEN = {
    "minus infinity": -math.inf,
    "the least number": torch.finfo(torch.float32).min,
    "a large number": -9e15,
    "minus 10,000": -1e4,
}
"""What people put in front of a softmax where nothing is to be seen."""

LAST = torch.arange(16) < 10

FROM, TO = torch.tensor([0, 3, 3, 8]), torch.tensor([5, 1, 5, 15])
"""Edges of a graph of 16 places."""

GRID = torch.linspace(-1.1, 0.9, 24).view(1, 4, 3, 2)


class Tokens(nn.Module):
    """Three tokens of six features from a vector; a function of them, learned queries [2, 6] and an attention layer."""

    def __init__(self, function: Callable[[Tokens, Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function
        self.embed, self.inner, self.last = nn.Linear(12, 18), nn.Linear(6, 6), nn.LazyLinear(4)
        self.queries = nn.Parameter(0.5 * torch.randn(2, 6))
        self.attention = nn.MultiheadAttention(6, 2, batch_first=True)
        self.register_buffer("causal", nn.Transformer.generate_square_subsequent_mask(3))
        self.last(self.function(self, self.embed(torch.zeros(2, 12)).view(2, 3, 6)).flatten(1))

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.last(self.function(self, self.embed(x).view(-1, 3, 6)).flatten(1))
        return found

    def attend(self, queries: Tensor, tokens: Tensor, **masks: Tensor) -> Tensor:
        found: Tensor = self.attention(queries, tokens, tokens, need_weights=False, **masks)[0]
        return found

    def for_each(self, tokens: Tensor) -> Tensor:
        """The queries, once for each example."""
        return self.queries.unsqueeze(0).expand(tokens.shape[0], -1, -1)


class Decoder(nn.Module):
    """Learned queries that a decoder's layer takes through the tokens."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.last = nn.Linear(12, 18), nn.Linear(12, 4)
        self.queries = nn.Parameter(torch.randn(1, 2, 6))
        self.layer = nn.TransformerDecoderLayer(6, 2, 8, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.last(self.layer(self.queries.expand(len(x), -1, -1), self.embed(x).view(-1, 3, 6)).flatten(1))
        return found


class ClassToken(nn.Module):
    """A token in front of the others, the examples behind the sequence."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.inner, self.last = nn.Linear(12, 18), nn.Linear(6, 6), nn.Linear(6, 4)
        self.token = nn.Parameter(torch.randn(1, 1, 6))

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.embed(x).view(-1, 3, 6).permute(1, 0, 2)
        tokens = torch.cat([self.token.expand(1, x.size(0), 6), tokens], 0)
        found: Tensor = self.last(self.inner(tokens).relu().mean(0))
        return found


class Stack(nn.Module):
    """A stack of encoder layers, which looks at its mask."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.last = nn.Linear(12, 18), nn.Linear(18, 4)
        self.layers = nn.TransformerEncoder(nn.TransformerEncoderLayer(6, 2, 8, batch_first=True), 1)
        self.register_buffer("mask", nn.Transformer.generate_square_subsequent_mask(3))

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.last(self.layers(self.embed(x).view(-1, 3, 6), mask=self.mask).flatten(1))
        return found


class _Shares(nn.Module):
    """log softmax, written as both."""

    def __init__(self) -> None:
        super().__init__()
        self.logits = nn.Linear(12, 4)

    def forward(self, x: Tensor) -> Tensor:
        return (150 * self.logits(x)).softmax(1).log()


def _tokens(function: Callable[[Tokens, Tensor], Tensor], **more: float) -> Case:
    return Case(lambda: Tokens(function), VECTOR, **more)  # type: ignore[arg-type]


def _number(function: Callable[[Tensor], Tensor]) -> Case:
    return Case(lambda: applied(function), VECTOR)


def _placed(h: Tensor) -> Tensor:
    found = h.clone()
    found[:, 0] = h[:, 1].relu()
    return found


def _columns_set(h: Tensor) -> Tensor:
    found = h.clone()
    found[:, TO[:2]] = h[:, FROM[:2]].relu()
    found[:, 3] *= 0.5
    return found


EXAMPLES: dict[str, Case] = {
    # a number for each example, [batch]
    "a sum for each": _number(lambda h: h * h.sum(1).relu().unsqueeze(1)),
    "a norm for each": _number(lambda h: h / (h.norm(dim=1)[:, None] + 1)),
    "a gate for each, transposed": _number(lambda h: (h.T * h.mean(1).sigmoid()).T),
    "columns, one by one": _number(lambda h: torch.stack([h[:, i].relu() for i in range(8)], 1)),
    "columns in rows": _number(lambda h: torch.stack([h[:, i].relu() for i in range(8)]).T),
    "the largest of each": _number(lambda h: h - h.amax(1).unsqueeze(-1) + h.max(1)[0].view(-1, 1)),
    "numbers computed with": _number(lambda h: h * (2 * h[:, 1] + h[:, 2].exp() - 1).relu().reshape(-1, 1)),
    "a product of numbers": _number(lambda h: h + torch.minimum(h[:, 0], h[:, 1] * h[:, 2])[:, None]),
    "numbers by einsum": _number(lambda h: torch.einsum("nd,n->nd", h, h[:, 0].relu())),
    "a column set": _number(_placed),
    "a deviation for each": _number(lambda h: (h - h.mean(1, keepdim=True)) / (h.std(1) + 1).unsqueeze(1)),
    # what the network has once for each example
    "queries for each": _tokens(lambda m, h: m.attend(m.for_each(h), h)),
    "a constant through layers": _tokens(lambda m, h: m.inner(m.for_each(h)).relu().mean(1, keepdim=True) + m.inner(h)),
    "a table repeated, folded": _tokens(
        lambda m, h: (
            m.inner(h.flatten(0, 1)) * m.inner(m.queries[:1].repeat(3 * h.shape[0], 1))
            + m.queries[:1].repeat(3 * h.shape[0], 1)
        ).view(-1, 18)
    ),
    "padding for each": _tokens(
        lambda m, h: m.attend(h, h, key_padding_mask=torch.tensor([[False, False, True]]).expand(h.shape[0], -1))
    ),
    "decoder": Case(Decoder, VECTOR, eps=0.003),
    "class token, sequence first": Case(ClassToken, VECTOR),
    # masks
    "causal mask": _tokens(lambda m, h: m.attend(h, h, attn_mask=torch.ones(3, 3, dtype=torch.bool).triu(1))),
    "causal mask of numbers": _tokens(lambda m, h: m.attend(h, h, attn_mask=m.causal)),
    "causal mask, one call": _tokens(lambda m, h: F.scaled_dot_product_attention(h, h, h, attn_mask=m.causal)),
    **{
        f"{how}, {name}": _number(lambda h, function=function, value=value: function(h, value))  # type: ignore[misc]
        for name, value in HIDDEN.items()
        for how, function in {
            "softmax of what is masked": lambda h, value: h.masked_fill(~LAST, value).softmax(1),
            "softmax of what is chosen": lambda h, value: torch.where(LAST, h, torch.tensor(value)).softmax(1),
            "softmax of a sum": lambda h, value: (h + torch.where(LAST, 0.0, value)).softmax(1),
            "largest of what is masked": lambda h, value: h - h.masked_fill(~LAST, value).amax(1, keepdim=True),
        }.items()
    },
    "stack with a causal mask": Case(Stack, VECTOR, eps=0.003),
    # places that constants choose
    "messages along edges": _number(
        lambda h: torch.zeros_like(h).index_add(1, TO, h[:, FROM].relu()) + h.index_copy(1, TO[:2], -h[:, :2])
    ),
    "scattered": _number(
        lambda h: (
            h.scatter(1, TO.expand(len(h), -1), h[:, FROM].relu())
            + torch.ones_like(h).scatter_add(1, TO.expand(len(h), -1), h[:, FROM])
        )
    ),
    "in the shape of another": _number(lambda h: h[:, :1].expand_as(h) * 2 + torch.ones(1).expand_as(h) + h),
    "columns set": _number(_columns_set),
    "image read between pixels": Case(
        lambda: on_image(lambda h: F.grid_sample(h, GRID.expand(len(h), -1, -1, -1), align_corners=False)), IMAGE
    ),
    "smaller, smoothed": Case(
        lambda: on_image(lambda h: F.interpolate(h, size=(3, 3), mode="bilinear", antialias=True)), IMAGE
    ),
    "erfc, hypot": _number(lambda h: h * torch.erfc(h) + torch.hypot(h, h.square() + 1)),
    # exponents far from 0
    "log-softmax of large logits": _number(lambda h: (80 * h).log_softmax(1)),
    "softmax of large logits": _number(lambda h: (300 * h).softmax(1)),
    "log of sums of large exponentials": _number(lambda h: torch.logsumexp(100 * h, 1, keepdim=True) + h),
    "log of sums of small exponentials": _number(lambda h: torch.logsumexp(h - 200, 1, keepdim=True) + h),
    "log of shares below exp(−80)": Case(_Shares, VECTOR, eps=1e-4, dtype=torch.float64),
    # powers
    "power 1.5 of a ReLU": _number(lambda h: h.relu() ** 1.5),
    "power 0.3 of a size": _number(lambda h: h.abs().pow(0.3)),
    "power −1.5": _number(lambda h: (h.abs() + 0.5).pow(-1.5)),
    "mean of cubes, cube root": _number(lambda h: h.clamp(min=1e-6).pow(3).mean(1, keepdim=True).pow(1 / 3)),
    "norm of order 3": _number(lambda h: h.view(-1, 8, 2).norm(p=3, dim=2)),
    # bends far from the values
    "clamp at 10,000": _number(lambda h: h.clamp(-1e4, 1e4)),
    "hardtanh of large values": _number(lambda h: F.hardtanh(1e5 * h, -0.3, 1.2)),
    "minimum with a small number": _number(lambda h: torch.minimum(1e4 * h, torch.tensor(0.3))),
}
