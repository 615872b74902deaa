"""One array passed for several arguments: compiled kernels and simulated ones leave the same bytes in it."""

from __future__ import annotations

import numpy as np
import pytest

import nkilite as nki
import nkilite.isa as nisa
import nkilite.language as nl
from nkilite.errors import NonContiguousArgument, OverlappingArguments

SHAPE = (128, 256)
X = np.random.default_rng(0).integers(-9, 9, SHAPE).astype(np.float32)


def below(a, b):
    nisa.dma_copy(dst=b[1:128], src=a[0:127])
    return b


def turned(a, b):
    square = b[:, 128:256]
    nisa.dma_copy(dst=square, src=a[:, 128:256].permute((1, 0)))
    return b


def mirrored(a, b):
    nisa.dma_copy(dst=b, src=a.ap([[-256, 128], [1, 256]], 127 * 256))
    return b


def swapped_through_tiles(a, b):
    """Loads of both, stores to either: the second load sees the first store."""
    for r in range(0, 128, 32):
        upper = nl.load(a[r:r + 32])
        nisa.activation(dst=upper, op=nl.relu, data=upper)
        nl.store(b[96 - r:128 - r], upper)
        lower = nl.load(b[r:r + 32])
        nisa.tensor_tensor(dst=lower, data1=lower, data2=upper, op=nl.add)
        nl.store(a[r:r + 32], lower)
    return a


def a_row_ahead(a, b):
    """A chain by rows that are fused: what is loaded of a row was stored of the one before."""
    tile, moved = (nl.ndarray((64, 256), dtype=nl.float32, buffer=nl.sbuf) for _ in range(2))
    nisa.dma_copy(dst=tile, src=a[0:64])
    nisa.tensor_scalar(dst=tile, data=tile, op0=nl.multiply, operand0=2.0)
    nisa.dma_copy(dst=b[1:65], src=tile)
    nisa.dma_copy(dst=moved, src=a[2:66])
    nisa.tensor_scalar(dst=moved, data=moved, op0=nl.add, operand0=1.0)
    nisa.dma_copy(dst=b[0:64], src=moved)
    return b


@pytest.mark.parametrize("fuse", ["0", "1"])
@pytest.mark.parametrize("function", [below, turned, mirrored, swapped_through_tiles, a_row_ahead])
def test_one_array_twice(function, fuse, monkeypatch) -> None:
    monkeypatch.setenv("NKILITE_FUSE", fuse)
    kernel, simulated = nki.jit(function), nki.simulate(function)
    for launch in range(3):  # with arrays that are apart in between
        ours, theirs = X + launch, X + launch
        kernel(ours, ours)
        simulated(theirs, theirs)
        np.testing.assert_array_equal(ours, theirs)
        pairs = [(X.copy(), X + 1) for _ in range(2)]
        kernel(*pairs[0])
        simulated(*pairs[1])
        np.testing.assert_array_equal(pairs[0], pairs[1])


def test_one_array_as_other_types_and_shapes() -> None:
    def kernel(a, words, flat):
        nisa.dma_copy(dst=flat[256:512], src=flat[0:256])
        nisa.dma_copy(dst=words[2:3], src=words[1:2])
        return a

    ours, theirs = X.copy(), X.copy()
    for launch, array in ((nki.jit(kernel), ours), (nki.simulate(kernel), theirs)):
        assert launch(array, array.view(np.int32), array.reshape(-1)) is array
    np.testing.assert_array_equal(ours, theirs)
    np.testing.assert_array_equal(ours[2], X[0])


def test_what_is_only_read_is_compiled_as_if_apart() -> None:
    @nki.jit
    def kernel(a, b):
        tile = nl.load(a)
        nisa.tensor_tensor(dst=tile, data1=tile, data2=nl.load(b), op=nl.subtract)
        out = nl.ndarray(SHAPE, dtype=nl.float32, buffer=nl.shared_hbm)
        nl.store(out, tile)
        return out

    for _ in range(2):
        assert not kernel(X, X).any()
        np.testing.assert_array_equal(kernel(X, X + 1), -np.ones(SHAPE))
    assert "%b" in str(kernel.trace(X, X)).split("dma_copy")[2]
    merged = str(nki.jit(below).trace(X, X))
    assert "src=%a " in merged
    assert "dst=%a + 256" in merged


@pytest.mark.parametrize("mode", [nki.jit, nki.simulate])
def test_shared_memory_that_is_refused(mode) -> None:
    def kernel(a, b):
        nisa.dma_copy(dst=b, src=a)  # writes b
        return b

    memory = X.copy()
    frozen = memory[:]
    frozen.flags.writeable = False
    for a, b, error in (
        (memory[0:100], memory[20:120], OverlappingArguments), (frozen, memory, NonContiguousArgument),
    ):
        with pytest.raises(error, match="'a'") as caught:
            mode(kernel)(a, b)
        assert caught.value.location.source.endswith("# writes b")
    np.testing.assert_array_equal(memory, X)
