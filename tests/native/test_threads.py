"""The team of threads: meetings, failures, launches from several Python threads, in forked children and at exit."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import textwrap
import threading
import time

import numpy as np
import pytest
from team_testing import every_program_has_a_team, flags

import nkilite as nki
import nkilite.isa as nisa
import nkilite.language as nl
from nkilite import errors
from nkilite.codegen.kernel import FAULT_WORDS, HEAD_WORDS, STATUS_OUT_OF_BOUNDS, STATUS_PAUSE
from nkilite.host.cpu import host
from nkilite.ir.regions import Pattern
from nkilite.native import meetings, threads
from nkilite.native.interrupts import new_watch
from nkilite.native.library import Source, library
from nkilite.native.sharing import BUSY, STATE_WORDS, Job
from nkilite.native.walker import LEAD, MEET, SPLIT, WALK

PARTS = (2, 3, 5, 8)

pytestmark = pytest.mark.skipif(not threads.supported(), reason="threads take Linux on x86-64 or AArch64")


# --- tables of a few functions --------------------------------------------------------------------------------

_PARAMETERS = "ptr %words, ptr %bases, i64 %part, i64 %parts"

# Adds one to the part's own count.
COUNT = Source("test_count", f"""
define i32 @test_count({_PARAMETERS}) {{
  %counts = load ptr, ptr %bases
  %own = getelementptr i64, ptr %counts, i64 %part
  %old = load i64, ptr %own
  %new = add i64 %old, 1
  store i64 %new, ptr %own
  ret i32 0
}}
""", ())

# Fails where the counts of all parts are not equal.
EQUAL = Source("test_equal", f"""
define i32 @test_equal({_PARAMETERS}) {{
entry:
  %counts = load ptr, ptr %bases
  %first = load i64, ptr %counts
  br label %head
head:
  %i = phi i64 [ 0, %entry ], [ %next, %same ]
  %more = icmp slt i64 %i, %parts
  br i1 %more, label %body, label %done
body:
  %at = getelementptr i64, ptr %counts, i64 %i
  %value = load i64, ptr %at
  %next = add i64 %i, 1
  %equal = icmp eq i64 %value, %first
  br i1 %equal, label %same, label %different
same:
  br label %head
different:
  ret i32 {STATUS_OUT_OF_BOUNDS}
done:
  ret i32 0
}}
""", ())

# Fails in the part its first word names, leaving the second one as the fault.
FAIL = Source("test_fail", f"""
define i32 @test_fail({_PARAMETERS}) {{
  %which = load i64, ptr %words
  %hit = icmp eq i64 %which, %part
  br i1 %hit, label %fail, label %fine
fail:
  %second = getelementptr i64, ptr %words, i64 1
  %fault = load i64, ptr %second
  %index = getelementptr i8, ptr %bases, i64 -16
  store i64 %fault, ptr %index
  ret i32 {STATUS_OUT_OF_BOUNDS}
fine:
  ret i32 0
}}
""", ())

PAUSE = Source("test_pause", f"define i32 @test_pause({_PARAMETERS}) {{\n  ret i32 {STATUS_PAUSE}\n}}\n", ())
NOTHING = Source("test_nothing", f"define i32 @test_nothing({_PARAMETERS}) {{\n  ret i32 0\n}}\n", ())


class Table:
    """Entries (function, flags, words...) over one array of counts."""

    def __init__(self, *entries: tuple) -> None:
        addresses = library(host()).addresses([COUNT, EQUAL, FAIL, PAUSE, NOTHING, WALK])
        words: list[int] = []
        self.at = []
        for source, mark, *rest in entries:
            self.at.append(len(words))
            words += [addresses[source.name], 2 + len(rest) | mark << 32, *rest]
        self.words = np.array(words, np.int64)
        self.counts = np.zeros(threads.MOST, np.int64)

    def launch(self, parts: int, spin: int | None = None) -> tuple[int, int]:
        """(what stopped it, the fault) of a launch with that many threads."""
        team = threads.team()
        assert team.grow(parts) == parts
        state = np.zeros((parts, STATE_WORDS + 1), np.int64)
        state[:, STATE_WORDS] = self.counts.ctypes.data
        watch = new_watch(host())
        state[:, STATE_WORDS - HEAD_WORDS] = watch.ctypes.data
        bases = state.ctypes.data + 8 * STATE_WORDS
        spin = threads.spin(parts) if spin is None else spin
        job = Job(self.words.ctypes.data, len(self.words), bases, state.strides[0], parts, spin)
        return team.launch(np.array(job, np.int64), 0), int(state[0, STATE_WORDS - FAULT_WORDS])


@pytest.mark.parametrize("spin", [0, 20, 2000])
@pytest.mark.parametrize("parts", PARTS)
def test_all_meet(parts, spin):
    table = Table(*[(COUNT, SPLIT | MEET), (EQUAL, SPLIT | MEET)] * 100)
    for launch in range(1, 4):
        assert table.launch(parts, spin) == (0, 0)
        assert (table.counts[:parts] == 100 * launch).all()
        assert (table.counts[parts:] == 0).all()


@pytest.mark.parametrize("parts", PARTS)
def test_part_0_does_what_does_not_split(parts):
    table = Table((COUNT, SPLIT), (COUNT, 0), (COUNT, MEET), (COUNT, LEAD | MEET))
    assert table.launch(parts) == (0, 0)
    assert table.counts[: parts + 1].tolist() == [4] + [1] * (parts - 1) + [0]


@pytest.mark.parametrize("parts", PARTS)
def test_the_failure_a_single_thread_would_meet_is_reported(parts):
    last = parts - 1
    table = Table(
        (NOTHING, SPLIT), (FAIL, SPLIT, last, 11), (FAIL, SPLIT, 0, 22), (FAIL, SPLIT, last, 33),
        (COUNT, SPLIT | MEET), (FAIL, SPLIT, 0, 44),
    )
    for _ in range(20):
        stopped, fault = table.launch(parts)
        assert (stopped >> 48, stopped & (1 << 48) - 1, fault) == (STATUS_OUT_OF_BOUNDS, table.at[1], 11)
    assert not table.counts.any(), "nobody goes on after the meeting that follows a failure"


@pytest.mark.parametrize("parts", PARTS)
def test_a_failure_of_the_leader_stops_all(parts):
    table = Table((COUNT, SPLIT), (FAIL, LEAD | MEET, 0, 7), (COUNT, SPLIT))
    stopped, fault = table.launch(parts)
    assert (stopped >> 48, stopped & (1 << 48) - 1, fault) == (STATUS_OUT_OF_BOUNDS, table.at[1], 7)
    assert table.counts[:parts].tolist() == [1] * parts
    paused = Table((PAUSE, LEAD | MEET))
    assert paused.launch(parts)[0] == STATUS_PAUSE << 48
    assert table.launch(parts)[0] == stopped, "the team is ready again"


def test_members_that_come_late_do_no_harm():
    """Launches of changing size from several callers: what is left of one must not disturb the next."""
    wrong = []

    def launch(seed: int) -> None:
        draw = random.Random(seed)
        for _ in range(300):
            parts, phases = draw.choice(PARTS), draw.randrange(1, 6)
            table = Table(*[(COUNT, SPLIT | MEET), (EQUAL, SPLIT | MEET)] * phases)
            stopped, _ = table.launch(parts, draw.choice([0, 1, 20, 500]))
            counts = [phases] * parts + [0] * (threads.MOST - parts)
            if stopped != BUSY and (stopped or table.counts.tolist() != counts):
                wrong.append((stopped, parts, phases))

    callers = [threading.Thread(target=launch, args=(seed,), daemon=True) for seed in range(3)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join(120)
        assert not caller.is_alive()
    assert not wrong


def test_a_taken_team_is_refused():
    table = Table((NOTHING, 0))
    team = threads.team()
    address = team.address + 3 * 128  # the word that says so
    busy = np.ctypeslib.as_array((np.ctypeslib.ctypes.c_int32 * 1).from_address(address))
    busy[0] = 1
    try:
        assert table.launch(2)[0] == BUSY
    finally:
        busy[0] = 0
    assert table.launch(2)[0] == 0


def test_waiting_takes_no_processor_time():
    table = Table((NOTHING, SPLIT))
    table.launch(8)
    time.sleep(0.05)
    before = time.process_time()
    time.sleep(0.3)
    assert time.process_time() - before < 0.1


# --- kernels --------------------------------------------------------------------------------------------------


@pytest.fixture
def teams(monkeypatch):
    every_program_has_a_team(monkeypatch)


def product(x, w):
    """A matmul whose parts share everything: loads, sums, eviction, store."""
    out = nl.ndarray((w.shape[1], x.shape[1]), dtype=nl.float32, buffer=nl.shared_hbm)
    left = nl.load(w)
    right = nl.load(x)
    psum = nl.ndarray(out.shape, dtype=nl.float32, buffer=nl.psum)
    nisa.nc_matmul(psum, left, right)
    nisa.nc_matmul(psum, left, right, accumulate=True)
    done = nl.ndarray(out.shape, dtype=nl.float32, buffer=nl.sbuf)
    nisa.tensor_copy(done, psum)
    nisa.dma_copy(out, done)
    return out


def matrices(seed: int = 0):
    draw = np.random.default_rng(seed)
    return (draw.standard_normal((128, n), np.float32) for n in (512, 128))


@pytest.mark.parametrize("parts", PARTS)
def test_loops_and_printing(parts, monkeypatch, capsys, teams):
    @nki.jit
    def kernel(x, w, n):
        total = nl.zeros((w.shape[1], x.shape[1]), dtype=nl.float32)
        left, right = nl.load(w), nl.load(x)

        def body(i):
            psum = nl.ndarray(total.shape, dtype=nl.float32, buffer=nl.psum)
            nisa.nc_matmul(psum, left, right)
            nisa.tensor_tensor(total, total, psum, nl.add)
            nl.device_print("corner", total[0:1, 0:1])

        nl.fori_loop(0, nisa.register_alloc(nl.load(n)), body)
        out = nl.ndarray(total.shape, dtype=nl.float32, buffer=nl.shared_hbm)
        nisa.dma_copy(out, total)
        return out

    arguments = (*matrices(), np.array([[5]], np.int32))
    results = []
    for count in ("1", str(parts)):
        monkeypatch.setenv("NKILITE_NUM_THREADS", count)
        results.append((kernel(*arguments).tobytes(), capsys.readouterr().out))
    assert results[0] == results[1]
    assert results[0][1].count("corner") == 5


@pytest.mark.parametrize("parts", [1, *PARTS])
def test_index_out_of_bounds(parts, monkeypatch, teams):
    @nki.jit
    def kernel(x, w, where):
        out = nl.ndarray((128, 512), dtype=nl.float32, buffer=nl.shared_hbm)
        left, right = nl.load(w), nl.load(x)
        psum = nl.ndarray((128, 512), dtype=nl.float32, buffer=nl.psum)
        nisa.nc_matmul(psum, left, right)
        gathered = nl.ndarray((128, 512), dtype=nl.float32, buffer=nl.sbuf)
        nisa.dma_copy(gathered, x.vector_select(0, nl.load(where)))
        nisa.tensor_tensor(gathered, gathered, psum, nl.add)
        nisa.dma_copy(out, gathered)
        return out

    monkeypatch.setenv("NKILITE_NUM_THREADS", str(parts))
    where = np.arange(128, dtype=np.int32)[:, None]
    x, w = matrices()
    kernel(x, w, where)
    where[77], where[99] = 200, 300
    with pytest.raises(errors.IndirectOutOfBounds, match=r"200 is not in \[0, 128\)"):
        kernel(x, w, where)
    where[77], where[99] = 0, 0
    kernel(x, w, where)


def test_arguments_that_overlap_are_taken_in_program_order(monkeypatch, teams):
    @nki.jit
    def kernel(x, y, w):
        left, right = nl.load(w), nl.load(x)
        psum = nl.ndarray((128, 512), dtype=nl.float32, buffer=nl.psum)
        nisa.nc_matmul(psum, left, right)
        done = nl.ndarray((128, 512), dtype=nl.float32, buffer=nl.sbuf)
        nisa.tensor_copy(done, psum)
        nisa.dma_copy(y, done)
        nisa.dma_copy(right, x)
        nisa.nc_matmul(psum, left, right, accumulate=False)
        nisa.tensor_copy(done, psum)
        nisa.dma_copy(y, done)
        return y

    x, w = matrices()
    results = []
    for count in ("1", "3"):
        monkeypatch.setenv("NKILITE_NUM_THREADS", count)
        both = x.copy()
        results.append(kernel(both, both, w).copy())
    assert results[0].tobytes() == results[1].tobytes()
    np.testing.assert_allclose(results[0], w.T @ (w.T @ x), rtol=1e-3, atol=1e-2)


def test_small_kernels_stay_on_one_thread():
    @nki.jit
    def small(x):
        out = nl.ndarray(x.shape, dtype=x.dtype, buffer=nl.shared_hbm)
        nisa.dma_copy(out, nl.add(nl.load(x), 1.0))
        return out

    assert small.compile(np.zeros((128, 512), np.float32)).lowered.threads == 1


def test_four_python_threads(monkeypatch, teams):
    monkeypatch.setenv("NKILITE_NUM_THREADS", "2")
    kernel = nki.jit(product)
    arguments = [tuple(matrices(seed)) for seed in range(4)]
    expected = [kernel(*a).tobytes() for a in arguments]
    assert (flags(kernel.launcher(*arguments[0])._executable) & SPLIT).any()
    wrong = []

    def launch(number: int) -> None:
        for _ in range(250):
            if kernel(*arguments[number]).tobytes() != expected[number]:
                wrong.append(number)

    callers = [threading.Thread(target=launch, args=(n,), daemon=True) for n in range(4)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join(60)
        assert not caller.is_alive()
    assert not wrong


_SCRIPT = """
import os, sys, threading
import numpy as np
from nkilite.native import meetings, threads
meetings.WAKE_NS = meetings.MEETING_NS = 0
sys.path.insert(0, {here!r})
import nkilite as nki
from test_threads import product, matrices
kernel = nki.jit(product)
arguments = tuple(matrices())
expected = kernel(*arguments).tobytes()
assert threads.team().members == 3
"""


def _python(script: str) -> str:
    here = os.path.dirname(__file__)
    code = _SCRIPT.format(here=here) + textwrap.dedent(script)
    environment = {**os.environ, "NKILITE_NUM_THREADS": "3", "NKILITE_CACHE": "0"}
    environment["PYTHONPATH"] = os.pathsep.join(p for p in sys.path if p)
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_forked_children():
    """Children have a team of their own, also when another thread was in a launch at the moment of the fork."""
    printed = _python("""
        import multiprocessing
        stop = threading.Event()
        def busy():
            while not stop.is_set():
                kernel(*arguments)
        other = threading.Thread(target=busy)
        other.start()
        def child():
            assert threads._team is None
            assert all(kernel(*arguments).tobytes() == expected for _ in range(20))
            assert threads.team().members == 3
        fork = multiprocessing.get_context("fork")
        children = [fork.Process(target=child) for _ in range(4)]
        for process in children:
            process.start()
        for process in children:
            process.join(60)
        print([process.exitcode for process in children])
        stop.set()
        other.join()
        print(kernel(*arguments).tobytes() == expected)
    """)
    assert printed.split("\n")[:2] == ["[0, 0, 0, 0]", "True"]


_ENDINGS = {
    "workers look for work": "pass",
    "workers sleep": "import time; time.sleep(0.05)",
    "a daemon launches": """
        def launch():
            while True:
                kernel(*arguments)
        threading.Thread(target=launch, daemon=True).start()
    """,
    "no finalization": "os._exit(0)",
}


@pytest.mark.parametrize("ending", _ENDINGS)
def test_exit(ending):
    _python(_ENDINGS[ending])


# --- how many -------------------------------------------------------------------------------------------------


def test_number_of_threads(monkeypatch):
    monkeypatch.delenv("NKILITE_NUM_THREADS", raising=False)
    assert threads.limit() == threads.cores() <= len(os.sched_getaffinity(0))
    monkeypatch.setenv("NKILITE_NUM_THREADS", "7")
    assert threads.limit() == 7
    for wrong in ("0", "-1", "two", "1.5"):
        monkeypatch.setenv("NKILITE_NUM_THREADS", wrong)
        with pytest.raises(errors.InvalidSetting, match=f"NKILITE_NUM_THREADS='{wrong}' is not a number of threads"):
            threads.limit()


def test_affinity_limits_the_cores():
    before = os.sched_getaffinity(0)
    try:
        os.sched_setaffinity(0, {min(before)})
        assert threads.cores() == 1
    finally:
        os.sched_setaffinity(0, before)


def test_work_decides(monkeypatch):
    """More work, more threads; more meetings, fewer."""

    def most(entries: int, meet: bool) -> int:
        touch = meetings.Access(0, 0, Pattern(100), True, None if meet else meetings.Stripe(10, 10, 0, 0, 10))
        table = np.array([0, 4, 0, 0] * entries)
        entry = meetings.Footprint(SPLIT, 10_000.0, (touch,))
        return meetings.meetings(meetings.Table(table, np.arange(0, 4 * entries, 4), [entry]))[1]

    assert most(7, False) == 1
    assert most(30, False) == 4
    assert 1 < most(30, True) < 4
