"""Structured sparsity of the Tensor Engine: a stationary operand that keeps 4 of every 8, 12 or 16 elements.

A group is ``4 * compress_ratio`` neighbouring rows of the contraction. Four of its elements are stored in every column,
on four neighbouring partitions, each with a tag: its position in the group, in 4 bits. Row
``partition * compress_ratio + i`` of the contraction is ``moving[partition, i]``, so that a group's four partitions of
the moving operand hold just the rows that its tags choose from.
"""

from __future__ import annotations

import functools
from dataclasses import replace
from math import prod
from typing import Any, SupportsIndex, cast

import numpy as np

from nkilite import dtypes
from nkilite.codegen import sparse
from nkilite.codegen.kernel import MicroKernel
from nkilite.errors import DtypeMismatch, IndirectOutOfBounds, InvalidOperand, ShapeMismatch, describe
from nkilite.ir.program import Signature
from nkilite.ir.types import MemoryRegion
from nkilite.isa import processing_array, rules
from nkilite.machine import engine as costs
from nkilite.machine.engine import Cost
from nkilite.machine.target import Target
from nkilite.trace import active
from nkilite.trace.instruction import Instruction, instruction
from nkilite.trace.tensor import NkiTensor

KEPT = sparse.KEPT
RATIOS = (2, 3, 4)
_NIBBLES = np.arange(0, 16, 4, dtype=np.uint16)  # where the tags of a word begin


@instruction(
    writes=("dst",), updates=lambda a: ("dst",) if a["accumulate"] is not False else (), indexed=True,
    access="w n: dst[(w 4) n] moving[(g 4) r n] stationary[(g 4) (w 4)] tag[(g 4) w]",
)
def nc_matmul_sparse(
    dst: NkiTensor,
    moving: NkiTensor,
    stationary: NkiTensor,
    tag: NkiTensor,
    compress_ratio: SupportsIndex,
    accumulate: bool | None = None,
    name: str | None = None,
) -> None:
    """dst (+)= expanded stationary.T @ moving: a product with a compressed stationary operand (trn2 and later).

    With r = compress_ratio, element (p, m) of `stationary` is in row ``p // 4 * 4 * r + tag(p, m)`` and column m of
    the expanded operand, [r K, M], whose other elements are zeros; two with one place add up. Row ``p * r + i`` of the
    contraction is ``moving[p, i]``. Products are added in float32. `nkilite.sparsity.compress` prunes and packs.

    NKI has no such instruction yet. Name, operands and packing of tags are those the guide drafts; which row of
    `moving` a tag means, the guide leaves open. Here dst stands first, as in all of NKI 0.7. The guide's form without
    it, ``sums = nisa.nc_matmul_sparse(moving, stationary, tag, compress_ratio)``, returns a new float32 tile in PSUM.

    Args:
        dst: PSUM tile, [M, N]; float32, on trn3 also bfloat16.
        moving: SBUF tile, [K, r, N]: r rows of the contraction per partition. N at most 512, on trn3 4096 (float32
            dst) or 8192 (bfloat16 dst).
        stationary: SBUF tile, [K, M]; K and M multiples of 4, at most 128.
        tag: SBUF tile of uint16, [K, M / 4]: four tags to a word, that of the first column in the lowest bits.
        compress_ratio: 2, 3 or 4: patterns 4:8, 4:12 and 4:16.
        accumulate: True adds to dst; False overwrites it; None (default) overwrites where no earlier instruction
            wrote this PSUM tile and adds elsewhere.

    Operands are float8_e4m3, float8_e5m2 (trn2), bfloat16, float16 or tfloat32. They may differ, except that tfloat32
    only goes with itself.

    Raises:
        UnsupportedOnTarget: on trn1.
        WrongMemory: an operand is not in SBUF, or dst not in PSUM.
        UnsupportedDtype, DtypeMismatch: see above.
        ShapeMismatch: K, M, N or compress_ratio disagree, or are no multiples of what they have to be.
        PartitionLimitExceeded, FreeSizeExceeded, PsumBankExceeded: K, M or N is too large.
        InvalidOperand: another compress_ratio.
        IndirectOutOfBounds: (when it runs) a tag is not below 4 * compress_ratio.

    Source: a draft in the source of the arch guide of NeuronCore-v3, "M:N Structured Sparsity".
    """


@nc_matmul_sparse.normalize
def _nc_matmul_sparse_normalize(arguments: dict[str, object], target: Target) -> None:
    if arguments["accumulate"] is not None:
        arguments["accumulate"] = bool(arguments["accumulate"])


@nc_matmul_sparse.check
def _nc_matmul_sparse_check(call: Signature) -> None:
    rules.require_on_chip(call)
    rules.require_memory(call, "dst", rules.PSUM)
    for operand in ("moving", "stationary", "tag"):
        rules.require_memory(call, operand, rules.SBUF)
    if type(call.compress_ratio) is not int or call.compress_ratio not in RATIOS:
        raise InvalidOperand(
            instruction="nisa.nc_matmul_sparse", operand="compress_ratio", found=describe(call.compress_ratio),
            expected="2, 3 or 4, for the patterns 4:8, 4:12 and 4:16",
        )
    _check_dtypes(call)
    _check_shapes(call)
    processing_array.require_sizes(call, call.stationary.free_size, _moving_columns(call))


def _moving_columns(call: Signature) -> int:
    return prod(call.moving.shape[2:])


def _check_dtypes(call: Signature) -> None:
    rules.require_dtype(call, "dst", call.target.matmul_dst_dtypes)
    rules.require_dtype(call, "tag", (dtypes.uint16,))
    for operand in ("stationary", "moving"):
        rules.require_dtype(call, operand, call.target.matmul_sparse_dtypes)
    stationary, moving = str(call.stationary.dtype), str(call.moving.dtype)
    if (stationary == "tfloat32") != (moving == "tfloat32"):
        raise DtypeMismatch(
            instruction="nisa.nc_matmul_sparse",
            detail=f"stationary is {stationary} and moving {moving}: tfloat32 only goes with itself",
            hint="convert one operand with nisa.tensor_copy.",
        )


