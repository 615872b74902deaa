"""GpSimd instructions driven by an affine pattern of the element's position: iota and affine_select."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from operator import index
from typing import Any, SupportsIndex

import numpy as np

from nkilite.codegen import pattern as algorithms
from nkilite.codegen.emitter import Emitter, Value
from nkilite.codegen.kernel import MicroKernel
from nkilite.dtypes import DType, Elements, cast
from nkilite.errors import InvalidOperand, ShapeMismatch
from nkilite.ir.program import Signature
from nkilite.ir.rules import ArgumentsByName
from nkilite.isa import alu, rules
from nkilite.isa.operators import Op
from nkilite.machine import engine as costs
from nkilite.machine.engine import Cost
from nkilite.machine.target import Target
from nkilite.trace.instruction import instruction
from nkilite.trace.tensor import NkiTensor

_EQUAL = alu.TABLE["equal"]
_COMPARISONS = tuple(
    alu.TABLE[name] for name in ("equal", "not_equal", "less", "less_equal", "greater", "greater_equal")
)
_MOST_DIMENSIONS = 4


@instruction(writes=("dst",))
def iota(
    dst: NkiTensor,
    pattern: Sequence[Sequence[int]],
    offset: int = 0,
    channel_multiplier: SupportsIndex = 0,
    name: str | None = None,
) -> None:
    """Write an affine function of each element's position.

    Element (p, w, z, y, x) becomes ``offset + p * channel_multiplier + w * step_w + z * step_z + y * step_y +
    x * step_x``, in int32 arithmetic that wraps around. Integer dtypes saturate, float dtypes round to
    nearest even.

    Args:
        dst: SBUF tile of any dtype but the packed ones; its elements per partition are the product of the
            nums, and take the pattern's values in row-major order.
        pattern: up to four [step, num] pairs, outermost first.
        offset: int32 added to every value.
        channel_multiplier: int32 multiplied with the partition's position in dst.

    Raises:
        WrongMemory: dst is not in SBUF.
        InvalidOperand: pattern is no list of one to four [step, num] integer pairs, or offset no int32.
        ShapeMismatch: the pattern has another number of elements than a partition of dst.
        UnsupportedDtype: dst is packed.

    Source: nki.isa.iota.
    """


@iota.normalize
def _iota_normalize(arguments: dict[str, object], target: Target) -> None:
    _normalize_pattern(arguments, "nisa.iota")


@iota.check
def _iota_check(call: Signature) -> None:
    rules.require_on_chip(call)
    rules.require_memory(call, "dst", rules.SBUF)
    rules.require_dtype(call, "dst", rules.UNPACKED)
    _require_fit(call)


@iota.check_immediates
def _iota_check_immediates(call: Signature, offset: float) -> None:
    rules.require_int32(call, "offset", offset)


@iota.reference
def _iota_reference(call: Signature, dst: np.ndarray, offset: float, **_: object) -> np.ndarray:
    return _integers_as(_affine(call, dst.shape[0], offset).reshape(dst.shape), call.dst.dtype)


@iota.access
def _iota_access(call: Signature) -> str:
    return _access(call, "dst[p f]")


@iota.cost
def _iota_cost(call: Signature) -> Cost:
    return costs.gpsimd_stream(call.target, call.dst.free_size, (rules.cost_operand(call.dst),))


@iota.lower
def _iota_lower(call: Signature, kernel: MicroKernel) -> None:
    algorithms.iota(kernel, "dst", call.pattern, call.channel_multiplier, "offset")


@instruction(writes=("dst",))
def affine_select(
    dst: NkiTensor,
    pattern: Sequence[Sequence[int]],
    channel_multiplier: SupportsIndex,
    on_true_tile: NkiTensor,
    on_false_value: float,
    cmp_op: Op = _EQUAL,
    offset: int = 0,
    name: str | None = None,
) -> None:
    """Keep `on_true_tile` where an affine function of the element's position compares with 0 as asked;
    elsewhere write `on_false_value`.

    The function is that of nisa.iota; ``cmp_op(value, 0)`` decides. Causal masks are its common use.

    Args:
        dst: SBUF tile.
        pattern: up to four [step, num] pairs, outermost first; as many elements as a partition of dst has.
        channel_multiplier: int32 multiplied with the partition's position in dst.
        on_true_tile: SBUF tile with the partitions and elements per partition of dst. Copied bit by bit when
            the dtypes agree, else converted through float32.
        on_false_value: a number, taken as float32 and converted to dst's dtype.
        cmp_op: nl.equal, not_equal, less, less_equal, greater or greater_equal.
        offset: int32 added to every value.

    Raises:
        WrongMemory: a tile is not in SBUF.
        InvalidOperand, ShapeMismatch: the pattern is malformed or does not fit; the tiles differ.
        UnsupportedDtype: a tile is packed.
        UnknownOperator: cmp_op is no comparison.

    Source: nki.isa.affine_select.
    """


@affine_select.normalize
def _affine_select_normalize(arguments: dict[str, object], target: Target) -> None:
    _normalize_pattern(arguments, "nisa.affine_select")
    arguments["cmp_op"] = alu.lookup(arguments["cmp_op"], "nisa.affine_select", _COMPARISONS)


@affine_select.check
def _affine_select_check(call: Signature) -> None:
    rules.require_on_chip(call)
    for operand in ("dst", "on_true_tile"):
        rules.require_memory(call, operand, rules.SBUF)
        rules.require_dtype(call, operand, rules.UNPACKED)
    rules.require_same_elements(call, "dst", "on_true_tile")
    _require_fit(call)


@affine_select.check_immediates
def _affine_select_check_immediates(call: Signature, on_false_value: float, offset: float) -> None:
    rules.require_int32(call, "offset", offset)


@affine_select.reference
def _affine_select_reference(
    call: Signature, dst: np.ndarray, on_true_tile: np.ndarray, on_false_value: float, offset: float, **_: object
) -> np.ndarray | Elements:
    values = _affine(call, dst.shape[0], offset).reshape(dst.shape)
    chosen = call.cmp_op.numpy(values, np.int32(0)) != 0
    data, other = on_true_tile.reshape(dst.shape), np.asarray(on_false_value, np.float32)
    if call.on_true_tile.dtype == call.dst.dtype:
        return Elements(np.where(chosen, data, cast(other, call.dst.dtype)), call.dst.dtype)
    return np.where(chosen, data.astype(np.float32), other)


@affine_select.access
def _affine_select_access(call: Signature) -> str:
    return _access(call, "dst[p f] on_true_tile[p f]")


@affine_select.cost
def _affine_select_cost(call: Signature) -> Cost:
    operands = rules.cost_operand(call.on_true_tile), rules.cost_operand(call.dst)
    return costs.gpsimd_stream(call.target, call.dst.free_size, operands)


@affine_select.lower
def _affine_select_lower(call: Signature, kernel: MicroKernel) -> None:
    def holds(e: Emitter, values: Value) -> Value:
        zero = e.i32(0, values.lanes)
        return e.compare("ne", call.cmp_op.emit(e, values, zero), zero)

    algorithms.select(
        kernel, "dst", "on_true_tile", "on_false_value",
        call.pattern, call.channel_multiplier, "offset", holds,
    )


def _access(call: Signature, operands: str) -> str:
    """The rule of instructions on patterns: columns are placed if they are at equal steps, as rows always are."""
    linear = algorithms.linear(call.pattern) is not None
    return f"p{' f' if linear else ''} placed{'' if linear else ', f in order'}: {operands}"


# --- patterns -----------------------------------------------------------------------------------------------


def _normalize_pattern(arguments: ArgumentsByName, instruction: str) -> None:
    """Pattern and multiplier as plain integers."""
    pattern = arguments["pattern"]
    try:
        pairs = tuple((_integer(step), _integer(num)) for step, num in pattern)
    except (TypeError, ValueError):
        pairs = ()
    if not 1 <= len(pairs) <= _MOST_DIMENSIONS or any(num < 1 for _, num in pairs):
        raise InvalidOperand(
            instruction=instruction, operand="pattern", found=pattern,
            expected=f"a list of 1 to {_MOST_DIMENSIONS} [step, num] pairs of integers with num at least 1",
        )
    arguments["pattern"] = pairs
    try:
        arguments["channel_multiplier"] = _integer(arguments["channel_multiplier"])
    except TypeError:
        raise InvalidOperand(
            instruction=instruction, operand="channel_multiplier", found=arguments["channel_multiplier"],
            expected="an integer",
        ) from None
    for value in (arguments["channel_multiplier"], *(step for step, _ in pairs)):
        if not -(1 << 31) <= value < 1 << 31:
            raise InvalidOperand(
                instruction=instruction, operand="channel_multiplier or a step", found=value, expected="an int32"
            )


def _integer(value: Any) -> int:
    """An int, from an int or an integral float. Raises TypeError for anything else."""
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return index(value)


def _require_fit(call: Signature) -> None:
    count = prod(num for _, num in call.pattern)
    if count != call.dst.free_size:
        raise ShapeMismatch(
            instruction=rules.instruction_name(call),
            detail=f"pattern {list(map(list, call.pattern))} has {count} elements, and a partition of dst "
            f"{call.dst.shape} has {call.dst.free_size}",
        )


def _affine(call: Signature, partitions: int, offset: float) -> np.ndarray:
    """The int32 value of every element: partitions x elements."""
    values = np.zeros(1, np.int64)
    for step, num in call.pattern:
        values = np.add.outer(values, step * np.arange(num)).reshape(-1)
    channels = int(offset) + call.channel_multiplier * np.arange(partitions)
    result: np.ndarray = np.add.outer(channels, values).astype(np.int32)
    return result


def _integers_as(values: np.ndarray, dtype: DType) -> np.ndarray:
    """int32 values converted without a detour through float32 when dtype is an integer: they saturate."""
    if not dtype.is_integer or dtype.kind == "b":
        return values
    limits = np.iinfo(dtype.numpy)
    return np.clip(values.astype(np.int64), limits.min, limits.max).astype(dtype.numpy)
