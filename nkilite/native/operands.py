"""The words of instructions as words of table entries: where operands are on this CPU, for all instructions at once."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from nkilite.ir.columns import BufferColumns, Columns, numbered
from nkilite.ir.definition import Control
from nkilite.ir.program import WORDS_BEFORE_ARGUMENTS, Program, Signature
from nkilite.schedule.panels import Panels
from nkilite.schedule.place import CpuPlacement
from nkilite.schedule.schedule import Schedule

HEADER_WORDS = 2  # of an entry: function address, words in the entry

# Of every tensor argument: bytes per partition, and how partitions lie: so many bytes apart, or in panels.
Pitches = tuple[tuple[int, int | Panels], ...]


class Member(NamedTuple):
    """What micro-kernels are written for: a signature, and how the buffers of its tensors lie, as their words come."""

    signature: Signature
    pitches: Pitches


class Encoded(NamedTuple):
    """Instructions whose operands are on this CPU.

    Attributes:
        code: the program's words, with base and offset of every tensor, and the bits of every number.
        kinds: what each instruction is, as a number of `members`.
    """

    code: np.ndarray
    kinds: np.ndarray
    members: list[Member]


def encode(program: Program, placement: CpuPlacement) -> Encoded:
    """Translate the operands of all instructions."""
    columns, buffers = Columns.of(program), _Buffers(program, placement)
    constants = np.array(program.constants, np.float64).view(np.int64)
    code = columns.code.copy()
    kinds = np.empty(program.count, np.int64)
    members: list[Member] = []
    for signature, rows, starts in columns.uses():
        for immediate in signature.immediates:
            code[starts + immediate.word] = constants[columns.code[starts + immediate.word]]
        lies = np.zeros(len(rows), np.int64)
        operands = sorted(signature.operands, key=lambda o: o.word)
        for operand in operands:
            used, offset = columns.code[starts + operand.word], columns.code[starts + operand.word + 1]
            code[starts + operand.word] = placement.base[used]
            code[starts + operand.word + 1] = buffers.offset(used, offset)
            lies = _numbered(lies * len(buffers.layouts) + buffers.layout[used])[2]
        found, first, numbers = _numbered(lies)
        kinds[rows] = len(members) + numbers
        for at in starts[first].tolist():
            ids = [int(columns.code[at + operand.word]) for operand in operands]
            members.append(Member(signature, tuple(buffers.layouts[buffers.layout[id]] for id in ids)))
        assert len(found) == len(first)
    return Encoded(code, kinds, members)


def _numbered(values: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Distinct values, where each comes first, and the number of every element's: mostly there is only one."""
    if len(values) and (values == values[0]).all():
        return values[:1], np.zeros(1, np.int64), np.zeros(len(values), np.int64)
    return numbered(values)


class _Buffers:
    """Where the bytes of buffers are.

    Attributes:
        layouts: how partitions lie, each way once.
        layout: that of every buffer.
    """

    def __init__(self, program: Program, placement: CpuPlacement) -> None:
        facts = BufferColumns.of(program)
        self._placement = placement
        self._rows = np.maximum(facts.row_bytes, 1)
        self._moved = facts.on_chip & (placement.pitch != facts.row_bytes)
        self._sizes = np.zeros(len(program.buffers), np.int64)  # of elements of buffers in panels
        _, first, layout = numbered(
            facts.row_bytes * (int(placement.pitch.max(initial=0)) + 1) + placement.pitch
        )
        self.layout: np.ndarray = layout
        rows, pitches = facts.row_bytes[first].tolist(), placement.pitch[first].tolist()
        numbers: dict[tuple[int, int | Panels], int] = {key: i for i, key in enumerate(zip(rows, pitches, strict=True))}
        for id, found in placement.panels.items():
            self.layout[id] = numbers.setdefault((int(facts.row_bytes[id]), found), len(numbers))
            self._sizes[id] = program.buffers[id].dtype.itemsize
        self.layouts = list(numbers)
        self._paneled = {
            (found, int(self.layout[id]), int(self._sizes[id])) for id, found in placement.panels.items()
        }

    def offset(self, used: np.ndarray, offset: np.ndarray) -> np.ndarray:
        """Bytes from the base of buffers to what is at offsets in their row-major storage."""
        placement = self._placement
        result: np.ndarray = placement.offset[used] + offset
        (moved,) = np.nonzero(self._moved[used])
        if len(moved):
            rows = self._rows[used[moved]]
            result[moved] += offset[moved] // rows * (placement.pitch[used[moved]] - rows)
        for panels, layout, size in self._paneled:
            here = (self.layout[used] == layout) & (self._sizes[used] == size)
            row, byte = np.divmod(offset[here], self._rows[used[here]])
            result[here] = placement.offset[used[here]] + panels.offset(row, byte // size)
        return result


class Entries(NamedTuple):
    """A table without the numbers of its micro-kernels.

    Attributes:
        table: the words.
        starts: word position of every entry.
        firsts: index of the first instruction of every entry.
    """

    table: np.ndarray
    starts: np.ndarray
    firsts: np.ndarray


def entries(schedule: Schedule, code: np.ndarray) -> Entries:
    """The entries of a program's instructions, a group being one, and where loops jump to."""
    program = schedule.program
    columns = Columns.of(program)
    heads = np.ones(program.count, bool)
    for group in schedule.groups:
        heads[group.first + 1 : group.first + group.size] = False
    control = np.array([s.definition.control is not None for s in program.signatures], bool)[columns.ids]
    widths = np.diff(np.append(columns.starts, len(code))) + control  # the distance of its jump comes last
    widths[~heads] -= WORDS_BEFORE_ARGUMENTS
    kept = np.ones(len(code), bool)
    later = columns.starts[~heads]
    kept[later] = kept[later + 1] = False
    ends = np.append(columns.starts[1:], len(code))[control]
    table = np.insert(code, ends, 0)[np.insert(kept, ends, True)] if control.any() else code[kept]
    firsts = np.flatnonzero(heads)
    starts = (np.cumsum(widths) - widths)[firsts]
    table[starts + 1] = np.diff(np.append(starts, len(table)))
    _jumps(program, table, starts[np.searchsorted(firsts, np.flatnonzero(control))], columns.ids[control])
    return Entries(table, starts, firsts)


def _jumps(program: Program, table: np.ndarray, controls: np.ndarray, ids: np.ndarray) -> None:
    """Fill in how far loops jump: past their end, and back to their body."""
    pending: list[int] = []
    for start, id in zip(controls.tolist(), ids.tolist(), strict=True):
        end = start + int(table[start + 1])
        if program.signatures[id].definition.control is Control.begin:
            pending.append(start)
        else:
            begin = pending.pop()
            body = begin + int(table[begin + 1])
            table[body - 1] = end - begin
            table[end - 1] = body - start
