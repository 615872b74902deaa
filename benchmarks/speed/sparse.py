"""Products with a 4:8 to 4:16 sparse stationary operand against the dense product of the same contraction."""

from __future__ import annotations

from collections.abc import Iterator

import ml_dtypes
import numpy as np

import nkilite as nki
import nkilite.isa as nisa
import nkilite.language as nl
from benchmarks.speed.match import Match
from benchmarks.speed.matmul import stored
from nkilite.sparsity import compress, expand

REPEATS = 32  # products per launch: the load of the operands disappears in them
_GOALS = {4: {"dense nc_matmul": 1.5}}


@nki.jit
def resident_sparse(moving, values, tags, ratio):
    """Sparse products of the same tiles, over and over."""
    x, stationary, tag = nl.load(moving), nl.load(values), nl.load(tags)
    product = nl.ndarray((values.shape[1], moving.shape[2]), dtype=nl.float32, buffer=nl.psum)
    for i in range(REPEATS):
        nisa.nc_matmul_sparse(product, x, stationary, tag, ratio, accumulate=i > 0)
    return stored(product)


@nki.jit
def resident_dense(moving, weight):
    """The same with the dense weight [K, r, M]: r products each."""
    x, stationary = ([nl.load(t[:, i]) for i in range(t.shape[1])] for t in (moving, weight))
    product = nl.ndarray((weight.shape[2], moving.shape[2]), dtype=nl.float32, buffer=nl.psum)
    for i in range(REPEATS):
        for j, (left, right) in enumerate(zip(stationary, x, strict=True)):
            nisa.nc_matmul(dst=product, stationary=left, moving=right, accumulate=i + j > 0)
    return stored(product)


def matches(threads: int) -> Iterator[Match]:
    if threads != 1:
        return
    rng = np.random.default_rng(0)
    for name, dtype in (("float16", np.float16), ("bfloat16", ml_dtypes.bfloat16)):
        for ratio in (2, 3, 4):
            moving = rng.standard_normal((128, ratio, 512)).astype(dtype)
            values, tags = compress(rng.standard_normal((128 * ratio, 128)).astype(dtype), ratio)
            weight = expand(values, tags, ratio).reshape(128, ratio, 128)
            ours = resident_sparse.launcher(moving, values, tags, ratio)
            dense = resident_dense.launcher(moving, weight)
            yield Match(
                f"nc_matmul_sparse 4:{4 * ratio} {name}", f"128×{128 * ratio}×512", ours.run,
                {"dense nc_matmul": dense.run}, _GOALS.get(ratio, {}),
            )
