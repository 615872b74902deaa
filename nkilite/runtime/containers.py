"""One walk over nested arguments and results: tuples, lists, dicts and the user's records, each other value a leaf."""

from __future__ import annotations

import copy
import dataclasses
import enum
import types
from collections.abc import Callable

from nkilite.runtime.opaque import UserValue


def map_leaves(value: object, leaf: Callable[[object, str], object], name: str = "", records: bool = True) -> UserValue:
    """Copy a nesting of containers with every other value replaced.

    Args:
        value: the nesting.
        leaf: what replaces a value, called with it and with its name, for example `config.weights[0]`.
        name: the name of `value` itself.
        records: look into records (see `is_record`), too.

    Records, and containers of classes derived from tuple, list and dict, are kept as they are if nothing in them
    changes.
    """
    kind = type(value)
    if isinstance(value, (tuple, list)):
        items = [map_leaves(v, leaf, f"{name}[{i}]", records) for i, v in enumerate(value)]
        if kind is list:
            return items
        return tuple(items) if kind is tuple else _with_items(value, items)
    if isinstance(value, dict):
        replaced = {k: map_leaves(v, leaf, f"{name}[{k!r}]", records) for k, v in value.items()}
        return replaced if kind is dict else _with_values(value, replaced)
    if records and is_record(value):
        state = state_of(value)
        changed = {k: map_leaves(v, leaf, f"{name}.{k}", records) for k, v in state.items()}
        if all(changed[k] is v for k, v in state.items()):
            return value
        new = object.__new__(kind)
        for k, v in changed.items():
            object.__setattr__(new, k, v)
        return new
    return leaf(value, name)


def is_record(value: object) -> bool:
    """Whether a value is a user's dataclass or NKIObject: an instance whose state is in attributes and slots."""
    kind = type(value)
    if isinstance(value, (type, types.ModuleType, types.FunctionType, enum.Enum)):
        return False
    if not (dataclasses.is_dataclass(kind) or any(c.__name__ == "NKIObject" for c in kind.__mro__)):
        return False
    return not isinstance(value, (tuple, list, dict, set, frozenset, int, float, complex, str, bytes))


def state_of(value: object) -> dict[str, object]:
    """The attributes of a record by name, those in slots first."""
    found = {}
    for base in reversed(type(value).__mro__):
        for name, member in vars(base).items():
            if isinstance(member, types.MemberDescriptorType) and hasattr(value, name):
                found[name] = member.__get__(value)
    return {**found, **getattr(value, "__dict__", {})}


def _with_items(value: UserValue, items: list[object]) -> object:
    """A tuple or list of a derived class with other items."""
    if all(a is b for a, b in zip(value, items, strict=True)):
        return value
    if isinstance(value, list):
        new = copy.copy(value)
        new[:] = items
        return new
    return type(value)(*items) if hasattr(value, "_fields") else type(value)(items)


def _with_values(value: dict[object, object], replaced: dict[object, object]) -> object:
    """A dict of a derived class with other values."""
    if all(value[k] is v for k, v in replaced.items()):
        return value
    new = copy.copy(value)
    for k, v in replaced.items():
        new[k] = v
    return new
