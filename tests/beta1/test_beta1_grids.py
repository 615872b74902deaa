"""Launch grids: instances that meet at nl.all_reduce, and what threads make of those that do not."""

from __future__ import annotations

import threading

import numpy as np
import pytest
from beta1_testing import check, random

from nkilite import beta1 as nki
from nkilite.beta1 import isa as nisa
from nkilite.beta1 import language as nl
from nkilite.errors import InstancesDiffer, InvalidOperand
from nkilite.native.compile import compile_program
from nkilite.native.walker import MEET, SPLIT


@pytest.mark.parametrize(
    ("grid", "axes"), [((3, 2), 0), ((3, 2), [1]), ((3, 2), (0, 1)), ((2, 3), (1, 0)), ((1, 2), 0)]
)
@pytest.mark.parametrize(("op", "right"), [(np.add, np.sum), (np.maximum, np.max)])
def test_tiles_are_combined_along_axes(grid, axes, op, right) -> None:
    @nki.jit
    def kernel(x):
        out = nl.ndarray(x.shape, dtype=x.dtype, buffer=nl.shared_hbm)
        i, j = nl.program_id(0), nl.program_id(1)
        nl.store(out[i, j], nl.all_reduce(nl.load(x[i, j]), op=op, program_axes=axes))
        return out

    x = random(*grid, 4, 8)
    along = tuple(axes) if isinstance(axes, (tuple, list)) else (axes,)
    check(kernel, np.broadcast_to(right(x, axis=along, keepdims=True), x.shape), x, grid=grid)


def test_several_meetings_in_loops() -> None:
    """Every instance is in loops of its own, and its sums are its own."""

    @nki.jit
    def kernel(x):
        out = nl.ndarray(x.shape, dtype=x.dtype, buffer=nl.shared_hbm)
        shard = nl.program_id(0)
        total = nl.ndarray((4, 8), dtype=nl.float32, buffer=nl.sbuf)
        for a in nl.affine_range(2):
            tile = nl.load(x[shard, a])
            summed = nl.all_reduce(tile, op=np.add, program_axes=[shard])
            most = nl.all_reduce(summed * (shard + 1.0), op=np.maximum, program_axes=[shard])
            for b in nl.affine_range(3):
                total[...] = nl.loop_reduce(most + tile * (b + 1.0), op=np.add, loop_indices=[b])
            nl.store(out[shard, a], total)
        return out

    x = random(3, 2, 4, 8)
    summed = x.sum(0)
    most = np.max([summed * (i + 1) for i in range(3)], axis=0)
    check(kernel, 3 * most + 6 * x, x, grid=3)
    assert threading.active_count() == 1 or not [t for t in threading.enumerate() if "instance" in t.name]


def test_dtypes_and_masks() -> None:
    """The sum is rounded once, to the dtype that is asked for; a mask leaves positions out."""

    @nki.jit
    def kernel(x):
        out = nl.zeros(x.shape, dtype=nl.float32, buffer=nl.shared_hbm)
        shard = nl.program_id(0)
        i_p, i_f = nl.mgrid[0:4, 0:8]
        inside = i_f < 5
        summed = nl.all_reduce(
            nl.load(x[shard, i_p, i_f], mask=inside), op=np.add, program_axes=shard, dtype=nl.float32, mask=inside
        )
        nl.store(out[shard, i_p, i_f], summed, mask=inside)
        return out

    x = random(3, 4, 8).astype(np.float16)
    want = np.zeros((3, 4, 8), np.float32)
    want[..., :5] = x.astype(np.float32).sum(0)[:, :5]
    check(kernel, want, x, grid=(3,), rtol=1e-6, atol=1e-6)


def test_a_launch_without_a_grid_is_alone() -> None:
    @nki.jit
    def kernel(x):
        out = nl.ndarray(x.shape, dtype=x.dtype, buffer=nl.shared_hbm)
        nl.store(out, nl.all_reduce(nl.load(x), op=np.add, program_axes=0))
        return out

    x = random(4, 8)
    check(kernel, x, x)
    check(kernel, x, x, grid=1)


