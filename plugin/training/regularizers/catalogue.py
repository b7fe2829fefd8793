"""Regularisers by their names: the built-in one, and those that plugins bring."""

from __future__ import annotations

from plugin.settings.nouns import Catalogue
from plugin.training.regularizers.base import Regularizer
from plugin.training.regularizers.shi import Shi

REGULARIZERS: Catalogue[Regularizer] = Catalogue("regularizer", Regularizer, (Shi,))
regularizers, read_regularizer, list_regularizers = REGULARIZERS.known, REGULARIZERS.read, REGULARIZERS.listing
