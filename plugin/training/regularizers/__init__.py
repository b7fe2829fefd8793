"""What a step minimises beside its loss while ε rises, one file each."""

from plugin.training.regularizers.base import Context, Regularizer
from plugin.training.regularizers.catalogue import list_regularizers, read_regularizer, regularizers
from plugin.training.regularizers.regularized import Regularized

__all__ = ["Context", "Regularized", "Regularizer", "list_regularizers", "read_regularizer", "regularizers"]
