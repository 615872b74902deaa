"""A launch notices changes of classes and of their objects."""

from __future__ import annotations

import enum
import functools
import types
import typing

import pytest
from reach_testing import Changes, require_seen

CHANGES = Changes()
change = CHANGES.add


@change
def property_of_class():
    class Config:
        @property
        def scale(self):
            return 2.0

    config = Config()
    return lambda: config.scale, lambda: setattr(Config, "scale", property(lambda self: 3.0))


@change
def property_over_hidden_attribute():
    class Config:
        def __init__(self):
            self._values = {"scale": [2.0]}

        @property
        def scale(self):
            return self._values["scale"][0]

    config = Config()
    return lambda: config.scale, lambda: config._values["scale"].__setitem__(0, 3.0)


@change
def attribute_finder():
    class Config:
        def __getattr__(self, name):
            return self.__class__.found[name]

        found: typing.ClassVar = {"scale": 2.0}

    config = Config()
    return lambda: config.scale, lambda: Config.found.update(scale=3.0)


@change
def descriptor_with_state():
    class Field:
        def __init__(self):
            self.value = 2.0

        def __get__(self, instance, owner):
            return self.value

    field = Field()

    class Config:
        scale = field

    return lambda: Config.scale, lambda: setattr(field, "value", 3.0)


@change
def cached_property_emptied():
    class Config:
        base = 2.0

        @functools.cached_property
        def scale(self):
            return self.base

    config = Config()

    def update():
        Config.base = 3.0
        del config.scale

    return lambda: config.scale, update


@change
def cached_function_emptied():
    scale = types.SimpleNamespace(value=2.0)

    @functools.lru_cache
    def cached():
        return scale.value

    def update():
        scale.value = 3.0
        cached.cache_clear()

    return cached, update


@change
def class_of_object_changed():
    class Two:
        scale = 2.0

    class Three:
        scale = 3.0

    config = Two()
    return lambda: config.scale, lambda: setattr(config, "__class__", Three)


@change
def base_class_changed():
    class Two:
        scale = 2.0

    class Three:
        scale = 3.0

    class Config(Two): ...

    return lambda: Config().scale, lambda: setattr(Config, "__bases__", (Three,))


@change
def instance_attribute_hides_class_attribute():
    class Config:
        scale = 2.0

    config = Config()
    return lambda: config.scale, lambda: setattr(config, "scale", 3.0)


@change
def dictionary_of_object_replaced():
    config = types.SimpleNamespace(inner=type("Box", (), {})())
    config.inner.scale = 2.0
    return lambda: config.inner.scale, lambda: setattr(config.inner, "__dict__", {"scale": 3.0})


@change
def class_with_a_class_of_its_own():
    class Meta(type):
        @property
        def scale(cls):
            return cls.held[0]

    class Config(metaclass=Meta):
        held: typing.ClassVar = [2.0]

    return lambda: Config.scale, lambda: Config.held.__setitem__(0, 3.0)


@change
def method_of_named_tuple():
    class Config(typing.NamedTuple):
        a: int

        def scale(self):
            return 2.0

    config = Config(1)
    return lambda: config.scale(), lambda: setattr(Config, "scale", lambda self: 3.0)


@change
def enumeration_attribute():
    class Mode(enum.Enum):
        a = 1

    Mode.a.scale = 2.0
    return lambda: Mode.a.scale, lambda: setattr(Mode.a, "scale", 3.0)


@change
def operator_of_class():
    class Number:
        def __add__(self, other):
            return 2.0 + other

    number = Number()
    return lambda: number + 0.0, lambda: setattr(Number, "__add__", lambda self, other: 3.0)


@change
def subclass_of_integer():
    class Count(int): ...

    count = Count(1)
    count.scale = 2.0
    return lambda: count.scale, lambda: setattr(count, "scale", 3.0)


@change
def subclass_of_list():
    class Items(list): ...

    items = Items([2.0])
    return lambda: items[-1], lambda: items.append(3.0)


@change
def subclass_of_partial():
    class Bound(functools.partial): ...

    bound = Bound(lambda scale: scale, scale=2.0)
    return lambda: bound(), lambda: bound.keywords.update(scale=3.0)


@pytest.mark.filterwarnings("ignore::nkilite.notices.RetraceWarning")
@pytest.mark.parametrize("name", CHANGES)
def test_changes_are_seen(name) -> None:
    require_seen(CHANGES, name)
