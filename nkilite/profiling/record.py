"""A profile as plain data: what `nkilite profile --json` writes; profile.schema.json describes it."""

from __future__ import annotations

import json
from pathlib import Path

from nkilite.plain import plain_json
from nkilite.profiling.meetings import MeetingWait, meeting_waits
from nkilite.profiling.overlap import Communication, communication
from nkilite.profiling.result import LineCost, Profile

__all__ = ["SCHEMA", "record", "write_record"]

SCHEMA = Path(__file__).with_name("profile.schema.json")
VERSION = 1  # of the schema; a field that changes its meaning or goes away makes a new one


def record(profile: Profile) -> dict[str, object]:
    """The figures of a profile: times in microseconds, all of them modelled."""
    known = profile.accuracy
    return {
        "version": VERSION,
        "kernel": profile.name,
        "target": profile.target.name,
        "cores": profile.cores,
        "order": profile.order,
        "latency_us": profile.latency_us,
        "captured_us": profile.captured_us,
        "span_us": profile.span_us,
        "accuracy": {
            "kind": known.kind, "measurements": known.rows, "median_error": known.median, "low_us": known.low_us,
            "high_us": known.high_us, "warnings": list(known.warnings),
        },
        "instructions": len(profile.workload),
        "bottleneck": profile.bottleneck,
        "engines": {name: use._asdict() for name, use in profile.engines.items()},
        "hbm_read_bytes": profile.hbm_read_bytes,
        "hbm_write_bytes": profile.hbm_write_bytes,
        "sbuf_peak_bytes": profile.sbuf_peak_bytes,
        "psum_peak_banks": profile.psum_peak_banks,
        "mfu": profile.mfu,
        "mbu": profile.mbu,
        "fits": profile.overflow is None and profile.spills is None,
        "spilled_bytes": 0 if profile.spills is None else profile.spills.saved_bytes,
        "reloaded_bytes": 0 if profile.spills is None else profile.spills.reloaded_bytes,
        "guessed_loops": profile.guessed_loops,
        "lines": [_line(cost) for cost in profile.lines],
        "topology": None if profile.world is None else profile.world.topology.name,
        "ranks": 1 if profile.world is None else profile.world.ranks,
        "communication": [_communication(found) for found in communication(profile)],
        "meeting_waits": [_wait(profile, wait) for wait in meeting_waits(profile)],
    }


def _line(cost: LineCost) -> dict[str, object]:
    return {
        "file": cost.location.file, "line": cost.location.line, "code": cost.location.source.strip(),
        "instructions": cost.instructions, "busy_us": cost.busy_us, "critical_us": cost.critical_us,
    }


def _communication(found: Communication) -> dict[str, object]:
    kind, group, size, transfer = found.collective
    return {
        "file": found.location.file, "line": found.location.line, "kind": kind, "ranks": len(group), "bytes": size,
        "times": found.times, "algorithm": transfer.algorithm, "busy_us": found.busy_us,
        "exposed_us": found.exposed_us, "delayed_us": found.delayed_us,
    }


def _wait(profile: Profile, wait: MeetingWait) -> dict[str, object]:
    cause = profile.location(wait.cause)
    return {
        "file": wait.location.file, "line": wait.location.line, "core": wait.core, "waited_us": wait.waited_us,
        "meetings": wait.meetings, "waited_for": {"core": wait.other, "file": cause.file, "line": cause.line},
    }


def write_record(profile: Profile, path: str | Path) -> None:
    """Write the record of a profile to a file."""
    Path(path).write_text(json.dumps(plain_json(record(profile)), indent=1) + "\n")
