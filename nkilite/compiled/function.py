"""`@compiled`: a Python function that runs as machine code where its inputs are large."""

from __future__ import annotations

import ast
import ctypes
import hashlib
import json
import linecache
import sys
from collections.abc import Callable
from functools import cache
from types import FunctionType
from typing import TYPE_CHECKING, Any, Generic, NamedTuple, ParamSpec, Protocol, TypeAlias, TypeVar, cast

import numpy as np

from nkilite import forking
from nkilite.compiled.interface import Instruction, Interface, interface
from nkilite.compiled.translate import DECLARATIONS, translate
from nkilite.later import later
from nkilite.once import cached_property

if TYPE_CHECKING:
    from llvmlite import binding as llvm
else:
    llvm = later("llvmlite.binding")  # which takes a while to load, and small programs do without

__all__ = ["Compiled", "Floats", "Ints", "compiled"]

#: Arrays of 64-bit numbers, in one dimension; lists of numbers where a function runs as Python.
Ints: TypeAlias = "np.ndarray | list[int]"
Floats: TypeAlias = "np.ndarray | list[float]"

_P = ParamSpec("_P")
_R = TypeVar("_R", covariant=True)
_K = TypeVar("_K")

_DTYPES = {"Ints": np.dtype(np.int64), "Floats": np.dtype(np.float64)}
_C_TYPES = {"int": ctypes.c_int64, "float": ctypes.c_double, "bool": ctypes.c_bool, None: None}
#: Items worked through, together, which lose about as much as it takes to compile, by the byte of bytecode: in Python,
#: and in machine code that LLVM has not optimized; and as much as loading what is kept, in Python.
COMPILING_A_BYTE, OPTIMIZING_A_BYTE, WORTH_LOADING = 1, 1000, 200
_INLINED = 25  # LLVM's cost of what is inlined at most: beyond that, code is no faster, and takes twice as long to make


class Keeper(Protocol):
    """Keeps machine code for other processes.

    Attributes:
        made_by: the same text where all of nkilite's sources and LLVM are the same; None if nothing is kept.
    """

    @property
    def made_by(self) -> str | None: ...
    def get(self, name: str, key: str) -> bytes | None: ...
    def put(self, name: str, key: str, content: bytes) -> None: ...


_OURS = "nkilite."  # how names of modules begin of which `made_by` says that they are the same

#: Who keeps machine code: set by nkilite/native/functions.py, which knows the disk cache.
keeper: list[Keeper] = []


class _Code(NamedTuple):
    """A function as object code.

    Attributes:
        kinds, result: of its arguments and of its result, as in its Interface.
    """

    symbol: str
    kinds: tuple[str, ...]
    result: str | None
    object: bytes


class _Loaded(NamedTuple):
    """Machine code: `run` is called with addresses and numbers, of such kinds."""

    run: Callable[..., Any]
    kinds: tuple[str, ...]
    address: int


