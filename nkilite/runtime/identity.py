"""What a trace depends on, as a digest that is the same in every process: code, and the values it reads.

The code is that of the kernel and, transitively, of the functions, classes and modules of the user that it names, byte
for byte and line for line, because errors point at lines. Installed packages count by version, nkilite by its sources.
What cannot be told from one process to the next has no digest: objects with hidden state, and functions that reach
outside of the program (files, environment, clocks, random numbers, output).
"""

from __future__ import annotations

import dis
import enum
import functools
import hashlib
import os
import sys
import time
import types
from collections.abc import Iterable
from importlib import metadata
from typing import Any

import llvmlite
import llvmlite.binding as llvm
import ml_dtypes
import numpy as np

from nkilite.errors import IrError
from nkilite.ir import attributes
from nkilite.location import is_internal
from nkilite.runtime.arguments import ArrayArgument
from nkilite.runtime.containers import is_record
from nkilite.runtime.globals import MISSING, content, global_names

# Modules of the standard library whose functions depend on their arguments alone.
_PURE = {
    "__future__", "_abc", "_collections", "_functools", "_operator", "abc", "bisect", "builtins", "collections", "copy",
    "dataclasses", "decimal", "enum", "fractions", "functools", "heapq", "inspect", "itertools", "math", "numbers",
    "operator", "re", "statistics", "string", "textwrap", "types", "typing", "typing_extensions",
}
_IMPURE_BUILTINS = {
    "__import__", "breakpoint", "compile", "eval", "exec", "globals", "input", "locals", "open", "print",
}
_IMPURE_NUMPY = {"fromfile", "genfromtxt", "load", "loadtxt", "memmap", "random"}
# Attributes of classes that say nothing the rest does not.
_SKIPPED = {
    "__abstractmethods__", "__annotations__", "__dataclass_fields__", "__dataclass_params__", "__dict__", "__doc__",
    "__module__", "__weakref__", "_abc_impl", "_nki_fields", "_nki_signature",
}
_IMPORT_NAME = dis.opmap["IMPORT_NAME"]
_ENUM_ATTRIBUTES = set(dir(enum.Enum)) | {"_member_map_", "_member_names_", "_value2member_map_", "_new_member_"}

class NoIdentity(Exception):
    """Why something has no digest."""


def digest(values: Iterable[Any]) -> str:
    """The digest of values; the same in another process exactly if they mean the same to a trace.

    Raises:
        NoIdentity: one of them, or something they reach, cannot be told from one process to the next.
    """
    describer = _Describer()
    for value in values:
        describer.add(value)
    return hashlib.blake2b("\n".join(describer.parts).encode("utf-8", "surrogatepass"), digest_size=20).hexdigest()


_IMPORTED = time.time_ns()
_MARGIN = 10**9  # nanoseconds that importing nkilite takes at most


@functools.cache
def sources() -> str:
    """A digest of nkilite itself: names, sizes and modification times of its source files.

    Raises:
        NoIdentity: they may have changed since this process imported them.
    """
    root = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    found = []
    for folder, _, files in os.walk(root):
        for file in files:
            if file.endswith(".py"):
                path = os.path.join(folder, file)
                status = os.stat(path)
                found.append((os.path.relpath(path, root), status.st_size, status.st_mtime_ns))
    digest = hashlib.blake2b(repr(sorted(found)).encode(), digest_size=20).hexdigest()
    if max(modified for _, _, modified in found) > _IMPORTED - _MARGIN:
        raise NoIdentity("nkilite, whose sources are being edited")
    return digest


