"""What is made of random numbers: integers, uniform values of an interval, and dropped elements."""

from __future__ import annotations

from nkilite.codegen import convert, xorwow
from nkilite.codegen.emitter import Emitter, Value
from nkilite.codegen.kernel import MicroKernel


def integers(kernel: MicroKernel, out: str, streams: int, seed: int) -> None:
    """out = the low bits of random numbers."""
    e, target = kernel.e, kernel.operands[out]
    with xorwow.blocks(kernel, target.shape[0], streams, seed) as block:
        xorwow.draw(kernel, block, out, None, lambda bits: convert.from_i32(e, target.dtype, bits))


def interval(kernel: MicroKernel, out: str, low: str, high: str, streams: int, seed: int) -> None:
    """out = uniform values from low to high, each a tile with one element per partition or an immediate."""
    e, target = kernel.e, kernel.operands[out]
    with xorwow.blocks(kernel, target.shape[0], streams, seed) as block:
        least, most = block.column(low, "f32"), block.column(high, "f32")
        width = e.sub(most, least)

        def value(bits: Value) -> Value:
            value = e.add(least, e.mul(_uniform(e, bits), width))
            value = e.select(e.compare("ogt", value, most), most, value)  # the width may have been rounded up
            return convert.narrow(e, target.dtype, value)

        xorwow.draw(kernel, block, out, None, value)


def drop(kernel: MicroKernel, out: str, data: str, probability: str, streams: int, seed: int) -> None:
    """out = data, bit by bit, with zeros where a uniform number is below the probability."""
    e = kernel.e
    with xorwow.blocks(kernel, kernel.operands[out].shape[0], streams, seed) as block:
        limit = block.column(probability, "f32")

        def kept(bits: Value, element: Value) -> Value:
            keeps = e.compare("oge", _uniform(e, bits), limit)
            return e.select(keeps, element, e.const(element.scalar, 0, block.lanes))

        xorwow.draw(kernel, block, out, data, kept)


def state(kernel: MicroKernel, tile: str, streams: int, seed: int, into_registers: bool) -> None:
    """Copy the states of the first partitions to a tile, or from it."""
    with xorwow.blocks(kernel, kernel.operands[tile].shape[0], streams, seed) as block:
        xorwow.exchange(kernel, block, tile, into_registers)


def _uniform(e: Emitter, bits: Value) -> Value:
    """The high 24 bits as a float32 in [0, 1)."""
    return e.mul(e.convert("uitofp", e.lshr(bits, e.i32(8, bits.lanes)), "float"), e.f32(2.0**-24, bits.lanes))
