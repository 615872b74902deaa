"""Moving rows between the partitions of a quadrant on the Vector Engine."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from nkilite.codegen import copy
from nkilite.codegen.kernel import CpuOperand, MicroKernel
from nkilite.dtypes import Elements
from nkilite.errors import DtypeMismatch, InvalidOperand, ShapeMismatch
from nkilite.ir import nest
from nkilite.ir.program import Signature
from nkilite.isa import rules
from nkilite.machine import engine as costs
from nkilite.machine.engine import Cost
from nkilite.trace.instruction import instruction
from nkilite.trace.tensor import NkiTensor

UNCHANGED = 255  # mask entry of an output partition that keeps its content


@instruction(writes=("dst",), updates=lambda arguments: ("dst",), access="f: dst[p f] src[q f]")
def nc_stream_shuffle(dst: NkiTensor, src: NkiTensor, shuffle_mask: Sequence[int], name: str | None = None) -> None:
    """Give every partition of `dst` a partition of the same quadrant of `src`, on the Vector Engine.

    A quadrant is 32 partitions. In each, output partition i becomes input partition ``shuffle_mask[i]``; 255 leaves
    partition i as it is. Every quadrant uses the same mask. Bits are copied as they are.

    Args:
        dst: SBUF or PSUM tile; may be `src` itself.
        src: SBUF or PSUM tile with dst's dtype and elements per partition. It may have fewer partitions than dst, as
            long as the mask names only those it has: one partition and a mask of zeros broadcasts it.
        shuffle_mask: 32 integers, each 0 to 31 or 255.

    Raises:
        WrongMemory: an operand is in HBM.
        DtypeMismatch: the dtypes differ.
        ShapeMismatch: the elements per partition differ.
        InvalidOperand: the mask has not 32 entries, or names a partition src does not have.

    Source: nki.isa.nc_stream_shuffle.
    """


@nc_stream_shuffle.normalize
def _nc_stream_shuffle_normalize(arguments: dict[str, object], target: object) -> None:
    mask = arguments["shuffle_mask"]
    if isinstance(mask, tuple) and all(isinstance(m, (int, np.integer)) for m in mask):
        arguments["shuffle_mask"] = tuple(int(m) for m in mask)


@nc_stream_shuffle.check
def _nc_stream_shuffle_check(call: Signature) -> None:
    rules.require_on_chip(call)
    if call.dst.dtype != call.src.dtype:
        raise DtypeMismatch(
            instruction="nisa.nc_stream_shuffle", detail=f"dst is {call.dst.dtype} and src {call.src.dtype}",
            hint="rows are moved bit by bit: allocate dst with src's dtype.",
        )
    if call.dst.free_size != call.src.free_size:
        raise ShapeMismatch(
            instruction="nisa.nc_stream_shuffle",
            detail=f"dst has {call.dst.free_size} elements per partition, src {call.src.free_size}",
        )
    mask, quadrant = call.shuffle_mask, call.target.quadrant_partitions
    if not isinstance(mask, tuple) or len(mask) != quadrant or not all(isinstance(m, int) for m in mask):
        raise InvalidOperand(
            instruction="nisa.nc_stream_shuffle", operand="shuffle_mask", found=mask,
            expected=f"a list of {quadrant} partition numbers",
        )
    for row, source in _rows(call):
        if not 0 <= mask[row % quadrant] < quadrant or source >= call.src.partitions:
            raise InvalidOperand(
                instruction="nisa.nc_stream_shuffle", operand=f"shuffle_mask[{row % quadrant}]",
                found=mask[row % quadrant],
                expected=f"{UNCHANGED}, or a partition of src, which has {call.src.partitions}",
            )


@nc_stream_shuffle.starts
def _nc_stream_shuffle_starts(call: Signature) -> dict[str, tuple[int, ...]]:
    """Both operands start where all the quadrants of the larger one can."""
    quadrant = call.target.quadrant_partitions
    active = -(-max(call.dst.partitions, call.src.partitions) // quadrant) * quadrant
    return dict.fromkeys(("dst", "src"), call.target.start_partitions(active))


@nc_stream_shuffle.reference
def _nc_stream_shuffle_reference(call: Signature, dst: np.ndarray, src: np.ndarray, **_: object) -> Elements:
    result = dst.copy()
    rows = src.reshape(src.shape[0], -1)
    for row, source in _rows(call):
        result[row] = rows[source].reshape(dst.shape[1:])
    return Elements(result, call.dst.dtype)


@nc_stream_shuffle.cost
def _nc_stream_shuffle_cost(call: Signature) -> Cost:
    operands = (rules.cost_operand(call.src), rules.cost_operand(call.dst))
    return costs.vector_stream(call.target, call.dst.free_size, operands)


@nc_stream_shuffle.lower
def _nc_stream_shuffle_lower(call: Signature, kernel: MicroKernel) -> None:
    target, source = kernel.operands["dst"], kernel.operands["src"]
    pointers = [kernel.pointer("dst"), kernel.pointer("src")]
    for run in _runs(call):
        out = _partitions(target, run.count, 1)
        rows = _partitions(source, run.count, run.step)
        dims = nest.unify([out.layout, rows.layout])
        assert dims is not None  # both are (count, elements per partition)
        at = [
            kernel.e.offset(pointers[0], run.row * target.strides[0]),
            kernel.e.offset(pointers[1], run.source * source.strides[0]),
        ]
        copy.nested(kernel, out, rows, dims, at)


def _rows(call: Signature) -> Iterator[tuple[int, int]]:
    """(output partition, input partition) of every partition that is written."""
    quadrant = call.target.quadrant_partitions
    for row in range(call.dst.partitions):
        chosen = call.shuffle_mask[row % quadrant]
        if chosen != UNCHANGED:
            yield row, row - row % quadrant + chosen


@dataclass(frozen=True)
class _Run:
    """Consecutive output partitions whose sources are evenly spaced: one strided copy."""

    row: int
    source: int
    step: int
    count: int


def _runs(call: Signature) -> list[_Run]:
    runs: list[_Run] = []
    for row, source in _rows(call):
        if runs:
            last = runs[-1]
            if row == last.row + last.count:
                step = source - (last.source + (last.count - 1) * last.step)
                if last.count == 1 or step == last.step:
                    runs[-1] = _Run(last.row, last.source, step, last.count + 1)
                    continue
        runs.append(_Run(row, source, 0, 1))
    return runs


def _partitions(operand: CpuOperand, count: int, step: int) -> CpuOperand:
    """The layout of `count` partitions of an operand, `step` apart."""
    return operand._replace(
        shape=(count, *operand.shape[1:]), strides=(operand.strides[0] * step, *operand.strides[1:])
    )
