"""Measuring parts of methods on one network, wherever that is done."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from torch import Tensor, nn

from newrelax.errors import UserError
from newrelax.registry import Registry
from plugin.analysis.measure import Protocol, cost, measure
from plugin.analysis.probe import Analysed
from plugin.analysis.side_by_side import FieldsOnly
from plugin.certification.bounding import Bounding
from plugin.certification.region import Region
from plugin.training.smoothing import read_smoothing


@dataclass(frozen=True)
class Part:
    """One of `plugin.analysis.measure.PARTS` of a method, by its label; sound: whether its bounds hold."""

    name: str
    method: str
    sound: bool = True


@dataclass(frozen=True)
class Failure:
    """Why a part could not be measured, in one line."""

    reason: str


@dataclass(frozen=True)
class Measurement(FieldsOnly):
    """Measures parts on a network, called with a part; in words that another process can be given.

    x: [images, ...] inputs, y: [images]. protocol: without its smoothing, whose spelling `smoothing` is. plugins: files that
    methods, operators and smoothings may come from.
    """

    model: nn.Module
    x: Tensor
    y: Tensor
    region: Region
    protocol: Protocol
    smoothing: str | None = None
    plugins: tuple[str, ...] = ()

    @classmethod
    def of(
        cls, model: nn.Module, x: Tensor, y: Tensor, region: Region, protocol: Protocol, plugins: tuple[str, ...] = ()
    ) -> Measurement:
        """On the first inputs of x, as many as the protocol asks for."""
        smoothing = None if protocol.smoothing is None else protocol.smoothing.spelling(quiet=True)
        images = max(protocol.images, protocol.probe)
        # Clones, because a view takes all that it is a part of with it to another process.
        return cls(model, x[:images].clone(), y[:images].clone(), region, replace(protocol, smoothing=None), smoothing, plugins)

    @cached_property
    def _registry(self) -> Registry:
        return Registry.load(self.plugins)

    @cached_property
    def _whole_protocol(self) -> Protocol:
        smoothing = None if self.smoothing is None else read_smoothing(self.smoothing, self._registry)
        return replace(self.protocol, smoothing=smoothing)

    def __call__(self, part: Part, tick: Callable[[int], None]) -> dict[str, Any] | Failure:
        """The part's record as JSON types. `tick` hears of exactly as many evaluations as `cost` says."""
        registry = self._registry
        method = replace(registry.get_method(part.method), sound=part.sound)
        analysed = Analysed(method, region=self.region, bounding=Bounding(operators=registry.operators))
        left = cost(part.name, self.protocol, sum(1 for p in self.model.parameters() if p.requires_grad))

        def counted(count: int) -> None:
            nonlocal left
            count = min(count, left)
            left -= count
            tick(count)

        try:
            return measure(part.name, self.model, analysed, self.x, self.y, self._whole_protocol, counted)
        except (UserError, ValueError) as problem:  # ValueError: bounds that are not finite
            return Failure(str(problem))
        finally:
            tick(left)
