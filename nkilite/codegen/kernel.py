"""A micro-kernel being written: the operands of one signature as byte-strided CPU memory, and their pointers.

A micro-kernel is `i32 f(ptr words, ptr bases, i64 part, i64 parts)`. The words are those the executable's table holds
for the instruction: for a tensor (index into bases, byte offset), for an immediate the bits of a float64, in
signature order. It returns a status; details of a failure go to the words in front of the bases.

One that splits does the share `part` of `parts` of its work, so that threads can call it side by side; any other does
all of it and is called with part 0 of 1.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from math import prod
from typing import NamedTuple, Protocol

from nkilite import dtypes
from nkilite.codegen import convert
from nkilite.codegen.ahead import Ahead
from nkilite.codegen.emitter import Emitter, Value
from nkilite.codegen.sums import Combination
from nkilite.dtypes import DType
from nkilite.host.cpu import Host
from nkilite.ir.program import WORDS_BEFORE_ARGUMENTS, Signature
from nkilite.ir.types import Indirection, IndirectKind, MemoryRegion, ViewType
from nkilite.schedule.panels import Panels

STATUS_OK = 0
STATUS_OUT_OF_BOUNDS = 1
STATUS_JUMP = 2  # not a failure: go on at the other end of the loop
STATUS_PAUSE = 3  # not a failure: the host looks at memory, then the kernel goes on
STATUS_FOREIGN = 5  # a function of the user's failed, and says how when it is asked
STATUS_TOLD = 4  # Python has a signal to handle, and an exception is set

# In front of the bases are two int64 words where a micro-kernel leaves what it cannot return, and before them the
# address of the run's watch (nkilite/codegen/watch.py).
FAULT_WORDS = 2
HEAD_WORDS = FAULT_WORDS + 1
_FAULT_INDEX, _FAULT_LIMIT = -16, -8

_PARAMETERS = "ptr %words, ptr %bases, i64 %part, i64 %parts"


class CpuOperand(NamedTuple):
    """A tensor argument as the CPU sees it; `strides` are bytes.

    `name` is the parameter's ("dst", "data.index", ...). For an indirect tensor the address grows by
    ``index * index_stride`` bytes. A tensor that lies in `panels` has no strides of its own: its elements are where
    they say, and `strides` are those it would have in dense rows.

    Attributes:
        streams: what is written is not needed soon and should go past the caches.
        ahead: what to fetch while reading.
        unread: what is written is not needed at all and may be left out.
        pitch: bytes from partition to partition; 0 off chip.
    """

    name: str
    dtype: DType
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    region: MemoryRegion
    indirection: Indirection | None
    index_stride: int
    streams: bool = False
    ahead: Ahead | None = None
    unread: bool = False
    panels: Panels | None = None
    pitch: int = 0

    @property
    def layout(self) -> tuple[tuple[int, ...], tuple[int, ...]]:
        return self.shape, self.strides

    @property
    def free(self) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """The layout of a partition."""
        return self.shape[1:], self.strides[1:]

    @property
    def columns(self) -> int:
        """Elements along the free dimensions."""
        return prod(self.shape[1:])

    @property
    def by_row(self) -> bool:
        """Whether every position of dimension 0 has its own runtime index."""
        return self.indirection is not None and self.indirection.kind is IndirectKind.vector

    def broadcast(self, shape: tuple[int, ...]) -> CpuOperand:
        """Repeat along dimensions of size 1 (stride 0) up to `shape`; free dimensions may be missing."""
        own = (*self.shape[:1], *(1,) * (len(shape) - len(self.shape)), *self.shape[1:])
        strides = (*self.strides[:1], *(0,) * (len(shape) - len(self.shape)), *self.strides[1:])
        new = tuple(0 if n == 1 and m != 1 else s for n, m, s in zip(own, shape, strides, strict=True))
        return self._replace(shape=shape, strides=new)


class Sweep(Protocol):
    """The loop over columns that a part of an instruction is in, given a few columns of a row."""

    @property
    def place(self) -> tuple[Value, Value]:
        """The row of the block, and the first of the columns."""

    def combine(self, what: Combination, value: Value, finish: Callable[[Value], None]) -> None:
        """Combine a value with those of the other columns of the row.

        Args:
            finish: is called with all of them combined, one lane, after the last column.
        """


class Split(NamedTuple):
    """How the pieces of a micro-kernel divide its operands, so that those that are divided alike need not wait.

    Attributes:
        pieces: independent parts of the work.
        rows: elements along dimension 0 of an operand that belong to a piece; 0 if they are not divided so.
        columns: the same along the flattened free dimensions.
        of: the operands that are divided, all if empty; any piece may touch all of the others.
    """

    pieces: int
    rows: int = 0
    columns: int = 0
    of: tuple[str, ...] = ()


class MicroKernel:
    """The code of one signature on one memory placement: a function, or what it adds to the function of a group.

    Attributes:
        call: the signature (attributes and types as the check rule sees them).
        e: the emitter of the function body; the members of a group share one.
        host: the CPU.
        operands: the tensor arguments by parameter name.
        sweep: the loop over columns that it is in; None if it has all columns.
        from_row, from_column: those of the call at which this part of it begins; the column is None if it has all.
        private: those whose words mean nothing, for the group keeps what they hold to itself.
        paneled: those in panels of whose columns, a full set of rows after the other, piece i of a split by rows has
            the same as of the rows of others.
        split: how the function, called with a part and parts, does its share; None if it only does all at once.
        leads: whether its status may say where to go on.
    """

    def __init__(
        self, call: Signature, host: Host, operands: dict[str, CpuOperand], emitter: Emitter | None = None,
        first_word: int = 0,
    ) -> None:
        """In a group, `first_word` is where the member's words begin."""
        self.call = call
        self.host = host
        self.operands = operands
        self.e = Emitter(host) if emitter is None else emitter
        self.split: Split | None = None
        self.leads = False
        self.sweep: Sweep | None = None
        self.from_row = self.e.i64(0)
        self.from_column: Value | None = None
        self.private: set[str] = set()
        self.paneled: set[str] = set()
        self._pointers: dict[str, Value] = {}
        self._immediates: dict[str, Value] = {}
        self._first_word = first_word
        self._whole = False  # whoever writes a part shares the work

    def part(self, call: Signature, operands: dict[str, CpuOperand], pointers: Mapping[str, Value]) -> MicroKernel:
        """The same instruction on other operands, at known addresses."""
        kernel = MicroKernel(call, self.host, operands, self.e, self._first_word)
        kernel._pointers.update(pointers)
        kernel._immediates = self._immediates
        kernel._whole = True
        return kernel

    def write_part(
        self, operands: dict[str, CpuOperand], pointers: Mapping[str, Value], sweep: Sweep | None = None,
        place: tuple[Value | None, Value | None] = (None, None),
    ) -> None:
        """The code of the instruction on operands of other shapes, at known addresses.

        An operand with a new number of dimensions is dense rows.
        """
        arguments = dict(self.call.arguments)
        for name, operand in operands.items():
            kind = arguments[name]
            strides = kind.strides if len(operand.shape) == len(kind.strides) else (kind.strides[0], 1)
            arguments[name] = ViewType.of(kind.region, kind.dtype, operand.shape, strides)
        call = Signature(self.call.id, self.call.definition, arguments, self.call.target, self.call.key)
        part = self.part(call, operands, pointers)
        part.sweep = sweep
        row, part.from_column = place
        part.from_row = self.e.i64(0) if row is None else row
        call.definition.rule("lower")(call, part)

    def has(self, name: str) -> bool:
        """Whether an argument is a tensor of this call."""
        return name in self.operands

    def pointer(self, name: str) -> Value:
        """Address of the first element of a tensor argument; call it before opening loops.

        The index of a scalar-indirect tensor is included; a vector-indirect tensor has one per row.
        """
        found = self._pointers.get(name)
        if found is None:
            found = self._base(name)
            indirection = self.operands[name].indirection
            if indirection is not None and indirection.kind is IndirectKind.scalar:
                index = self.index(name)
                inside = self.in_bounds(name, index)
                self.stop_unless(inside, name, index)
                found = self.e.step(found, index, self.operands[name].index_stride)
            self._pointers[name] = found
        return found

    def _base(self, name: str) -> Value:
        """Address of a tensor argument without its runtime index."""
        e = self.e
        word = self.call.operand(name).word
        which = e.load("i64", self._word(word), align=8)
        bytes = e.load("i64", self._word(word + 1), align=8)
        base = e.load("ptr", e.step(Value("%bases", "ptr"), which, 8), align=8)
        return e.offset(base, bytes)

    def _word(self, position: int) -> Value:
        """Address of a word, given its position in the instruction."""
        return self.e.offset(Value("%words", "ptr"), 8 * (self._first_word + position - WORDS_BEFORE_ARGUMENTS))

    # --- runtime indices ------------------------------------------------------------------------------------

    def index(self, name: str, position: Value | None = None) -> Value:
        """The runtime index of an indirect tensor, or that of one position of its dimension 0, as an i64.

        Position i takes entry i of the index tile read column by column: partition first.
        """
        e = self.e
        operand = self.operands[f"{name}.index"]
        at = self.pointer(operand.name)
        if position is not None:
            rest = position
            for n, stride in zip(_column_order(operand.shape), _column_order(operand.strides), strict=True):
                at = e.step(at, e.binary("urem", rest, n), stride)
                rest = e.binary("udiv", rest, n)
        raw = e.load(convert.raw_scalar(operand.dtype), at)
        if operand.dtype.is_wide:
            return raw
        if operand.dtype is dtypes.bool_:
            raw = convert.truth(e, raw)
        return e.convert("sext" if operand.dtype.kind == "i" else "zext", raw, "i64")

    def in_bounds(self, name: str, index: Value) -> Value:
        """Whether an index of an indirect tensor is inside its limit."""
        indirection = self.operands[name].indirection
        assert indirection is not None
        return self.e.compare("ult", index, indirection.limit)

    def stop_unless(self, inside: Value, name: str, index: Value) -> None:
        """End the micro-kernel at an index out of bounds: successfully if such transfers are skipped."""
        e = self.e
        indirection = self.operands[name].indirection
        assert indirection is not None
        with self._unless(inside):
            if self.call.skips_out_of_bounds:
                e.ret(STATUS_OK)
            else:
                self._fail(index, indirection.limit)

    def fail_unless(self, inside: Value, limit: int | Value, index: Callable[[], Value]) -> None:
        """End the micro-kernel with an error unless `inside` holds; `index` then finds the one that is not."""
        with self._unless(inside):
            self._fail(index(), limit)

    @contextmanager
    def _unless(self, inside: Value) -> Iterator[None]:
        """Code that runs unless `inside` holds, and ends the micro-kernel."""
        e = self.e
        go_on, stop = e.label("inside"), e.label("outside")
        e.line(f"br {inside}, label %{go_on}, label %{stop}")
        e.start_block(stop)
        yield
        e.start_block(go_on)

    def _fail(self, index: Value, limit: int | Value) -> None:
        """End the micro-kernel: an index is not below its limit."""
        assert self.call.checks_indices, f"{self.call.name} checks indices, and is not `indexed`"
        e, bases = self.e, Value("%bases", "ptr")
        e.store(index, e.offset(bases, _FAULT_INDEX), align=8)
        e.store(limit if isinstance(limit, Value) else e.i64(limit), e.offset(bases, _FAULT_LIMIT), align=8)
        e.ret(STATUS_OUT_OF_BOUNDS)

    @contextmanager
    def rows(self, rows: Sequence[tuple[CpuOperand, Value]]) -> Iterator[list[Value]]:
        """Addresses of rows of operands: those that their runtime indices choose, where every row has one.

        An index out of bounds ends the micro-kernel, or, where such transfers are skipped, leaves out the code inside.
        """
        e, at, inside = self.e, [], []
        for operand, number in rows:
            pointer = self.pointer(operand.name)
            if operand.by_row:
                index = self.index(operand.name, number)
                found = self.in_bounds(operand.name, index)
                if self.call.skips_out_of_bounds:
                    inside.append(found)
                else:
                    self.stop_unless(found, operand.name, index)
                pointer = e.step(pointer, index, operand.index_stride)
            at.append(e.step(pointer, number, operand.strides[0]))
        with e.when(functools.reduce(e.and_, inside)) if inside else nullcontext():
            yield at

    # --- registers and loops --------------------------------------------------------------------------------

    def register(self, name: str, dtype: DType = dtypes.int32) -> Value:
        """The value of a register of a dtype, or of an immediate in its place."""
        if self.has(name):
            return self.e.load(convert.raw_scalar(dtype), self.pointer(name), align=dtype.itemsize)
        value = self.immediate_i64(name)
        return value if dtype.is_wide else self.e.convert("trunc", value, "i32")

    def jump_if(self, condition: Value) -> None:
        """End the micro-kernel and go on at the other end of the loop."""
        e = self.e
        jump, stay = e.label("jump"), e.label("stay")
        e.line(f"br {condition}, label %{jump}, label %{stay}")
        e.start_block(jump)
        self.jump()
        e.start_block(stay)

    def jump(self) -> None:
        """End the micro-kernel here and go on at the other end of the loop."""
        self.leads = True
        self.e.ret(STATUS_JUMP)

    # --- numbers --------------------------------------------------------------------------------------------

    def load_immediates(self) -> None:
        """Load all immediate arguments here rather than where they are used, which may be in a loop."""
        self._immediates = {i.name: self.immediate(i.name) for i in self.call.immediates}

    def immediate(self, name: str) -> Value:
        """The float64 value of an immediate argument, as a scalar."""
        if name in self._immediates:
            return self._immediates[name]
        return self.e.load("double", self._word(next(i.word for i in self.call.immediates if i.name == name)), align=8)

    def immediate_f32(self, name: str) -> Value:
        """An immediate argument rounded to float32."""
        return self.e.convert("fptrunc", self.immediate(name), "float")

    def immediate_i64(self, name: str) -> Value:
        """An integer immediate argument."""
        return self.e.convert("fptosi", self.immediate(name), "i64")

    def share(
        self, count: int, rows: int = 0, columns: int = 0, of: tuple[str, ...] = ()
    ) -> tuple[Value, Value]:
        """The first and the end of the pieces, out of `count` independent ones, that this call is to do.

        Call it once, and tell as much about the pieces as is true (see Split): piece i is rows [i * rows,
        (i + 1) * rows), or such columns, of the operands `of`, and touches nothing else of them.
        """
        e, part, parts, n = self.e, Value("%part", "i64"), Value("%parts", "i64"), self.e.i64(count)
        if self._whole:
            return e.i64(0), n
        self.split = Split(count, rows, columns, of)
        first = e.binary("udiv", e.mul(n, part), parts)
        end = e.binary("udiv", e.mul(n, e.add(part, 1)), parts)
        return first, end

    def pause(self) -> None:
        """Return to the host, which goes on with the next instruction when it is done."""
        self.leads = True
        self.e.ret(STATUS_PAUSE)
        self.e.start_block(self.e.label("resumed"))

    def text(self, name: str) -> str:
        """The LLVM function, complete."""
        self.e.ret(STATUS_OK)
        tune = self.e.host.tune and f' "tune-cpu"="{self.e.host.tune}"'
        return f"define i32 @{name}({_PARAMETERS}){tune} {{\nentry:\n{self.e.body()}\n}}\n"


def _column_order(values: tuple[int, ...]) -> tuple[int, ...]:
    """Dimension 0 fastest, then the free dimensions from the last one outwards."""
    return (values[0], *reversed(values[1:]))
