"""Random numbers: every partition has generators of its own, Marsaglia's XORWOW, whose state is in registers.

A state is six words (x, y, z, w, v, d) of a row of the registers; a row holds one state per stream. Element i of a
partition, row-major, takes the next number of stream i modulo the number of streams. A state that is all zero, as
registers are when a kernel begins, stands for the one that seeding with the engine's own number would have made.
`nkilite.isa.xorwow` says the same in NumPy.

The lanes of a vector are partitions: what is drawn does not depend on the CPU or on the number of threads.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple

from nkilite.codegen import columns, copy, elementwise, loops
from nkilite.codegen.emitter import Emitter, Value
from nkilite.codegen.kernel import MicroKernel
from nkilite.codegen.loops import Carried, element
from nkilite.codegen.walk import Chunk, Walk
from nkilite.ir import nest
from nkilite.machine.registers import STATE_WORDS

WEYL = 362437  # what d grows by
GOLDEN = 0x9E3779B9  # 2**32 divided by the golden ratio: neighbouring states start far apart
MIX = (0x85EBCA6B, 0xC2B2AE35)  # multipliers of MurmurHash3's finalizer

_BLOCK = 16  # partitions at once
_WORD = 4  # bytes

Body = Callable[..., Value]


class Source(NamedTuple):
    """The generators of an engine."""

    streams: int  # in each partition
    seed: int  # of an engine that was not seeded


class Block:
    """Neighbouring partitions that draw together: `lanes` of them, the first one's number `start`."""

    def __init__(self, kernel: MicroKernel, start: Value, lanes: int) -> None:
        self._kernel, self._e = kernel, kernel.e
        self.start, self.lanes = start, lanes

    def row(self, name: str) -> Value:
        """Address of a tensor argument's first element in the first partition."""
        return self._e.step(self._kernel.pointer(name), self.start, self._kernel.operands[name].strides[0])

    def column(self, name: str) -> Value:
        """A tile with one element per partition, or an immediate, as float32 for all lanes."""
        if not self._kernel.has(name):
            return self._e.splat(self._kernel.immediate_f32(name), self.lanes)
        operand = self._kernel.operands[name]
        return elementwise.load(self._e, operand.dtype, self.row(name), self.lanes, operand.strides[0], "f32")


