"""Vector Engine instructions that mask elements and keep the maximum of each partition: attention masks."""

from __future__ import annotations

from typing import SupportsFloat

import numpy as np

from nkilite import dtypes
from nkilite.codegen.emitter import Emitter, Value
from nkilite.codegen.kernel import MicroKernel
from nkilite.errors import InvalidOperand, WrongMemory
from nkilite.ir.program import Signature
from nkilite.isa import accumulation, alu, rules
from nkilite.isa.constants import reduce_cmd
from nkilite.isa.operators import Op
from nkilite.machine import engine as costs
from nkilite.machine.engine import Cost
from nkilite.machine.target import Target
from nkilite.trace.instruction import instruction
from nkilite.trace.tensor import NkiTensor

_MAXIMUM = alu.TABLE["maximum"]
_COMPARISONS = tuple(alu.TABLE[name] for name in ("equal", "less", "less_equal", "greater", "greater_equal"))
_PREDICATES = (dtypes.int8, dtypes.uint8, dtypes.int16, dtypes.uint16, dtypes.bool_)
_SELECTABLE = tuple(d for d in rules.UNPACKED if d not in (dtypes.tfloat32, dtypes.int32, dtypes.uint32))
_EXACT = 1 << 24
_FP32_MIN = float(np.finfo(np.float32).min)

_idle, _reset_reduce = reduce_cmd.idle, reduce_cmd.reset_reduce


@instruction(
    writes=("dst", "reduce_res"), registers=accumulation.uses("vector"),
    access="p f: dst[p f] predicate[p f] on_true[p f] on_false[p] reduce_res[p] registers[p]",
)
def select_reduce(
    dst: NkiTensor,
    predicate: NkiTensor,
    on_true: NkiTensor,
    on_false: float | NkiTensor,
    reduce_res: NkiTensor | None = None,
    reduce_cmd: reduce_cmd = _idle,
    reduce_op: Op = _MAXIMUM,
    reverse_pred: bool = False,
    name: str | None = None,
) -> None:
    """Take each element from `on_true` where `predicate` is nonzero and from `on_false` elsewhere, on the
    Vector Engine, and optionally keep the maximum of each partition.

    The maximum is taken over the float32 values before they are rounded to dst's dtype. It goes through the
    engine's accumulation registers, which all accumulating Vector Engine instructions share: `reset_reduce`
    starts from -inf,
    `reduce` continues, `idle` takes no maximum.

    Args:
        dst: SBUF or PSUM tile of P partitions.
        predicate: tile of dst's elements; int8, uint8, int16, uint16 or bool.
        on_true: tile of dst's elements, any dtype but tfloat32, int32, uint32 and the packed ones. Not both
            `predicate` and `on_true` may be in PSUM.
        on_false: a number, or a tile of shape (P, 1).
        reduce_res: float tile of shape (P, 1) that receives the registers, or None to leave the result in
            them.
        reduce_cmd: nisa.reduce_cmd.idle, reduce or reset_reduce.
        reduce_op: nl.maximum.
        reverse_pred: select where the predicate is zero instead.

    Raises:
        WrongMemory: an operand is in HBM, or both predicate and on_true in PSUM.
        ShapeMismatch: elements or partitions differ.
        UnsupportedDtype: see the operands.
        UnknownOperator: another reduce_op.
        InvalidOperand: another reduce_cmd, or idle with a reduce_res.

    Source: nki.isa.select_reduce.
    """


@select_reduce.normalize
def _select_reduce_normalize(arguments: dict[str, object], target: Target) -> None:
    arguments["reduce_op"] = alu.lookup(arguments["reduce_op"], "nisa.select_reduce", (_MAXIMUM,))
    arguments["reverse_pred"] = bool(arguments["reverse_pred"])


