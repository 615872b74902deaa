"""Activation functions over tiles: the Scalar Engine's activation, activation_reduce and activate2, and the
Vector Engine's exponential."""

from __future__ import annotations

import numpy as np

from nkilite import dtypes
from nkilite.codegen.emitter import Emitter, Value
from nkilite.codegen.kernel import MicroKernel
from nkilite.errors import DtypeMismatch, InvalidOperand
from nkilite.ir.program import Signature
from nkilite.isa import accumulation, activation_functions, alu, rules
from nkilite.isa.activation_functions import ActivationFunction
from nkilite.isa.alu import AluOp
from nkilite.isa.constants import engine, reduce_cmd
from nkilite.isa.operators import Op
from nkilite.machine import engine as costs
from nkilite.machine.engine import Cost, Engine
from nkilite.machine.target import Target
from nkilite.trace.instruction import instruction
from nkilite.trace.tensor import NkiTensor

_idle, _scalar_engine = reduce_cmd.idle, engine.scalar
_COMMANDS = (reduce_cmd.idle, reduce_cmd.reset, reduce_cmd.reduce, reduce_cmd.reset_reduce)

_GPSIMD_CYCLES = 4  # an element of a function, as of rsqrt, the only one that is published
_ADD, _BYPASS, _EXP = alu.TABLE["add"], alu.TABLE["bypass"], activation_functions.TABLE["exp"]
_BIAS = tuple(d for d in rules.UNPACKED if d is not dtypes.tfloat32)


# --- activation ---------------------------------------------------------------------------------------------


@instruction(
    writes=("dst", "reduce_res"), registers=accumulation.uses("scalar"),
    access="p f: dst[p f] data[p f] bias[p] scale[p] reduce_res[p] registers[p]",
    indirect=("dst", "data"),
)
def activation(
    dst: NkiTensor,
    op: Op,
    data: NkiTensor,
    bias: float | NkiTensor | None = None,
    scale: float | NkiTensor = 1.0,
    reduce_op: Op | None = None,
    reduce_res: NkiTensor | None = None,
    reduce_cmd: reduce_cmd = _idle,
    engine: Engine = _scalar_engine,
    name: str | None = None,
) -> None:
    """dst = op(data * scale + bias) on the Scalar Engine, optionally summing the results of each partition.

    Computes in float32, with one rounding after the multiplication and one after the addition, and rounds to
    dst's dtype. The sum goes through the engine's accumulation registers, one float32 per partition, and adds
    the float32 results before they are rounded to dst's dtype:

    - ``reduce_cmd.idle``: the registers stay.
    - ``reduce_cmd.reset``: they become 0.
    - ``reduce_cmd.reduce``: the sum is added to them.
    - ``reduce_cmd.reset_reduce``: they become the sum.

    Afterwards reduce_res, if given, receives the registers, whatever the command.

    Args:
        dst: SBUF or PSUM tile of P partitions, any unpacked dtype.
        op: an activation function such as nl.exp. Some are only valid in part of the float32 range, see
            nkilite.isa.activation_functions.
        data: SBUF or PSUM tile with the partitions and elements per partition of dst, any unpacked dtype.
        bias: None, a number (trn2 and later), or a tile of shape (P, 1) of any dtype but tfloat32.
        scale: a number, or a float32 tile of shape (P, 1).
        reduce_op: nl.add, the only reduction of this instruction, or None for the same.
        reduce_res: float tile of shape (P, 1) that receives the registers, or None to leave the sum in them.
        reduce_cmd: one of the four above.
        engine: `nisa.engine.scalar`, or, on trn3, `gpsimd`, which reduces nothing and reaches SBUF alone.

    Raises:
        WrongMemory: an operand is in HBM, or in PSUM on GpSimd.
        UnsupportedEngine: another engine.
        PartitionLimitExceeded: more than 128 partitions.
        ShapeMismatch: elements or partitions differ, or bias, scale or reduce_res is not (P, 1).
        UnsupportedDtype: see the operands.
        UnknownOperator: `op` is no activation function, or reduce_op not nl.add.
        InvalidOperand: reduce_cmd is load_reduce, or reduces on GpSimd, or op is nl.prelu, whose slope only
            nisa.activate2 takes.
        UnsupportedOnTarget: on trn1, bias is a number, or op is nl.reciprocal with a bias; GpSimd before trn3.

    Source: nki.isa.activation; nki.api.shared, activation functions; trainium_inferentia2_arch, pipelined
    reduction.
    """