@contextmanager
def blocks(kernel: MicroKernel, partitions: int) -> Iterator[Block]:
    """A loop over blocks of partitions, shared between threads."""
    lanes = min(_BLOCK, partitions & -partitions)
    for name in kernel.operands:
        kernel.pointer(name)
    first, end = kernel.share(partitions // lanes, rows=lanes)
    with kernel.e.loop(end, start=first) as loop:
        yield Block(kernel, kernel.e.mul(loop.index, lanes), lanes)


def draw(kernel: MicroKernel, block: Block, source: Source, out: str, data: str | None, body: Body) -> None:
    """out = body(32 random bits, element of data), for the elements of a block's partitions, in row-major order.

    Elements are the bits in memory. Without `data`, body is given the random bits alone.
    """
    e, lanes = kernel.e, block.lanes
    names = [out, data] if data else [out]
    operands = [kernel.operands[name] for name in names]
    pitches = [o.strides[0] for o in operands]
    numbers = _Numbers(kernel, block, source)

    def step(chunk: Chunk, carried: Carried) -> Carried:
        bits = [numbers.next(e.add(chunk.number, i * chunk.apart)) for i in range(chunk.lanes)]
        dense = all(stride == o.dtype.itemsize for stride, o in zip(chunk.strides, operands, strict=True))
        if dense and chunk.lanes == columns.RUN and lanes % columns.RUN == 0:
            loaded = [columns.load_bits(e, operands[1].dtype, chunk.pointers[1], pitches[1], lanes)] if data else []
            columns.store_bits(e, [body(*v) for v in zip(bits, *loaded, strict=True)], chunk.pointers[0], pitches[0])
            return carried
        for i, drawn in enumerate(bits):
            at = [e.offset(p, i * stride) for p, stride in zip(chunk.pointers, chunk.strides, strict=True)]
            elements = [
                elementwise.load(e, o.dtype, p, lanes, pitch, "bits")
                for p, o, pitch in zip(at[1:], operands[1:], pitches[1:], strict=True)
            ]
            elementwise.store(e, operands[0].dtype, body(drawn, *elements), at[0], pitches[0], "bits")
        return carried

    Walk.free(operands, columns.RUN, ordered=True).run(e, [block.row(name) for name in names], (), step)
    numbers.keep()


class _Numbers:
    """The generators of a block while it draws, with their states in scratch: vectors of words, stream by stream."""

    def __init__(self, kernel: MicroKernel, block: Block, source: Source) -> None:
        self._e, self._lanes, self._streams = kernel.e, block.lanes, source.streams
        self._row, self._pitch = block.row("registers"), kernel.operands["registers"].strides[0]
        self._word = block.lanes * _WORD
        self._memory = kernel.e.scratch(source.streams * STATE_WORDS * self._word)
        with self._states() as (lane, stream, row, places):
            fetch(self._e, source, row, self._e.add(block.start, lane), stream, places)

    @contextmanager
    def _states(self) -> Iterator[tuple[Value, Value, Value, list[Value]]]:
        """Loops over lanes and streams; gives lane, stream, the lane's registers and places of the state's words."""
        e = self._e
        with e.loop(self._lanes) as lane, e.loop(self._streams) as stream:
            row = e.step(self._row, lane.index, self._pitch)
            first = e.step(self._memory, lane.index, _WORD)
            first = e.step(first, stream.index, STATE_WORDS * self._word)
            yield lane.index, stream.index, row, [e.offset(first, i * self._word) for i in range(STATE_WORDS)]

    def next(self, position: Value) -> Value:
        """The random bits of the elements at a position."""
        e, lanes = self._e, self._lanes
        here = e.step(self._memory, e.and_(position, self._streams - 1), STATE_WORDS * self._word)
        x, y, z, w, v, d = (e.load("i32", e.offset(here, i * self._word), lanes) for i in range(STATE_WORDS))
        t = e.xor(x, e.lshr(x, 2))
        new = e.xor(e.xor(v, e.shl(v, 4)), e.xor(t, e.shl(t, 1)))
        d = e.add(d, WEYL)
        for i, value in enumerate((y, z, w, v, new, d)):
            e.store(value, e.offset(here, i * self._word))
        return e.add(new, d)

    def keep(self) -> None:
        """Write the states back to the registers."""
        e = self._e
        with self._states() as (_, stream, row, places):
            for to, place in zip(_words(e, row, stream), places, strict=True):
                e.store(e.load("i32", place), to)


def fetch(e: Emitter, source: Source, row: Value, partition: Value, stream: Value, places: Sequence[Value]) -> None:
    """Copy the state of a stream from a row of the registers, or, if it is all zero, what the default seed makes."""
    words = [e.load("i32", at) for at in _words(e, row, stream)]
    used = words[0]
    for word in words[1:]:
        used = e.or_(used, word)
    for word, place in zip(words, places, strict=True):
        e.store(word, place)
    with e.when(e.compare("eq", used, 0)):
        number = e.add(e.mul(partition, source.streams), stream)
        first = e.convert("trunc", e.mul(number, STATE_WORDS), "i32")
        for i, place in enumerate(places):
            e.store(_seeded_word(e, _mix(e, e.i32(source.seed)), e.add(first, i)), place)


def _words(e: Emitter, row: Value, stream: Value) -> list[Value]:
    """Addresses of a state in a row of the registers."""
    first = e.step(row, stream, STATE_WORDS * _WORD)
    return [e.offset(first, i * _WORD) for i in range(STATE_WORDS)]


# --- the state ----------------------------------------------------------------------------------------------


def read_state(kernel: MicroKernel, out: str, source: Source) -> None:
    """out[p] = the words of the states of partition p."""
    e, registers, target = kernel.e, kernel.operands["registers"], kernel.operands[out]
    to, at = kernel.pointer(out), kernel.pointer("registers")
    with e.loop(target.shape[0]) as partition, e.loop(source.streams) as stream:
        row = e.step(to, partition.index, target.strides[0])
        first = e.mul(stream.index, STATE_WORDS)
        places = [element(e, target, row, e.add(first, i)) for i in range(STATE_WORDS)]
        fetch(e, source, e.step(at, partition.index, registers.strides[0]), partition.index, stream.index, places)


def write_state(kernel: MicroKernel, states: str) -> None:
    """The registers of partition p = states[p]."""
    registers, given = kernel.operands["registers"], kernel.operands[states]
    first = registers._replace(shape=(given.shape[0], registers.columns))
    dims = nest.unify([first.layout, given.layout])
    assert dims is not None  # both are (partitions, words)
    copy.nested(kernel, first, given, dims, [kernel.pointer("registers"), kernel.pointer(states)])


def seed_state(kernel: MicroKernel, seed: str, streams: int) -> None:
    """Fill all registers with the states that one 32-bit seed makes."""
    e, registers = kernel.e, kernel.operands["registers"]
    to, count = kernel.pointer("registers"), streams * STATE_WORDS
    mixed = _mix(e, e.load("i32", kernel.pointer(seed)))
    with e.loop(registers.shape[0]) as partition:
        row = e.step(to, partition.index, registers.strides[0])
        first = e.convert("trunc", e.mul(partition.index, count), "i32")

        def fill(index: Value, lanes: int) -> None:
            number = e.add(first, e.convert("trunc", index, "i32"))
            number = e.add(e.splat(number, lanes), e.vector("i32", range(lanes)))
            e.store(_seeded_word(e, e.splat(mixed, lanes), number), e.step(row, index, _WORD))

        loops.chunks(e, count, e.host.lanes, fill)


def _mix(e: Emitter, value: Value) -> Value:
    """A one-to-one function of 32 bits in which each bit of the argument changes about half of the result."""
    for shift, multiplier in ((16, MIX[0]), (13, MIX[1])):
        value = e.mul(e.xor(value, e.lshr(value, shift)), multiplier)
    return e.xor(value, e.lshr(value, 16))


def _seeded_word(e: Emitter, seed: Value, number: Value) -> Value:
    """Word `number`, counted over all partitions and streams, of the states that a mixed seed makes."""
    step = e.mul(e.add(number, 1), GOLDEN)
    return _mix(e, e.add(seed, step))
