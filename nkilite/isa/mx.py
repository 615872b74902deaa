"""Microscaling (MX) formats: quantization on the Vector Engine, matrix multiplication on the Tensor Engine.

A word of a packed dtype holds four elements. 8 partitions of a word, 32 elements, are a group with one scale, a power
of two (OCP Microscaling Formats, version 1.0). The scales of 32 partitions, a quadrant of SBUF, lie in four partitions:
row 32 q + r of a scale tile belongs to partitions 32 q + 8 r to 32 q + 8 r + 7 of its data tile, for r < 4; its other
rows are not used, and may hold those of other data, when a scale tile is a slice that begins 4, 8 or 12 rows later.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence

import numpy as np

from nkilite import dtypes
from nkilite.codegen import mx
from nkilite.codegen.kernel import MicroKernel
from nkilite.errors import ShapeMismatch, UnsupportedError
from nkilite.ir.program import Signature
from nkilite.ir.rules import ArgumentsByName
from nkilite.isa import processing_array, rules
from nkilite.machine import engine as costs
from nkilite.machine.engine import Cost
from nkilite.machine.target import Target
from nkilite.trace.instruction import instruction
from nkilite.trace.tensor import NkiTensor

_SOURCES = (dtypes.float16, dtypes.bfloat16)
_QUANTIZED = (dtypes.float8_e4m3fn_x4, dtypes.float8_e5m2_x4)
_SCALES = (dtypes.float8_e8m0fnu, dtypes.uint8)
_SCALES_OF_A_QUADRANT = 4  # data tiles whose scales can share a scale tile


def _keeps_rows(arguments: ArgumentsByName) -> tuple[str, ...]:
    """A scale tile with more rows than one quadrant has scales is written in part."""
    return ("dst_scale",) if arguments["dst_scale"].partitions > mx.GROUPS else ()


@instruction(
    writes=("dst", "dst_scale"), updates=_keeps_rows, zeroed=("dst_scale",),
    access="n: dst[p n] src[p (n 4)] dst_scale[s n]",
)
def quantize_mx(dst: NkiTensor, src: NkiTensor, dst_scale: NkiTensor, name: str | None = None) -> None:
    """Quantize `src` to MX elements and scales, as nc_matmul_mx takes them, on the Vector Engine (trn3).

    The scale of a group is 2 ** (floor(log2(largest magnitude)) - (e - 1)), where e is the exponent of the largest
    element, 8 for float8_e4m3fn and 15 for float8_e5m2: twice the one of the sample algorithm of the OCP
    specification, so that rounding up never saturates. (NKI since 0.5; quantize_mx_spare_exponent = 0 in a target
    gives the scale of the sample, which the goldens of nki-library 2.29 have.) It is at least 2 ** -127, which is also
    that of a group of zeros. Elements are src divided by it, rounded to nearest even.

    The public pages do not speak of infinities and NaN in `src`. Here both make the group's scale the one of exponent
    128; an infinity becomes the largest finite element of its sign, and a NaN stays one.

    Args:
        dst: SBUF tile of float8_e4m3fn_x4 or float8_e5m2_x4, with the partitions of src and a quarter of its elements.
        src: SBUF tile of float16 or bfloat16; 32, 64, 96 or 128 partitions of 4 n elements. Four neighbours in
            row-major order of the free dimensions make a word.
        dst_scale: SBUF tile of float8_e8m0fnu or uint8 (the biased exponent) with n elements per partition. Of src in
            32 partitions, the scales are the first 4 rows; of more, rows 0 to 3 of every 32. The other rows stay as
            they are, and become 0 where nothing has written them, unless the tile has an `address`. (The pages do not
            say so: the references that AWS compares the chip with have 0 there.)

    Raises:
        UnsupportedOnTarget: before trn3.
        WrongMemory: an operand is not in SBUF.
        UnsupportedDtype: see above.
        ShapeMismatch: partitions or elements do not fit.
        PartitionLimitExceeded: more than 128 partitions.

    Source: nki.isa.quantize_mx; the MX deep dive, "Packing Scale Values".
    """


@quantize_mx.check
def _quantize_mx_check(call: Signature) -> None:
    rules.require_on_chip(call)
    for operand in ("dst", "src", "dst_scale"):
        rules.require_memory(call, operand, rules.SBUF)
    rules.require_dtype(call, "dst", _QUANTIZED)
    rules.require_dtype(call, "src", _SOURCES)
    _require_quadrants(call, "src")
    if call.dst.partitions != call.src.partitions or 4 * call.dst.free_size != call.src.free_size:
        raise ShapeMismatch(
            instruction="nisa.quantize_mx",
            detail=f"dst has shape {call.dst.shape}; four neighbours of src {call.src.shape} make one of its elements, "
            f"so it needs {call.src.partitions} partitions of {call.src.free_size / 4:g}",
        )
    _require_scale(call, "dst_scale", "dst")


@quantize_mx.starts
def _quantize_mx_starts(call: Signature) -> dict[str, tuple[int, ...]]:
    return {"dst_scale": _scale_starts(call, "dst")}


@quantize_mx.reference
def _quantize_mx_reference(
    call: Signature, dst: np.ndarray, src: np.ndarray, dst_scale: np.ndarray, **_: object
) -> tuple[np.ndarray, ...]:
    element = dtypes.ELEMENTS[call.dst.dtype]
    largest = mx.largest(call.dst.dtype)
    groups = src.astype(np.float32).reshape(src.shape[0] // 8, 8, -1, 4)
    exponents = (np.abs(groups).view(np.uint32) >> 23).max(axis=(1, 3)).astype(np.int32)
    scales = np.maximum(exponents - mx.headroom(call.dst.dtype, call.target.quantize_mx_spare_exponent), 0)
    with np.errstate(over="ignore", invalid="ignore"):
        scaled = np.clip(np.ldexp(groups, 127 - scales[:, None, :, None]), -largest, largest)
    words = scaled.astype(element).reshape(*dst.shape, 4).view(dst.dtype)
    rows = np.array(dst_scale).reshape(dst_scale.shape[0], -1)
    rows[_scale_rows(src.shape[0])] = scales.astype(np.uint8).view(rows.dtype)
    return words.reshape(dst.shape), rows.reshape(dst_scale.shape)


@quantize_mx.cost
def _quantize_mx_cost(call: Signature) -> Cost:
    operands = (rules.cost_operand(call.src), rules.cost_operand(call.dst))
    return costs.vector_stream(
        call.target, call.src.free_size, operands, cycles_per_element=costs.QUANTIZE_MX_CYCLES
    )


@quantize_mx.lower
def _quantize_mx_lower(call: Signature, kernel: MicroKernel) -> None:
    mx.quantize(kernel, "dst", "src", "dst_scale", call.target.quantize_mx_spare_exponent)


@instruction(
    writes=("dst",), updates=lambda a: ("dst",) if a["accumulate"] is not False else (),
    partly_read=("stationary_scale", "moving_scale"),
    indirect=("dst", "stationary", "moving", "stationary_scale", "moving_scale"),
    access="m n: dst[m n] stationary[k m] moving[k n] stationary_scale[s m] moving_scale[t n]",
)
def nc_matmul_mx(
    dst: NkiTensor,
    stationary: NkiTensor,
    moving: NkiTensor,
    stationary_scale: NkiTensor,
    moving_scale: NkiTensor,
    tile_position: Sequence[int] | None = None,
    tile_size: Sequence[int] | None = None,
    accumulate: bool | None = None,
    name: str | None = None,
) -> None:
    """dst (+)= stationary.T @ moving of MX operands, over partitions and the four elements of a word (trn3).

    Elements times the scale of their group are multiplied and added in float32. Free dimensions are flattened: with K
    partitions, M words per partition of `stationary` and N of `moving`, dst has M partitions of N elements.

    As in the OCP specification, a scale of 255 is NaN and makes its group NaN.

    Args:
        dst: PSUM tile, [M, N], float32 or bfloat16.
        stationary: SBUF tile, [K, M], of float8_e4m3fn_x4, float8_e5m2_x4 or float4_e2m1fn_x4; K is 32, 64, 96 or 128,
            M even and at most 128.
        moving: SBUF tile, [K, N], of the same dtypes, in any combination; N at most 4096 (float32 dst) or 8192
            (bfloat16 dst).
        stationary_scale: SBUF tile of float8_e8m0fnu or uint8 (biased exponents) with M elements per partition: 4 rows
            for a K of 32; for more, rows 0 to 3 of every 32.
        moving_scale: the same for `moving`, N elements per partition.
        tile_position: (row, 0), the first row of processing elements used; together with `tile_size`.
        tile_size: (rows, 128) of the array: 32, 64 or 128 rows. Limits K.
        accumulate: True adds to dst; False overwrites it; None (default) overwrites where no earlier instruction
            wrote this PSUM tile and adds elsewhere.

    Raises:
        UnsupportedOnTarget: before trn3.
        WrongMemory: an operand is not in SBUF, or dst not in PSUM.
        UnsupportedDtype: see above.
        ShapeMismatch: K, M or N disagree, or are no multiples of what they have to be.
        PartitionLimitExceeded, FreeSizeExceeded: K, M or N is too large.
        InvalidOperand: an impossible tile_position or tile_size.

    Source: nki.isa.nc_matmul_mx; arch guide of NeuronCore-v4, "Quad-MXFP8/MXFP4 Matmul Performance".
    """


@nc_matmul_mx.normalize
def _nc_matmul_mx_normalize(arguments: dict[str, object], target: Target) -> None:
    processing_array.normalize_tile(arguments)
    if arguments["accumulate"] is not None:
        arguments["accumulate"] = bool(arguments["accumulate"])


@nc_matmul_mx.check
def _nc_matmul_mx_check(call: Signature) -> None:
    rules.require_on_chip(call)
    rules.require_memory(call, "dst", rules.PSUM)
    for operand in ("stationary", "moving", "stationary_scale", "moving_scale"):
        rules.require_memory(call, operand, rules.SBUF)
    rules.require_dtype(call, "dst", call.target.matmul_dst_dtypes)
    rules.require_dtype(call, "stationary", call.target.matmul_mx_dtypes)
    rules.require_dtype(call, "moving", call.target.matmul_mx_dtypes)
    processing_array.require_sizes(
        call, call.stationary.free_size, call.moving.free_size, all_columns="for MX operands"
    )
    _require_quadrants(call, "stationary")
    if call.stationary.free_size % 2:
        raise ShapeMismatch(
            instruction="nisa.nc_matmul_mx",
            detail=f"stationary {call.stationary.shape} has {call.stationary.free_size} elements per partition, which "
            "must be an even number",
        )
    for operand in ("stationary", "moving"):
        _require_scale(call, f"{operand}_scale", operand)


@nc_matmul_mx.starts
def _nc_matmul_mx_starts(call: Signature) -> dict[str, tuple[int, ...]]:
    return {f"{operand}_scale": _scale_starts(call, operand) for operand in ("stationary", "moving")}


@nc_matmul_mx.indirection
def _nc_matmul_mx_indirection(call: Signature, indices: Mapping[str, Hashable]) -> None:
    if indices.keys() != {"dst"}:
        # The page has one index for data and scales, which have other partitions, and does not say how they share it.
        raise UnsupportedError(feature="nisa.nc_matmul_mx of indirect MX operands")
    processing_array.require_whole(call)


@nc_matmul_mx.reference
def _nc_matmul_mx_reference(
    call: Signature, dst: np.ndarray, stationary: np.ndarray, moving: np.ndarray, stationary_scale: np.ndarray,
    moving_scale: np.ndarray, accumulate: bool, **_: object,
) -> np.ndarray:
    rows = _dequantized(stationary, call.stationary.dtype, stationary_scale)
    columns = _dequantized(moving, call.moving.dtype, moving_scale)
    with np.errstate(over="ignore", invalid="ignore"):
        result = (rows.T @ columns).reshape(dst.shape)
        found: np.ndarray = dst.astype(np.float32) + result if accumulate else result
        return found


@nc_matmul_mx.cost
def _nc_matmul_mx_cost(call: Signature) -> Cost:
    return costs.matmul_mx(call.target, call.stationary.free_size, call.moving.free_size)


@nc_matmul_mx.lower
def _nc_matmul_mx_lower(call: Signature, kernel: MicroKernel) -> None:
    mx.matmul(kernel, "dst", "stationary", "moving", bool(call.accumulate))


# --- what both instructions ask -----------------------------------------------------------------------------


def _scale_rows(partitions: int) -> np.ndarray:
    """The row of a scale tile for each group of 8 partitions."""
    group = np.arange(partitions // mx.SHARED)
    return group // mx.GROUPS * mx.QUADRANT + group % mx.GROUPS


def _scale_starts(call: Signature, data: str) -> tuple[int, ...]:
    """Where a scale tile may start: each quadrant has room for the scales of four data tiles."""
    starts = call.target.start_partitions(call.arguments[data].partitions)
    return tuple(start + mx.GROUPS * place for start in starts for place in range(_SCALES_OF_A_QUADRANT))


def _dequantized(words: np.ndarray, dtype: dtypes.DType, scales: np.ndarray) -> np.ndarray:
    """float32 [4 * partitions, words per partition]."""
    elements = dtypes.unpack(words.reshape(words.shape[0], -1), dtype)
    rows = scales.reshape(scales.shape[0], -1)[_scale_rows(words.shape[0])]
    powers = rows.view(np.uint8).view(dtypes.float8_e8m0fnu.numpy).astype(np.float32)
    with np.errstate(over="ignore"):
        values = elements * np.repeat(powers, mx.SHARED, axis=0)[:, :, None]
    result: np.ndarray = values.transpose(0, 2, 1).reshape(-1, elements.shape[1])
    return result


def _require_quadrants(call: Signature, operand: str) -> None:
    """Raise ShapeMismatch unless an operand fills quadrants of SBUF with whole words."""
    kind = call.arguments[operand]
    if kind.partitions % mx.QUADRANT:
        raise ShapeMismatch(
            instruction=rules.instruction_name(call),
            detail=f"{operand} {kind.shape} has {kind.partitions} partitions, which must be a multiple of "
            f"{mx.QUADRANT}",
        )


def _require_scale(call: Signature, operand: str, data: str) -> None:
    """Check a scale tile against its data tile, of which it has one element for 8 partitions of a word.

    Raises:
        UnsupportedDtype: it is neither float8_e8m0fnu nor uint8.
        ShapeMismatch: a scale has no place in it.
    """
    rules.require_dtype(call, operand, _SCALES)
    scale, kind = call.arguments[operand], call.arguments[data]
    rows = int(_scale_rows(kind.partitions)[-1]) + 1
    if scale.partitions < rows or scale.free_size != kind.free_size:
        raise ShapeMismatch(
            instruction=rules.instruction_name(call),
            detail=f"{operand} has shape {scale.shape}; {data} {kind.shape} needs at least {rows} partitions (scales "
            f"are in rows 0 to 3 of every {mx.QUADRANT}) of {kind.free_size} elements",
        )
