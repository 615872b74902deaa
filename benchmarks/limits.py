"""What the host can do at best: a streaming copy, and multiply-adds that never leave the registers.

Each limit is a callable that does a given amount of work, so that it can take part in a contest.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable

import numpy as np

from nkilite.codegen.emitter import Emitter, Value
from nkilite.codegen.tiles import configure
from nkilite.host.cpu import Host, Products, host
from nkilite.native.library import Source, library

_CHAINS = 24  # independent accumulators: enough to hide the latency of two units, few enough to stay in registers
_TILE_CHAINS = 4
_TILE_FLOP = 2 * 16 * 16 * 32


def streaming_copy(shape: tuple[int, ...], dtype: str = "float32") -> Callable[[], object]:
    """A copy between two arrays by the C library, which uses non-temporal stores for large ones."""
    source, target = np.ones(shape, dtype), np.zeros(shape, dtype)
    return lambda: np.copyto(target, source)


def fma_peak(flop: float) -> Callable[[], object]:
    """So many float32 operations in multiply-adds between registers, on one core."""
    level = host()
    chains = min(_CHAINS, level.registers - 4)
    e = Emitter(level)
    factor = e.f32(1.0, level.lanes)
    starts = [e.f32(float(i), level.lanes) for i in range(chains)]
    with e.loop(Value("%trips", "i64"), *starts) as loop:
        loop.carry(*(e.fma(value, factor, factor) for value in loop.values))
    memory = e.scratch(level.vector_bits // 8)
    for value in loop.results:
        e.store(value, memory)
    return _repeated("benchmark_fma_peak", e, level, round(flop / (2 * chains * level.lanes)))


def tile_peak(flop: float) -> Callable[[], object] | None:
    """So many bfloat16 operations in the tile unit, on one core; None on CPUs without."""
    level = host()
    if level.products is not Products.tiles:
        return None
    e = Emitter(level)
    configure(e)
    for register in range(8):
        e.call("llvm.x86.tilezero", "void", 0, e.const("i8", register))
    with e.loop(Value("%trips", "i64")):
        for register in range(_TILE_CHAINS):
            sides = 4 + register // 2, 6 + register % 2
            e.call("llvm.x86.tdpbf16ps", "void", 0, *(e.const("i8", r) for r in (register, *sides)))
    e.call("llvm.x86.tilerelease", "void", 0)
    return _repeated("benchmark_tile_peak", e, level, round(flop / (_TILE_CHAINS * _TILE_FLOP)))


def _repeated(name: str, e: Emitter, level: Host, trips: int) -> Callable[[], object]:
    """A function of the number of trips, compiled, and bound to one number."""
    e.ret(0)
    text = f"define i32 @{name}(i64 %trips) {{\nentry:\n{e.body()}\n}}\n"
    address = library(level).addresses([Source(name, text, tuple(e.declarations.values()))])[name]
    function = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_int64)(address)
    return lambda: function(trips)
