"""Profiles as one self-contained HTML page: timeline with dependencies, memories, roofline, lines, waits, advice.

The page is report.html with the figures of the profiles put in as JSON; it loads nothing from anywhere.
"""

from __future__ import annotations

import importlib
import json
import math
import os
import sys
import tempfile
import webbrowser
from collections.abc import Sequence
from importlib import resources
from itertools import product
from pathlib import Path

import numpy as np

from nkilite.ir.types import MemoryRegion
from nkilite.notebook import frame
from nkilite.plain import plain_json
from nkilite.profiling.advice import advise
from nkilite.profiling.meetings import active_us, meeting_waits, waiting_us
from nkilite.profiling.occupancy import occupancy
from nkilite.profiling.overlap import communication, exposed_us
from nkilite.profiling.queues import named_on, queue_name
from nkilite.profiling.result import Profile, matmul_flops, public_opcode
from nkilite.profiling.text import size_text, time_text

__all__ = ["page", "show_page", "write_page"]

_WAITS = 20
_TRANSFER_LANES = 4  # DMA transfers in flight at a time are shown on up to this many lanes


def page(profiles: Profile | Sequence[Profile]) -> str:
    """The HTML text: of several profiles, one at a time, with a table of all."""
    profiles = [profiles] if isinstance(profiles, Profile) else profiles
    template = resources.files("nkilite.profiling").joinpath("report.html").read_text(encoding="utf-8")
    data = json.dumps(plain_json([_data(profile) for profile in profiles]), separators=(",", ":"))
    return template.replace("/*DATA*/null", data.replace("<", "\\u003c"))


def write_page(profiles: Profile | Sequence[Profile], path: str | os.PathLike[str]) -> None:
    """Write the page to a file."""
    Path(path).write_text(page(profiles), encoding="utf-8")


def show_page(profile: Profile) -> None:
    """Show the page below the cell of a notebook; elsewhere in the browser, from a file it says the name of."""
    if "ipykernel" in sys.modules:
        display = importlib.import_module("IPython.display")
        display.display(display.HTML(frame(page(profile))))
        return
    with tempfile.NamedTemporaryFile("w", suffix=f"-{profile.name}.html", delete=False, encoding="utf-8") as file:
        file.write(page(profile))
    if not webbrowser.open(Path(file.name).as_uri()):
        print(f"written: {file.name}")


def _data(profile: Profile) -> dict[str, object]:
    line, work = profile.timeline, profile.workload
    program = profile.program
    where = np.frombuffer(program.code, np.int64)[profile.starts + 1]
    opcodes = sorted({public_opcode(s) for s in program.signatures})
    number = {name: i for i, name in enumerate(opcodes)}
    by_signature = np.array([number[public_opcode(s)] for s in program.signatures])
    edges = work.edges
    by_consumer = np.lexsort((edges.producer, edges.consumer))
    critical = np.zeros(len(work), int)
    critical[profile.critical_path] = 1
    return {
        "name": profile.name, "target": profile.machine, "order": profile.order, "error": profile.error,
        "span": profile.span_us, "cards": _cards(profile),
        "engines": [[name, use.instructions, use.busy_us, use.active] for name, use in profile.engines.items()],
        "lines": [
            [f"{_file(c.location.file)}:{c.location.line}", c.location.source, c.instructions, list(c.busy_us.items()),
             c.critical_us]
            for c in profile.lines
        ],
        "waits": [
            [g.queue, g.start_us, g.length_us, profile.describe(g.instruction), profile.describe(g.cause)]
            for g in profile.gaps[:_WAITS]
        ],
        "communication": [
            [f"{_file(c.location.file)}:{c.location.line}", c.collective.kind, len(c.collective.group),
             size_text(c.collective.size), c.times, c.collective.transfer.algorithm, c.busy_us, c.exposed_us,
             c.delayed_us]
            for c in communication(profile)[:_WAITS]
        ],
        "meetings": [
            [f"{_file(w.location.file)}:{w.location.line}", w.core, w.other, w.meetings, w.waited_us,
             profile.describe(w.cause)]
            for w in meeting_waits(profile)[:_WAITS]
        ],
        "advice": [
            [a.kind, f"{_file(a.location.file)}:{a.location.line}" if a.location else "", a.figure, a.text]
            for a in advise(profile)
        ],
        "roof": _roof(profile),
        "lanes": _lanes(profile), "curves": _curves(profile),
        "opcodes": opcodes, "opcode": by_signature[profile.ids].tolist(), "line": where.tolist(),
        "lines_of": [[f"{_file(p.file)}:{p.line}", p.source] for p in program.locations],
        "edges": [edges.producer[by_consumer].tolist(), edges.consumer[by_consumer].tolist()],
        "names": program.names, "critical": critical.tolist(),
        "cause": np.where(line.partner >= 0, line.partner, line.cause).tolist(),
        "start": _us(line.start), "busy": _us(line.end - line.start), "finish": _us(line.finish),
    }


