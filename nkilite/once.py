"""`functools.cached_property` without the lock that it has up to Python 3.11.

That lock is one for all objects of a class, and a child of fork never gets it if another thread had it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Generic, TypeVar, overload

_Owner = TypeVar("_Owner")
_Value = TypeVar("_Value")


class cached_property(Generic[_Owner, _Value]):
    """An attribute that is computed when it is first asked for; threads that ask at once may each compute it."""

    def __init__(self, compute: Callable[[_Owner], _Value]) -> None:
        self._compute, self.__doc__ = compute, compute.__doc__

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = name

    @overload
    def __get__(self, instance: None, owner: type) -> cached_property[_Owner, _Value]: ...

    @overload
    def __get__(self, instance: object, owner: type) -> _Value: ...

    def __get__(self, instance: Any, owner: type) -> Any:
        if instance is None:
            return self
        value = instance.__dict__[self._name] = self._compute(instance)
        return value
