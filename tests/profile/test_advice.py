"""Every rule speaks about the kernel made for it, at its line, and is silent about a sound kernel."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

import nkilite as nki
import nkilite.isa as nisa
import nkilite.language as nl
from nkilite.errors import InvalidOperand
from nkilite.profiling import Advice, advise

F32 = np.float32


def sb(*shape, dtype=nl.float32):
    return nl.ndarray(shape, dtype=dtype, buffer=nl.sbuf)


def hbm(*shape):
    return nl.ndarray(shape, dtype=nl.float32, buffer=nl.shared_hbm)


def reloads(x):
    out = hbm(1024, 2048)
    for i in range(8):
        t = sb(128, 2048)
        nisa.dma_copy(dst=t, src=x)  # here
        nisa.dma_copy(dst=out[i * 128:(i + 1) * 128], src=t)
    return out


def small(x):
    out = hbm(128, 2048)
    t = sb(128, 2048)
    for i in range(64):
        nisa.dma_copy(dst=t[:, i * 32:(i + 1) * 32], src=x[:, i * 32:(i + 1) * 32])  # here
    nisa.dma_copy(dst=out, src=t)
    return out


def narrow(x):
    out = hbm(16, 2048)
    t = sb(16, 2048)
    nisa.dma_copy(dst=t, src=x[:16])
    for _ in range(30):
        nisa.activation(dst=t, op=nl.exp, data=t)  # here
    nisa.dma_copy(dst=out, src=t)
    return out


def waits(x):
    out = hbm(128, 2048)
    for _ in range(32):
        t = nl.ndarray((128, 2048), dtype=nl.float32, buffer=nl.sbuf, address=(0, 0))
        nisa.dma_copy(dst=t, src=x)  # here
        nisa.activation(dst=t, op=nl.exp, data=t)
    nisa.dma_copy(dst=out, src=t)
    return out


def product(dtype, banks):
    def kernel(x):
        out = hbm(128, 512)
        a, b = sb(128, 512, dtype=dtype), sb(128, 512)
        nisa.dma_copy(dst=b, src=x[:, :512])
        nisa.tensor_copy(dst=a, src=b)
        for i in range(64):
            p = nl.ndarray((128, 512), dtype=nl.float32, buffer=nl.psum, address=(0, i % banks * 2048))
            nisa.nc_matmul(dst=p, stationary=a[:, :128], moving=a, accumulate=False)
            nisa.tensor_copy(dst=b, src=p, engine=nisa.engine.vector)
        nisa.dma_copy(dst=out, src=b)
        return out

    return kernel


def short(x):
    out = hbm(128, 4)
    t = sb(128, 4)
    nisa.dma_copy(dst=t, src=x[:, :4])
    for _ in range(300):
        nisa.tensor_scalar(dst=t, data=t, op0=nl.add, operand0=1.0)  # here
    nisa.dma_copy(dst=out, src=t)
    return out


def sound(x):
    out = hbm(128, 2048)
    t = sb(128, 2048)
    nisa.dma_copy(dst=t, src=x)
    for _ in range(100):
        nisa.activation(dst=t, op=nl.exp, data=t)
    nisa.dma_copy(dst=out, src=t)
    return out


def too_large(x):
    out = hbm(1024, 8192)
    tiles = [sb(128, 8192) for _ in range(8)]
    for t in tiles:
        nisa.dma_copy(dst=t, src=x)
    for i, t in enumerate(tiles):
        nisa.dma_copy(dst=out[i * 128:(i + 1) * 128], src=t)
    return out


def found(kernel: Callable, kind: str, x: np.ndarray) -> Advice:
    advices = advise(nki.profile(kernel, x, target="trn2"))
    mine = [a for a in advices if a.kind == kind]
    assert mine, [str(a) for a in advices]
    return mine[0]


X = np.zeros((128, 2048), F32)


@pytest.mark.parametrize(
    ("kernel", "kind", "figure"),
    [
        (reloads, "input reloaded", "x is read 8.0 times"),
        (small, "small DMA", "128 bytes per partition, below 2,048"),
        (narrow, "few partitions", "at most 16 of 128"),
        (waits, "waiting for DMA", "Scalar Engine idle"),
        (short, "short instructions", "300 instructions on 4 elements"),
    ],
)
def test_findings_name_their_line_and_figure(kernel: Callable, kind: str, figure: str) -> None:
    advice = found(kernel, kind, X)
    assert figure in advice.figure
    assert advice.location is not None
    assert advice.location.source.endswith("# here")


def test_products() -> None:
    assert "1/4 of the bfloat16 rate" in found(product(nl.float32, 8), "float32 matmul", X).figure
    conflict = found(product(nl.bfloat16, 1), "PSUM bank conflict", X)
    assert conflict.location is not None
    assert "tensor_copy" in conflict.location.source
    assert "(1 in use)" in conflict.text
    assert "MFU is" in found(product(nl.bfloat16, 1), "Tensor Engine below peak", X).figure
    spread = advise(nki.profile(product(nl.float32, 8), X, target="trn2"))
    assert "PSUM bank conflict" not in [a.kind for a in spread]


def test_overflow_is_the_first_finding() -> None:
    first = advise(nki.profile(too_large, np.zeros((128, 8192), F32), target="trn2"))[0]
    assert first.kind == "does not fit on chip"
    assert "SBUF overflow on trn2" in first.figure


def test_loops_with_a_runtime_trip_count_are_named_until_told() -> None:
    def kernel(x, counts):
        out = nl.ndarray(x.shape, dtype=x.dtype, buffer=nl.shared_hbm)
        a, limit = nl.load(x), nl.load(counts)

        def body(i):
            nisa.activation(dst=a, op=nl.exp, data=a, name="body")

        last = nisa.register_alloc(limit)
        nl.fori_loop(0, last, body)  # guessed
        nisa.dma_copy(dst=out, src=a)
        return out

    arrays = X, np.ones((1, 1), np.int32)
    guessed = nki.profile(kernel, *arrays, target="trn2")
    assert guessed.guessed_loops == 1
    advice = next(a for a in advise(guessed) if a.kind == "loop taken to run once")
    assert advice.location is not None
    assert advice.location.source.endswith("# guessed")
    for trips in (5, [5]):
        told = nki.profile(kernel, *arrays, target="trn2", trips=trips)
        assert told.guessed_loops == 0
        assert list(told.program.names.values()).count("body") == 5
        assert told.span_us > guessed.span_us
        assert "loop taken to run once" not in [a.kind for a in advise(told)]
    with pytest.raises(InvalidOperand, match="trips"):
        nki.profile(kernel, *arrays, target="trn2", trips=[1, 2])


def test_a_sound_kernel_gets_no_advice() -> None:
    assert [str(a) for a in advise(nki.profile(sound, X, target="trn2"))] == []
