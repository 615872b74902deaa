"""softmax and rms_norm of tiles. Source: public pages nki.language.softmax and rms_norm."""

from __future__ import annotations

from nkilite.dtypes import DTypeLike, float32
from nkilite.language import activations, elementwise, reductions
from nkilite.language.broadcasting import require_tile
from nkilite.language.creation import element_type
from nkilite.trace.tensor import NkiTensor

__all__ = ["rms_norm", "softmax"]


def softmax(x: NkiTensor, axis: reductions.Axis = -1, dtype: DTypeLike | None = None) -> NkiTensor:
    """exp(x) divided by its sum along `axis` (the last free dimensions), shifted by the maximum against
    overflow."""
    x = require_tile(x, "x", "softmax")
    axes = reductions.last_axes(x, axis, "softmax")
    shifted = elementwise.subtract(x, reductions.max(x, axes, float32, keepdims=True), float32)
    powers = activations.exp(shifted)
    total = reductions.sum(powers, axes, float32, keepdims=True)
    return elementwise.multiply(powers, activations.reciprocal(total), x.dtype if dtype is None else dtype)


def rms_norm(
    x: NkiTensor,
    w: NkiTensor,
    axis: reductions.Axis,
    n: int,
    epsilon: float = 1e-6,
    dtype: DTypeLike | None = None,
    compute_dtype: DTypeLike | None = None,
) -> NkiTensor:
    """x / sqrt(sum(x^2) / n + epsilon) * w.

    Args:
        x: the tile.
        w: weights that broadcast to it.
        axis: the last free dimensions, along which squares are summed.
        n: the number of values the sum is divided by.
        epsilon: added to the mean square.
        dtype: of the result; that of `x` unless given.
        compute_dtype: of the intermediate tiles; float32 unless given.
    """
    x = require_tile(x, "x", "rms_norm")
    axes = reductions.last_axes(x, axis, "rms_norm")
    compute = float32 if compute_dtype is None else element_type(compute_dtype, "rms_norm")
    squares = reductions.sum(activations.square(x, compute), axes, float32, keepdims=True)
    mean = elementwise.multiply(squares, 1.0 / n)
    scale = activations.rsqrt(elementwise.add(mean, epsilon))
    normalized = elementwise.multiply(x, scale, compute)
    return elementwise.multiply(normalized, w, x.dtype if dtype is None else dtype)
