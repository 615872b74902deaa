"""Instruction costs follow the published formulas; expected figures are worked out by hand from them."""

from __future__ import annotations

import pytest

from nkilite.machine import engine as e
from nkilite.machine.engine import Engine, Operand
from nkilite.machine.target import TARGETS

PUBLISHED = TRN1, TRN2, TRN3 = TARGETS["trn1"], TARGETS["trn2"], TARGETS["trn3"]

F32 = Operand("float32", 4)
BF16 = Operand("bfloat16", 2)
F32_PSUM = Operand("float32", 4, in_psum=True)
BF16_PSUM = Operand("bfloat16", 2, in_psum=True)
BF16_STRIDED = Operand("bfloat16", 2, stride=2)
BF16_FAR = Operand("bfloat16", 2, stride=16)


def test_engine_values_are_the_public_ones() -> None:
    assert {m.name: m.value for m in Engine} == {
        "unknown": 0,
        "tensor": 1,
        "scalar": 2,
        "gpsimd": 3,
        "dma": 4,
        "vector": 5,
        "sync": 6,
    }


def test_clocks() -> None:
    engines = (Engine.tensor, Engine.vector, Engine.scalar, Engine.gpsimd)
    assert [e.clock_ghz(TRN1, x) for x in engines] == [2.8, 1.12, 1.4, 1.4]
    assert [e.clock_ghz(TRN2, x) for x in engines] == [2.4, 0.96, 1.2, 1.2]
    assert [e.clock_ghz(TRN3, x) for x in engines] == [2.4, 1.2, 1.2, 1.2]
    for clockless in (Engine.dma, Engine.unknown):
        with pytest.raises(ValueError, match=clockless.name):
            e.clock_ghz(TRN2, clockless)


def test_busy_time_is_cycles_over_clock() -> None:
    assert e.matmul(TRN2, 128, 480, float32=False).busy_ns(TRN2) == pytest.approx(200.0)
    assert e.scalar_stream(TRN1, 1400).ns(TRN1) == pytest.approx(1000.0)


# --- Tensor Engine


@pytest.mark.parametrize(
    ("stationary", "moving", "cycles"),
    [(128, 512, 512), (128, 64, 64), (128, 1, 64), (32, 1, 32), (1, 1, 1), (32, 48, 48)],
)
def test_matmul_cycles(stationary: int, moving: int, cycles: int) -> None:
    assert e.matmul(TRN2, stationary, moving, float32=False).cycles == cycles
    assert e.matmul(TRN2, stationary, moving, float32=True).cycles == 4 * cycles
    assert e.matmul(TRN2, stationary, moving, float32=True, onezero=True).cycles == 2 * cycles
    assert e.matmul(TRN2, stationary, moving, float32=False, onezero=True).cycles == cycles
    assert e.matmul_mx(TRN3, stationary, moving).cycles == cycles


@pytest.mark.parametrize("target", TARGETS.values(), ids=TARGETS)
@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
def test_full_matmul_reaches_the_peak(target, dtype: str) -> None:
    cost = e.matmul(target, 128, 512, float32=dtype == "float32")
    flops = 2 * 128 * 128 * 512
    peak = target.matmul_flops_per_ns(dtype) * target.tensor_sustained_rate
    assert flops / cost.busy_ns(target) == pytest.approx(peak)


def test_tensor_transpose() -> None:
    assert e.tensor_transpose(TRN2, 128, 128, float32=False).cycles == 128
    assert e.tensor_transpose(TRN2, 16, 128, float32=False).cycles == 64
    assert e.tensor_transpose(TRN2, 16, 8, float32=False).cycles == 16
    cycles = [e.tensor_transpose(t, 128, 128, float32=True).cycles for t in PUBLISHED]
    assert cycles == [512 / 0.857, 256, 256]


# --- Vector Engine


