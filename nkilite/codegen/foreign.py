"""Functions of shared objects that instructions call, in native code and in their reference rules alike.

Whoever loads a shared object defines its function here under a name that stands for what the object was made of; a
program holds the name alone. Native code declares it as an external symbol.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from nkilite import dtypes
from nkilite.codegen.emitter import Emitter, Value
from nkilite.codegen.kernel import STATUS_FOREIGN, CpuOperand
from nkilite.dtypes import DType
from nkilite.errors import OperatorNotLoaded
from nkilite.host import llvm

DIMENSIONS = 8
# Numbers of dtypes, in the order of nkilite::DType.
DTYPES = (
    dtypes.float32, dtypes.bfloat16, dtypes.float16, dtypes.int8, dtypes.int16, dtypes.int32, dtypes.uint8,
    dtypes.uint16, dtypes.uint32,
)
WRITTEN, READ = "W", "R"  # letters of a signature: tensors by what is done to them
RETURNS = "T"  # the first letter of a function that returns its result


def parameters(signature: str) -> str:
    """A letter for each argument of a call, of which the first is where a result that is returned goes."""
    return WRITTEN * (signature[0] == RETURNS) + signature[1:]


class Argument(ctypes.Structure):
    """`nkilite_argument` of entry.h: a tensor, strides in elements, or a number."""

    _fields_ = [
        ("data", ctypes.c_void_p), ("dtype", ctypes.c_int64), ("ndim", ctypes.c_int64),
        ("sizes", ctypes.c_int64 * DIMENSIONS), ("strides", ctypes.c_int64 * DIMENSIONS), ("number", ctypes.c_double),
    ]  # fmt: skip


@dataclass(frozen=True)
class Foreign:
    """A function that is loaded.

    Attributes:
        name: its symbol in native code.
        title: what messages call it.
        signature: letters of its parameters (nkilite/gpsimd/include/nkilite/entry.h), those of the result's first.
        cores: on how many GpSimd cores it runs.
        cost: GpSimd cycles of a core for an element of its first result; None for what moving the tiles takes; or
            "measured".
        function, message: of the shared object.
    """

    name: str
    title: str
    signature: str
    cores: int
    cost: float | str | None
    function: Any
    message: Any

    def __call__(self, arguments: Sequence[np.ndarray | float]) -> str:
        """Call it on arrays and numbers in the order of its signature; what went wrong, or ""."""
        given = (Argument * max(1, len(arguments)))()
        for slot, argument in zip(given, arguments, strict=False):
            _fill(slot, argument)
        return self.failure() if self.function(given, self.cores) else ""

    def failure(self) -> str:
        """What the last failure said."""
        return str(self.message().decode("utf-8", "replace"))


def _fill(slot: Argument, argument: np.ndarray | float) -> None:
    if not isinstance(argument, np.ndarray):
        slot.ndim, slot.number = -1, argument
        return
    slot.data = argument.__array_interface__["data"][0]
    slot.dtype, slot.ndim = DTYPES.index(dtypes.from_numpy(argument.dtype)), argument.ndim
    for i in range(argument.ndim):
        slot.sizes[i], slot.strides[i] = argument.shape[i], argument.strides[i] // argument.itemsize


_known: dict[str, Foreign] = {}


def define(foreign: Foreign) -> Foreign:
    """Make a function known to this process; the one that is there already, if it has the same name."""
    if foreign.name not in _known:
        llvm.add_symbol(foreign.name, ctypes.cast(foreign.function, ctypes.c_void_p).value)
        _known[foreign.name] = foreign
    return _known[foreign.name]


def find(name: str) -> Foreign:
    """
    Raises:
        OperatorNotLoaded: it was not loaded in this process.
    """
    try:
        return _known[name]
    except KeyError:
        raise OperatorNotLoaded(found=name) from None


def call(e: Emitter, name: str, arguments: Sequence[tuple[CpuOperand, Value] | float], cores: int) -> None:
    """Native code of a call on operands at their addresses and on numbers; it ends the micro-kernel on failure."""
    memory = e.scratch(ctypes.sizeof(Argument) * max(1, len(arguments)))
    for position, argument in enumerate(arguments):
        slot = e.offset(memory, position * ctypes.sizeof(Argument))
        if isinstance(argument, tuple):
            _store_tensor(e, slot, *argument)
        else:
            _put(e, slot, "ndim", -1)
            e.store(e.const("double", argument), e.offset(slot, Argument.number.offset), align=8)
    status = e.call(name, "i32", 0, memory, e.i64(cores))
    failed, done = e.label("failed"), e.label("done")
    e.line(f"br {e.compare('ne', status, 0)}, label %{failed}, label %{done}")
    e.start_block(failed)
    e.ret(STATUS_FOREIGN)
    e.start_block(done)


def _store_tensor(e: Emitter, slot: Value, operand: CpuOperand, pointer: Value) -> None:
    e.store(pointer, e.offset(slot, Argument.data.offset), align=8)
    _put(e, slot, "dtype", DTYPES.index(operand.dtype))
    _put(e, slot, "ndim", len(operand.shape))
    for i, (size, stride) in enumerate(zip(operand.shape, operand.strides, strict=True)):
        _put(e, slot, "sizes", size, i)
        _put(e, slot, "strides", stride // operand.dtype.itemsize, i)


def _put(e: Emitter, slot: Value, field: str, value: int, item: int = 0) -> None:
    e.store(e.i64(value), e.offset(slot, getattr(Argument, field).offset + 8 * item), align=8)


def supported(dtype: DType) -> bool:
    """Whether C++ operators know a dtype."""
    return dtype in DTYPES
