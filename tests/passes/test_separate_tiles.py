"""Which tiles with an explicit address are buffers of their own, and that nothing but their place changes."""

from __future__ import annotations

import numpy as np
import pytest

import nkilite as nki
import nkilite.isa as nisa
import nkilite.language as nl
from nkilite.passes import separate_tiles
from nkilite.passes.pipeline import run_pipeline
from nkilite.schedule.pipeline import scheduled
from nkilite.testing import make

X = make((128, 64), "float32")


def tile(byte: int, width: int = 64, partition: int = 0, partitions: int = 128, name: str = "") -> nl.tensor:
    return nl.ndarray((partitions, width), nl.float32, nl.sbuf, address=(partition, byte), name=name)


def out(x) -> nl.tensor:
    return nl.ndarray(x.shape, x.dtype, buffer=nl.shared_hbm)


def kept(kernel, *arrays: np.ndarray) -> set[str]:
    """The names of the tiles that keep their address."""
    program = run_pipeline(kernel.trace(*arrays))
    return {b.name for b in program.buffers if b.address is not None}


def same_as_simulated(kernel, *arrays: np.ndarray) -> None:
    np.testing.assert_array_equal(kernel(*arrays), nki.simulate(kernel)(*arrays))


def test_a_memory_used_in_turns_is_as_fast_as_tiles_without_addresses() -> None:
    def kernel(x, addresses: bool):
        result = out(x)
        for turn in range(4):
            one, two = (
                tile(1024 * (turn % 2) + at) if addresses else nl.ndarray((128, 64), nl.float32) for at in (0, 256)
            )
            nisa.dma_copy(one, x[turn])
            nisa.activation(two, nl.exp, one)
            nisa.dma_copy(result[turn], two)
        return result

    arrays = make((4, 128, 64), "float32")
    fixed, free = (scheduled(nki.jit(kernel).trace(arrays, addresses)) for addresses in (True, False))
    assert fixed.groups == free.groups and fixed.groups
    np.testing.assert_array_equal(nki.jit(kernel)(arrays, True), nki.jit(kernel)(arrays, False))


def test_what_another_name_wrote_is_found() -> None:
    @nki.jit
    def kernel(x):
        result = out(x)
        one, two, three = tile(0, name="one"), tile(0, name="two"), tile(0, name="three")
        nisa.dma_copy(one, x)
        nisa.tensor_scalar(two, two, nl.add, 1.0)  # of what `one` holds
        nisa.dma_copy(result, two)
        nisa.memset(three, 0.0)
        nisa.dma_copy(result[0:64], three[0:64])
        return result

    assert kept(kernel, X) == {"one", "two"}
    same_as_simulated(kernel, X)


@pytest.mark.parametrize(("byte", "partition", "share"), [(128, 0, True), (256, 0, False), (0, 64, False)])
def test_tiles_in_use_at_once(byte: int, partition: int, share: bool) -> None:
    """They keep their addresses where they have a byte in common."""

    @nki.jit
    def kernel(x):
        result = out(x)
        one = tile(0, partitions=64, name="one")
        two = tile(byte, partition=partition, partitions=64, name="two")
        nisa.dma_copy(one, x[0:64])
        nisa.dma_copy(two, x[64:128])
        nisa.dma_copy(result[0:64], one)
        nisa.dma_copy(result[64:128], two)
        return result

    assert kept(kernel, X) == ({"one", "two"} if share else set())
    same_as_simulated(kernel, X)


def test_an_instruction_that_ends_one_tile_and_begins_another() -> None:
    @nki.jit
    def kernel(x):
        result = out(x)
        one, two = tile(0, name="one"), tile(128, name="two")
        nisa.dma_copy(one, x)
        nisa.tensor_copy(two, one)
        nisa.dma_copy(result, two)
        return result

    assert kept(kernel, X) == {"one", "two"}
    same_as_simulated(kernel, X)


@pytest.mark.filterwarnings("ignore::nkilite.ir.coverage.PartlyUninitialized")
def test_a_part_that_another_name_wrote_is_found() -> None:
    @nki.jit
    def kernel(x):
        result = out(x)
        one, two = tile(0, name="one"), tile(0, name="two")
        nisa.dma_copy(one, x)
        nisa.tensor_scalar(two[:, 0:32], one[:, 0:32], nl.add, 1.0)
        nisa.dma_copy(result, two)
        return result

    assert kept(kernel, X) == {"one", "two"}
    same_as_simulated(kernel, X)


def test_a_tile_that_a_loop_carries_is_in_use_throughout() -> None:
    @nki.jit
    def kernel(x):
        result = out(x)
        carried = tile(0, name="carried")
        nisa.dma_copy(carried, x)

        def body(_):
            nisa.tensor_scalar(carried, carried, nl.add, 1.0)
            own, other = tile(256, name="own"), tile(256, name="other")
            nisa.tensor_copy(own, carried)
            nisa.tensor_copy(carried, own)
            nisa.memset(other, 2.0)
            nisa.tensor_tensor(carried, carried, other, nl.multiply)

        nl.fori_loop(0, 3, body)
        late = tile(0, name="late")
        nisa.tensor_copy(late, carried)
        nisa.dma_copy(result, late)
        return result

    assert kept(kernel, X) == {"carried", "late"}
    same_as_simulated(kernel, X)


@pytest.mark.parametrize("machine_code", [True, False])
@pytest.mark.parametrize("seed", range(12))
def test_random_addresses(seed: int, machine_code: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """A few tiles at few addresses, some of which hold what was written through others."""

    @nki.jit
    def kernel(x, seed):
        choose = np.random.default_rng(seed)
        result = out(x)
        nisa.memset(tile(0, 256), 1.0)
        tiles = []
        for turn in range(24):
            if not tiles or choose.random() < 0.4:
                made = tile(128 * int(choose.integers(0, 4)), 32 * int(choose.integers(1, 4)))
                if choose.random() < 0.8:
                    nisa.memset(made, float(turn))
                tiles.append(made)
            one, other = (tiles[-int(choose.integers(1, 1 + min(4, len(tiles))))] for _ in range(2))
            nisa.tensor_scalar(one[:, 0:32], other[:, 0:32], nl.add, float(turn))
            nisa.dma_copy(result[:, 0:32], one[:, 0:32])
            nisa.tensor_copy(tiles[0][:, 0:32], one[:, 0:32])
        nisa.dma_copy(result[:, 32:64], tiles[0][:, 0:32])
        return result

    if machine_code:
        monkeypatch.setattr(separate_tiles._meet, "run", lambda items, *arrays: separate_tiles._meet(*arrays))
    same_as_simulated(kernel, X, seed)
