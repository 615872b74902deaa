"""Libraries of operators in the form of the vendor's custom operators: kernel functions, and functions of shapes.

A library is a shared object; `build_library` makes it of sources with NEURON_LIBRARY, `Library` is one that is loaded.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from nkilite.codegen.foreign import DTYPES, READ, RETURNS, Argument, Foreign
from nkilite.dtypes import DType
from nkilite.errors import CompilationFailed, NoSuchFunction, NotAnOperatorLibrary, OperatorFailed
from nkilite.gpsimd import build
from nkilite.gpsimd.operator import CORES

_SHAPES = "#include <torchneuron/register.h>\n"


class LibraryOperator:
    """An operator of a library.

    Attributes:
        name: that of the operator.
        parameters: a letter for each parameter, as `Operator.signature` has them.
    """

    def __init__(self, library: Library, number: int) -> None:
        code = library.code
        self.name = code.nkilite_operator_name(number).decode()
        self.parameters = code.nkilite_operator_letters(number).decode()[1:]
        entry = getattr(code, f"nkilite_kernel_{number}")
        self._letters = _text(getattr(code, f"nkilite_kernel_{number}_signature"))().decode()
        entry.restype, entry.argtypes = ctypes.c_int32, [ctypes.c_void_p, ctypes.c_int64]
        title = f"{library.name}.{self.name}"
        message = _text(code.nkilite_message)
        self._function = Foreign(title, title, self._letters, int(code.nkilite_cores()), None, entry, message)
        self._number, self._code = number, code
        expected = RETURNS + self.parameters.replace("W", READ)
        if self._letters != expected:
            raise NotAnOperatorLibrary(
                path=library.path,
                problem=f"the shape function of {title} has parameters {expected[1:]!r}, its kernel function "
                f"{self._letters!r} (T: returns a tensor, R: const Tensor&, d: double)",
            )

    def shape(self, arguments: Sequence[Any]) -> tuple[tuple[int, ...], DType]:
        """Shape and dtype of the result, by the library's function.

        Args:
            arguments: (shape, dtype) for tensors, and numbers.

        Raises:
            OperatorFailed: the function threw an exception.
        """
        given, result = (Argument * max(1, len(arguments)))(), Argument()
        for slot, argument in zip(given, arguments, strict=False):
            if isinstance(argument, tuple):
                shape, dtype = argument
                slot.dtype, slot.ndim = DTYPES.index(dtype), len(shape)
                slot.sizes[: len(shape)] = shape
                slot.strides[: len(shape)] = [int(np.prod(shape[i + 1 :])) for i in range(len(shape))]
            else:
                slot.ndim, slot.number = -1, argument
        if self._code.nkilite_operator_shape(self._number, given, ctypes.byref(result)):
            raise OperatorFailed(operator=f"{self._function.title} (shapes)", found=self._function.failure())
        return tuple(result.sizes[: result.ndim]), DTYPES[result.dtype]

    def run(self, result: np.ndarray, arguments: Sequence[np.ndarray | float]) -> None:
        """Write the result.

        Raises:
            OperatorFailed: the kernel function threw an exception.
        """
        failure = self._function([result, *arguments])
        if failure:
            raise OperatorFailed(operator=self._function.title, found=failure)


class Library:
    """A library of operators that is loaded into the process.

    Attributes:
        name: that in NEURON_LIBRARY.
        operators: those it defines.
    """

    def __init__(self, path: str | os.PathLike[str], code: ctypes.CDLL) -> None:
        """
        Raises:
            NotAnOperatorLibrary: the shared object defines no operators, or some whose functions do not go together.
        """
        self.path, self.code = str(path), code
        if not hasattr(code, "nkilite_library"):
            raise NotAnOperatorLibrary(path=self.path, problem="it defines none with NEURON_LIBRARY and this header")
        for function in (code.nkilite_library, code.nkilite_operator_name, code.nkilite_operator_letters,
                         code.nkilite_operator_kernel):
            function.restype = ctypes.c_char_p
        code.nkilite_operators.restype = code.nkilite_cores.restype = ctypes.c_int64
        for function in (code.nkilite_operator_name, code.nkilite_operator_letters, code.nkilite_operator_kernel):
            function.argtypes = [ctypes.c_int64]
        code.nkilite_operator_shape.argtypes = [ctypes.c_int64, ctypes.c_void_p, ctypes.c_void_p]
        self.name = code.nkilite_library().decode()
        self.kernels = [code.nkilite_operator_kernel(i).decode() for i in range(code.nkilite_operators())]
        if not self.kernels:
            raise NotAnOperatorLibrary(path=self.path, problem="its NEURON_LIBRARY defines no operator")

    def operators(self) -> list[LibraryOperator]:
        return [LibraryOperator(self, number) for number in range(len(self.kernels))]


def _text(function: Any) -> Any:
    function.restype = ctypes.c_char_p
    return function


def open_library(path: str | os.PathLike[str]) -> Library:
    """Load a library that was built earlier: native code with all rights of the process.

    Raises:
        NotAnOperatorLibrary: it cannot be loaded, or is none of `build_library`.
    """
    try:
        return Library(path, ctypes.CDLL(os.path.abspath(path)))
    except OSError as error:
        if isinstance(error, NotAnOperatorLibrary):
            raise
        raise NotAnOperatorLibrary(path=str(path), problem=str(error)) from None


def build_library(
    compute: Sequence[str | os.PathLike[str]], shapes: Sequence[str | os.PathLike[str]], multicore: bool = False,
    flags: Sequence[str] = (),
) -> bytes:
    """The shared object of kernel functions, which are compiled as one source, and of shape functions.

    Raises:
        CompilerMissing, CompilationFailed: as `gpsimd.operator`.
        NotAnOperatorLibrary: the shape sources have no NEURON_LIBRARY.
        NoSuchFunction: no compute source has a kernel function that it names.
    """
    paths = [Path(p).resolve() for p in compute]
    shape_text = _SHAPES + _includes([Path(p).resolve() for p in shapes])
    cores = f"-DNKILITE_CORES={CORES if multicore else 1}"
    _, content = build.build([shape_text], str(shapes[0]), flags=[cores, *flags])
    kernels = Library(shapes[0], build.load(content)).kernels
    entries = "".join(f"NKILITE_ENTRY(nkilite_kernel_{i}, ::{name})\n" for i, name in enumerate(kernels))
    compute_text = f"{_includes(paths)}#include <nkilite/entry.h>\n{entries}"
    try:
        return build.build([compute_text, shape_text], str(paths[0]), flags=[cores, *flags])[1]
    except CompilationFailed as error:
        if error.location.line:
            raise
        raise NoSuchFunction(
            file=", ".join(map(str, paths)), function=" or ".join(kernels), problem=error.fields["problem"]
        ) from None


def _includes(paths: Sequence[Path]) -> str:
    return "".join(f'#include "{path}"\n' for path in paths)


