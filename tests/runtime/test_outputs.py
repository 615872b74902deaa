"""`out=`: results in the caller's arrays; and outputs in recycled memory, which never alias anything alive."""

from __future__ import annotations

import gc
import os
import weakref
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np
import pytest

import nkilite as nki
import nkilite.isa as nisa
import nkilite.language as nl
from nkilite.errors import InvalidOutput, InvalidSetting
from nkilite.runtime.recycler import RECYCLED, recycler

MODES = [pytest.param(lambda k: k, id="compiled"), pytest.param(nki.simulate, id="simulate")]
X = np.arange(64 * 32, dtype=np.float32).reshape(64, 32)


class Pair(NamedTuple):
    a: object
    b: object


def copied(x):
    out = nl.ndarray(x.shape, dtype=x.dtype, buffer=nl.shared_hbm)
    nisa.dma_copy(dst=out, src=x)
    return out


@nki.jit
def several(x):
    first = copied(x)
    return {"pair": Pair(first, (first[0:8], copied(x))), "count": 3, "nothing": None}


# --- out= ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", MODES)
def test_one_array(mode) -> None:
    kernel = mode(nki.jit(copied))
    out = np.zeros_like(X)
    assert kernel(X, out=out) is out
    np.testing.assert_array_equal(out, X)
    assert kernel(X + 1, out=out) is out
    np.testing.assert_array_equal(out, X + 1)


@pytest.mark.parametrize("mode", MODES)
def test_nested_arrays(mode) -> None:
    whole, part, other = np.zeros_like(X), np.zeros((8, 32), np.float32), np.zeros_like(X)
    found = mode(several)(X, out={"pair": [whole, (part, other)], "count": 3, "nothing": None})
    assert found["pair"].a is whole
    assert found["pair"].b[0] is part
    assert found["count"] == 3
    for array, expected in ((whole, X), (part, X[:8]), (other, X)):
        np.testing.assert_array_equal(array, expected)


@pytest.mark.parametrize("mode", MODES)
def test_a_returned_input_may_be_its_own_destination(mode) -> None:
    @nki.jit
    def kernel(x, y):
        nisa.dma_copy(dst=y, src=x)
        return y

    y, out = np.zeros_like(X), np.zeros_like(X)
    assert mode(kernel)(X, y, out=y) is y
    np.testing.assert_array_equal(y, X)
    assert mode(kernel)(X + 1, y, out=out) is out
    np.testing.assert_array_equal(out, X + 1)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(
    ("out", "problem"),
    [
        (lambda x: np.zeros((32, 64), np.float32), r"float32 \(32, 64\)"),
        (lambda x: np.zeros_like(x, np.int32), "int32"),
        (lambda x: np.zeros((32, 64), np.float32).T, "not contiguous"),
        (lambda x: np.zeros(x.shape), "float64"),
        (lambda x: x, "overlaps x"),
        (lambda x: x.reshape(-1)[:-1], "2047"),
        (lambda x: [np.zeros_like(x)], "is list"),
        (lambda x: 3, "is int 3"),
        (lambda x: np.broadcast_to(np.float32(0), x.shape), "not contiguous"),
    ],
)
def test_destinations_that_do_not_fit(mode, out, problem) -> None:
    x = X.copy()
    with pytest.raises(InvalidOutput, match=problem):
        mode(nki.jit(copied))(x, out=out(x))
    np.testing.assert_array_equal(x, X)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(
    ("out", "problem"),
    [
        (lambda a: {"pair": [a, (a[:8], a.copy())], "count": 3, "nothing": None}, r"overlaps out\['pair'\]\[0\]"),
        (lambda a: {"pair": [a, a.copy()], "count": 3, "nothing": None}, r"out\['pair'\]\[1\]"),
        (lambda a: {"pair": [a, (a[:8].copy(), a.copy())], "count": 4, "nothing": None}, "returns 3"),
        (lambda a: {"pair": None}, "the keys 'pair', 'count', 'nothing'"),
        (lambda a: a, "a dict"),
    ],
)
def test_nestings_that_do_not_fit(mode, out, problem) -> None:
    with pytest.raises(InvalidOutput, match=problem):
        mode(several)(X, out=out(np.zeros_like(X)))


def test_read_only_destinations() -> None:
    out = np.zeros_like(X)
    out.flags.writeable = False
    with pytest.raises(InvalidOutput, match="cannot be written"):
        nki.jit(copied)(X, out=out)


