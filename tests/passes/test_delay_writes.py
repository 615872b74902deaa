"""Tiles that do not fit are set where they are used; results, names and dependencies stay what they are."""

from __future__ import annotations

import numpy as np
import pytest

import nkilite as nki
import nkilite.isa as nisa
import nkilite.language as nl
from conformance.fuzz.differ import Way, differences
from conformance.fuzz.draw import draw
from nkilite.errors import MemoryOverflow
from nkilite.passes import allocate
from nkilite.passes.allocate import Allocate
from nkilite.passes.delay_writes import delay_writes

X = np.arange(128 * 4, dtype=np.float32).reshape(128, 4)
LARGE = 128 * 256  # bytes of a partition: six of them do not fit into trn2's SBUF


def tiles(x, start, count: int = 8):
    """In a kernel: that many tiles, each begun by `start(tile, number)` before any is used."""
    made = [nl.ndarray((128, LARGE // 4), dtype=x.dtype, buffer=nl.sbuf, name=f"tile{i}") for i in range(count)]
    for i, tile in enumerate(made):
        start(tile, i)
    return made


def summed(x, made):
    out = nl.ndarray((len(made), 128, 4), dtype=x.dtype, buffer=nl.shared_hbm)
    for i, tile in enumerate(made):
        nisa.dma_copy(tile[:, 0:4], x)
        nisa.tensor_scalar(tile, tile, op0=nl.add, operand0=1.0)
        nisa.dma_copy(out[i], tile[:, 2:6])
    return out


def set_before(x):
    return summed(x, tiles(x, lambda tile, i: nisa.memset(tile, float(i), name=f"set{i}")))


def test_what_does_not_fit_as_it_is_written() -> None:
    for wrap in (nki.jit, nki.simulate):
        found = np.asarray(wrap(set_before)(X))
        for i in range(8):
            right = np.concatenate([X[:, 2:4], np.full((128, 2), i, np.float32)], axis=1) + 1
            np.testing.assert_array_equal(found[i], right)
    assert nki.profile(set_before, X, target="trn2").overflow is None


def test_names_and_dependencies_follow() -> None:
    def kernel(x):
        made = tiles(x, lambda tile, i: nisa.memset(tile, float(i), name=f"set{i}"), 3)
        first = nisa.tensor_scalar(made[0], made[0], op0=nl.add, operand0=1.0, name="first")
        nisa.tensor_scalar(made[2], made[2], op0=nl.add, operand0=1.0, name="second").depends_on(first)
        out = nl.ndarray((128, 4), dtype=x.dtype, buffer=nl.shared_hbm)
        nisa.dma_copy(out, made[2][:, 0:4])
        return out

    program = nki.jit(kernel).trace(X)
    assert delay_writes(program)
    order = [program.names.get(i, "") for i in range(program.count)]
    assert order.index("set2") == order.index("second") - 1
    assert order.index("set0") < order.index("first") < order.index("second")
    assert program.dependencies == [(order.index("second"), order.index("first"))]
    assert not delay_writes(program)


def kept_by_a_loop(x):
    """The loop carries the tiles: all of them are in use in each of its turns."""
    made = tiles(x, lambda tile, i: nisa.memset(tile, 0.0))

    def turn(i):
        for tile in made:
            nisa.tensor_scalar(tile, tile, op0=nl.add, operand0=1.0)

    nl.fori_loop(0, 2, turn)
    return summed(x, made)


def loaded_before(x):
    """When loads begin is up to the kernel."""
    table = nl.ndarray((128, LARGE // 4), dtype=x.dtype, buffer=nl.private_hbm)
    zeros = nl.ndarray((128, LARGE // 4), dtype=x.dtype, buffer=nl.sbuf)
    nisa.memset(zeros, 0.0)
    nisa.dma_copy(table, zeros)
    return summed(x, tiles(x, lambda tile, i: nisa.dma_copy(tile, table)))


@pytest.mark.parametrize("kernel", [kept_by_a_loop, loaded_before])
def test_what_does_not_fit_in_any_such_order(kernel) -> None:
    for wrap in (nki.jit, nki.simulate):
        with pytest.raises(MemoryOverflow, match="tile6 float32"):
            wrap(kernel)(X)


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_random_programs_in_this_order(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    class Delayed(Allocate):
        def run(self, program):
            delay_writes(program)
            return super().run(program)

    monkeypatch.setattr(allocate, "Allocate", Delayed)
    monkeypatch.setattr("nkilite.passes.pipeline.PIPELINE", tuple(
        Delayed if kind is Allocate else kind for kind in nki.passes.pipeline.PIPELINE
    ))
    assert not list(differences(draw(seed), [Way("native", True)]))
