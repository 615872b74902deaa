"""Elementwise instructions that share registers compute what they compute one after another: the same bits."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import nkilite as nki
import nkilite.isa as nisa
import nkilite.language as nl
from nkilite.codegen.emitter import Emitter
from nkilite.host.cpu import available, host
from nkilite.runtime import recycler
from nkilite.schedule import lives, row_plans
from nkilite.schedule.tree import Register, Tree, column_loops, operations
from nkilite.testing import make

DTYPES = ("float32", "bfloat16", "float16", "float8_e4m3", "int8", "uint8", "int32")


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fuse small tiles, too."""
    monkeypatch.setattr(row_plans, "_LEAST_BYTES", 0)


def tree_of(kernel: Any, *arrays: np.ndarray) -> Tree:
    (tree,) = (g.tree for g in nki.jit(kernel).compile(*arrays).schedule.groups if not (g.tree.terms or g.tree.moves))
    return tree


def check(kernel: Any, *arrays: np.ndarray) -> Tree:
    """Compare a kernel's results with those of its instructions one after another; how it was fused."""
    fused = nki.jit(kernel)(*arrays)
    tree = tree_of(kernel, *arrays)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("NKILITE_FUSE", "0")
        alone = nki.jit(kernel)(*arrays)
    for one, other in zip(fused, alone, strict=True):
        assert np.asarray(one).tobytes() == np.asarray(other).tobytes()
    return tree


def mixed(x: Any, y: Any) -> Any:
    """A chain through tiles of every dtype: rounded on the way, updated in place, in part needed afterwards."""
    rows, width = x.shape
    first, second = (nl.load(t) for t in (x, y))
    scale = nl.ndarray((rows, 1), dtype=nl.float32, buffer=nl.sbuf)
    nisa.tensor_reduce(dst=scale, op=nl.maximum, data=first, axis=1)
    outs = []
    for dtype in DTYPES:
        tile = nl.ndarray((rows, width), dtype=getattr(nl, dtype), buffer=nl.sbuf)
        nisa.tensor_scalar(dst=tile, data=first, op0=nl.multiply, operand0=scale, op1=nl.add, operand1=0.3)
        nisa.tensor_tensor(dst=tile, data1=tile, data2=second, op=nl.subtract)
        wide = nl.ndarray((rows, width), dtype=nl.float32, buffer=nl.sbuf)
        nisa.activation(dst=wide, op=nl.tanh, data=tile, bias=scale, scale=0.25)
        positive = nl.ndarray((rows, width), dtype=nl.uint8, buffer=nl.sbuf)
        nisa.tensor_scalar(dst=positive, data=tile, op0=nl.greater, operand0=0.0)
        nisa.tensor_copy_predicated(dst=wide, src=second, predicate=positive)
        nisa.memset(dst=second, value=1.0) if dtype == "uint8" else None
        nisa.scalar_tensor_tensor(
            dst=first, data=wide, op0=nl.multiply, operand0=0.5, op1=nl.add, operand1=first
        )
        moved = nl.ndarray((rows, width), dtype=nl.float16, buffer=nl.sbuf)
        nisa.tensor_copy(dst=moved, src=first)
        out = nl.ndarray((rows, width), dtype=nl.float16, buffer=nl.shared_hbm)
        nisa.dma_copy(dst=out, src=moved)
        outs.append(out)
    return tuple(outs)