class _Describer:
    """Writes values down, each object once."""

    def __init__(self) -> None:
        self.parts: list[str] = []
        self._numbers: dict[int, int] = {}
        self._kept: list[Any] = []  # so that no id is used twice

    def add(self, value: Any) -> None:
        write = self.parts.append
        kind = type(value)
        if value is None or value is Ellipsis or kind in (bool, int, str, bytes, complex):
            write(f"{kind.__name__} {value!r}")
        elif kind is float:
            write(f"float {value.hex()}")
        elif kind in (tuple, list):
            self._all(kind.__name__, value)
        elif kind is ArrayArgument:
            write(f"array {value.dtype} {value.shape}")
        elif value is MISSING:
            write("missing")
        elif isinstance(value, types.CodeType):
            self._code(value)
        elif self._first(value):
            self._object(value)

    def _first(self, value: Any) -> bool:
        """Whether an object is met for the first time; else its number is written."""
        number = self._numbers.get(id(value))
        if number is None:
            self._numbers[id(value)] = len(self._kept)
            self._kept.append(value)
            return True
        self.parts.append(f"again {number}")
        return False

    def _all(self, what: str, values: Iterable[Any]) -> None:
        values = list(values)
        self.parts.append(f"{what} {len(values)}")
        for value in values:
            self.add(value)

    def _object(self, value: Any) -> None:
        write = self.parts.append
        wrapped = getattr(value, "__wrapped__", None)
        if isinstance(value, types.FunctionType):
            self._function(value)
        elif isinstance(value, type):
            self._class(value)
        elif isinstance(value, enum.Enum) and not _constant(type(value)):
            self._all("member", (type(value), value.name, value.value))
        elif isinstance(value, (tuple, list)):
            self._all("items", (type(value), *value))
        elif isinstance(value, dict):
            self._all("dict", (type(value), *(x for item in value.items() for x in item)))
        elif isinstance(value, (set, frozenset)):
            self._all("set", (type(value), *sorted(map(_alone, value))))
        elif isinstance(value, (slice, range, np.dtype)):
            write(f"{type(value).__name__} {value!r}")
        elif isinstance(value, np.generic):
            write(f"{value.dtype!r} {value.tobytes().hex()}")
        elif isinstance(value, np.ndarray) and not value.dtype.hasobject:
            found = hashlib.blake2b(np.ascontiguousarray(value).tobytes(), digest_size=20)
            write(f"ndarray {value.dtype!r} {value.shape} {found.hexdigest()}")
        elif isinstance(value, functools.partial):
            self._all("partial", (value.func, value.args, value.keywords))
        elif isinstance(value, types.MethodType):
            self._all("method", (value.__func__, value.__self__))
        elif isinstance(value, (staticmethod, classmethod)):
            self._all(type(value).__name__, (value.__func__,))
        elif isinstance(value, (property, functools.cached_property)):
            self._all("property", (getattr(value, "fget", None), getattr(value, "fset", None),
                                   getattr(value, "func", None)))
        elif hasattr(value, "schedule") and hasattr(value, "function"):
            self._all("kernel", (value.function, value.schedule))
        elif isinstance(wrapped, types.FunctionType):
            self._all("wrapper", (type(value), wrapped))
        elif isinstance(value, (types.BuiltinFunctionType, types.MethodDescriptorType, types.WrapperDescriptorType,
                                types.GetSetDescriptorType, types.MemberDescriptorType, np.ufunc)):
            self._builtin(value)
        elif is_record(value):
            self._all("record", (type(value), *(x for item in vars(value).items() for x in item)))
        else:
            try:
                write(attributes.text(value))
            except IrError:
                raise NoIdentity(f"a {type(value).__module__}.{type(value).__qualname__}") from None

    def _builtin(self, value: Any) -> None:
        owner = getattr(value, "__objclass__", None)
        module = owner.__module__ if owner is not None else getattr(value, "__module__", None)
        package = (module or "numpy").partition(".")[0]
        name = getattr(value, "__qualname__", value.__name__)
        if package not in _PURE and package not in ("numpy", "ml_dtypes") and owner is None:
            raise NoIdentity(f"{module}.{name}")
        if name in _IMPURE_BUILTINS | _IMPURE_NUMPY:
            raise NoIdentity(f"{name}()")
        self.parts.append(f"builtin {module}.{name}")

    def _function(self, function: types.FunctionType) -> None:
        code = function.__code__
        if is_internal(code.co_filename):
            return self._constant(function)
        constant = _constant(function)
        if constant:
            self._constant(function)
        else:
            self.parts.append(f"def {function.__module__}.{function.__qualname__}")
            self.add(code)
        # Also of an installed decorator, which holds the user's function in its closure.
        self._all("state", (function.__defaults__, function.__kwdefaults__, function.__dict__))
        self._all("closure", [content(cell) for cell in function.__closure__ or ()])
        if constant:
            return
        names = global_names(code)
        namespace = function.__globals__
        if names & (_IMPURE_BUILTINS | _IMPURE_NUMPY):
            _require_pure(code, namespace)
        imports = _imports(code)
        for name in sorted(names):
            found = namespace.get(name, MISSING)
            if found is MISSING and imports:
                found = sys.modules.get(name, MISSING)
            if found is MISSING:
                continue
            self.parts.append(f"global {name}")
            if isinstance(found, types.ModuleType):
                self._module(found, names)
            else:
                self.add(found)

    def _module(self, module: types.ModuleType, names: set[str]) -> None:
        """Of a user's module, what the names of a function find in it."""
        name = module.__name__
        package = name.partition(".")[0]
        file = getattr(module, "__file__", None) or ""
        self.parts.append(f"module {name}")
        if package in _PURE or package in ("numpy", "ml_dtypes") or is_internal(file):
            return
        if package in sys.stdlib_module_names or not file:
            raise NoIdentity(f"module {name}")
        if _installed(file):
            self.parts.append(_version(package, file))
            return
        if not self._first(module):
            return
        for attribute in sorted(names & vars(module).keys()):
            found = vars(module)[attribute]
            self.parts.append(attribute)
            if isinstance(found, types.ModuleType):
                self._module(found, names)
            else:
                self.add(found)

    def _class(self, kind: type) -> None:
        if _constant(kind):
            return self._constant(kind)
        self.parts.append(f"class {kind.__module__}.{kind.__qualname__}")
        self._all("bases", kind.__bases__)
        if issubclass(kind, enum.Enum):
            self._all("members", [x for m in kind for x in (m.name, m.value)])
        for name, member in vars(kind).items():
            of_enum = issubclass(kind, enum.Enum) and (name in _ENUM_ATTRIBUTES or name in kind.__members__)
            if name in _SKIPPED or of_enum:
                continue
            self.parts.append(name)
            self.add(member)

    def _constant(self, value: Any) -> None:
        """A function or class that does not change but with its package."""
        module = value.__module__ or ""
        package = module.partition(".")[0]
        self.parts.append(f"{module}.{value.__qualname__}")
        if package not in _PURE and package in sys.stdlib_module_names:
            raise NoIdentity(f"{module}.{value.__qualname__}")
        file = getattr(sys.modules.get(module), "__file__", None) or ""
        if _installed(file):
            self.parts.append(_version(package, file))

    def _code(self, code: types.CodeType) -> None:
        self.parts.append(
            f"code {code.co_filename} {code.co_firstlineno} {code.co_flags} {code.co_argcount} "
            f"{code.co_posonlyargcount} {code.co_kwonlyargcount} {code.co_names} {code.co_varnames} "
            f"{code.co_freevars} {code.co_cellvars} {code.co_code.hex()} {code.co_linetable.hex()} "
            f"{getattr(code, 'co_exceptiontable', b'').hex()}"
        )
        self._all("constants", code.co_consts)


