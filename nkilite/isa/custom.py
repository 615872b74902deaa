"""A function of the user's, in C++, on the GpSimd Engine; `nkilite.gpsimd.operator` makes it callable by name."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from nkilite.codegen import elementwise, foreign
from nkilite.codegen.foreign import Foreign
from nkilite.codegen.kernel import MicroKernel
from nkilite.dtypes import Elements
from nkilite.errors import OperatorFailed, ShapeMismatch, UnsupportedDtype
from nkilite.ir.access import Opaque
from nkilite.ir.program import Signature
from nkilite.ir.rules import ArgumentsByName, ReadArguments
from nkilite.ir.types import ViewType
from nkilite.isa import measured, rules
from nkilite.machine.engine import Cost, Engine
from nkilite.trace.instruction import instruction
from nkilite.trace.tensor import NkiTensor

MOST_WRITTEN, MOST_READ = 4, 12
UNWRITTEN = 255  # every byte of a result before the operator runs


def _kept(arguments: ArgumentsByName) -> tuple[str, ...]:
    if not arguments["updates"]:
        return ()
    return tuple(n for n, a in arguments.items() if n.startswith("dsts_") and isinstance(a, ViewType))


@instruction(
    writes=("dsts",), updates=_kept, lists={"dsts": MOST_WRITTEN, "srcs": MOST_READ}, indexed=True,
    access=Opaque("what a function of the user's does is not known"),
)
def custom_operator(
    dsts: Sequence[NkiTensor],
    srcs: Sequence[NkiTensor],
    numbers: Sequence[float],
    operator: str,
    updates: bool = False,
    name: str | None = None,
) -> None:
    """Call a function of the user's on SBUF tiles. Kernels write it as a call of what `gpsimd.operator` returns.

    Args:
        dsts: tiles that it writes. Elements that it does not write hold bytes of 255, unless it `updates`.
        srcs: tiles that it reads.
        numbers: its other arguments.
        operator: the name under which the function was loaded.
        updates: the tiles it writes keep what they hold until then.

    Raises:
        OperatorNotLoaded: it was not loaded in this process.
        WrongMemory: a tile is not in SBUF.
        ShapeMismatch: a tile has more than eight dimensions.
        UnsupportedDtype: a dtype that C++ operators do not know.
        OperatorFailed: (when it runs) the function threw an exception, or an assertion in it failed.
    """


def _function(call: Signature) -> Foreign:
    return foreign.find(call.operator)


def _arguments(call: Signature, tensors: dict[str, Any]) -> list[Any]:
    """Tensors and numbers in the order of the function's parameters."""
    written = iter([n for n in tensors if n.startswith("dsts_")])
    read = iter([n for n in tensors if n.startswith("srcs_")])
    numbers = iter(call.numbers)
    found = []
    for letter in foreign.parameters(_function(call).signature):
        if letter in (foreign.WRITTEN, foreign.READ):
            found.append(tensors[next(written if letter == foreign.WRITTEN else read)])
        else:
            found.append(float(next(numbers)))
    return found


@custom_operator.spelling
def _custom_operator_spelling(arguments: ReadArguments, operand: str) -> str:
    kind, _, number = operand.partition("_")
    letter = foreign.WRITTEN if kind == "dsts" else foreign.READ
    letters = foreign.parameters(foreign.find(arguments["operator"]).signature)
    return f"argument {[i for i, found in enumerate(letters) if found == letter][int(number)]}"


@custom_operator.check
def _custom_operator_check(call: Signature) -> None:
    title = _function(call).title
    rules.require_sbuf(call)
    for operand, kind in rules.tensors(call).items():
        if kind.ndim > foreign.DIMENSIONS:
            raise ShapeMismatch(
                instruction=title, detail=f"{call.said(operand)} has {kind.ndim} dimensions, {kind.shape}; C++ "
                f"operators take {foreign.DIMENSIONS}",
            )
        if not foreign.supported(kind.dtype):
            raise UnsupportedDtype(
                instruction=title, operand=call.said(operand), found=kind.dtype, target="the header of C++ operators",
                allowed=", ".join(foreign.DTYPES),
            )


@custom_operator.reference
def _custom_operator_reference(call: Signature, **given: object) -> tuple[Elements, ...]:
    tensors = {name: given[name] for name in rules.tensors(call)}
    written = {n: np.array(a, order="C") for n, a in tensors.items() if n.startswith("dsts_")}
    if not call.updates:
        for array in written.values():
            array.view(np.uint8).fill(UNWRITTEN)
    failure = _function(call)(_arguments(call, tensors | written))
    if failure:
        raise OperatorFailed(operator=_function(call).title, found=failure)
    return tuple(Elements(array, call.arguments[name].dtype) for name, array in written.items())


@custom_operator.cost
def _custom_operator_cost(call: Signature) -> Cost:
    """Cores take 16 partitions each, one core all of them.

    Declared: cycles per element. By default the tiles move through the port of a core, 32 bits per partition and cycle
    (arch-v2), as for the other kernels of GpSimd (isa-2.26, GPSIMD_START). Or measured, see nkilite/isa/measured.py.
    """
    function, target = _function(call), call.target
    kinds = list(rules.tensors(call).values())
    elements = call.arguments["dsts_0"].free_size
    if function.cost == "measured":
        shapes = [(k.shape, k.dtype.numpy) for k in kinds]
        arrays = [np.ones(shape, dtype) for shape, dtype in shapes]
        values = _arguments(call, dict(zip(rules.tensors(call), arrays, strict=True)))
        cycles = measured.nanoseconds(function, values) / function.cores * target.gpsimd_ghz
    elif function.cost is None:
        per_core = target.num_partitions / target.partitions_per_gpsimd_core / function.cores
        cycles = elements * max(1, len(kinds) - 1) * per_core
    else:
        cycles = float(function.cost) * elements * call.arguments["dsts_0"].partitions / function.cores
    return Cost(Engine.gpsimd, target.gpsimd_start_cycles + cycles)


@custom_operator.lower
def _custom_operator_lower(call: Signature, kernel: MicroKernel) -> None:
    e, tensors = kernel.e, {}
    for name in rules.tensors(call):
        operand, pointer = kernel.operands[name], kernel.pointer(name)
        tensors[name] = (operand, pointer)
        if name.startswith("dsts_") and not call.updates:
            size = operand.dtype.itemsize

            def unwritten(at: Any, strides: Any, lanes: int, size: int = size, operand: Any = operand) -> None:
                bits = e.const(f"i{8 * size}", -1, lanes)
                elementwise.store(e, operand.dtype, bits, at[0], strides[0], "bits")

            elementwise.visit(kernel, [operand], [pointer], unwritten)
    foreign.call(e, call.operator, _arguments(call, tensors), _function(call).cores)
