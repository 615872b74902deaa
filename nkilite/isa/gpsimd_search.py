"""Searches by the GpSimd Engine: topk, nonzero_with_count and sequence_bounds."""

from __future__ import annotations

from typing import SupportsIndex

import numpy as np

from nkilite import dtypes
from nkilite.codegen import sequences
from nkilite.codegen import topk as radix
from nkilite.codegen.kernel import MicroKernel
from nkilite.errors import InvalidOperand, ShapeMismatch
from nkilite.ir.program import Signature
from nkilite.isa import rules
from nkilite.machine import engine as costs
from nkilite.machine.engine import Cost
from nkilite.trace.instruction import instruction
from nkilite.trace.tensor import NkiTensor

MIN_N, END_N, END_K = 8, 65536, 32768
_COUNTABLE = (dtypes.float32, dtypes.int32)


@instruction(writes=("val_dst", "idx_dst"), updates=lambda arguments: ("val_dst", "idx_dst"))
def topk(
    val_dst: NkiTensor,
    idx_dst: NkiTensor,
    src: NkiTensor,
    n: SupportsIndex,
    sorted: bool = False,
    name: str | None = None,
) -> None:
    """The K largest of the values that 16 partitions hold together, in ascending order, on the GpSimd Engine.

    Every 16 neighbouring partitions are searched on their own. Their values are numbered column by column: number i is
    in partition ``i % 16`` of them, at position ``i // 16``; the first `n` take part. Results are numbered the same
    way, so that they fill ``ceil(K / 16)`` columns; elements of val_dst and idx_dst without a number below K keep what
    they hold. Of equal values those with lower numbers win, and come later. NaN counts, and is returned, as
    -inf, and -0 as 0.

    Args:
        val_dst: bfloat16 SBUF tile of P partitions and K elements per partition, 1 <= K < 32768 and K <= n; receives
            the values.
        idx_dst: uint32 SBUF tile of val_dst's elements; receives their numbers.
        src: bfloat16 SBUF tile of P partitions with at least ``ceil(n / 16)`` elements each; P is a multiple of 16.
        n: how many values there are in each 16 partitions, 8 <= n < 65536.
        sorted: True asks for values in order; here they always are.

    Raises:
        WrongMemory: an operand is not in SBUF.
        UnsupportedDtype: see the operands.
        ShapeMismatch: partitions differ or are not a multiple of 16, or val_dst and idx_dst have different elements.
        InvalidOperand: n or K is out of range, sorted is no bool, or src holds fewer than n values.

    Source: nki.isa.topk; for the numbering of the results, the gpsimd_topk kernel of the NKI Library, whose order is
    not relied upon there. What becomes of NaN and of equal values is not published.
    """


@topk.check
def _topk_check(call: Signature) -> None:
    rules.require_sbuf(call)
    for operand, dtype in (("val_dst", dtypes.bfloat16), ("idx_dst", dtypes.uint32), ("src", dtypes.bfloat16)):
        rules.require_dtype(call, operand, (dtype,))
    rules.require_same_elements(call, "val_dst", "idx_dst")
    rules.require_same_partitions(call, "src", "val_dst")
    rules.require_whole_cores(call, "src")
    n, k, core = call.n, call.val_dst.free_size, call.target.partitions_per_gpsimd_core
    if type(call.sorted) is not bool:
        raise InvalidOperand(instruction="nisa.topk", operand="sorted", found=call.sorted, expected="True or False")
    if type(n) is not int or not MIN_N <= n < END_N:
        raise InvalidOperand(
            instruction="nisa.topk", operand="n", found=n, expected=f"an int from {MIN_N} to {END_N - 1}"
        )
    if k >= END_K or k > n:
        raise InvalidOperand(
            instruction="nisa.topk", operand="K, the elements per partition of val_dst,", found=k,
            expected=f"at most n, which is {n}, and less than {END_K}",
        )
    if call.src.free_size * core < n:
        raise InvalidOperand(
            instruction="nisa.topk", operand="src", found=f"{call.src.free_size} elements per partition",
            expected=f"at least {-(-n // core)}, to hold n = {n} values in {core} partitions",
        )