def _imports(code: types.CodeType) -> bool:
    """Whether a function, or one nested in it, has an import statement."""
    return _IMPORT_NAME in code.co_code[::2] or any(
        _imports(c) for c in code.co_consts if isinstance(c, types.CodeType)
    )


def _require_pure(code: types.CodeType, namespace: dict[str, Any]) -> None:
    """
    Raises:
        NoIdentity: a function calls what reaches outside of the program.
    """
    owner: Any = None
    for instruction in dis.get_instructions(code):
        name = instruction.argval
        if instruction.opname in ("LOAD_GLOBAL", "LOAD_NAME"):
            owner = namespace.get(name)
            if name in _IMPURE_BUILTINS and name not in namespace:
                raise NoIdentity(f"{name}() in {code.co_name}()")
        else:
            if owner is np and name in _IMPURE_NUMPY:
                raise NoIdentity(f"numpy.{name} in {code.co_name}()")
            owner = None
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            _require_pure(constant, namespace)


def _alone(value: Any) -> str:
    """A member of a set, written down on its own: sets have no order."""
    describer = _Describer()
    describer.add(value)
    return "\n".join(describer.parts)


def _constant(value: Any) -> bool:
    """Whether a function or class belongs to nkilite, to the standard library or to an installed package."""
    code = getattr(value, "__code__", None)
    if code is not None and code.co_filename != "<string>":
        file = code.co_filename
    else:
        module = value.__module__ or ""
        package = module.partition(".")[0]
        if package in ("builtins", "numpy", "ml_dtypes") or package in sys.stdlib_module_names:
            return True
        file = getattr(sys.modules.get(module), "__file__", None) or ""
    return is_internal(file) or _installed(file) or _in_standard_library(file)


def _installed(file: str) -> bool:
    return "site-packages" in file or "dist-packages" in file


_STANDARD_LIBRARY = os.path.dirname(os.path.abspath(os.__file__)) + os.sep


def _in_standard_library(file: str) -> bool:
    return file.startswith(_STANDARD_LIBRARY) and not _installed(file)


@functools.cache
def _version(package: str, file: str) -> str:
    """The version of an installed package, with the state of one file of it."""
    try:
        version = metadata.version(package)
    except metadata.PackageNotFoundError:
        version = str(getattr(sys.modules.get(package), "__version__", ""))
    status = os.stat(file)
    return f"{package} {version} {status.st_size} {status.st_mtime_ns}"


def versions() -> str:
    """Of what runs the trace and writes the code."""
    compiler = ".".join(map(str, llvm.llvm_version_info))
    return " ".join(
        (sys.implementation.cache_tag, np.__version__, ml_dtypes.__version__, llvmlite.__version__, compiler)
    )