@activation.normalize
def _activation_normalize(arguments: dict[str, object], target: Target) -> None:
    _normalize(arguments, "nisa.activation")
    rules.choose_engine(arguments, Engine.scalar)


@activation.check
def _activation_check(call: Signature) -> None:
    _check(call)
    accumulation.require_command(call, *_COMMANDS)
    _check_engine(call)


@activation.reference
def _activation_reference(
    call: Signature, registers: np.ndarray | None = None, **arguments: np.ndarray,
) -> tuple[np.ndarray, ...]:
    return accumulation.reference(
        call, call.reduce_cmd, call.reduce_op, _activated(call, **arguments), registers
    )


@activation.cost
def _activation_cost(call: Signature) -> Cost:
    return _cost_on_engine(call)


@activation.lower
def _activation_lower(call: Signature, kernel: MicroKernel) -> None:
    _lower(call, kernel, call.reduce_cmd)


# --- activation_reduce --------------------------------------------------------------------------------------


@instruction(
    writes=("dst", "reduce_res"), registers=lambda arguments: "scalar",
    access="p f: dst[p f] data[p f] reduce_res[p] bias[p] scale[p] registers[p]",
    indirect=("dst", "data"),
)
def activation_reduce(
    dst: NkiTensor,
    op: Op,
    data: NkiTensor,
    reduce_op: Op,
    reduce_res: NkiTensor | None,
    bias: float | NkiTensor | None = None,
    scale: float | NkiTensor = 1.0,
    name: str | None = None,
) -> None:
    """dst = op(data * scale + bias), and reduce_res = the sum of the results of each partition.

    The same as nisa.activation with ``reduce_cmd=nisa.reduce_cmd.reset_reduce``, which describes the operands
    and the errors raised.

    Args:
        dst, op, data, bias, scale: as for nisa.activation.
        reduce_op: nl.add.
        reduce_res: float tile of shape (P, 1), or None to leave the sum in the engine's registers.

    Source: nki.isa.activation_reduce.
    """


@activation_reduce.normalize
def _activation_reduce_normalize(arguments: dict[str, object], target: Target) -> None:
    _normalize(arguments, "nisa.activation_reduce")


@activation_reduce.check
def _activation_reduce_check(call: Signature) -> None:
    _check(call)


@activation_reduce.reference
def _activation_reduce_reference(
    call: Signature, registers: np.ndarray, **arguments: np.ndarray
) -> tuple[np.ndarray, ...]:
    values = _activated(call, **arguments)
    return accumulation.reference(call, reduce_cmd.reset_reduce, call.reduce_op, values, registers)


@activation_reduce.cost
def _activation_reduce_cost(call: Signature) -> Cost:
    return _cost(call)


@activation_reduce.lower
def _activation_reduce_lower(call: Signature, kernel: MicroKernel) -> None:
    _lower(call, kernel, reduce_cmd.reset_reduce)


# --- what the two share -------------------------------------------------------------------------------------


def _normalize(arguments: dict[str, object], name: str) -> None:
    arguments["op"] = activation_functions.lookup(arguments["op"], name)
    arguments["reduce_op"] = alu.lookup(
        _ADD if arguments["reduce_op"] is None else arguments["reduce_op"], name, (_ADD,)
    )


