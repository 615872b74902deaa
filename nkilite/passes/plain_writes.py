"""Which buffers are written whole before anything else happens to them: nearly all, and nobody has to follow these."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np

from nkilite.ir.columns import BufferColumns, Columns, Touched
from nkilite.ir.coverage import runs_on_tensor_engine
from nkilite.ir.loops import has_loops
from nkilite.ir.program import Operand, Program, Signature
from nkilite.ir.types import MemoryRegion


class PlainWrites(NamedTuple):
    """Of every buffer of a program.

    Attributes:
        plain: whether it holds something from the beginning, is never read, or is written whole before it is read, at
            once or in pieces of whole columns. Nothing is to say about what is read of it, and whether a matmul with
            accumulate=None adds up is clear.
        first: the instruction that first writes it whole.
        asked: whether instructions ask what was written, or by whom.
    """

    plain: np.ndarray
    first: np.ndarray
    asked: np.ndarray


def plain_writes(program: Program) -> PlainWrites:
    """Look at every operand once; an instruction reads before it writes."""
    touched, buffers = Columns.of(program).touched, BufferColumns.of(program)
    sums = touched.each(lambda signature, operand: operand == inferred(signature))
    moves = touched.each(lambda _, operand: operand.type.indirection is not None)
    # Where only the device knows, it counts as the whole.
    complete = touched.writes & (moves & ~sums | touched.whole(buffers) & (touched.offset == 0))
    whole, summed = touched.first(program, complete), touched.first(program, sums)
    read = touched.first(program, touched.reads & ~sums)
    in_psum = touched.each(lambda _, operand: operand.writes and operand.type.region is MemoryRegion.psum)
    by_sums = touched.each(lambda signature, operand: operand.writes and runs_on_tensor_engine(signature))
    added, foreign = (buffers.chosen(touched.buffer[in_psum & by]) for by in (by_sums, ~by_sums))
    filled = buffers.chosen(touched.buffer[touched.each(lambda signature, operand: operand in zeroed(signature))])
    begins_sum = (whole == summed) & (touched.first(program) == summed) & (not has_loops(program))
    plain = (whole < read) & ((whole < summed) | begins_sum)
    mixed = foreign & added & (not program.target.accumulate_onto_any_write)
    asked = filled | (summed < program.count)
    plain |= (read == program.count) & ~asked
    plain |= _written_in_pieces(touched, buffers, read, ~plain & ~asked)
    return PlainWrites(plain & ~mixed | _hold_something(program, buffers), whole, mixed | asked)


def _written_in_pieces(touched: Touched, buffers: BufferColumns, read: np.ndarray, chosen: np.ndarray) -> np.ndarray:
    """Whether pieces of columns, each of all partitions, together write a buffer before it is read.

    Args:
        read: the instruction that first reads each buffer.
        chosen: of which buffers it is asked.
    """
    found = np.zeros(len(chosen), bool)
    used, begins = touched.buffer, touched.offset
    pitch = buffers.row_bytes[used]
    at = chosen[used] & (touched.row < read[used]) & touched.each(_is_piece)
    at &= buffers.partitions[used] == touched.each(lambda _, operand: operand.type.partitions)
    at &= pitch == touched.each(lambda _, operand: operand.type.byte_strides[0])
    ends = begins + touched.each(lambda _, operand: operand.type.free_bytes)
    at &= ends <= pitch
    if not at.any():
        return found
    used, begins, ends = used[at], begins[at], ends[at]
    apart = int(buffers.row_bytes.max()) + 1  # buffers one behind the other, so that one sweep goes through all
    order = np.lexsort((begins, used))
    used, begins, ends = used[order], (used * apart + begins)[order], (used * apart + ends)[order]
    reached = np.concatenate([[-1], np.maximum.accumulate(ends)])
    gap = begins > np.maximum(reached[:-1], used * apart)
    found[used] = True
    found[used[gap]] = False
    last = np.append(used[1:] != used[:-1], True)
    found[used[last]] &= reached[1:][last] == used[last] * apart + buffers.row_bytes[used[last]]
    return found


def _is_piece(_: Signature, operand: Operand) -> bool:
    """Whether elements that are written lie side by side in each partition, in whatever order of the dimensions."""
    kind = operand.type
    side_by_side = 1
    for stride, n in sorted((s, n) for s, n in zip(kind.strides[1:], kind.shape[1:], strict=True) if n != 1):
        if stride != side_by_side:
            return False
        side_by_side *= n
    return operand.writes and kind.indirection is None


def first_writes(program: Program) -> tuple[np.ndarray, np.ndarray]:
    """Of every buffer, the first instruction that touches it, and whether that writes it whole without reading it."""
    touched = Columns.of(program).touched
    first, read = touched.first(program), touched.first(program, reads := touched.reads)
    whole = touched.first(program, ~reads & touched.whole(BufferColumns.of(program)))
    return first, (whole == first) & (read > whole)


def inferred(signature: Signature) -> Operand | None:
    """The operand with accumulate=None, which adds up where something was written before."""
    return signature.operand("dst") if signature.arguments.get("accumulate", False) is None else None


def zeroed(signature: Signature) -> list[Operand]:
    """The operands whose elements become 0 that nothing has written, the instruction included."""
    names = signature.definition.zeroed
    return [o for o in signature.operands if o.name in names and o.reads] if names else []


def touching(program: Program, chosen: np.ndarray, also: Iterable[int]) -> np.ndarray:
    """The instructions that touch some buffers, and those of some signatures."""
    columns = Columns.of(program)
    found = np.isin(columns.ids, list(also))
    found[columns.touched.row[chosen[columns.touched.buffer]]] = True
    return np.flatnonzero(found)


def _hold_something(program: Program, buffers: BufferColumns) -> np.ndarray:
    """Arguments, constants, registers, and what cores share: a program may read them before it writes them."""
    shared = buffers.within(MemoryRegion.shared_hbm) if program.cores > 1 else False
    return ~buffers.internal | shared
