"""Cores that do not fit together: meetings that one misses, tensors and results that differ. Both lines show."""

from __future__ import annotations

import inspect
import re

import numpy as np
import pytest
from cores_testing import X, half, launches, loaded, output

import nkilite as nki
import nkilite.collectives as ncc
import nkilite.isa as nisa
import nkilite.language as nl
from nkilite import errors

BOTH = (0, 1)


def swap(tile, pipe=0):
    core = nl.program_id(0)
    received = nl.ndarray(tile.shape, dtype=tile.dtype, buffer=nl.sbuf)
    nisa.sendrecv(tile, received, 1 - core, 1 - core, pipe_id=pipe)


def barrier_of_core_0(core, tile, out):
    if core == 0:
        nisa.core_barrier(out, BOTH)  # here


def barrier_of_core_1(core, tile, out):
    if core == 1:
        nisa.core_barrier(out, BOTH)  # here


def one_barrier_more(core, tile, out):
    nisa.core_barrier(out, BOTH)
    for _ in range(core):
        nisa.core_barrier(out, BOTH)  # here


def receive_that_never_comes(core, tile, out):
    if core == 0:
        swap(tile)


def barrier_against_exchange(core, tile, out):
    if core == 0:
        nisa.core_barrier(out, BOTH)  # here
    else:
        swap(tile)


def exchanges_of_different_pipes(core, tile, out):
    received = nl.ndarray(tile.shape, dtype=tile.dtype, buffer=nl.sbuf)
    nisa.sendrecv(tile, received, 1 - core, 1 - core, pipe_id=core)  # here


def exchanges_of_different_shapes(core, tile, out):
    received = nl.ndarray((128, 4 + core), dtype=tile.dtype, buffer=nl.sbuf)
    nisa.sendrecv(tile[:, : 4 + core], received, 1 - core, 1 - core, pipe_id=0)  # here


def reductions_of_different_operators(core, tile, out):
    op = nl.add if core else nl.maximum
    nisa.sendrecv_compute(tile, tile, 1 - core, 1 - core, reduce_op=op)  # here


def barriers_in_loops_of_different_lengths(core, tile, out):
    def meet(i):
        nisa.core_barrier(out, BOTH)

    nl.fori_loop(0, 2 + core, meet)  # here


def barrier_in_a_loop_of_one_core(core, tile, out):
    def meet(i):
        nisa.core_barrier(out, BOTH)

    if core:
        nl.fori_loop(0, 2, meet)  # here


def barriers_of_different_tensors(core, tile, out):
    other = output(tile)
    nisa.core_barrier(out if core else other, BOTH)  # here


def collectives_of_different_tensors(core, tile, out):
    source, other, made = output(tile), output(tile), output(tile)
    ncc.all_reduce([other if core else source], [made], ncc.ReplicaGroup([[0]]), nl.add)  # here


def collectives_of_different_parts(core, tile, out):
    source, made = output(tile), output(tile[:64])
    ncc.all_reduce([source[half(core, 128)]], [made], ncc.ReplicaGroup([[0]]), nl.add)  # here


def collectives_in_different_memories(core, tile, out):
    source, made = output(tile), output(tile)
    own = nl.ndarray(tile.shape, dtype=tile.dtype, buffer=nl.private_hbm)
    ncc.all_reduce([source], [own if core else made], ncc.ReplicaGroup([[0]]), nl.add)  # here


def unnamed_tensor_of_one_core(core, tile, out):
    if core:
        output(tile)


def named_tensors_of_different_shapes(core, tile, out):
    nl.ndarray((4, 4 + core), dtype=nl.float32, buffer=nl.shared_hbm, name="table")  # here


def unnamed_tensors_of_different_dtypes(core, tile, out):
    nl.ndarray((4, 4), dtype=nl.float32 if core else nl.int32, buffer=nl.shared_hbm)  # here


def constants_of_different_values(core, tile, out):
    nl.shared_constant(np.full((2, 2), core, np.float32))  # here