@pytest.mark.parametrize("mode", MODES)
def test_a_parameter_named_out_wins(mode) -> None:
    @nki.jit
    def kernel(x, out=None):
        nisa.dma_copy(dst=out, src=x)

    @nki.jit
    def options(x, **named):
        nisa.dma_copy(dst=named["out"], src=x)

    for taking in (kernel, options):
        out = np.zeros_like(X)
        assert mode(taking)(X, out=out) is None
        np.testing.assert_array_equal(out, X)


def test_torch_destinations() -> None:
    torch = pytest.importorskip("torch", reason="torch is an optional extra")
    kernel = nki.jit(copied)
    x = torch.arange(64 * 32).reshape(64, 32).to(torch.bfloat16)
    out = torch.zeros_like(x)
    assert kernel(x, out=out) is out
    assert torch.equal(out, x)
    with pytest.raises(InvalidOutput, match="not contiguous"):
        kernel(x, out=torch.zeros(32, 64, dtype=torch.bfloat16).T)
    with pytest.raises(InvalidOutput, match="overlaps x"):
        kernel(x, out=x)


# --- recycled memory ----------------------------------------------------------------------------------------------

LARGE = np.arange(RECYCLED // 4, dtype=np.float32).reshape(128, -1)
large = nki.jit(copied)


@pytest.fixture(autouse=True)
def _fresh():
    recycler.clear()
    yield
    recycler.clear()


def address(array: np.ndarray) -> int:
    return array.__array_interface__["data"][0]


def test_memory_comes_back_when_nothing_refers_to_it() -> None:
    first = large(LARGE)
    where = address(first)
    assert address(large(LARGE)) != where
    del first
    assert where in (address(large(LARGE)), address(large(LARGE)))


@pytest.mark.parametrize(
    "derive",
    [
        lambda a: a[1:],
        lambda a: a.T,
        lambda a: a.reshape(-1)[::2],
        lambda a: a.view(np.int32)[0:4],
        lambda a: memoryview(a),
        lambda a: [a[0]][0:1],
        lambda a: np.asarray(a[3:4], order="C"),
        lambda a: np.from_dlpack(a),
        lambda a: a.base,
    ],
)
def test_views_keep_the_memory(derive) -> None:
    result = large(LARGE)
    where, kept = address(result), derive(result)
    del result
    gc.collect()
    assert where not in [address(r) for r in [large(LARGE + i) for i in range(3)]]
    del kept
    gc.collect()
    assert recycler.idle_bytes


def test_arrays_in_cycles_come_back_with_the_collector() -> None:
    cycle: list = [large(LARGE)]
    where = address(cycle[0])
    cycle.append(cycle)
    assert address(large(LARGE)) != where
    del cycle
    gc.collect()
    assert where in [address(r) for r in [large(LARGE) for _ in range(3)]]


def test_torch_results_keep_the_memory() -> None:
    torch = pytest.importorskip("torch", reason="torch is an optional extra")
    x = torch.from_numpy(LARGE)
    part = large(x)[5]
    others = [large(x + 1) for _ in range(3)]
    assert torch.equal(part, x[5])
    assert part.untyped_storage().data_ptr() not in [o.data_ptr() for o in others]


def test_kept_memory_is_bounded(monkeypatch) -> None:
    monkeypatch.setenv("NKILITE_RECYCLE", str(2 * LARGE.nbytes))
    results = [large(LARGE) for _ in range(4)]
    del results
    assert recycler.idle_bytes == 2 * LARGE.nbytes
    monkeypatch.setenv("NKILITE_RECYCLE", "0")
    first = large(LARGE)
    assert first.base is None
    monkeypatch.setenv("NKILITE_RECYCLE", "much")
    with pytest.raises(InvalidSetting, match="NKILITE_RECYCLE='much'"):
        large(LARGE)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the platform has no fork")
def test_a_forked_process_has_memory_of_its_own() -> None:
    result = large(LARGE)
    child = os.fork()
    if not child:
        result[:] = 0
        os._exit(0)
    os.waitpid(child, 0)
    np.testing.assert_array_equal(result, LARGE)


def test_memory_is_there_for_a_handler_that_interrupts_who_takes_some() -> None:
    with recycler._lock:  # not reentrant: a block may come back meanwhile
        result = large(LARGE)
    np.testing.assert_array_equal(result, LARGE)


def test_compiled_kernels_do_not_hold_arguments() -> None:
    kernel = nki.jit(copied)
    x = X.copy()
    kernel(x)
    kernel(x)
    gone = weakref.ref(x)
    del x
    assert gone() is None


def test_threads_get_memory_of_their_own() -> None:
    def check(i: int) -> bool:
        kept = [large(LARGE + i + 1000 * j) for j in range(3)]
        return all((a == LARGE + i + 1000 * j).all() for j, a in enumerate(kept))

    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(check, range(12)))
