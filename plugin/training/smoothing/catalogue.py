"""Smoothings by their names: the built-in ones, and those that plugins bring."""

from __future__ import annotations

from plugin.settings.nouns import Catalogue
from plugin.training.smoothing.base import Smoothing
from plugin.training.smoothing.controlled import Controlled
from plugin.training.smoothing.pgpe import Pgpe
from plugin.training.smoothing.rgs import Rgs

SMOOTHINGS: Catalogue[Smoothing] = Catalogue("smoothing", Smoothing, (Rgs, Pgpe, Controlled))
smoothings, read_smoothing, list_smoothings = SMOOTHINGS.known, SMOOTHINGS.read, SMOOTHINGS.listing
