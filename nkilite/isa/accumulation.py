"""The accumulation registers of the Scalar and Vector Engine: a float32 per partition, steered by reduce_cmd.

Instructions that map a tile and reduce the result along the free dimensions share this protocol:

    reset          registers = identity of the operator
    reduce         registers = registers op reduction
    reset_reduce   registers = identity op reduction
    load_reduce    registers = reduce_init op reduction
    idle           registers stay

and then, when a tile is passed for it, reduce_res = registers. What is reduced are the float32 results before
they are rounded to dst's dtype: nki.isa.range_select states it (with a bfloat16 dst the maximum of a fully
masked row is still the smallest float32, not -inf), and the pipelined reduction of the architecture guides
sits in front of the write. A call uses the first P registers, P being its partitions.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from nkilite.codegen import elementwise
from nkilite.codegen.emitter import Value
from nkilite.codegen.kernel import MicroKernel
from nkilite.codegen.map_reduce import map_reduce
from nkilite.dtypes import float32
from nkilite.errors import InvalidOperand, describe
from nkilite.ir.program import Signature
from nkilite.isa import alu, rules
from nkilite.isa.alu import AluOp
from nkilite.isa.constants import reduce_cmd

OPERATORS = tuple(alu.TABLE[name] for name in ("add", "multiply", "maximum", "minimum"))  # of the Vector Engine
_REDUCING = (reduce_cmd.reduce, reduce_cmd.reset_reduce, reduce_cmd.load_reduce)


def uses(engine: str) -> Callable[[dict[str, object]], str | None]:
    """The `registers` fact of an instruction on this engine: none while idle without a reduce_res."""

    def registers(arguments: dict[str, object]) -> str | None:
        idle = arguments["reduce_cmd"] is reduce_cmd.idle and arguments["reduce_res"] is None
        return None if idle else engine

    return registers


# --- checks -------------------------------------------------------------------------------------------------


def require_command(call: Signature, *commands: reduce_cmd) -> None:
    """Raise InvalidOperand for a reduce_cmd that is not one of `commands`."""
    if call.reduce_cmd not in commands:
        raise InvalidOperand(
            instruction=rules.instruction_name(call), operand="reduce_cmd", found=describe(call.reduce_cmd),
            expected=" or ".join(f"nisa.reduce_cmd.{c.name}" for c in commands),
        )


def require_result(call: Signature, data: str) -> None:
    """Check that reduce_res is None or a tile with one element per partition of the argument `data`.

    Raises:
        WrongMemory, ShapeMismatch, UnsupportedDtype: it is elsewhere, of another shape, or no float.
    """
    rules.require_vector(call, "reduce_res", data)
    rules.require_dtype(call, "reduce_res", rules.FLOATS)


def require_initial(call: Signature, operand: str, data: str) -> None:
    """Check what load_reduce starts from.

    Raises:
        InvalidOperand: it is missing.
        ShapeMismatch, WrongMemory, UnsupportedDtype: it is not a number or a float32 [P, 1] tile.
    """
    if call.reduce_cmd is reduce_cmd.load_reduce and call.arguments[operand] is None:
        raise InvalidOperand(
            instruction=rules.instruction_name(call),
            operand=operand,
            found="None with reduce_cmd.load_reduce",
            expected="a number or a float32 [P, 1] tile",
        )
    rules.require_vector(call, operand, data, (float32,))


def require_defined(call: Signature) -> None:
    """Raise InvalidOperand for a reduce_res of an idle Vector Engine call, whose registers are undefined."""
    if call.reduce_cmd is reduce_cmd.idle and call.reduce_res is not None:
        raise InvalidOperand(
            instruction=rules.instruction_name(call),
            operand="reduce_cmd",
            found="idle, and reduce_res a tile",
            expected="nisa.reduce_cmd.reset_reduce or reduce, for idle leaves the registers undefined",
        )


# --- reference ----------------------------------------------------------------------------------------------


def reference(
    call: Signature,
    command: reduce_cmd,
    op: AluOp,
    values: np.ndarray,
    registers: np.ndarray | None,
    init: object = None,
) -> tuple[np.ndarray, ...]:
    """The written operands (dst, reduce_res, registers; those the call has) for float32 results `values`."""
    if registers is None:
        return (values,)
    partitions = values.shape[0]
    state = registers.copy()
    now = state[:partitions]
    if command in (reduce_cmd.reset, reduce_cmd.reset_reduce):
        now[:] = op.identity
    elif command is reduce_cmd.load_reduce:
        now[:] = np.asarray(init, np.float32).reshape(-1, 1)
    if command in _REDUCING:
        now[:] = op.numpy(now, reduce_free(op, values))
    return (values, state) if call.reduce_res is None else (values, now.reshape(call.reduce_res.shape), state)


def reduce_free(op: AluOp, values: np.ndarray) -> np.ndarray:
    """[P, 1]: the elements of each partition combined pairwise."""
    rows = values.reshape(values.shape[0], -1)
    while rows.shape[1] > 1:
        half, odd = divmod(rows.shape[1], 2)
        folded = op.numpy(rows[:, :half], rows[:, half:2 * half])
        rows = np.concatenate([folded, rows[:, 2 * half:]], axis=1) if odd else folded
    return rows


# --- lowering -----------------------------------------------------------------------------------------------


def lower(
    kernel: MicroKernel,
    command: reduce_cmd,
    op: AluOp,
    inputs: Sequence[str],
    body: Callable[..., Value],
    positions: bool = False,
    init: str | None = None,
    negate: bool = False,
) -> None:
    """dst = body(inputs), fused with the reduction that `command` asks for.

    Args:
        command: the call's reduce_cmd.
        op: reduction operator.
        inputs, body, positions: see `map_reduce`.
        init: the argument load_reduce starts from.
        negate: reduce_res receives the negated registers.
    """
    if command in _REDUCING:
        finish = _Registers(kernel, command, op, init, negate).settle
        map_reduce(kernel, "dst", inputs, body, op.emit, _identity(op), finish, positions)
        return
    if positions:
        map_reduce(kernel, "dst", inputs, body, op.emit, _identity(op), lambda partition, total: None, True)
    else:
        elementwise.map(kernel, "dst", inputs, body)
    if kernel.has("registers"):
        registers = _Registers(kernel, command, op, init, negate)
        with kernel.e.loop(kernel.call.dst.partitions) as partition:
            registers.settle(partition.index, None)


def _identity(op: AluOp) -> float:
    assert op.identity is not None
    return op.identity


class _Registers:
    """The registers and reduce_res in a micro-kernel."""

    def __init__(
        self, kernel: MicroKernel, command: reduce_cmd, op: AluOp, init: str | None, negate: bool
    ) -> None:
        self._kernel, self._command, self._op, self._negate = kernel, command, op, negate
        used = ["registers"] + ["reduce_res"] * kernel.has("reduce_res")
        if self._command is reduce_cmd.load_reduce:
            assert init is not None
            if kernel.has(init):
                used.append(init)
            else:
                self._number = kernel.immediate_f32(init)
        self._init = init
        self._pointers = {name: kernel.pointer(name) for name in used}

    def _at(self, name: str, partition: Value) -> Value:
        return self._kernel.e.step(self._pointers[name], partition, self._kernel.operands[name].strides[0])

    def _initial(self, partition: Value) -> Value | None:
        """What the reduction is combined with; None when that is the operator's identity."""
        e = self._kernel.e
        if self._command is reduce_cmd.load_reduce:
            assert self._init is not None
            if self._init not in self._pointers:
                return self._number
            return e.load("float", self._at(self._init, partition))
        if self._command in (reduce_cmd.reduce, reduce_cmd.idle):
            return e.load("float", self._at("registers", partition))
        return None

    def settle(self, partition: Value, total: Value | None) -> None:
        """Update one partition's register by a reduction (None: there is none) and write reduce_res."""
        e, state = self._kernel.e, self._initial(partition)
        if state is None:
            state = e.f32(_identity(self._op)) if total is None else total
        elif total is not None:
            state = self._op.emit(e, state, total)
        if self._command is not reduce_cmd.idle:
            e.store(state, self._at("registers", partition))
        if "reduce_res" in self._pointers:
            operand = self._kernel.operands["reduce_res"]
            state = e.neg(state) if self._negate else state
            at = self._at("reduce_res", partition)
            elementwise.store(e, operand.dtype, e.splat(state, 1), at, operand.dtype.itemsize, "f32")
