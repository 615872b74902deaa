"""A launch notices changes of values, functions and their code."""

from __future__ import annotations

import builtins
import collections
import dataclasses
import functools
import itertools
import math
import sys
import types

import numpy as np
import pytest
import reach_testing
from reach_testing import Changes, X, require_seen, times, value

import nkilite as nki

CHANGES = Changes()
change = CHANGES.add


@change
def ordered_dictionary_reordered():
    items = collections.OrderedDict(a=2.0, b=3.0)
    return lambda: next(iter(items.values())), lambda: items.move_to_end("a")


@change
def default_factory():
    items = collections.defaultdict(lambda: 2.0)

    def update():
        items.clear()
        items.default_factory = lambda: 3.0

    return lambda: items["scale"], update


@change
def one_to_true():
    items = [1]
    return lambda: 3.0 if items[0] is True else 2.0, lambda: items.__setitem__(0, True)


@change
def zero_to_minus_zero():
    items = {"zero": 0.0}
    return lambda: 2.0 if math.copysign(1.0, items["zero"]) > 0 else 3.0, lambda: items.update(zero=-0.0)


@change
def array_reshaped():
    table = np.arange(6.0).reshape(2, 3)
    return lambda: table.shape[0], lambda: setattr(table, "shape", (3, 2))


@change
def large_array():
    table = np.full(100_000, 2.0)
    return lambda: table[-1], lambda: table.__setitem__(-1, 3.0)


@change
def bytes_array():
    table = bytearray([2])
    return lambda: table[0], lambda: table.__setitem__(0, 3)


@change
def iterator():
    numbers = itertools.count(2)
    return lambda: next(numbers), lambda: None


@change
def trace_that_counts():
    seen = [1]

    def factor():
        seen.append(1)
        return len(seen)

    return factor, lambda: None


@change
def keyword_default():
    def helper(*, scale=2.0):
        return scale

    return lambda: helper(), lambda: helper.__kwdefaults__.update(scale=3.0)


@change
def list_as_default():
    def helper(scale=[2.0]):  # noqa: B006
        return scale[0]

    return lambda: helper(), lambda: helper.__defaults__[0].__setitem__(0, 3.0)


@change
def name_of_function():
    def helper(): ...

    helper.__name__ = "2"
    return lambda: helper.__name__, lambda: setattr(helper, "__name__", "3")


@change
def docstring():
    def helper():
        "2"

    return lambda: helper.__doc__, lambda: setattr(helper, "__doc__", "3")


@change
def nested_function():
    scale = types.SimpleNamespace(value=2.0)

    def factor():
        def inner():
            return next(scale.value for _ in range(1))

        return inner()

    return factor, lambda: setattr(scale, "value", 3.0)


@change
def wrapped_twice():
    scale = [2.0]

    def scaled(function):
        @functools.wraps(function)
        def wrapper(*args):
            return function(*args) * scale[0]

        return wrapper

    helper = scaled(scaled(lambda: 0.5))

    def update():
        scale[0] = 6.0**0.5

    return lambda: round(helper(), 5), update


@change
def context_manager():
    class Scope:
        value = 2.0

        def __enter__(self):
            return self.value

        def __exit__(self, *_): ...

    def factor():
        with Scope() as found:
            return found

    return factor, lambda: setattr(Scope, "value", 3.0)


@change
def method_bound_to_builtin():
    get = {"scale": 2.0}.get
    return lambda: get("scale"), lambda: get.__self__.update(scale=3.0)


@change
def frames():
    scale = 2.0

    def factor():
        return sys._getframe(0).f_back.f_globals["FRAME"]

    caller = vars(reach_testing)  # where the kernel is that calls it
    caller["FRAME"] = scale
    return factor, lambda: caller.update(FRAME=3.0)


@change
def generic_alias_of_dataclass():
    @dataclasses.dataclass(frozen=True)
    class Config:
        items: list[float] = dataclasses.field(default_factory=lambda: [2.0])

    def other():
        return [3.0]

    default = dataclasses.fields(Config)[0].default_factory
    return lambda: Config().items[0], lambda: setattr(default, "__code__", other.__code__)


@change
def kernel_attribute():
    @nki.jit
    def other(x):
        return x

    other.scale = 2.0
    return lambda: other.scale, lambda: setattr(other, "scale", 3.0)


@change
def inlined_kernel():
    scale = [2.0]

    @nki.jit
    def other(n):
        return n * scale[0]

    return lambda: other(1.0), lambda: scale.__setitem__(0, 3.0)


@change
def slots():
    class Base:
        __slots__ = ("scale",)

    class Config(Base):
        __slots__ = ()

    config = Config()
    config.scale = 2.0
    return lambda: config.scale, lambda: setattr(config, "scale", 3.0)


@change
def name_put_into_builtins():
    builtins.SCALE_OF_TEST = 2.0
    return lambda: SCALE_OF_TEST, lambda: setattr(builtins, "SCALE_OF_TEST", 3.0)  # noqa: F821


@pytest.mark.filterwarnings("ignore::nkilite.notices.RetraceWarning")
@pytest.mark.parametrize("name", CHANGES)
def test_changes_are_seen(name) -> None:
    require_seen(CHANGES, name)


def test_own_defaults_and_code() -> None:
    def plain(x, scale=2.0, *, shift=0.0):
        return times(x, scale + shift)

    kernel = nki.jit(plain)
    assert value(kernel(X)) == 2.0
    plain.__defaults__ = (3.0,)
    assert value(kernel(X)) == 3.0
    plain.__kwdefaults__["shift"] = 4.0
    assert value(kernel(X)) == 7.0

    def other(x, factor=5.0):
        return times(x, factor)

    plain.__kwdefaults__ = None
    plain.__code__ = other.__code__
    assert value(kernel(X, factor=6.0)) == 6.0
