"""What is made of random numbers: integers, uniform values of an interval, and dropped elements."""

from __future__ import annotations

from nkilite.codegen import elementwise, xorwow
from nkilite.codegen.emitter import Emitter, Value
from nkilite.codegen.kernel import MicroKernel


def integers(kernel: MicroKernel, out: str, streams: int, seed: int) -> None:
    """out = the low bits of random numbers."""
    e, target = kernel.e, kernel.operands[out]
    with xorwow.blocks(kernel, target.shape[0], streams, seed) as block:

        def element(bits: Value, at: list[Value]) -> None:
            elementwise.store(e, target.dtype, bits, at[0], target.strides[0], "i32")

        xorwow.draw(kernel, block, [out], element)


def interval(kernel: MicroKernel, out: str, low: str, high: str, streams: int, seed: int) -> None:
    """out = uniform values from low to high, each a tile with one element per partition or an immediate."""
    e, target = kernel.e, kernel.operands[out]
    with xorwow.blocks(kernel, target.shape[0], streams, seed) as block:
        least, most = block.column(low, "f32"), block.column(high, "f32")
        width = e.sub(most, least)

        def element(bits: Value, at: list[Value]) -> None:
            value = e.add(least, e.mul(_uniform(e, bits), width))
            value = e.select(e.compare("ogt", value, most), most, value)  # the width may have been rounded up
            elementwise.store(e, target.dtype, value, at[0], target.strides[0], "f32")

        xorwow.draw(kernel, block, [out], element)


def drop(kernel: MicroKernel, out: str, data: str, probability: str, streams: int, seed: int) -> None:
    """out = data, bit by bit, with zeros where a uniform number is below the probability."""
    e, target, source = kernel.e, kernel.operands[out], kernel.operands[data]
    with xorwow.blocks(kernel, target.shape[0], streams, seed) as block:
        limit = block.column(probability, "f32")

        def element(bits: Value, at: list[Value]) -> None:
            value = elementwise.load(e, source.dtype, at[1], block.lanes, source.strides[0], "bits")
            kept = e.compare("oge", _uniform(e, bits), limit)
            value = e.select(kept, value, e.const(value.scalar, 0, block.lanes))
            elementwise.store(e, target.dtype, value, at[0], target.strides[0], "bits")

        xorwow.draw(kernel, block, [out, data], element)


def state(kernel: MicroKernel, tile: str, streams: int, seed: int, into_registers: bool) -> None:
    """Copy the states of the first partitions to a tile, or from it."""
    with xorwow.blocks(kernel, kernel.operands[tile].shape[0], streams, seed) as block:
        xorwow.exchange(kernel, block, tile, into_registers)


def _uniform(e: Emitter, bits: Value) -> Value:
    """The high 24 bits as a float32 in [0, 1)."""
    return e.mul(e.convert("uitofp", e.lshr(bits, e.i32(8, bits.lanes)), "float"), e.f32(2.0**-24, bits.lanes))
