"""What a trace can see, and whether it is unchanged: the condition under which a launch reuses an earlier trace.

Everything Python code gets hold of it gets through names: globals, closure variables, attributes, items. Beginning
with the kernel function and its arguments, all that the names in its code lead to is looked at, and the names in the
code found there, to the end: functions, classes with all their members, objects with all their attributes, containers
with all their items. Each place that can change gets a guard (nkilite/runtime/guards.py). Only modules are not looked
at as a whole: of them, what the code names counts.

Where that does not lead to an end (a module passed around, an object of C code with hidden state, getattr with a
computed name, ...) nothing is proven, and such a kernel is traced at every launch. nkilite itself, and what
nkilite/runtime/constants.py lists, is constant.
"""

from __future__ import annotations

import collections
import dataclasses
import functools
import types
from collections.abc import Callable, Iterable
from typing import NamedTuple

import numpy as np

from nkilite.location import Location, defined_at
from nkilite.runtime import constants
from nkilite.runtime.bytecode import Access, names_in
from nkilite.runtime.containers import is_record
from nkilite.runtime.guards import Guards
from nkilite.runtime.opaque import UserValue

_OBJECTS_AT_MOST = 20_000
_ITEMS_AT_MOST = 4_096
_ARRAY_BYTES_AT_MOST = 1 << 16
_MISSING: object = object()
_HEAP_TYPE = 1 << 9  # Py_TPFLAGS_HEAPTYPE: a class made by a class statement, or by newer C code
_FUNCTION = ("__code__", "__defaults__", "__kwdefaults__", "__dict__")
_DEFINITION = ("__name__", "__qualname__")
# Members of classes that code which passes nkilite/runtime/bytecode.py cannot see.
_UNSEEN = {
    "__annotations__", "__annotate__", "__annotations_cache__", "__dict__", "__doc__", "__firstlineno__", "__module__",
    "__orig_bases__", "__parameters__", "__static_attributes__", "__weakref__", "_abc_impl",
}


class Unproven(NamedTuple):
    """Why nothing is proven.

    Attributes:
        what: a phrase that names what was met.
        location: the user's line that leads to it.
    """

    what: str
    location: Location


class _Stop(Exception):
    """Ends a search that will not prove anything; carries an Unproven."""


class _Found(NamedTuple):
    """A value to be looked at, and the name and line that led to it."""

    value: UserValue
    name: str
    location: Location


