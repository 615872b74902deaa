"""`jax_neuronx.nki_call`: kernels of 2024 that write their last parameters, called from JAX."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest

from nkilite import beta1 as nki
from nkilite.beta1 import language as nl
from nkilite.beta1.jax_call import nki_call
from nkilite.errors import IndexOutOfBounds

jax = pytest.importorskip("jax")


def scaled_sum(a, b, out, scale=1.0):
    nl.store(out, (nl.load(a) + nl.load(b)) * scale)


def by_blocks(x, doubled, negated):
    i_p = nl.program_id(0) * 2 + nl.arange(2)[:, None]
    i_f = nl.program_id(1) * 3 + nl.arange(3)[None, :]
    tile = nl.load(x[i_p, i_f])
    nl.store(doubled[i_p, i_f], tile * 2)
    nl.store(negated[i_p, i_f], -tile)


def beyond(x, out):
    nl.store(out[4:12], nl.load(x))


def test_called_and_traced():
    x = jax.numpy.arange(12.0).reshape(4, 3)
    shape = jax.ShapeDtypeStruct(x.shape, x.dtype)
    np.testing.assert_array_equal(nki_call(scaled_sum, x, x, out_shape=shape), 2 * x)

    def layer(a, b):
        return nki_call(partial(scaled_sum, scale=3.0), a, b, out_shape=shape) + 1

    np.testing.assert_array_equal(jax.jit(layer)(x, x), 6 * x + 1)


@pytest.mark.parametrize("kernel", [by_blocks, nki.jit(by_blocks)])
def test_grids_and_several_results(kernel):
    x = jax.numpy.arange(24.0).reshape(4, 6)
    doubled, negated = nki_call(kernel, x, grid=(2, 2), out_shape=(x, x))
    np.testing.assert_array_equal(doubled, 2 * x)
    np.testing.assert_array_equal(negated, -x)


def test_mistakes_are_at_the_users_line():
    x = jax.numpy.ones((8, 2))
    with pytest.raises(IndexOutOfBounds, match=r"nl\.store\(out\[4:12\]"):
        nki_call(beyond, x, out_shape=x)
