"""`@compiled`: a Python function that runs as machine code where its inputs are large."""

from __future__ import annotations

import ast
import ctypes
import linecache
import threading
from collections.abc import Callable
from functools import cache, cached_property
from types import FunctionType
from typing import Any, Generic, ParamSpec, TypeAlias, TypeVar, cast

import numpy as np

from nkilite.compiled.interface import Interface, interface
from nkilite.compiled.translate import DECLARATIONS, translate

__all__ = ["Compiled", "Floats", "Ints", "compiled"]

#: Arrays of 64-bit numbers, in one dimension; lists of numbers where a function runs as Python.
Ints: TypeAlias = "np.ndarray | list[int]"
Floats: TypeAlias = "np.ndarray | list[float]"

_P = ParamSpec("_P")
_R = TypeVar("_R")

_DTYPES = {"Ints": np.dtype(np.int64), "Floats": np.dtype(np.float64)}
_C_TYPES = {"int": ctypes.c_int64, "float": ctypes.c_double, "bool": ctypes.c_bool, None: None}
#: Items worked through in Python, together, which take about as long as compiling.
WORTH_COMPILING = 8000


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
        self._lock = threading.Lock()

    def __call__(self, *args: _P.args, **kwargs: _P.kwargs) -> _R:
        if kwargs or not any(isinstance(a, np.ndarray) for a in args):
            return self.python(*args, **kwargs)
        result: _R = self._machine_code(*(self._passed(a, kind) for a, kind in zip(args, self._kinds, strict=True)))
        return result

    def run(self, items: int, *args: Any) -> _R:
        """Call it with arrays: in Python until it has worked through so many items that compiling it is worth while.

        Args:
            items: how much work it is: one for about 5 microseconds of Python.
        """
        self._worked += items
        if self._worked > WORTH_COMPILING:
            return cast("Callable[..., _R]", self)(*args)
        given: list[Any] = [a.tolist() if isinstance(a, np.ndarray) else a for a in args]
        result = cast("Callable[..., _R]", self.python)(*given)
        for array, values in zip(args, given, strict=True):
            if isinstance(array, np.ndarray) and array.flags.writeable:
                array[:] = values
        return result

    @cached_property
    def interface(self) -> Interface:
        """How it is called."""
        return interface(f"nkilite_{self.python.__module__.replace('.', '_')}_{self.__name__}", self._source)

    @cached_property
    def _source(self) -> ast.FunctionDef:
        code = self._function.__code__
        return _functions(code.co_filename)[code.co_name, code.co_firstlineno]

    @cached_property
    def _kinds(self) -> tuple[str, ...]:
        return tuple(kind for _, kind in self.interface.arguments)

    def _passed(self, argument: Any, kind: str) -> Any:
        if kind not in _DTYPES:
            return argument
        fits = isinstance(argument, np.ndarray) and argument.dtype == _DTYPES[kind] and argument.ndim == 1
        if not fits or not argument.flags.c_contiguous:
            raise TypeError(f"{self.__name__} takes a contiguous array of {_DTYPES[kind]}, not {argument!r}")
        return argument.ctypes.data

    @cached_property
    def _machine_code(self) -> Callable[..., Any]:
        with self._lock:
            argument_types: list[Any] = [ctypes.c_void_p if k in _DTYPES else _C_TYPES[k] for k in self._kinds]
            return ctypes.CFUNCTYPE(_C_TYPES[self.interface.result], *argument_types)(_address(self))


def compiled(python: Callable[_P, _R]) -> Compiled[_P, _R]:
    """Decorate a function; it is translated when it first runs as machine code."""
    return Compiled(python)


def text_of(function: Compiled[..., Any]) -> str:
    """The LLVM module of a function and of those it calls."""
    found: dict[str, Compiled[..., Any]] = {}
    _collect(function, found)
    return "\n".join([DECLARATIONS, *(
        translate(f.interface, f._source, _lookup(f), external=f is function) for f in found.values()
    )])


@cache
def _functions(file: str) -> dict[tuple[str, int], ast.FunctionDef]:
    """The functions of a file, by name and first line, decorators included."""
    found = {}
    for node in ast.walk(ast.parse("".join(linecache.getlines(file)))):
        if isinstance(node, ast.FunctionDef):
            found[node.name, min([node.lineno, *(d.lineno for d in node.decorator_list)])] = node
    return found


def _collect(function: Compiled[..., Any], found: dict[str, Compiled[..., Any]]) -> None:
    if function.interface.symbol not in found:
        found[function.interface.symbol] = function
        for node in ast.walk(function._source):
            called = _global(function, node.id) if isinstance(node, ast.Name) else None
            if isinstance(called, Compiled):
                _collect(called, found)


def _global(function: Compiled[..., Any], name: str) -> Any:
    return function._function.__globals__.get(name)


def _lookup(function: Compiled[..., Any]) -> Callable[[str], Any]:
    def found(name: str) -> Any:
        value = _global(function, name)
        return value.interface if isinstance(value, Compiled) else value

    return found


_engines: list[Any] = []  # what owns the machine code; it stays for as long as the process


def _address(function: Compiled[..., Any]) -> int:
    """Where the machine code of a function is, made now."""
    import llvmlite.binding as llvm  # which takes a while to load, and small programs do without

    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    target = llvm.Target.from_default_triple()
    machine = target.create_target_machine(opt=0, jit=True)  # more takes longer than it gains
    module = llvm.parse_assembly(text_of(function))
    builder = llvm.create_pass_builder(machine, llvm.create_pipeline_tuning_options(speed_level=1))
    passes = llvm.create_new_function_pass_manager()
    passes.add_sroa_pass()
    passes.add_simplify_cfg_pass()
    passes.add_instruction_combine_pass()
    for each in module.functions:
        if not each.is_declaration:
            passes.run(each, builder)
    engine = llvm.create_mcjit_compiler(module, machine)
    engine.finalize_object()
    _engines.append(engine)
    return int(engine.get_function_address(function.interface.symbol))
