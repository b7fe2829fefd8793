"""Data sets from `package.module:factory`, anybody's function that can be imported."""

from __future__ import annotations

import importlib

from newrelax.names import nearest
from plugin.data.named import NamedData
from plugin.data.words import refusal, with_type


def find_factory(spec: str) -> NamedData:
    """The function that `package.module:factory` names, as a data set of that name.

    Raises:
        UserError: a module that cannot be imported, or a name in it that is no function.
    """
    module_name, _, factory_name = spec.partition(":")
    try:
        module = importlib.import_module(module_name)
    except Exception as problem:  # somebody else's module may fail in any way when it is imported
        raise refusal(spec, f"module {module_name} cannot be imported ({with_type(problem)})") from problem
    if not hasattr(module, factory_name):
        raise refusal(spec, f"module {module_name} has no {factory_name!r}{nearest(factory_name, vars(module))}")
    found: object = getattr(module, factory_name)
    if isinstance(found, NamedData):
        return found
    if not callable(found):
        raise refusal(spec, f"expected a function that gives a data set, got {type(found).__name__}")
    return NamedData(spec, found)