@pytest.mark.parametrize("mode", ["auto", "simulation"])
@pytest.mark.parametrize(("alone", "match"), [
    (0, "instance 0 waits for instance 1, which has ended"), (1, "instance 0 has ended and instance 1 waits for it"),
])
def test_instances_that_do_not_come(mode, alone, match) -> None:
    @nki.jit(mode=mode)
    def kernel(x):
        out = nl.ndarray(x.shape, dtype=x.dtype, buffer=nl.shared_hbm)
        tile = nl.load(x)
        if nl.program_id(0) == alone:
            tile = nl.all_reduce(tile, op=np.add, program_axes=0)  # here
        nl.store(out, tile)
        return out

    with pytest.raises(InstancesDiffer, match=match) as caught:
        kernel[3](random(4, 8))
    assert caught.value.location.source.endswith("# here")


def test_instances_that_differ() -> None:
    def launched(use):
        @nki.jit
        def kernel(x):
            nl.store(x, use(nl.load(x)))

        kernel[2, 2](random(4, 8))

    with pytest.raises(InstancesDiffer, match="program_axes"):
        launched(lambda x: nl.all_reduce(x, np.add, nl.program_id(0)))
    with pytest.raises(InstancesDiffer, match="shape"):
        launched(lambda x: nl.all_reduce(x[:, 0 : 4 + nl.program_id(0)], np.add, 0))
    with pytest.raises(InvalidOperand, match=r"axes of the launch grid \(2, 2\)"):
        launched(lambda x: nl.all_reduce(x, np.add, 2))


def test_what_an_instance_raises_ends_all() -> None:
    @nki.jit
    def kernel(x):
        tile = nl.all_reduce(nl.load(x), op=np.add, program_axes=0)
        if nl.program_id(0) == 2:
            raise ZeroDivisionError("of the kernel")
        nl.store(x, tile)

    with pytest.raises(ZeroDivisionError, match="of the kernel"):
        kernel[4](random(4, 8))


@nki.jit
def softmax(x):
    out = nl.ndarray(x.shape, dtype=x.dtype, buffer=nl.shared_hbm)
    rows = nl.ds(nl.program_id(0) * 128, 128)
    tile = nl.load(x[rows, :])
    powers = nl.exp(tile - nl.max(tile, axis=1, keepdims=True))
    nl.store(out[rows, :], powers / nl.sum(powers, axis=1, keepdims=True))
    return out


def test_threads_go_from_instance_to_instance(monkeypatch) -> None:
    """Every instance is divided among threads, which do not meet, and whose number does not show in the result."""
    x = random(8 * 128, 512)
    lowered = compile_program(softmax[8].trace(x)).lowered
    flags = lowered.table[lowered.entries + 1] >> 32
    assert lowered.threads > 1
    assert (flags & SPLIT != 0).all()
    assert not (flags & MEET).any()
    results = []
    for threads in (1, 2, 3, 5):
        monkeypatch.setenv("NKILITE_NUM_THREADS", str(threads))
        results.append(np.asarray(softmax[8](x)).tobytes())
    assert len(set(results)) == 1


def test_positions_in_a_grid_become_tiles():
    @nki.jit
    def kernel(x):
        out = nl.ndarray(x.shape, dtype=nl.int32, buffer=nl.shared_hbm)
        head = nl.program_id(0)
        number = nisa.iota(head, dtype=nl.int32).reshape((1, 1))
        column = nl.transpose(number.broadcast_to((1, x.shape[1])))
        nl.store(out[head], nl.add(nl.load(x[head]), column.broadcast_to(x.shape[1:])))
        return out

    x = np.arange(3 * 4 * 2, dtype=np.int32).reshape(3, 4, 2)
    check(kernel, x + np.arange(3)[:, None, None], x, grid=(3,))
