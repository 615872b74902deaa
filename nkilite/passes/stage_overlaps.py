"""Copy operands that an instruction would overwrite while it still reads them.

An instruction reads all of its operands before it writes. Native micro-kernels read and write as they go,
which is the same thing when operands and destination are apart, or are the same view of an instruction that
works elementwise. Where they overlap in any other way, the operand is copied to a buffer of its own first.
"""

from __future__ import annotations

from collections.abc import Iterator
from math import gcd
from typing import NamedTuple

import numpy as np

from nkilite.ir.definition import REGISTRY
from nkilite.ir.program import Operand, Program, Signature
from nkilite.ir.types import Buffer, Indirection, MemoryRegion, ViewType
from nkilite.machine.engine import Engine
from nkilite.passes.splice import splice

_LARGEST_MAP = 1 << 26  # elements compared one by one before two interleaved HBM views count as overlapping

_TILES = (MemoryRegion.sbuf, MemoryRegion.psum)


class StageOverlaps:
    """Redirect operands that partially overlap the destination to a copy.

    Runs after chip addresses are planned: the copies are an artifact of the CPU and take no chip memory.
    """

    def run(self, program: Program) -> Program:
        places = _Places(program)
        code = np.array(program.code, np.int64)
        starts = np.array(program.starts(), np.int64)
        order = np.argsort(code[starts], kind="stable")
        bounds = np.searchsorted(code[starts][order], np.arange(len(program.signatures) + 1))
        staged: dict[int, list[Operand]] = {}
        for signature in program.signatures:
            at = starts[order[bounds[signature.id]:bounds[signature.id + 1]]]
            for written, read in _pairs(signature):
                for start in _overlapping(places, code, at, signature, written, read):
                    staged.setdefault(start, []).append(read)
        stages = _Stages(program)
        splice(program, {start: stages.run_for(start, operands) for start, operands in staged.items()})
        return program


def _pairs(signature: Signature) -> Iterator[tuple[Operand, Operand]]:
    """The (written, read) operands of a signature that can be in the same memory."""
    for written in signature.operands:
        if not written.writes or written.type.region is MemoryRegion.registers:
            continue
        for read in signature.operands:
            same = read.type.region is written.type.region or not (
                read.type.region.on_chip or written.type.region.on_chip
            )
            if read is not written and not read.writes and same:
                yield written, read


