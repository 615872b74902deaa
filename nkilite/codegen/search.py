"""Searches along each partition: the eight largest values, and the positions of eight given values.

Whole vectors are compared with a filter; only the few lanes that pass are treated one by one.
"""

from __future__ import annotations

from nkilite.codegen import bits, convert
from nkilite.codegen.elementwise import VECTORS_PER_STEP, from_raw, load, store
from nkilite.codegen.emitter import Emitter, Value
from nkilite.codegen.kernel import CpuOperand, MicroKernel
from nkilite.codegen.loops import Carried
from nkilite.codegen.walk import Chunk, Walk

SLOTS = 8
_ABSENT = -1
_F32 = 4  # bytes


def largest(kernel: MicroKernel, out: str, source: str) -> None:
    """out[p, :8] = the eight largest elements of source[p], descending; NaN counts as -inf."""
    e = kernel.e
    operand, target = kernel.operands[source], kernel.operands[out]
    read, write = kernel.pointer(source), kernel.pointer(out)
    walk = Walk.free([operand], e.host.lanes * VECTORS_PER_STEP, ordered=True)
    best, candidates = e.scratch(SLOTS * _F32), e.scratch(walk.lanes * _F32)

    def step(chunk: Chunk, carried: Carried) -> Carried:
        values = load(e, operand.dtype, chunk.pointers[0], chunk.lanes, chunk.strides[0], "f32")
        smallest = e.load("float", e.offset(best, (SLOTS - 1) * _F32))
        larger = e.bits(e.compare("ogt", values, e.splat(smallest, chunk.lanes)))
        with e.when(e.compare("ne", larger, 0)):
            e.store(values, candidates)
            with e.loop(bits.count(e, larger), larger, e.load("float", best, SLOTS)) as loop:
                passing, descending = loop.values
                candidate = e.load("float", e.step(candidates, bits.lowest(e, passing), _F32))
                loop.carry(bits.without_lowest(e, passing), _insert(e, descending, candidate))
            e.store(loop.results[1], best)
        return carried

    with e.loop(operand.shape[0]) as partition:
        e.store(e.f32(float("-inf"), SLOTS), best)
        walk.run(e, [e.step(read, partition.index, operand.strides[0])], (), step)
        _scatter(e, best, "float", target, e.step(write, partition.index, target.strides[0]), "f32")


def _insert(e: Emitter, descending: Value, x: Value) -> Value:
    """Put a number into a descending vector, behind its equals; the last element falls out."""
    x = e.splat(x, SLOTS)
    infinity = e.f32(float("inf"), SLOTS)
    previous = e.shuffle(descending, infinity, [SLOTS, *range(SLOTS - 1)])
    moved = e.select(e.compare("olt", previous, x), previous, x)
    return e.select(e.compare("olt", descending, x), moved, descending)


def match(
    kernel: MicroKernel,
    data: str,
    values: str,
    indices: str | None,
    replaced: str | None = None,
    replacement: str | None = None,
    last_slot_first: bool = False,
) -> None:
    """Match the elements of each partition, in order, with eight values; every value matches at most once.

    Args:
        data: tile searched, row-major in each partition.
        values: eight per partition; among equal ones the first takes the first match, or the last with
            `last_slot_first`.
        indices: eight integers per partition: positions of the matches, all ones for a value without one.
        replaced: tile that receives data with the matches replaced; may be `data` itself.
        replacement: the immediate that replaces them.
    """
    e = kernel.e
    operand, wanted_in = kernel.operands[data], kernel.operands[values]
    walked = [data, *([replaced] if replaced else [])]
    pointers = {name: kernel.pointer(name) for name in (*walked, values, *([indices] if indices else []))}
    walk = Walk.free([kernel.operands[n] for n in walked], e.host.lanes * VECTORS_PER_STEP, ordered=True)
    wanted, found = e.scratch(SLOTS * _F32), e.scratch(SLOTS * _F32)
    candidates = e.scratch(walk.lanes * _F32)
    number = e.splat(kernel.immediate_f32(replacement), 1) if replacement else None

    def step(chunk: Chunk, carried: Carried) -> Carried:
        raw = load(e, operand.dtype, chunk.pointers[0], chunk.lanes, chunk.strides[0], "bits")
        elements = from_raw(e, operand.dtype, e.bitcast(raw, convert.raw_scalar(operand.dtype)), "f32")
        if replaced:
            target = kernel.operands[replaced]
            same = target.dtype is operand.dtype
            kept, kind = (raw, "bits") if same else (elements, "f32")
            store(e, target.dtype, kept, chunk.pointers[1], chunk.strides[1], kind)
        hits = e.const("i1", 0, chunk.lanes)
        for slot in range(SLOTS):
            value = e.splat(e.load("float", e.offset(wanted, slot * _F32)), chunk.lanes)
            hits = e.or_(hits, e.compare("oeq", elements, value))
        mask = e.bits(hits)
        with e.when(e.compare("ne", mask, 0)):
            e.store(elements, candidates)
            with e.loop(bits.count(e, mask), mask) as loop:
                lane = bits.lowest(e, loop.values[0])
                loop.carry(bits.without_lowest(e, loop.values[0]))
                element = e.load("float", e.step(candidates, lane, _F32))
                slots = e.bits(e.compare("oeq", e.load("float", wanted, SLOTS), e.splat(element, SLOTS)))
                # An earlier lane of this step may have taken the last slot.
                with e.when(e.compare("ne", slots, 0)):
                    taken = bits.highest(e, slots) if last_slot_first else bits.lowest(e, slots)
                    # NaN equals nothing: the slot is taken.
                    e.store(e.f32(float("nan")), e.step(wanted, taken, _F32))
                    where = e.add(chunk.number, e.mul(lane, chunk.apart))
                    e.store(e.convert("trunc", where, "i32"), e.step(found, taken, _F32))
                    if replaced and number is not None:
                        at = e.step(chunk.pointers[1], lane, chunk.strides[1])
                        store(e, target.dtype, number, at, target.dtype.itemsize, "f32")
        return carried

    with e.loop(operand.shape[0]) as partition:
        rows = {
            name: e.step(pointer, partition.index, kernel.operands[name].strides[0])
            for name, pointer in pointers.items()
        }
        _gather(e, wanted_in, rows[values], wanted)
        e.store(e.i32(_ABSENT, SLOTS), found)
        walk.run(e, [rows[name] for name in walked], (), step)
        if indices:
            _scatter(e, found, "i32", kernel.operands[indices], rows[indices], "i32")


def _gather(e: Emitter, operand: CpuOperand, row: Value, to: Value) -> None:
    """The eight elements of a partition to dense float32."""

    def step(chunk: Chunk, carried: Carried) -> Carried:
        values = load(e, operand.dtype, chunk.pointers[0], chunk.lanes, chunk.strides[0], "f32")
        e.store(values, e.step(to, chunk.number, _F32))
        return carried

    Walk.free([operand], SLOTS, ordered=True).run(e, [row], (), step)


def _scatter(e: Emitter, source: Value, scalar: str, operand: CpuOperand, row: Value, compute: str) -> None:
    """Eight dense lanes of a 32-bit compute type to the elements of a partition."""

    def step(chunk: Chunk, carried: Carried) -> Carried:
        values = e.load(scalar, e.step(source, chunk.number, _F32), chunk.lanes)
        store(e, operand.dtype, values, chunk.pointers[0], chunk.strides[0], compute)
        return carried

    Walk.free([operand], SLOTS, ordered=True).run(e, [row], (), step)
