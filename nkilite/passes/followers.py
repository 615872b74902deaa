"""Which instructions can take the sums of matmuls away a few columns at a time: elementwise ones that follow them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from nkilite.ir.program import Operand, Program
from nkilite.ir.types import BufferKind, MemoryRegion
from nkilite.passes.liveness import lifetimes
from nkilite.passes.rows import Access, Rows, RowShape, meet, row_shape

_MOST = 4  # their code is written for strips of several widths
_LEAST_COLUMNS = 16


class Found(NamedTuple):
    """The followers of some matmuls.

    Attributes:
        members: how many.
        sums: (follower, operand) pairs that are what the matmuls write, if only they need it; else empty.
        private: the buffer that then needs no memory.
    """

    members: int
    sums: tuple[tuple[int, int], ...] = ()
    private: tuple[int, ...] = ()


class Followers:
    """Looks for followers in a program."""

    def __init__(self, program: Program) -> None:
        self._program = program
        self._rows = Rows(program)
        self._lives = lifetimes(program)
        self._starts = program.starts()
        self._shapes = [_shape(program, number) for number in range(len(program.signatures))]

    def of(self, matmuls: Sequence[int], first: int, dst: Operand, fresh: bool) -> Found:
        """The followers of matmuls that begin at some words, the first of them at instruction `first`.

        Args:
            dst: of the matmuls.
            fresh: they overwrite it.
        """
        code = self._program.code
        view = code[matmuls[0] + dst.word], code[matmuls[0] + dst.word + 1]
        end = first + len(matmuls)
        taken: list[tuple[Access, ...]] = []
        sums: list[tuple[int, int]] = []
        target: Access | None = None
        for start in self._starts[end : end + _MOST]:
            shape = self._shapes[code[start]]
            if shape is None or shape.rows != dst.type.shape[0]:
                break
            signature = self._program.signatures[code[start]]
            reads = [
                i for i, o in enumerate(signature.operands)
                if (code[start + o.word], code[start + o.word + 1]) == view and not o.writes
                and o.type.dtype == dst.type.dtype and o.type.free_size == dst.type.free_size
                and o.type.strides[0] == dst.type.strides[0]
            ]
            accesses = tuple(self._rows.accesses(shape, len(taken), start))
            if target is None and reads:
                target = accesses[reads[0]]
            if target is None or not self._takes(signature.operands, accesses, dst, target, taken):
                break
            sums += [(len(taken), i) for i in reads]
            taken.append(accesses)
        if not taken or not fresh or not self._dies(view[0], first, end + len(taken), taken, sums):
            return Found(len(taken))
        return Found(len(taken), tuple(sums), (view[0],))

    def _takes(
        self, operands: Sequence[Operand], accesses: Sequence[Access], dst: Operand, target: Access,
        taken: Sequence[Sequence[Access]],
    ) -> bool:
        """Whether columns of an instruction meet the same columns of the matmuls and of other followers alone."""
        program = self._program
        columns = dst.type.free_size
        for operand, access in zip(operands, accesses, strict=True):
            if access.buffer in program.panels or operand.type.free_size not in (1, columns):
                return False
            if operand.writes and (operand.type.free_size == 1 or access.buffer in program.uniform):
                return False
        made = [target, *(a for one in taken for a in one if a.operand.writes)]
        if not any(_same(a, b) for a in accesses if a.operand.reads for b in made):
            return False
        rows = dst.type.shape[0]
        known = [target, *(a for one in taken for a in one)]
        for access in accesses:
            for other in known:
                writes = access.operand.writes or other.operand.writes or other is target
                if writes and access.space == other.space and not _same(access, other) and meet(access, other, rows):
                    return False
        return True

    def _dies(
        self, buffer: int, first: int, end: int, taken: Sequence[Sequence[Access]], sums: Sequence[tuple[int, int]]
    ) -> bool:
        """Whether nothing but `sums` needs what the matmuls write."""
        found = self._program.buffers[buffer]
        uses = {(m, i) for m, accesses in enumerate(taken) for i, a in enumerate(accesses) if a.buffer == buffer}
        return (
            found.address is None and found.kind is BufferKind.internal and uses == set(sums)
            and self._lives.first[buffer] >= first and self._lives.last[buffer] < end
        )


def _shape(program: Program, number: int) -> RowShape | None:
    """How a signature works by row, if it is elementwise and on dense rows of tiles."""
    signature = program.signatures[number]
    if not signature.definition.elementwise or any(o.type.region is MemoryRegion.registers for o in signature.operands):
        return None
    shape = row_shape(signature)
    if shape is None or any(not o.on_chip or not o.dense for o in shape.operands):
        return None
    return shape if max(o.type.free_size for o in signature.operands) >= _LEAST_COLUMNS else None


def _same(one: Access, other: Access) -> bool:
    """Whether two accesses touch the same elements in the same order."""
    return (one.space, one.first, one.step, one.low, one.high) == (
        other.space, other.first, other.step, other.low, other.high
    )