def test_vector_stream_has_a_floor_and_scales() -> None:
    assert e.vector_stream(TRN2, 1).cycles == 64
    assert e.vector_stream(TRN2, 1000).cycles == 1000
    assert e.vector_stream(TRN2, 512, cycles_per_element=e.RECIPROCAL_CYCLES).cycles == 1280
    assert e.vector_stream(TRN2, 512, cycles_per_element=e.SCAN_CYCLES).cycles == 1024
    assert e.vector_stream(TRN2, 24, cycles_per_element=e.BN_AGGR_CYCLES).cycles == pytest.approx(13 * 8)
    assert e.vector_stream(TRN3, 512, cycles_per_element=e.EXPONENTIAL_CYCLES).cycles == 128
    assert e.vector_stream(TRN2, 512, reads_accumulator=True).cycles == 512 + 64
    assert e.vector_stream(TRN2, 10, dynamic=True).cycles == 600
    assert e.vector_stream(TRN2, 700, dynamic=True).cycles == 700


def test_the_minimum_interval_has_room_for_the_start_of_an_access() -> None:
    """65,536 tensor_tensor of 3 elements take 66 cycles each in autocomp's conv1d; an activation starts more slowly."""
    for n in (1, 3, 4, 512):
        cost = e.vector_stream(TRN1, n)
        assert cost.cycles + cost.gap_cycles == max(64, n + 60)
        assert cost.gap_ns(TRN1) == cost.gap_cycles / 1.12
    assert e.scalar_stream(TRN2, 512, (F32,)).ns(TRN2) + e.scalar_stream(TRN2, 512, (F32,)).gap_ns(TRN2) == (
        pytest.approx(611, abs=1)
    )
    assert e.scalar_stream(TRN2, 512, (F32_PSUM,)).gap_cycles == 171


def test_far_strides_halve_the_bandwidth() -> None:
    at_limit, beyond = Operand("float32", 4, stride=4), Operand("float32", 4, stride=5)
    assert e.vector_stream(TRN2, 512, (F32, at_limit)).cycles == 512
    assert e.vector_stream(TRN2, 512, (F32, beyond)).cycles == 1024
    assert e.vector_stream(TRN2, 512, (Operand("float32", 4, stride=-5),)).cycles == 1024
    assert e.vector_stream(TRN2, 1, (beyond,)).cycles == 64


@pytest.mark.parametrize(
    ("src", "dst", "cycles"),
    [
        (F32, F32, (1024, 640, 640)),
        (F32_PSUM, F32, (1024, 1024, 1024)),
        (BF16, BF16, (1024, 256, 256)),
        (BF16, Operand("float16", 2), (1024, 256, 256)),
        (BF16, F32, (1024, 1024, 1024)),
        (BF16_STRIDED, BF16, (1024, 512, 512)),
        (BF16_PSUM, BF16, (1024, 512, 512)),
        (BF16_PSUM, BF16_STRIDED, (1024, 1024, 1024)),
        (BF16_PSUM, BF16_PSUM, (1024, 1024, 1024)),
        (BF16_FAR, BF16, (2048, 1024, 1024)),
        (Operand("float8_e4m3", 1), Operand("float8_e4m3", 1), (1024, 1024, 256)),
        (Operand("int16", 2), Operand("int16", 2), (1024, 1024, 1024)),
    ],
)
def test_vector_copy_performance_modes(src: Operand, dst: Operand, cycles: tuple[int, int, int]) -> None:
    assert tuple(e.vector_copy(t, 1024, src, dst).cycles for t in PUBLISHED) == cycles


@pytest.mark.parametrize(
    ("operands", "op", "cycles"),
    [
        ((F32, F32, F32), "add", (1024, 1024)),
        ((F32, F32_PSUM, F32), "add", (512, 512)),
        ((F32_PSUM, F32_PSUM, F32), "add", (1024, 1024)),
        ((BF16, BF16, BF16), "multiply", (512, 512)),
        ((BF16, BF16, BF16), "maximum", (1024, 512)),
        ((BF16, BF16, F32), "multiply", (1024, 1024)),
        ((BF16_STRIDED, BF16, BF16), "multiply", (1024, 512)),
    ],
)
def test_tensor_tensor(operands, op: str, cycles: tuple[int, int]) -> None:
    assert tuple(e.vector_tensor_tensor(t, 512, *operands, op=op).cycles for t in (TRN1, TRN2)) == cycles