@pytest.mark.parametrize("level", available())
@pytest.mark.parametrize("width", [32, 33, 95, 512, 631])
def test_mixed(width: int, level: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NKILITE_CPU", level)
    tree = check(mixed, make((16, width), "float32", 1), make((16, width), "float32", 2))
    assert column_loops(tree.loop)
    assert any(use.place == Register() for op in tree.ops for use in op.uses)


@pytest.mark.parametrize("level", available())
@pytest.mark.parametrize("width", [640, 1111])
@pytest.mark.parametrize("pages", [False, True])
def test_stored_past_the_caches(width: int, pages: bool, level: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NKILITE_CPU", level)
    monkeypatch.setattr(lives, "LARGE", 0)
    monkeypatch.setattr(recycler, "RECYCLED", 0 if pages else 1 << 30)  # results begin with a page, or anywhere

    def kernel(x: Any, y: Any) -> Any:
        out = [nl.ndarray(x.shape, dtype=dtype, buffer=nl.shared_hbm) for dtype in (nl.float32, nl.bfloat16)]
        first, second = nl.load(x), nl.load(y)
        total, product = (nl.ndarray(o.shape, dtype=o.dtype, buffer=nl.sbuf) for o in out)
        nisa.tensor_tensor(dst=total, data1=first, data2=second, op=nl.add)
        nisa.tensor_tensor(dst=product, data1=total, data2=second, op=nl.multiply)
        nisa.dma_copy(dst=out[0], src=total)
        nisa.dma_copy(dst=out[1], src=product)
        return tuple(out)

    tree = check(kernel, make((32, width), "float32", 3), make((32, width), "float32", 4))
    assert sum(use.nontemporal for op in tree.ops for use in op.uses) == 2
    assert [[op.member for op in operations(loop.body)] for loop in column_loops(tree.loop)] == [[2, 3, 4, 5]]
    assert tree.scratch == ()


def test_the_same_elements_have_one_number() -> None:
    def kernel(x: Any) -> Any:
        out = nl.ndarray((16, 64), dtype=x.dtype, buffer=nl.shared_hbm)
        tile = nl.load(x)
        for half in (tile[:, 0:64], tile[:, 64:128]):
            nisa.tensor_tensor(dst=half, data1=half, data2=half, op=nl.add)
        nisa.tensor_tensor(dst=tile[:, 0:64], data1=tile[:, 0:64], data2=tile[:, 64:128], op=nl.multiply)
        nisa.dma_copy(dst=out, src=tile[:, 0:64])
        return (out,)

    (loop,) = column_loops(check(kernel, make((16, 128), "float32")).loop)
    values = [[use.value for use in op.uses] for op in operations(loop.body)]
    assert values == [[0, 1], [2, 3], [0] * 3, [2] * 3, [0, 0, 2], [4, 0]], "the load comes in halves"


def reducing(op: Any, dtype: Any) -> Any:
    """Products that are only summed, a sum and a largest element of what is kept, and what comes of the three."""

    def kernel(x: Any, y: Any) -> Any:
        a, b = nl.load(x), nl.load(y)
        product, result = (nl.ndarray(x.shape, dtype=nl.float32, buffer=nl.sbuf) for _ in range(2))
        first, total, last = (nl.ndarray((x.shape[0], 1), dtype=nl.float32, buffer=nl.sbuf) for _ in range(3))
        nisa.tensor_tensor(dst=product, data1=a, data2=b, op=nl.multiply)
        nisa.tensor_reduce(dst=first, op=op, data=product, axis=1)
        kept = nl.ndarray(x.shape, dtype=dtype, buffer=nl.sbuf)
        nisa.activation(dst=kept, op=nl.exp, data=a, scale=0.1, reduce_op=nl.add, reduce_res=total,
                        reduce_cmd=nisa.reduce_cmd.reset_reduce)
        nisa.tensor_reduce(dst=last, op=nl.maximum, data=kept, axis=1, negate=True)
        nisa.tensor_scalar(dst=result, data=kept, op0=nl.multiply, operand0=first, op1=nl.add, operand1=total)
        nisa.tensor_scalar(dst=result, data=result, op0=nl.add, operand0=last)
        out = nl.ndarray(x.shape, dtype=nl.float32, buffer=nl.shared_hbm)
        nisa.dma_copy(dst=out, src=result)
        return (out,)

    return kernel


@pytest.mark.parametrize("level", available())
@pytest.mark.parametrize("width", [33, 160, 631])
def test_rows_are_combined_on_the_way(width: int, level: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same sums, bit for bit, as those of instructions that go over a row on their own."""
    monkeypatch.setenv("NKILITE_CPU", level)
    op, dtype = (nl.add, nl.bfloat16) if width == 160 else (nl.maximum, nl.float32)
    tree = check(reducing(op, dtype), make((16, width), "float32", 5), make((16, width), "float32", 6))
    loops = column_loops(tree.loop)
    assert [[op.member for op in operations(loop.body)] for loop in loops] == [[2, 3, 4, 5], [6, 7, 8]]
    assert len(tree.scratch) == 4, "three results and what is kept; products are in registers alone"


def test_what_is_combined_is_there_after_the_row() -> None:
    """Who reads a sum, or stores a row to HBM, does not go along with who makes it."""

    def kernel(x: Any) -> Any:
        tile = nl.load(x)
        total, again = (nl.ndarray((16, 1), dtype=nl.float32, buffer=nl.sbuf) for _ in range(2))
        nisa.tensor_scalar(dst=tile, data=tile, op0=nl.multiply, operand0=2.0)
        nisa.tensor_reduce(dst=total, op=nl.add, data=tile, axis=1)
        nisa.tensor_scalar(dst=tile, data=tile, op0=nl.subtract, operand0=total)
        nisa.tensor_reduce(dst=again, op=nl.add, data=tile, axis=1)
        outs = [nl.ndarray(t.shape, dtype=nl.float32, buffer=nl.shared_hbm) for t in (tile, again)]
        nisa.dma_copy(dst=outs[0], src=tile)
        nisa.dma_copy(dst=outs[1], src=again)
        return tuple(outs)

    tree = check(kernel, make((16, 128), "float32"))
    assert [[op.member for op in operations(loop.body)] for loop in column_loops(tree.loop)] == [[0, 1, 2], [3, 4]]


@pytest.mark.parametrize("shape", [(128, 224, 1), (64, 3, 7, 1), (128, 1), (64, 1, 1)])
@pytest.mark.parametrize("op", [nl.add, nl.maximum])
def test_one_element_is_combined_with_nothing(shape: tuple[int, ...], op: Any) -> None:
    def kernel(x: Any) -> Any:
        tile = nl.ndarray(shape, dtype=nl.float32, buffer=nl.sbuf)
        nisa.dma_copy(tile, x)
        doubled = nl.ndarray(shape, dtype=nl.float32, buffer=nl.sbuf)
        nisa.tensor_scalar(doubled, tile, nl.multiply, 2.0)
        kept = nl.ndarray(shape[:-1] if len(shape) > 2 else shape, dtype=nl.float32, buffer=nl.sbuf)
        nisa.tensor_reduce(kept, op, doubled, axis=len(shape) - 1, negate=True)
        more = nl.ndarray(kept.shape, dtype=nl.float32, buffer=nl.sbuf)
        nisa.tensor_scalar(more, kept, nl.add, 1.0)
        outs = [nl.ndarray(t.shape, dtype=t.dtype, buffer=nl.shared_hbm) for t in (doubled, kept, more)]
        for out, source in zip(outs, (doubled, kept, more), strict=True):
            nisa.dma_copy(out, source)
        return tuple(outs)

    x = make(shape, np.float32, 3)
    doubled, kept, more = nki.jit(kernel)(x)
    np.testing.assert_array_equal(doubled, 2 * x)
    np.testing.assert_array_equal(kept, -2 * x.reshape(kept.shape))
    np.testing.assert_array_equal(more, 1 - 2 * x.reshape(kept.shape))
    check(kernel, x)


def masked(pattern: Any) -> Any:
    """A mask with its largest elements, positions, and a range of each row, in the loop of what is around them."""

    def kernel(x: Any) -> Any:
        rows, width = x.shape
        tile = nl.load(x)
        low, high, largest, last = (nl.ndarray((rows, 1), dtype=nl.float32, buffer=nl.sbuf) for _ in range(4))
        nisa.memset(dst=low, value=3.0)
        nisa.memset(dst=high, value=width // 2)
        double, kept, sums, result = (nl.ndarray((rows, width), dtype=nl.float32, buffer=nl.sbuf) for _ in range(4))
        nisa.tensor_scalar(dst=double, data=tile, op0=nl.multiply, operand0=2.0)
        nisa.affine_select(dst=kept, pattern=pattern, offset=-20, channel_multiplier=7, on_true_tile=double,
                           on_false_value=-50.0, cmp_op=nl.greater_equal)
        nisa.tensor_scalar_reduce(dst=double, data=kept, op0=nl.add, operand0=1.0, reduce_op=nl.maximum,
                                  reduce_res=largest)
        positions = nl.ndarray((rows, width), dtype=nl.int32, buffer=nl.sbuf)
        nisa.iota(dst=positions, pattern=pattern, offset=3, channel_multiplier=-2)
        nisa.tensor_tensor(dst=sums, data1=positions, data2=double, op=nl.add)
        nisa.range_select(dst=kept, on_true_tile=sums, comp_op0=nl.greater_equal, comp_op1=nl.less, bound0=low,
                          bound1=high, reduce_res=last, reduce_cmd=nisa.reduce_cmd.reset_reduce, range_start=1)
        nisa.tensor_scalar(dst=result, data=kept, op0=nl.maximum, operand0=-1e6, op1=nl.add, operand1=largest)
        nisa.tensor_scalar(dst=result, data=result, op0=nl.add, operand0=last)
        out = nl.ndarray(x.shape, dtype=nl.float32, buffer=nl.shared_hbm)
        nisa.dma_copy(dst=out, src=result)
        return (out,)

    return kernel


@pytest.mark.parametrize(("width", "threads"), [(33, 1), (160, 3), (631, 1)])
def test_what_depends_on_the_position(width: int, threads: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows and columns of a part are those of the instruction."""
    monkeypatch.setenv("NKILITE_VERIFY", "1")
    monkeypatch.setenv("NKILITE_NUM_THREADS", str(threads))
    x = make((64, width), "float32", 10)
    apart = {"affine_select", "tensor_scalar_reduce", "iota"}
    every = {"tensor_scalar", "tensor_tensor", "range_select", "dma_copy"} | apart
    for pattern, missing in (([[-1, width]], set()), ([[9, 5], [1, 32]], apart)):
        if width == 160 or not missing:  # where steps differ, they have all columns of a few rows at a time
            kernel = nki.jit(masked(pattern))
            schedule = kernel.compile(x).schedule
            names = [i.signature.name for i in schedule.program]
            inside = {
                names[g.first + op.member] for g in schedule.groups for loop in column_loops(g.tree.loop)
                for op in operations(loop.body)
            }
            assert inside == every - missing
            fused = np.asarray(kernel(x)[0])
            np.testing.assert_allclose(fused, nki.simulate(masked(pattern))(x)[0], rtol=1e-5)
            with pytest.MonkeyPatch.context() as patch:
                patch.setenv("NKILITE_FUSE", "0")
                assert fused.tobytes() == np.asarray(nki.jit(masked(pattern))(x)[0]).tobytes()


def turned(x: Any, cos: Any, sin: Any) -> Any:
    """Pairs of elements, half a head apart, turned: instructions on both halves beside some on one of them."""
    rows, heads, width = x.shape
    half = width // 2
    tile, first, second = (nl.load(t) for t in (x, cos, sin))
    pairs = tile.reshape((rows, heads, 2, half))
    by_cos, by_sin = (nl.ndarray(pairs.shape, dtype=nl.float32, buffer=nl.sbuf) for _ in range(2))
    for product, angles in ((by_cos, first), (by_sin, second)):
        spread = angles.reshape((rows, 1, 1, half)).broadcast(1, heads).broadcast(2, 2)
        nisa.tensor_tensor(dst=product, data1=pairs, data2=spread, op=nl.multiply)
    result = nl.ndarray(pairs.shape, dtype=x.dtype, buffer=nl.sbuf)
    for this, other, op in ((0, 1, nl.subtract), (1, 0, nl.add)):
        nisa.tensor_tensor(
            dst=result[:, :, this, :], data1=by_cos[:, :, this, :], data2=by_sin[:, :, other, :], op=op
        )
    out = nl.ndarray(x.shape, dtype=x.dtype, buffer=nl.shared_hbm)
    nisa.dma_copy(dst=out, src=result.reshape(x.shape))
    return (out,)


@pytest.mark.parametrize("level", available())
@pytest.mark.parametrize(("heads", "width"), [(8, 128), (3, 66), (1, 64)])
@pytest.mark.parametrize("large", [False, True])
def test_what_works_on_more_columns_is_cut(
    heads: int, width: int, large: bool, level: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing but the operands is in memory, wherever rows have gaps; results may go past the caches."""
    monkeypatch.setenv("NKILITE_CPU", level)
    monkeypatch.setenv("NKILITE_VERIFY", "1")
    monkeypatch.setattr(lives, "LARGE", 0 if large else lives.LARGE)
    arrays = make((16, heads, width), "float32", 7), *(make((16, width // 2), "float32", s) for s in (8, 9))
    tree = check(turned, *arrays)
    (loop,) = column_loops(tree.loop)
    cuts = [(op.member, op.slice and op.slice.index) for op in operations(loop.body)]
    assert cuts == [(3, 0), (3, 1), (4, 0), (4, 1), (5, None), (6, None), (7, 0), (7, 1)]
    assert tree.scratch == () and loop.extent == heads * width // 2


@pytest.mark.parametrize("op", [nl.add, nl.maximum])
@pytest.mark.parametrize("first", [True, False])
def test_what_is_combined_is_not_cut(op: Any, first: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """A row is combined from all of its columns, also beside members that work on half of them."""
    monkeypatch.setenv("NKILITE_VERIFY", "1")

    def kernel(x: Any, y: Any) -> Any:
        tile, half = nl.load(x), nl.load(y)
        total = nl.ndarray((x.shape[0], 1), dtype=nl.float32, buffer=nl.sbuf)
        if first:
            nisa.tensor_reduce(dst=total, op=op, data=tile, axis=1)
        nisa.tensor_tensor(dst=tile[:, 128:], data1=tile[:, 128:], data2=half, op=nl.add)
        if not first:
            nisa.tensor_reduce(dst=total, op=op, data=tile, axis=1)
        outs = [nl.ndarray(t.shape, dtype=t.dtype, buffer=nl.shared_hbm) for t in (total, tile)]
        for out, source in zip(outs, (total, tile), strict=True):
            nisa.dma_copy(dst=out, src=source)
        return tuple(outs)

    x, y = (np.round(4 * make((64, n), "float32", n)) for n in (256, 128))
    total, tile = nki.jit(kernel)(x, y)
    expected = x.copy()
    expected[:, 128:] += y
    np.testing.assert_array_equal(tile, expected)
    whole = x if first else expected
    np.testing.assert_array_equal(total[:, 0], whole.sum(axis=1) if op is nl.add else whole.max(axis=1))


def test_rows_with_gaps() -> None:
    """What skips elements goes along with what skips the same ones, and with nothing else."""

    def kernel(x: Any) -> Any:
        tile = nl.load(x)
        outs = []
        for part in (tile[:, :, 0:32], tile[:, :, 16:48]):
            nisa.activation(dst=part, op=nl.square, data=part)
            nisa.tensor_scalar(dst=part, data=part, op0=nl.add, operand0=1.0)
            out = nl.ndarray(part.shape, dtype=x.dtype, buffer=nl.shared_hbm)
            nisa.dma_copy(dst=out, src=part)
            outs.append(out)
        return tuple(outs)

    tree = check(kernel, make((16, 4, 64), "float32"))
    loops = [[op.member for op in operations(loop.body)] for loop in column_loops(tree.loop)]
    assert loops == [[0, 0, 1, 2, 3], [4, 5, 6]], "the load comes in two parts"


def test_columns_that_meet_others_end_a_segment() -> None:
    def kernel(x: Any) -> Any:
        out = nl.ndarray((16, 64), dtype=x.dtype, buffer=nl.shared_hbm)
        tile = nl.load(x)
        nisa.activation(dst=tile[:, 0:64], op=nl.square, data=tile[:, 0:64])
        nisa.activation(dst=tile[:, 1:65], op=nl.square, data=tile[:, 1:65])
        nisa.dma_copy(dst=out, src=tile[:, 1:65])
        return (out,)

    loops = column_loops(check(kernel, make((16, 128), "float32")).loop)
    assert [[op.member for op in operations(loop.body)] for loop in loops] == [[0, 0, 1], [2, 3]]


def test_a_variable_is_the_bits_stored_last() -> None:
    e = Emitter(host())
    variable = e.variable(e.i32(7, 8))
    assert e.load("i32", variable, 8) == e.held(variable)
    e.store(e.f32(1.0, 8), variable)
    assert e.load("float", variable, 8) == e.f32(1.0, 8)
    assert e.load("i8", variable, 32).type == "<32 x i8>"
    assert e.body().count("\n") == 0, "one bitcast, and no memory"
