"""A profile as a Chrome trace, which ui.perfetto.dev and chrome://tracing open.

Source of the format: the public "Trace Event Format" document. Queues are threads of slices, DMA transfers are
asynchronous slices from their first to their last byte, memory occupancy is two counters. Times are modelled.
"""

from __future__ import annotations

import json
from itertools import product
from pathlib import Path

import numpy as np

from nkilite.ir.types import MemoryRegion
from nkilite.plain import plain_json
from nkilite.profiling.occupancy import occupancy
from nkilite.profiling.queues import named_on, queue_name
from nkilite.profiling.result import Profile

__all__ = ["trace_events", "write_trace"]

_PROCESS = 1
_NEAR_THE_END = 0.99  # of a slice: an arrow belongs to the slice that its beginning lies in


class _Operands:
    """What instructions read and write, in words: dtype, shape, memory and buffer of each operand."""

    def __init__(self, profile: Profile) -> None:
        self._profile = profile
        self._starts, self._code = profile.starts.tolist(), profile.program.code
        self._kinds = [
            [(o.name, o.word, f"{o.type.dtype} {list(o.type.shape)} in {o.type.region}") for o in s.operands]
            for s in profile.program.signatures
        ]

    def of(self, instruction: int) -> dict[str, str]:
        """The operands of an instruction, by name."""
        start, buffers = self._starts[instruction], self._profile.program.buffers
        return {
            name: f"{buffers[self._code[start + word]].label}: {kind}"
            for name, word, kind in self._kinds[self._code[start]]
        }


def trace_events(profile: Profile) -> dict[str, object]:
    """The trace as a JSON-ready object."""
    line, work = profile.timeline, profile.workload
    events: list[dict[str, object]] = [
        _named("process_name", 0, f"{profile.name} on {profile.machine} (modelled)"),
        *(_named("thread_name", q, queue_name(q, profile.cores)) for q in np.unique(work.queues).tolist()),
    ]
    where = np.frombuffer(profile.program.code, np.int64)[profile.starts + 1].tolist()
    places = [str(location) for location in profile.program.locations]
    critical = set(profile.critical_path)
    start, busy = (line.start / 1000).tolist(), ((line.end - line.start) / 1000).tolist()
    moving, finish = (line.moving / 1000).tolist(), (line.finish / 1000).tolist()
    operands, queues = _Operands(profile), np.asarray(work.queues).tolist()
    for i, queue in enumerate(queues):
        name = profile.program.names.get(i) or profile.opcode(i)
        details = {"line": places[where[i]], "instruction": i, "critical": i in critical, **operands.of(i)}
        if line.cause[i] >= 0:
            details["waited for"] = profile.describe(int(line.cause[i]))
        slice_ = {"name": name, "pid": _PROCESS, "cat": "modelled"}
        if line.partner[i] >= 0:
            details["met"] = profile.describe(int(line.partner[i]))
            events.append({
                **slice_, "name": f"{name} (waiting)", "ph": "X", "tid": queue, "ts": line.arrival[i] / 1000,
                "dur": (line.start[i] - line.arrival[i]) / 1000, "args": details,
            })
        events.append({**slice_, "ph": "X", "tid": queue, "ts": start[i], "dur": busy[i], "args": details})
        waited = int(line.cause[i])
        if waited >= 0:  # an arrow from the end of what it waited for
            flow = {"name": "waited for", "cat": "dependency", "id": i, "pid": _PROCESS}
            left = start[waited] + busy[waited] * _NEAR_THE_END
            events.append({**flow, "ph": "s", "tid": queues[waited], "ts": left})
            events.append({**flow, "ph": "f", "bp": "e", "tid": queue, "ts": start[i]})
        if work.dma_engines[i][1]:
            transfer = {**slice_, "cat": "transfer", "id": i}
            events.append({**transfer, "ph": "b", "ts": moving[i], "args": details})
            events.append({**transfer, "ph": "e", "ts": finish[i]})
    for core, (region, label) in product(
        range(profile.cores), ((MemoryRegion.sbuf, "SBUF"), (MemoryRegion.psum, "PSUM"))
    ):
        name = named_on(f"{label} bytes per partition", core, profile.cores)
        for time, size in zip(*(a.tolist() for a in occupancy(profile, region, core)), strict=True):
            events.append({"ph": "C", "pid": _PROCESS, "name": name, "ts": time, "args": {"bytes": size}})
    about = {"error": profile.error, "order": profile.order}
    return {"traceEvents": events, "displayTimeUnit": "ns", "otherData": about}


def write_trace(profile: Profile, path: str | Path) -> None:
    """Write the trace to a file."""
    Path(path).write_text(json.dumps(plain_json(trace_events(profile))))


def _named(kind: str, thread: int, name: str) -> dict[str, object]:
    return {"ph": "M", "pid": _PROCESS, "tid": thread, "name": kind, "args": {"name": name}}
