"""Program to native table: micro-kernels for the distinct signatures, and the words the native loop walks."""

from __future__ import annotations

import hashlib
from typing import NamedTuple

import numpy as np

from nkilite.codegen.host import Host
from nkilite.codegen.kernel import CpuOperand, MicroKernel
from nkilite.ir.definition import Control
from nkilite.ir.program import WORDS_BEFORE_ARGUMENTS, Program, Signature
from nkilite.ir.types import ViewType
from nkilite.passes.place import CpuPlacement
from nkilite.runtime.library import Source

HEADER_WORDS = 2  # function address, words in the entry


class Lowered(NamedTuple):
    """What an executable is made of.

    Attributes:
        sources: distinct micro-kernels.
        table: int64 words; entry = [micro-kernel number, width, operand words...], and for a control instruction
            the distance to where it jumps: past the end of its loop, or to the beginning of the body.
        entries: word position of every instruction's entry.
    """

    sources: list[Source]
    table: np.ndarray
    entries: np.ndarray


def lower(program: Program, placement: CpuPlacement, host: Host) -> Lowered:
    """Write a micro-kernel per distinct (signature, row pitches) and translate every instruction to table words."""
    sources: list[Source] = []
    numbers: dict[tuple, int] = {}
    by_text: dict[str, int] = {}
    buffers = placement.buffers
    constants = np.array(program.constants, np.float64).view(np.int64).tolist()
    partition_bytes = [b.partition_bytes for b in program.buffers]
    on_chip = [b.region.on_chip for b in program.buffers]
    layouts = [_Layout(s) for s in program.signatures]
    code = program.code
    table: list[int] = []
    entries: list[int] = []
    open_loops: list[int] = []  # entries of the instructions that began them
    start = 0
    for _ in range(program.count):
        layout = layouts[code[start]]
        at = start + WORDS_BEFORE_ARGUMENTS
        pitches = []
        entries.append(len(table))
        entry = [0, layout.width]
        for is_tensor in layout.slots:
            if not is_tensor:
                entry.append(constants[code[at]])
                at += 1
                continue
            buffer, offset = code[at], code[at + 1]
            where = buffers[buffer]
            row = partition_bytes[buffer]
            if on_chip[buffer] and where.pitch != row:
                offset = offset // row * where.pitch + offset % row
            entry.append(where.base)
            entry.append(where.offset + offset)
            pitches.append((row, where.pitch))
            at += 2
        key = (code[start], *pitches)
        number = numbers.get(key)
        if number is None:
            source = _micro_kernel(layout.signature, pitches, host)
            number = by_text.get(source.name)
            if number is None:
                number = by_text[source.name] = len(sources)
                sources.append(source)
            numbers[key] = number
        entry[0] = number
        if layout.control is Control.begin:
            open_loops.append(entries[-1])
            entry.append(0)  # known at the end of the loop
        elif layout.control is Control.end:
            begin, end = open_loops.pop(), entries[-1]
            body = begin + table[begin + 1]
            past = end + layout.width
            table[body - 1] = past - begin
            entry.append(body - end)
        table += entry
        start += layout.signature.n_words
    return Lowered(sources, np.array(table, np.int64), np.array(entries, np.int64))


class _Layout:
    """The argument slots of a signature: True for a tensor, False for an immediate."""

    __slots__ = ("control", "signature", "slots", "width")

    def __init__(self, signature: Signature) -> None:
        self.signature = signature
        marks = [(o.word, True) for o in signature.operands] + [(i.word, False) for i in signature.immediates]
        self.slots = tuple(is_tensor for _, is_tensor in sorted(marks))
        self.control = signature.definition.control
        self.width = HEADER_WORDS + signature.n_words - WORDS_BEFORE_ARGUMENTS + (self.control is not None)


def cpu_strides(kind: ViewType, row: int, pitch: int) -> tuple[int, ...]:
    """Byte strides of a view whose buffer has `row` bytes per partition, placed `pitch` bytes apart."""
    strides = [s * kind.dtype.itemsize for s in kind.strides]
    if kind.region.on_chip and row:
        strides[0] = strides[0] // row * pitch
    return tuple(strides)


def _micro_kernel(signature: Signature, pitches: list[tuple[int, int]], host: Host) -> Source:
    """Apply the lower rule to one signature on one placement."""
    operands: dict[str, CpuOperand] = {}
    by_name = dict(zip((o.name for o in sorted(signature.operands, key=lambda o: o.word)), pitches, strict=True))
    for operand in signature.operands:
        kind = operand.type
        row, pitch = by_name[operand.name]
        size = kind.dtype.itemsize
        index_stride = kind.indirection.stride * size if kind.indirection else 0
        if kind.region.on_chip and row and index_stride % row == 0:
            index_stride = index_stride // row * pitch
        operands[operand.name] = CpuOperand(
            operand.name, kind.dtype, kind.shape, cpu_strides(kind, row, pitch), kind.region, kind.indirection,
            index_stride,
        )
    kernel = MicroKernel(signature, host, operands)
    signature.definition.rule("lower")(signature, kernel)
    body = kernel.text("@")
    digest = hashlib.sha256(f"{host.level}:{body}".encode()).hexdigest()[:20]
    name = f"{signature.name}_{digest}"
    text = body.replace("@@(", f"@{name}(", 1)
    return Source(name, text, tuple(kernel.e.declarations.values()), kernel.splits)