class Compiled(Generic[_P, _R]):
    """A function of numbers and arrays of them, which it may write to.

    Calling it runs it as Python where it is given lists, and as machine code where it is given arrays.

    Attributes:
        python: the function as it was written.
    """

    def __init__(self, python: Callable[_P, _R]) -> None:
        self.python = python
        self._function = cast(FunctionType, python)
        self.__doc__, self.__name__ = python.__doc__, python.__name__
        self._worked = 0
        self._asked = False  # whether its machine code is kept
        self._made: dict[bool, _Loaded] = {}  # its machine code, by whether LLVM has optimized it
        self._lock = forking.lock()

    def __call__(self, *args: _P.args, **kwargs: _P.kwargs) -> _R:
        if kwargs or np.ndarray not in map(type, args):
            return self.python(*args, **kwargs)
        code = self._machine_code(self._worked > OPTIMIZING_A_BYTE * self._bytes)
        result: _R = code.run(*(self._passed(a, kind) for a, kind in zip(args, code.kinds, strict=True)))
        return result

    def run(self, items: int, *args: object) -> _R:
        """Call it with arrays: in Python until it has worked through so many items that compiling it is worth while.

        Args:
            items: how much work it is: one for about 5 microseconds of Python.
        """
        self._worked += items
        if self._worked > WORTH_LOADING and self._is_ready():
            return cast("Callable[..., _R]", self)(*args)
        given: list[object] = [a.tolist() if isinstance(a, np.ndarray) else a for a in args]
        result = cast("Callable[..., _R]", self._plain)(*given)
        for array, values in zip(args, given, strict=True):
            if isinstance(array, np.ndarray) and array.flags.writeable:
                array[:] = values
        return result

    @property
    def address(self) -> int:
        """Of its machine code."""
        return self._machine_code(True).address

    def _is_ready(self) -> bool:
        """Whether machine code is at hand, or worth compiling."""
        if not self._asked and "llvmlite.binding" in sys.modules:  # loading that takes longer than small programs
            self._asked = True
            self._take(True) or self._take(False)
        return bool(self._made) or self._worked > COMPILING_A_BYTE * self._bytes

    @cached_property
    def _bytes(self) -> int:
        """Of the bytecode of what is compiled."""
        return sum(len(each._function.__code__.co_code) for each in _reached(self))

    @cached_property
    def _plain(self) -> FunctionType:
        """The function as Python which calls the others as Python, too, without asking what they are given."""
        own = self._function
        scope = dict(own.__globals__)
        made = self.__dict__["_plain"] = FunctionType(own.__code__, scope, own.__name__, own.__defaults__)
        scope.update({name: other._plain for name, other in _called(self).items()})
        return made

    @cached_property
    def interface(self) -> Interface:
        """How it is called."""
        return interface(f"nkilite_{self.python.__module__.replace('.', '_')}_{self.__name__}", self._source)

    @cached_property
    def _source(self) -> ast.FunctionDef:
        code = self._function.__code__
        return _functions(code.co_filename)[code.co_name, code.co_firstlineno]

    def _passed(self, argument: Any, kind: str) -> Any:
        if kind not in _DTYPES:
            return argument
        fits = isinstance(argument, np.ndarray) and argument.dtype == _DTYPES[kind] and argument.ndim == 1
        if not fits or not argument.flags.c_contiguous:
            raise TypeError(f"{self.__name__} takes a contiguous array of {_DTYPES[kind]}, not {argument!r}")
        return argument.ctypes.data

    def _machine_code(self, good: bool) -> _Loaded:
        """What is at hand, if it is as good as wanted or better; else from other processes, or compiled."""
        with self._lock:
            if not self._made.keys() & {good, True} and not self._take(good):
                made = _compiled(self, good)
                _keep(self, made, good)
                self._made[good] = _loaded(made)
            return self._made[max(self._made)]

    def _take(self, good: bool) -> bool:
        """Load the code that another process has kept, if one has."""
        found = _kept(self, good)
        if found is not None:
            self._made[good] = _loaded(found)
        return found is not None


def compiled(python: Callable[_P, _R]) -> Compiled[_P, _R]:
    """Decorate a function; it is translated when it first runs as machine code."""
    return Compiled(python)


def text_of(function: Compiled[..., object]) -> str:
    """The LLVM module of a function and of those it calls."""
    reached = _reached(function)
    declared = {d for f in reached for one in _named(f, Instruction).values() for d in one.declares}
    texts = (translate(f.interface, f._source, _lookup(f), external=f is function) for f in reached)
    return "\n".join([DECLARATIONS, *sorted(declared), *texts])


@cache
def _functions(file: str) -> dict[tuple[str, int], ast.FunctionDef]:
    """The functions of a file, by name and first line, decorators included."""
    found = {}
    statements: list[ast.AST] = [ast.parse("".join(linecache.getlines(file)))]
    for node in statements:  # grows
        statements += getattr(node, "body", ())
        if isinstance(node, ast.FunctionDef):
            found[node.name, min([node.lineno, *(d.lineno for d in node.decorator_list)])] = node
    return found