CASES = {
    barrier_of_core_0: (errors.Deadlock, "core 0 waits in nisa.core_barrier for core 1", "core 1 ends at"),
    barrier_of_core_1: (errors.Deadlock, "core 1 waits in nisa.core_barrier for core 0", "core 0 ends at"),
    one_barrier_more: (errors.Deadlock, "core 1 waits", "core 0 ends at"),
    receive_that_never_comes: (errors.Deadlock, "core 0 waits in nisa.sendrecv for core 1", "core 1 ends at"),
    barrier_against_exchange: (errors.CoresDiffer, "nisa.core_barrier()", "core 1 nisa.sendrecv(src float32 [128, 32]"),
    exchanges_of_different_pipes: (errors.CoresDiffer, "pipe_id=0", "pipe_id=1"),
    exchanges_of_different_shapes: (errors.CoresDiffer, "src float32 [128, 4]", "src float32 [128, 5]"),
    reductions_of_different_operators: (errors.CoresDiffer, "reduce_op=maximum", "reduce_op=add"),
    barriers_in_loops_of_different_lengths: (errors.NkiError, "core 0", "core 1"),
    barrier_in_a_loop_of_one_core: (errors.Deadlock, "core 1 waits", "core 0 ends at"),
    barriers_of_different_tensors: (errors.CoresDiffer, "core 0 has nisa.core_barrier()", "core 1 nisa.core_barrier()"),
    collectives_of_different_tensors: (errors.CoresDiffer, "core 0 has nki.collectives.all_reduce(", "in shared_hbm"),
    collectives_of_different_parts: (errors.CoresDiffer, "core 0 has nki.collectives.all_reduce(", "in shared_hbm"),
    collectives_in_different_memories: (errors.CoresDiffer, "core 1 nki.collectives.all_reduce(", "core 1 at"),
    unnamed_tensor_of_one_core: (errors.CoresDiffer, "core 1 has float32 [128, 32]", "core 0 none"),
    named_tensors_of_different_shapes: (errors.CoresDiffer, "named 'table'", "float32 [4, 4], core 1 float32 [4, 5]"),
    unnamed_tensors_of_different_dtypes: (errors.CoresDiffer, "int32 [4, 4]", "core 1 float32 [4, 4]"),
    constants_of_different_values: (errors.CoresDiffer, "a shared constant", "core 1 other values"),
}


@pytest.mark.parametrize("mode", ["simulate", "compiled"])
@pytest.mark.parametrize("body", CASES, ids=lambda body: body.__name__)
def test_disagreement(body, mode):
    def kernel(x):
        out = output(x)
        tile = loaded(x)
        body(nl.program_id(0), tile, out)
        if nl.program_id(0) == 0:
            nisa.dma_copy(out, tile)
        return out

    error, *says = CASES[body]
    with pytest.raises(error) as caught:
        launches(kernel)[mode](X)
    message = str(caught.value)
    assert all(text in message for text in says), message
    lines, first = inspect.getsourcelines(body)
    marked = [first + i for i, line in enumerate(lines) if line.rstrip().endswith("# here")]
    if marked and mode == "compiled":
        assert caught.value.location.line in marked, message
    assert len(re.findall(r"\.py:\d+", message)) >= (1 if body is unnamed_tensor_of_one_core else 2), message


def test_disagreement_is_found_before_anything_runs():
    def kernel(x):
        out = output(x)
        barrier_of_core_0(nl.program_id(0), None, out)
        return out

    with pytest.raises(errors.Deadlock):
        nki.jit(kernel)[2].check(X)


@pytest.mark.parametrize("mode", ["simulate", "compiled"])
def test_results_that_differ(mode):
    def shapes(x):
        a, b = output(x), output(x)
        nisa.dma_copy(a, x)
        nisa.dma_copy(b, x)
        return b if nl.program_id(0) else a

    def none(x):
        return x if nl.program_id(0) else None

    def private(x):
        out = nl.ndarray(x.shape, dtype=x.dtype, buffer=nl.private_hbm)
        nisa.dma_copy(out, x)
        return out

    for kernel in (shapes, none):
        with pytest.raises(errors.CoresDiffer, match="return different results"):
            launches(kernel)[mode](X)
    with pytest.raises(errors.InvalidReturn, match="which is one core's own"):
        launches(private)[mode](X)


