"""What `torch_neuronx.xla_impl.custom_op` is: C++ operators on tensors of torch, compiled for this CPU."""

from __future__ import annotations

import importlib
import os
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

from nkilite.codegen import foreign
from nkilite.dtypes import as_dtype
from nkilite.errors import UnsupportedArrayDtype
from nkilite.gpsimd import build
from nkilite.gpsimd.library import Library, LibraryOperator, build_library, open_library
from nkilite.runtime.opaque import Foreign

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["load", "load_library"]

_SCHEMA = {"R": "Tensor", "W": "Tensor", "d": "float", "i": "int", "b": "bool"}
_registered: dict[tuple[str, str], Foreign] = {}  # what keeps operators in torch


def load(
    name: str, compute_srcs: Sequence[str], shape_srcs: Sequence[str], build_directory: str | None = None,
    multicore: bool = False, verbose: bool = False, extra_cflags: Sequence[str] = (),
) -> None:
    """Compile the operators that sources define with NEURON_LIBRARY and make them `torch.ops.<library>.<operator>`.

    It is native code with all rights of the process: see docs/security.md.

    Args:
        name: of the library's file, lib<name>.so.
        compute_srcs: C++ files with the kernel functions.
        shape_srcs: C++ files with the shape functions and NEURON_LIBRARY.
        build_directory: where the file is left; nowhere by default.
        multicore: the kernel functions run once for each of the eight GpSimd cores, one after the other here.
        verbose: say what is compiled.
        extra_cflags: more flags for the compiler.

    Raises:
        CompilerMissing, CompilationFailed, NoSuchFunction, NotAnOperatorLibrary: it cannot be built.

    Source: the public guides of Neuron custom C++ operators.
    """
    if verbose:
        print(f"{' '.join(build.compiler())}: {', '.join(map(str, (*compute_srcs, *shape_srcs)))}")
    content = build_library(compute_srcs, shape_srcs, multicore, extra_cflags)
    path = f"lib{name}.so"
    if build_directory is not None:
        path = os.path.join(build_directory, path)
        _replace(path, content)
    _register(Library(path, build.load(content)))


def load_library(path: str) -> None:
    """Make the operators of a library that `load` left `torch.ops.<library>.<operator>`.

    Raises:
        NotAnOperatorLibrary: it is none of those.
    """
    _register(open_library(path))


def _replace(path: str, content: bytes) -> None:
    """Write a file anew: a process that has the old one loaded keeps that."""
    part = Path(f"{path}.part")
    part.write_bytes(content)
    part.chmod(0o755)
    os.replace(part, path)


def _register(library: Library) -> None:
    torch = importlib.import_module("torch")
    for operator in library.operators():
        key = library.name, operator.name
        if key in _registered:
            _registered.pop(key)._destroy()
        parameters = ", ".join(f"{_SCHEMA[letter]} x{i}" for i, letter in enumerate(operator.parameters))
        home = torch.library.Library(library.name, "FRAGMENT")
        home.define(f"{operator.name}({parameters}) -> Tensor")
        home.impl(operator.name, _on_cpu(torch, operator), "CPU")
        home.impl(operator.name, _without_memory(torch, operator), "Meta")
        _registered[key] = home


def _without_memory(torch: ModuleType, operator: LibraryOperator) -> object:
    def meta(*arguments: object) -> Foreign:
        return _empty(torch, operator, arguments, "meta")

    return meta


def _on_cpu(torch: ModuleType, operator: LibraryOperator) -> Foreign:
    def run(*arguments: Foreign) -> Foreign:
        result = _empty(torch, operator, arguments, "cpu")
        operator.run(_array(result), [_array(a.contiguous()) if _is_tensor(a) else a for a in arguments])
        return result

    return run


def _empty(torch: ModuleType, operator: LibraryOperator, arguments: Sequence[Foreign], device: str) -> Foreign:
    given = [(tuple(a.shape), _dtype(a)) if _is_tensor(a) else a for a in arguments]
    shape, dtype = operator.shape(given)
    return torch.empty(shape, dtype=getattr(torch, str(dtype)), device=device)


def _is_tensor(value: object) -> bool:
    return hasattr(value, "data_ptr")


def _dtype(tensor: Tensor) -> Foreign:
    """
    Raises:
        UnsupportedArrayDtype: C++ operators do not know it.
    """
    try:
        dtype = as_dtype(tensor.dtype)
    except KeyError:
        dtype = None
    if dtype is None or not foreign.supported(dtype):
        raise UnsupportedArrayDtype(name="of the operator", dtype=tensor.dtype, suggestion="float32")
    return dtype


def _array(tensor: Tensor) -> Foreign:
    """The memory of a contiguous tensor."""
    torch = importlib.import_module("torch")
    dtype = _dtype(tensor)
    words = {1: torch.int8, 2: torch.int16, 4: torch.int32}[dtype.itemsize]
    return tensor.detach().view(words).numpy().view(dtype.numpy)
