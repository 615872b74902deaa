"""Fused runs of instructions compute what the instructions compute one after another: the same bits."""

from __future__ import annotations

import importlib
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import nkilite as nki
import nkilite.isa as nisa
import nkilite.language as nl
from kernels import GALLERY
from nkilite.host.cpu import available
from nkilite.schedule import column_loops as planned
from nkilite.schedule import lives, row_plans
from nkilite.schedule.tree import Loop, column_loops, operations
from nkilite.testing import make

MODULES = {name: importlib.import_module(f"kernels.{name}") for name in GALLERY}


@pytest.fixture
def eager(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fuse small tiles too, in small blocks and pieces, and treat every HBM tensor as a large one."""
    monkeypatch.setattr(row_plans, "_LEAST_BYTES", 0)
    monkeypatch.setattr(row_plans, "_LEAST_ALONE", 0)
    monkeypatch.setattr(row_plans, "NEAR", 2 << 10)
    monkeypatch.setattr(planned, "_LEAST_COLUMNS", 2)
    monkeypatch.setattr(lives, "LARGE", 0)


def launch(kernel: Any, arrays: tuple[np.ndarray, ...], fused: bool, threads: int = 1, **options: Any) -> list[Any]:
    """Results and arguments after a launch, fused or not."""
    (found,) = launches(kernel, arrays, fused, threads, **options)
    return found


def launches(
    kernel: Any, arrays: tuple[np.ndarray, ...], fused: bool, *threads: int, **options: Any
) -> list[list[Any]]:
    """The same after launches of one compilation on several numbers of threads."""
    compiled = nki.jit(getattr(kernel, "__wrapped__", kernel))
    found = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("NKILITE_FUSE", str(int(fused)))
        for number in threads:
            patch.setenv("NKILITE_NUM_THREADS", str(number))
            copies = [a.copy() for a in arrays]
            result = compiled(*copies, **options)
            found.append([*(result if isinstance(result, tuple) else (result,)), *copies])
    return found


def groups(kernel: Any, *arrays: np.ndarray, **options: Any) -> list[Loop]:
    """The loops of a kernel's row groups."""
    compiled = nki.jit(getattr(kernel, "__wrapped__", kernel)).compile(*arrays, **options)
    return [g.tree.loop for g in compiled.schedule.groups if not (g.tree.terms or g.tree.moves)]


def equal(one: list[Any], other: list[Any], what: str) -> None:
    for i, (left, right) in enumerate(zip(one, other, strict=True)):
        assert left.tobytes() == right.tobytes(), f"{what}: array {i} differs"


@pytest.mark.parametrize("name", GALLERY)
def test_gallery(name: str, eager: None) -> None:
    module = MODULES[name]
    for case in module.CASES:
        arrays = module.inputs(dtype=case.dtype, seed=3, **case.shape)
        kernel = getattr(module, name)
        alone = launch(kernel, arrays, False, **case.options)
        one, three = launches(kernel, arrays, True, 1, 3, **case.options)
        equal(one, alone, f"{case}")
        equal(three, alone, f"{case} on three threads")


@pytest.mark.parametrize("level", available())
@pytest.mark.parametrize("name", ["softmax", "rmsnorm", "layernorm", "rope", "swiglu", "adam"])
def test_levels(name: str, level: str, eager: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NKILITE_CPU", level)
    module = MODULES[name]
    for case in module.CASES[:3]:
        arrays = module.inputs(dtype=case.dtype, seed=4, **case.shape)
        kernel = getattr(module, name)
        equal(launch(kernel, arrays, True, **case.options), launch(kernel, arrays, False, **case.options), f"{case}")


# --- chains -------------------------------------------------------------------------------------------------

ROWS, WIDTH = 64, 24
OPS = (nl.maximum, nl.minimum, nl.subtract)
COLUMNS = (np.s_[:, :], np.s_[:, :12], np.s_[:, 12:], np.s_[:, ::2], np.s_[:, 1::2], np.s_[:, 3:15])

partitions = st.sampled_from([(0, 64), (0, 32), (32, 32), (0, 8)])
columns = st.sampled_from(COLUMNS)
tiles = st.integers(0, 4)
steps = st.one_of(
    st.tuples(st.just("load"), partitions, columns, tiles, st.integers(0, 2)),
    st.tuples(st.just("store"), partitions, columns, tiles, st.integers(0, 2)),
    st.tuples(st.just("binary"), partitions, columns, tiles, tiles, tiles, st.integers(0, 2)),
    st.tuples(st.just("scalar"), partitions, columns, tiles, tiles, st.integers(0, 2)),
    st.tuples(st.just("reduce"), partitions, columns, tiles),
    st.tuples(st.just("sum"), partitions, columns, tiles, tiles),
    st.tuples(st.just("shift"), partitions, tiles),
    st.tuples(st.just("fill"), partitions, columns, tiles),
    st.tuples(st.just("move"), tiles, tiles),
)


def chain(program: list[tuple]) -> Any:
    """A kernel of row instructions on five tiles, two of which share memory, and three pieces of one HBM tensor."""

    def kernel(x: Any) -> Any:
        out = nl.ndarray((3 * ROWS, WIDTH), dtype=x.dtype, buffer=nl.shared_hbm)
        nisa.dma_copy(dst=out, src=x)
        data = [nl.ndarray((ROWS, WIDTH), dtype=nl.float32, buffer=nl.sbuf) for _ in range(2)]
        data.append(nl.ndarray((ROWS, WIDTH), dtype=nl.float32, buffer=nl.psum))
        for at in (4096, 4096 + 48):
            data.append(nl.ndarray((ROWS, WIDTH), dtype=nl.float32, buffer=nl.sbuf, address=(0, at)))
        per_row = nl.ndarray((ROWS, 1), dtype=nl.float32, buffer=nl.sbuf)
        for i, tile in enumerate([*data, per_row]):
            nisa.memset(dst=tile, value=float(i))
        for kind, *rest in program:
            if kind == "move":  # crosses partitions
                one, other = (data[i] for i in rest)
                if nl.psum not in (one.buffer, other.buffer):
                    nisa.dma_copy(dst=one[0:32, :], src=other[32:64, :])
                continue
            (start, count), *rest = rest
            here = slice(start, start + count)
            if kind == "shift":
                tile = data[rest[0]]
                nisa.tensor_copy(dst=tile[here, 1:], src=tile[here, :-1])
                continue
            part, *rest = rest
            part = (here, part[1])
            used = [data[i][part] for i in rest[: {"binary": 3, "scalar": 2, "sum": 2}.get(kind, 1)]]
            if kind in ("load", "store"):
                hbm = out[rest[1] * ROWS + start : rest[1] * ROWS + start + count, part[1]]
                if used[0].buffer is not nl.psum:
                    nisa.dma_copy(dst=used[0], src=hbm) if kind == "load" else nisa.dma_copy(dst=hbm, src=used[0])
            elif kind == "binary":
                if used[1].buffer is nl.psum and used[2].buffer is nl.psum:
                    continue  # one of two inputs is in SBUF
                nisa.tensor_tensor(dst=used[0], data1=used[1], data2=used[2], op=OPS[rest[3]])
            elif kind == "scalar":
                nisa.tensor_scalar(dst=used[0], data=used[1], op0=OPS[rest[2]], operand0=per_row[here, :])
            elif kind == "reduce":
                nisa.tensor_reduce(dst=per_row[here, :], op=nl.maximum, data=used[0], axis=1)
            elif kind == "sum":
                nisa.activation(
                    dst=used[0], op=nl.copy, data=used[1], reduce_op=nl.add, reduce_res=per_row[here, :],
                    reduce_cmd=nisa.reduce_cmd.reset_reduce,
                )
            else:
                nisa.memset(dst=used[0], value=3.0)
        results = []
        for tile in (*data, per_row):
            moved = nl.ndarray(tile.shape, dtype=tile.dtype, buffer=nl.sbuf)
            nisa.tensor_copy(dst=moved, src=tile)
            results.append(nl.ndarray(tile.shape, dtype=tile.dtype, buffer=nl.shared_hbm))
            nisa.dma_copy(dst=results[-1], src=moved)
        return (out, *results)

    return kernel


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(program=st.lists(steps, min_size=1, max_size=12))
def test_chains(program: list[tuple], eager: None) -> None:
    kernel = chain(program)
    x = np.random.default_rng(5).integers(-4, 5, (3 * ROWS, WIDTH)).astype(np.float32)
    alone = launch(kernel, (x,), False)
    one, two = launches(kernel, (x,), True, 1, 2)
    equal(one, alone, "fused")
    equal(two, alone, "fused on two threads")
    simulated = nki.simulate(kernel)(x.copy())
    equal(list(simulated), alone[:-1], "simulated")


def double_buffered(x: Any) -> Any:
    """Loads one block ahead into tiles with explicit addresses."""
    rows, width = x.shape
    out = nl.ndarray(x.shape, dtype=x.dtype, buffer=nl.shared_hbm)
    bytes = width * 4
    buffers = [nl.ndarray((64, width), dtype=x.dtype, buffer=nl.sbuf, address=(0, i * bytes)) for i in range(2)]
    nisa.dma_copy(dst=buffers[0], src=x[0:64, :])
    for i in range(rows // 64):
        if 64 * (i + 1) < rows:
            nisa.dma_copy(dst=buffers[(i + 1) % 2], src=x[64 * (i + 1) : 64 * (i + 2), :])
        result = nl.ndarray((64, width), dtype=x.dtype, buffer=nl.sbuf)
        nisa.activation(dst=result, op=nl.square, data=buffers[i % 2])
        nisa.dma_copy(dst=out[64 * i : 64 * (i + 1), :], src=result)
    return out


def test_double_buffering(eager: None) -> None:
    x = make((320, 96), "float32")
    fused = launch(double_buffered, (x,), True)
    np.testing.assert_array_equal(fused[0], x * x)
    assert groups(double_buffered, x), "nothing was fused"


@pytest.mark.parametrize("level", available())
@pytest.mark.parametrize("block", [2 << 10, 64 << 10])
@pytest.mark.parametrize("width", [512, 700, 1037])
def test_stores_beside_the_next_rows(
    width: int, block: int, level: str, eager: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NKILITE_CPU", level)
    monkeypatch.setattr(row_plans, "NEAR", block)
    module = MODULES["softmax"]
    x = module.inputs(rows=128, D=width)
    options = {"ROWS_PER_PARTITION": 1}
    (loop,) = set(groups(module.softmax, *x, **options))
    assert column_loops(loop)[-1].beside is not None
    assert (loop.step > 1) == (block > 2 << 10)
    alone = launch(module.softmax, x, False, **options)
    for threads, found in zip((1, 3, 5), launches(module.softmax, x, True, 1, 3, 5, **options), strict=True):
        equal(alone, found, f"{threads} threads")


def test_stores_wait_for_what_takes_nothing_along(eager: None) -> None:
    def kernel(x: Any) -> Any:
        out = nl.ndarray(x.shape, dtype=x.dtype, buffer=nl.shared_hbm)
        tile = nl.load(x)
        squares = nl.ndarray(x.shape, dtype=nl.float32, buffer=nl.sbuf)
        nisa.activation(dst=squares, op=nl.square, data=tile)
        largest = nl.ndarray((x.shape[0], 8), dtype=nl.float32, buffer=nl.sbuf)
        nisa.max8(dst=largest, src=tile)
        nisa.tensor_scalar(dst=squares, data=squares, op0=nl.multiply, operand0=largest[:, 0:1])
        nisa.dma_copy(dst=out, src=squares)
        return out

    x = make((97, 600), "float32")
    (loop,) = groups(kernel, x)
    assert column_loops(loop)[-1].beside is None
    for found in launches(kernel, (x,), True, 1, 2, 5):
        np.testing.assert_array_equal(found[0], x * x * x.max(1, keepdims=True))


def test_stores_wait_where_others_use_their_rows_before(eager: None) -> None:
    def kernel(x: Any) -> Any:
        out = nl.ndarray(x.shape, dtype=x.dtype, buffer=nl.shared_hbm)
        tile = nl.load(x)
        doubled = nl.ndarray(x.shape, dtype=nl.float32, buffer=nl.sbuf)
        largest = nl.ndarray((x.shape[0], 1), dtype=nl.float32, buffer=nl.sbuf)
        nisa.tensor_scalar(dst=doubled, data=tile, op0=nl.multiply, operand0=2.0)
        nisa.tensor_reduce(dst=largest, op=nl.maximum, data=doubled, axis=1)
        nisa.activation(dst=doubled, op=nl.square, data=tile, reduce_op=nl.add, reduce_res=largest)
        nisa.tensor_scalar(dst=doubled, data=doubled, op0=nl.multiply, operand0=largest)
        nisa.dma_copy(dst=out, src=doubled)
        return out

    x = make((97, 600), "float32")
    alone = launch(kernel, (x,), False)
    for threads, found in zip((1, 2, 5), launches(kernel, (x,), True, 1, 2, 5), strict=True):
        equal(alone, found, f"{threads} threads")


def test_stores_past_the_caches_at_any_alignment(eager: None) -> None:
    def kernel(x: Any) -> Any:
        for start, width in ((0, 700), (700, 1300), (2000, 97)):
            tile = nl.ndarray((32, width), dtype=x.dtype, buffer=nl.sbuf)
            nisa.dma_copy(dst=tile, src=x[:, start : start + width])
            nisa.activation(dst=tile, op=nl.square, data=tile)
            nisa.dma_copy(dst=out[:, start : start + width], src=tile)
        return out

    def written(x: Any) -> Any:
        nonlocal out
        out = nl.ndarray(x.shape, dtype=x.dtype, buffer=nl.shared_hbm)
        return kernel(x)

    out: Any = None
    x = make((32, 2097), "float32")
    np.testing.assert_array_equal(launch(written, (x,), True)[0], x * x)
    assert any(use.nontemporal for op in operations(groups(written, x)) for use in op.uses)


@pytest.mark.parametrize("rows", [2, 97, 128])
def test_number_of_rows_and_threads(rows: int, eager: None) -> None:
    def kernel(x: Any) -> Any:
        out = nl.ndarray(x.shape, dtype=x.dtype, buffer=nl.shared_hbm)
        tile = nl.ndarray(x.shape, dtype=x.dtype, buffer=nl.sbuf)
        nisa.dma_copy(dst=tile, src=x)
        nisa.tensor_tensor(dst=tile, data1=tile, data2=tile, op=nl.add)
        nisa.dma_copy(dst=out, src=tile)
        return out

    x = make((rows, 200), "bfloat16")
    alone = launch(kernel, (x,), False)
    for threads, found in zip((1, 2, 5), launches(kernel, (x,), True, 1, 2, 5), strict=True):
        equal(found, alone, f"{rows} rows on {threads} threads")


def test_knob_switches_fusion_off(monkeypatch: pytest.MonkeyPatch) -> None:
    x = make((256, 1024), "float32")
    assert groups(MODULES["softmax"].softmax, x)
    monkeypatch.setenv("NKILITE_FUSE", "0")
    assert not groups(MODULES["softmax"].softmax, x)