class Reach:
    """What a kernel function can see with some arguments, as it is now.

    Attributes:
        unproven: why it cannot be told whether it changes; None if it can.
    """

    def __init__(self, function: Callable[..., object], held: Iterable[tuple[str, object]]) -> None:
        """
        Args:
            held: arguments that are not recognized by their value, by name.
        """
        self.unproven: Unproven | None = None
        self._guards = Guards()
        self._seen: dict[int, object] = {}
        self._pending: list[_Found] = []
        self._definitions: list[object] = []
        self._of_definitions = False
        where = defined_at(function)
        try:
            self._add(function, "the kernel", where)
            for name, value in held:
                self._add(value, name, where)
            while self._pending:
                self._look(self._pending.pop())
        except _Stop as stop:
            self.unproven = stop.args[0]
        except Exception as error:  # of the user's code, asked for its state
            self.unproven = Unproven(f"an object whose state cannot be read ({type(error).__name__}: {error})", where)
        if self.unproven is None and self._of_definitions:
            for definition in self._definitions:
                self._guards.attributes(definition, *_DEFINITION)
        self._pending.clear()

    def unchanged(self) -> bool:
        """Whether all that the trace could see is proven to be what it was."""
        return self.unproven is None and self._guards.hold()

    def quick(self) -> Callable[[], bool]:
        """`unchanged` as a function that is quick to call, where anything can be proven."""
        return self._guards.quick()

    def settle(self, location: Location) -> None:
        """The trace is over: if it has changed what it could see, another one may see something else."""
        if self.unproven is None and not self._guards.hold():
            self.unproven = Unproven("something that the kernel itself changes while it is traced", location)

    # --- the search ---------------------------------------------------------------------------------------------------

    def _add(self, value: object, name: str, location: Location) -> None:
        kind = type(value)
        if kind in constants.ATOMS or id(value) in self._seen:
            return
        self._seen[id(value)] = value
        self._pending.append(_Found(value, name, location))

    def _all(self, values: Iterable[object], of: _Found) -> None:
        for value in values:
            self._add(value, of.name, of.location)

    def _stop(self, what: str, found: _Found) -> _Stop:
        return _Stop(Unproven(f"{what} (by {found.name})", found.location))

    def _look(self, found: _Found) -> None:
        value = found.value
        if len(self._seen) > _OBJECTS_AT_MOST:
            raise self._stop(f"more than {_OBJECTS_AT_MOST} objects", found)
        look = _LOOKS.get(type(value))
        if look is not None:
            look(self, value, found)
        elif hasattr(type(value), "reached") and constants.is_constant_class(type(value)):
            self._all(value.reached(self._guards), found)  # an object of ours that refers to the user's
        elif not is_record(value) and constants.is_constant(value):
            pass
        elif isinstance(value, type):
            self._class(value, found)
        elif isinstance(value, types.ModuleType):
            raise self._stop(f"the module {value.__name__!r} as a value", found)
        elif isinstance(value, types.BuiltinFunctionType):
            owner = value.__self__
            if owner is None or isinstance(owner, (types.ModuleType, type)):
                raise self._stop(f"the function {value.__module__}.{value.__qualname__}", found)
            self._add(owner, found.name, found.location)
        else:
            self._object(value, found)

    def _function(self, function: types.FunctionType, found: _Found) -> None:
        if constants.is_constant(function):
            return
        guards, code = self._guards, function.__code__
        guards.attributes(function, *_FUNCTION)
        self._definitions.append(function)
        self._all(function.__defaults__ or (), found)
        if function.__kwdefaults__:
            self._add(function.__kwdefaults__, found.name, found.location)
        if vars(function):
            self._add(vars(function), found.name, found.location)
        else:
            guards.empty(vars(function))
        cells = dict(zip(code.co_freevars, function.__closure__ or (), strict=True))
        for name, cell in cells.items():
            try:
                guards.attributes(cell, "cell_contents")
            except ValueError:
                raise self._stop(f"the variable {name!r}, which has no value yet", found) from None
        if constants.is_decorator(function):
            return self._all((c.cell_contents for c in cells.values()), found)
        names = names_in(code)
        self._of_definitions = self._of_definitions or names.of_definitions
        if names.refusals:
            refusal = names.refusals[0]
            raise _Stop(Unproven(refusal.what, Location(code.co_filename, refusal.line, code.co_name)))
        for access in names.accesses:
            where = Location(code.co_filename, access.line, code.co_name)
            self._access(function, access, cells, _Found(None, str(access), where))

    def _access(
        self, function: types.FunctionType, access: Access, cells: dict[str, types.CellType], found: _Found
    ) -> None:
        """Follow a variable and the attributes of modules behind it."""
        if access.cell:
            value = cells[access.name].cell_contents
        else:
            value = self._global(function, access.name)
            if value is hash and function.__name__ == "__hash__":
                return
        for name in access.path:
            if type(value) is not types.ModuleType:
                break
            value = self._attribute(value, name, found)
        if value is not _MISSING:
            self._add(value, found.name, found.location)

    def _global(self, function: types.FunctionType, name: str) -> object:
        namespace = function.__globals__
        value = namespace.get(name, _MISSING)
        if value is not _MISSING:
            self._guards.item(namespace, name, value)
            return value
        self._guards.absent(namespace, name)
        builtin: dict[str, object] = getattr(function, "__builtins__")  # noqa: B009, mypy does not know it
        value = builtin.get(name, _MISSING)
        if value is _MISSING:
            self._guards.absent(builtin, name)
        else:
            self._guards.item(builtin, name, value)
        return value

    def _attribute(self, module: types.ModuleType, name: str, found: _Found) -> object:
        """What a module has under a name; if nothing, it must not find attributes by a function of the user's."""
        names = vars(module)
        value = names.get(name, _MISSING)
        if value is not _MISSING:
            self._guards.item(names, name, value)
            return value
        self._guards.absent(names, name)
        finder = names.get("__getattr__")
        if finder is None:
            self._guards.absent(names, "__getattr__")
        elif not constants.is_constant(finder):
            raise self._stop(f"the function that finds attributes of the module {module.__name__!r}", found)
        return _MISSING

    # --- what has state -----------------------------------------------------------------------------------------------

    def _class(self, kind: type, found: _Found) -> None:
        if type(kind) not in constants.METACLASSES:
            raise self._stop(f"the class {kind.__qualname__} with a class {type(kind).__qualname__} of its own", found)
        members = vars(kind)
        if _is_made_in_c(kind):
            raise self._stop(f"the class {kind.__module__}.{kind.__qualname__}, which C code defines", found)
        self._guards.attributes(kind, "__mro__")
        self._definitions.append(kind)
        self._guards.mapping(members.keys, members.values)
        self._all((base for base in kind.__mro__[1:] if not constants.is_constant_class(base)), found)
        for name, member in members.items():
            if name not in _UNSEEN:
                self._add(member, f"{kind.__name__}.{name}", found.location)

    def _object(self, value: object, found: _Found) -> None:
        """An instance of a class of the user's: its class, attributes, slots, and items if it is a container."""
        kind = type(value)
        base = next(base for base in kind.__mro__ if _is_made_in_c(base))
        payload = _PAYLOADS.get(base)
        if payload is None or (kind is base and kind not in _INSTANCES):
            raise self._stop(f"an object of type {kind.__module__}.{kind.__qualname__}", found)
        payload(self, value, found)
        if kind is not types.SimpleNamespace:
            self._add(kind, found.name, found.location)
        for base in kind.__mro__:
            for name, member in vars(base).items():
                if isinstance(member, types.MemberDescriptorType) and not constants.is_constant_class(base):
                    self._slot(value, member, f"{found.name}.{name}", found)
        try:
            attributes = object.__getattribute__(value, "__dict__")
        except AttributeError:
            return
        if type(attributes) is not dict:
            raise self._stop(f"an object of type {kind.__qualname__} without a plain __dict__", found)
        self._guards.mapping(attributes.keys, attributes.values)
        self._guards.sequence(lambda: [type(value), object.__getattribute__(value, "__dict__")])
        for name, member in attributes.items():
            self._add(member, f"{found.name}.{name}", found.location)

    def _slot(self, value: object, member: types.MemberDescriptorType, name: str, found: _Found) -> None:
        def read() -> list[object]:
            try:
                return [member.__get__(value)]
            except AttributeError:
                return []

        self._guards.sequence(read)
        for content in read():
            self._add(content, name, found.location)

    def _items(self, values: Iterable[object], found: _Found) -> None:
        self._all(values, found)

    def _sequence(self, value: UserValue, found: _Found, kind: UserValue) -> None:
        if kind.__len__(value) > _ITEMS_AT_MOST:
            raise self._stop(f"a {kind.__name__} of more than {_ITEMS_AT_MOST} items", found)
        self._guards.sequence(lambda: list(kind.__iter__(value)))
        self._all(kind.__iter__(value), found)

    def _mapping(self, value: UserValue, found: _Found, kind: UserValue) -> None:
        if kind.__len__(value) > _ITEMS_AT_MOST:
            raise self._stop(f"a {kind.__name__} of more than {_ITEMS_AT_MOST} items", found)
        self._guards.mapping(functools.partial(kind.keys, value), functools.partial(kind.values, value))
        self._all((x for item in kind.items(value) for x in item), found)
        if kind is collections.defaultdict:
            self._guards.attributes(value, "default_factory")
            self._add(value.default_factory, found.name, found.location)

    def _array(self, value: np.ndarray, found: _Found) -> None:
        if value.nbytes > _ARRAY_BYTES_AT_MOST or not constants.is_plain(value.dtype):
            raise self._stop(f"a NumPy array {value.dtype} {value.shape}", found)
        self._guards.equal(
            lambda: (value.shape, value.strides, value.dtype.str, value.flags.writeable, value.tobytes())
        )

    def _partial(self, value: functools.partial[object], found: _Found) -> None:
        self._guards.attributes(value, "func", "args", "keywords")
        self._all((value.func, value.args, value.keywords), found)
        self._add(vars(value), found.name, found.location)

    def _field(self, value: dataclasses.Field[object], found: _Found) -> None:
        self._guards.attributes(value, "name", "default", "default_factory", "metadata")
        self._all((value.default, value.default_factory, value.metadata), found)

    def _holder(self, value: object, found: _Found) -> None:
        """What holds functions: a method, a property, ..."""
        for name in ("__func__", "__self__", "fget", "fset", "fdel", "func"):
            self._add(getattr(value, name, None), found.name, found.location)
        state = getattr(value, "__dict__", None)
        if isinstance(value, (staticmethod, classmethod)) and state:
            self._add(state, found.name, found.location)