def test_other_vector_instructions() -> None:
    fused = {"op0": "subtract", "op1": "multiply"}
    assert e.vector_scalar_tensor_tensor(TRN2, 512, BF16, BF16, BF16, **fused).cycles == 512
    assert e.vector_scalar_tensor_tensor(TRN2, 511, BF16, BF16, BF16, **fused).cycles == 1022
    assert (
        e.vector_scalar_tensor_tensor(TRN2, 512, BF16, BF16, BF16, op0="add", op1="multiply").cycles == 1024
    )
    assert e.vector_scalar_tensor_tensor(TRN2, 512, BF16, F32, BF16, **fused).cycles == 1024

    assert e.vector_reduce(TRN2, 512, BF16, BF16, op="maximum").cycles == 256
    assert e.vector_reduce(TRN2, 512, BF16, BF16, op="minimum").cycles == 512
    assert e.vector_reduce(TRN2, 512, F32, F32, op="add").cycles == 512

    assert e.vector_memset(TRN2, 512, BF16, zero=True).cycles == 256
    assert e.vector_memset(TRN2, 512, BF16, zero=False).cycles == 512
    assert e.vector_memset(TRN2, 512, F32, zero=True).cycles == 512

    assert e.vector_copy_predicated(TRN2, 512, F32, F32_PSUM, F32).cycles == 512
    assert e.vector_copy_predicated(TRN2, 512, F32, F32, F32).cycles == 1024


# --- Scalar and GpSimd Engines


def test_scalar_engine() -> None:
    assert e.scalar_stream(TRN2, 16).cycles == 64
    assert e.scalar_stream(TRN2, 512).cycles == 512
    assert e.scalar_stream(TRN2, 512, reads_accumulator=True).cycles == 576
    assert [e.scalar_copy(t, 512, BF16, BF16).cycles for t in PUBLISHED] == [512, 512, 256]
    assert e.scalar_copy(TRN3, 512, BF16_PSUM, BF16).cycles == 256
    assert e.scalar_copy(TRN3, 512, BF16_PSUM, BF16_STRIDED).cycles == 512
    assert e.scalar_copy(TRN3, 512, F32, F32).cycles == 512


def test_gpsimd_engine() -> None:
    assert e.gpsimd_stream(TRN2, 512).cycles == 662
    assert e.gpsimd_stream(TRN2, 512, cycles_per_element=2).cycles == 1174
    assert e.gpsimd_topk(TRN2, 1000, 8).cycles == 4008


def test_gathers_are_issued_for_512_elements_at_a_time() -> None:
    assert e.gpsimd_gather(TRN2, 512).cycles == 150 + 2 * 512
    assert e.gpsimd_gather(TRN2, 513).cycles == 2 * 150 + 2 * 513


