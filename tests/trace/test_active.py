"""A trace is its thread's: copies of its context, in other threads or later, record nothing in it."""

from __future__ import annotations

import asyncio
import contextvars
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

import nkilite as nki
import nkilite.isa as nisa
import nkilite.language as nl
from nkilite import errors

X = np.arange(32, dtype=np.float32).reshape(4, 8)
MODES = [pytest.param(nki.jit, id="compiled"), pytest.param(nki.simulate, id="simulate")]


def copied(x, between=lambda tile: None):
    tile, out = nl.ndarray(x.shape, x.dtype), nl.ndarray(x.shape, x.dtype, buffer=nl.shared_hbm)
    nisa.dma_copy(tile, x)
    between(tile)
    nisa.dma_copy(out, tile)
    return out


def elsewhere(function, *arguments):
    """What a function returns on another thread, in a copy of this context, as of `asyncio.to_thread`."""
    with ThreadPoolExecutor(1) as threads:
        return threads.submit(contextvars.copy_context().run, function, *arguments).result()


@pytest.mark.parametrize("mode", MODES)
def test_other_threads_record_nothing(mode):
    def kernel(x):
        return copied(x, lambda tile: elsewhere(nisa.memset, tile, 7))

    with pytest.raises(errors.NotInKernel, match="in its thread"):
        mode(kernel)(X)


@pytest.mark.parametrize("mode", MODES)
def test_other_threads_launch_while_a_kernel_is_traced(mode):
    found = []

    def kernel(x):
        return copied(x, lambda tile: found.append(elsewhere(mode(copied), X + 1)))

    np.testing.assert_array_equal(mode(kernel)(X), X)
    np.testing.assert_array_equal(found[0], X + 1)


def test_a_context_outlives_its_kernel():
    contexts = []
    nki.jit(lambda x: copied(x, lambda tile: contexts.append(contextvars.copy_context())))(X)
    with pytest.raises(errors.NotInKernel):
        contexts[0].run(nl.ndarray, (4, 8), nl.float32)
    np.testing.assert_array_equal(contexts[0].run(nki.jit(copied), X), X)


def test_tasks_launch_side_by_side():
    async def main():
        return await asyncio.gather(*(asyncio.to_thread(nki.jit(lambda x: copied(x)), X + i) for i in range(8)))

    for i, found in enumerate(asyncio.run(main())):
        np.testing.assert_array_equal(found, X + i)
