"""Which buffers are written whole before anything else happens to them: nearly all, and nobody has to follow these."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np

from nkilite.ir.columns import BufferColumns, Columns
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
    columns, buffers = Columns.of(program), BufferColumns.of(program)
    never = program.count
    whole, read, summed, touched = np.full((4, len(program.buffers)), never)  # by which instruction first
    foreign, added, filled = np.zeros((3, len(program.buffers)), bool)
    for signature, rows, starts in columns.uses():
        sum = inferred(signature)
        on_tensor_engine = runs_on_tensor_engine(signature)
        for operand in zeroed(signature):
            filled[columns.code[starts + operand.word]] = True
        for operand in signature.operands:
            used, kind = columns.code[starts + operand.word], operand.type
            np.minimum.at(touched, used, rows)
            if operand == sum:
                np.minimum.at(summed, used, rows)
            elif operand.reads:
                np.minimum.at(read, used, rows)
            if operand.writes:
                complete = np.full(len(used), operand != sum)  # where only the device knows, it counts as the whole
                if kind.indirection is None:
                    complete = buffers.size_bytes[used] == kind.size * kind.dtype.itemsize
                    complete &= (columns.code[starts + operand.word + 1] == 0) & (0 not in kind.strides)
                np.minimum.at(whole, used[complete], rows[complete])
                if kind.region is MemoryRegion.psum:
                    (added if on_tensor_engine else foreign)[used] = True
    begins_sum = (whole == summed) & (touched == summed) & (not has_loops(program))
    plain = (whole < read) & ((whole < summed) | begins_sum)
    mixed = foreign & added & (not program.target.accumulate_onto_any_write)
    asked = filled | (summed < never)
    plain |= (read == never) & ~asked
    plain |= _written_in_pieces(columns, buffers, read, ~plain & ~asked)
    return PlainWrites(plain & ~mixed | _hold_something(program, buffers), whole, mixed | asked)


def _written_in_pieces(columns: Columns, buffers: BufferColumns, read: np.ndarray, chosen: np.ndarray) -> np.ndarray:
    """Whether pieces of columns, each of all partitions, together write a buffer before it is read.

    Args:
        read: the instruction that first reads each buffer.
        chosen: of which buffers it is asked.
    """
    found = np.zeros(len(chosen), bool)
    pieces: list[np.ndarray] = []  # (buffer, first byte in a row, byte behind the last)
    for signature, rows, starts in columns.uses() if chosen.any() else ():
        for operand in signature.operands:
            kind = operand.type
            if not operand.writes or kind.indirection is not None or not _is_dense(kind.shape[1:], kind.strides[1:]):
                continue
            used, offsets = columns.code[starts + operand.word], columns.code[starts + operand.word + 1]
            width, size = kind.free_size * kind.dtype.itemsize, kind.dtype.itemsize
            at = chosen[used] & (rows < read[used]) & (buffers.partitions[used] == kind.shape[0])
            at &= (buffers.row_bytes[used] == kind.strides[0] * size) & (offsets + width <= buffers.row_bytes[used])
            pieces.append(np.column_stack([used[at], offsets[at], offsets[at] + width]))
    table = np.concatenate(pieces) if pieces else np.empty((0, 3), np.int64)
    if not len(table):
        return found
    apart = int(buffers.row_bytes.max()) + 1  # buffers one behind the other, so that one sweep goes through all
    table = table[np.lexsort((table[:, 1], table[:, 0]))]
    used, begins, ends = table[:, 0], table[:, 0] * apart + table[:, 1], table[:, 0] * apart + table[:, 2]
    reached = np.concatenate([[-1], np.maximum.accumulate(ends)])
    gap = begins > np.maximum(reached[:-1], used * apart)
    found[used] = True
    found[used[gap]] = False
    last = np.append(used[1:] != used[:-1], True)
    found[used[last]] &= reached[1:][last] == used[last] * apart + buffers.row_bytes[used[last]]
    return found


def _is_dense(shape: Sequence[int], strides: Sequence[int]) -> bool:
    """Whether elements lie side by side, in whatever order of the dimensions."""
    side_by_side = 1
    for stride, n in sorted((s, n) for s, n in zip(strides, shape, strict=True) if n != 1):
        if stride != side_by_side:
            return False
        side_by_side *= n
    return True


def first_writes(program: Program) -> tuple[np.ndarray, np.ndarray]:
    """Of every buffer, the first instruction that touches it, and whether that writes it whole without reading it."""
    columns, buffers = Columns.of(program), BufferColumns.of(program)
    first, whole, read = np.full((3, len(program.buffers)), program.count)
    for signature, rows, starts in columns.uses():
        for operand in signature.operands:
            used, kind = columns.code[starts + operand.word], operand.type
            np.minimum.at(first, used, rows)
            if operand.reads:
                np.minimum.at(read, used, rows)
            elif kind.indirection is None and 0 not in kind.strides:
                complete = buffers.size_bytes[used] == kind.size * kind.dtype.itemsize
                np.minimum.at(whole, used[complete], rows[complete])
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
    for signature, rows, starts in columns.uses():
        for operand in signature.operands:
            found[rows] |= chosen[columns.code[starts + operand.word]]
    return np.flatnonzero(found)


def _hold_something(program: Program, buffers: BufferColumns) -> np.ndarray:
    """Arguments, constants, registers, and what cores share: a program may read them before it writes them."""
    shared = buffers.within(MemoryRegion.shared_hbm) if program.cores > 1 else False
    return ~buffers.internal | shared
