"""What commands take on the command line: which kernel, on which arguments."""

from __future__ import annotations

import ast
import importlib
import importlib.util
import os
import re
import sys
from pathlib import Path
from types import ModuleType

import numpy as np

from nkilite import compat
from nkilite.dtypes import ALL, DType, as_dtype
from nkilite.errors import ArgumentError
from nkilite.location import UNKNOWN
from nkilite.runtime.kernel import Kernel, jit

_SHAPE = re.compile(r"(?P<shape>\d+(?:x\d+)*)(?::(?P<dtype>\w+))?$")


class CommandLineError(ArgumentError, ValueError):
    """A mistake on the command line: no line of a program to point at."""

    def __init__(self, **fields: object) -> None:
        super().__init__(location=UNKNOWN, **fields)


class UnknownKernel(CommandLineError):
    template = "cannot load kernel {spec!r}: {reason}."
    remedy = "write MODULE:KERNEL or FILE.py:KERNEL."


class InvalidArgumentSpec(CommandLineError):
    template = "cannot read argument {spec!r}: {reason}."
    remedy = "write NAME=128x512:float32 for an array, NAME=VALUE for a compile-time value, or leave NAME= out."


class UnknownDtype(CommandLineError):
    template = "{found!r} is not a dtype; there are {choices}."
    remedy = "write one of them, or a short form such as {short}."

    @property
    def reason(self) -> str:
        return f"{self.fields['found']!r} is not a dtype; there are {self.fields['choices']}"


# Spellings of other libraries, for the command line alone.
_SHORT = {
    "f32": "float32", "float": "float32", "fp32": "float32", "f16": "float16", "half": "float16", "fp16": "float16",
    "bf16": "bfloat16", "tf32": "tfloat32", "i8": "int8", "i16": "int16", "i32": "int32", "int": "int32",
    "u8": "uint8", "u16": "uint16", "u32": "uint32", "fp8_e4m3": "float8_e4m3", "fp8_e4m3fn": "float8_e4m3fn",
    "fp8_e5m2": "float8_e5m2", "f8e4m3": "float8_e4m3", "f8e4m3fn": "float8_e4m3fn", "f8e5m2": "float8_e5m2",
    "e4m3": "float8_e4m3", "e5m2": "float8_e5m2", "fp8_e3m4": "float8_e3m4", "f8e3m4": "float8_e3m4",
    "e3m4": "float8_e3m4",
}


def dtype_named(text: str) -> DType:
    """The element type of a name, as NumPy, torch, LLVM or papers spell it.

    Raises:
        UnknownDtype.
    """
    try:
        return as_dtype(_SHORT.get(text.lower(), text))
    except KeyError:
        raise UnknownDtype(found=text, choices=", ".join(ALL), short="f32, bf16, i32, fp8_e4m3") from None


def load_kernel(spec: str) -> Kernel[...]:
    """The kernel named by ``package.module:kernel`` or ``path/file.py:kernel``; the file may say ``import nki``.

    ``kernel[2]`` is the kernel on two cores.

    Raises:
        UnknownKernel: the module or the name does not exist.
    """
    where, _, name = spec.rpartition(":")
    cores = re.fullmatch(r"(.+)\[(\d+)\]", name)
    if cores:
        return load_kernel(f"{where}:{cores[1]}")[int(cores[2])]
    if not where or not name:
        raise UnknownKernel(spec=spec, reason="there is no ':' between module and kernel")
    compat.install()
    try:
        if where.endswith(".py"):
            module = _load_file(spec, where)
        else:
            sys.path.insert(0, os.getcwd())
            module = importlib.import_module(where)
    except ModuleNotFoundError as error:
        raise UnknownKernel(spec=spec, reason=str(error)) from None
    found = getattr(module, name, None)
    if not callable(found):
        names = ", ".join(n for n, v in vars(module).items() if isinstance(v, Kernel)) or "none"
        raise UnknownKernel(spec=spec, reason=f"{where} has no kernel {name!r}; kernels there: {names}")
    return found if isinstance(found, Kernel) else jit(found)


def _load_file(spec: str, where: str) -> ModuleType:
    """The module in a file; in a folder that is a package, the module of that package.

    Raises:
        UnknownKernel: there is no such file.
    """
    path = Path(where).resolve()
    if not path.exists():
        raise UnknownKernel(spec=spec, reason=f"{where} does not exist")
    folder, name = path.parent, path.stem
    while (folder / "__init__.py").exists() and folder.name.isidentifier():
        folder, name = folder.parent, f"{folder.name}.{name}"
    sys.path.insert(0, str(folder))
    if "." in name:
        return importlib.import_module(name)
    module_spec = importlib.util.spec_from_file_location(name, path)
    assert module_spec is not None
    assert module_spec.loader is not None
    module = importlib.util.module_from_spec(module_spec)
    sys.modules[name] = module
    module_spec.loader.exec_module(module)
    return module


def parse_arguments(specs: list[str], seed: int = 0, fill: bool = True) -> tuple[list[object], dict[str, object]]:
    """Positional and keyword arguments from specs like ``x=128x512:float32``, ``256x64:bf16`` or ``causal=True``.

    Arrays hold reproducible standard-normal values (small integers for integer dtypes), or nothing in particular
    without `fill`.

    Raises:
        InvalidArgumentSpec.
    """
    rng = np.random.default_rng(seed) if fill else None
    positional: list[object] = []
    named: dict[str, object] = {}
    for spec in specs:
        head, mark, rest = spec.partition("=")
        name, text = (head, rest) if mark else ("", spec)
        value = _value(spec, text, rng)
        if name:
            named[name] = value
        elif named:
            raise InvalidArgumentSpec(spec=spec, reason="positional arguments come before named ones")
        else:
            positional.append(value)
    return positional, named


def _value(spec: str, text: str, rng: np.random.Generator | None) -> object:
    match = _SHAPE.match(text)
    if match and ("x" in text or match["dtype"]):
        try:
            dtype = dtype_named(match["dtype"] or "float32")
        except UnknownDtype as error:
            raise InvalidArgumentSpec(spec=spec, reason=error.reason) from None
        shape = tuple(int(n) for n in match["shape"].split("x"))
        if rng is None:
            return np.empty(shape, dtype.numpy)
        if dtype.is_integer:
            return rng.integers(0, 2 if dtype.kind == "b" else 100, shape).astype(dtype.numpy)
        return rng.standard_normal(shape, dtype=np.float32).astype(dtype.numpy)
    if re.match(r"\d+x", text):
        raise InvalidArgumentSpec(spec=spec, reason=f"{text!r} is not SHAPE:DTYPE such as 128x512:float32")
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text