def _check(call: Signature) -> None:
    instruction = rules.instruction_name(call)
    if call.op.takes_slope:
        raise InvalidOperand(
            instruction=instruction,
            operand="op",
            found=call.op,
            expected="nisa.activate2, which has its relu_param",
        )
    rules.require_on_chip(call)
    rules.require_same_elements(call, "dst", "data")
    for tile in ("dst", "data"):
        rules.require_dtype(call, tile, rules.UNPACKED)
    rules.require_vector(call, "scale", "data", (dtypes.float32,))
    rules.require_vector(call, "bias", "data", _BIAS)
    accumulation.require_result(call, "data")
    if call.is_immediate("bias"):
        rules.require_capability(call, lambda t: t.activation_scalar_bias, f"{instruction} with a number as bias")
    if call.bias is not None and call.op.name == "reciprocal":
        feature = f"{instruction} of nl.reciprocal with a bias"
        rules.require_capability(call, lambda t: t.activation_reciprocal_bias, feature)


def _check_engine(call: Signature) -> None:
    """Check the engine of an activation: the registers are the Scalar Engine's."""
    rules.require_engine(call, Engine.scalar, Engine.gpsimd)
    if call.engine is Engine.gpsimd:
        feature = f"{rules.instruction_name(call)} on the GpSimd Engine"
        rules.require_capability(call, lambda t: t.gpsimd_activation, feature)
        rules.require_no_gpsimd_psum(call)
        accumulation.require_command(call, reduce_cmd.idle)
        accumulation.require_defined(call)


def _activated(call: Signature, data: np.ndarray, bias: object, scale: object, **_: object) -> np.ndarray:
    with np.errstate(all="ignore"):
        x = dtypes.single(data).reshape(data.shape[0], -1) * _column(scale)
        if bias is not None:
            x += _column(bias)
        result: np.ndarray = call.op.numpy(x)
        return result


def _rows(tile: np.ndarray) -> np.ndarray:
    """[P, elements] in float32."""
    return tile.reshape(tile.shape[0], -1).astype(np.float32)


def _column(operand: object) -> np.ndarray | np.float32:
    """A number or a vector operand as float32 that broadcasts along rows."""
    if isinstance(operand, float):
        number: np.float32 = np.float32(operand)
        return number
    vector: np.ndarray = np.asarray(operand).astype(np.float32).reshape(-1, 1)
    return vector


def _cost(call: Signature) -> Cost:
    operands = (rules.cost_operand(call.data), rules.cost_operand(call.dst))
    return costs.scalar_stream(
        call.target, call.dst.free_size, operands, reads_accumulator=call.reduce_res is not None
    )


def _cost_on_engine(call: Signature) -> Cost:
    if call.engine is Engine.scalar:
        return _cost(call)
    operands = (rules.cost_operand(call.data), rules.cost_operand(call.dst))
    return costs.gpsimd_stream(call.target, call.dst.free_size, operands, cycles_per_element=_GPSIMD_CYCLES)


def _lower(call: Signature, kernel: MicroKernel, command: reduce_cmd) -> None:
    def activate(e: Emitter, x: Value, scale: Value, bias: Value | None = None) -> Value:
        x = e.mul(x, scale)
        op: ActivationFunction = call.op
        return op.emit(e, x if bias is None else e.add(x, bias))

    inputs = ("data", "scale") if call.bias is None else ("data", "scale", "bias")
    accumulation.lower(kernel, command, call.reduce_op, inputs, activate)


# --- activate2 ----------------------------------------------------------------------------------------------

_REDUCTIONS2 = tuple(alu.TABLE[name] for name in ("add", "maximum", "minimum", "abs_max", "abs_min"))
_STAGES = {
    tuple(alu.TABLE[name] for name in pair)
    for pair in (
        ("multiply", "add"), ("multiply", "subtract"), ("multiply", "bypass"), ("add", "bypass"),
        ("subtract", "bypass"), ("bypass", "bypass"),
    )
}
_STAGE_OPERATORS = tuple(alu.TABLE[name] for name in ("multiply", "add", "subtract", "bypass"))


