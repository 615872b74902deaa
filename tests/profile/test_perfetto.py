"""The Chrome trace: well-formed, complete, and consistent with the profile."""

from __future__ import annotations

import json
import re
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

import nkilite as nki
from kernels.matmul import matmul
from nkilite.ir.types import MemoryRegion
from nkilite.profiling.occupancy import occupancy
from nkilite.profiling.perfetto import trace_events, write_trace
from nkilite.profiling.result import Profile


@pytest.fixture(scope="module")
def profile() -> Profile:
    a = np.zeros((512, 512), np.float32)
    return nki.profile(matmul, a, a, target="trn2", TILES_IN_BLOCK_K=2)


def test_every_instruction_is_a_slice_on_its_queue(profile: Profile, tmp_path: Path) -> None:
    path = tmp_path / "trace.json"
    write_trace(profile, path)
    events = json.loads(path.read_text())["traceEvents"]
    slices = [e for e in events if e["ph"] == "X"]
    assert len(slices) == len(profile.workload)
    products = sum(e["dur"] for e in slices if e["name"] == "nc_matmul")
    assert products == pytest.approx(profile.engines["Tensor"].busy_us)
    by_queue: dict[int, list] = {}
    for e in slices:
        by_queue.setdefault(e["tid"], []).append((e["ts"], e["ts"] + e["dur"]))
    for spans in by_queue.values():
        spans.sort()
        assert all(end <= start + 1e-9 for (_, end), (start, _) in pairwise(spans))
    opened = {e["id"]: e["ts"] for e in events if e["ph"] == "b"}
    closed = {e["id"]: e["ts"] for e in events if e["ph"] == "e"}
    assert opened.keys() == closed.keys() == set(profile.dma_instructions.tolist())
    assert all(closed[i] > opened[i] for i in opened)
    assert all("matmul.py" in e["args"]["line"] or "tiles.py" in e["args"]["line"] for e in slices)


def test_arrows_lead_from_what_was_waited_for(profile: Profile) -> None:
    events = trace_events(profile)["traceEvents"]
    begins, ends = ({e["id"]: e for e in events if e["ph"] == ph} for ph in "sf")
    line, queues = profile.timeline, np.asarray(profile.workload.queues)
    assert begins.keys() == ends.keys() == set(np.flatnonzero(line.cause >= 0).tolist())
    for i, begin in begins.items():
        cause = int(line.cause[i])
        assert begin["tid"] == queues[cause]
        assert line.start[cause] / 1000 <= begin["ts"] <= line.end[cause] / 1000
        assert (ends[i]["tid"], ends[i]["ts"]) == (queues[i], line.start[i] / 1000)


def test_slices_name_their_operands(profile: Profile) -> None:
    product = next(e for e in trace_events(profile)["traceEvents"] if e["name"] == "nc_matmul")
    assert re.fullmatch(r"\S+: float32 \[128, 512\] in psum", product["args"]["dst"])
    assert re.fullmatch(r"\S+: float32 \[128, 128\] in sbuf", product["args"]["stationary"])


def test_occupancy_starts_and_ends_empty_and_stays_within_memory(profile: Profile) -> None:
    for region, limit in (
        (MemoryRegion.sbuf, profile.target.sbuf_fmax_bytes), (MemoryRegion.psum, profile.target.psum_partition_bytes)
    ):
        times, sizes = occupancy(profile, region)
        assert (np.diff(times) > 0).all()
        assert sizes[-1] == 0
        assert 0 < sizes.max() <= limit
