"""One partition beside many: the Tensor Engine carries it where a product with ones is exact."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest
from beta1_testing import check, random

from nkilite import beta1 as nki
from nkilite.beta1 import isa as nisa
from nkilite.beta1 import language as nl


@nki.jit
def scaled(x, row):
    out = nl.ndarray(x.shape, dtype=x.dtype, buffer=nl.shared_hbm)
    other = nl.load(row)
    nl.store(out, nisa.tensor_tensor(nl.multiply(nl.load(x), other), other, np.add))
    return out


def opcodes(kernel, *args) -> set[str]:
    return {signature.name for signature in kernel.trace(*args).signatures}


@pytest.mark.parametrize("dtype", [np.float32, np.float16, ml_dtypes.bfloat16, np.int32])
def test_values_and_engine(dtype):
    x, row = (random(*shape) * 10 for shape in ((128, 700), (1, 700)))
    x, row = x.astype(dtype), row.astype(dtype)
    product = (x.astype(np.float32) * row.astype(np.float32)).astype(dtype).astype(np.float32)
    check(scaled, (product + row.astype(np.float32)).astype(dtype).astype(np.float32), x, row, rtol=2e-2, atol=2e-2)
    by_product = dtype is not np.int32
    assert ("nc_matmul" in opcodes(scaled, x, row)) == by_product
    assert ("nc_stream_shuffle" in opcodes(scaled, x, row)) != by_product


def test_infinities_stay_where_they_are():
    x, row = np.ones((128, 3), np.float32), np.array([[np.inf, -np.inf, 2]], np.float32)
    check(scaled, x * row + row, x, row)