@instruction(
    writes=("dst", "reduce_res"), registers=accumulation.uses("scalar"),
    access="p f: dst[p f] data[p f] imm0[p] imm1[p] relu_param[p] reduce_res[p] registers[p]",
    indirect=("dst", "data"),
)
def activate2(
    dst: NkiTensor,
    op: Op,
    data: NkiTensor,
    imm0: float | NkiTensor,
    imm1: float | NkiTensor,
    op0: Op,
    op1: Op,
    relu_param: float | NkiTensor = 0.0,
    reverse0: bool = False,
    reverse1: bool = False,
    reduce_op: Op | None = None,
    reduce_res: NkiTensor | None = None,
    reduce_cmd: reduce_cmd = _idle,
    engine: Engine = _scalar_engine,
    name: str | None = None,
) -> None:
    """dst = op((data op0 imm0) op1 imm1) on the Scalar Engine, optionally reduced along each partition.

    nisa.activation with free choice of the operators before the function and of the reduction; float32
    throughout, and the reduction sees the results before they are rounded to dst's dtype. reduce_cmd acts on
    the engine's registers as described there, `reset` setting them to the identity of reduce_op.

    Args:
        dst: SBUF or PSUM tile of P partitions, any unpacked dtype.
        op: an activation function.
        data: tile with the partitions and elements per partition of dst, any unpacked dtype.
        imm0, imm1: numbers or tiles of shape (P, 1); two tiles have one dtype. Not used by nl.bypass.
        op0, op1: (multiply, add), (multiply, subtract), or one of multiply, add, subtract and bypass with
            bypass.
        relu_param: slope of nl.prelu for negative numbers: a number or a tile of shape (P, 1).
        reverse0, reverse1: exchange the operands of op0 or op1: ``imm0 op0 data``, ``imm1 op1 result``.
        reduce_op: nl.add (also for None), maximum, minimum, abs_max or abs_min (the largest or smallest magnitude).
        reduce_res: float tile of shape (P, 1) that receives the registers, or None to leave the result in
            them.
        reduce_cmd: nisa.reduce_cmd.idle, reset, reduce or reset_reduce.
        engine: as for nisa.activation.

    Raises:
        UnsupportedOnTarget: the target is older than trn3.
        UnsupportedEngine: another engine.
        WrongMemory, PartitionLimitExceeded, ShapeMismatch, UnsupportedDtype: see the operands.
        DtypeMismatch: imm0 and imm1 are tiles of different dtypes.
        UnknownOperator: op, op0, op1 or reduce_op is none of those.
        InvalidOperand: another pair (op0, op1), a reversed nl.bypass, or reduce_cmd.load_reduce.

    Source: nki.isa.activate2.
    """


@activate2.normalize
def _activate2_normalize(arguments: dict[str, object], target: Target) -> None:
    name = "nisa.activate2"
    arguments["op"] = activation_functions.lookup(arguments["op"], name)
    reduction = arguments["reduce_op"]
    arguments["reduce_op"] = alu.lookup(_ADD if reduction is None else reduction, name, _REDUCTIONS2)
    for operator in ("op0", "op1"):
        given = arguments[operator]
        arguments[operator] = alu.lookup(_BYPASS if given is None else given, name, _STAGE_OPERATORS)
    for flag in ("reverse0", "reverse1"):
        arguments[flag] = bool(arguments[flag])
    rules.choose_engine(arguments, Engine.scalar)


