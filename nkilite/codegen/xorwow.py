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

from nkilite.codegen import columns, elementwise, nest
from nkilite.codegen.emitter import Emitter, Value
from nkilite.codegen.free_walk import Carried, Chunk, FreeWalk
from nkilite.codegen.kernel import MicroKernel
from nkilite.codegen.move import address
from nkilite.machine.registers import STATE_WORDS

WEYL = 362437  # what d grows by
GOLDEN = 0x9E3779B9  # 2**32 divided by the golden ratio: neighbouring states start far apart
MIX = (0x85EBCA6B, 0xC2B2AE35)  # multipliers of MurmurHash3's finalizer

_BLOCK = 16  # partitions at once
_WORD = 4  # bytes

Body = Callable[..., Value]


class Block:
    """Neighbouring partitions that draw together: `lanes` of them, the first one's number `start`."""

    def __init__(self, kernel: MicroKernel, start: Value, lanes: int, streams: int, seed: int) -> None:
        self._kernel, self._e = kernel, kernel.e
        self.start, self.lanes, self.streams = start, lanes, streams
        self._seed = seed
        self._registers = kernel.operands["registers"]

    def row(self, name: str) -> Value:
        """Address of a tensor argument's first element in the first partition."""
        return self._e.step(self._kernel.pointer(name), self.start, self._kernel.operands[name].strides[0])

    def column(self, name: str, compute: str) -> Value:
        """The elements of a tile with one per partition, or an immediate, for all lanes."""
        if not self._kernel.has(name):
            return self._e.splat(self._kernel.immediate_f32(name), self.lanes)
        operand = self._kernel.operands[name]
        return elementwise.load(self._e, operand.dtype, self.row(name), self.lanes, operand.strides[0], compute)

    def states(self) -> list[list[Value]]:
        """The words of every stream's state."""
        return [self._seeded(stream) for stream in range(self.streams)]

    def _seeded(self, stream: int) -> list[Value]:
        e, lanes = self._e, self.lanes
        words = [
            elementwise.load(e, self._registers.dtype, at, lanes, self._registers.strides[0], "i32")
            for at in self._places(stream)
        ]
        used = words[0]
        for word in words[1:]:
            used = e.or_(used, word)
        unseeded = e.compare("eq", used, e.i32(0, lanes))
        lane = e.add(e.splat(e.convert("trunc", self.start, "i32"), lanes), e.vector("i32", range(lanes)))
        first = e.mul(e.add(e.mul(lane, e.i32(self.streams, lanes)), e.i32(stream, lanes)), e.i32(STATE_WORDS, lanes))
        seed = mix(e, e.i32(self._seed, lanes))
        return [
            e.select(unseeded, seeded_word(e, seed, e.add(first, e.i32(i, lanes))), word)
            for i, word in enumerate(words)
        ]

    def keep(self, states: Sequence[Sequence[Value]]) -> None:
        """Write the states back."""
        for stream, words in enumerate(states):
            for at, word in zip(self._places(stream), words, strict=True):
                elementwise.store(self._e, self._registers.dtype, word, at, self._registers.strides[0], "i32")

    def _places(self, stream: int) -> Iterator[Value]:
        row = self.row("registers")
        for i in range(STATE_WORDS):
            yield self._e.offset(row, (stream * STATE_WORDS + i) * _WORD)


