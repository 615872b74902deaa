"""Profiles of launches on two cores: one timeline, waits at meetings, shared memory, advice, reports."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from test_record import follows
from typer.testing import CliRunner

import autotune
import nkilite as nki
import nkilite.collectives as ncc
import nkilite.isa as nisa
import nkilite.language as nl
from kernels.matmul import matmul_on_cores
from nkilite.__main__ import app
from nkilite.cli.specs import load_kernel
from nkilite.machine.target import get_target
from nkilite.machine.timeline import simulate
from nkilite.profiling import advise
from nkilite.profiling.html import write_page
from nkilite.profiling.meetings import active_us, meeting_waits, waiting_us
from nkilite.profiling.perfetto import trace_events
from nkilite.profiling.profile import profile_programs
from nkilite.profiling.record import SCHEMA, record
from nkilite.profiling.text import comparison, meeting_table

F32 = np.float32
X = np.zeros((256, 512), F32)


def tile(x):
    return nl.ndarray((128, x.shape[1]), dtype=x.dtype, buffer=nl.sbuf)


@nki.jit
def halves(x, first: int = 1, second: int = 1, rounds: int = 0):
    """Every core computes so many times on its half, and in so many rounds more they meet and read the other half."""
    core = nl.program_id(0)
    out = nl.ndarray(x.shape, dtype=x.dtype, buffer=nl.shared_hbm)
    mine, other = (slice(128 * c, 128 * (c + 1)) for c in (core, 1 - core))
    a = tile(x)
    nisa.dma_copy(a, x[mine])
    for _ in range(first if core == 0 else second):
        nisa.activation(a, nl.exp, a)  # the work
    nisa.dma_copy(out[mine], a)
    for turn in range(rounds):
        nisa.core_barrier(out, (0, 1))  # the meeting
        nisa.dma_copy(a, out[other])
        for _ in range(20 if core == turn % 2 else 0):
            nisa.activation(a, nl.exp, a)
        nisa.core_barrier(out, (0, 1))
        nisa.dma_copy(out[mine], a)
    return out


def code(location) -> str:
    return location.source.strip()


def test_cores_that_do_not_meet_take_as_long_as_one() -> None:
    ample = replace(get_target("trn2"), device_hbm_bytes_per_ns=8000.0)  # more than the DMA engines of both move
    both, one = nki.profile(halves[2], X, target=ample), nki.profile(halves, X[:128], target=ample)
    assert both.cores == 2
    assert both.span_us == pytest.approx(one.span_us, rel=0.02)  # a start of each transfer at a time
    own, other = both.timeline.start[: len(one.workload)], both.timeline.start[len(one.workload):]
    assert own == pytest.approx(other, rel=0.05)
    scalar = [both.engines["Scalar (core 0)"], both.engines["Scalar (core 1)"], one.engines["Scalar"]]
    assert len({(use.instructions, use.busy_us) for use in scalar}) == 1
    assert both.engines["DMA (core 1)"].instructions == 2
    assert both.hbm_bytes == 2 * one.hbm_bytes
    assert both.mbu == pytest.approx(one.mbu, rel=0.02)


def test_a_matmul_on_two_cores_takes_half_the_time() -> None:
    a = np.zeros((512, 1024), F32)
    one, two = (nki.profile(matmul_on_cores[n], a, a, target="trn2") for n in (1, 2))
    assert two.flops == one.flops
    assert 0.48 < two.span_us / one.span_us < 0.55
    assert two.engines["Tensor (core 0)"].busy_us == pytest.approx(one.engines["Tensor"].busy_us / 2, rel=0.05)


@pytest.mark.parametrize("order", ["compiler", "program"])
def test_a_barrier_ends_when_the_last_core_has_come(order: str) -> None:
    found = nki.profile(halves[2], X, 30, 1, 1, target="trn2", order=order)
    line = found.timeline
    met = [i for i in range(len(found.workload)) if found.opcode(i) == "core_barrier"]
    pairs = list(zip(met[: len(met) // 2], met[len(met) // 2 :], strict=True))
    assert len(pairs) == 2
    for one, other in pairs:
        assert line.start[one] == line.start[other] == max(line.arrival[one], line.arrival[other])
        assert line.end[one] == line.end[other]
    early, late = pairs[0][1], pairs[0][0]
    assert line.arrival[early] < line.start[early]
    assert line.partner[early] == late
    assert line.partner[late] == -1
    reads = next(i for i in range(early, len(found.workload)) if found.opcode(i) == "dma_copy")
    assert line.start[reads] >= line.finish[early]  # what the other core has written


def test_waits_name_the_meeting_and_what_the_other_core_did_meanwhile() -> None:
    found = nki.profile(halves[2], X, 30, 1, 1, target="trn2")
    longest = meeting_waits(found)[0]
    assert (longest.core, longest.other) == (1, 0)
    assert code(longest.location).endswith("# the meeting")
    assert code(found.location(longest.cause)).endswith("# the work")
    assert longest.waited_us == pytest.approx(waiting_us(found)[1], rel=0.2)
    gap = next(g for g in found.gaps if g.queue == "GpSimd (core 1)" and found.opcode(g.cause) == "core_barrier")
    assert found.launch.core[gap.cause] == 0
    assert gap.length_us == longest.waited_us
    crossing = nki.profile(halves[2], X, 1, 30, 1, target="trn2")  # core 1 is late first, then core 0
    assert set(crossing.launch.core[crossing.critical_path].tolist()) == {0, 1}
    assert crossing.critical_us.sum() == pytest.approx(crossing.span_us)


def test_exchanges_begin_together_and_move_data_on_both_cores() -> None:
    @nki.jit
    def exchanged(x):
        core = nl.program_id(0)
        out = nl.ndarray(x.shape, dtype=x.dtype, buffer=nl.shared_hbm)
        a, b = tile(x), tile(x)
        nisa.dma_copy(a, x[:128])
        for _ in range(10 * core):
            nisa.activation(a, nl.exp, a)
        nisa.sendrecv(a, b, 1 - core, 1 - core, 0)
        nisa.dma_copy(out[core * 128 : core * 128 + 128], b)
        return out

    found = nki.profile(exchanged[2], X, target="trn2")
    one, other = (i for i in range(len(found.workload)) if found.opcode(i) == "sendrecv")
    line = found.timeline
    assert line.start[one] == line.start[other] == line.arrival[other] > line.arrival[one]
    assert line.moving[one] == line.moving[other]
    assert line.start[one + 1] >= line.finish[one]


def test_cores_share_the_bandwidth_of_their_memory(tmp_path: Path) -> None:
    """Copies within HBM read and write it: together the cores want more than their share of a slow device."""

    @nki.jit
    def copied(x):
        core = nl.program_id(0)
        out = nl.ndarray(x.shape, dtype=x.dtype, buffer=nl.shared_hbm)
        nisa.dma_copy(out[core], x[core])
        return out

    x = np.zeros((2, 2048, 2048), F32)
    chip = tmp_path / "narrow.toml"
    chip.write_text('inherits = "trn2"\ndevice_hbm_bytes_per_ns = 1000.0\n')
    found = nki.profile(copied[2], x, target=str(chip))
    assert found.span_us == pytest.approx(2 * x.nbytes / 250 / 1000, rel=0.02)
    assert found.mbu == pytest.approx(1, rel=0.1)


def test_meetings_keep_their_order_on_every_core() -> None:
    """In whatever order operands are ready: the second exchange of core 0 could go first, and that of core 1 not."""

    @nki.jit
    def twice(x):
        core = nl.program_id(0)
        out = nl.ndarray(x.shape, dtype=x.dtype, buffer=nl.shared_hbm)
        a, b, c, d = (tile(x) for _ in range(4))
        nisa.dma_copy(a, x[:128])
        nisa.dma_copy(c, x[:128])
        for _ in range(20):
            nisa.activation(a if core == 0 else c, nl.exp, a if core == 0 else c)
        nisa.sendrecv(a, b, 1 - core, 1 - core, 0)
        nisa.sendrecv(c, d, 1 - core, 1 - core, 1)
        nisa.dma_copy(out[core * 128 : core * 128 + 128], d)
        return out

    found = nki.profile(twice[2], X, target="trn2")
    start = {core: [found.timeline.start[i] for i in np.flatnonzero(found.launch.core == core)
                    if found.opcode(i) == "sendrecv"] for core in (0, 1)}
    assert start[0] == start[1] == sorted(start[0])


def test_collectives_of_two_cores_meet() -> None:
    @nki.jit
    def summed(x):
        core = nl.program_id(0)
        source, total, out = (
            nl.ndarray(x.shape, dtype=x.dtype, buffer=nl.shared_hbm, name=name) for name in ("source", "total", "out")
        )
        mine = slice(128 * core, 128 * core + 128)
        a = tile(x)
        nisa.dma_copy(a, x[mine])
        for _ in range(10 * core):
            nisa.activation(a, nl.exp, a)
        nisa.dma_copy(source[mine], a)
        nisa.core_barrier(source, (0, 1))
        ncc.all_reduce([source], [total], ncc.ReplicaGroup([[0]]), nl.add)
        nisa.dma_copy(out[mine], total[mine])
        return out

    found = nki.profile(summed[2], X, target="trn2")
    one, other = (i for i in range(len(found.workload)) if found.opcode(i) == "all_reduce")
    assert found.timeline.start[one] == found.timeline.start[other]


def test_loops_of_the_device_meet_as_often_as_they_turn() -> None:
    @nki.jit
    def looped(x, turns):
        core = nl.program_id(0)
        out = nl.ndarray(x.shape, dtype=x.dtype, buffer=nl.shared_hbm)
        a = tile(x)
        nisa.dma_copy(a, x[:128])
        nisa.dma_copy(out[core * 128 : core * 128 + 128], a)

        def body(_):
            nisa.activation(a, nl.exp, a)
            nisa.core_barrier(out, (0, 1))

        count = nl.ndarray((1, 1), dtype=nl.int32, buffer=nl.sbuf)
        nisa.dma_copy(count, turns)
        n = nisa.register_alloc()
        nisa.register_load(n, count)
        nl.fori_loop(0, n, body)
        return out

    turns = np.ones((1, 1), np.int32)
    found = nki.profile(looped[2], X, turns, target="trn2", trips=3)
    assert sum(found.opcode(i) == "core_barrier" for i in range(len(found.workload))) == 6
    guessed = nki.profile(looped[2], X, turns, target="trn2")
    assert guessed.guessed_loops == 1


def test_one_core_is_modelled_as_before() -> None:
    """Joining is only for several: the workload of one core has no meetings and no shared memory."""
    found = profile_programs(nki.jit(halves.function).programs(X[:128]))
    assert not found.workload.meetings
    assert not found.workload.memory_ns
    assert (simulate(found.workload).start == found.timeline.start).all()


def kinds(profile) -> set[str]:
    return {a.kind for a in advise(profile)}


def test_advice_on_cores_that_differ_and_on_those_that_meet_too_often() -> None:
    unbalanced = nki.profile(halves[2], X, 60, 1, 1, target="trn2")
    found = next(a for a in advise(unbalanced) if a.kind == "unbalanced cores")
    assert code(found.location).endswith("# the work")
    assert "core 1 works" in found.figure
    assert "barrier-bound" not in kinds(unbalanced)
    least, most = sorted(active_us(unbalanced))
    assert found.share == pytest.approx((most - least) / unbalanced.latency_us)

    bound = nki.profile(halves[2], X, 1, 1, 10, target="trn2")
    found = next(a for a in advise(bound) if a.kind == "barrier-bound")
    assert "core_barrier" in code(found.location)
    assert "at 20 meetings" in found.figure
    assert "unbalanced cores" not in kinds(bound)

    @nki.jit
    def meets_alone(x):
        out = nl.ndarray((2, 128, 4), dtype=x.dtype, buffer=nl.shared_hbm)
        nisa.dma_copy(out[nl.program_id(0)], x[:128, :4])
        for _ in range(300):
            nisa.core_barrier(out, (0, 1))
        return out

    found = next(a for a in advise(nki.profile(meets_alone[2], X, target="trn2")) if a.kind == "barrier-bound")
    assert "core_barrier" in code(found.location)  # although no core comes later than the other
    assert "at 300 meetings" in found.figure

    assert not {"unbalanced cores", "barrier-bound"} & kinds(nki.profile(halves[2], X, target="trn2"))


def test_reports_show_both_cores(tmp_path: Path) -> None:
    found = nki.profile(halves[2], X, 30, 1, 1, target="trn2")
    data = record(found)
    follows(json.loads(json.dumps(data)), json.loads(SCHEMA.read_text()))
    assert data["cores"] == 2
    assert data["meeting_waits"][0]["waited_for"]["core"] == 0
    events = trace_events(found)["traceEvents"]
    threads = {e["args"]["name"] for e in events if e["name"] == "thread_name"}
    assert {"Scalar (core 0)", "Scalar (core 1)", "GpSimd (core 1)"} <= threads
    waiting = [e for e in events if e["name"] == "core_barrier (waiting)"]
    assert max(e["dur"] for e in waiting) == pytest.approx(meeting_waits(found)[0].waited_us)
    assert "core_barrier" in waiting[0]["args"]["met"]
    counters = {e["name"] for e in events if e["ph"] == "C"}
    assert "SBUF bytes per partition (core 1)" in counters
    page = tmp_path / "page.html"
    write_page(found, page)
    text = page.read_text()
    for shown in ("2 cores of trn2", "GpSimd (core 1)", "DMA transfers (core 0)", "SBUF per partition (core 1)"):
        assert shown in text
    assert len(list(comparison([found]).rows)) > len(list(comparison([nki.profile(halves, X[:128])]).rows))
    assert meeting_table(found).row_count == len(meeting_waits(found))


def test_the_command_takes_cores(tmp_path: Path) -> None:
    path = tmp_path / "record.json"
    done = CliRunner().invoke(app, [
        "profile", "kernels.matmul:matmul_on_cores[2]", "--shapes", "256x512:bf16,256x512:bf16", "--json", str(path),
    ])
    assert done.exit_code == 0, done.output
    assert json.loads(path.read_text())["cores"] == 2
    assert load_kernel("kernels.matmul:matmul_on_cores[2]").launched_name == "matmul_on_cores[2]"


def test_a_benchmark_reports_two_cores(capsys: pytest.CaptureFixture) -> None:
    measured = nki.benchmark(halves)[2]
    result = measured(X)
    assert measured.benchmark_result.nc_latency.get_latency_percentile(50) == nki.profile(halves[2], X).latency_us
    assert result.shape == X.shape
    assert "modelled" in capsys.readouterr().out


def test_a_study_of_a_launch_on_two_cores(tmp_path: Path) -> None:
    """Trials are of a launch: those on one core are others, and tuned launches find their own."""
    space, database = {"rounds": [3, 0, 1]}, tmp_path / "trials"
    results = {
        n: autotune.search(halves[n], (X,), space=space, database=database, objective="trn2") for n in (1, 2)
    }
    assert results[2].best.configuration == {"rounds": 0}
    assert results[2].best.value == nki.profile(halves[2], X, rounds=0, target="trn2").latency_us
    with autotune.Database(database) as found:
        assert {c.kernel.rpartition(":")[2] for c in found.of_kernel()} == {"halves", "halves[2]"}
