"""`operator`: a C++ function as an instruction of a kernel."""

from __future__ import annotations

import ctypes
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from nkilite.codegen import foreign
from nkilite.codegen.foreign import READ, WRITTEN, Foreign
from nkilite.errors import CompilationFailed, InvalidCall, InvalidOperand, NoSuchFunction, describe
from nkilite.gpsimd import build
from nkilite.isa.custom import MOST_READ, MOST_WRITTEN, custom_operator
from nkilite.trace.builder import NkiInstruction
from nkilite.trace.tensor import NkiTensor

CORES = 8  # of a GpSimd Engine
MEASURED = "measured"
_NAME = re.compile(r"[A-Za-z_]\w*(::[A-Za-z_]\w*)*")
_SOURCE = """\
#include {file}
#include <nkilite/entry.h>
NKILITE_ENTRY(nkilite_operator, ::{function})
"""
_KINDS = {WRITTEN: "Tensor", READ: "const Tensor&", "d": "double", "i": "int64_t", "b": "bool"}


class Operator:
    """A C++ function that kernels call as an instruction of the GpSimd Engine.

    It takes the arguments of the function in their order: SBUF tiles for tensors, numbers that are known when the
    kernel is traced for the others, and `name=` as all instructions do. Of a function that returns a tensor the
    destination comes first.

    Attributes:
        name: stands for its source and compiler, in programs.
        title: what messages call it.
        signature: a letter for the result and for each parameter.
        cores: on how many of the eight it runs.
    """

    __slots__ = ("cores", "name", "signature", "title", "updates")

    def __init__(self, function: Foreign, updates: bool) -> None:
        self.name, self.title, self.signature = function.name, function.title, function.signature
        self.cores, self.updates = function.cores, updates

    def __repr__(self) -> str:
        return f"<operator {self.title}{self._shown()}>"

    def _shown(self) -> str:
        return f"({', '.join(_KINDS[letter] for letter in foreign.parameters(self.signature))})"

    def __call__(self, *arguments: Any, name: str | None = None) -> NkiInstruction:
        """Record, or while simulating run, the operator.

        Raises:
            InvalidCall: another number of arguments.
            InvalidOperand: a number for a tensor, or the other way round.
            WrongMemory, UnsupportedDtype: a tile is not in SBUF, or of a dtype that C++ operators do not know.
            OperatorFailed: (when it runs) the function threw an exception.
        """
        letters = foreign.parameters(self.signature)
        if len(arguments) != len(letters):
            raise InvalidCall(
                function=self.title, signature=self._shown(),
                problem=f"takes {len(letters)} arguments, and {len(arguments)} were given",
            )
        dsts: list[NkiTensor] = []
        srcs: list[NkiTensor] = []
        numbers: list[float] = []
        for position, (letter, argument) in enumerate(zip(letters, arguments, strict=True)):
            if letter in (WRITTEN, READ):
                self._require(position, argument, isinstance(argument, NkiTensor), "a tile in SBUF")
                (dsts if letter == WRITTEN else srcs).append(argument)
            else:
                numbers.append(self._number(position, letter, argument))
        return custom_operator(dsts, srcs, tuple(numbers), self.name, self.updates, name=name)

    def _number(self, position: int, letter: str, given: Any) -> float:
        number = isinstance(given, (bool, int, float, np.number, np.bool_))
        self._require(position, given, number, f"a number, which becomes {_KINDS[letter]}")
        exact = letter == "d" or (np.isfinite(given) and given == int(given) and abs(int(given)) <= 1 << 53)
        self._require(position, given, exact, "a whole number of at most 2**53")
        return float(given)

    def _require(self, position: int, given: object, right: bool, expected: str) -> None:
        if not right:
            raise InvalidOperand(
                instruction=self.title, operand=f"argument {position}", found=describe(given), expected=expected
            )


def operator(
    file: str | os.PathLike[str], name: str, *, cores: int = 1, cost: float | str | None = None, updates: bool = False,
    debug: bool = False, flags: Sequence[str] = (),
) -> Operator:
    """Compile a C++ function of a file with the system's compiler and load it.

    It is native code with all rights of the process: see docs/security.md. Simulated and compiled kernels call the same
    shared object, which is kept in the disk cache by what the compiler read.

    Args:
        file: C++ source, which includes <nkilite/gpsimd.h> or <torch/torch.h>.
        name: of the function, with its namespaces.
        cores: 1 or 8 GpSimd cores, on each of which the function runs (one after the other here). What they write must
            not overlap: `Tile::first` and `end` are the partitions of a core.
        cost: GpSimd cycles that a core takes for an element of the first result, for the timing model; "measured" takes
            the time on this CPU in its place; None what moving the tiles takes, which is a lower bound.
        updates: tiles that are written keep what they hold until then. Otherwise elements that the function does not
            write hold bytes of 255.
        debug: accessors check their bounds, and the code has debugging information.
        flags: more flags for the compiler.

    Raises:
        CompilerMissing: there is no C++ compiler; CXX names one.
        CompilationFailed: it refuses the source, at the line that the error is at.
        NoSuchFunction: the file has no such function, or one with parameters that an operator cannot have.
        InvalidOperand: other cores, or a cost that is none.
    """
    path = Path(file).resolve()
    _check(path, name, cores, cost)
    text = _SOURCE.format(file=f'"{path}"', function=name)
    try:
        key, content = build.build([text], str(path), debug, flags)
    except CompilationFailed as error:
        if error.location.line or not path.exists():
            raise
        raise NoSuchFunction(file=str(path), function=name, problem=error.fields["problem"]) from None
    identity = f"{key}_{cores}_{str(cost).replace('.', '_').replace('-', '_')}"
    library = build.load(content)
    return Operator(foreign.define(_function(library, identity, name, path, cores, cost)), updates)


def _function(
    library: ctypes.CDLL, identity: str, name: str, path: Path, cores: int, cost: float | str | None
) -> Foreign:
    function, message, signature = library.nkilite_operator, library.nkilite_message, library.nkilite_operator_signature
    function.restype, function.argtypes = ctypes.c_int32, [ctypes.c_void_p, ctypes.c_int64]
    message.restype = signature.restype = ctypes.c_char_p
    letters = signature().decode()
    written = foreign.parameters(letters).count(WRITTEN)
    if not 1 <= written <= MOST_WRITTEN or letters.count(READ) > MOST_READ:
        raise NoSuchFunction(
            file=str(path), function=name,
            problem=f"it writes {written} tensors and reads {letters.count(READ)}; an operator writes 1 to "
            f"{MOST_WRITTEN} (those taken by value or by reference) and reads up to {MOST_READ} (by const reference)",
        )
    symbol = f"nkilite_operator_{name.replace('::', '_')}_{identity}"
    return Foreign(symbol, f"{name} ({path.name})", letters, cores, cost, function, message)


def _check(path: Path, name: str, cores: int, cost: float | str | None) -> None:
    def require(operand: str, right: bool, found: object, expected: str) -> None:
        if not right:
            raise InvalidOperand(
                instruction="gpsimd.operator", operand=operand, found=describe(found), expected=expected
            )

    require("file", path.is_file(), str(path), "a file with C++ source")
    require("name", isinstance(name, str) and _NAME.fullmatch(name) is not None, name, "the name of a function")
    require("cores", type(cores) is int and cores in (1, CORES), cores, f"1 or {CORES}")
    number = isinstance(cost, (int, float)) and not isinstance(cost, bool) and 0 <= cost < float("inf")
    require("cost", cost is None or cost == MEASURED or number, cost, "cycles per element, 'measured' or None")
