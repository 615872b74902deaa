"""`nkilite.profile` on small kernels: published instruction costs, bytes, waiting, orders and targets."""

from __future__ import annotations

import sys

import numpy as np
import pytest

import nkilite as nki
import nkilite.isa as nisa
import nkilite.language as nl
from nkilite.errors import InvalidSchedule, UnknownTarget
from nkilite.machine.target import get_target
from nkilite.profiling.profile import profile_program

X = np.zeros((128, 512), np.float32)
HALF = np.zeros((128, 512), np.float16)


def tile(shape, dtype=nl.float32, buffer=None):
    return nl.ndarray(shape, dtype=dtype, buffer=buffer or nl.sbuf)


@nki.jit
def everything(x):
    """One instruction of each kind, on tiles that live from the start."""
    out = nl.ndarray(x.shape, dtype=x.dtype, buffer=nl.shared_hbm)
    a, b, c = tile(x.shape, x.dtype), tile(x.shape, x.dtype), tile(x.shape, x.dtype)
    p = tile((128, 512), buffer=nl.psum)
    nisa.dma_copy(dst=a, src=x, name="load")
    nisa.nc_matmul(dst=p, stationary=a[:, :128], moving=a, name="matmul")
    nisa.tensor_copy(dst=b, src=a, engine=nisa.engine.vector, name="copy")
    nisa.reciprocal(dst=c, data=b, name="reciprocal")
    nisa.activation(dst=b, op=nl.exp, data=c, name="exp")
    nisa.tensor_tensor(dst=c, data1=a, data2=b, op=nl.add, name="add")
    nisa.tensor_tensor(dst=b, data1=c, data2=p, op=nl.add, name="add_psum")
    nisa.iota(dst=tile((128, 64), nl.int32), pattern=[[1, 64]], offset=0, name="iota")
    nisa.dma_copy(dst=out, src=b, name="store")
    return out


def busy_of(profile, name: str) -> float:
    at = next(i for i, n in profile.program.names.items() if n == name)
    return profile.workload.busy_ns[at]


@pytest.mark.parametrize("target", ["trn1", "trn2", "trn3"])
def test_single_instructions_take_their_published_cycles(target: str) -> None:
    chip = get_target(target)
    profile = nki.profile(everything, X, target=target)
    assert busy_of(profile, "matmul") == pytest.approx(4 * 512 / chip.tensor_sustained_rate / chip.tensor_ghz)
    assert busy_of(profile, "copy") == 512 / chip.vector_float32_speedup / chip.vector_ghz
    assert busy_of(profile, "reciprocal") == 2.5 * 512 / chip.vector_ghz
    assert busy_of(profile, "exp") == 512 / chip.scalar_ghz
    assert busy_of(profile, "add") == 2 * 512 / chip.vector_ghz  # both inputs in SBUF
    assert busy_of(profile, "add_psum") == 512 / chip.vector_ghz  # one in each memory
    assert busy_of(profile, "iota") == (150 + 64) / chip.gpsimd_ghz  # GpSimd start-up


def test_sixteen_bit_data_uses_the_fast_modes() -> None:
    old, new = nki.profile(everything, HALF, target="trn1"), nki.profile(everything, HALF, target="trn2")
    assert busy_of(old, "matmul") == pytest.approx(213, abs=1)
    assert busy_of(new, "matmul") == 512 / 2.4
    assert busy_of(old, "copy") == 512 / 1.12
    assert busy_of(new, "copy") == 128 / 0.96  # 4x mode
    assert busy_of(old, "add") == 1024 / 1.12
    assert busy_of(new, "add") == 512 / 0.96  # 2x mode


def test_short_instructions_take_the_minimum_interval() -> None:
    @nki.jit
    def kernel(x):
        a = tile((128, 4))
        nisa.dma_copy(dst=a, src=x)
        nisa.tensor_scalar(dst=a, data=a, op0=nl.multiply, operand0=2.0, name="short")
        out = nl.ndarray(x.shape, dtype=x.dtype, buffer=nl.shared_hbm)
        nisa.dma_copy(dst=out, src=a)
        return out

    assert busy_of(nki.profile(kernel, np.zeros((128, 4), np.float32), target="trn2"), "short") == 64 / 0.96


def test_dma_counts_the_bytes_the_kernel_moves() -> None:
    profile = nki.profile(everything, X, target="trn2")
    assert profile.hbm_read_bytes == profile.hbm_write_bytes == X.nbytes
    assert profile.flops == 2 * 128 * 128 * 512
    assert profile.arithmetic_intensity == profile.flops / (2 * X.nbytes)


