"""The function a kernel is made of: which callables are taken, their names, and how pickles refer to the kernel."""

from __future__ import annotations

import functools
import inspect
import pickle
import sys
from collections.abc import Callable
from typing import cast

from nkilite.errors import InvalidOperand, KernelNotPickled, describe
from nkilite.location import code_of
from nkilite.runtime.opaque import UserValue

_BY_VALUE = ("cloudpickle", "dill", "joblib.externals.cloudpickle")  # picklers that take any function


def signature_of(function: object, decorator: str) -> inspect.Signature:
    """The signature of a callable that can be a kernel.

    Raises:
        InvalidOperand: it is none, has no Python code that could be traced, or does not run when it is called.
    """
    code, found = code_of(function), describe(function)
    if callable(function) and code is not None:
        flags = code.co_flags
        if not flags & (inspect.CO_GENERATOR | inspect.CO_COROUTINE | inspect.CO_ASYNC_GENERATOR):
            try:
                return inspect.signature(function)
            except (TypeError, ValueError) as error:
                found = f"{found}, whose signature cannot be found ({error})"
        else:
            kind = "a generator" if flags & inspect.CO_GENERATOR else "a coroutine"
            found = f"{kind} function, whose body does not run when it is called"
    expected = "a function written in Python that runs when it is called"
    raise InvalidOperand(instruction=decorator, operand="the kernel", found=found, expected=expected)


def take_name(kernel: UserValue, function: UserValue) -> None:
    """Name a kernel after its function; a partial has the name of what it calls, an object that of its class."""
    if inspect.isroutine(function) or hasattr(function, "__wrapped__"):
        functools.update_wrapper(kernel, function)
    named = function
    while isinstance(named, functools.partial):
        named = named.func
    if not hasattr(named, "__name__"):
        named = type(named)
    functools.update_wrapper(kernel, named, updated=())
    kernel.__wrapped__ = function


def reference(
    kernel: UserValue, derived: Callable[..., object], options: tuple[object, ...]
) -> str | tuple[object, ...]:
    """How to pickle a kernel: what `__reduce__` returns.

    Functions are pickled by module and name, and so is a kernel that stands there. Of any other kernel, such as the
    simulated form of one that does, what its function is found in is pickled: `derived(found, steps, *options)`.

    Raises:
        KernelNotPickled: neither the kernel nor its function can be found by its name.
    """
    function, name = kernel.function, str(kernel.__qualname__)
    place = _named(kernel.__module__, kernel.__qualname__)
    found: object = place
    steps = 0
    while found is not None:
        if found is kernel and steps == 0:
            return name
        if found is function or getattr(found, "function", None) is function:
            return derived, (place, steps, *options)
        found, steps = getattr(found, "__wrapped__", None), steps + 1
    if _pickled(function) or any(name in sys.modules for name in _BY_VALUE):
        return derived, (function, 0, *options)
    raise KernelNotPickled(kernel=kernel.__qualname__, module=kernel.__module__, location=kernel.location)


def found_in(place: UserValue, steps: int) -> Callable[..., object]:
    """The function that is so many `__wrapped__` below an object, or that of the kernel there."""
    for _ in range(steps):
        place = place.__wrapped__
    return cast("Callable[..., object]", getattr(place, "function", place))


def _pickled(function: object) -> bool:
    """Whether pickle takes a callable by itself, as it does partials, methods and objects of functions by name."""
    try:
        pickle.dumps(function)
    except Exception:
        return False
    return True


def _named(module: str, qualname: str) -> object:
    """What has a qualified name in a module; None if nothing has."""
    found: object = sys.modules.get(module)
    for name in qualname.split("."):
        found = getattr(found, name, None)
    return found
