"""What nobody reads is not run on the CPU; what somebody sees is."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import nkilite as nki
import nkilite.isa as nisa
import nkilite.language as nl
from nkilite.errors import IndirectOutOfBounds
from nkilite.schedule.pipeline import scheduled
from nkilite.testing import make

X = make((128, 64), "float32")


def names(kernel: Any, *arrays: Any) -> list[str]:
    """The instructions of a kernel that run."""
    return [i.signature.name for i in scheduled(nki.jit(kernel).trace(*(arrays or (X,)))).program]


def stored(tile: Any) -> Any:
    out = nl.ndarray(tile.shape, dtype=tile.dtype, buffer=nl.shared_hbm)
    nisa.dma_copy(dst=out, src=tile)
    return out


def test_chains_that_nobody_reads() -> None:
    def kernel(x: Any) -> Any:
        tile, spare = nl.load(x), nl.load(x)
        nisa.activation(dst=spare, op=nl.exp, data=spare)  # in place: it reads what it writes
        wide = nl.ndarray((128, 64), dtype=nl.float32, buffer=nl.sbuf)
        nisa.tensor_tensor(dst=wide, data1=spare, data2=tile, op=nl.add)
        private = nl.ndarray((128, 64), dtype=nl.float32, buffer=nl.private_hbm)
        nisa.dma_copy(dst=private, src=wide)
        nisa.tensor_scalar(dst=tile, data=tile, op0=nl.add, operand0=1.0)
        return stored(tile)

    assert names(kernel) == ["dma_copy", "tensor_scalar", "dma_copy"]
    assert len(nki.jit(kernel).trace(X)) == 7, "the chip runs them all"
    np.testing.assert_array_equal(nki.jit(kernel)(X), X + 1)


def test_what_aliases_is_read() -> None:
    def kernel(x: Any) -> Any:
        tiles = [nl.ndarray((128, 64), dtype=nl.float32, buffer=nl.sbuf, address=(0, 0)) for _ in range(2)]
        nisa.dma_copy(dst=tiles[0], src=x)
        return stored(tiles[1])

    assert names(kernel)[-2:] == ["dma_copy", "dma_copy"]


def test_arguments_that_are_written() -> None:
    def kernel(x: nl.mutable_tensor) -> Any:
        tile, spare = nl.load(x), nl.load(x)
        nisa.tensor_scalar(dst=spare, data=spare, op0=nl.add, operand0=1.0)
        nisa.dma_copy(dst=x, src=tile)
        return stored(tile)

    assert names(kernel).count("dma_copy") == 3


def test_loops_carry_what_they_need() -> None:
    def kernel(x: Any) -> Any:
        total, idle = nl.zeros((128, 64), dtype=nl.float32), nl.zeros((128, 64), dtype=nl.float32)

        def body(i: Any) -> None:
            nisa.tensor_tensor(dst=idle, data1=idle, data2=total, op=nl.add)
            nisa.tensor_scalar(dst=total, data=total, op0=nl.add, operand0=1.0)

        nl.fori_loop(0, 3, body)
        return stored(total)

    assert "tensor_tensor" not in names(kernel)
    np.testing.assert_array_equal(nki.jit(kernel)(X), np.full_like(X, 3))


def test_prints_stay(capfd: pytest.CaptureFixture[str]) -> None:
    def kernel(x: Any) -> Any:
        tile, shown = nl.load(x), nl.ndarray((1, 1), dtype=nl.float32, buffer=nl.sbuf)
        nisa.memset(dst=shown, value=5.0)
        nl.device_print("shown", shown)
        return stored(tile)

    nki.jit(kernel)(X)
    assert "5." in capfd.readouterr().out


def test_indices_out_of_bounds_stay_errors() -> None:
    def kernel(x: Any, rows: Any) -> Any:
        tile = nl.load(x)
        index = nl.load(rows)
        spare = nl.ndarray((128, 64), dtype=nl.float32, buffer=nl.sbuf)
        nisa.dma_copy(dst=spare, src=x.ap([[64, 128], [1, 64]], 0, vector_offset=index, indirect_dim=0))
        return stored(tile)

    rows = np.full((128, 1), 1000, np.int32)
    with pytest.raises(IndirectOutOfBounds):
        nki.jit(kernel)(X, rows)