def _is_made_in_c(kind: type) -> bool:
    """Whether a class may give its instances state that is no attribute."""
    if not kind.__flags__ & _HEAP_TYPE:
        return True
    return any(isinstance(m, constants.C_MEMBERS) and m.__objclass__ is kind for m in vars(kind).values())


def _payload(look: Callable[[Reach, UserValue, _Found, type], None], kind: type) -> _Look:
    return lambda reach, value, found: look(reach, value, found, kind)


def _nothing(reach: Reach, value: object, found: _Found) -> None:
    """Immutable."""


_Look = Callable[["Reach", UserValue, "_Found"], None]
_LOOKS: dict[type, _Look] = {
    tuple: Reach._items,
    frozenset: Reach._items,
    types.FunctionType: Reach._function,
    functools.partial: Reach._partial,
    dataclasses.Field: Reach._field,
    np.ndarray: Reach._array,
    bytearray: lambda r, v, f: r._guards.equal(lambda: bytes(v)),
    slice: lambda r, v, f: r._all((v.start, v.stop, v.step), f),
    types.MappingProxyType: lambda r, v, f: r._mapping(v, f, types.MappingProxyType),
}
_HOLDERS = (types.MethodType, staticmethod, classmethod, property, functools.cached_property)
_LOOKS |= dict.fromkeys(_HOLDERS, Reach._holder)
_CONTAINERS: dict[type, _Look] = {
    kind: _payload(look, kind)
    for look, kinds in (
        (Reach._sequence, (list, set, collections.deque)),
        (Reach._mapping, (dict, collections.OrderedDict, collections.defaultdict)),
    )
    for kind in kinds
}
_LOOKS |= _CONTAINERS
#: By the class made in C that instances derive from: how to look at what it adds to attributes.
_PAYLOADS: dict[type, _Look] = {
    **_CONTAINERS,
    **dict.fromkeys((object, int, float, complex, str, bytes, types.SimpleNamespace), _nothing),
    tuple: lambda r, v, f: r._all(tuple.__iter__(v), f),
    frozenset: lambda r, v, f: r._all(frozenset.__iter__(v), f),
}
_INSTANCES = {object, types.SimpleNamespace}  # of which plain instances are looked at