def _cards(profile: Profile) -> list[tuple[str, str]]:
    cards = [
        ("latency (modelled)", time_text(profile.latency_us)), ("bottleneck", profile.bottleneck),
        ("MFU", f"{profile.mfu:.1%}"), ("MBU", f"{profile.mbu:.1%}"),
        ("instructions", f"{len(profile.workload):,}"),
        ("HBM read", size_text(profile.hbm_read_bytes)), ("HBM written", size_text(profile.hbm_write_bytes)),
        ("SBUF peak per partition", size_text(profile.sbuf_peak_bytes)),
        ("PSUM peak", f"{profile.psum_peak_banks} banks"),
        ("DMA engines busy, mean", f"{profile.dma_utilization:.1%}"),
    ]
    if profile.collectives:
        cards.append(("communication not hidden", time_text(exposed_us(profile))))
    if profile.cores > 1:
        cards += [
            (f"core {core} active, waiting", f"{time_text(active)}, {time_text(waiting)}")
            for core, (active, waiting) in enumerate(zip(active_us(profile), waiting_us(profile), strict=True))
        ]
    if profile.guessed_loops:
        cards.append(("loops taken to run once", str(profile.guessed_loops)))
    return cards


def _roof(profile: Profile) -> dict[str, object]:
    """Peak and achieved GFLOP/s, HBM GB/s, FLOP per byte."""
    flops: dict[str, int] = {}
    for number, count in enumerate(np.bincount(profile.ids, minlength=1).tolist()):
        amount, dtype = matmul_flops(profile.program.signatures[number]) if count else (0, "")
        flops[dtype] = flops.get(dtype, 0) + amount * count
    dtype = max(flops, key=lambda d: flops[d]) or "bfloat16"
    intensity = profile.arithmetic_intensity
    return {
        "dtype": dtype, "peak": profile.target.matmul_flops_per_ns(dtype) * profile.cores,
        "bandwidth": profile.target.hbm_bytes_per_ns * profile.cores,
        "intensity": intensity if math.isfinite(intensity) else 0,
        "achieved": profile.flops / (profile.latency_us * 1000),
    }


def _lanes(profile: Profile) -> list[dict[str, object]]:
    """Slices by queue, and DMA transfers on lanes on which they do not overlap."""
    line, queues = profile.timeline, np.asarray(profile.workload.queues)
    lanes = []
    for core in range(profile.cores):
        lanes += [
            _lane(queue_name(q, profile.cores), line.start, line.end, np.flatnonzero(queues == q), counts=True)
            for q in np.unique(queues[profile.launch.core == core]).tolist()
        ]
        lanes += _transfer_lanes(profile, core)
    return lanes


def _transfer_lanes(profile: Profile, core: int) -> list[dict[str, object]]:
    line, moves = profile.timeline, profile.dma_instructions
    moves = moves[profile.launch.core[moves] == core]
    free = [0.0] * _TRANSFER_LANES
    members: list[list[int]] = [[] for _ in free]
    for i in moves[np.argsort(line.moving[moves], kind="stable")].tolist():
        lane = next((k for k, t in enumerate(free) if t <= line.moving[i]), None)
        if lane is None:
            lane = min(range(len(free)), key=lambda k: free[k])
        members[lane].append(i)
        free[lane] = max(free[lane], float(line.finish[i]))
    names = [named_on("DMA, more in flight" if k else "DMA transfers", core, profile.cores) for k in range(len(free))]
    return [
        _lane(names[k], line.moving, line.finish, np.array(found), counts=False)
        for k, found in enumerate(members) if found
    ]


def _lane(name: str, start: np.ndarray, end: np.ndarray, members: np.ndarray, counts: bool) -> dict[str, object]:
    members = members[np.argsort(start[members], kind="stable")]
    ends = np.maximum.accumulate(end[members]) if len(members) else end[members]
    return {
        "name": name, "counts": counts, "start": _us(start[members]), "end": _us(ends), "id": members.tolist()
    }


def _curves(profile: Profile) -> list[dict[str, object]]:
    found = []
    memories = (
        (MemoryRegion.sbuf, "SBUF per partition", profile.target.sbuf_fmax_bytes),
        (MemoryRegion.psum, "PSUM per partition", profile.target.psum_partition_bytes),
    )
    for core, (region, name, limit) in product(range(profile.cores), memories):
        times, sizes = occupancy(profile, region, core)
        name = named_on(name, core, profile.cores)
        found.append({"name": name, "limit": limit, "t": np.round(times, 4).tolist(), "v": sizes.tolist()})
    return found


def _us(ns: np.ndarray) -> list[float]:
    found: list[float] = np.round(ns / 1000, 4).tolist()
    return found


def _file(path: str) -> str:
    return path.rpartition("/")[2]
