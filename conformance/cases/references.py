"""Independent references in NumPy float64, and the inputs they are judged on."""

from __future__ import annotations

import math
import zlib
from collections.abc import Callable
from typing import Any

import numpy as np
from ml_dtypes import bfloat16

from ..case import Tolerance

FLOAT32 = np.dtype(np.float32)
FLOAT16 = np.dtype(np.float16)
BFLOAT16 = np.dtype(bfloat16)

# Rounding of an operand that was rounded on input costs nothing: references start from the rounded inputs.
# What remains is accumulation in float32 and one rounding of the result.
_ROUNDING = {FLOAT32: 1e-5, FLOAT16: 1e-3, BFLOAT16: 8e-3}


def rounding(dtype: np.dtype[Any], scale: float = 1.0) -> Tolerance:
    """The tolerance for results of magnitude ``scale`` that are rounded once to ``dtype``."""
    relative = _ROUNDING[dtype]
    return Tolerance(rtol=relative, atol=relative * scale)


def uniform(name: str, *shape: int, dtype: np.dtype[Any] = FLOAT32, low: float = -1.0, high: float = 1.0) -> np.ndarray:
    """Uniform random values, the same in every process for the same name."""
    generator = np.random.default_rng(zlib.crc32(name.encode()))
    return generator.uniform(low, high, shape).astype(dtype)


def arrays(**shapes: tuple[int, ...]) -> Callable[[], tuple[np.ndarray, ...]]:
    """A maker of uniform float32 arguments, one per name."""
    return lambda: tuple(uniform(name, *shape) for name, shape in shapes.items())


def wide(value: np.ndarray) -> np.ndarray:
    """The value in float64."""
    return value.astype(np.float64)


def add(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return wide(a) + wide(b)


def matmul_transposed(lhs_t: np.ndarray, rhs: np.ndarray, *_: Any) -> np.ndarray:
    """``lhs_t.T @ rhs``."""
    return wide(lhs_t).T @ wide(rhs)


def matmul(lhs: np.ndarray, rhs: np.ndarray) -> np.ndarray:
    return wide(lhs) @ wide(rhs)


def transpose_rows(rows: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """Each row is a flattened matrix of the given shape; the result holds the flattened transposes."""
    count = len(rows)
    return rows.reshape(count, *shape).swapaxes(1, 2).reshape(count, -1)


def pool(image: np.ndarray, window: int, reduce: Callable[..., np.ndarray]) -> np.ndarray:
    """Non-overlapping square pooling of a channels x height x width image."""
    channels, height, width = image.shape
    windows = wide(image).reshape(channels, height // window, window, width // window, window)
    return reduce(windows, axis=(2, 4))


def average_pool(image: np.ndarray, window: int) -> np.ndarray:
    return pool(image, window, np.mean)


def max_pool(image: np.ndarray, window: int) -> np.ndarray:
    return pool(image, window, np.max)


def selective_scan(delta: np.ndarray, u: np.ndarray, a: np.ndarray, b: np.ndarray, c: np.ndarray) -> np.ndarray:
    """Mamba's state-space recurrence, one time step after the other.

    h[t] = exp(delta[t] * a) * h[t-1] + delta[t] * u[t] * b[t];  y[t] = sum over states of c[t] * h[t].

    Shapes: delta, u (batch, channel, time); a (channel, state); b, c (batch, state, time).
    """
    delta, u, a, b, c = (wide(value) for value in (delta, u, a, b, c))
    batch, channels, steps = delta.shape
    state = np.zeros((batch, channels, a.shape[1]))
    out = np.empty_like(delta)
    for t in range(steps):
        drive = (delta[:, :, t] * u[:, :, t])[:, :, None] * b[:, None, :, t]
        state = np.exp(delta[:, :, t, None] * a) * state + drive
        out[:, :, t] = (state * c[:, None, :, t]).sum(axis=-1)
    return out


def rms_norm_matmul(lhs: np.ndarray, rhs: np.ndarray, epsilon: float = 1e-6) -> np.ndarray:
    """``(lhs / sqrt(mean(lhs ** 2, axis=1) + epsilon)) @ rhs``."""
    left = wide(lhs)
    scale = 1.0 / np.sqrt(np.mean(left**2, axis=1, keepdims=True) + epsilon)
    return (left * scale) @ wide(rhs)


def gelu(x: np.ndarray) -> np.ndarray:
    """The exact, erf-based GELU."""
    return 0.5 * x * (1.0 + np.vectorize(math.erf)(x / np.sqrt(2.0)))
