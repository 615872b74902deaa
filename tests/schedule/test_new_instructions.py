"""A new instruction fuses from its access rule alone: invented ones, with operands of other names and orders."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

import nkilite as nki
import nkilite.isa as nisa
import nkilite.language as nl
from nkilite.codegen import elementwise, gather, map_reduce, move, scan
from nkilite.codegen.emitter import Emitter, Value
from nkilite.codegen.kernel import MicroKernel
from nkilite.errors import InternalError
from nkilite.ir.access import Opaque
from nkilite.ir.definition import REGISTRY
from nkilite.ir.program import Signature
from nkilite.machine import engine as costs
from nkilite.machine.engine import Cost
from nkilite.schedule.pipeline import scheduled
from nkilite.schedule.tree import Register, column_loops, operations
from nkilite.testing import make
from nkilite.trace.instruction import instruction
from nkilite.trace.tensor import NkiTensor

P, F = 128, 1024


@pytest.fixture(autouse=True)
def registry() -> Iterator[None]:
    """What a test defines is gone after it."""
    known = set(REGISTRY)
    yield
    for name in set(REGISTRY) - known:
        del REGISTRY[name]


def finish(defined: Any, reference: Callable, lower: Callable[[MicroKernel], None]) -> Any:
    """Give an instruction its other rules; it runs where the Vector Engine does."""

    @defined.check
    def check(call: Signature) -> None:
        """Whatever the tests do is right."""

    @defined.reference
    def compute(call: Signature, **arrays: Any) -> Any:
        return reference(**arrays)

    @defined.cost
    def cost(call: Signature) -> Cost:
        return costs.vector_stream(call.target, F, ())

    @defined.lower
    def write(call: Signature, kernel: MicroKernel) -> None:
        lower(kernel)

    return defined


# --- the instructions, with the answer that `chain` has with each ------------------------------------------------


def weighted() -> Any:
    """Operands in any order; one with an element per row, one with an element per column."""

    @instruction(writes=("into",), access="p f: dst[p] src[p f] into[p f] moving[f]")
    def weighted(dst: NkiTensor, src: NkiTensor, into: NkiTensor, moving: NkiTensor, name=None) -> None: ...

    finish(
        weighted, lambda dst, src, into, moving: src * moving + dst,
        lambda kernel: elementwise.map(
            kernel, "into", ("src", "moving", "dst"), lambda e, x, w, b: e.add(e.mul(x, w), b)
        ),
    )

    def use(x: Any, row: Any, column: Any) -> Any:
        result = new(*x.shape)
        weighted(column, x, result, row)
        return result

    return use, lambda x, row, column: x * row + column


def dotted() -> Any:
    """A sum over f, with the written operand last."""

    @instruction(writes=("total",), access="p f: left[p f] right[p f] total[p]")
    def dotted(left: NkiTensor, right: NkiTensor, total: NkiTensor, name=None) -> None: ...

    def lower(kernel: MicroKernel) -> None:
        e, pointer, out = kernel.e, kernel.pointer("total"), kernel.operands["total"]

        def finish(partition: Value, sum: Value) -> None:
            e.store(sum, e.step(pointer, partition, out.strides[0]))

        map_reduce.map_reduce(
            kernel, None, ("left", "right"), lambda e, x, y: e.mul(x, y), lambda e, x, y: e.add(x, y), 0.0, finish
        )

    finish(dotted, lambda left, right, total: (left * right).sum(axis=1, keepdims=True), lower)

    def use(x: Any, row: Any, column: Any) -> Any:
        total, result = new(P, 1), new(P, F)
        dotted(x, x, total)
        nisa.tensor_scalar(result, x, nl.subtract, total)
        return result

    return use, lambda x, row, column: x - (x * x).sum(axis=1, keepdims=True)


def accumulated() -> Any:
    """A running sum: in order along f."""

    @instruction(writes=("sums",), access="p, f in order: data[p f] sums[p f]")
    def accumulated(data: NkiTensor, sums: NkiTensor, name=None) -> None: ...

    def step(e: Emitter, state: Value, x: Value) -> Value:
        return e.add(state, x)

    finish(
        accumulated, lambda data, sums: np.cumsum(data, axis=1, dtype=np.float32),
        lambda kernel: scan.scan(kernel, "sums", ("data",), (), 0.0, step),
    )

    def use(x: Any, row: Any, column: Any) -> Any:
        result = new(P, F)
        accumulated(x, result)
        accumulated(result, result)  # in place, for elements come in order
        return result

    return use, lambda x, row, column: np.cumsum(np.cumsum(x, axis=1, dtype=np.float32), axis=1, dtype=np.float32)


def parted() -> Any:
    """Two outputs."""

    @instruction(writes=("high", "low"), access="p f: x[p f] high[p f] low[p f]")
    def parted(x: NkiTensor, high: NkiTensor, low: NkiTensor, name=None) -> None: ...

    def lower(kernel: MicroKernel) -> None:
        zero = lambda e, x: e.f32(0, x.lanes)  # noqa: E731
        elementwise.map(kernel, "high", ("x",), lambda e, x: e.maximum(x, zero(e, x)))
        elementwise.map(kernel, "low", ("x",), lambda e, x: e.minimum(x, zero(e, x)))

    finish(parted, lambda x, high, low: (np.maximum(x, 0), np.minimum(x, 0)), lower)

    def use(x: Any, row: Any, column: Any) -> Any:
        high, low, result = new(P, F), new(P, F), new(P, F)
        parted(x, high, low)
        nisa.tensor_tensor(result, high, low, nl.subtract)
        return result

    return use, lambda x, row, column: np.abs(x)


def turned() -> Any:
    """Rows in reverse order: all rows of what is read may be needed for each that is written."""

    @instruction(writes=("into",), access="f: src[q f] into[p f]")
    def turned(src: NkiTensor, into: NkiTensor, name=None) -> None: ...

    def lower(kernel: MicroKernel) -> None:
        source = kernel.operands["src"]
        last = kernel.e.offset(kernel.pointer("src"), source.strides[0] * (source.shape[0] - 1))
        backwards = source._replace(strides=(-source.strides[0], *source.strides[1:]))
        part = kernel.part(kernel.call, {**kernel.operands, "src": backwards}, {"src": last})
        elementwise.map(part, "into", ("src",), lambda e, x: x)

    finish(turned, lambda src, into: src[::-1], lower)

    def use(x: Any, row: Any, column: Any) -> Any:
        result = new(P, F)
        turned(x, result)
        return result

    return use, lambda x, row, column: x[::-1]


INVENTED = {  # with: does it join a row group, and a segment of one
    "weighted": (weighted, True, True),
    "dotted": (dotted, True, True),
    "accumulated": (accumulated, True, False),
    "parted": (parted, True, True),
    "turned": (turned, False, False),
}


def new(*shape: int) -> Any:
    return nl.ndarray(shape, dtype=nl.float32, buffer=nl.sbuf)


def loaded(x: Any) -> Any:
    result = new(*x.shape)
    nisa.dma_copy(result, x)
    return result


def stored(tile: Any) -> Any:
    out = nl.ndarray(tile.shape, dtype=tile.dtype, buffer=nl.shared_hbm)
    nisa.dma_copy(out, tile)
    return out


def chain(use: Callable) -> Callable:
    """exp(2 x), what an instruction makes of that, and the square of it."""

    def kernel(x: Any, row: Any, column: Any) -> Any:
        row, column, tile, result = loaded(row), loaded(column), new(P, F), new(P, F)
        nisa.activation(tile, nl.tanh, loaded(x), scale=2.0)
        nisa.tensor_scalar(result, use(tile, row, column), nl.multiply, 3.0)
        return stored(result)

    return kernel


@pytest.mark.parametrize("name", INVENTED)
def test_fuses_from_its_access_rule_alone(name, monkeypatch):
    define, by_row, in_registers = INVENTED[name]
    use, expected = define()
    kernel = chain(use)
    arrays = make((P, F), "float32"), make((1, F), "float32", seed=1), make((P, 1), "float32", seed=2)
    schedule = scheduled(nki.jit(kernel).trace(*arrays))
    names = [i.signature.name for i in schedule.program]
    by_rows = [g for g in schedule.groups if not (g.tree.terms or g.tree.moves)]
    groups = [g for g in by_rows if name in names[g.first : g.first + g.size]]
    assert bool(groups) == by_row
    if by_row:
        (group,) = groups
        assert names[group.first + 1 : group.first + group.size].count("tensor_scalar"), "and what follows goes along"
        at = names.index(name) - group.first
        assert any(op.member == at for op in operations(column_loops(group.tree.loop))) == in_registers
    answer = expected(np.tanh(2 * arrays[0]), *arrays[1:]) * 3
    results = [nki.simulate(kernel)(*arrays), nki.jit(kernel)(*arrays)]
    monkeypatch.setenv("NKILITE_FUSE", "0")
    results.append(nki.jit(kernel)(*arrays))
    for result in results:
        np.testing.assert_allclose(result, answer, rtol=2e-3, atol=2e-3)
    np.testing.assert_array_equal(results[1], results[2])


@pytest.mark.parametrize("chained", [False, True])
def test_follows_matmuls_and_fills_panels(chained):
    """What evicts a product, with an element per row and one per column, for another product to read.

    Where another instruction comes in between, what the invented one makes never leaves the registers.
    """
    use, _ = weighted()

    def kernel(a: Any, b: Any, row: Any, column: Any) -> Any:
        left, right, row, column = loaded(a), loaded(b), loaded(row), loaded(column)
        product = nl.ndarray((P, F // 2), dtype=nl.float32, buffer=nl.psum)
        nisa.nc_matmul(product, left, right)
        scaled = use(product, row, column)
        if chained:
            doubled = new(P, F // 2)
            nisa.tensor_scalar(doubled, scaled, nl.multiply, 2.0)
            scaled = doubled
        again = nl.ndarray((P, F // 2), dtype=nl.float32, buffer=nl.psum)
        nisa.nc_matmul(again, left, scaled)
        result = new(P, F // 2)
        nisa.tensor_copy(result, again)
        return stored(result)

    a, b = make((P, P), "float32"), make((P, F // 2), "float32", seed=1)
    row, column = make((1, F // 2), "float32", seed=2), make((P, 1), "float32", seed=3)
    schedule = scheduled(nki.jit(kernel).trace(a, b, row, column))
    names = [i.signature.name for i in schedule.program]
    (group,) = [g for g in schedule.groups if "weighted" in names[g.first : g.first + g.size]]
    assert group.tree.terms and len(group.private) == 1 + chained, "the product is never in memory"
    assert len(group.tree.ops[len(group.tree.terms):]) == 1 + chained
    assert any(use.place == Register() for use in group.tree.ops[len(group.tree.terms):][0].uses) == chained
    assert len(schedule.panels) == (2 if chained else 3), "what reads SBUF alone fills rows"
    answer = a.T @ (a.T @ b * row + column) * (1 + chained)
    for launch in (nki.simulate, nki.jit):
        np.testing.assert_allclose(launch(kernel)(a, b, row, column), answer, rtol=1e-3, atol=1e-2)


def flagged() -> Any:
    """An instruction that says the same in short: by row, element by element."""

    @instruction(writes=("out",), by_row=1, elementwise=True)
    def flagged(out: NkiTensor, factor: float | NkiTensor, data: NkiTensor, name=None) -> None: ...

    finish(flagged, lambda out, factor, data: data * factor,
           lambda kernel: elementwise.map(kernel, "out", ("data", "factor"), lambda e, x, f: e.mul(x, f)))
    return flagged


@pytest.mark.parametrize("factor", [0.5, None], ids=["number", "column"])
def test_short_rules_are_read_off_the_call(factor):
    scale = flagged()

    def kernel(x: Any, column: Any) -> Any:
        tile, result = new(P, F), new(P, F)
        nisa.activation(tile, nl.tanh, loaded(x))
        scale(result, loaded(column) if factor is None else factor, tile)
        return stored(result)

    x, column = make((P, F), "float32"), make((P, 1), "float32", seed=1)
    group = scheduled(nki.jit(kernel).trace(x, column)).groups[-1]
    assert column_loops(group.tree.loop), "it goes through registers with what it follows"
    wanted = np.tanh(x) * (column if factor is None else np.float32(factor))
    for launch in (nki.simulate, nki.jit):
        np.testing.assert_allclose(launch(kernel)(x, column), wanted, rtol=1e-5, atol=1e-6)


def carried() -> Any:
    """A copy under other names."""

    @instruction(writes=("into",), access="p f: src[p f] into[p f]")
    def negated(src: NkiTensor, into: NkiTensor, name=None) -> None: ...

    @instruction(writes=("there",), access="p f: there[p f] = here[p f]")
    def carried(here: NkiTensor, there: NkiTensor, name=None) -> None: ...

    finish(negated, lambda src, into: -src,
           lambda kernel: elementwise.map(kernel, "into", ("src",), lambda e, x: e.neg(x)))
    finish(carried, lambda here, there: here, lambda kernel: move.move(kernel, "there", "here"))
    return negated, carried


@pytest.mark.parametrize("which", [0, 1], ids=["negates", "copies"])
def test_only_a_copy_is_read_in_place(which):
    """An instruction that loads from HBM and computes is no load; one that only carries elements is."""
    load = carried()[which]

    def kernel(x: Any) -> Any:
        tile, result = new(P, F), new(P, F)
        load(x, tile)
        nisa.activation(result, nl.exp, tile)
        return stored(result)

    x = make((P, F), "float32")
    (group,) = scheduled(nki.jit(kernel).trace(x)).groups
    assert [op.member for op in group.tree.ops if op.elided] == ([0] if which else [])
    np.testing.assert_allclose(nki.jit(kernel)(x), np.exp(x if which else -x), rtol=1e-5)


def test_copies_join_transposes():
    """The way of elements is followed through a copy with operands of other names."""
    _, carry = carried()

    def kernel(x: Any) -> Any:
        tile, other, turned = loaded(x), new(P, 128), nl.ndarray((128, P), dtype=nl.float32, buffer=nl.psum)
        carry(tile, other)
        nisa.nc_transpose(turned, other)
        result = new(128, P)
        carry(turned, result)
        return stored(result)

    x = make((P, 128), "float32")
    schedule = scheduled(nki.jit(kernel).trace(x))
    assert [(g.size, bool(g.tree.moves)) for g in schedule.groups] == [(schedule.program.count, True)]
    np.testing.assert_array_equal(nki.jit(kernel)(x), x.T)


def test_an_opaque_instruction_stays_where_it_is():
    @instruction(writes=("into",), access=Opaque("a test says so"))
    def secret(src: NkiTensor, into: NkiTensor, name=None) -> None: ...

    finish(secret, lambda src, into: src + 1,
           lambda kernel: elementwise.map(kernel, "into", ("src",), lambda e, x: e.add(x, e.f32(1, x.lanes))))

    def kernel(x: Any) -> Any:
        tile, result = loaded(x), new(P, F)
        secret(tile, tile)  # whatever it does, what it reads is copied first
        nisa.activation(result, nl.square, tile)
        return stored(result)

    x = make((P, F), "float32")
    schedule = scheduled(nki.jit(kernel).trace(x))
    at = [i.signature.name for i in schedule.program].index("secret")
    assert not any(g.first <= at < g.first + g.size for g in schedule.groups)
    np.testing.assert_allclose(nki.jit(kernel)(x), (x + 1) ** 2, rtol=1e-6)


def test_what_checks_indices_says_so():
    """Who may end a launch is known before code is written: errors have the line of an instruction."""

    @instruction(writes=("into",), access="p f: src[p e] into[p f] which[p f]")
    def chosen(src: NkiTensor, into: NkiTensor, which: NkiTensor, name=None) -> None: ...

    finish(chosen, lambda src, into, which: np.take_along_axis(src, which.astype(np.int64), axis=1),
           lambda kernel: gather.by_element(kernel, "into", "src", "which"))

    def kernel(x: Any) -> Any:
        which, result = nl.ndarray(x.shape, dtype=nl.uint32, buffer=nl.sbuf), new(*x.shape)
        nisa.iota(which, [[1, x.shape[1]]], 0, 0)
        chosen(loaded(x), result, which)
        return stored(result)

    with pytest.raises(InternalError, match="chosen checks indices, and is not `indexed`"):
        nki.jit(kernel)(make((P, F), "float32"))