@topk.reference
def _topk_reference(
    call: Signature, val_dst: np.ndarray, idx_dst: np.ndarray, src: np.ndarray, **_: object
) -> tuple[np.ndarray, np.ndarray]:
    core, k = call.target.partitions_per_gpsimd_core, call.val_dst.free_size
    values, indices = (dst.copy().reshape(dst.shape[0], -1) for dst in (val_dst, idx_dst))
    rows = src.reshape(src.shape[0], -1).astype(np.float32)
    ranks = np.arange(k)
    for start in range(0, rows.shape[0], core):
        group = rows[start : start + core].reshape(-1, order="F")[: call.n]
        group = np.where(np.isnan(group), np.float32("-inf"), group) + np.float32(0)  # -0 becomes 0
        chosen = np.argsort(-group, kind="stable")[:k][::-1]
        at = start + ranks % core, ranks // core
        values[at], indices[at] = group[chosen], chosen
    return values.reshape(val_dst.shape), indices.reshape(idx_dst.shape)


@topk.access
def _topk_access(call: Signature) -> str:
    core = call.target.partitions_per_gpsimd_core
    return f"g: val_dst[(g {core}) k] idx_dst[(g {core}) k] src[(g {core}) f]"


@topk.cost
def _topk_cost(call: Signature) -> Cost:
    return costs.gpsimd_topk(call.target, call.n, call.val_dst.free_size)


@topk.lower
def _topk_lower(call: Signature, kernel: MicroKernel) -> None:
    core = call.target.partitions_per_gpsimd_core
    radix.largest(kernel, "val_dst", "idx_dst", "src", call.n, call.val_dst.free_size, core)


@instruction(writes=("dst",), updates=lambda arguments: ("dst",), access="dst[p t] src[p f]")
def nonzero_with_count(
    dst: NkiTensor, src: NkiTensor, index_offset: int = 0, padding_val: int = -1, name: str | None = None
) -> None:
    """The positions of nonzero elements, and how many there are, on the GpSimd Engine; trn2 and later.

    Only the first of every 16 partitions is read and written: 0, 16, 32 and so on; the other partitions of dst keep
    what they hold. With T elements in src, N of them nonzero, dst becomes: their N positions (row-major in the
    partition, ascending) plus `index_offset`, then ``T - N`` times `padding_val`, then N. NaN is not zero.

    Args:
        dst: int32 SBUF tile of src's partitions with ``T + 1`` elements each.
        src: float32 or int32 SBUF tile with T elements per partition.
        index_offset: int32 added to every position.
        padding_val: int32.

    Raises:
        WrongMemory: an operand is not in SBUF.
        UnsupportedDtype: see the operands.
        ShapeMismatch: partitions differ, or dst has not one element per partition more than src.
        InvalidOperand: index_offset or padding_val is no int32.
        UnsupportedOnTarget: the target is older than trn2.

    Source: nki.isa.nonzero_with_count.
    """


@nonzero_with_count.check
def _nonzero_with_count_check(call: Signature) -> None:
    rules.require_sbuf(call)
    rules.require_dtype(call, "src", _COUNTABLE)
    rules.require_dtype(call, "dst", (dtypes.int32,))
    rules.require_same_partitions(call, "src", "dst")
    if call.dst.free_size != call.src.free_size + 1:
        raise ShapeMismatch(
            instruction="nisa.nonzero_with_count",
            detail=f"dst has {call.dst.free_size} elements per partition; {call.src.free_size} positions and their "
            f"count take {call.src.free_size + 1}",
        )


@nonzero_with_count.check_immediates
def _nonzero_with_count_check_immediates(call: Signature, index_offset: float, padding_val: float) -> None:
    rules.require_int32(call, "index_offset", index_offset)
    rules.require_int32(call, "padding_val", padding_val)