def test_misuse_of_meetings(monkeypatch):
    def raises(error, *says, cores=2):
        def decorate(body):
            def kernel(x):
                body(nl.program_id(0), loaded(x), output(x))
                return x

            for wrap in (nki.simulate, nki.jit):
                with pytest.raises(error) as caught:
                    wrap(kernel)[cores](X)
                assert all(text in str(caught.value) for text in says), str(caught.value)
                assert caught.value.location.function == body.__name__

        return decorate

    @raises(errors.UnsupportedOnTarget, "kernel[2](...)", cores=1)
    def one_core(core, tile, out):
        nisa.sendrecv(tile, tile, 1, 1, pipe_id=0)

    @raises(errors.InvalidOperand, "send_to_rank is int 0", "expected 1, the other core of core 0")
    def itself(core, tile, out):
        nisa.sendrecv(tile, tile, core, 1 - core, pipe_id=0)

    @raises(errors.InvalidOperand, "recv_from_rank")
    def nobody(core, tile, out):
        nisa.sendrecv_compute(tile, tile, 1 - core, 2, reduce_op=nl.add)

    @raises(errors.InvalidOperand, "pipe_id is int -1")
    def no_pipe(core, tile, out):
        nisa.sendrecv(tile, tile, 1 - core, 1 - core, pipe_id=-1)

    @raises(errors.InvalidOperand, "dma_engine", "a member of nisa.dma_engine")
    def no_engine(core, tile, out):
        nisa.sendrecv(tile, tile, 1 - core, 1 - core, pipe_id=0, dma_engine="dma")

    @raises(errors.WrongMemory, "src is in HBM", "SBUF")
    def in_hbm(core, tile, out):
        nisa.sendrecv(out, tile, 1 - core, 1 - core, pipe_id=0)

    @raises(errors.WrongMemory, "SHARED_HBM", "private HBM")
    def in_shared_hbm(core, tile, out):
        nisa.sendrecv_compute(out, out, 1 - core, 1 - core, reduce_op=nl.add)

    @raises(errors.DtypeMismatch, "src is float32 and dst bfloat16")
    def dtypes(core, tile, out):
        nisa.sendrecv(tile, nl.ndarray(tile.shape, dtype=nl.bfloat16, buffer=nl.sbuf), 1 - core, 1 - core, pipe_id=0)

    @raises(errors.ShapeMismatch, "(128, 32)", "(128, 16)")
    def shapes(core, tile, out):
        nisa.sendrecv(tile, tile[:, :16], 1 - core, 1 - core, pipe_id=0)

    @raises(errors.UnknownOperator, "multiply", "add, maximum, minimum")
    def operator(core, tile, out):
        nisa.sendrecv_compute(tile, tile, 1 - core, 1 - core, reduce_op=nl.multiply)

    @raises(errors.FreeSizeExceeded, "257 elements", "256 float32 (1024 bytes)")
    def too_long(core, tile, out):
        long = nl.ndarray((128, 257), dtype=nl.float32, buffer=nl.sbuf)
        nisa.sendrecv(long, long, 1 - core, 1 - core, pipe_id=0, dma_engine=nisa.dma_engine.gpsimd_dma)

    @raises(errors.InvalidOperand, "cores is tuple (0,)", "(0, 1)")
    def barrier_of_one(core, tile, out):
        nisa.core_barrier(out, (0,))

    @raises(errors.UnsupportedEngine, "dma")
    def barrier_on_dma(core, tile, out):
        nisa.core_barrier(out, BOTH, engine=nisa.engine.dma)

    monkeypatch.setenv("NEURON_PLATFORM_TARGET_OVERRIDE", "trn1")

    @raises(errors.UnsupportedOnTarget, "trn2", cores=1)
    def older_chip(core, tile, out):
        nisa.core_barrier(out, BOTH)
