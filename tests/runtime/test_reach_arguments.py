"""Arguments that are not the same are told apart, whatever == says."""

from __future__ import annotations

import collections
import dataclasses
import struct

import numpy as np
import pytest
from reach_testing import X, times, value

import nkilite as nki
import nkilite.language as nl


class Loose:
    def __init__(self, scale):
        self.scale = scale

    def __eq__(self, other):
        return True

    def __hash__(self):
        return 1


@dataclasses.dataclass(slots=True)
class Slotted:
    scale: float


class Counted(int):
    scale = 2.0


def nan(bits: int) -> float:
    return struct.unpack("<d", struct.pack("<Q", bits))[0]


def with_scale(kind, scale, *args):
    found = kind(*args)
    found.scale = scale
    return found


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (0.0, -0.0), (1, True), (1, 1.0), (np.float32(0.0), np.float32(-0.0)), (np.float32(1), np.float64(1)),
        (nan(0x7FF8000000000000), nan(0xFFF8000000000000)), (np.float32("nan"), -np.float32("nan")),
        (complex(0.0, 1.0), complex(-0.0, 1.0)), ({0.0}, {-0.0}), ({1}, {True}), ({1: 0}, {True: 0}),
        ({"a": 1, "b": 2}, {"b": 2, "a": 1}), ({1: 0}, collections.OrderedDict({1: 0})), ([1], (1,)), ([1], [True]),
        ({8, 0}, {0, 8}), (slice(0, 1), slice(0, True)), (frozenset({1}), frozenset({1.0})),
        (Loose(2.0), Loose(3.0)), (Slotted(0.0), Slotted(-0.0)), (Slotted(1), Slotted(True)),
        (with_scale(Counted, 1.0, 1), with_scale(Counted, 2.0, 1)),
        (np.dtype("int64"), np.dtype("longlong")), (np.dtype("f4"), np.dtype("f4", metadata={"a": 1})),
        (np.str_("a"), "a"), ("1", b"1"), (range(2), range(0, 2, 2)), (np.bool_(True), True),
    ],
    ids=lambda v: f"{type(v).__name__}",
)
@pytest.mark.filterwarnings("ignore::nkilite.notices.RetraceWarning")
def test_arguments_are_told_apart(traces, first, second) -> None:
    @nki.jit
    def kernel(x, argument, again=None):
        return times(x, 1.0)

    for argument in (first, second):
        kernel(X, argument)
    assert len(traces) == 2


def test_records_are_known_by_value(traces) -> None:
    class Config(nl.NKIObject):
        sizes: list = [1, 2]  # noqa: RUF012
        scale: float = 2.0

    @nki.jit
    def kernel(x, config):
        return times(x, config.scale)

    config = Config()
    assert value(kernel(X, config)) == value(kernel(X, Config())) == 2.0
    config.scale = 3.0
    assert value(kernel(X, config)) == 3.0
    config.sizes = [1, True]
    kernel(X, config)
    assert len(traces) == 3
    Config.scale = 5.0  # a class attribute, and the default of later objects
    assert value(kernel(X, Config(scale=2.0))) == 2.0


def test_containers_of_derived_classes_reach_the_kernel() -> None:
    class Config(dict): ...

    config = Config(a=[X])
    config.scale = 2.0

    @nki.jit
    def kernel(x, config):
        assert type(config) is Config
        return times(config["a"][0], config.scale)

    assert value(kernel(X, config)) == 2.0