@activate2.check
def _activate2_check(call: Signature) -> None:
    rules.require_on_chip(call)
    rules.require_same_elements(call, "dst", "data")
    for tile in ("dst", "data"):
        rules.require_dtype(call, tile, rules.UNPACKED)
    for vector in ("imm0", "imm1", "relu_param"):
        rules.require_vector(call, vector, "data", rules.UNPACKED)
    accumulation.require_command(call, *_COMMANDS)
    accumulation.require_result(call, "data")
    _check_engine(call)
    if call.is_tensor("imm0") and call.is_tensor("imm1") and call.imm0.dtype != call.imm1.dtype:
        raise DtypeMismatch(
            instruction="nisa.activate2", detail=f"imm0 is {call.imm0.dtype} and imm1 {call.imm1.dtype}",
            hint="convert one of them with nisa.tensor_copy.",
        )
    if (call.op0, call.op1) not in _STAGES:
        pairs = sorted(f"({first}, {second})" for first, second in _STAGES)
        raise InvalidOperand(
            instruction="nisa.activate2", operand="(op0, op1)", found=f"({call.op0}, {call.op1})",
            expected="one of " + ", ".join(pairs),
        )
    for op, flag in (("op0", "reverse0"), ("op1", "reverse1")):
        if call.arguments[flag] and call.arguments[op] is _BYPASS:
            raise InvalidOperand(
                instruction="nisa.activate2", operand=flag, found=f"True beside {op}=bypass", expected="False"
            )


@activate2.reference
def _activate2_reference(
    call: Signature,
    data: np.ndarray,
    imm0: object,
    imm1: object,
    relu_param: object,
    registers: np.ndarray | None = None,
    **_: object,
) -> tuple[np.ndarray, ...]:
    with np.errstate(all="ignore"):
        x = _rows(data)
        for op, operand, reverse in ((call.op0, imm0, call.reverse0), (call.op1, imm1, call.reverse1)):
            x = op.numpy(_column(operand), x) if reverse else op.numpy(x, _column(operand))
        values = call.op.numpy(x, _column(relu_param))
    return accumulation.reference(call, call.reduce_cmd, alu.reduction(call.reduce_op), values, registers)


@activate2.cost
def _activate2_cost(call: Signature) -> Cost:
    return _cost_on_engine(call)


@activate2.lower
def _activate2_lower(call: Signature, kernel: MicroKernel) -> None:
    def stage(e: Emitter, op: AluOp, x: Value, operand: Value, reverse: bool) -> Value:
        return op.emit(e, operand, x) if reverse else op.emit(e, x, operand)

    def activate(e: Emitter, x: Value, imm0: Value, imm1: Value, slope: Value) -> Value:
        x = stage(e, call.op0, x, imm0, call.reverse0)
        x = stage(e, call.op1, x, imm1, call.reverse1)
        op: ActivationFunction = call.op
        return op.emit(e, x, slope)

    accumulation.lower(
        kernel, call.reduce_cmd, alu.reduction(call.reduce_op), ("data", "imm0", "imm1", "relu_param"), activate
    )


# --- exponential --------------------------------------------------------------------------------------------

_EXPONENTIAL_SRC = (
    dtypes.float8_e4m3,
    dtypes.float8_e5m2,
    dtypes.float16,
    dtypes.bfloat16,
    dtypes.float32,
    dtypes.int8,
    dtypes.int16,
    dtypes.int32,
    dtypes.uint8,
    dtypes.uint16,
    dtypes.uint32,
)
_EXPONENTIAL_DIMENSIONS = 4
_EXPONENTIAL_SUM = (
    dtypes.float8_e4m3, dtypes.float8_e5m2, dtypes.float16, dtypes.bfloat16, dtypes.float32, dtypes.tfloat32,
)  # fmt: skip
_EXPONENTIAL_DST = (*(d for d in _EXPONENTIAL_SRC if d is not dtypes.uint32), dtypes.tfloat32)


