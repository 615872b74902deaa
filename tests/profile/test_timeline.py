"""Queues, overlap, latencies, DMA engines and orders on small programs computed by hand."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nkilite.machine.dependencies import DATA, ORDER, Edges
from nkilite.machine.timeline import BUSY, FREE, Timeline, Workload, simulate

A, B, DMA = 0, 1, 10


def run(
    queues: list[int], busy: list[float], edges: list[tuple[int, int, int]] = (), order: str = "compiler",
    latency: list[float] | None = None, transfer: list[float] | None = None,
    engines: list[tuple[int, int]] | None = None,
    **more: list,
) -> Timeline:
    n = len(queues)
    columns = np.array(list(edges), np.int64).reshape(-1, 3).T
    work = Workload(
        queues, busy, latency or [0.0] * n, transfer or [0.0] * n, engines or [(0, 0)] * n,
        Edges(columns[0], columns[1], columns[2]), **more,
    )
    lines = []
    for worth_compiling in (0, 1 << 60):  # as machine code, and in Python
        with pytest.MonkeyPatch.context() as patch:
            for worth in ("WORTH_LOADING", "COMPILING_A_BYTE"):
                patch.setattr(f"nkilite.compiled.function.{worth}", worth_compiling)
            lines.append(simulate(work, order))
    for name, found in vars(lines[0]).items():
        assert np.array_equal(found, getattr(lines[1], name)), name
    return lines[0]


@settings(max_examples=60, deadline=None)
@given(data=st.data())
@pytest.mark.parametrize("order", ["compiler", "program"])
def test_whatever_happens_queues_ports_and_dependencies_are_kept(order: str, data: st.DataObject) -> None:
    n = data.draw(st.integers(1, 20))

    def each(values: st.SearchStrategy) -> list:
        return data.draw(st.lists(values, min_size=n, max_size=n))

    numbers = st.sampled_from([0.0, 1.0, 2.5, 7.0])
    queues, busy = each(st.integers(0, 3)), each(numbers)
    engines = each(st.sampled_from([(0, 0), (0, 0), (0, 2), (1, 3)]))
    pairs = data.draw(st.sets(st.tuples(st.integers(0, n - 1), st.integers(0, n - 1)), max_size=2 * n))
    edges = [(min(a, b), max(a, b), data.draw(st.sampled_from([DATA, ORDER]))) for a, b in pairs if a != b]
    line = run(
        queues, busy, edges, order, each(numbers), each(numbers), engines, ports=each(st.integers(0, 7)),
        turnaround_ns=each(numbers), priorities=each(st.integers(0, 2)), fifo=data.draw(st.booleans()),
        warmup=([0], data.draw(st.sampled_from([0.0, 5.0]))), memory_ns=each(numbers),
    )
    for producer, consumer, kind in edges:
        until = line.finish if kind == DATA or engines[producer][1] else line.end
        assert line.start[consumer] >= until[producer]
    for q in set(queues):
        mine = np.flatnonzero(np.array(queues) == q)
        mine = mine[np.lexsort((line.end[mine], line.start[mine]))]
        assert (line.start[mine[1:]] >= line.end[mine[:-1]]).all()


def test_a_queue_runs_one_after_another_and_queues_overlap() -> None:
    line = run([A, A, B], [10, 20, 25])
    assert line.start.tolist() == [0, 10, 0]
    assert line.span_ns == 30
    assert line.cause.tolist() == [FREE, BUSY, FREE]


def test_a_turnaround_separates_instructions_and_delays_nobody_else() -> None:
    line = run([A, A, B], [10, 10, 5], [(0, 2, DATA)], turnaround_ns=[3, 3, 3])
    assert line.start.tolist() == [0, 13, 10]


def test_data_waits_for_the_latency_and_order_does_not() -> None:
    line = run([A, B, B], [10, 5, 5], [(0, 1, DATA), (0, 2, ORDER)], latency=[7, 0, 0])
    assert line.start.tolist() == [0, 17, 10]
    assert line.cause.tolist() == [FREE, 0, 0]
    assert line.finish.tolist() == [17, 22, 15]


def test_program_order_blocks_behind_the_head_and_compiler_order_does_not() -> None:
    queues, busy, edges = [B, A, A], [100, 10, 10], [(0, 1, DATA)]
    assert run(queues, busy, edges, "program").start.tolist() == [0, 100, 110]
    assert run(queues, busy, edges, "compiler").start.tolist() == [0, 100, 0]


def test_compiler_order_prefers_the_earliest_ready_instruction() -> None:
    assert run([A, A, A], [5, 5, 5]).start.tolist() == [0, 5, 10]


def test_a_service_class_goes_before_program_order() -> None:
    assert run([DMA, DMA], [5, 5], priorities=[3, 0]).start.tolist() == [5, 0]


def test_dma_triggers_overlap_with_transfers_and_engines_are_shared() -> None:
    """Two loads of 16 engines: triggered 600 apart, first bytes 1300 after their triggers, transfers back to back."""
    line = run([DMA, DMA], [600, 600], latency=[1300, 1300], transfer=[1000, 1000], engines=[(0, 16), (0, 16)])
    assert line.start.tolist() == [0, 600]
    assert line.moving.tolist() == [1300, 2300]
    assert line.finish.tolist() == [2300, 3300]


def test_narrow_transfers_on_different_engines_do_not_wait() -> None:
    line = run([DMA, DMA], [0, 0], latency=[100, 100], transfer=[50, 50], engines=[(0, 1), (4, 1)])
    assert line.finish.tolist() == [150, 150]


def test_a_writer_waits_until_a_dma_has_read_everything() -> None:
    line = run([DMA, A], [10, 5], [(0, 1, ORDER)], latency=[100, 0], transfer=[50, 0], engines=[(0, 1), (0, 0)])
    assert line.start.tolist() == [0, 150]


def test_a_shared_port_serializes_two_engines() -> None:
    line = run([A, B], [10, 10], ports=[1, 1])
    assert sorted(line.start.tolist()) == [0, 10]
    assert run([A, B], [10, 10], ports=[1, 2]).start.tolist() == [0, 0]


def test_critical_path_goes_back_over_waits_and_busy_engines() -> None:
    line = run([A, A, B, B], [10, 10, 5, 1], [(1, 2, DATA)])
    assert line.start.tolist() == [0, 10, 20, 0]
    assert line.critical_path() == [0, 1, 2]


def test_those_who_meet_begin_together_and_hold_their_queues_meanwhile() -> None:
    """Queue A comes at 10 and B at 40; what stands behind the meeting in A waits, too."""
    line = run([A, A, A, B, B], [10, 5, 1, 40, 7], meetings=[-1, 0, -1, -1, 0], order="program")
    assert line.start.tolist() == [0, 40, 45, 0, 40]
    assert line.end.tolist() == [10, 45, 46, 40, 47]
    assert line.arrival.tolist() == [0, 10, 45, 0, 40]
    assert line.partner.tolist() == [-1, 4, -1, -1, -1]
    assert line.critical_path() == [3, 4]


def test_in_compiler_order_a_meeting_waits_for_what_comes_before_it_in_its_queue() -> None:
    """Else queue A would hold the first meeting while B is at the second, for ever."""
    queues, edges = [A, A, DMA, B, B, DMA], [(2, 0, DATA), (5, 4, DATA)]
    line = run(queues, [1, 1, 30, 1, 1, 50], edges, meetings=[0, 1, -1, 0, 1, -1])
    assert line.start[0] == line.start[3] == 30
    assert line.start[1] == line.start[4] == 80


@pytest.mark.parametrize("order", ["compiler", "program"])
@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10**6))
def test_cores_that_come_to_the_same_meetings_never_wait_for_ever(order: str, seed: int) -> None:
    """Whatever the queues, the operands and how long things take: everything runs, and meetings begin together."""
    rng = np.random.default_rng(seed)
    met = int(rng.integers(1, 6))
    queues, edges, meetings, busy = [], [], [], []
    for core in range(2):
        first = len(queues)
        for meeting in range(met):
            between = int(rng.integers(0, 4))
            queues += [3 * core + int(q) for q in rng.integers(0, 3, between + 1)]
            meetings += [-1] * between + [meeting]
        for i in range(first + 1, len(queues)):
            edges += [(int(rng.integers(first, i)), i, int(rng.integers(0, 2))) for _ in range(int(rng.integers(0, 3)))]
        busy += [float(n) for n in rng.integers(1, 50, len(queues) - first)]
    line = run(queues, busy, edges, order, meetings=meetings)
    assert (line.end - line.start == busy).all()
    assert all(line.start[b] >= line.end[a] for a, b, _ in edges)
    for meeting in range(met):
        one, other = np.flatnonzero(np.array(meetings) == meeting)
        assert line.start[one] == line.start[other] == max(line.arrival[one], line.arrival[other])


def test_shared_memory_delays_transfers_that_want_more_than_it_gives() -> None:
    line = run(
        [DMA, DMA + 1], [0, 0], latency=[10, 10], transfer=[20, 20], engines=[(0, 1), (1, 1)], memory_ns=[15, 15]
    )
    assert line.finish.tolist() == [30, 40]


def test_nothing_to_do() -> None:
    line = run([], [])
    assert line.span_ns == 0
    assert line.critical_path() == []
