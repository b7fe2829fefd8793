"""Architectures that people bring: each has to be bounded, soundly, by every method.

`ZOO` maps a readable name to a `Case`. The networks are small, so that sampling finds what a wrong bound would hide.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import parametrizations, parametrize, prune

from tests.support.nets import Net

METHODS = ("IBP", "CROWN", "CROWN-IBP-R", "DeepZ", "hBox")
LIGHT = ("IBP", "CROWN-IBP-R")

IMAGE = (3, 8, 8)
VECTOR = (12,)
SEQUENCE = (6, 8)


@dataclass(frozen=True)
class Case:
    """make: → the network; shape: of one input; eps: a radius at which sampling is worth something."""

    make: Callable[[], nn.Module]
    shape: tuple[int, ...]
    eps: float = 0.03
    methods: tuple[str, ...] = METHODS
    dtype: torch.dtype = torch.float32
    slow: bool = False


def seq(*layers: nn.Module) -> nn.Sequential:
    return nn.Sequential(*layers)


def flat(*between: nn.Module, inputs: int = 12, width: int = 16, outputs: int = 4) -> nn.Sequential:
    """Linear, what is between, Linear."""
    return seq(nn.Flatten(), nn.Linear(inputs, width), *between, nn.Linear(width, outputs))


def image(*between: nn.Module) -> nn.Sequential:
    """A convolution of 8 × 8 images, what is between, Linear."""
    body = seq(nn.Conv2d(3, 4, 3, padding=1), *between, nn.Flatten()).eval()
    with torch.no_grad():
        features = body(torch.zeros(1, *IMAGE)).shape[1]
    return body.append(nn.Linear(features, 4))


def applied(function: Callable[[Tensor], Tensor], width: int = 16) -> nn.Module:
    """Linear, a function, Linear."""
    with torch.no_grad():
        features = function(torch.ones(2, width)).shape[1]
    return seq(nn.Linear(12, width), _Lambda(function), nn.Linear(features, 4))


def on_image(function: Callable[[Tensor], Tensor]) -> nn.Module:
    """A convolution of 8 × 8 images, ReLU, a function, Linear."""
    return image(nn.ReLU(), _Lambda(function))


class _Lambda(nn.Module):
    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x)


# torchvision's, small images and few classes; their own weights at initialisation


def _torchvision(name: str, **options: Any) -> Callable[[], nn.Module]:
    def make() -> nn.Module:
        import torchvision

        return getattr(torchvision.models, name)(num_classes=4, **options)

    return make


# blocks


class PreActivation(nn.Module):
    def __init__(self, inputs: int, outputs: int, stride: int = 1) -> None:
        super().__init__()
        self.n1, self.c1 = nn.BatchNorm2d(inputs), nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.n2, self.c2 = nn.BatchNorm2d(outputs), nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.shortcut = nn.Conv2d(inputs, outputs, 1, stride, bias=False) if stride != 1 or inputs != outputs else None

    def forward(self, x: Tensor) -> Tensor:
        h = F.relu(self.n1(x), inplace=True)
        around = x if self.shortcut is None else self.shortcut(h)
        h = self.c2(F.relu(self.n2(self.c1(h))))
        h += around
        return h


class WideResNet(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 3, 1, 1)
        self.blocks = nn.ModuleList([PreActivation(4, 8), PreActivation(8, 8), PreActivation(8, 8, 2)])
        self.norm, self.out = nn.BatchNorm2d(8), nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        for block in self.blocks:
            x = block(x)
        x = F.relu(self.norm(x))
        x = F.adaptive_avg_pool2d(x, (1, 1))
        return self.out(x.view(x.size(0), -1))


class DenseBlock(nn.Module):
    def __init__(self, inputs: int, growth: int, layers: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            seq(nn.BatchNorm2d(inputs + i * growth), nn.ReLU(), nn.Conv2d(inputs + i * growth, growth, 3, 1, 1))
            for i in range(layers)
        )

    def forward(self, x: Tensor) -> Tensor:
        features = [x]
        for layer in self.layers:
            features.append(layer(torch.cat(features, 1)))
        return torch.cat(features, 1)


class Inception(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(4, 2, 1), seq(nn.Conv2d(4, 2, 1), nn.ReLU(), nn.Conv2d(2, 3, 3, padding=1))
        self.c = seq(nn.Conv2d(4, 2, 1), nn.ReLU(), nn.Conv2d(2, 2, 5, padding=2))
        self.d = seq(nn.MaxPool2d(3, 1, 1), nn.Conv2d(4, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(torch.cat([self.a(x), self.b(x), self.c(x), self.d(x)], dim=1))


class SqueezeExcite(nn.Module):
    def __init__(self, channels: int, gate: nn.Module) -> None:
        super().__init__()
        self.down, self.up, self.gate = nn.Conv2d(channels, 2, 1), nn.Conv2d(2, channels, 1), gate

    def forward(self, x: Tensor) -> Tensor:
        scale = x.mean((2, 3), keepdim=True)
        return x * self.gate(self.up(F.silu(self.down(scale))))


class InvertedResidual(nn.Module):
    """MobileNet's and EfficientNet's block."""

    def __init__(self, channels: int, activation: nn.Module, gate: nn.Module | None) -> None:
        super().__init__()
        wide = 2 * channels
        squeeze = [SqueezeExcite(wide, gate)] if gate is not None else []
        self.body = seq(
            nn.Conv2d(channels, wide, 1, bias=False),
            nn.BatchNorm2d(wide),
            activation,
            nn.Conv2d(wide, wide, 3, 1, 1, groups=wide, bias=False),
            nn.BatchNorm2d(wide),
            activation,
            *squeeze,
            nn.Conv2d(wide, channels, 1, bias=False),
            nn.BatchNorm2d(channels),
        )

    def forward(self, x: Tensor) -> Tensor:
        return x + self.body(x)


class ConvNeXt(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.depthwise = nn.Conv2d(channels, channels, 7, padding=3, groups=channels)
        self.norm = nn.LayerNorm(channels, eps=1e-6)
        self.wide, self.narrow = nn.Linear(channels, 2 * channels), nn.Linear(2 * channels, channels)
        self.gamma = nn.Parameter(0.5 * torch.ones(channels))

    def forward(self, x: Tensor) -> Tensor:
        h = self.depthwise(x).permute(0, 2, 3, 1)
        h = self.gamma * self.narrow(F.gelu(self.wide(self.norm(h))))
        return x + h.permute(0, 3, 1, 2)


class Mixer(nn.Module):
    """An MLP-mixer's layer: tokens, then channels."""

    def __init__(self, tokens: int, channels: int) -> None:
        super().__init__()
        self.n1, self.n2 = nn.LayerNorm(channels), nn.LayerNorm(channels)
        self.tokens = seq(nn.Linear(tokens, tokens), nn.GELU(), nn.Linear(tokens, tokens))
        self.channels = seq(nn.Linear(channels, channels), nn.GELU(), nn.Linear(channels, channels))

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.tokens(self.n1(x).transpose(1, 2)).transpose(1, 2)
        return x + self.channels(self.n2(x))


