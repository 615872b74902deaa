"""Normalizations as one writes them for numba: a parallel loop over rows, explicit loops along them."""

from __future__ import annotations

import numba
import numpy as np

_compiled = numba.njit(parallel=True, fastmath=True)


@_compiled
def softmax(x):
    out = np.empty_like(x)
    rows, columns = x.shape
    for i in numba.prange(rows):
        largest = x[i, 0]
        for j in range(columns):
            largest = max(largest, x[i, j])
        total = np.float32(0)
        for j in range(columns):
            out[i, j] = np.exp(x[i, j] - largest)
            total += out[i, j]
        scale = np.float32(1) / total
        for j in range(columns):
            out[i, j] *= scale
    return out


@_compiled
def rmsnorm(x, gamma):
    out = np.empty_like(x)
    rows, columns = x.shape
    for i in numba.prange(rows):
        total = np.float32(0)
        for j in range(columns):
            total += x[i, j] * x[i, j]
        scale = np.float32(1) / np.sqrt(total / np.float32(columns) + np.float32(1e-6))
        for j in range(columns):
            out[i, j] = x[i, j] * scale * gamma[j]
    return out


@_compiled
def layernorm(x, gamma, beta):
    out = np.empty_like(x)
    rows, columns = x.shape
    for i in numba.prange(rows):
        total = np.float32(0)
        for j in range(columns):
            total += x[i, j]
        mean = total / np.float32(columns)
        squares = np.float32(0)
        for j in range(columns):
            squares += (x[i, j] - mean) * (x[i, j] - mean)
        scale = np.float32(1) / np.sqrt(squares / np.float32(columns) + np.float32(1e-5))
        for j in range(columns):
            out[i, j] = (x[i, j] - mean) * scale * gamma[j] + beta[j]
    return out
