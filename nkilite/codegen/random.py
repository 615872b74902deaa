"""What is made of random numbers: integers, uniform values of an interval, and dropped elements."""

from __future__ import annotations

from nkilite.codegen import convert, xorwow
from nkilite.codegen.emitter import Emitter, Value
from nkilite.codegen.kernel import MicroKernel
from nkilite.codegen.xorwow import Source


def integers(kernel: MicroKernel, out: str, source: Source) -> None:
    """out = the low bits of random numbers."""
    e, target = kernel.e, kernel.operands[out]
    with xorwow.blocks(kernel, target.shape[0]) as block:
        xorwow.draw(kernel, block, source, out, None, lambda bits: convert.from_i32(e, target.dtype, bits))


def interval(kernel: MicroKernel, out: str, low: str, high: str, source: Source) -> None:
    """out = uniform values from low to high, each a tile with one element per partition or an immediate."""
    e, target = kernel.e, kernel.operands[out]
    with xorwow.blocks(kernel, target.shape[0]) as block:
        least, most = block.column(low), block.column(high)
        width = e.sub(most, least)

        def value(bits: Value) -> Value:
            value = e.add(least, e.mul(_uniform(e, bits), width))
            value = e.select(e.compare("ogt", value, most), most, value)  # the width may have been rounded up
            return convert.narrow(e, target.dtype, value)

        xorwow.draw(kernel, block, source, out, None, value)


def drop(kernel: MicroKernel, out: str, data: str, probability: str, source: Source) -> None:
    """out = data, bit by bit, with zeros where a uniform number is below the probability."""
    e = kernel.e
    with xorwow.blocks(kernel, kernel.operands[out].shape[0]) as block:
        limit = block.column(probability)

        def kept(bits: Value, element: Value) -> Value:
            keeps = e.compare("oge", _uniform(e, bits), limit)
            return e.select(keeps, element, 0)

        xorwow.draw(kernel, block, source, out, data, kept)


def _uniform(e: Emitter, bits: Value) -> Value:
    """The high 24 bits as a float32 in [0, 1)."""
    return e.mul(e.convert("uitofp", e.lshr(bits, 8), "float"), 2.0**-24)