@instruction(
    writes=("dst", "reduce_res"), registers=accumulation.uses("vector"),
    access="p f: dst[p f] src[p f] max_value[p] reduce_res[p] reduce_init[p] registers[p]",
    indirect=("dst", "src"),
)
def exponential(
    dst: NkiTensor,
    src: NkiTensor,
    max_value: float | NkiTensor = 0.0,
    reduce_res: NkiTensor | None = None,
    reduce_cmd: reduce_cmd = _idle,
    reduce_init: float | NkiTensor = 0.0,
    name: str | None = None,
) -> None:
    """dst = exp(src - max_value) on the Vector Engine, optionally summing the results of each partition.

    Computes in float32. The sum adds the results before they are rounded to dst's dtype, in the accumulation
    registers that all accumulating Vector Engine instructions share.

    Args:
        dst: SBUF or PSUM tile of P partitions; float8_e4m3, float8_e5m2, float16, bfloat16, float32,
            tfloat32, int8, int16, int32, uint8 or uint16.
        src: tile with the partitions and elements per partition of dst; the same dtypes, uint32 instead of
            tfloat32.
        max_value: a number or a float32 tile of shape (P, 1).
        reduce_res: float tile of shape (P, 1) that receives the registers, or None to leave the sum in them.
        reduce_cmd: nisa.reduce_cmd.idle, reset_reduce (start from 0), reduce (continue) or load_reduce (start
            from reduce_init).
        reduce_init: a number or a float32 tile of shape (P, 1), for load_reduce; 0 without.

    Raises:
        UnsupportedOnTarget: the target is older than trn3.
        WrongMemory, PartitionLimitExceeded, ShapeMismatch, UnsupportedDtype: see the operands.
        InvalidOperand: reduce_cmd.reset, idle with a reduce_res, or a reduce_init without load_reduce.

    Source: nki.isa.exponential.
    """


@exponential.check
def _exponential_check(call: Signature) -> None:
    rules.require_on_chip(call)
    rules.require_same_elements(call, "dst", "src")
    for tile in ("dst", "src"):
        rules.require_dimensions(call, tile, _EXPONENTIAL_DIMENSIONS)
    rules.require_dtype(call, "dst", _EXPONENTIAL_DST)
    rules.require_dtype(call, "src", _EXPONENTIAL_SRC)
    rules.require_vector(call, "max_value", "src", (dtypes.float32,))
    accumulation.require_initial(call, "reduce_init", "src")
    accumulation.require_command(
        call, reduce_cmd.idle, reduce_cmd.reduce, reduce_cmd.reset_reduce, reduce_cmd.load_reduce
    )
    accumulation.require_result(call, "src")
    accumulation.require_defined(call)
    rules.require_dtype(call, "reduce_res", _EXPONENTIAL_SUM)
    if call.is_tensor("reduce_init"):
        _check_exponential_start(call, "a tile")


@exponential.check_immediates
def _exponential_check_immediates(call: Signature, reduce_init: float = 0, **_: float) -> None:
    if reduce_init != 0:
        _check_exponential_start(call, str(reduce_init))


def _check_exponential_start(call: Signature, found: str) -> None:
    if call.reduce_cmd is not reduce_cmd.load_reduce:
        raise InvalidOperand(
            instruction="nisa.exponential", operand="reduce_init", found=f"{found} beside {call.reduce_cmd}",
            expected="0.0 unless reduce_cmd is nisa.reduce_cmd.load_reduce",
        )


@exponential.reference
def _exponential_reference(
    call: Signature,
    src: np.ndarray,
    max_value: object,
    reduce_init: object,
    registers: np.ndarray | None = None,
    **_: object,
) -> tuple[np.ndarray, ...]:
    with np.errstate(all="ignore"):
        values = _EXP.numpy(_rows(src) - _column(max_value))
    return accumulation.reference(call, call.reduce_cmd, _ADD, values, registers, reduce_init)


@exponential.cost
def _exponential_cost(call: Signature) -> Cost:
    operands = (rules.cost_operand(call.src), rules.cost_operand(call.dst))
    return costs.vector_stream(
        call.target, call.dst.free_size, operands, cycles_per_element=costs.EXPONENTIAL_CYCLES,
        reads_accumulator=call.reduce_res is not None,
    )


@exponential.lower
def _exponential_lower(call: Signature, kernel: MicroKernel) -> None:
    def exponentiate(e: Emitter, x: Value, largest: Value) -> Value:
        return _EXP.emit(e, e.sub(x, largest))

    accumulation.lower(kernel, call.reduce_cmd, _ADD, ("src", "max_value"), exponentiate, init="reduce_init")
