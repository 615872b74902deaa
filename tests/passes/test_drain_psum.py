"""PSUM tiles that do not fit leave it as soon as they are complete; results, names and dependencies stay."""

from __future__ import annotations

import numpy as np
import pytest

import nkilite as nki
import nkilite.isa as nisa
import nkilite.language as nl
from conformance.fuzz.differ import Way, differences
from conformance.fuzz.draw import draw
from nkilite.errors import MemoryOverflow
from nkilite.passes import pipeline
from nkilite.passes.allocate import Allocate
from nkilite.passes.drain_psum import drain_psum

X = (np.arange(128 * 512, dtype=np.float32).reshape(128, 512) % 97) / 97
COUNT = 12  # tiles of a bank; eight banks fit


def complete(x, accumulate, count: int = COUNT, name: str = ""):
    """In a kernel: that many sums in PSUM, each complete before the next one begins, and none read before the last."""
    moving = nl.load(x)
    sums = [nl.ndarray((128, 512), dtype=nl.float32, buffer=nl.psum) for _ in range(count)]
    for i, psum in enumerate(sums):
        for k in range(2):
            accumulate(psum, moving, moving[:, 128 * k : 128 * (k + 1)], name and f"{name}{i}.{k}")
    return moving, sums


def matmul(psum, moving, stationary, name):
    nisa.nc_matmul(psum, stationary, moving, name=name or None)


def read_after_all(x):
    moving, sums = complete(x, matmul)
    out = nl.ndarray((len(sums), 128, 512), dtype=nl.float32, buffer=nl.shared_hbm)
    results = [nl.ndarray((128, 512), dtype=nl.float32, buffer=nl.sbuf) for _ in sums]
    for i, (psum, result) in enumerate(zip(sums, results, strict=True)):
        nisa.tensor_scalar(result, psum, op0=nl.add, operand0=float(i))
    nisa.memset(moving, 0.0)
    for i, result in enumerate(results):
        nisa.dma_copy(out[i], result)
    return out


def test_what_does_not_fit_as_it_is_written() -> None:
    sum_of_both = (X[:, :128] + X[:, 128:256]).T @ X
    for wrap in (nki.jit, nki.simulate):
        found = np.asarray(wrap(read_after_all)(X))
        for i in range(COUNT):
            np.testing.assert_allclose(found[i], sum_of_both + i, rtol=1e-5)
    assert np.array_equal(nki.jit(read_after_all)(X), nki.simulate(read_after_all)(X))
    assert nki.profile(read_after_all, X, target="trn2").overflow is None


def test_names_and_dependencies_follow() -> None:
    def kernel(x):
        _, sums = complete(x, matmul, 3, "sum")
        out = nl.ndarray((128, 512), dtype=nl.float32, buffer=nl.shared_hbm)
        results = [nl.ndarray((128, 512), dtype=nl.float32, buffer=nl.sbuf) for _ in sums]
        first = nisa.tensor_copy(results[0], sums[0], engine=nisa.engine.scalar, name="read0")
        nisa.tensor_copy(results[1], sums[1], engine=nisa.engine.vector, name="read1")
        nisa.tensor_copy(results[2], sums[2], engine=nisa.engine.scalar, name="read2").depends_on(first)
        nisa.dma_copy(out, results[1])
        return out

    program = nki.jit(kernel).trace(X)
    assert drain_psum(program)
    order = [program.names[i] for i in range(program.count) if i in program.names]
    sums = [f"sum{i}.{k}" for i in range(3) for k in range(2)]
    assert order == [*sums[:4], "read1", *sums[4:], "read0", "read2"]  # what a dependency names stays
    places = {name: i for i, name in program.names.items()}
    assert program.dependencies == [(places["read2"], places["read0"])]
    assert not drain_psum(program)


def overwrites_what_is_read(x):
    """What the first tile is added to is set after all are complete."""
    moving, sums = complete(x, matmul)
    out = nl.ndarray((len(sums), 128, 512), dtype=nl.float32, buffer=nl.shared_hbm)
    nisa.memset(moving, 1.0)
    for i, psum in enumerate(sums):
        nisa.tensor_tensor(moving, moving, psum, op=nl.add)
        nisa.dma_copy(out[i], moving)
    return out


def read_by_a_loop(x):
    """The loop needs all of them in each of its turns."""
    moving, sums = complete(x, matmul)
    out = nl.ndarray((128, 512), dtype=nl.float32, buffer=nl.shared_hbm)

    def turn(i):
        for psum in sums:
            nisa.tensor_tensor(moving, moving, psum, op=nl.add)

    nl.fori_loop(0, 2, turn)
    nisa.dma_copy(out, moving)
    return out


def complete_by_the_engine_that_reads(x):
    """Whose queue has all sums before the first read."""
    def add(psum, moving, stationary, name):
        nisa.tensor_copy(psum, moving, engine=nisa.engine.vector)

    _, sums = complete(x, add)
    out = nl.ndarray((len(sums), 128, 512), dtype=nl.float32, buffer=nl.shared_hbm)
    for i, psum in enumerate(sums):
        result = nl.ndarray((128, 512), dtype=nl.float32, buffer=nl.sbuf)
        nisa.tensor_copy(result, psum, engine=nisa.engine.vector)
        nisa.dma_copy(out[i], result)
    return out


@pytest.mark.parametrize("kernel", [overwrites_what_is_read, read_by_a_loop, complete_by_the_engine_that_reads])
def test_what_does_not_fit_in_any_such_order(kernel) -> None:
    for wrap in (nki.jit, nki.simulate):
        with pytest.raises(MemoryOverflow, match="PSUM overflow"):
            wrap(kernel)(X)


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_random_programs_in_this_order(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    class Drained(Allocate):
        def run(self, program):
            drain_psum(program)
            return super().run(program)

    monkeypatch.setattr(pipeline, "PIPELINE", tuple(
        Drained if kind is Allocate else kind for kind in pipeline.PIPELINE
    ))
    assert not list(differences(draw(seed), [Way("native", True)]))