class SpatialGate(nn.Module):
    """gMLP's."""

    def __init__(self, tokens: int, channels: int) -> None:
        super().__init__()
        self.wide, self.mix, self.out = (
            nn.Linear(channels, 2 * channels),
            nn.Conv1d(tokens, tokens, 1),
            nn.Linear(channels, channels),
        )

    def forward(self, x: Tensor) -> Tensor:
        u, v = F.gelu(self.wide(x)).chunk(2, dim=-1)
        return x + self.out(u * self.mix(v))


class RMSNorm(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        return self.weight * x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-2)


class ViT(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.patch = nn.Conv2d(3, 8, 4, 4)
        self.token, self.position = nn.Parameter(torch.randn(1, 1, 8)), nn.Parameter(torch.randn(1, 5, 8))
        self.attention, self.norm = nn.MultiheadAttention(8, 2, batch_first=True), nn.LayerNorm(8)
        self.head = nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.patch(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.token.expand(x.shape[0], -1, -1), x], dim=1) + self.position
        h = self.norm(x)
        x = x + self.attention(h, h, h, need_weights=False)[0]
        return self.head(x[:, 0])


class UNet(nn.Module):
    def __init__(self, **up: Any) -> None:
        super().__init__()
        self.a, self.b, self.c = nn.Conv2d(3, 4, 3, 1, 1), nn.Conv2d(4, 6, 3, 1, 1), nn.Conv2d(10, 2, 3, 1, 1)
        self.up, self.out = nn.Upsample(scale_factor=2, **up), nn.Linear(128, 4)

    def forward(self, x: Tensor) -> Tensor:
        first = F.relu(self.a(x))
        deep = F.relu(self.b(F.max_pool2d(first, 2)))
        return self.out(F.relu(self.c(torch.cat([self.up(deep), first], 1))).flatten(1))


class Ternary(nn.Module):
    """Weights of three values with a trained scale."""

    def __init__(self) -> None:
        super().__init__()
        self.weight, self.scale = nn.Parameter(torch.randn(16, 12)), nn.Parameter(torch.tensor(0.3))
        self.out = nn.Linear(16, 4)

    def forward(self, x: Tensor) -> Tensor:
        signs = torch.where(self.weight.abs() > 0.5, torch.sign(self.weight), torch.zeros_like(self.weight))
        return self.out(F.relu(F.linear(x, signs * self.scale)))


class Symmetric(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.triu() + x.triu(1).transpose(-1, -2)


def _parametrized() -> nn.Module:
    layer = nn.Linear(12, 12)
    parametrize.register_parametrization(layer, "weight", Symmetric())
    return seq(layer, nn.ReLU(), nn.Linear(12, 4))


def _pruned() -> nn.Module:
    net = seq(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 16), nn.ReLU(), nn.Linear(16, 4))
    prune.l1_unstructured(net[0], "weight", 0.5)
    prune.ln_structured(net[3], "weight", 0.25, n=2, dim=0)
    prune.random_unstructured(net[5], "bias", 0.5)
    return net


