"""A store over what its own register loop still has to read, a few columns further on."""

from __future__ import annotations

import numpy as np
import pytest

import nkilite as nki
import nkilite.isa as nisa
import nkilite.language as nl


@pytest.mark.parametrize("shift", [0, 1, 16, 100, 512])
@pytest.mark.parametrize("copy", [False, True])
def test_results_go_over_their_operand(shift: int, copy: bool) -> None:
    def kernel(a):
        tile = nl.ndarray((128, 512), dtype=nl.float32, buffer=nl.sbuf)
        result = nl.ndarray((128, 512), dtype=nl.float32, buffer=nl.sbuf)
        most = nl.ndarray((128, 1), dtype=nl.float32, buffer=nl.sbuf)
        nisa.dma_copy(dst=tile, src=a[0:128, 0:512])
        nisa.tensor_reduce(dst=most, op=nl.maximum, data=tile, axis=1)
        nisa.tensor_scalar(dst=result, data=tile, op0=nl.subtract, operand0=most)
        if copy:
            nisa.tensor_copy(dst=result, src=result)
        nisa.dma_copy(dst=a[0:128, shift : shift + 512], src=result)
        return a

    values = np.random.default_rng(0).standard_normal((256, 1024)).astype(np.float32)
    wanted = values.copy()
    wanted[:128, shift : shift + 512] = values[:128, :512] - values[:128, :512].max(axis=1, keepdims=True)
    np.testing.assert_array_equal(nki.jit(kernel)(values.copy()), wanted)
