"""What is taken as constant while a process runs: nkilite, and functions of libraries that depend on arguments alone.

A function or class counts only where it is found under its own module and name; whatever else a user puts in its place
there is looked at like the user's own code.
"""

from __future__ import annotations

import abc
import collections
import enum
import inspect
import re
import sys
import types
import typing

import numpy as np

from nkilite.location import is_internal
from nkilite.runtime.opaque import UserValue

#: Exact types whose values never change and refer to nothing.
ATOMS = frozenset(
    {
        int, float, complex, bool, str, bytes, type(None), type(...), type(NotImplemented), range, types.CodeType,
        types.GenericAlias, types.UnionType, re.Pattern, inspect.Signature, inspect.Parameter,
    }
)
#: Classes of classes that find attributes as `type` does.
METACLASSES = frozenset({type, abc.ABCMeta, enum.EnumMeta, type(typing.Protocol)})

_BUILTINS = {
    "abs", "all", "any", "ascii", "bin", "callable", "chr", "delattr", "divmod", "format", "getattr", "hasattr",
    "hex", "isinstance", "issubclass", "iter", "len", "max", "min", "next", "oct", "ord", "pow", "print", "repr",
    "round", "setattr", "sorted", "sum", "__build_class__",
}
_NUMPY = {
    "all", "allclose", "amax", "amin", "any", "arange", "argmax", "argmin", "argsort", "array", "array_equal",
    "asarray", "ascontiguousarray", "bincount", "broadcast_shapes", "broadcast_to", "can_cast", "ceil", "clip",
    "concatenate", "copy", "cumprod", "cumsum", "diag", "diff", "dot", "expand_dims", "eye", "flip", "full",
    "full_like", "hstack", "identity", "isclose", "isscalar", "issubdtype", "linspace", "logspace", "max", "mean",
    "meshgrid", "min", "moveaxis", "ndim", "ones", "ones_like", "outer", "pad", "prod", "promote_types", "ravel",
    "ravel_multi_index", "repeat", "reshape", "result_type", "roll", "round", "shape", "size", "sort", "split",
    "squeeze", "stack", "std", "sum", "swapaxes", "take", "tile", "transpose", "tri", "tril", "triu", "unique",
    "unravel_index", "var", "vstack", "where", "zeros", "zeros_like",
}
_OPERATOR_NOT = {"attrgetter", "methodcaller", "call"}
_FUNCTOOLS = {"partial", "partialmethod", "reduce", "cmp_to_key", "wraps", "update_wrapper"}
_DATACLASSES = {"dataclass", "field", "fields", "replace", "asdict", "astuple", "is_dataclass", "Field"}
_COPY = {"copy", "deepcopy"}
_FUNCTIONS = {
    "builtins": _BUILTINS, "numpy": _NUMPY, "functools": _FUNCTOOLS, "_functools": _FUNCTOOLS,
    "dataclasses": _DATACLASSES, "copy": _COPY, "collections": {"namedtuple"},
}
#: Modules whose functions, but for some of `operator`, depend on their arguments alone.
_PURE = {"math", "cmath", "operator", "_operator", "itertools", "typing"}
#: Modules whose classes have no state beside that of their instances.
_CLASSES = {
    "abc", "builtins", "collections", "dataclasses", "enum", "functools", "itertools", "ml_dtypes", "numbers",
    "operator", "types", "typing",
}
_NOT_CLASSES = {memoryview, types.ModuleType, types.FunctionType, types.CodeType, types.FrameType}
#: Modules whose code only calls what it was given: decorators of theirs are looked through.
_DECORATORS = {"abc", "collections", "contextlib", "dataclasses", "enum", "functools", "reprlib", "typing"}
_DESCRIPTORS = (
    types.MethodDescriptorType, types.WrapperDescriptorType, types.ClassMethodDescriptorType,
    types.GetSetDescriptorType, types.MemberDescriptorType, types.MethodWrapperType,
    type(vars(collections.namedtuple("_", "a"))["a"]),
)
#: Members by which a class made in C is known.
C_MEMBERS = (types.MethodDescriptorType, types.WrapperDescriptorType, types.ClassMethodDescriptorType)
_ARRAY_FUNCTION = type(np.prod)
_LIMITS = (np.iinfo, np.finfo)


def is_constant(value: UserValue) -> bool:
    """Whether using a value gives the same in the whole life of the process."""
    kind = type(value)
    if kind in ATOMS or isinstance(value, _DESCRIPTORS):
        return True
    if isinstance(value, type):
        return is_constant_class(value)
    if isinstance(value, (types.BuiltinFunctionType, types.FunctionType, _ARRAY_FUNCTION)):
        return _is_constant_function(value)
    if kind is np.ufunc:
        return getattr(np, value.__name__, None) is value
    if isinstance(value, np.dtype):
        return is_plain(value)
    if isinstance(value, np.generic):
        return is_number(value)
    module = kind.__module__
    if module == "torch" and kind.__qualname__ == "dtype":
        return True
    if not is_constant_class(kind):
        return False
    return kind in _LIMITS or module.partition(".")[0] == "nkilite" or module in ("typing", "dataclasses", "enum")


def is_number(value: object) -> bool:
    """Whether a value is a scalar of NumPy or ml_dtypes, and not of a class derived from theirs."""
    kind = type(value)
    return isinstance(value, np.generic) and kind.__module__ in ("numpy", "ml_dtypes") and kind not in (
        np.void, np.object_
    )


def is_plain(dtype: np.dtype) -> bool:
    """Whether a dtype is a number's, without fields, objects and metadata."""
    return dtype.metadata is None and dtype.fields is None and dtype.subdtype is None and not dtype.hasobject


def is_constant_class(kind: type) -> bool:
    """Whether a class is nkilite's, or one whose instances are made of their arguments alone."""
    if kind in _NOT_CLASSES:
        return False
    module = kind.__module__
    if not isinstance(module, str):
        return False
    if module.partition(".")[0] == "numpy":
        known = issubclass(kind, (np.generic, np.dtype)) or kind in (*_LIMITS, np.ndarray, np.ufunc)
    else:
        known = module in _CLASSES or _is_ours(module)
    return known and (kind.__module__ == "builtins" or _at_home(kind))


def is_decorator(function: types.FunctionType) -> bool:
    """Whether a function is the standard library's, and only calls what its closure holds."""
    name = function.__globals__.get("__name__")
    module = sys.modules.get(name) if isinstance(name, str) and name in _DECORATORS else None
    if module is None or vars(module) is not function.__globals__:
        return False
    return function.__code__.co_filename == module.__file__


def _is_constant_function(function: UserValue) -> bool:
    owner = getattr(function, "__self__", None)
    if owner is not None and not isinstance(owner, types.ModuleType):
        return isinstance(owner, type) and is_constant_class(owner)
    module, name = function.__module__, function.__name__
    if not isinstance(module, str):
        return False
    if module in _PURE:
        known = name not in _OPERATOR_NOT
    elif module.partition(".")[0] == "numpy":
        return name in _NUMPY and getattr(np, name, None) is function
    else:
        known = name in _FUNCTIONS.get(module, ()) or _is_ours(module)
    return known and _at_home(function)


def _is_ours(module: str) -> bool:
    file = getattr(sys.modules.get(module), "__file__", None)
    return module.partition(".")[0] == "nkilite" and file is not None and is_internal(file)


def _at_home(value: UserValue) -> bool:
    """Whether a function or class is what its module has under its name."""
    found: object = sys.modules.get(value.__module__)
    for name in value.__qualname__.split("."):
        found = getattr(found, name, None)
    return found is value

