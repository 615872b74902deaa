"""Looking through tiles for NaN and infinities."""

from __future__ import annotations

import math

from nkilite.codegen import bits, elementwise
from nkilite.codegen.elementwise import VECTORS_PER_STEP
from nkilite.codegen.emitter import Value
from nkilite.codegen.kernel import MicroKernel
from nkilite.codegen.loops import Carried, element
from nkilite.codegen.walk import Chunk, Walk
from nkilite.ir.numbers import BITS, COLUMN, NOW, NUMBER, SPECIAL, WHEN


def find(kernel: MicroKernel, data: str, state: str, number: str, what: str) -> None:
    """In every row of data look for the first element that is special, and note it if it is the row's first."""
    e = kernel.e
    source, flags = kernel.operands[data], kernel.operands[state]
    at, to = kernel.pointer(data), kernel.pointer(state)
    own = e.convert("trunc", kernel.immediate_i64(number), "i32")
    walk = Walk.free([source], e.host.lanes * VECTORS_PER_STEP, ordered=True)

    def step(chunk: Chunk, carried: Carried) -> Carried:
        values = elementwise.load(e, source.dtype, chunk.pointers[0], chunk.lanes, chunk.strides[0], "f32")
        special = e.compare("uno", values, values)
        if what == SPECIAL:
            special = e.or_(special, e.compare("oeq", e.abs(values), math.inf))
        mask = e.bits(special)
        position = e.add(chunk.number, e.mul(bits.lowest(e, mask), chunk.apart))
        first = e.and_(e.compare("ne", mask, 0), e.compare("slt", carried[0], 0))
        return (e.select(first, position, carried[0]),)

    first, end = kernel.share(source.shape[0], rows=1)
    with e.loop(end, start=first) as row:
        here = e.step(at, row.index, source.strides[0])
        (found,) = walk.run(e, [here], (e.i64(-1),), step)
        with e.when(e.compare("sge", found, 0)):
            words = e.step(to, row.index, flags.strides[0])
            with e.when(e.compare("eq", e.load("i32", words), 0)):
                value = elementwise.load(e, source.dtype, element(e, source, here, found), 1, 0, "f32")
                values: dict[int, Value] = {
                    NUMBER: own, WHEN: e.load("i32", e.offset(words, 4 * NOW)),
                    COLUMN: e.convert("trunc", found, "i32"), BITS: e.extract(e.bitcast(value, "i32"), 0),
                }
                for word, value in values.items():
                    e.store(value, e.offset(words, 4 * word))
