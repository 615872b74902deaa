"""The targets agree with the published figures and with each other."""

from __future__ import annotations

import dataclasses

import pytest

from nkilite.errors import UnknownTarget
from nkilite.machine.target import TARGETS, get_target

KIB = 1024


@pytest.mark.parametrize(
    ("spelling", "name"),
    [
        ("trn1", "trn1"),
        ("inf2", "inf2"),
        ("gen2", "trn1"),
        ("trn2", "trn2"),
        ("GEN3", "trn2"),
        (" Trn3 ", "trn3"),
        ("gen4", "trn3"),
    ],
)
def test_every_spelling_finds_its_target(spelling: str, name: str) -> None:
    assert get_target(spelling) is TARGETS[name]


@pytest.mark.parametrize("spelling", ["", "trn0", "gen1", "trn"])
def test_unknown_target_lists_the_choices(spelling: str) -> None:
    with pytest.raises(UnknownTarget) as caught:
        get_target(spelling)
    for choice in ("trn1", "inf2", "gen2", "trn2", "gen3", "trn3", "gen4"):
        assert choice in str(caught.value)
    assert isinstance(caught.value, ValueError)


@pytest.mark.parametrize(
    ("name", "mebibytes", "usable"), [("trn1", 24, 180_224), ("trn2", 28, 212_984), ("trn3", 32, 245_752)]
)
def test_sbuf_sizes(name: str, mebibytes: int, usable: int) -> None:
    target = TARGETS[name]
    assert target.sbuf_size_bytes == mebibytes * KIB * KIB
    assert target.sbuf_fmax_bytes == target.total_available_sbuf_size == usable
    assert target.sbuf_fmax == usable // 4


def test_managers_that_address_200_kib_fit_from_trn2_on() -> None:
    fits = [TARGETS[name].sbuf_fmax_bytes >= 200 * KIB for name in ("trn1", "trn2", "trn3")]
    assert fits == [False, True, True]


@pytest.mark.parametrize("target", TARGETS.values(), ids=TARGETS)
def test_psum_and_tile_size_are_those_of_every_generation(target) -> None:
    assert target.num_partitions * target.psum_partition_bytes == 2 * KIB * KIB
    assert (target.pmax, target.psum_fmax, target.psum_bank_fmax, target.psum_bank_fmax_bytes) == (
        128,
        512,
        512,
        2048,
    )
    assert (target.gemm_stationary_fmax, target.gemm_moving_fmax, target.bn_stats_fmax) == (128, 512, 512)
    assert target.psum_num_banks == 8
    assert target.dma_engines * target.partitions_per_dma_engine == target.num_partitions


@pytest.mark.parametrize(
    ("name", "dtype", "published_tflops"),
    [
        ("trn1", "bfloat16", 92),
        ("trn1", "float32", 23),
        ("trn2", "bfloat16", 79),
        ("trn2", "float32", 20),
        ("trn2", "float8_e4m3", 158),
        ("trn3", "float16", 79),
        ("trn3", "float32", 20),
        ("trn3", "float8_e4m3fn_x4", 315),
    ],
)
def test_peak_follows_from_clock_and_array(name: str, dtype: str, published_tflops: float) -> None:
    assert TARGETS[name].matmul_flops_per_ns(dtype) / 1000 == pytest.approx(published_tflops, rel=0.02)


@pytest.mark.parametrize("target", TARGETS.values(), ids=TARGETS)
def test_moving_limit_is_what_psum_holds(target) -> None:
    held = target.psum_partition_bytes if target.generation >= 4 else target.psum_bank_bytes
    assert target.matmul_moving_fmax_32bit == held // 4
    if target.generation >= 4:
        assert target.matmul_moving_fmax_16bit == held // 2


def test_capabilities_only_grow_with_the_generation() -> None:
    targets = [TARGETS[name] for name in ("trn1", "trn2", "trn3")]
    for older, newer in zip(targets, targets[1:]):
        for field in dataclasses.fields(older):
            before, after = getattr(older, field.name), getattr(newer, field.name)
            if field.name == "calibrated":
                continue  # of no kernel on trn3 a measurement was published
            if isinstance(before, bool):
                assert after >= before, field.name
            elif field.name.startswith("missing_"):
                assert after <= before, field.name
            elif field.name == "matmul_sparse_dtypes":
                continue  # the page of NeuronCore-v4 names no cFP8
            elif isinstance(before, frozenset) and "any" not in after:
                assert after >= before, field.name


def test_features_first_appear_where_the_guides_say() -> None:
    def since(feature: str) -> str:
        return next(name for name, target in TARGETS.items() if getattr(target, feature))

    for feature in (
        "hardware_dge", "dma_gather_transpose", "tensor_transpose_mode", "double_row_dtypes", "matmul_sparse_dtypes",
    ):
        assert since(feature) == "trn2", feature
    for feature in ("scalar_engine_tensor_copy", "activation_scalar_bias", "vector_fast_dtypes"):
        assert since(feature) == "trn2", feature
    for feature in ("matmul_mx_dtypes", "dma_priority"):
        assert since(feature) == "trn3", feature
    assert 32 not in TARGETS["trn1"].pe_tile_sizes
    assert "float8_e4m3fn" in TARGETS["trn3"].matmul_dtypes - TARGETS["trn2"].matmul_dtypes
    assert TARGETS["trn3"].matmul_dst_dtypes - TARGETS["trn2"].matmul_dst_dtypes == {"bfloat16"}


@pytest.mark.parametrize("partitions", range(1, 129))
def test_an_operand_fits_from_every_legal_start(partitions: int) -> None:
    starts = TARGETS["trn2"].start_partitions(partitions)
    assert starts[0] == 0
    spacing = 128 // len(starts)
    assert starts == tuple(range(0, 128, spacing))
    assert all(start + partitions <= 128 for start in starts)
    assert (
        len(starts) == 4 or partitions > spacing // 2
    )  # as many starts as the rule of halves and quadrants allows


def test_targets_cannot_be_changed() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        TARGETS["trn2"].tensor_ghz = 3.0  # type: ignore[misc]
    assert hash(TARGETS["trn1"]) != hash(TARGETS["trn2"])
