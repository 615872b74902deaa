"""One walk over nested arguments and results: tuples, lists, dicts and the user's records, each other value a leaf."""

from __future__ import annotations

import dataclasses
import enum
import types
from collections.abc import Callable
from typing import Any


def map_leaves(value: Any, leaf: Callable[[Any, str], Any], name: str = "", records: bool = True) -> Any:
    """Copy a nesting of containers with every other value replaced.

    Args:
        value: the nesting.
        leaf: what replaces a value, called with it and with its name, for example `config.weights[0]`.
        name: the name of `value` itself.
        records: look into records (see `is_record`), too; those in which nothing changes are kept as they are.
    """
    if isinstance(value, tuple):
        items = [map_leaves(v, leaf, f"{name}[{i}]", records) for i, v in enumerate(value)]
        return type(value)(*items) if hasattr(value, "_fields") else tuple(items)
    if isinstance(value, list):
        return [map_leaves(v, leaf, f"{name}[{i}]", records) for i, v in enumerate(value)]
    if isinstance(value, dict):
        return {k: map_leaves(v, leaf, f"{name}[{k!r}]", records) for k, v in value.items()}
    if records and is_record(value):
        changed = {k: map_leaves(v, leaf, f"{name}.{k}", records) for k, v in vars(value).items()}
        if all(changed[k] is v for k, v in vars(value).items()):
            return value
        copy = object.__new__(type(value))
        copy.__dict__.update(changed)
        return copy
    return leaf(value, name)


def is_record(value: Any) -> bool:
    """Whether a value is a user's dataclass or NKIObject: an instance whose state is its `__dict__`."""
    if isinstance(value, (type, types.ModuleType, types.FunctionType, enum.Enum)) or not hasattr(value, "__dict__"):
        return False
    return dataclasses.is_dataclass(value) or any(c.__name__ == "NKIObject" for c in type(value).__mro__)
