"""What a launch notices: every change of what a kernel reads, between two launches of one process."""

from __future__ import annotations

import builtins
import collections
import dataclasses
import enum
import functools
import importlib
import itertools
import math
import operator
import struct
import sys
import types
import typing
import warnings

import numpy as np
import pytest

import nkilite as nki
import nkilite.isa as nisa
import nkilite.language as nl
from nkilite.errors import InvalidSetting
from nkilite.notices import RetraceWarning
from nkilite.runtime import specialization

X = np.ones((4, 8), np.float32)


def times(x, factor):
    out = nl.ndarray(x.shape, dtype=x.dtype, buffer=nl.shared_hbm)
    tile = nl.load(x)
    nisa.tensor_scalar(tile, tile, nl.multiply, float(factor))
    nl.store(out, tile)
    return out


def value(result) -> float:
    return float(np.asarray(result).flat[0])


@pytest.fixture
def traces(monkeypatch) -> list[str]:
    """The names of kernels that are traced."""
    names: list[str] = []
    original = specialization.trace

    def trace(kernel, arguments):
        names.append(kernel.__name__)
        return original(kernel, arguments)

    monkeypatch.setattr(specialization, "trace", trace)
    return names


# A change: (factor, change): the kernel multiplies by factor(), which is 2 and after change() 3. What the functions
# made here close over stands for globals, too, which are guarded alike.

CHANGES: dict[str, typing.Callable] = {}


def change(function):
    CHANGES[function.__name__] = function
    return function


@change
def module_attribute():
    module = types.ModuleType("settings")
    module.inner = types.ModuleType("settings.inner")
    module.inner.scale = 2.0
    return lambda: module.inner.scale, lambda: setattr(module.inner, "scale", 3.0)


@change
def module_replaced_in_module():
    module, other = types.ModuleType("settings"), types.ModuleType("other")
    module.inner = types.ModuleType("settings.inner")
    module.inner.scale, other.scale = 2.0, 3.0
    return lambda: module.inner.scale, lambda: setattr(module, "inner", other)


@change
def module_that_finds_attributes():
    module = types.ModuleType("settings")
    found = {"scale": 2.0}
    vars(module)["__getattr__"] = found.__getitem__
    return lambda: module.scale, lambda: found.update(scale=3.0)


@change
def module_attribute_appears():
    module = types.ModuleType("settings")
    return lambda: module.scale if hasattr(module, "scale") else 2.0, lambda: setattr(module, "scale", 3.0)


@change
def module_under_another_name():
    module = types.ModuleType("settings")
    module.scale = 2.0

    def factor():
        alias = module
        return alias.scale

    return factor, lambda: setattr(module, "scale", 3.0)


@change
def module_in_a_list():
    modules = [types.ModuleType("settings")]
    modules[0].scale = 2.0
    return lambda: modules[0].scale, lambda: setattr(modules[0], "scale", 3.0)


@change
def computed_name():
    module = types.ModuleType("settings")
    module.scale = 2.0
    name = "scale"
    return lambda: getattr(module, name), lambda: setattr(module, "scale", 3.0)


@change
def attribute_getter():
    module = types.ModuleType("settings")
    module.scale = 2.0
    get = operator.attrgetter("scale")
    return lambda: get(module), lambda: setattr(module, "scale", 3.0)


@change
def format_that_looks_up():
    box = types.SimpleNamespace(inner=types.ModuleType("settings"))
    box.inner.scale = 2
    return lambda: "{0.inner.scale}".format(box), lambda: setattr(box.inner, "scale", 3)  # noqa: UP030, UP032


@change
def library_function_patched():
    module = types.ModuleType("library")
    exec("def ceil(n): return 2.0", vars(module))
    return lambda: module.ceil(1.5), lambda: exec("def ceil(n): return 3.0", vars(module))


@change
def code_evaluated():
    scale = [2.0]
    return lambda: eval("scale[0]", {"scale": scale}), lambda: scale.__setitem__(0, 3.0)


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

    globals()["FRAME"] = scale
    return factor, lambda: globals().update(FRAME=3.0)


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
    factor, update = CHANGES[name]()

    @nki.jit
    def kernel(x):
        return times(x, factor())

    assert value(kernel(X)) == 2.0
    update()
    assert value(kernel(X)) == pytest.approx(3.0)
    if name not in ("iterator", "trace_that_counts"):
        assert value(kernel(X)) == value(nki.simulate(kernel)(X)) == pytest.approx(3.0)


def test_a_module_that_is_loaded_again(tmp_path, monkeypatch) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    path = tmp_path / "reloaded_by_test.py"
    path.write_text("SCALE = 2.0\ndef scale(): return SCALE\n")
    module = importlib.import_module("reloaded_by_test")

    @nki.jit
    def kernel(x):
        return times(x, module.scale())

    assert value(kernel(X)) == 2.0
    path.write_text("SCALE = 3.00\ndef scale(): return SCALE\n")
    importlib.reload(module)
    assert value(kernel(X)) == 3.0