def _global(function: Compiled[..., object], name: str) -> object:
    return function._function.__globals__.get(name)


def _lookup(function: Compiled[..., object]) -> Callable[[str], object]:
    def found(name: str) -> object:
        value = _global(function, name)
        return value.interface if isinstance(value, Compiled) else value

    return found


def _named(function: Compiled[..., object], *kinds: type[_K]) -> dict[str, _K]:
    """The globals of some kinds that a function names."""
    named = {name: _global(function, name) for name in function._function.__code__.co_names}
    return {name: value for name, value in named.items() if isinstance(value, kinds)}


def _called(function: Compiled[..., object]) -> dict[str, Compiled[..., object]]:
    """The compiled functions that a function names."""
    return _named(function, Compiled)


def _reached(function: Compiled[..., object]) -> list[Compiled[..., object]]:
    """A function, and those that it and they call."""
    reached = [function]
    for each in reached:  # grows
        reached += [other for other in _called(each).values() if other not in reached]
    return reached


# --- machine code ---------------------------------------------------------------------------------------------------

_engines: list[object] = []  # what owns the machine code; it stays for as long as the process


def _machine(good: bool) -> llvm.TargetMachine:
    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    return llvm.Target.from_default_triple().create_target_machine(opt=int(good), jit=True)


def _compiled(function: Compiled[..., object], good: bool) -> _Code:
    """Machine code of a function: good code takes five times as long to make, the other one three times as long to
    run."""
    machine = _machine(good)
    module = llvm.parse_assembly(text_of(function))
    options = llvm.create_pipeline_tuning_options(speed_level=int(good))
    options.inlining_threshold = _INLINED
    builder = llvm.create_pass_builder(machine, options)
    builder.getModulePassManager().run(module, builder)
    own = function.interface
    return _Code(own.symbol, tuple(kind for _, kind in own.arguments), own.result, machine.emit_object(module))


def _loaded(code: _Code) -> _Loaded:
    engine = llvm.create_mcjit_compiler(llvm.parse_assembly(""), _machine(True))
    engine.add_object_file(llvm.ObjectFileRef.from_data(code.object))
    engine.finalize_object()
    _engines.append(engine)
    arguments: list[Any] = [ctypes.c_void_p if k in _DTYPES else _C_TYPES[k] for k in code.kinds]
    address = engine.get_function_address(code.symbol)
    return _Loaded(ctypes.CFUNCTYPE(_C_TYPES[code.result], *arguments)(address), code.kinds, address)


# --- machine code of other processes --------------------------------------------------------------------------------


def _kept(function: Compiled[..., object], good: bool) -> _Code | None:
    """The code that another process has made of the same sources."""
    key = _key(function, good)
    content = keeper[0].get(function.__name__, key) if key is not None else None
    if content is None:
        return None
    described, _, code = content.partition(b"\n")
    symbol, kinds, result = json.loads(described)
    return _Code(symbol, tuple(kinds), result, code)


def _keep(function: Compiled[..., object], code: _Code, good: bool) -> None:
    key = _key(function, good)
    if key is not None:
        described = json.dumps([code.symbol, code.kinds, code.result]).encode()
        keeper[0].put(function.__name__, key, described + b"\n" + code.object)


def _key(function: Compiled[..., object], good: bool) -> str | None:
    """What the code of a function depends on: sources, LLVM for this machine, and numbers that it names.

    Sources of functions that are none of nkilite's, which `made_by` knows nothing of, are a part of it.
    """
    made_by = keeper[0].made_by if keeper else None
    if made_by is None:
        return None
    reached = _reached(function)
    numbers = [(each.__name__, *named) for each in reached for named in _named(each, int, float, Instruction).items()]
    foreign = [ast.dump(each._source) for each in reached if not each.python.__module__.startswith(_OURS)]
    own, module = function._function.__code__, function.python.__module__
    found = made_by, good, llvm.get_default_triple(), module, own.co_name, own.co_firstlineno, numbers, foreign
    return hashlib.sha256(repr(found).encode()).hexdigest()
