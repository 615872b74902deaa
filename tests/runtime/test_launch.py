"""Warm launches: the quick way in gives what the slow one does, and loses none of its checks."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

import nkilite as nki
import nkilite.isa as nisa
import nkilite.language as nl
from nkilite.errors import (
    IndirectOutOfBounds,
    InvalidCall,
    InvalidOutput,
    NonContiguousArgument,
    OverlappingArguments,
    UnsupportedArrayDtype,
)
from nkilite.native import entry
from nkilite.runtime import configurations
from nkilite.runtime import kernel as kernels

X = np.arange(64 * 32, dtype=np.float32).reshape(64, 32)
SCALE = 2.0


def scaled(x, factor=1.0):
    tile = nl.load(x)
    out = nl.ndarray(x.shape, dtype=x.dtype, buffer=nl.shared_hbm)
    nisa.tensor_scalar(dst=tile, data=tile, op0=nl.multiply, operand0=factor)
    nisa.dma_copy(dst=out, src=tile)
    return out


@pytest.fixture
def slow(monkeypatch) -> list[str]:
    """The kernels that this thread launched the slow way, and what the calls looked like."""
    found: list[str] = []
    original = kernels.Kernel._run

    def run(self, args, kwargs, key):
        if threading.current_thread() is threading.main_thread():
            found.append(f"{self.__name__}: {key}")
        return original(self, args, kwargs, key)

    monkeypatch.setattr(kernels.Kernel, "_run", run)
    return found


def test_the_layout_of_arrays_is_known() -> None:
    assert entry.available()


@pytest.mark.parametrize(
    "call",
    [
        lambda k, x: k(x),
        lambda k, x: k(x, 3.0),
        lambda k, x: k(x, factor=3.0),
        lambda k, x: k(factor=-2, x=x),
        lambda k, x: k(x=x),
        lambda k, x: k(x, out=np.empty_like(x)),
        lambda k, x: k(out=np.empty_like(x), factor=2.0, x=x),
    ],
)
def test_calls_like_an_earlier_one_are_quick(slow, call) -> None:
    kernel = nki.jit(scaled)
    results = [call(kernel, X + i) for i in range(4)]
    assert len(slow) == 1
    factor = results[0][0, 1]
    for i, result in enumerate(results):
        np.testing.assert_array_equal(result, (X + i) * factor)


def test_what_looks_different_is_different(slow) -> None:
    kernel = nki.jit(scaled)
    for factor in (2.0, 2, True, 3.0, -0.0, 0.0):
        for _ in range(2):
            result = kernel(X, factor)
            np.testing.assert_array_equal(result, X * np.float32(factor))
            assert (np.signbit(result) == np.signbit(X * np.float32(factor))).all()
    assert len(slow) == 6
    assert kernel(X.astype(np.int32), 2).dtype == np.int32
    assert kernel(X.reshape(32, 64), 2).shape == (32, 64)
    nan = float("nan")
    assert np.isnan(kernel(X, nan)).all() and np.isnan(kernel(X, float("nan"))).all()


def test_results_with_structure_and_inputs_written_in_place(slow) -> None:
    @nki.jit
    def kernel(x, y):
        out = scaled(x, 2.0)
        nisa.dma_copy(dst=y, src=x)
        return {"views": (out[0:8], out), "y": y, "n": 3}

    for i in range(3):
        y = np.zeros_like(X)
        found = kernel(X + i, y)
        assert found["y"] is y
        assert found["n"] == 3
        np.testing.assert_array_equal(y, X + i)
        np.testing.assert_array_equal(found["views"][0], 2 * (X + i)[:8])
        np.testing.assert_array_equal(found["views"][1], 2 * (X + i))
    assert len(slow) == 1


@pytest.mark.parametrize("quick", [True, False])
def test_arrays_a_warm_call_refuses(quick, monkeypatch) -> None:
    monkeypatch.setattr(entry, "available", lambda: quick)

    @nki.jit
    def kernel(x, y):
        nisa.dma_copy(dst=y, src=x)
        return y

    y = np.zeros_like(X)
    kernel(X, y)
    wide = np.zeros((64, 64), np.float32)
    wide[:, ::2] = X + 1
    kernel(wide[:, ::2], y)
    np.testing.assert_array_equal(y, X + 1)
    with pytest.raises(NonContiguousArgument, match="not contiguous"):
        kernel(X, wide[:, ::2])
    frozen = X.copy()
    frozen.flags.writeable = False
    kernel(frozen, y)
    np.testing.assert_array_equal(y, X)
    with pytest.raises(NonContiguousArgument, match="read-only"):
        kernel(X, frozen)
    raw = np.zeros(X.nbytes + 1, np.uint8)[1:].view(np.uint8)
    skewed = np.ndarray(X.shape, np.float32, raw)
    skewed[:] = X + 2
    kernel(skewed, y)
    np.testing.assert_array_equal(y, X + 2)
    with pytest.raises(UnsupportedArrayDtype):
        kernel(X.astype(">f4"), y)


@pytest.mark.parametrize("quick", [True, False])
def test_refused_destinations_of_warm_calls(quick, monkeypatch) -> None:
    monkeypatch.setattr(entry, "available", lambda: quick)
    kernel = nki.jit(scaled)
    memory = np.zeros((128, 32), np.float32)
    kernel(memory[:64], out=memory[64:])
    for out in (memory[63:127], memory[1:65]):
        with pytest.raises(InvalidOutput, match="overlaps x"):
            kernel(memory[:64], out=out)
    with pytest.raises(InvalidOutput, match="not contiguous"):
        kernel(X, out=np.zeros((64, 64), np.float32)[:, ::2])
    with pytest.raises(InvalidCall):
        kernel(X, outs=memory[64:])


def test_changed_globals_are_seen(monkeypatch) -> None:
    @nki.jit
    def kernel(x):
        return scaled(x, SCALE)

    for value in (2.0, 3.0, 3.0, 4.0):
        monkeypatch.setitem(globals(), "SCALE", value)
        np.testing.assert_array_equal(kernel(X), X * np.float32(value))


def test_changed_settings_are_seen(monkeypatch, slow) -> None:
    @nki.jit
    def kernel(x):
        return scaled(x, 2.0 if nisa.get_nc_version() is nisa.nc_version.gen2 else 3.0)

    settings = {"NEURON_PLATFORM_TARGET_OVERRIDE": "trn1", "NKILITE_CPU": "vector128", "NKI_SIMULATOR": "1"}
    for name in settings:
        monkeypatch.delenv(name, raising=False)
    np.testing.assert_array_equal(kernel(X), 3 * X)
    for name, value in settings.items():
        monkeypatch.setenv(name, value)
        np.testing.assert_array_equal(kernel(X), (2 if value == "trn1" else 3) * X)
        monkeypatch.delenv(name)
    assert len(slow) == 4
    assert len(kernel._specializations) == 3
    kernel(X)
    assert len(slow) == 4


def test_tuned_values_of_warm_calls() -> None:
    kernel = nki.jit(scaled)
    values = {"factor": 2.0}
    kernel(X)
    before = configurations.register(lambda found, explicit: values if found is kernel else {})
    try:
        for factor in (2.0, 5.0, 2.0):
            values["factor"] = factor
            for _ in range(2):
                np.testing.assert_array_equal(kernel(X), X * np.float32(factor))
        np.testing.assert_array_equal(kernel(X, 3.0), X * 3)
    finally:
        configurations.register(before)
    np.testing.assert_array_equal(kernel(X), X)


def test_faults_and_pauses_of_warm_calls(capsys) -> None:
    @nki.jit
    def gather(x, indices):
        index = nl.load(indices)
        tile = nl.ndarray((8, 32), dtype=x.dtype, buffer=nl.sbuf)
        nisa.dma_copy(dst=tile, src=x.ap([[32, 8], [1, 32]], 0, vector_offset=index, indirect_dim=0))
        nl.device_print("gathered", tile)
        out = nl.ndarray((8, 32), dtype=x.dtype, buffer=nl.shared_hbm)
        nisa.dma_copy(dst=out, src=tile)
        return out

    good, bad = np.arange(8, dtype=np.int32)[:, None], np.full((8, 1), 64, np.int32)
    for _ in range(3):
        np.testing.assert_array_equal(gather(X, good), X[:8])
        with pytest.raises(IndirectOutOfBounds, match="64 is not in"):
            gather(X, bad)
    assert capsys.readouterr().out.count("gathered") == 3


def test_threads_launch_one_kernel_at_once() -> None:
    kernel = nki.jit(scaled)
    kernel(X, 2.0)

    def work(i: int) -> bool:
        return all((kernel(X + i + j, 2.0) == 2 * (X + i + j)).all() for j in range(50))

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(work, range(16)))


def test_the_interpreter_goes_on_while_a_kernel_runs() -> None:
    @nki.jit
    def busy(x):
        tile = nl.load(x)
        for _ in range(4000):
            nisa.activation(dst=tile, op=nl.sigmoid, data=tile)
        out = nl.ndarray(x.shape, dtype=x.dtype, buffer=nl.shared_hbm)
        nl.store(out, tile)  # what nobody reads is not computed
        return out

    x = np.full((128, 512), 1e-3, np.float32)
    busy(x)
    ticks, over = [], threading.Event()

    def watch() -> None:
        while not over.is_set():
            ticks.append(time.perf_counter())
            time.sleep(0.001)

    watcher = threading.Thread(target=watch)
    watcher.start()
    time.sleep(0.01)
    started = time.perf_counter()
    busy(x)
    ended = time.perf_counter()
    over.set()
    watcher.join()
    assert sum(started < t < ended for t in ticks) >= min(3, (ended - started) / 0.05)


def test_large_programs_run_warm_on_several_threads(slow) -> None:
    @nki.jit
    def kernel(x):
        out = nl.ndarray(x.shape, dtype=x.dtype, buffer=nl.shared_hbm)
        for row in range(0, x.shape[0], 128):
            nl.store(out[row:row + 128], scaled_tile(x[row:row + 128]))
        return out

    x = np.arange(512 * 4096, dtype=np.float32).reshape(512, 4096)
    for i in range(3):
        np.testing.assert_array_equal(kernel(x + i), 2 * (x + i))
    assert len(slow) == 1


def scaled_tile(x):
    tile = nl.load(x)
    nisa.tensor_scalar(dst=tile, data=tile, op0=nl.multiply, operand0=2.0)
    return tile


def test_an_entry_wants_as_many_arrays_as_it_knows() -> None:
    kernel = nki.jit(scaled)
    kernel(X)
    (specialization,) = kernel._specializations.values()
    assert not specialization.executable.enter(X)
    assert not specialization.executable.enter(X, X.copy(), X.copy())


def test_registers_are_cleared_at_every_warm_call(slow) -> None:
    @nki.jit
    def total(x):
        tile, result = nl.load(x), nl.zeros((64, 1), nl.float32)
        nisa.activation(tile, nl.copy, tile, reduce_op=nl.add, reduce_res=result, reduce_cmd=nisa.reduce_cmd.reduce)
        out = nl.ndarray((64, 1), nl.float32, nl.shared_hbm)
        nisa.dma_copy(out, result)
        return out

    for _ in range(4):
        np.testing.assert_allclose(total(X), X.sum(axis=1, keepdims=True))
    assert len(slow) == 1


def doubled_into(target, x):
    tile = nl.load(x)
    nisa.tensor_scalar(dst=tile, data=tile, op0=nl.multiply, operand0=2.0)
    nisa.dma_copy(dst=target, src=tile)
    return target


def test_a_written_argument_is_apart_from_the_others_or_the_same() -> None:
    kernel = nki.jit(doubled_into)
    memory = np.arange(65 * 32, dtype=np.float32).reshape(65, 32)
    whole = memory[:64].copy()
    for _ in range(2):
        np.testing.assert_array_equal(kernel(np.empty_like(X), X), 2 * X)
        before = whole.copy()
        np.testing.assert_array_equal(kernel(whole, whole), 2 * before)
        for target, x in ((memory[1:], memory[:64]), (memory[:64], memory[1:])):
            with pytest.raises(OverlappingArguments, match="'target' and 'x'") as caught:
                kernel(target, x)
            assert "dma_copy(dst=target" in str(caught.value)
    with pytest.raises(OverlappingArguments):
        kernel.launcher(memory[1:], memory[:64])