@pytest.mark.parametrize("place", [nl, nisa, np, math], ids=lambda m: m.__name__)
def test_a_patched_library(monkeypatch, place) -> None:
    name = {nl: "load", nisa: "tensor_copy", np: "ceil", math: "ceil"}[place]

    @nki.jit
    def kernel(x):
        used = (nl.load, nisa.tensor_copy, np.ceil, math.ceil)
        return times(x, 2.0 if all(not hasattr(f, "patched") for f in used) else 3.0)

    assert value(kernel(X)) == 2.0
    original = getattr(place, name)

    def patched(*args, **kwargs):
        return original(*args, **kwargs)

    patched.patched = True
    monkeypatch.setattr(place, name, patched)
    assert value(kernel(X)) == 3.0


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


# --- arguments ----------------------------------------------------------------------------------------------------


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


# --- what it costs ------------------------------------------------------------------------------------------------


class Tiles(enum.IntEnum):
    rows = 128


@dataclasses.dataclass(frozen=True)
class Plan:
    scale: float = 2.0
    tile: Tiles = Tiles.rows
    table: tuple = (1, 2)

    def factor(self, extra: float = 0.0) -> float:
        return float(np.prod(self.table)) / 2 * self.scale + extra


PLAN = Plan()
TABLE = {"a": [1, 2], "dtype": nl.float32}
ARRAY = np.arange(4)


def helper(n: int) -> int:
    return math.ceil(n / Tiles.rows) + len(TABLE["a"]) - 2 + min(0, *map(abs, ARRAY)) + sum(i for i in range(1))


def test_what_is_unchanged_is_not_traced_again(traces) -> None:
    @nki.jit
    def kernel(x, scale=1.0):
        if not isinstance(scale, float) or TABLE["dtype"] != nl.float32:
            raise ValueError(f"{scale}")
        return times(x, PLAN.factor() * helper(x.shape[0]) * scale)

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for _ in range(3):
            assert value(kernel(X)) == 2.0
            assert value(kernel(X, scale=2.0)) == 4.0
            assert value(kernel(X.tolist() and X.copy(), 2.0)) == 4.0
    assert len(traces) == 2


def test_it_is_said_why_a_kernel_is_traced_at_every_launch(traces) -> None:
    name = "scale"

    @nki.jit
    def kernel(x):
        return times(x, getattr(PLAN, name))  # here

    assert value(kernel(X)) == 2.0
    with pytest.warns(RetraceWarning, match=r"(?s)computed name at .*test_reach\.py:\d+.*# here.*fix: ") as found:
        kernel(X)
    assert found[0].filename == __file__
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        kernel(X)
    assert len(traces) == 4 - 1
    executables = {id(s.executable) for s in kernel._specializations.values()}
    assert len(executables) == len(kernel._executables) == 1


def test_a_program_that_was_compiled_is_not_compiled_again(monkeypatch) -> None:
    count = []
    original = specialization.compile_program
    monkeypatch.setattr(specialization, "compile_program", lambda program: count.append(1) or original(program))
    box = [2.0]

    @nki.jit
    def kernel(x):
        return times(x, box[0])

    for scale in (2.0, 3.0, 2.0, 3.0):
        box[0] = scale
        assert value(kernel(X)) == scale
    assert len(count) == 2


def test_specializations_are_bounded(monkeypatch, traces) -> None:
    @nki.jit
    def kernel(x):
        return times(x, 2.0)

    monkeypatch.setenv("NKILITE_SPECIALIZATIONS", "2")
    arrays = [np.ones((n, 8), np.float32) for n in (1, 2, 3)]
    for a in (0, 1, 0, 2, 0):  # the second is the one used least recently
        kernel(arrays[a])
    assert len(kernel._specializations) == len(kernel._executables) == len(kernel._calls._launches) == 2
    assert len(traces) == 3
    kernel(arrays[1])
    assert len(traces) == 4
    monkeypatch.setenv("NKILITE_SPECIALIZATIONS", "0")
    with pytest.raises(InvalidSetting, match="NKILITE_SPECIALIZATIONS"):
        kernel(np.ones((5, 8), np.float32))


def test_a_new_number_compiles_nothing(monkeypatch) -> None:
    from nkilite.native.library import Library

    compiled = []
    original = Library._compile
    monkeypatch.setattr(Library, "_compile", lambda self, sources: compiled.append(1) or original(self, sources))

    @nki.jit
    def kernel(x, scale, shift):
        tile = nl.load(x)
        nisa.tensor_scalar(tile, tile, nl.multiply, scale, op1=nl.add, operand1=shift)
        nisa.activation(tile, nl.exp, tile, scale=scale)
        out = nl.ndarray(x.shape, dtype=x.dtype, buffer=nl.shared_hbm)
        nl.store(out, tile)
        return out

    kernel(X, 0.5, 0.25)
    compiled.clear()
    for scale, shift in ((0.1, 0.2), (-3.0, 0.0), (float("inf"), -0.0)):
        np.testing.assert_allclose(kernel(X, scale, shift), np.exp(scale * (X * scale + shift)), rtol=1e-5)
    assert not compiled