@nki.jit
def streamed(x, tiles):
    """Load, double and store tile after tile."""
    out = nl.ndarray(x.shape, dtype=x.dtype, buffer=nl.shared_hbm)
    for i in range(tiles):
        a, b = tile((128, x.shape[1])), tile((128, x.shape[1]))
        rows = slice(i * 128, (i + 1) * 128)
        nisa.dma_copy(dst=a, src=x[rows])
        nisa.tensor_scalar(dst=b, data=a, op0=nl.multiply, operand0=2.0)
        nisa.dma_copy(dst=out[rows], src=b)
    return out


def test_loads_overlap_with_compute() -> None:
    one = nki.profile(streamed, np.zeros((128, 2048), np.float32), 1, target="trn2")
    eight = nki.profile(streamed, np.zeros((1024, 2048), np.float32), 8, target="trn2")
    assert eight.span_us < 8 * one.span_us * 0.7
    assert eight.engines["Vector"].instructions == 8
    assert eight.engines["Vector"].busy_us == pytest.approx(8 * 2048 / 1.6 / 960)
    moved = 16 * 128 / 16 * (2048 * 4 / 27.2 + 4.6) / 1000
    assert eight.dma_utilization * eight.latency_us == pytest.approx(moved)
    assert eight.engines["DMA"].busy_us >= moved * 0.999


def test_one_buffer_serializes_what_two_overlap() -> None:
    """Buffer rotation: with one explicit address, a load waits until the tile before it was used."""

    def kernel(x, buffers):
        out = nl.ndarray(x.shape, dtype=x.dtype, buffer=nl.shared_hbm)
        for i in range(8):
            a = nl.ndarray((128, 2048), dtype=nl.float32, buffer=nl.sbuf, address=(0, i % buffers * 8192))
            rows = slice(i * 128, (i + 1) * 128)
            nisa.dma_copy(dst=a, src=x[rows])
            nisa.dma_copy(dst=out[rows], src=a)
        return out

    x = np.zeros((1024, 2048), np.float32)
    spans = [nki.profile(kernel, x, n, target="trn2").span_us for n in (1, 2, 4)]
    assert spans[0] > 1.4 * spans[1]
    assert spans[1] >= spans[2]


def test_waits_name_their_cause() -> None:
    profile = nki.profile(streamed, np.zeros((128, 2048), np.float32), 1, target="trn2")
    gap = next(g for g in profile.gaps if g.queue == "Vector")
    assert profile.opcode(gap.instruction) == "tensor_scalar"
    assert profile.opcode(gap.cause) == "dma_copy"
    assert profile.waits("Vector") == {"DMA": pytest.approx(gap.length_us)}
    assert [profile.opcode(i) for i in profile.critical_path] == ["dma_copy", "tensor_scalar", "dma_copy"]
    assert profile.critical_us.sum() == pytest.approx(profile.span_us)
    lines = {cost.location.line: cost for cost in profile.lines}
    here = streamed.function.__code__.co_firstlineno
    assert set(lines) == {here + 7, here + 8, here + 9}
    assert lines[here + 8].busy_us == {"Vector": pytest.approx(2048 / 1.6 / 960)}


def two_engines(x, ordered):
    a, b = tile(x.shape), tile(x.shape)
    out = nl.ndarray(x.shape, dtype=x.dtype, buffer=nl.shared_hbm)
    nisa.dma_copy(dst=a, src=x)
    if ordered == "block":
        with nl.no_reorder():
            nisa.activation(dst=b, op=nl.exp, data=a)
            nisa.tensor_scalar(dst=a[:, :8], data=x_tile(x), op0=nl.multiply, operand0=2.0)
    else:
        first = nisa.activation(dst=b, op=nl.exp, data=a)
        second = nisa.tensor_scalar(dst=a[:, :8], data=x_tile(x), op0=nl.multiply, operand0=2.0)
        if ordered == "edge":
            second.depends_on(first)
    nisa.dma_copy(dst=out, src=b)
    return out


def x_tile(x):
    small = tile((128, 8))
    nisa.memset(dst=small, value=1.0)
    return small


def test_no_reorder_chains_and_depends_on_adds_one_edge() -> None:
    counts = {how: len(nki.profile(two_engines, X, how, target="trn2").workload.edges) for how in ("", "edge", "block")}
    assert counts["edge"] == counts[""] + 1
    assert counts["block"] == counts[""] + 2


@nki.jit
def named(x):
    a, b = tile(x.shape), tile(x.shape)
    out = nl.ndarray(x.shape, dtype=x.dtype, buffer=nl.shared_hbm)
    nisa.dma_copy(dst=a, src=x)
    nisa.activation(dst=b, op=nl.exp, data=a, name="exp")
    nisa.tensor_scalar(dst=tile(x.shape), data=a, op0=nl.multiply, operand0=2.0, name="twice")
    nisa.dma_copy(dst=out, src=b)
    return out


