"""Program to native table: micro-kernels for the distinct groups of instructions, and the words the loop walks."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from nkilite.codegen import accumulation, onto_panels, relocation, rows
from nkilite.codegen.emitter import Emitter
from nkilite.codegen.host import Host
from nkilite.codegen.kernel import CpuOperand, MicroKernel
from nkilite.ir.definition import Control
from nkilite.ir.group import Accumulation, Relocation, RowPlan
from nkilite.ir.panels import Panels
from nkilite.ir.program import WORDS_BEFORE_ARGUMENTS, Program, Signature
from nkilite.ir.types import ViewType
from nkilite.native.library import Source
from nkilite.native.meetings import Footprint, footprint, meetings
from nkilite.native.walker import HEAVIEST, WEIGHT_SHIFT
from nkilite.passes.place import CpuPlacement

HEADER_WORDS = 2  # function address, words in the entry


class Lowered(NamedTuple):
    """What an executable is made of.

    Attributes:
        sources: distinct micro-kernels.
        table: int64 words; entry = [micro-kernel number, width and flags, operand words of every member...], and for a
            control instruction the distance to where it jumps: past the end of its loop, or to the beginning of the
            body. Flags are for threads and interrupts: see nkilite/native/walker.py.
        entries: word position of every entry.
        firsts: index of the first instruction of every entry.
        threads: beyond that number, threads would not make it faster.
        stack: bytes of scratch on the stack, of the micro-kernel that has most.
    """

    sources: list[Source]
    table: np.ndarray
    entries: np.ndarray
    firsts: np.ndarray
    threads: int
    stack: int


# Writes the code of a group: given its members, in order and on one emitter, and the group's plan.
Writer = Callable[[Sequence[MicroKernel], Any], None]

WRITERS: dict[type, Writer] = {
    RowPlan: rows.write, Accumulation: accumulation.write, Relocation: relocation.write,
}

# Of every tensor argument: bytes per partition, and how partitions lie: so many bytes apart, or in panels.
_Pitches = tuple[tuple[int, int | Panels], ...]


def lower(program: Program, placement: CpuPlacement, host: Host) -> Lowered:
    """Write a micro-kernel per distinct group and translate every group to a table entry.

    An instruction in no group is distinct by its signature and row pitches, a group by those of its members and its
    plan.
    """
    sources: list[Source] = []
    numbers: dict[tuple, int] = {}
    footprints: list[Footprint] = []
    stack = 0
    by_text: dict[tuple[str, Footprint], int] = {}
    encode = _Encoder(program, placement)
    table: list[int] = []
    entries: list[int] = []
    firsts: list[int] = []
    open_loops: list[int] = []  # entries of the instructions that began them
    pending = iter(program.groups)
    group = next(pending, None)
    start = index = 0
    while index < program.count:
        entries.append(len(table))
        firsts.append(index)
        entry = [0, 0]
        key: tuple
        if group is None or group.first != index:
            layout, pitches = encode(start, entry)
            members = [(layout.signature, pitches)]
            plan = None
            key = (layout.signature.id, pitches)
            start += layout.signature.n_words
            index += 1
            if layout.control is Control.begin:
                open_loops.append(entries[-1])
                entry.append(0)  # known at the end of the loop
            elif layout.control is Control.end:
                begin, end = open_loops.pop(), entries[-1]
                body = begin + table[begin + 1]
                past = end + len(entry) + 1
                table[body - 1] = past - begin
                entry.append(body - end)
        else:
            members, plan = [], group.plan
            for _ in range(group.size):
                layout, pitches = encode(start, entry)
                members.append((layout.signature, pitches))
                start += layout.signature.n_words
            key = (plan, *((signature.id, pitches) for signature, pitches in members))
            index += group.size
            group = next(pending, None)
        number = numbers.get(key)
        if number is None:
            source, touches, scratch = _micro_kernel(members, plan, host)
            stack = max(stack, scratch)
            number = by_text.get((source.name, touches))
            if number is None:
                number = by_text[source.name, touches] = len(sources)
                sources.append(source)
                footprints.append(touches)
            numbers[key] = number
        entry[0], entry[1] = number, len(entry)
        table += entry
    words, positions = np.array(table, np.int64), np.array(entries, np.int64)
    flags, threads = meetings(words, positions, footprints)
    weights = np.clip(np.array([f.ns // 1000 for f in footprints], np.int64), 1, HEAVIEST)[words[positions]]
    words[positions + 1] |= (weights << WEIGHT_SHIFT | flags) << 32
    return Lowered(sources, words, positions, np.array(firsts, np.int64), threads, stack)


class _Encoder:
    """Translates the words of instructions to those of table entries."""

    def __init__(self, program: Program, placement: CpuPlacement) -> None:
        self._code = program.code
        self._buffers = placement.buffers
        self._constants = np.array(program.constants, np.float64).view(np.int64).tolist()
        self._rows = [b.partition_bytes for b in program.buffers]
        self._itemsizes = [b.dtype.itemsize for b in program.buffers]
        self._on_chip = [b.region.on_chip for b in program.buffers]
        self._layouts = [_Layout(s) for s in program.signatures]

    def __call__(self, start: int, entry: list[int]) -> tuple[_Layout, _Pitches]:
        """Append the operand words of the instruction at a word position to an entry."""
        code = self._code
        layout = self._layouts[code[start]]
        at = start + WORDS_BEFORE_ARGUMENTS
        pitches = []
        for is_tensor in layout.slots:
            if not is_tensor:
                entry.append(self._constants[code[at]])
                at += 1
                continue
            buffer, offset = code[at], code[at + 1]
            where = self._buffers[buffer]
            row = self._rows[buffer]
            if where.panels is not None:
                offset = where.panels.offset(offset // row, offset % row // self._itemsizes[buffer])
            elif self._on_chip[buffer] and where.pitch != row:
                offset = offset // row * where.pitch + offset % row
            entry.append(where.base)
            entry.append(where.offset + offset)
            pitches.append((row, where.panels or where.pitch))
            at += 2
        return layout, tuple(pitches)


class _Layout:
    """The argument slots of a signature: True for a tensor, False for an immediate."""

    __slots__ = ("control", "signature", "slots")

    def __init__(self, signature: Signature) -> None:
        self.signature = signature
        marks = [(o.word, True) for o in signature.operands] + [(i.word, False) for i in signature.immediates]
        self.slots = tuple(is_tensor for _, is_tensor in sorted(marks))
        self.control = signature.definition.control


def cpu_strides(kind: ViewType, row: int, pitch: int) -> tuple[int, ...]:
    """Byte strides of a view whose buffer has `row` bytes per partition, placed `pitch` bytes apart."""
    strides = [s * kind.dtype.itemsize for s in kind.strides]
    if kind.region.on_chip and row:
        strides[0] = strides[0] // row * pitch
    return tuple(strides)


def _micro_kernel(members: list[tuple[Signature, _Pitches]], plan: Any, host: Host) -> (
    tuple[Source, Footprint, int]
):
    """Apply the lower rule of a single instruction, or the writer of a group's plan; with the bytes of its scratch."""
    e = Emitter(host)
    kernels = []
    first_word = 0
    for signature, pitches in members:
        kernels.append(MicroKernel(signature, host, _operands(signature, pitches), e, first_word))
        first_word += signature.n_words - WORDS_BEFORE_ARGUMENTS
    if plan is None:
        (kernel,) = kernels
        if onto_panels.takes(kernel):
            onto_panels.write(kernel)
        else:
            kernel.call.definition.rule("lower")(kernel.call, kernel)
    else:
        WRITERS[type(plan)](kernels, plan)
    body = kernels[0].text("@")
    digest = hashlib.sha256(f"{host.level}:{body}".encode()).hexdigest()[:20]
    name = f"{kernels[0].call.name}_{digest}"
    text = body.replace("@@(", f"@{name}(", 1)
    return Source(name, text, tuple(e.declarations.values())), footprint(kernels), e.stack


def _operands(signature: Signature, pitches: _Pitches) -> dict[str, CpuOperand]:
    """The tensor arguments of one signature on one placement."""
    operands: dict[str, CpuOperand] = {}
    rows = signature.access.rows
    by_name = dict(zip((o.name for o in sorted(signature.operands, key=lambda o: o.word)), pitches, strict=True))
    for operand in signature.operands:
        kind = operand.type
        row, pitch = by_name[operand.name]
        panels = pitch if isinstance(pitch, Panels) else None
        pitch = row if isinstance(pitch, Panels) else pitch
        size = kind.dtype.itemsize
        index_stride = kind.indirection.stride * size if kind.indirection else 0
        if kind.region.on_chip and row and index_stride % row == 0:
            index_stride = index_stride // row * pitch
        strides = cpu_strides(kind, row, pitch)
        if rows is not None and kind.shape[0] == 1 and not signature.access.runs_over(operand.name, rows):
            strides = 0, *strides[1:]  # in a group, the one row serves all of them
        operands[operand.name] = CpuOperand(
            operand.name, kind.dtype, kind.shape, strides, kind.region, kind.indirection,
            index_stride, panels=panels, pitch=pitch if kind.region.on_chip else 0,
        )
    return operands