@nonzero_with_count.reference
def _nonzero_with_count_reference(
    call: Signature, dst: np.ndarray, src: np.ndarray, index_offset: float, padding_val: float
) -> np.ndarray:
    result = dst.copy().reshape(dst.shape[0], -1)
    rows = src.reshape(src.shape[0], -1)
    for p in range(0, rows.shape[0], call.target.partitions_per_gpsimd_core):
        found = np.flatnonzero(rows[p])
        result[p] = int(padding_val)
        result[p, : found.size] = (found + int(index_offset)).astype(np.int32)
        result[p, -1] = found.size
    return np.asarray(result.reshape(dst.shape))


@nonzero_with_count.cost
def _nonzero_with_count_cost(call: Signature) -> Cost:
    operands = rules.cost_operand(call.src), rules.cost_operand(call.dst)
    return costs.gpsimd_stream(call.target, call.dst.free_size, operands)


@nonzero_with_count.lower
def _nonzero_with_count_lower(call: Signature, kernel: MicroKernel) -> None:
    every = call.target.partitions_per_gpsimd_core
    sequences.nonzero(kernel, "dst", "src", "index_offset", "padding_val", every)


@instruction(writes=("dst",), access="dst[1 2 f] segment_ids[1 f]")
def sequence_bounds(dst: NkiTensor, segment_ids: NkiTensor, name: str | None = None) -> None:
    """Where the segment around each element begins and ends, on the GpSimd Engine.

    A segment is a run of equal, nonzero identifiers. For each of the n elements, ``dst[0, 0]`` receives the position of
    the first element of its segment and ``dst[0, 1]`` the one after the last; elements with identifier 0 are padding
    and receive n and -1.

    Args:
        dst: float32 or int32 tile of shape (1, 2, n), n in any number of dimensions.
        segment_ids: float32 or int32 tile of one partition with n elements: whole numbers, none negative.

    Raises:
        WrongMemory: an operand is not in SBUF.
        UnsupportedDtype: see the operands.
        ShapeMismatch: segment_ids has more than one partition, or dst is not (1, 2, n).

    Source: nki.isa.sequence_bounds.
    """


@sequence_bounds.check
def _sequence_bounds_check(call: Signature) -> None:
    rules.require_sbuf(call)
    for operand in ("dst", "segment_ids"):
        rules.require_dtype(call, operand, _COUNTABLE)
    n, shape = call.segment_ids.free_size, call.dst.shape
    if call.segment_ids.partitions != 1:
        raise ShapeMismatch(
            instruction="nisa.sequence_bounds",
            detail=f"segment_ids has {call.segment_ids.partitions} partitions; it must have one",
        )
    if shape[:2] != (1, 2) or call.dst.size != 2 * n:
        raise ShapeMismatch(
            instruction="nisa.sequence_bounds",
            detail=f"dst has shape {shape}; for {n} identifiers it must be (1, 2, {n})",
        )


@sequence_bounds.reference
def _sequence_bounds_reference(call: Signature, dst: np.ndarray, segment_ids: np.ndarray) -> np.ndarray:
    ids = segment_ids.reshape(-1)
    n = ids.size
    borders = np.flatnonzero(ids[1:] != ids[:-1]) + 1
    first, end = np.concatenate([[0], borders]), np.concatenate([borders, [n]])
    bounds = np.repeat(np.stack([first, end]), end - first, axis=1)
    return np.where(ids == 0, [[n], [-1]], bounds).astype(np.int32).reshape(dst.shape)


@sequence_bounds.cost
def _sequence_bounds_cost(call: Signature) -> Cost:
    operands = rules.cost_operand(call.segment_ids), rules.cost_operand(call.dst)
    return costs.gpsimd_stream(call.target, call.dst.free_size, operands)


@sequence_bounds.lower
def _sequence_bounds_lower(call: Signature, kernel: MicroKernel) -> None:
    sequences.bounds(kernel, "dst", "segment_ids")