@contextmanager
def blocks(kernel: MicroKernel, partitions: int, streams: int, seed: int) -> Iterator[Block]:
    """A loop over blocks of partitions, shared between threads."""
    lanes = min(_BLOCK, partitions & -partitions)
    for name in kernel.operands:
        kernel.pointer(name)
    first, end = kernel.share(partitions // lanes, rows=lanes)
    with kernel.e.loop(end, start=first) as loop:
        yield Block(kernel, kernel.e.mul(loop.index, kernel.e.i64(lanes)), lanes, streams, seed)


def draw(kernel: MicroKernel, block: Block, out: str, data: str | None, body: Body) -> None:
    """out = body(32 random bits, element of data), for the elements of a block's partitions, in row-major order.

    Elements are the bits in memory. Without `data`, body is given the random bits alone.
    """
    e, lanes = kernel.e, block.lanes
    names = [out, data] if data else [out]
    operands = [kernel.operands[name] for name in names]
    pitches = [o.strides[0] for o in operands]
    number = _Numbers(e, block)

    def step(chunk: Chunk, carried: Carried) -> Carried:
        bits = [number.next(e.add(chunk.position, e.i64(i * chunk.apart))) for i in range(chunk.lanes)]
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

    FreeWalk(operands, columns.RUN, ordered=True).run(e, [block.row(name) for name in names], (), step)
    number.keep()


class _Numbers:
    """The generators of a block while it draws, with their states in scratch."""

    def __init__(self, e: Emitter, block: Block) -> None:
        self._e, self._block = e, block
        self._word = block.lanes * _WORD
        self._memory = e.scratch(block.streams * STATE_WORDS * self._word)
        for place, value in zip(self._places(), (word for state in block.states() for word in state), strict=True):
            e.store(value, place)

    def _places(self) -> list[Value]:
        count = self._block.streams * STATE_WORDS
        return [self._e.offset(self._memory, i * self._word) for i in range(count)]

    def next(self, position: Value) -> Value:
        """The random bits of the elements at a position."""
        e, lanes = self._e, self._block.lanes
        stream = e.and_(position, e.i64(self._block.streams - 1))
        here = e.step(self._memory, stream, STATE_WORDS * self._word)
        x, y, z, w, v, d = (e.load("i32", e.offset(here, i * self._word), lanes) for i in range(STATE_WORDS))
        t = e.xor(x, e.lshr(x, e.i32(2, lanes)))
        new = e.xor(e.xor(v, e.shl(v, e.i32(4, lanes))), e.xor(t, e.shl(t, e.i32(1, lanes))))
        d = e.add(d, e.i32(WEYL, lanes))
        for i, value in enumerate((y, z, w, v, new, d)):
            e.store(value, e.offset(here, i * self._word))
        return e.add(new, d)

    def keep(self) -> None:
        """Write the states back to the registers."""
        words = [self._e.load("i32", place, self._block.lanes) for place in self._places()]
        self._block.keep([words[i : i + STATE_WORDS] for i in range(0, len(words), STATE_WORDS)])


def seed(kernel: MicroKernel, source: str, streams: int) -> None:
    """Fill all registers with the states that one 32-bit seed makes."""
    e, registers = kernel.e, kernel.operands["registers"]
    to, count = kernel.pointer("registers"), streams * STATE_WORDS
    start = mix(e, e.load("i32", kernel.pointer(source)))
    with e.loop(registers.shape[0]) as partition:
        row = e.step(to, partition.index, registers.strides[0])
        first = e.convert("trunc", e.mul(partition.index, e.i64(count)), "i32")

        def fill(index: Value, lanes: int) -> None:
            number = e.add(first, e.convert("trunc", index, "i32"))
            number = e.add(e.splat(number, lanes), e.vector("i32", range(lanes)))
            e.store(seeded_word(e, e.splat(start, lanes), number), e.step(row, index, _WORD))

        elementwise.chunks(e, count, e.host.lanes, fill)


def mix(e: Emitter, value: Value) -> Value:
    """A one-to-one function of 32 bits in which each bit of the argument changes about half of the result."""

    def constant(x: int) -> Value:
        return e.const(value.scalar, x, value.lanes)

    for shift, multiplier in ((16, MIX[0]), (13, MIX[1])):
        value = e.mul(e.xor(value, e.lshr(value, constant(shift))), constant(multiplier))
    return e.xor(value, e.lshr(value, constant(16)))


def seeded_word(e: Emitter, seed: Value, number: Value) -> Value:
    """Word `number`, counted over all partitions and streams, of the states that a mixed seed makes."""
    step = e.mul(e.add(number, e.i32(1, number.lanes)), e.i32(GOLDEN, number.lanes))
    return mix(e, e.add(seed, step))


def exchange(kernel: MicroKernel, block: Block, tile: str, into: bool) -> None:
    """Copy the block's states to a tile with a word per element, or (`into`) from it."""
    e, operand = kernel.e, kernel.operands[tile]
    free: nest.Layout = nest.collapse((operand.shape[1:], operand.strides[1:]))
    places = [address(e, block.row(tile), e.i64(i), free) for i in range(block.streams * STATE_WORDS)]
    pitch = operand.strides[0]
    if into:
        words = [elementwise.load(e, operand.dtype, at, block.lanes, pitch, "i32") for at in places]
        block.keep([words[i : i + STATE_WORDS] for i in range(0, len(words), STATE_WORDS)])
        return
    for at, word in zip(places, (word for state in block.states() for word in state), strict=True):
        elementwise.store(e, operand.dtype, word, at, pitch, "i32")
