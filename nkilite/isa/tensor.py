"""Instructions of the Tensor Engine: matrix multiplication and transposition."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from math import prod

import numpy as np

from nkilite import dtypes
from nkilite.codegen import contraction, move, transpose
from nkilite.codegen.kernel import MicroKernel
from nkilite.dtypes import Elements
from nkilite.errors import (
    DtypeMismatch,
    FreeSizeExceeded,
    InvalidOperand,
    PartitionLimitExceeded,
    ShapeMismatch,
)
from nkilite.ir.program import Signature
from nkilite.ir.types import ViewType
from nkilite.isa import processing_array, rules
from nkilite.isa.constants import engine, matmul_perf_mode
from nkilite.machine import engine as costs
from nkilite.machine.engine import Cost, Engine
from nkilite.machine.target import Target
from nkilite.trace.instruction import instruction
from nkilite.trace.tensor import NkiTensor

_any_engine, _no_perf_mode = engine.unknown, matmul_perf_mode.none
_SINGLE = frozenset({"float32", "tfloat32"})
_INDIRECT = frozenset({"float16", "bfloat16", "float8_e4m3", "float8_e5m2", "float8_e4m3fn"})


@instruction(
    writes=("dst",), updates=lambda a: ("dst",) if a["accumulate"] is not False else (),
    indirect=("dst", "stationary", "moving"),
)
def nc_matmul(
    dst: NkiTensor,
    stationary: NkiTensor,
    moving: NkiTensor,
    is_stationary_onezero: bool = False,
    is_moving_onezero: bool = False,
    is_transpose: bool = False,
    accumulate: bool | None = None,
    tile_position: Sequence[int] | None = (),
    tile_size: Sequence[int] | None = (),
    perf_mode: matmul_perf_mode = _no_perf_mode,
    name: str | None = None,
) -> None:
    """dst (+)= stationary.T @ moving on the Tensor Engine, in float32, over the partitions of both operands.

    Free dimensions are flattened: with K partitions, M elements per partition of `stationary` and N of
    `moving`, dst has M partitions of N elements.

    Args:
        dst: PSUM tile, [M, N]; float32, on trn3 also bfloat16. With `is_transpose` on trn2 and later it may
            also have the dtype of `stationary`.
        stationary: SBUF tile, [K, M]; K and M at most 128.
        moving: SBUF tile, [K, N]; N at most 512, on trn3 4096 (float32 dst) or 8192 (16-bit dst).
        is_stationary_onezero: `stationary` holds ones and zeros only: halves the cost of a float32 matmul.
        is_moving_onezero: the same for `moving`.
        is_transpose: `moving` selects columns, normally all of them as an identity matrix: bits of
            `stationary` move to dst unchanged, NaN and infinities included, and dst is always overwritten.
            Each column of `moving` must hold one nonzero element. On trn1 the flag is only a label: the
            product is computed.
        accumulate: True adds to dst; False overwrites it; None (default) overwrites where no earlier
            instruction wrote this PSUM tile and adds elsewhere.
        tile_position: (row, column) of the first processing element used; together with `tile_size`.
        tile_size: (rows, columns) of that array: 128, 64, and on trn2 and later 32. Limits K and M.
        perf_mode: `matmul_perf_mode.double_row` (trn2 and later): float8 operands of shapes [K, 2, M] and
            [K, 2, N]; the sum runs over both K and 2.

    Operands are float8_e4m3, float8_e5m2, float8_e3m4, float8_e4m3fn (trn3), bfloat16, float16, tfloat32
    or float32. They may differ, except that float32 and tfloat32 only go together, and float8_e4m3
    does not go with float8_e4m3fn.

    Raises:
        WrongMemory: an operand is not in SBUF, or dst not in PSUM.
        UnsupportedDtype, DtypeMismatch: see above.
        ShapeMismatch: M, N or K disagree.
        PartitionLimitExceeded, FreeSizeExceeded, PsumBankExceeded: K, M or N is too large.
        InvalidOperand: an impossible tile_position, tile_size, perf_mode or accumulate.
        UnsupportedOnTarget: double_row on trn1.

    Source: nki.isa.nc_matmul; arch guides of NeuronCore-v2 to v4, "Tensor Engine".
    """


@nc_matmul.normalize
def _nc_matmul_normalize(arguments: dict[str, object], target: Target) -> None:
    for flag in ("is_stationary_onezero", "is_moving_onezero", "is_transpose"):
        arguments[flag] = bool(arguments[flag])
    if arguments["accumulate"] is not None:
        arguments["accumulate"] = bool(arguments["accumulate"])
    elif arguments["is_transpose"] and target.tensor_transpose_mode:
        arguments["accumulate"] = False
    mode = arguments["perf_mode"]
    if isinstance(mode, str) and mode in matmul_perf_mode.__members__:
        arguments["perf_mode"] = matmul_perf_mode[mode]
    elif mode is None:
        arguments["perf_mode"] = matmul_perf_mode.none
    processing_array.normalize_tile(arguments)


def _double_row(call: Signature) -> bool:
    return call.perf_mode is matmul_perf_mode.double_row


def _moves_bits(call: Signature) -> bool:
    """Whether the call runs in transpose mode."""
    return call.is_transpose and call.target.tensor_transpose_mode


@nc_matmul.check
def _nc_matmul_check(call: Signature) -> None:
    rules.require_memory(call, "dst", rules.PSUM)
    rules.require_memory(call, "stationary", rules.SBUF)
    rules.require_memory(call, "moving", rules.SBUF)
    _check_mode(call)
    _check_matmul_dtypes(call)
    processing_array.require_sizes(
        call, _free_size(call, "stationary"), _free_size(call, "moving"),
        all_columns="with perf_mode=double_row" if _double_row(call) else "",
    )


def _free_size(call: Signature, operand: str) -> int:
    """Columns of an operand: elements per partition, of which double-row mode consumes pairs."""
    return prod(call.arguments[operand].shape[2 if _double_row(call) else 1:])


def _check_mode(call: Signature) -> None:
    """perf_mode, is_transpose and accumulate fit together and the target."""
    if not isinstance(call.perf_mode, matmul_perf_mode):
        raise InvalidOperand(
            instruction="nisa.nc_matmul", operand="perf_mode", found=repr(call.perf_mode),
            expected="nisa.matmul_perf_mode.none or nisa.matmul_perf_mode.double_row",
        )
    if _moves_bits(call) and call.accumulate is True:
        raise InvalidOperand(
            instruction="nisa.nc_matmul", operand="accumulate", found="True",
            expected="False or None with is_transpose=True, which overwrites dst",
        )
    if not _double_row(call):
        return
    rules.require_capability(call, lambda t: t.double_row_dtypes, "nisa.nc_matmul(perf_mode=double_row)")
    if call.is_transpose:
        raise InvalidOperand(
            instruction="nisa.nc_matmul", operand="is_transpose", found="True",
            expected="False with perf_mode=double_row",
        )
    for operand in ("stationary", "moving"):
        shape = call.arguments[operand].shape
        if len(shape) < 3 or shape[1] != 2:
            raise ShapeMismatch(
                instruction="nisa.nc_matmul",
                detail=f"{operand} has shape {shape}; perf_mode=double_row takes [partitions, 2, columns]",
            )


def _check_matmul_dtypes(call: Signature) -> None:
    allowed = call.target.double_row_dtypes if _double_row(call) else call.target.matmul_dtypes
    rules.require_dtype(call, "stationary", allowed)
    rules.require_dtype(call, "moving", allowed)
    stationary, moving = str(call.stationary.dtype.base), str(call.moving.dtype.base)
    if (stationary in _SINGLE) != (moving in _SINGLE):
        raise DtypeMismatch(
            instruction="nisa.nc_matmul",
            detail=f"stationary is {stationary} and moving {moving}: float32 and tfloat32 only go together",
            hint="convert one operand with nisa.tensor_copy.",
        )
    if {stationary, moving} == {"float8_e4m3", "float8_e4m3fn"}:
        raise DtypeMismatch(
            instruction="nisa.nc_matmul",
            detail=f"stationary is {stationary} and moving {moving}: the e4m3 formats cannot be mixed",
            hint="store both operands in the same format.",
        )
    results = call.target.matmul_dst_dtypes
    rules.require_dtype(call, "dst", results | {stationary} if _moves_bits(call) else results)
    if _moves_bits(call) and call.dst.dtype != "float32" and call.dst.dtype != call.stationary.dtype:
        raise DtypeMismatch(
            instruction="nisa.nc_matmul",
            detail=f"is_transpose moves bits, and dst is {call.dst.dtype} while stationary is {stationary}",
            hint=f"allocate dst with dtype {stationary}.",
        )


@nc_matmul.indirection
def _nc_matmul_indirection(call: Signature, indices: Mapping[str, Hashable]) -> None:
    if call.is_transpose and "moving" in indices:
        raise InvalidOperand(
            instruction="nisa.nc_matmul", operand="is_transpose", found="True",
            expected="False where moving is NkiTensor.indirect",
        )
    for operand in {"stationary", "moving"} & indices.keys():
        rules.require_dtype(call, operand, _INDIRECT)
    processing_array.require_whole(call)


@nc_matmul.reference
def _nc_matmul_reference(
    call: Signature, dst: np.ndarray, stationary: np.ndarray, moving: np.ndarray, accumulate: bool, **_: object
) -> np.ndarray | Elements:
    if _moves_bits(call):
        selected = _selected(_as_matrix(stationary), _as_matrix(moving))
        return Elements(selected.reshape(dst.shape), call.stationary.dtype)
    paired = _double_row(call)
    rows, columns = _contraction_first(stationary, paired), _contraction_first(moving, paired)
    with np.errstate(over="ignore", invalid="ignore"):
        result: np.ndarray = (rows.T @ columns).reshape(dst.shape)
        if accumulate:
            np.add(dst, result, out=result, dtype=np.float32, casting="unsafe")
        return result


def _as_matrix(tile: np.ndarray) -> np.ndarray:
    return tile.reshape(tile.shape[0], -1)


def _contraction_first(tile: np.ndarray, paired: bool) -> np.ndarray:
    """float32 [contraction, columns]."""
    single = dtypes.single(tile)
    if paired:
        single = np.swapaxes(single, 0, 1).reshape(2 * tile.shape[0], -1)
    return _as_matrix(single)


def _selected(stationary: np.ndarray, selector: np.ndarray) -> np.ndarray:
    """out[m, n] = stationary[k, m] for the last k in which selector[k, n] is not zero."""
    chosen = selector.astype(np.float32) != 0
    last = chosen.shape[0] - 1 - np.argmax(chosen[::-1], axis=0)
    rows = np.where(chosen.any(axis=0)[:, None], stationary[last], np.zeros((), stationary.dtype))
    result: np.ndarray = rows.T
    return result


@nc_matmul.access
def _nc_matmul_access(call: Signature) -> str:
    k = "k pair" if _double_row(call) else "k"
    return f"m n: dst[m n] stationary[{k} m] moving[{k} n]"


@nc_matmul.cost
def _nc_matmul_cost(call: Signature) -> Cost:
    single = str(call.stationary.dtype) == "float32" or str(call.moving.dtype) == "float32"
    m, n = _free_size(call, "stationary"), _free_size(call, "moving")
    if _moves_bits(call):
        return costs.tensor_transpose(call.target, n, m, float32=single)
    onezero = call.is_stationary_onezero or call.is_moving_onezero
    return costs.matmul(call.target, m, n, float32=single, onezero=onezero)


@nc_matmul.panels
def _nc_matmul_panels(call: Signature) -> tuple[str, ...]:
    return () if _moves_bits(call) or _double_row(call) else ("stationary", "moving")


@nc_matmul.lower
def _nc_matmul_lower(call: Signature, kernel: MicroKernel) -> None:
    if _moves_bits(call):
        transpose.select_columns(kernel, "dst", "stationary", "moving")
        return
    contraction.matmul(kernel, "dst", "stationary", "moving", bool(call.accumulate), paired=_double_row(call))


@instruction(writes=("dst",), access="p f: dst[f p] = data[p f]")
def nc_transpose(dst: NkiTensor, data: NkiTensor, engine: Engine = _any_engine, name: str | None = None) -> None:
    """Transpose `data` between the partition and the free dimension, bit by bit; dst is always overwritten.

    Args:
        dst: tile of the dtype of `data` with one partition per element of a partition of `data`, and one
            element per partition of `data`. PSUM for the Tensor Engine; SBUF or PSUM for the Vector Engine. On
            trn1 the Tensor Engine also transposes narrower floats into float32.
        data: tile of any dtype; several free dimensions count as one. At most [128, 128] in SBUF for the
            Tensor Engine; at most [32, 32] in SBUF or PSUM for the Vector Engine.
        engine: `nisa.engine.tensor` or `nisa.engine.vector`; by default the Vector Engine where it can, which
            is up to [32, 32], and the Tensor Engine for larger tiles.

    On trn1 the Tensor Engine multiplies by an identity matrix, and a NaN or infinity spoils its row; here
    transposes are exact on every target. From trn2 on it moves bits, and the vendor's compiler refuses another dtype
    of dst, as kernels that were brought from trn1 to trn2 say.

    Raises:
        WrongMemory: a memory the engine cannot reach.
        ShapeMismatch: dst does not have the transposed shape.
        DtypeMismatch: the dtypes differ.
        PartitionLimitExceeded, FreeSizeExceeded: the tile is too large for the engine.
        UnsupportedEngine: another engine.

    Source: nki.isa.nc_transpose.
    """


@nc_transpose.normalize
def _nc_transpose_normalize(arguments: dict[str, object], target: Target) -> None:
    if arguments["engine"] in (None, Engine.unknown):
        data = arguments["data"]
        limit = target.vector_transpose_max
        small = isinstance(data, ViewType) and data.partitions <= limit and data.free_size <= limit
        arguments["engine"] = Engine.vector if small else Engine.tensor


@nc_transpose.check
def _nc_transpose_check(call: Signature) -> None:
    rules.require_engine(call, Engine.tensor, Engine.vector)
    if call.engine is Engine.tensor:
        rules.require_memory(call, "data", rules.SBUF)
        rules.require_memory(call, "dst", rules.PSUM)
        limit = call.target.pe_rows
    else:
        rules.require_on_chip(call)
        limit = call.target.vector_transpose_max
    where = f"nisa.nc_transpose on the {call.engine.name} engine"
    if call.data.partitions > limit:
        raise PartitionLimitExceeded(what=f"{where}: data", found=call.data.partitions, limit=limit)
    if call.data.free_size > limit:
        raise FreeSizeExceeded(
            instruction=where, operand="data", found=call.data.free_size, limit=limit, target=call.target.name
        )
    if (call.dst.partitions, call.dst.free_size) != (call.data.free_size, call.data.partitions):
        raise ShapeMismatch(
            instruction="nisa.nc_transpose",
            detail=f"dst has shape {call.dst.shape}; the transpose of data {call.data.shape} has "
            f"{call.data.free_size} partitions of {call.data.partitions} elements",
        )
    if call.dst.dtype != call.data.dtype and not _multiplies_into_float32(call):
        raise DtypeMismatch(
            instruction="nisa.nc_transpose",
            detail=f"dst is {call.dst.dtype} and data {call.data.dtype}: a transpose moves bits",
            hint=f"allocate dst with dtype {call.data.dtype}; results of another dtype take a nisa.tensor_copy.",
        )


def _multiplies_into_float32(call: Signature) -> bool:
    """Whether the transpose is a matmul by an identity whose float32 sums dst keeps."""
    multiplies = call.engine is Engine.tensor and not call.target.tensor_transpose_mode
    return multiplies and call.data.dtype.is_float and str(call.dst.dtype) == "float32"


@nc_transpose.reference
def _nc_transpose_reference(call: Signature, dst: np.ndarray, data: np.ndarray, **_: object) -> Elements:
    return Elements(_as_matrix(data).T.reshape(dst.shape), call.data.dtype)


@nc_transpose.cost
def _nc_transpose_cost(call: Signature) -> Cost:
    if call.engine is Engine.tensor:
        single = call.data.dtype.itemsize == 4
        return costs.tensor_transpose(call.target, call.data.partitions, call.data.free_size, float32=single)
    operands = (rules.cost_operand(call.data), rules.cost_operand(call.dst))
    return costs.vector_stream(call.target, call.data.free_size, operands)


@nc_transpose.lower
def _nc_transpose_lower(call: Signature, kernel: MicroKernel) -> None:
    move.move(kernel, "dst", "data", (*range(1, call.data.ndim), 0))
