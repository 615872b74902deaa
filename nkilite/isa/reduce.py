"""Reductions on their own or fused: tensor_reduce, tensor_partition_reduce and tensor_scalar_reduce."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from nkilite.codegen import reduction
from nkilite.codegen.emitter import Emitter, Value
from nkilite.codegen.kernel import MicroKernel
from nkilite.codegen.reduction import Reduction
from nkilite.dtypes import DType
from nkilite.errors import InvalidOperand, ShapeMismatch, describe
from nkilite.ir.program import Signature
from nkilite.ir.rules import ArgumentsByName
from nkilite.isa import accumulation, alu, arithmetic, rules
from nkilite.isa.alu import AluOp
from nkilite.isa.arithmetic import Domain
from nkilite.isa.constants import reduce_cmd
from nkilite.isa.operators import Op
from nkilite.machine import engine as costs
from nkilite.machine.engine import Cost
from nkilite.machine.target import Target
from nkilite.trace.instruction import instruction
from nkilite.trace.tensor import NkiTensor

_reset_reduce = reduce_cmd.reset_reduce

_ADD, _SUBTRACT, _AVERAGE = (alu.TABLE[name] for name in ("add", "subtract", "average"))
_PARTITION_OPERATORS = tuple(
    alu.TABLE[name] for name in ("add", "average", "maximum", "bitwise_or", "bitwise_and", "bitwise_xor")
)
_FUSED_DIMENSIONS, _PARTITION_DIMENSIONS = 4, 5  # of what tensor_scalar_reduce and tensor_partition_reduce take
_EXCHANGED = "multiply by -1 and add for subtract, or use nisa.tensor_scalar and nisa.tensor_reduce"


# --- what a reduction means ---------------------------------------------------------------------------------


def combined(op: AluOp, values: np.ndarray, axes: tuple[int, ...]) -> np.ndarray:
    """Reference of a reduction: `values` combined over `axes`, elements in row-major order.

    Subtraction takes the others from the first element. Sums are added pairwise, as a fold of halves.
    """
    kept = [a for a in range(values.ndim) if a not in axes]
    rows = values.transpose(*kept, *axes).reshape(*(values.shape[a] for a in kept), -1)
    result: np.ndarray
    if op is _SUBTRACT:
        result = rows[..., 0] - (_halve(_ADD, rows[..., 1:])[..., 0] if rows.shape[-1] > 1 else 0)
    else:
        result = op.numpy(_halve(op, rows)[..., 0], np.asarray(op.identity).astype(values.dtype))
    return result


def _halve(op: AluOp, rows: np.ndarray) -> np.ndarray:
    while rows.shape[-1] > 1:
        half, odd = divmod(rows.shape[-1], 2)
        folded = op.numpy(rows[..., :half], rows[..., half : 2 * half])
        rows = np.concatenate([folded, rows[..., 2 * half :]], axis=-1) if odd else folded
    return rows


def _reduction(op: AluOp, target: DType, negate: bool = False, scale: float = 1.0) -> Reduction:
    """How `codegen.reduction` combines elements and finishes them for `target`.

    Bits are combined in the width of the source, whose higher bits are zero before and after.
    """
    assert op.identity is not None
    if op.bitvec:

        def extend(e: Emitter, value: Value) -> Value:
            return arithmetic.low_bits(e, target, arithmetic.zero_extend(e, value))

        return Reduction(op.emit, op.identity, "pattern", finish=extend)

    def finish(e: Emitter, value: Value) -> Value:
        if scale != 1.0:
            value = e.mul(value, scale)
        return e.neg(value) if negate else value

    if op is _SUBTRACT:
        return Reduction(_ADD.emit, 0.0, leading=lambda e, a, b: e.sub(a, b), finish=finish)
    return Reduction(op.emit, op.identity, finish=finish)


# --- tensor_reduce ------------------------------------------------------------------------------------------


@instruction(writes=("dst",), indirect=("dst", "data"))
def tensor_reduce(
    dst: NkiTensor,
    op: Op,
    data: NkiTensor,
    axis: int | Sequence[int],
    negate: bool = False,
    keepdims: bool = False,
    name: str | None = None,
) -> None:
    """dst = data combined along its last free dimensions, on the Vector Engine.

    Arithmetic operators combine in float32 and round to dst's dtype; bitvec operators combine bit patterns.
    The order of a sum is not specified. nl.subtract takes all other elements from the first one.

    Args:
        dst: SBUF or PSUM tile with the partitions of data and one element per kept free position, in
            row-major order; its shape may or may not keep the reduced dimensions.
        op: nl.add, subtract, multiply, maximum, minimum, logical_and, logical_or, logical_xor, bitwise_and,
            bitwise_or or bitwise_xor, or its NumPy ufunc.
        data: SBUF or PSUM tile.
        axis: the dimension, or dimensions, to reduce: neighbours that end with the last one; never
            dimension 0. Negative numbers count from the end.
        negate: multiply the result by -1; arithmetic operators only.
        keepdims: whether the reduced dimensions are thought of as kept with size 1; dst's shape decides.

    Raises:
        UnknownOperator: op does not reduce.
        InvalidOperand: other axes, or negate with a bitvec operator.
        ShapeMismatch: dst does not have the reduced number of elements.
        WrongMemory: an operand in HBM.
        DtypeMismatch, UnsupportedDtype: bit operations on floats, packed elements.

    Source: nki.isa.tensor_reduce.
    """


@tensor_reduce.normalize
def _tensor_reduce_normalize(arguments: ArgumentsByName, target: Target) -> None:
    arguments["op"] = alu.lookup(arguments["op"], "nisa.tensor_reduce", arithmetic.REDUCTIONS)
    arguments["axis"] = _axes(arguments["axis"], arguments["data"].shape)
    arguments["negate"] = bool(arguments["negate"])
    arguments["keepdims"] = False


def _axes(axis: object, shape: tuple[int, ...]) -> tuple[int, ...]:
    """The axes as ascending non-negative numbers.

    Raises:
        InvalidOperand: they are not the last free dimensions.
    """
    ndim = len(shape)
    numbers = axis if isinstance(axis, tuple) else (axis,)
    valid = bool(numbers) and all(isinstance(a, (int, np.integer)) and -ndim <= a < ndim for a in numbers)
    axes = tuple(sorted({int(a) % ndim for a in numbers})) if valid else ()
    if not axes or axes[0] == 0 or axes != tuple(range(axes[0], ndim)) or len(axes) != len(numbers):
        raise InvalidOperand(
            instruction="nisa.tensor_reduce", operand="axis", found=f"{describe(axis)} for shape {shape}",
            expected=f"the last free dimensions, such as {ndim - 1} or {tuple(range(1, ndim))}",
            fix="permute other dimensions to the end first; nisa.tensor_partition_reduce reduces over partitions",
        )
    return axes


@tensor_reduce.check
def _tensor_reduce_check(call: Signature) -> None:
    rules.require_on_chip(call)
    kept = int(np.prod(call.data.shape[1 : call.axis[0]], dtype=np.int64))
    if call.dst.partitions != call.data.partitions or call.dst.free_size != kept:
        raise ShapeMismatch(
            instruction="nisa.tensor_reduce",
            detail=f"data of shape {call.data.shape} reduced over {call.axis} has {call.data.partitions} "
            f"partitions of {kept} elements, and dst has shape {call.dst.shape}",
        )
    arithmetic.require_dtypes(call, Domain.bits if call.op.bitvec else Domain.float32, "data", "dst")
    if call.negate and call.op.bitvec:
        raise InvalidOperand(
            instruction="nisa.tensor_reduce", operand="negate", found="True",
            expected=f"False, because op={call.op} is a bitvec operator",
        )


@tensor_reduce.reference
def _tensor_reduce_reference(call: Signature, dst: np.ndarray, data: np.ndarray, **_: object) -> np.ndarray:
    domain = Domain.bits if call.op.bitvec else Domain.float32
    result = combined(call.op, arithmetic.to_domain(data, domain), call.axis).reshape(dst.shape)
    return arithmetic.from_domain(-result if call.negate else result, domain, call.dst.dtype)


@tensor_reduce.access
def _tensor_reduce_access(call: Signature) -> str:
    free = [f"f{i}" for i in range(1, call.data.ndim)]
    combined = "" if call.op is _SUBTRACT else f", {' '.join(free[call.axis[0] - 1 :])} combined"
    into, of = ([n for n in dims if n > 1] for dims in (call.dst.shape[1:], call.data.shape[1 : call.axis[0]]))
    if len(into) > 1 and into != of:
        return f"p{combined}: dst[p s] data[p {' '.join(free)}]"  # the same elements in other dimensions
    kept = " ".join(free[: call.axis[0] - 1])
    return f"p {kept}{combined}: dst[p {kept}] data[p {' '.join(free)}]"


@tensor_reduce.cost
def _tensor_reduce_cost(call: Signature) -> Cost:
    data, dst = rules.cost_operand(call.data), rules.cost_operand(call.dst)
    return costs.vector_reduce(call.target, call.data.free_size, data, dst, op=call.op.name)


@tensor_reduce.lower
def _tensor_reduce_lower(call: Signature, kernel: MicroKernel) -> None:
    what = _reduction(call.op, call.dst.dtype, call.negate)
    reduction.reduce(kernel, "dst", "data", call.axis, what)


# --- tensor_partition_reduce --------------------------------------------------------------------------------


@instruction(writes=("dst",), access="f: dst[1 f] data[p f]")
def tensor_partition_reduce(dst: NkiTensor, op: Op, data: NkiTensor, name: str | None = None) -> None:
    """dst = data combined across its partitions, on the GpSimd Engine.

    Args:
        dst: SBUF tile of one partition with the elements per partition of data, in up to five dimensions.
        op: nl.add, nl.maximum, nl.bitwise_and, nl.bitwise_or, nl.bitwise_xor, or nl.mean ("average"): the sum divided
            by the number of partitions.
        data: SBUF tile of up to five dimensions.

    Raises:
        UnknownOperator: another operator.
        WrongMemory: an operand is not in SBUF, the only memory GpSimd reaches.
        ShapeMismatch: dst has several partitions or other elements per partition.
        DtypeMismatch, UnsupportedDtype: bit operations on floats, packed elements.

    Source: nki.isa.tensor_partition_reduce.
    """


@tensor_partition_reduce.normalize
def _tensor_partition_reduce_normalize(arguments: dict[str, object], target: Target) -> None:
    arguments["op"] = alu.lookup(arguments["op"], "nisa.tensor_partition_reduce", _PARTITION_OPERATORS)


@tensor_partition_reduce.check
def _tensor_partition_reduce_check(call: Signature) -> None:
    rules.require_on_chip(call)
    for operand in ("dst", "data"):
        rules.require_memory(call, operand, rules.SBUF)
        rules.require_dimensions(call, operand, _PARTITION_DIMENSIONS)
    if call.dst.partitions != 1 or call.dst.free_size != call.data.free_size:
        raise ShapeMismatch(
            instruction="nisa.tensor_partition_reduce",
            detail=f"dst has shape {call.dst.shape}; data of shape {call.data.shape} reduces to one "
            f"partition of {call.data.free_size} elements",
        )
    arithmetic.require_dtypes(call, Domain.bits if call.op.bitvec else Domain.float32, "data", "dst")


@tensor_partition_reduce.reference
def _tensor_partition_reduce_reference(call: Signature, dst: np.ndarray, data: np.ndarray, **_: object) -> np.ndarray:
    domain = Domain.bits if call.op.bitvec else Domain.float32
    result = combined(call.op, arithmetic.to_domain(data, domain), (0,)).reshape(dst.shape)
    if call.op is _AVERAGE:
        result = result * np.float32(1 / call.data.partitions)
    return arithmetic.from_domain(result, domain, call.dst.dtype)


@tensor_partition_reduce.cost
def _tensor_partition_reduce_cost(call: Signature) -> Cost:
    operands = (rules.cost_operand(call.data), rules.cost_operand(call.dst))
    return costs.gpsimd_stream(call.target, call.data.free_size, operands)


@tensor_partition_reduce.lower
def _tensor_partition_reduce_lower(call: Signature, kernel: MicroKernel) -> None:
    scale = 1 / call.data.partitions if call.op is _AVERAGE else 1.0
    reduction.reduce(kernel, "dst", "data", (0,), _reduction(call.op, call.dst.dtype, scale=scale))


# --- tensor_scalar_reduce -----------------------------------------------------------------------------------


@instruction(
    writes=("dst", "reduce_res"), registers=accumulation.uses("vector"),
    access="p f: dst[p f] data[p f] operand0[p] reduce_res[p] reduce_init[p] registers[p]",
    indirect=("dst", "data"),
)
def tensor_scalar_reduce(
    dst: NkiTensor,
    data: NkiTensor,
    op0: Op,
    operand0: float | NkiTensor | None,
    reduce_op: Op,
    reduce_res: NkiTensor | None = None,
    reverse0: bool = False,
    reduce_cmd: reduce_cmd = _reset_reduce,
    reduce_init: float | NkiTensor | None = None,
    reduce_res_negate: bool = False,
    name: str | None = None,
) -> None:
    """dst = data <op0> operand0, and the results of each partition combined by reduce_op.

    Runs on the Vector Engine and computes in float32; what is reduced are the results before they are rounded
    to dst's dtype. The reduction goes through the engine's accumulation registers, which all accumulating
    Vector Engine instructions share.

    Args:
        dst: SBUF or PSUM tile with the partitions P and elements per partition of data, in up to four dimensions.
        data: SBUF or PSUM tile of up to four dimensions.
        op0: arithmetic operator; unary ones (nl.abs, ...) take None or 0 as operand0.
        operand0: a number, or a float32 [P, 1] tile.
        reduce_op: nl.add, nl.multiply, nl.maximum or nl.minimum, over all free dimensions.
        reduce_res: float [P, 1] tile that receives the registers; None leaves the result in them.
        reverse0: False; the instruction does not exchange operands.
        reduce_cmd: `nisa.reduce_cmd.reset_reduce` (start anew), `reduce` (continue from the registers) or
            `load_reduce` (start from reduce_init).
        reduce_init: a number or a float32 [P, 1] tile, with load_reduce alone.
        reduce_res_negate: negate what reduce_res receives; the registers keep their sign.

    Raises:
        UnknownOperator, UnsupportedOnTarget: an operator is bitvec, unknown, or newer than the chip.
        InvalidOperand: operand0 is missing or given to a unary operator, another reduce_cmd, or reduce_init
            without load_reduce or missing with it.
        ShapeMismatch, WrongMemory, UnsupportedDtype: an operand breaks the rules above.

    Source: nki.isa.tensor_scalar_reduce.
    """


@tensor_scalar_reduce.normalize
def _tensor_scalar_reduce_normalize(arguments: dict[str, object], target: Target) -> None:
    instruction = "nisa.tensor_scalar_reduce"
    arguments["op0"] = alu.lookup(arguments["op0"], instruction, arithmetic.ARITHMETIC)
    arguments["reduce_op"] = alu.lookup(arguments["reduce_op"], instruction, accumulation.OPERATORS)
    negates = bool(arguments["reduce_res_negate"]) and arguments["reduce_res"] is not None
    arguments["reduce_res_negate"] = negates


@tensor_scalar_reduce.check
def _tensor_scalar_reduce_check(call: Signature) -> None:
    rules.require_on_chip(call, "dst", "data")
    for tile in ("dst", "data"):
        rules.require_dimensions(call, tile, _FUSED_DIMENSIONS)
    rules.require_same_elements(call, "data", "dst")
    arithmetic.require_available(call, "op0")
    arithmetic.require_operand(call, "op0", "operand0", "data")
    if call.reverse0:
        raise InvalidOperand(
            instruction="nisa.tensor_scalar_reduce", operand="reverse0", found="True",
            expected="False: the instruction cannot exchange operands", fix=_EXCHANGED,
        )
    arithmetic.require_dtypes(call, Domain.float32, "data", "dst")
    accumulation.require_command(call, reduce_cmd.reset_reduce, reduce_cmd.reduce, reduce_cmd.load_reduce)
    accumulation.require_result(call, "data")
    accumulation.require_initial(call, "reduce_init", "data")
    if call.reduce_init is not None and call.reduce_cmd is not reduce_cmd.load_reduce:
        raise InvalidOperand(
            instruction="nisa.tensor_scalar_reduce", operand="reduce_init",
            found=f"given beside {call.reduce_cmd}", expected="None unless reduce_cmd is load_reduce",
        )


@tensor_scalar_reduce.check_immediates
def _tensor_scalar_reduce_check_immediates(call: Signature, operand0: float = 0, **_: float) -> None:
    arithmetic.require_number(call, "op0", "operand0", operand0)


@tensor_scalar_reduce.reference
def _tensor_scalar_reduce_reference(
    call: Signature, dst: np.ndarray, data: np.ndarray, operand0: object, registers: np.ndarray,
    reduce_init: object = None, **_: object,
) -> tuple[np.ndarray, ...]:
    values = arithmetic.operate(call.op0, data.astype(np.float32), operand0, Domain.float32, False)
    results = accumulation.reference(
        call, call.reduce_cmd, call.reduce_op, values.reshape(dst.shape), registers, reduce_init
    )
    if call.reduce_res_negate:
        values, reduced, state = results
        return values, -reduced, state
    return results


@tensor_scalar_reduce.cost
def _tensor_scalar_reduce_cost(call: Signature) -> Cost:
    data, dst = rules.cost_operand(call.data), rules.cost_operand(call.dst)
    return costs.vector_copy(
        call.target, call.dst.free_size, data, dst, reads_accumulator=call.reduce_res is not None
    )


@tensor_scalar_reduce.lower
def _tensor_scalar_reduce_lower(call: Signature, kernel: MicroKernel) -> None:
    inputs = ("data", "operand0") if arithmetic.takes_operand(call.op0) else ("data",)

    def body(e: Emitter, data: Value, operand0: Value | None = None) -> Value:
        return arithmetic.emit(e, call.op0, data, operand0, Domain.float32)

    negate = call.reduce_res_negate
    accumulation.lower(
        kernel, call.reduce_cmd, call.reduce_op, inputs, body, init="reduce_init", negate=negate
    )
