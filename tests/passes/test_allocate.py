"""Chip addresses: liveness, explicit addresses with aliasing, and what an overflow says."""

from __future__ import annotations

import numpy as np
import pytest

import nkilite as nki
import nkilite.isa as nisa
import nkilite.language as nl
from nkilite.errors import InvalidAddress, MemoryOverflow, PsumBankCrossed

X = np.arange(128 * 256, dtype=np.float32).reshape(128, 256)


def addresses(kernel, *arrays):
    program = kernel.compile(*arrays).program
    return {b.name: program.addresses[b.id] for b in program.buffers if b.id in program.addresses}


def test_tiles_that_live_together_do_not_overlap() -> None:
    @nki.jit
    def kernel(x):
        out = nl.ndarray((128, 256), dtype=nl.float32, buffer=nl.shared_hbm)
        tiles = [nl.ndarray((128, 64), dtype=nl.float32, name=f"t{i}") for i in range(4)]
        for i, tile in enumerate(tiles):
            nisa.dma_copy(dst=tile, src=x[:, 64 * i:64 * i + 64])
        for i, tile in enumerate(tiles):
            nisa.dma_copy(dst=out[:, 64 * i:64 * i + 64], src=tile)
        return out

    starts = sorted(byte for _, byte in addresses(kernel, X).values())
    assert all(b - a >= 256 for a, b in zip(starts, starts[1:], strict=False))
    np.testing.assert_array_equal(kernel(X), X)


def test_more_tiles_than_fit_at_once_when_they_die_in_between() -> None:
    @nki.jit
    def kernel(x):
        out = nl.ndarray((128, 256), dtype=nl.float32, buffer=nl.shared_hbm)
        for _ in range(20):
            tile = nl.ndarray((128, 15000), dtype=nl.float32)
            nisa.dma_copy(dst=tile[:, 0:256], src=x)
            nisa.dma_copy(dst=out, src=tile[:, 0:256])
        return out

    np.testing.assert_array_equal(kernel(X), X)


@pytest.mark.parametrize("mode", [lambda k: k, nki.simulate], ids=["compiled", "simulate"])
def test_explicit_addresses_alias(mode) -> None:
    @nki.jit
    def kernel(x):
        out = nl.ndarray((128, 128), dtype=nl.float32, buffer=nl.shared_hbm)
        whole = nl.ndarray((128, 256), dtype=nl.float32, address=(0, 1024))
        half = nl.ndarray((128, 128), dtype=nl.float32, address=(0, 1024 + 512))
        nisa.dma_copy(dst=whole, src=x)
        nisa.dma_copy(dst=out, src=half)
        return out

    np.testing.assert_array_equal(mode(kernel)(X), X[:, 128:])


def test_automatic_tiles_avoid_explicit_ones() -> None:
    @nki.jit
    def kernel(x):
        out = nl.ndarray((128, 256), dtype=nl.float32, buffer=nl.shared_hbm)
        fixed = nl.ndarray((128, 256), dtype=nl.float32, name="fixed", address=(0, 0))
        nisa.dma_copy(dst=fixed, src=x)
        free = nl.ndarray((128, 256), dtype=nl.float32, name="free")
        nisa.tensor_copy(dst=free, src=fixed)
        nisa.dma_copy(dst=out, src=free)
        return out

    found = addresses(kernel, X)
    assert found["fixed"] == (0, 0)
    assert found["free"][1] >= 1024


def test_overflow_lists_the_live_tiles() -> None:
    @nki.jit
    def kernel(x):
        out = nl.ndarray((128, 256), dtype=nl.float32, buffer=nl.shared_hbm)
        tiles = []
        for i in range(4):
            tile = nl.ndarray((128, 16384), dtype=nl.float32, name=f"huge{i}")
            nisa.dma_copy(dst=tile[:, 0:256], src=x)
            tiles.append(tile)
        for tile in tiles:
            nisa.dma_copy(dst=out, src=tile[:, 0:256])
        return out

    with pytest.raises(MemoryOverflow) as error:
        kernel(X)
    text = str(error.value)
    assert "SBUF overflow on trn2" in text
    assert "huge3" in text
    assert "huge0" in text
    assert "65536 bytes" in text
    assert f"{__file__}:" in text
    assert error.value.fields["missing"] > 0


@pytest.mark.parametrize("mode", [pytest.param(lambda k: k, id="compiled"), pytest.param(nki.simulate, id="simulate")])
@pytest.mark.parametrize(("start", "address"), [(256, None), (448, None), (0, (0, 1024))])
def test_a_matmul_result_stays_in_its_bank(mode, start, address, monkeypatch) -> None:
    @nki.jit
    def kernel(x):
        out = nl.ndarray((128, 512), dtype=nl.float32, buffer=nl.shared_hbm)
        left, right = nl.load(x[:, 0:128]), nl.ndarray((128, 512), dtype=nl.float32)
        nisa.dma_copy(dst=right[:, 0:256], src=x)
        nisa.dma_copy(dst=right[:, 256:512], src=x)
        result = nl.ndarray((128, 1024), dtype=nl.float32, buffer=nl.psum, address=address)
        nisa.nc_matmul(result[:, start:start + 512], left, right)  # crosses
        tile = nl.ndarray((128, 512), dtype=nl.float32)
        nisa.tensor_copy(dst=tile, src=result[:, start:start + 512])
        nisa.dma_copy(dst=out, src=tile)
        return out

    with pytest.raises(PsumBankCrossed, match="2048 bytes") as error:
        mode(kernel)(X)
    assert error.value.location.source.endswith("# crosses")
    monkeypatch.setenv("NEURON_PLATFORM_TARGET_OVERRIDE", "trn3")
    mode(kernel)(X)


def test_psum_overflow_counts_banks() -> None:
    @nki.jit
    def kernel(x):
        out = nl.ndarray((128, 256), dtype=nl.float32, buffer=nl.shared_hbm)
        tile = nl.ndarray((128, 256), dtype=nl.float32)
        nisa.dma_copy(dst=tile, src=x)
        banks = [nl.ndarray((128, 512), dtype=nl.float32, buffer=nl.psum, name=f"bank{i}") for i in range(9)]
        for bank in banks:
            nisa.tensor_copy(dst=bank[:, 0:256], src=tile)
        for bank in banks:
            nisa.tensor_copy(dst=tile, src=bank[:, 0:256])
        nisa.dma_copy(dst=out, src=tile)
        return out

    with pytest.raises(MemoryOverflow, match="PSUM overflow"):
        kernel(X)


@pytest.mark.parametrize(
    ("address", "problem"),
    [((0, 1 << 20), "needs bytes"), ((64, 0), "needs partitions 64..191"), ((0, -4), "needs bytes")],
)
def test_bad_explicit_address(address, problem) -> None:
    @nki.jit
    def kernel(x):
        out = nl.ndarray((128, 256), dtype=nl.float32, buffer=nl.shared_hbm)
        tile = nl.ndarray((128, 256), dtype=nl.float32, address=address)
        nisa.dma_copy(dst=tile, src=x)
        nisa.dma_copy(dst=out, src=tile)
        return out

    with pytest.raises(InvalidAddress, match=problem):
        kernel(X)
