"""One pass over a tile that computes and stores every element and reduces the results of each partition."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from nkilite.codegen.elementwise import load, step_lanes, store
from nkilite.codegen.emitter import Emitter, Value
from nkilite.codegen.kernel import MicroKernel
from nkilite.codegen.loops import Carried
from nkilite.codegen.sums import Combination, Combine, Sum
from nkilite.codegen.walk import Chunk, Walk


def map_reduce(
    kernel: MicroKernel,
    out: str | None,
    inputs: Sequence[str],
    body: Callable[..., Value],
    combine: Combine,
    identity: float,
    finish: Callable[[Value, Value], None],
    positions: bool = False,
) -> None:
    """out[p, i] = x[p, i] = body(e, *inputs[p, i]); finish(p, the combined x[p, :]) for every partition p.

    Values are float32 and combined before `out` rounds them. Every lane of the loop's vectors is an
    accumulator; the order of combination is fixed by the shapes and the CPU level.

    Args:
        out: tile to store to; None only reduces.
        inputs: arguments. The first is a tile; an argument with one element per partition is repeated along
            its free dimensions; an immediate is repeated everywhere.
        combine: associative operator on float32 lanes.
        identity: operand that `combine` ignores.
        finish: receives the partition's index (i64) and the result (float32 scalar); what it reads or writes has one
            element per partition, and is not touched before.
        positions: body is called with the row-major position in the partition (i32 lanes) before the inputs.
    """
    e = kernel.e
    if out and kernel.operands[out].unread:
        out = None
    count = kernel.operands[inputs[0]].columns
    tiles = [name for name in inputs if kernel.has(name) and kernel.operands[name].columns == count]
    vectors = [name for name in inputs if kernel.has(name) and name not in tiles]
    immediates = {name: kernel.immediate_f32(name) for name in inputs if not kernel.has(name)}
    walked = [*([out] if out else []), *tiles]
    operands = [kernel.operands[name] for name in walked]
    pointers = {name: kernel.pointer(name) for name in (*walked, *vectors)}
    walk = Walk.free(operands, step_lanes(e), written=1 if out else 0)
    what = Combination(combine, "float", identity)

    with e.loop(operands[0].shape[0]) as partition:
        at = {n: e.step(p, partition.index, kernel.operands[n].strides[0]) for n, p in pointers.items()}
        repeated = dict(immediates)
        for name in vectors:
            repeated[name] = e.extract(load(e, kernel.operands[name].dtype, at[name], 1, 0, "f32"), 0)

        def settle(total: Value, index: Value = partition.index) -> None:
            finish(index, e.extract(total, 0))

        def step(chunk: Chunk, carried: Carried) -> Carried:
            loaded = _loaded(kernel, walked, tiles, chunk)
            values = [loaded[n] if n in loaded else e.splat(repeated[n], chunk.lanes) for n in inputs]
            if positions:
                values.insert(0, _positions(e, chunk, kernel.from_column))
            result = body(e, *values)
            if out:
                store(e, operands[0].dtype, result, chunk.pointers[0], chunk.strides[0], "f32")
            if kernel.sweep is not None:
                kernel.sweep.combine(what, result, settle)
                return carried
            total = Sum(e, what, walk.lanes, carried)
            total.take(what.only(e, result, chunk.inside))
            return tuple(total.vectors)

        total = Sum(e, what, walk.lanes)
        total.vectors = list(walk.run(e, [at[name] for name in walked], tuple(total.vectors), step))
        if kernel.sweep is None:
            settle(total.result())


def _loaded(kernel: MicroKernel, walked: Sequence[str], tiles: Sequence[str], chunk: Chunk) -> dict[str, Value]:
    """The elements of tiles, of all that is walked over, in a chunk."""
    return {
        name: load(kernel.e, kernel.operands[name].dtype, pointer, chunk.lanes, stride, "f32")
        for name, pointer, stride in zip(walked, chunk.pointers, chunk.strides, strict=True)
        if name in tiles
    }


def _positions(e: Emitter, chunk: Chunk, column: Value | None) -> Value:
    """The row-major index of every lane, as i32, where the part begins at a column."""
    position = chunk.number if column is None else e.add(chunk.number, column)
    first = e.splat(e.convert("trunc", position, "i32"), chunk.lanes)
    return e.add(first, e.vector("i32", [chunk.apart * lane for lane in range(chunk.lanes)]))