class _Places:
    """Where buffers are, as arrays over buffer ids.

    Two operands can only touch when their buffers have the same `space`: the buffer itself, or for tiles with
    an explicit address, which may alias, their memory.
    """

    def __init__(self, program: Program) -> None:
        buffers = program.buffers
        memories = {region: len(buffers) + i for i, region in enumerate(_TILES)}
        fixed = [b.address is not None and b.region in memories for b in buffers]
        self.buffers = buffers
        spaces = [memories[b.region] if f else b.id for b, f in zip(buffers, fixed, strict=True)]
        self.space = np.array(spaces, np.int64)
        self.partition = np.array([b.address[0] if b.address else 0 for b in buffers], np.int64)
        self.byte = np.array([b.address[1] if b.address else 0 for b in buffers], np.int64)
        self.partitions = np.array([b.partitions for b in buffers], np.int64)
        # Off chip there are no partitions: everything is one long row.
        rows = [max(b.partition_bytes, 1) if b.region.on_chip else 1 << 62 for b in buffers]
        self.row = np.array(rows, np.int64)

    def locate(self, buffer: np.ndarray, offset: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Partition and byte in the partition of byte offsets into buffers."""
        row = self.row[buffer]
        return self.partition[buffer] + offset // row, self.byte[buffer] + offset % row

    def meet(self, one: np.ndarray, other: np.ndarray) -> np.ndarray:
        """Whether buffers in the same space share memory."""
        apart = np.zeros(len(one), bool)
        for first, second in ((one, other), (other, one)):
            apart |= self.partition[first] + self.partitions[first] <= self.partition[second]
            apart |= self.byte[first] + self.row[first] <= self.byte[second]
        return ~apart


def _overlapping(
    places: _Places, code: np.ndarray, at: np.ndarray, signature: Signature, written: Operand, read: Operand
) -> Iterator[int]:
    """The word positions of the instructions whose `read` operand must be staged."""
    to, source = code[at + written.word], code[at + read.word]
    close = np.flatnonzero(places.space[to] == places.space[source])
    if not len(close):
        return
    at, to, source = at[close], to[close], source[close]
    if written.type.indirection is not None or read.type.indirection is not None:
        # What a runtime index reaches is only known while running: all of the buffer counts, except that equal
        # indices reach the same elements.
        meets = places.meet(to, source)
        if written.type is read.type and signature.definition.in_place:
            words = np.arange(4)  # buffer and offset, of the tensor and of its index
            here, there = at[:, None] + written.word + words, at[:, None] + read.word + words
            meets &= (code[here] != code[there]).any(axis=1)
        yield from at[meets].tolist()
        return
    to_partition, to_byte = places.locate(to, code[at + written.word + 1])
    partition, byte = places.locate(source, code[at + read.word + 1])
    columns = (partition - to_partition, byte - to_byte, places.row[to], places.row[source])
    decided: dict[tuple[int, ...], bool] = {}
    for start, key in zip(at.tolist(), zip(*(c.tolist() for c in columns), strict=True), strict=True):
        hit = decided.get(key)
        if hit is None:
            partitions, bytes, to_row, row = key
            extents = _Extent.of(written.type, to_row), _Extent.of(read.type, row)
            hit = decided[key] = _conflict(*extents, partitions, bytes, signature.definition.in_place)
        if hit:
            yield start


class _Extent(NamedTuple):
    """The bytes of a view: `partitions` rows, `step` partitions apart, of elements at strided offsets."""

    partitions: int
    step: int
    itemsize: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]  # bytes

    @classmethod
    def of(cls, kind: ViewType, row: int) -> _Extent:
        size = kind.dtype.itemsize
        strides = tuple(s * size for s in kind.strides)
        if kind.region.on_chip:
            step = strides[0] // row if kind.shape[0] > 1 else 1
            return cls(kind.shape[0], step, size, *_merged(kind.shape[1:], strides[1:]))
        return cls(1, 1, size, *_merged(kind.shape, strides))

    def range(self) -> tuple[int, int]:
        """First byte, and the byte after the last, relative to the first element."""
        reach = [(n - 1) * s for n, s in zip(self.shape, self.strides, strict=True)]
        return sum(r for r in reach if r < 0), sum(r for r in reach if r > 0) + self.itemsize

    def positions(self, unit: int) -> np.ndarray:
        """Every `unit` bytes that an element covers, in units."""
        found = np.arange(self.itemsize // unit)
        for n, stride in zip(reversed(self.shape), reversed(self.strides), strict=True):
            found = np.add.outer(np.arange(n) * (stride // unit), found).reshape(-1)
        return found


def _merged(shape: tuple[int, ...], strides: tuple[int, ...]) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """The same addresses in the same order in as few dimensions as possible."""
    dims: list[tuple[int, int]] = []
    for n, stride in zip(shape, strides, strict=True):
        if n == 1:
            continue
        if dims and dims[-1][1] == n * stride:
            dims[-1] = dims[-1][0] * n, stride
        else:
            dims.append((n, stride))
    return tuple(n for n, _ in dims), tuple(s for _, s in dims)


def _conflict(written: _Extent, read: _Extent, partitions: int, bytes: int, in_place: bool) -> bool:
    """Whether an operand that starts so many partitions and bytes after the written one must be staged."""
    if in_place and written == read and partitions == 0 and bytes == 0:
        return False
    last, read_last = (written.partitions - 1) * written.step, partitions + (read.partitions - 1) * read.step
    if partitions > last or read_last < 0:
        return False
    if written.step == read.step and partitions % written.step:
        return False
    return _bytes_meet(written, read, bytes)


def _bytes_meet(written: _Extent, read: _Extent, shift: int) -> bool:
    """Whether two extents share a byte of a partition when `read` starts `shift` bytes after `written`."""
    low, high = written.range()
    read_low, read_high = (shift + bound for bound in read.range())
    if read_low >= high or read_high <= low:
        return False
    if written.shape and read.shape and written.strides[0] == read.strides[0] > 0:
        # Rows of equal pitch, such as two blocks of columns: one row tells, if neither reaches into the next.
        pitch = written.strides[0]
        rows = (e._replace(shape=e.shape[1:], strides=e.strides[1:]) for e in (written, read))
        one, other = rows
        fits = [bound for e in (one, other) for bound in e.range()]
        start = shift % pitch
        if fits[0] >= 0 and fits[2] >= 0 and fits[1] <= pitch and start + fits[3] <= pitch:
            return _bytes_meet(one, other, start)
    if max(high, read_high) - min(low, read_low) > _LARGEST_MAP:
        return True
    unit = gcd(shift, *(n for e in (written, read) for n in (e.itemsize, *e.strides)))
    origin = min(low, read_low) // unit
    taken = np.zeros((max(high, read_high) - min(low, read_low)) // unit + 1, bool)
    taken[written.positions(unit) - origin] = True
    return bool(taken[read.positions(unit) + shift // unit - origin].any())


class _Stages:
    """Writes the copies and the instructions that read them; operands of one type share a buffer."""

    def __init__(self, program: Program) -> None:
        self._program = program
        self._buffers: dict[tuple, Buffer] = {}

    def run_for(self, start: int, operands: list[Operand]) -> list[int]:
        """The words that replace the instruction at `start`: a copy per operand, then the instruction."""
        program = self._program
        signature = program.signatures[program.code[start]]
        words = list(program.code[start:start + signature.n_words])
        copies: list[int] = []
        plain: dict[str, ViewType] = {}
        for operand in dict.fromkeys(operands):
            buffer, offset = words[operand.word], words[operand.word + 1]
            if operand.type.indirection is not None:
                # The index is still needed to find the elements, so the whole buffer is copied.
                whole = program.buffers[buffer].type
                stage = self._buffer(whole, operand.name)
                copies += self._copy(whole, buffer, 0, stage, words[1])
                words[operand.word] = stage.id
            else:
                stage = self._buffer(operand.type, operand.name)
                copies += self._copy(operand.type, buffer, offset, stage, words[1])
                words[operand.word:operand.word + 2] = stage.id, 0
                plain[operand.name] = stage.type
        words[0] = self._redirected(signature, plain).id
        return copies + words

    def _buffer(self, kind: ViewType, operand: str) -> Buffer:
        """A buffer for values of a type; operands of one instruction need different ones."""
        region = kind.region if kind.region.on_chip else MemoryRegion.private_hbm
        key = region, kind.shape, kind.dtype, operand
        found = self._buffers.get(key)
        if found is None:
            found = self._buffers[key] = self._program.add_buffer(region, kind.shape, kind.dtype)
        return found

    def _copy(self, kind: ViewType, buffer: int, offset: int, stage: Buffer, where: int) -> list[int]:
        """The words of the instruction that copies a view into its stage."""
        definition = REGISTRY["tensor_copy" if kind.region.on_chip else "dma_copy"]
        arguments = {p.name: p.default for p in definition.parameters}
        engine = Engine.vector if kind.region.on_chip else Engine.unknown
        arguments.update(dst=stage.type, src=kind, engine=engine)
        return [self._program.signature(definition, arguments).id, where, stage.id, 0, buffer, offset]

    def _redirected(self, signature: Signature, plain: dict[str, ViewType]) -> Signature:
        """The signature with dense types for the staged operands."""
        arguments = dict(signature.arguments)
        for name, kind in plain.items():
            tensor, _, index = name.partition(".")
            if index:
                view: ViewType = arguments[tensor]
                old = view.indirection
                assert old is not None
                moved = Indirection.of(old.kind, kind, old.stride, old.limit)
                arguments[tensor] = ViewType.of(view.region, view.dtype, view.shape, view.strides, moved)
            else:
                arguments[name] = kind
        return self._program.signature(signature.definition, arguments)
