"""Runs emitter code on arrays: the harness of the code generation tests."""

from __future__ import annotations

import ctypes
import re
from collections.abc import Callable

import llvmlite.binding as llvm
import numpy as np
import pytest

from nkilite.codegen.emitter import Emitter, Value
from nkilite.host.cpu import Host, available
from nkilite.native.library import target_machine

_SIZES = {"float": 4, "i32": 4, "i16": 2, "i8": 1}


@pytest.fixture(params=list(available()))
def cpu(request: pytest.FixtureRequest) -> Host:
    """Every CPU level this machine can run, in turn."""
    return available()[request.param]


class ElementwiseFunction:
    """A compiled `out[i] = body(e, *inputs[i])`, called with flat contiguous arrays of one length."""

    def __init__(
        self, host: Host, body: Callable[..., Value], inputs: list[str], output: str, lanes: int
    ) -> None:
        e = Emitter(host)
        names = [*(f"%in{i}" for i in range(len(inputs))), "%out"]
        pointers = [Value(name, "ptr") for name in names]
        self._step = max(lanes, 1)
        with e.loop(Value("%count", "i64"), step=self._step) as loop:
            values = [
                e.load(scalar, e.step(p, loop.index, _SIZES[scalar]), lanes)
                for p, scalar in zip(pointers, inputs, strict=False)
            ]
            result = body(e, *values)
            assert (result.scalar, result.lanes) == (output, lanes), result
            e.store(result, e.step(pointers[-1], loop.index, _SIZES[output]))
        e.ret(0)
        parameters = ", ".join(f"ptr {name}" for name in names)
        text = "\n".join(e.declarations.values())
        text += f"\ndefine i32 @f({parameters}, i64 %count) {{\nentry:\n{e.body()}\n}}\n"
        self._host, self._text = host, text
        self._engine = llvm.create_mcjit_compiler(self._module(), target_machine(host))
        self._engine.finalize_object()
        kinds = [ctypes.c_void_p] * len(names) + [ctypes.c_int64]
        self._function = ctypes.CFUNCTYPE(ctypes.c_int, *kinds)(self._engine.get_function_address("f"))

    def _module(self) -> llvm.ModuleRef:
        module = llvm.parse_assembly(self._text)
        module.verify()
        return module

    def library_calls(self) -> list[str]:
        """Calls in the machine code; micro-kernels must have none, for there is no run-time library."""
        assembly = target_machine(self._host).emit_assembly(self._module())
        return re.findall(r"^\s+(?:call\w*|bl)\s.*", assembly, re.MULTILINE)

    def __call__(self, *arrays: np.ndarray, out: type | np.dtype) -> np.ndarray:
        """The result as an array of dtype `out`; the length is padded to whole vectors."""
        count = arrays[0].size
        padded = -(-count // self._step) * self._step
        sources = []
        for array in arrays:
            source = np.zeros(padded, array.dtype)
            source[:count] = array
            sources.append(source)
        result = np.zeros(padded, out)
        self._function(*(s.ctypes.data for s in sources), result.ctypes.data, padded)
        return result[:count]


@pytest.fixture
def elementwise() -> type[ElementwiseFunction]:
    """Compile a body over lanes: `elementwise(host, body, ["float", ...], "float", lanes)`."""
    return ElementwiseFunction