def test_local_gather_gets_cheaper_per_element_with_longer_fetches() -> None:
    assert e.gpsimd_local_gather(TRN2, 256, 1, 4).cycles == 150 + 256 * 8
    assert e.gpsimd_local_gather(TRN2, 256, 1, 2).cycles == 150 + 256 * 8  # one element per index: no packing
    assert e.gpsimd_local_gather(TRN2, 256, 2, 2).cycles == 150 + 512 * (36 / 8) / 2
    per_element = [(e.gpsimd_local_gather(TRN2, 1024 // k, k, 2).cycles - 150) for k in (1, 2, 4, 8, 16, 32)]
    assert per_element == sorted(per_element, reverse=True)


# --- DMA


def test_dma_uses_one_engine_per_eight_partitions() -> None:
    """The worked examples of the DMA overview: [4, 4096] bf16 on one engine takes 1416 ns there, at a rate that
    profiles of kernels exceed."""
    narrow = e.dma(TRN2, 4, 8192, partitions=4)
    assert narrow.dma_engines == 1
    assert narrow.transfer_ns == pytest.approx(1416, rel=0.15)
    wide = e.dma(TRN2, 128, 256, partitions=128)
    assert wide.dma_engines == 16
    assert wide.bytes_moved == narrow.bytes_moved == 32 * 1024
    assert wide.fixed_ns == 1300


def test_a_descriptor_takes_its_bytes_and_a_little() -> None:
    """Packets of 4096, 2048, 512 and 256 bytes follow each other in 155, 80, 23.5 and 14 ns in published profiles."""
    for size, published in ((4096, 155), (2048, 80), (512, 23.5), (256, 14)):
        cost = e.dma(TRN2, 16, size, partitions=128)
        assert cost.transfer_ns == pytest.approx(published, rel=0.01)
    assert e.dma(TRN2, 128, 512, partitions=128).transfer_ns == 8 * (512 / 27.2 + 4.6)


@pytest.mark.parametrize(("buffer_bytes", "share"), [(4096, 0.966), (8192, 0.983), (32768, 1.0)])
def test_large_payloads_reach_the_published_throughput(buffer_bytes: int, share: float) -> None:
    """Bytes per partition against the share of peak throughput plotted in the DMA overview."""
    cost = e.dma(TRN2, 128, buffer_bytes, partitions=128)
    achieved = cost.bytes_moved / max(cost.transfer_ns, e.dma_issue_ns(TRN2, generated=True))
    assert achieved / (16 * TRN2.dma_bytes_per_ns) == pytest.approx(share, rel=0.04)


def test_results_and_descriptors_take_the_published_latencies() -> None:
    assert e.result_latency_ns(TRN1, Engine.scalar) == (264 - 64) / 1.4
    assert e.dma_issue_ns(TRN2, generated=True) == 600
    assert e.dma_issue_ns(TRN2, generated=False) == TRN2.dma_trigger_ns


def test_dma_peaks_at_the_published_aggregate_and_below_device_memory() -> None:
    for target, aggregate in zip(PUBLISHED, (272, 435.2, 528), strict=True):  # trn2: as its profiler states
        cost = e.dma(target, 128, 1 << 20, partitions=128)
        assert cost.bytes_moved / cost.transfer_ns == pytest.approx(aggregate, rel=1e-3)
        assert aggregate <= target.device_hbm_bytes_per_ns


def test_dma_without_sbuf_spreads_over_what_there_is() -> None:
    assert e.dma(TRN2, 1, 1 << 16).dma_engines == 1
    assert e.dma(TRN2, 40, 1 << 16).dma_engines == 16
    assert e.dma(TRN2, 40, 1 << 16).transfer_ns == 3 * ((1 << 16) / 27.2 + 4.6)


def test_a_small_store_to_hbm_takes_as_long_as_512_bytes() -> None:
    """Stores of 256 bytes follow each other in 22 ns on trn2, loads in 14; of 512 bytes, either in 23.5."""
    load, store = (e.dma(TRN2, 16, 256, partitions=128, to_hbm=stores) for stores in (False, True))
    assert store.transfer_ns == pytest.approx(22, rel=0.1)
    assert load.transfer_ns == pytest.approx(14, rel=0.01)
    assert store.bytes_moved == load.bytes_moved == 16 * 256
    assert e.dma(TRN2, 16, 512, partitions=128, to_hbm=True) == e.dma(TRN2, 16, 512, partitions=128)
    assert e.dma(TRN1, 16, 256, partitions=128, to_hbm=True) == e.dma(TRN1, 16, 256, partitions=128)


def test_dma_transpose_efficiency() -> None:
    size = 1 << 20
    copy = e.dma(TRN2, 128, size / 128, partitions=128).transfer_ns
    from_hbm = e.dma_transpose(TRN2, size, src_in_sbuf=False, partitions=128).transfer_ns
    from_sbuf = e.dma_transpose(TRN2, size, src_in_sbuf=True, partitions=128).transfer_ns
    narrow = e.dma_transpose(TRN2, size, src_in_sbuf=False, partitions=32).transfer_ns
    assert from_hbm == pytest.approx(copy / 0.9, rel=0.02)
    assert from_sbuf == pytest.approx(copy / 0.5, rel=0.02)
    assert narrow == pytest.approx(4 * from_hbm, rel=0.02)