@select_reduce.check
def _select_reduce_check(call: Signature) -> None:
    rules.require_on_chip(call)
    rules.require_same_elements(call, "dst", "predicate", "on_true")
    rules.require_dtype(call, "predicate", _PREDICATES)
    rules.require_dtype(call, "on_true", _SELECTABLE)
    rules.require_dtype(call, "dst", rules.UNPACKED)
    rules.require_vector(call, "on_false", "on_true", rules.UNPACKED)
    if rules.in_psum(call.arguments, "predicate") and rules.in_psum(call.arguments, "on_true"):
        raise WrongMemory(
            instruction="nisa.select_reduce",
            operand="predicate",
            found="PSUM",
            allowed="SBUF when on_true is in PSUM",
            hint="nisa.tensor_copy moves one of them to SBUF",
        )
    accumulation.require_command(call, reduce_cmd.idle, reduce_cmd.reduce, reduce_cmd.reset_reduce)
    accumulation.require_result(call, "on_true")
    accumulation.require_defined(call)


@select_reduce.reference
def _select_reduce_reference(
    call: Signature, dst: np.ndarray, predicate: np.ndarray, on_true: np.ndarray, on_false: object,
    registers: np.ndarray | None = None, **_: object,
) -> tuple[np.ndarray, ...]:
    shape = (dst.shape[0], -1)
    chosen = (predicate.reshape(shape) != 0) != call.reverse_pred
    other = np.asarray(on_false).astype(np.float32).reshape(-1, 1)
    values = np.where(chosen, on_true.reshape(shape).astype(np.float32), other)
    return accumulation.reference(call, call.reduce_cmd, call.reduce_op, values, registers)


@select_reduce.cost
def _select_reduce_cost(call: Signature) -> Cost:
    return _cost(call, "dst", "predicate", "on_true")


@select_reduce.lower
def _select_reduce_lower(call: Signature, kernel: MicroKernel) -> None:
    def select(e: Emitter, on_true: Value, on_false: Value, predicate: Value) -> Value:
        holds = e.compare("oeq" if call.reverse_pred else "une", predicate, 0)
        return e.select(holds, on_true, on_false)

    accumulation.lower(kernel, call.reduce_cmd, call.reduce_op, ("on_true", "on_false", "predicate"), select)


@instruction(
    writes=("dst", "reduce_res"), registers=accumulation.uses("vector"),
    access="p, f placed: dst[p f] on_true_tile[p f] bound0[p] bound1[p] reduce_res[p] registers[p]",
)
def range_select(
    dst: NkiTensor,
    on_true_tile: NkiTensor,
    comp_op0: Op,
    comp_op1: Op,
    bound0: NkiTensor,
    bound1: NkiTensor,
    reduce_cmd: reduce_cmd = _reset_reduce,
    reduce_res: NkiTensor | None = None,
    reduce_op: Op = _MAXIMUM,
    range_start: int = 0,
    on_false_value: SupportsFloat = _FP32_MIN,
    name: str | None = None,
) -> None:
    """Keep the elements whose position lies in a range given per partition, fill the others with the smallest
    float32, and keep the maximum of each partition; on the Vector Engine.

    Element i of a partition (row-major over the free dimensions) has position ``range_start + i``, and is
    kept when ``position comp_op0 bound0`` and ``position comp_op1 bound1`` hold; positions are compared in
    float32, exact below 2**24. The maximum is taken over the float32 values before they are rounded to dst's
    dtype, so that a bfloat16 dst holds -inf where the maximum of a fully masked partition is still the
    smallest float32.

    Args:
        dst: SBUF or PSUM tile of P partitions.
        on_true_tile: float tile of dst's elements.
        comp_op0, comp_op1: nl.equal, less, less_equal, greater or greater_equal.
        bound0, bound1: float32 tiles of shape (P, 1).
        reduce_cmd: nisa.reduce_cmd.reset_reduce starts the maximum from -inf, reduce continues it, reset only
            clears the registers, idle leaves them.
        reduce_res: float tile of shape (P, 1) that receives the registers, or None to leave the result in
            them.
        reduce_op: nl.maximum.
        range_start: position of element 0.
        on_false_value: -3.4028235e38, the smallest float32: the hardware has no other.

    Raises:
        WrongMemory: an operand is in HBM.
        ShapeMismatch: elements or partitions differ, or a bound is not (P, 1).
        UnsupportedDtype: on_true_tile is not a float, or a bound not float32.
        UnknownOperator: another comparison or reduce_op.
        InvalidOperand: another on_false_value, load_reduce, or idle with a reduce_res.
        UnsupportedOnTarget: the target is older than trn2.

    Source: nki.isa.range_select.
    """


