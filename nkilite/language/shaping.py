"""Changing the shape of a tile. Source: public pages nki.language.expand_dims and broadcast_to."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from nkilite.errors import ShapeMismatch
from nkilite.language.broadcasting import repeat, require_tile
from nkilite.language.creation import as_shape, element_type
from nkilite.language.memory import copy
from nkilite.trace.tensor import NkiTensor

__all__ = ["broadcast_to", "expand_dims"]


def expand_dims(x: NkiTensor, axis: int) -> NkiTensor:
    """A view of `x` with a dimension of size 1 inserted at `axis` of the result; on chip not at 0."""
    return x.expand_dim(axis + x.ndim + 1 if axis < 0 else axis)


def broadcast_to(x: NkiTensor, shape: Sequence[int], dtype: Any = None) -> NkiTensor:
    """A new SBUF tile with `x` repeated to `shape`; `x` itself when neither shape nor dtype changes.

    Args:
        x: a tile in SBUF or PSUM.
        shape: as many dimensions as `x` has; each is equal, or 1 in `x`.

    Raises:
        ShapeMismatch: the shapes do not fit.
    """
    x = require_tile(x, "x", "broadcast_to")
    sizes = as_shape(shape, "broadcast_to")
    converted = x.dtype if dtype is None else element_type(dtype, "broadcast_to")
    if sizes == x.shape and converted == x.dtype:
        return x
    if len(sizes) != x.ndim or any(n not in (1, m) for n, m in zip(x.shape, sizes, strict=True)):
        raise ShapeMismatch(
            instruction="nl.broadcast_to", detail=f"x of shape {x.shape} does not broadcast to {sizes}"
        )
    return copy(repeat(x, sizes), converted)
