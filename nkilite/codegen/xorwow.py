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

from nkilite.codegen import elementwise, nest
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

Element = Callable[[Value, list[Value]], None]


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


def draw(kernel: MicroKernel, block: Block, tiles: Sequence[str], element: Element) -> None:
    """Call `element(32 random bits in each lane, addresses)` for the elements of a block's partitions, in order.

    The addresses are those of the tiles' elements in the block's first partition.
    """
    e, lanes = kernel.e, block.lanes
    word, state = lanes * _WORD, lanes * _WORD * STATE_WORDS
    memory = e.scratch(block.streams * state)
    places = [[e.offset(memory, s * state + i * word) for i in range(STATE_WORDS)] for s in range(block.streams)]
    for at, words in zip(places, block.states(), strict=True):
        for place, value in zip(at, words, strict=True):
            e.store(value, place)

    def step(chunk: Chunk, carried: Carried) -> Carried:
        stream = e.and_(chunk.position, e.i64(block.streams - 1))
        here = e.step(memory, stream, state)
        x, y, z, w, v, d = (e.load("i32", e.offset(here, i * word), lanes) for i in range(STATE_WORDS))
        t = e.xor(x, e.lshr(x, e.i32(2, lanes)))
        new = e.xor(e.xor(v, e.shl(v, e.i32(4, lanes))), e.xor(t, e.shl(t, e.i32(1, lanes))))
        d = e.add(d, e.i32(WEYL, lanes))
        for i, value in enumerate((y, z, w, v, new, d)):
            e.store(value, e.offset(here, i * word))
        element(e.add(new, d), chunk.pointers)
        return carried

    operands = [kernel.operands[name] for name in tiles]
    FreeWalk(operands, 1, ordered=True).run(e, [block.row(name) for name in tiles], (), step)
    block.keep([[e.load("i32", place, lanes) for place in at] for at in places])


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