@range_select.normalize
def _range_select_normalize(arguments: dict[str, object], target: Target) -> None:
    arguments["reduce_op"] = alu.lookup(arguments["reduce_op"], "nisa.range_select", (_MAXIMUM,))
    for operator in ("comp_op0", "comp_op1"):
        arguments[operator] = alu.lookup(arguments[operator], "nisa.range_select", _COMPARISONS)
    fill = arguments["on_false_value"]
    if not isinstance(fill, (int, float, np.number)) or not np.isclose(
        float(fill), _FP32_MIN, rtol=1e-7, atol=0
    ):
        raise InvalidOperand(
            instruction="nisa.range_select", operand="on_false_value", found=fill,
            expected=f"{_FP32_MIN:.8g}, the smallest float32",
        )
    arguments["on_false_value"] = _FP32_MIN


@range_select.check
def _range_select_check(call: Signature) -> None:
    rules.require_on_chip(call)
    rules.require_same_elements(call, "dst", "on_true_tile")
    rules.require_dtype(call, "on_true_tile", rules.FLOATS)
    rules.require_dtype(call, "dst", rules.UNPACKED)
    for bound in ("bound0", "bound1"):
        rules.require_vector(call, bound, "on_true_tile", (dtypes.float32,))
    accumulation.require_command(
        call, reduce_cmd.idle, reduce_cmd.reset, reduce_cmd.reduce, reduce_cmd.reset_reduce
    )
    accumulation.require_result(call, "on_true_tile")
    accumulation.require_defined(call)


@range_select.check_immediates
def _range_select_check_immediates(call: Signature, range_start: float) -> None:
    rules.require_int32(call, "range_start", range_start)
    last = range_start + call.on_true_tile.free_size - 1
    if not -_EXACT <= range_start <= last <= _EXACT:
        raise InvalidOperand(
            instruction="nisa.range_select", operand="range_start", found=int(range_start),
            expected=f"positions within 2**24, where float32 is exact; the last one is {int(last)}",
        )


@range_select.reference
def _range_select_reference(
    call: Signature, dst: np.ndarray, on_true_tile: np.ndarray, bound0: np.ndarray, bound1: np.ndarray,
    range_start: float, registers: np.ndarray | None = None, **_: object,
) -> tuple[np.ndarray, ...]:
    source = on_true_tile.reshape(dst.shape[0], -1).astype(np.float32)
    position = (int(range_start) + np.arange(source.shape[1])).astype(np.float32)
    first, second = bound0.reshape(-1, 1), bound1.reshape(-1, 1)
    inside = call.comp_op0.holds(position, first) & call.comp_op1.holds(position, second)
    values = np.where(inside, source, np.float32(_FP32_MIN))
    return accumulation.reference(call, call.reduce_cmd, call.reduce_op, values, registers)


@range_select.cost
def _range_select_cost(call: Signature) -> Cost:
    return _cost(call, "dst", "on_true_tile")


@range_select.lower
def _range_select_lower(call: Signature, kernel: MicroKernel) -> None:
    start = kernel.e.convert("trunc", kernel.immediate_i64("range_start"), "i32")

    def select(e: Emitter, index: Value, source: Value, first: Value, second: Value) -> Value:
        position = e.convert("sitofp", e.add(index, e.splat(start, index.lanes)), "float")
        zero = e.f32(0, index.lanes)
        inside = e.and_(
            e.compare("une", call.comp_op0.emit(e, position, first), zero),
            e.compare("une", call.comp_op1.emit(e, position, second), zero),
        )
        return e.select(inside, source, _FP32_MIN)

    accumulation.lower(
        kernel, call.reduce_cmd, call.reduce_op, ("on_true_tile", "bound0", "bound1"), select, positions=True
    )


def _cost(call: Signature, *tiles: str) -> Cost:
    return costs.vector_stream(
        call.target, call.dst.free_size, [rules.cost_operand(call.arguments[t]) for t in tiles],
        reads_accumulator=call.reduce_res is not None,
    )