class Recurrent(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.cell, self.out = nn.RNNCell(8, 5, nonlinearity="relu"), nn.Linear(5, 4)

    def forward(self, x: Tensor) -> Tensor:
        h = torch.zeros(x.shape[0], 5, dtype=x.dtype)
        for step in x.unbind(1):
            h = self.cell(step, h)
        return self.out(h)


class FoldedFrames(nn.Module):
    """A video: frames through one convolution, folded into the batch."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm, self.out = nn.Conv2d(1, 3, 3, padding=1), nn.BatchNorm2d(3), nn.Linear(24, 4)

    def forward(self, x: Tensor) -> Tensor:
        b, t, h, w = x.shape
        x = F.max_pool2d(F.relu(self.norm(self.conv(x.view(b * t, 1, h, w)))), 2)
        return self.out(x.view(b, t, -1).mean(1).repeat(1, 2))


def _set(h: Tensor) -> Tensor:
    h[:, 0] = 0.5
    h[:, 1:3] *= 2
    h[:, 3] = h[:, 4] + h[:, 5]
    return h


def _in_place(h: Tensor) -> Tensor:
    h += 1
    h.relu_()
    return h.mul(2).clamp_(max=3)


def _cosine(m: Any, x: Tensor) -> Tensor:
    return 5 * F.linear(F.normalize(F.relu(m.a(x)) + 0.1), F.normalize(m.w))


def _attention(h: Tensor) -> Tensor:
    q, k, v = h.view(-1, 4, 6).split(2, dim=2)
    return torch.bmm(torch.softmax(torch.bmm(q, k.transpose(1, 2)) / math.sqrt(2), -1), v).flatten(1)


def _sequence_first(m: Any, x: Tensor) -> Tensor:
    h = x.transpose(0, 1)
    h = F.relu(m.a(h)) + m.position
    return m.out(h.mean(0))


ZOO: dict[str, Case] = {
    # whole networks
    "resnet18": Case(_torchvision("resnet18"), (3, 32, 32), 0.001, LIGHT),
    "vgg11": Case(_torchvision("vgg11"), (3, 32, 32), 0.001, LIGHT, slow=True),
    "vgg11_bn": Case(_torchvision("vgg11_bn"), (3, 32, 32), 0.001, LIGHT, slow=True),
    "mobilenet_v2": Case(_torchvision("mobilenet_v2"), (3, 32, 32), 0.001, LIGHT, slow=True),
    "mobilenet_v3_small": Case(_torchvision("mobilenet_v3_small"), (3, 32, 32), 0.001, LIGHT, slow=True),
    "shufflenet_v2_x0_5": Case(_torchvision("shufflenet_v2_x0_5"), (3, 32, 32), 0.001, LIGHT, slow=True),
    "squeezenet1_1": Case(_torchvision("squeezenet1_1"), (3, 32, 32), 0.001, LIGHT),
    "densenet-like": Case(
        lambda: seq(nn.Conv2d(3, 4, 3, 2, 1), DenseBlock(4, 2, 3), nn.AvgPool2d(2), nn.Flatten(), nn.Linear(40, 4)), IMAGE
    ),
    "googlenet-like": Case(lambda: image(nn.ReLU(), Inception(), nn.AdaptiveAvgPool2d(2)), IMAGE),
    "efficientnet-like": Case(
        lambda: image(InvertedResidual(4, nn.SiLU(), nn.Sigmoid()), nn.AdaptiveAvgPool2d(1)), IMAGE, 0.01
    ),
    "mobilenetv3-like": Case(
        lambda: image(InvertedResidual(4, nn.Hardswish(), nn.Hardsigmoid()), nn.AdaptiveAvgPool2d(1)), IMAGE, 0.01
    ),
    "mobilenetv2-like": Case(lambda: image(InvertedResidual(4, nn.ReLU6(inplace=True), None), nn.AdaptiveAvgPool2d(1)), IMAGE),
    "convnext block": Case(lambda: image(ConvNeXt(4), nn.AdaptiveAvgPool2d(1)), IMAGE, 0.01),
    "wide resnet": Case(WideResNet, IMAGE),
    "pre-activation block": Case(lambda: image(PreActivation(4, 6, 2), nn.ReLU()), IMAGE),
    "mixer": Case(lambda: Net(lambda m, x: m.out(m.mix(x).mean(1)), mix=Mixer(6, 8), out=nn.Linear(8, 4)), SEQUENCE, 0.01),
    "gmlp": Case(lambda: Net(lambda m, x: m.out(m.gate(x).flatten(1)), gate=SpatialGate(6, 8), out=nn.Linear(48, 4)), SEQUENCE),
    "vit": Case(ViT, IMAGE, 0.01),
    "unet nearest": Case(lambda: UNet(mode="nearest"), IMAGE),
    "unet bilinear": Case(lambda: UNet(mode="bilinear", align_corners=False), IMAGE),
    "unet bilinear aligned": Case(lambda: UNet(mode="bilinear", align_corners=True), IMAGE),
    "deep, 20 layers": Case(
        lambda: flat(*[layer for _ in range(18) for layer in (nn.ReLU(), nn.Linear(16, 16))], nn.ReLU()), VECTOR
    ),
    "transformer encoder layer": Case(
        lambda: Net(
            lambda m, x: m.out(m.body(x).flatten(1)),
            body=nn.TransformerEncoderLayer(8, 2, 12, batch_first=True),
            out=nn.Linear(48, 4),
        ),
        SEQUENCE,
        0.001,
    ),
    "transformer encoder layer, sequence first, norm first": Case(
        lambda: Net(
            lambda m, x: m.out(m.body(x.transpose(0, 1)).transpose(0, 1).flatten(1)),
            body=nn.TransformerEncoderLayer(8, 2, 12, norm_first=True, activation="gelu"),
            out=nn.Linear(48, 4),
        ),
        SEQUENCE,
        0.001,
    ),
    "attention, batch first": Case(
        lambda: Net(
            lambda m, x: m.out(m.attention(x, x, x)[0].flatten(1)),
            attention=nn.MultiheadAttention(8, 2, batch_first=True),
            out=nn.Linear(48, 4),
        ),
        SEQUENCE,
        0.01,
    ),
    "attention, sequence first, frozen": Case(
        lambda: Net(
            lambda m, x: m.out(m.attention(x.transpose(0, 1), x.transpose(0, 1), x.transpose(0, 1))[0].mean(0)),
            attention=nn.MultiheadAttention(8, 2),
            out=nn.Linear(8, 4),
        ).requires_grad_(False),
        SEQUENCE,
        0.01,
    ),
    "attention by hand": Case(lambda: applied(_attention, width=24), VECTOR, 0.02),
    "rnn cell": Case(Recurrent, SEQUENCE),
    "lstm": Case(
        lambda: Net(lambda m, x: m.out(m.body(x)[0][:, -1]), body=nn.LSTM(8, 5, batch_first=True), out=nn.Linear(5, 4)),
        SEQUENCE,
        0.02,
    ),
    "gru, sequence first": Case(
        lambda: Net(lambda m, x: m.out(m.body(x.transpose(0, 1))[1][0]), body=nn.GRU(8, 5), out=nn.Linear(5, 4)), SEQUENCE, 0.02
    ),
    # gates and maxima
    "glu": Case(lambda: flat(nn.Linear(16, 32), nn.GLU()), VECTOR),
    "geglu, swiglu": Case(
        lambda: Net(
            lambda m, x: m.out(F.gelu(m.a(x)) * m.b(x) + F.silu(m.c(x)) * m.d(x)),
            a=nn.Linear(12, 8),
            b=nn.Linear(12, 8),
            c=nn.Linear(12, 8),
            d=nn.Linear(12, 8),
            out=nn.Linear(8, 4),
        ),
        VECTOR,
    ),
    "maxout over an axis": Case(lambda: applied(lambda h: h.view(h.shape[0], 8, 2).max(dim=2)[0]), VECTOR),
    "maxout of two": Case(lambda: applied(lambda h: torch.max(h[:, :8], h[:, 8:])), VECTOR),
    "maxout by max_pool1d": Case(lambda: applied(lambda h: F.max_pool1d(h, 2)), VECTOR),
    "minimum, amin, amax": Case(
        lambda: applied(lambda h: torch.minimum(h, h.flip(1)) + h.amax(1, keepdim=True) - torch.amin(h, (1,), True)), VECTOR
    ),
    # shapes of convolutions and pools
    "3-d convolutions": Case(
        lambda: seq(
            nn.Conv3d(2, 3, 3, padding=1),
            nn.ReLU(),
            nn.MaxPool3d(2),
            nn.Conv3d(3, 4, (1, 2, 2)),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(8, 4),
        ),
        (2, 4, 4, 4),
    ),
    "1-d convolutions": Case(
        lambda: seq(
            nn.Conv1d(2, 4, 3),
            nn.ReLU(),
            nn.MaxPool1d(2),
            nn.Conv1d(4, 4, 3, dilation=2),
            nn.ReLU(),
            nn.AvgPool1d(3),
            nn.Flatten(),
            nn.Linear(4, 4),
        ),
        (2, 18),
    ),
    "dilated, grouped": Case(
        lambda: image(
            nn.Conv2d(4, 8, 3, dilation=2, padding=2, groups=2), nn.ReLU(), nn.Conv2d(8, 8, 3, 2, groups=8), nn.ReLU()
        ),
        IMAGE,
    ),
    "same padding, even kernel": Case(lambda: image(nn.ReLU(), nn.Conv2d(4, 3, (2, 4), padding="same"), nn.ReLU()), IMAGE),
    "reflect, replicate, circular": Case(
        lambda: image(
            nn.ReLU(),
            nn.Conv2d(4, 3, 3, padding=1, padding_mode="reflect"),
            nn.ReLU(),
            nn.Conv2d(3, 3, 3, padding=1, padding_mode="replicate"),
            nn.ReLU(),
            nn.Conv2d(3, 2, 3, padding=(1, 2), padding_mode="circular"),
            nn.ReLU(),
        ),
        IMAGE,
    ),
    "constant padding": Case(
        lambda: image(nn.ConstantPad2d((1, 0, 2, -1), 0.7), nn.ReLU(), nn.ReflectionPad2d(1), nn.Conv2d(4, 2, 3, 2)), IMAGE
    ),
    "transposed convolutions": Case(
        lambda: image(nn.ReLU(), nn.ConvTranspose2d(4, 4, 3, 2, 1, output_padding=1, groups=2), nn.ReLU(), nn.AvgPool2d(4)),
        IMAGE,
    ),
    "transposed convolution 1d": Case(
        lambda: seq(nn.ConvTranspose1d(2, 3, 3, 2), nn.ReLU(), nn.Flatten(), nn.Linear(51, 4)), (2, 8)
    ),
    "pixel shuffle": Case(lambda: image(nn.ReLU(), nn.PixelShuffle(2), nn.PixelUnshuffle(4), nn.ReLU()), IMAGE),
    "adaptive average, uneven": Case(lambda: image(nn.ReLU(), nn.AdaptiveAvgPool2d((3, 5))), IMAGE),
    "adaptive max, uneven": Case(lambda: image(nn.ReLU(), nn.AdaptiveMaxPool2d((3, 5))), IMAGE),
    "average, ceil, padding not counted": Case(
        lambda: image(nn.ReLU(), nn.AvgPool2d(3, 2, 1, ceil_mode=True, count_include_pad=False)), IMAGE
    ),
    "max pool, dilated, ceil, padded": Case(lambda: image(nn.ReLU(), nn.MaxPool2d(3, 2, 1, dilation=2, ceil_mode=True)), IMAGE),
    "max pool of activations": Case(lambda: image(nn.MaxPool2d(3, 2, 1), nn.ReLU(), nn.MaxPool2d((1, 2))), IMAGE),
    "lp pool, unfold": Case(
        lambda: on_image(lambda h: F.unfold(h, 3, stride=2).mean(2) + F.avg_pool2d(h.square(), 8).sum((1, 2, 3))[:, None]),
        IMAGE,
    ),
    "upsampling 1d and 3d": Case(
        lambda: Net(
            lambda m, x: m.out(
                F.relu(m.a(F.interpolate(x, scale_factor=2, mode="linear") + F.interpolate(x, size=12))).flatten(1)
            ),
            a=nn.Conv1d(2, 3, 3),
            out=nn.Linear(30, 4),
        ),
        (2, 6),
    ),
    # normalisations and weights
    "group norm": Case(lambda: image(nn.GroupNorm(2, 4), nn.ReLU()), IMAGE, 0.01),
    "instance norm": Case(lambda: image(nn.InstanceNorm2d(4, affine=True), nn.ReLU(), nn.AdaptiveAvgPool2d(2)), IMAGE, 0.01),
    "layer norm": Case(
        lambda: flat(nn.LayerNorm(16), nn.GELU(), nn.Linear(16, 16), nn.LayerNorm(16, elementwise_affine=False)), VECTOR, 0.01
    ),
    "layer norm over an image": Case(lambda: image(nn.LayerNorm([4, 8, 8]), nn.ReLU()), IMAGE, 0.01),
    "rms norm": Case(lambda: flat(RMSNorm(16), nn.ReLU(), nn.Linear(16, 16), nn.RMSNorm(16), nn.SiLU()), VECTOR, 0.01),
    "weight norm, hook and parametrization": Case(
        lambda: seq(
            parametrizations.weight_norm(nn.Linear(12, 16)),
            nn.ReLU(),
            nn.utils.weight_norm(nn.Linear(16, 16), dim=None),
            nn.ReLU(),
            nn.Linear(16, 4),
        ),
        VECTOR,
    ),
    "spectral norm, hook and parametrization": Case(
        lambda: seq(
            nn.utils.spectral_norm(nn.Linear(12, 16)),
            nn.ReLU(),
            parametrizations.spectral_norm(nn.Linear(16, 16)),
            nn.ReLU(),
            nn.Linear(16, 4),
        ),
        VECTOR,
    ),
    "orthogonal": Case(lambda: seq(parametrizations.orthogonal(nn.Linear(12, 12)), nn.ReLU(), nn.Linear(12, 4)), VECTOR),
    "parametrized": Case(_parametrized, VECTOR),
    "pruned": Case(_pruned, IMAGE),
    "masked weights": Case(
        lambda: Net(
            lambda m, x: m.out(F.relu(F.linear(x, m.w * m.mask, m.b))),
            w=nn.Parameter(torch.randn(16, 12)),
            b=nn.Parameter(torch.randn(16)),
            mask=(torch.rand(16, 12) > 0.5).float(),
            out=nn.Linear(16, 4),
        ),
        VECTOR,
    ),
    "ternary weights": Case(Ternary, VECTOR),
    "weights from parameters": Case(
        lambda: Net(
            lambda m, x: F.relu(x @ m.w.softmax(0)) @ m.v.cumsum(1),
            w=nn.Parameter(torch.randn(12, 16)),
            v=nn.Parameter(torch.randn(16, 4)),
        ),
        VECTOR,
    ),
    "batch norm 1d, 3d input": Case(
        lambda: seq(nn.Conv1d(2, 4, 3), nn.BatchNorm1d(4), nn.ReLU(), nn.Flatten(), nn.Linear(24, 4)), (2, 8)
    ),
    "normalised input": Case(
        lambda: Net(
            lambda m, x: m.body((x - m.mean) / m.std),
            mean=torch.rand(3, 1, 1),
            std=torch.rand(1, 3, 1, 1) + 0.5,
            body=seq(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 4)),
        ),
        IMAGE,
    ),
    "normalised per row and column": Case(
        lambda: Net(
            lambda m, x: m.body((m.conv(x) - m.mean) / m.std * m.columns),
            conv=nn.Conv2d(3, 4, 3, padding=1),
            mean=torch.rand(8, 1),
            std=torch.rand(8, 8) + 0.5,
            columns=torch.randn(8),
            body=seq(nn.ReLU(), nn.Conv2d(4, 2, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(128, 4)),
        ),
        IMAGE,
    ),
    # activations
    "leaky relu, negative and above one": Case(
        lambda: flat(nn.LeakyReLU(-0.3), nn.Linear(16, 16), nn.LeakyReLU(1.7), nn.Linear(16, 16), nn.RReLU()), VECTOR
    ),
    "prelu per channel": Case(lambda: image(nn.PReLU(4, init=0.3), nn.Conv2d(4, 4, 3), nn.PReLU()), IMAGE),
    "clamps": Case(
        lambda: flat(
            nn.ReLU6(),
            nn.Linear(16, 16),
            nn.Hardtanh(-0.5, 0.2),
            nn.Linear(16, 16),
            _Lambda(lambda h: h.clamp(min=-0.1).clamp_max(0.4)),
        ),
        VECTOR,
    ),
    "clamp to tensors": Case(
        lambda: Net(
            lambda m, x: m.out(torch.clamp(m.a(x), m.low, m.high)),
            a=nn.Linear(12, 16),
            low=-torch.rand(16),
            high=torch.rand(1, 16),
            out=nn.Linear(16, 4),
        ),
        VECTOR,
    ),
    "hardsigmoid, hardswish": Case(lambda: flat(nn.Hardsigmoid(), nn.Linear(16, 16), nn.Hardswish()), VECTOR),
    "elu, selu, celu": Case(lambda: flat(nn.ELU(0.7), nn.Linear(16, 16), nn.SELU(), nn.Linear(16, 16), nn.CELU(1.5)), VECTOR),
    "softplus, mish": Case(
        lambda: flat(nn.Softplus(), nn.Linear(16, 16), nn.Softplus(beta=3), nn.Linear(16, 16), nn.Mish()), VECTOR
    ),
    "gelu, silu": Case(
        lambda: flat(nn.GELU(), nn.Linear(16, 16), nn.GELU(approximate="tanh"), nn.Linear(16, 16), nn.SiLU()), VECTOR
    ),
    "sigmoid, tanh": Case(lambda: flat(nn.Sigmoid(), nn.Linear(16, 16), nn.Tanh(), nn.Linear(16, 16), nn.LogSigmoid()), VECTOR),
    "softsign, tanhshrink, softshrink": Case(
        lambda: flat(nn.Softsign(), nn.Linear(16, 16), nn.Tanhshrink(), nn.Linear(16, 16), nn.Softshrink(0.1)), VECTOR
    ),
    "threshold": Case(lambda: flat(nn.Threshold(0.1, 0.1)), VECTOR),
    "softmax, log softmax": Case(lambda: flat(nn.Softmax(1), nn.Linear(16, 16), nn.LogSoftmax(-1)), VECTOR),
    "softmin, logsumexp": Case(lambda: applied(lambda h: F.softmin(h, 1) + h.logsumexp(1, keepdim=True)), VECTOR),
    "exp, log, sqrt": Case(
        lambda: applied(
            lambda h: (
                torch.exp(h)
                + torch.log(F.softplus(h) + 0.1)
                + torch.sqrt(h.abs() + 0.1)
                + torch.log1p(h.abs())
                + torch.expm1(h)
            )
        ),
        VECTOR,
    ),
    "reciprocal, rsqrt": Case(
        lambda: applied(lambda h: 1 / (1 + torch.exp(-h)) + torch.rsqrt(1 + h.square()) + (2 + h.abs()) ** -1), VECTOR
    ),
    "powers": Case(
        lambda: applied(lambda h: h**2 + h.pow(3) + torch.square(h) - h**4 + (h * h + 1) ** 0.5 + (h.abs() + 1) ** -2), VECTOR
    ),
    "polynomial": Case(
        lambda: Net(
            lambda m, x: m.c((h := m.b((g := m.a(x)) * g)) * h), a=nn.Linear(12, 10), b=nn.Linear(10, 8), c=nn.Linear(8, 4)
        ),
        VECTOR,
    ),
    "sin, cos, atan, erf": Case(
        lambda: applied(lambda h: torch.sin(h) + torch.cos(2 * h) + torch.atan(h) + torch.erf(h)), VECTOR
    ),
    "abs, min, max": Case(
        lambda: applied(
            lambda h: torch.abs(h) + torch.min(h, torch.tensor(0.3)) + torch.maximum(h, 0.1 * h) + F.relu(-h).neg()
        ),
        VECTOR,
    ),
    # products
    "product of branches": Case(
        lambda: Net(
            lambda m, x: m.out(F.relu(m.a(x)) * torch.sigmoid(m.b(x)) * m.c(x)),
            a=nn.Linear(12, 8),
            b=nn.Linear(12, 8),
            c=nn.Linear(12, 8),
            out=nn.Linear(8, 4),
        ),
        VECTOR,
    ),
    "division by a branch": Case(
        lambda: Net(
            lambda m, x: m.out(m.a(x) / (F.softplus(m.b(x)) + 0.1)), a=nn.Linear(12, 8), b=nn.Linear(12, 8), out=nn.Linear(8, 4)
        ),
        VECTOR,
    ),
    "division by a negative branch": Case(
        lambda: Net(
            lambda m, x: m.out(m.a(x) / (-1 - m.b(x).abs())), a=nn.Linear(12, 8), b=nn.Linear(12, 8), out=nn.Linear(8, 4)
        ),
        VECTOR,
    ),
    "cosine head": Case(lambda: Net(_cosine, a=nn.Linear(12, 8), w=nn.Parameter(torch.randn(4, 8))), VECTOR, 0.01),
    "cosine similarity": Case(
        lambda: Net(
            lambda m, x: F.cosine_similarity((F.relu(m.a(x)) + 0.2)[:, None], m.w, dim=-1),
            a=nn.Linear(12, 8),
            w=nn.Parameter(torch.randn(1, 4, 8)),
        ),
        VECTOR,
        0.01,
    ),
    "distances to prototypes": Case(
        lambda: Net(
            lambda m, x: -(m.a(x).unsqueeze(1) - m.w).pow(2).sum(-1), a=nn.Linear(12, 8), w=nn.Parameter(torch.randn(4, 8))
        ),
        VECTOR,
    ),
    "bmm of two branches": Case(
        lambda: Net(
            lambda m, x: m.out(torch.bmm(m.a(x).view(-1, 3, 4), F.relu(m.b(x)).view(-1, 4, 2)).flatten(1)),
            a=nn.Linear(12, 12),
            b=nn.Linear(12, 8),
            out=nn.Linear(6, 4),
        ),
        VECTOR,
    ),
    "bilinear": Case(
        lambda: Net(lambda m, x: m.out(m.a(x[:, :6], F.relu(x[:, 6:]))), a=nn.Bilinear(6, 6, 8), out=nn.Linear(8, 4)), VECTOR
    ),
    "einsum": Case(
        lambda: Net(
            lambda m, x: torch.einsum("bth,ho->bo", F.relu(torch.einsum("btf,thf->bth", x, m.w)), m.v),
            w=nn.Parameter(torch.randn(6, 4, 8)),
            v=nn.Parameter(torch.randn(4, 4)),
        ),
        SEQUENCE,
    ),
    "einsum of two branches": Case(
        lambda: Net(
            lambda m, x: torch.einsum("btf,bsf->bts", m.a(x), F.relu(m.b(x))).flatten(1)[:, :4],
            a=nn.Linear(8, 3),
            b=nn.Linear(8, 3),
        ),
        SEQUENCE,
    ),
    "factorisation machine": Case(
        lambda: Net(
            lambda m, x: m.a(x) + 0.5 * ((x @ m.v) ** 2 - (x**2) @ (m.v**2)).sum(1, keepdim=True) * m.o,
            a=nn.Linear(12, 4),
            v=nn.Parameter(torch.randn(12, 3)),
            o=nn.Parameter(torch.randn(4)),
        ),
        VECTOR,
    ),
    # moving features
    "slices, flips, rolls": Case(
        lambda: on_image(lambda h: h[:, 1:, ::2, 1::3].flip(2).roll((1, 2), (2, 3)) + h[:, :3, -4:, ..., :3]), IMAGE
    ),
    "chunk, split, unbind, stack": Case(
        lambda: applied(
            lambda h: torch.stack(
                [*h.chunk(2, 1)[0].split([3, 5], 1)[1].unbind(1), *h.chunk(2, 1)[1].split(4, -1)[0].unbind(1)], 1
            )
        ),
        VECTOR,
    ),
    "indices": Case(
        lambda: applied(
            lambda h: (
                h[:, [0, 2, 2, -1]]
                + h[:, torch.tensor([3, 1, 0, 5])]
                + h.index_select(1, torch.tensor([1, 1, 2, 3]))
                + h.gather(1, torch.tensor([[0, 1, 2, 9]]).expand(h.shape[0], 4))
            )
        ),
        VECTOR,
    ),
    "where, masks": Case(
        lambda: Net(
            lambda m, x: m.out(
                torch.where(m.mask, m.a(x), F.relu(m.a(x)))
                + m.a(x).masked_fill(~m.mask, 0.3)
                + torch.where(m.mask, 0.1, m.a(x))
            ),
            a=nn.Linear(12, 16),
            mask=torch.rand(16) > 0.5,
            out=nn.Linear(16, 4),
        ),
        VECTOR,
    ),
    "in place": Case(lambda: applied(_in_place), VECTOR),
    "in place, parts": Case(lambda: applied(_set), VECTOR),
    "views": Case(
        lambda: Net(
            lambda m, x: (
                m.out((h := F.relu(m.a(x))).reshape(len(h), h.shape[1] * h.shape[2] * h.size(-1)))
                + m.out(h.contiguous().view(x.size()[0], -1))
                + m.out(torch.flatten(h, start_dim=1))
            ),
            a=nn.Conv2d(3, 2, 3),
            out=nn.Linear(72, 4),
        ),
        IMAGE,
    ),
    "sequence first": Case(
        lambda: Net(_sequence_first, a=nn.Linear(8, 8), position=nn.Parameter(torch.randn(6, 1, 8)), out=nn.Linear(8, 4)),
        SEQUENCE,
    ),
    "sequence first, max, clamp, norm": Case(
        lambda: Net(
            lambda m, x: m.out((m.norm(m.a(x.permute(1, 0, 2))).clamp(m.low)).max(0).values),
            a=nn.Linear(8, 8),
            norm=nn.LayerNorm(8),
            low=-torch.rand(8),
            out=nn.Linear(8, 4),
        ),
        SEQUENCE,
        0.01,
    ),
    "examples folded into channels": Case(
        lambda: Net(
            lambda m, x: m.out(
                F.relu(m.b(F.max_pool2d(F.relu(m.a(x.view(x.shape[0] * 3, 1, 8, 8))), 2).view(x.shape[0], 6, 4, 4))).flatten(1)
            ),
            a=nn.Conv2d(1, 2, 3, padding=1),
            b=nn.Conv2d(6, 3, 3),
            out=nn.Linear(12, 4),
        ),
        IMAGE,
    ),
    "frames folded into the batch": Case(FoldedFrames, (3, 4, 4)),
    "broadcasts up": Case(
        lambda: Net(
            lambda m, x: m.out((F.relu(m.a(x)).unsqueeze(2) + m.c - m.d * m.a(x)[:, :, None]).flatten(1)),
            a=nn.Linear(12, 4),
            c=nn.Parameter(torch.randn(1, 4, 3)),
            d=torch.randn(3),
            out=nn.Linear(12, 4),
        ),
        VECTOR,
    ),
    "clamped to a larger shape": Case(
        lambda: Net(
            lambda m, x: m.out(
                torch.maximum(m.a(x).unsqueeze(1), m.c).flatten(1) - torch.clamp(m.a(x)[:, None], max=m.c).flatten(1)
            ),
            a=nn.Linear(12, 4),
            c=torch.randn(3, 4),
            out=nn.Linear(12, 4),
        ),
        VECTOR,
    ),
    "several branches": Case(
        lambda: Net(
            lambda m, x: m.a(x) + m.out(torch.cat([F.relu(m.b(x)), torch.tanh(m.b(x)), x], 1)) - m.a(x.flip(1)),
            a=nn.Linear(12, 4),
            b=nn.Linear(12, 5),
            out=nn.Linear(22, 4),
        ),
        VECTOR,
    ),
    "scaled channels with a table": Case(
        lambda: Net(
            lambda m, x: m.out((F.relu(m.a(x)) * m.table(torch.arange(4))[:, :, None]).flatten(1)),
            a=nn.Conv2d(3, 4, 3, padding=1),
            table=nn.Embedding(4, 8),
            out=nn.Linear(256, 4),
        ),
        IMAGE,
    ),
    # plumbing
    "dropout in all forms": Case(
        lambda: image(
            nn.Dropout2d(0.5),
            nn.ReLU(),
            nn.Identity(),
            nn.AlphaDropout(),
            nn.FeatureAlphaDropout(),
            seq(seq(nn.Dropout()), nn.Identity()),
            _Lambda(lambda h: F.dropout(h, 0.3, False)),
        ),
        IMAGE,
    ),
    "float64": Case(
        lambda: image(nn.BatchNorm2d(4), nn.Tanh(), nn.MaxPool2d(2), nn.Conv2d(4, 4, 2), nn.LeakyReLU()).double(),
        IMAGE,
        dtype=torch.float64,
    ),
    "bias-free": Case(
        lambda: seq(
            nn.Conv2d(3, 4, 3, 2, bias=False),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(36, 8, bias=False),
            nn.ReLU(),
            nn.Linear(8, 4, bias=False),
        ),
        IMAGE,
    ),
    "one logit": Case(lambda: seq(nn.Linear(12, 8), nn.Tanh(), nn.Linear(8, 1)), VECTOR),
    "one number as input": Case(lambda: seq(nn.Linear(1, 8), nn.ReLU(), nn.Linear(8, 3)), (1,)),
    "no parameters": Case(lambda: Net(lambda m, x: F.relu(x[:, :4] - 2 * x[:, 4:8])), VECTOR),
    "linear only": Case(lambda: nn.Linear(12, 4), VECTOR),
    "to float and back": Case(lambda: applied(lambda h: F.relu(h.double()).float().to(h.dtype).type_as(h)), VECTOR),
    "cumulative sums": Case(
        lambda: applied(
            lambda h: h.relu().cumsum(1) + h.view(-1, 4, 4).sum((1, 2), keepdim=True).flatten(1) + h.mean(-1)[:, None]
        ),
        VECTOR,
    ),
    "variances": Case(
        lambda: applied(
            lambda h: torch.cat(
                [h.view(-1, 4, 4).var(2), h.view(-1, 4, 4).var(1, unbiased=False), h.norm(p=1, dim=1, keepdim=True)], 1
            )
        ),
        VECTOR,
    ),
}