@pytest.mark.parametrize("edges", [[("twice", "exp")], [("twice", ["exp"])]])
def test_with_schedule_adds_dependencies(edges) -> None:
    def starts(kernel):
        profile = nki.profile(kernel, X, target="trn2")
        return {n: profile.timeline.start[i] for i, n in profile.program.names.items()}

    free, scheduled = starts(named), starts(named.with_schedule(edges))
    assert free["twice"] == free["exp"]
    assert scheduled["twice"] > scheduled["exp"] + 512 / 1.2


@pytest.mark.parametrize(
    ("edges", "says"),
    [
        ([("twice", "square")], "no instruction is named 'square'; names: exp, twice"),
        ([("exp", "twice")], "'twice' is traced after 'exp'"),
        ([("exp",)], r"\('exp',\) is not a pair"),
        ([("exp", 3)], "name"),
    ],
)
def test_schedules_that_do_not_fit(edges, says: str) -> None:
    with pytest.raises(InvalidSchedule, match=says):
        nki.profile(named.with_schedule(edges), X, target="trn2")


def test_program_order_is_never_faster_here() -> None:
    x = np.zeros((1024, 2048), np.float32)
    program, compiler = (nki.profile(streamed, x, 8, target="trn2", order=o).span_us for o in ("program", "compiler"))
    assert program > compiler


def test_targets_differ_and_the_environment_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NEURON_PLATFORM_TARGET_OVERRIDE", "trn3")
    names = [nki.profile(everything, X, target=t).target.name for t in ("trn1", "gen3", None)]
    assert names == ["trn1", "trn2", "trn3"]
    with pytest.raises(UnknownTarget, match="trn0"):
        nki.profile(everything, X, target="trn0")


def test_tiles_that_do_not_fit_are_timed_and_reported() -> None:
    def kernel(x):
        out = nl.ndarray(x.shape, dtype=x.dtype, buffer=nl.shared_hbm)
        tiles = [tile((128, 8192)) for _ in range(8)]  # 256 KiB of each partition
        for i, t in enumerate(tiles):
            nisa.dma_copy(dst=t, src=x[i * 128:(i + 1) * 128])
        for i, t in enumerate(tiles):
            nisa.dma_copy(dst=out[i * 128:(i + 1) * 128], src=t)
        return out

    profile = nki.profile(kernel, np.zeros((1024, 8192), np.float32), target="trn2")
    assert profile.overflow is not None
    assert profile.latency_us > 0


def test_loops_run_as_often_as_they_say() -> None:
    def kernel(x):
        out = nl.ndarray(x.shape, dtype=x.dtype, buffer=nl.shared_hbm)
        a = tile(x.shape)
        nisa.dma_copy(dst=a, src=x)

        def body(i):
            nisa.activation(dst=a, op=nl.exp, data=a, name="body")

        nl.fori_loop(0, 12, body)
        nisa.dma_copy(dst=out, src=a)
        return out

    profile = nki.profile(kernel, X, target="trn2")
    assert profile.guessed_loops == 0
    assert profile.engines["Scalar"].busy_us >= 12 * 512 / 1200
    assert list(profile.program.names.values()).count("body") == 12


def test_the_cost_of_a_profile_is_linear() -> None:
    """Calls made by passes and model for a blocked matmul of 5,000 and of 20,000 instructions; counts cannot flake."""

    def kernel(x, blocks):
        out = nl.ndarray(x.shape, dtype=x.dtype, buffer=nl.shared_hbm)
        for _ in range(blocks):
            left, right = tile((128, 512)), tile((128, 512))
            nisa.dma_copy(dst=left, src=x)
            nisa.dma_copy(dst=right, src=x)
            for m in range(4):
                bank = nl.ndarray((128, 512), dtype=nl.float32, buffer=nl.psum)
                for _ in range(8):
                    nisa.nc_matmul(bank, left[:, m * 128:(m + 1) * 128], right)
                result = tile((128, 512))
                nisa.tensor_copy(dst=result, src=bank)
                nisa.dma_copy(dst=out, src=result)
        return out

    def work(blocks: int) -> float:
        program = nki.jit(kernel).trace(np.zeros((128, 512), np.float32), blocks)
        count, instructions = 0, len(program)

        def called(*_: object) -> None:
            nonlocal count
            count += 1

        sys.setprofile(called)
        try:
            profile_program(program)
        finally:
            sys.setprofile(None)
        return count / instructions

    few, many = work(120), work(480)
    assert many < 1.2 * few
    assert many < 200
