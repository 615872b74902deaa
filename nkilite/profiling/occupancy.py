"""How full SBUF and PSUM are over the modelled time."""

from __future__ import annotations

import numpy as np

from nkilite.ir.types import MemoryRegion
from nkilite.profiling.result import Profile

__all__ = ["occupancy"]


def occupancy(profile: Profile, region: MemoryRegion, core: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """A step function: from times[i] microseconds on, sizes[i] bytes per partition of a core's memory are in use.

    A tile is in use from the start of the first instruction that touches it to the end of the last. PSUM counts whole
    banks.
    """
    program, line = profile.program, profile.timeline
    first = np.full(len(program.buffers), np.inf)
    last = np.full(len(program.buffers), -np.inf)
    code = np.frombuffer(program.code, np.int64)
    for number in np.unique(profile.ids).tolist():
        rows = np.flatnonzero(profile.ids == number)
        for operand in program.signatures[number].operands:
            if operand.type.region is region:
                buffers = code[profile.starts[rows] + operand.word]
                np.minimum.at(first, buffers, line.start[rows])
                np.maximum.at(last, buffers, line.finish[rows])
    grain = program.target.psum_bank_bytes if region is MemoryRegion.psum else 1
    live = np.flatnonzero(np.isfinite(first) & (profile.launch.buffer_core == core))
    size = np.array([-(-program.buffers[b].partition_bytes // grain) * grain for b in live.tolist()], np.int64)
    times, where = np.unique(np.concatenate([[0.0], first[live], last[live]]) / 1000, return_inverse=True)
    changes = np.bincount(where, np.concatenate([[0], size, -size]), len(times))
    return times, np.cumsum(changes).astype(np.int64)
