"""Which bytes of a buffer have been written: answers for accumulate=None and for reads of never-written memory."""

from __future__ import annotations

from enum import Enum
from functools import cache
from math import gcd
from typing import NamedTuple

import numpy as np

from nkilite.errors import AccumulateUninitialized, NkiError, UninitializedRead
from nkilite.ir.program import Operand, Signature
from nkilite.ir.types import Buffer, MemoryRegion, ViewType
from nkilite.location import Location
from nkilite.machine.engine import Engine
from nkilite.notices import Notice, give


class Covered(Enum):
    """How much of a view has been written."""

    none = "none"
    some = "some"
    all = "all"


class Coverage:
    """The written bytes of one buffer.

    Views that come back unchanged (the common case: tiles are written and read whole or by the same slices) are
    answered from a set; a map is only made for the others. It has an entry for as many bytes as no view cuts: for a row
    of a tile rather than an element, where tensors in HBM are written tile by tile.

    Attributes:
        full: every byte was written.
        seen: (type, byte offset) of the views written so far; empty once `full`.
    """

    __slots__ = ("_buffer", "_looked", "_map", "_unit", "full", "seen")

    def __init__(self, buffer: Buffer, full: bool = False) -> None:
        self._buffer = buffer
        self.full = full
        self.seen: set[tuple[ViewType, int]] = set()
        self._map: np.ndarray | None = None
        self._unit = 1  # bytes that an entry of the map stands for
        self._looked = 0  # views that were written when it was last asked whether they are everything

    def copy(self) -> Coverage:
        """What is written so far, to be continued apart."""
        other = Coverage(self._buffer, self.full)
        other.seen, other._looked = set(self.seen), self._looked
        other._map, other._unit = None if self._map is None else self._map.copy(), self._unit
        return other

    def mark(self, type: ViewType, byte_offset: int) -> None:
        """Record that a view was written; a dynamic view counts as the whole buffer."""
        if self.full or (type, byte_offset) in self.seen:
            return
        if type.indirection is not None or (
            byte_offset == 0 and type.size * type.dtype.itemsize == self._buffer.size_bytes and 0 not in type.strides
        ):
            self._fill()
            return
        self.seen.add((type, byte_offset))
        if self._map is not None:
            self._part(type, byte_offset)[...] = True

    def covered(self, type: ViewType, byte_offset: int) -> Covered:
        """Whether all, some or none of a view has been written."""
        if self.full or (type, byte_offset) in self.seen:
            return Covered.all
        if not self.seen:
            return Covered.none
        if type.indirection is not None:  # it may be anything of the buffer
            self._look_at_all()
            return Covered.all if self.full else Covered.some
        written = self._written(type, byte_offset)
        if written.all():
            self.seen.add((type, byte_offset))  # what is written stays written
            return Covered.all
        return Covered.some if written.any() else Covered.none

    def _look_at_all(self) -> None:
        """See whether the views written so far are the whole buffer; once for as many."""
        if self._looked != len(self.seen):
            if self._written(self._buffer.type, 0).all():
                self._fill()
            self._looked = len(self.seen)

    def _fill(self) -> None:
        self.full = True
        self.seen.clear()
        self._map = None

    def unwritten(self, type: ViewType, byte_offset: int) -> np.ndarray:
        """A boolean array of the view's shape: True where an element was not written."""
        if self.full:
            return np.zeros(type.shape, bool)
        self._written(type, byte_offset)
        assert self._map is not None
        self._refine(gcd(type.dtype.itemsize, byte_offset))
        width = type.dtype.itemsize // self._unit
        strides = (*(s * width for s in type.strides), 1)
        found: np.ndarray = np.ndarray((*type.shape, width), bool, self._map, byte_offset // self._unit, strides)
        result: np.ndarray = np.logical_not(found.all(axis=-1))
        return result

    def _written(self, type: ViewType, byte_offset: int) -> np.ndarray:
        """The part of the map that belongs to a view, in any shape."""
        if self._map is None:
            views = [(type, byte_offset), *self.seen]
            self._unit = gcd(self._buffer.size_bytes, *(gcd(_blocks(kind).unit, offset) for kind, offset in views))
            self._map = np.zeros(self._buffer.size_bytes // self._unit, bool)
            for kind, offset in self.seen:
                self._part(kind, offset)[...] = True
        return self._part(type, byte_offset)

    def _part(self, type: ViewType, byte_offset: int) -> np.ndarray:
        blocks = _blocks(type)
        self._refine(gcd(blocks.unit, byte_offset))
        assert self._map is not None
        shape = (*(n for n, _ in blocks.dims), blocks.bytes // self._unit)
        strides = (*(stride // self._unit for _, stride in blocks.dims), 1)
        result: np.ndarray = np.ndarray(shape, bool, self._map, byte_offset // self._unit, strides)
        return result

    def _refine(self, unit: int) -> None:
        """Let entries of the map stand for bytes that divide `unit`."""
        if unit % self._unit:
            assert self._map is not None
            finer = gcd(unit, self._unit)
            self._map, self._unit = np.repeat(self._map, self._unit // finer), finer


class _Blocks(NamedTuple):
    """A view as blocks of bytes without gaps: sizes and strides of its other dimensions, the bytes of a block, and the
    most bytes that divide all of these."""

    dims: tuple[tuple[int, int], ...]
    bytes: int
    unit: int


@cache
def _blocks(type: ViewType) -> _Blocks:
    dims = [(n, s * type.dtype.itemsize) for n, s in zip(type.shape, type.strides, strict=True) if n != 1]
    block = type.dtype.itemsize
    while dims and dims[-1][1] == block:
        block *= dims.pop()[0]
    return _Blocks(tuple(dims), block, gcd(block, *(stride for _, stride in dims)))


class Foreign:
    """The elements of one PSUM buffer that an engine other than the Tensor Engine wrote last, as far as is known."""

    __slots__ = ("_buffer", "_map")

    def __init__(self, buffer: Buffer) -> None:
        self._buffer = buffer
        self._map: np.ndarray | None = None

    def wrote(self, type: ViewType, byte_offset: int, tensor_engine: bool) -> None:
        """Record a write; one whose place is only known on the device is not followed."""
        if type.indirection is not None or (tensor_engine and self._map is None):
            return
        if self._map is None:
            self._map = np.zeros(self._buffer.size_bytes, bool)
        self._bytes(self._map, type, byte_offset)[...] = not tensor_engine

    def among(self, type: ViewType, byte_offset: int) -> bool:
        """Whether a view has such elements."""
        if self._map is None or type.indirection is not None:
            return False
        return bool(self._bytes(self._map, type, byte_offset).any())

    def _bytes(self, map: np.ndarray, type: ViewType, byte_offset: int) -> np.ndarray:
        width = type.dtype.itemsize
        strides = (*(s * width for s in type.strides), 1)
        found: np.ndarray = np.ndarray((*type.shape, width), bool, map, byte_offset, strides)
        return found


def runs_on_tensor_engine(call: Signature) -> bool:
    """Whether an instruction that writes PSUM is one of the Tensor Engine."""
    writes = any(o.writes and o.type.region is MemoryRegion.psum for o in call.operands)
    return writes and call.definition.rule("cost")(call).engine is Engine.tensor


def check_accumulation(
    foreign: Foreign, call: Signature, operand: Operand, buffer: Buffer, byte_offset: int, location: Location
) -> None:
    """Warn AccumulationUndefined when a matmul adds to what another engine has written, where the chip cannot."""
    if call.target.accumulate_onto_any_write or not foreign.among(operand.type, byte_offset):
        return
    what = f"{call.said(operand.name)} ({_describe(buffer)})"
    message = (
        f"{call.title} adds to {what}, of which another engine wrote elements; the "
        f"result is undefined on {call.target.name}: begin the sum with accumulate=False, or add after the matmul"
    )
    give(Notice(message, AccumulationUndefined, location.file, location.line, once=True))


class AccumulationUndefined(UserWarning):
    """A matmul accumulates onto what an engine other than the Tensor Engine wrote; the chip's result is undefined."""


class PartlyUninitialized(UserWarning):
    """An instruction reads a tile of which some elements were never written; their values are undefined."""


def check_read(
    coverage: Coverage, call: Signature, operand: Operand, buffer: Buffer, byte_offset: int, location: Location
) -> NkiError | Notice | None:
    """What is wrong with a read of memory that nothing has written, unless the instruction is dead; None if nothing is.

    AccumulateUninitialized: nc_matmul(accumulate=True) onto a PSUM region no instruction has written.
    UninitializedRead: no element of the operand was ever written.
    PartlyUninitialized, a warning: only some elements were. Legal on the chip, where padding is often left undefined.
    """
    covered = coverage.covered(operand.type, byte_offset)
    if covered is Covered.all or (covered is Covered.some and operand.name in call.definition.partly_read):
        return None
    if operand.writes:
        # The old content of an updated operand may be undefined, except as the start of an accumulation.
        if call.arguments.get("accumulate") is True and covered is Covered.none:
            return AccumulateUninitialized(
                instruction=call.title, operand=f"{call.said(operand.name)} ({_describe(buffer)})", location=location
            )
        return None
    if covered is Covered.none:
        if buffer.address is not None:
            return None  # another tile at the same address may have been written
        return UninitializedRead(
            instruction=call.title, operand=call.said(operand.name), what=_describe(buffer), location=location,
            fix=_SET_REGISTER if buffer.region is MemoryRegion.registers else "",
        )
    what = f"{call.said(operand.name)} ({_describe(buffer)})"
    message = f"{call.title} reads {what}, of which some elements were never written"
    return Notice(message, PartlyUninitialized, location.file, location.line)


_SET_REGISTER = "give it a value first (nisa.register_alloc(0), nisa.register_move or nisa.register_load)"


def _describe(buffer: Buffer) -> str:
    if buffer.region is MemoryRegion.registers:
        return f"register {buffer.label}"
    kind = "tile" if buffer.region.on_chip else "tensor"
    return f"{kind} {buffer.label} {buffer.dtype} {buffer.shape} in {buffer.region}"