def _check_shapes(call: Signature) -> None:
    ratio, (partitions, columns) = call.compress_ratio, (call.stationary.partitions, call.stationary.free_size)
    if partitions % KEPT or columns % KEPT:
        raise ShapeMismatch(
            instruction="nisa.nc_matmul_sparse",
            detail=f"stationary has shape {call.stationary.shape}; a group is stored on {KEPT} partitions and four "
            f"columns share a word of tags, so that both must be multiples of {KEPT}",
        )
    if len(call.moving.shape) < 3 or call.moving.shape[1] != ratio:
        raise ShapeMismatch(
            instruction="nisa.nc_matmul_sparse",
            detail=f"moving has shape {call.moving.shape}; compress_ratio={ratio} takes [partitions, {ratio}, columns]",
        )
    if (call.tag.partitions, call.tag.free_size) != (partitions, columns // KEPT):
        raise ShapeMismatch(
            instruction="nisa.nc_matmul_sparse",
            detail=f"tag has shape {call.tag.shape}; stationary {call.stationary.shape} needs {partitions} partitions "
            f"of {columns // KEPT} words of four tags",
        )


@nc_matmul_sparse.reference
def _nc_matmul_sparse_reference(
    call: Signature, dst: np.ndarray, moving: np.ndarray, stationary: np.ndarray, tag: np.ndarray, accumulate: bool,
    **_: object,
) -> np.ndarray:
    weights = stationary.astype(np.float32).reshape(stationary.shape[0], -1)
    rows = moving.astype(np.float32).reshape(moving.shape[0] * call.compress_ratio, -1)
    chosen = _rows(call, tag)
    result = np.zeros((weights.shape[1], rows.shape[1]), np.float32)
    with np.errstate(over="ignore", invalid="ignore"):
        for weight, row in zip(weights, chosen, strict=True):
            result += weight[:, None] * rows[row]
        summed = result.reshape(dst.shape)
        return dst.astype(np.float32) + summed if accumulate else summed


def _rows(call: Signature, tag: np.ndarray) -> np.ndarray:
    """[K, M]: the row of the contraction that each stored element is multiplied with."""
    positions = unpack(tag.reshape(tag.shape[0], -1))
    group = KEPT * call.compress_ratio
    if (outside := positions[positions >= group]).size:
        raise IndirectOutOfBounds(instruction="nisa.nc_matmul_sparse", found=int(outside[0]), limit=group)
    result: np.ndarray = np.arange(tag.shape[0])[:, None] // KEPT * group + positions
    return result


def pack(positions: np.ndarray) -> np.ndarray:
    """Words [K, M / 4] of positions [K, M]."""
    nibbles = positions.astype(np.uint16).reshape(positions.shape[0], -1, KEPT) << _NIBBLES
    result: np.ndarray = np.bitwise_or.reduce(nibbles, axis=2)
    return result


def unpack(words: np.ndarray) -> np.ndarray:
    """The positions [K, M] in words [K, M / 4]."""
    return (words[:, :, None] >> _NIBBLES & 15).reshape(words.shape[0], -1).astype(np.int64)


@nc_matmul_sparse.cost
def _nc_matmul_sparse_cost(call: Signature) -> Cost:
    """As long as the dense products of its contraction, over what sparsity gains: its ratio at most."""
    dense = costs.matmul(call.target, call.stationary.free_size, _moving_columns(call), float32=False)
    ratio = call.compress_ratio
    return replace(dense, cycles=dense.cycles * ratio / min(ratio, call.target.matmul_sparse_speedup))


@nc_matmul_sparse.lower
def _nc_matmul_sparse_lower(call: Signature, kernel: MicroKernel) -> None:
    sparse.matmul(kernel, "dst", "stationary", "moving", "tag", bool(call.accumulate))


_FORM = ("dst", "moving", "stationary", "tag", "compress_ratio")
_OPERANDS = frozenset(_FORM[1:])
_instruction = nc_matmul_sparse


@functools.wraps(_instruction)
def _in_both_forms(*operands: Any, **options: Any) -> object:
    drafted = "dst" not in options and len(operands) + len(_OPERANDS & options.keys()) == len(_OPERANDS)
    if not drafted:
        missing = [n for n in _FORM[len(operands) :] if n not in options]
        if missing or len(operands) > len(_FORM) + 2:  # accumulate and name may follow
            raise InvalidOperand(
                instruction="nisa.nc_matmul_sparse", operand=missing[0] if missing else "name",
                found="missing" if missing else f"followed by {len(operands) - len(_FORM) - 2} more",
                expected=f"what {', '.join(_FORM)} are, of which dst may be left out",
            )
        return _instruction(*operands, **options)
    left = (name for name in _FORM[1:] if name not in options)
    given = {**dict(zip(left, operands, strict=True)), **options}
    for operand in ("moving", "stationary"):
        if not isinstance(given[operand], NkiTensor):
            raise InvalidOperand(
                instruction="nisa.nc_matmul_sparse", operand=operand, found=describe(given[operand]),
                expected="a tile in SBUF",
            )
    shape = prod(given["stationary"].shape[1:]), prod(given["moving"].shape[2:])
    made = active.builder("nki.isa.nc_matmul_sparse").allocate(MemoryRegion.psum, shape, dtypes.float32)
    _instruction(made, **{"accumulate": False, **given})
    return made


nc_matmul_sparse = cast("Instruction[...]", _in_both_forms)
