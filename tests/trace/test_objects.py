"""NKIObject: fields, defaults and construction, with and without @dataclass."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np
import pytest

import nkilite as nki
import nkilite.language as nl


class Plain(nl.NKIObject):
    size: int
    bias = 3
    name: str = "tile"
    limit: ClassVar[int] = 7

    def double(self):
        return 2 * self.size

    @property
    def half(self):
        return self.size // 2


@dataclass
class Decorated(nl.NKIObject):
    size: int
    bias = 3
    name: str = "tile"
    parts: list[int] = field(default_factory=list)


class Child(Plain):
    extra: float

    def __post_init__(self):
        self.total = self.size + self.bias


@pytest.mark.parametrize("kind", [Plain, Decorated])
def test_fields_annotated_or_not(kind):
    made = kind(4, 5, name="x")
    assert (made.size, made.bias, made.name) == (4, 5, "x")
    assert kind(name="y").size is None
    assert kind(bias=1).bias == 1


def test_methods_and_class_variables_are_no_fields():
    made = Plain(8)
    assert (made.double(), made.half, made.limit) == (16, 4, 7)
    with pytest.raises(TypeError, match="limit"):
        Plain(limit=1)
    with pytest.raises(TypeError, match="half"):
        Plain(half=1)


def test_default_factories_are_fresh():
    assert Decorated().parts == []
    assert Decorated().parts is not Decorated().parts


def test_inheritance_and_post_init():
    made = Child(1, 2, "n", 0.5)
    assert (made.size, made.bias, made.name, made.extra, made.total) == (1, 2, "n", 0.5, 3)


def test_own_init_is_inherited():
    class Base(nl.NKIObject):
        size: int = 1

        def __init__(self, size):
            self.size = size + 100

    class Derived(Base):
        flag = True

    assert Derived(1).size == 101
    assert Derived(1).flag is True


def test_equality_is_that_of_python():
    assert Plain(1) != Plain(1)
    assert Decorated(1) == Decorated(1)
    assert Decorated(1) != Decorated(2)


def test_frozen_dataclass():
    @dataclass(frozen=True)
    class Frozen(nl.NKIObject):
        size: int

    made = Frozen(3)
    assert made.size == 3
    with pytest.raises(AttributeError):
        made.size = 4


def test_arguments_that_do_not_fit():
    with pytest.raises(TypeError, match="unexpected keyword argument 'colour'"):
        Plain(colour=1)
    with pytest.raises(TypeError, match="too many positional"):
        Plain(1, 2, 3, 4)


def test_repr_names_the_fields():
    assert repr(Plain(2)) == "Plain(size=2, bias=3, name='tile')"


class Config(nl.NKIObject):
    scale: float = 2.0
    data = None


def test_as_argument_of_a_kernel():
    @nki.jit
    def kernel(config):
        tile = nl.multiply(nl.load(config.data), config.scale)
        output = nl.ndarray(tile.shape, tile.dtype, nl.shared_hbm)
        nl.store(output, tile)
        return output

    x = np.ones((4, 5), np.float32)
    np.testing.assert_array_equal(kernel(Config(data=x)), 2 * x)
    np.testing.assert_array_equal(kernel(Config(3.0, x)), 3 * x)
