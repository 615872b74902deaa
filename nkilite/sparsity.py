"""Structured sparsity of weights, as `nisa.nc_matmul_sparse` takes them: pruning, packing, and back."""

from __future__ import annotations

import numpy as np

from nkilite.errors import InvalidWeight, describe
from nkilite.isa.sparse import KEPT, RATIOS, pack, unpack

__all__ = ["compress", "expand"]


def compress(weight: np.ndarray, compress_ratio: int) -> tuple[np.ndarray, np.ndarray]:
    """Keep the four largest magnitudes of every ``4 * compress_ratio`` elements along axis 0, in every column.

    Of equal magnitudes the first is kept; NaN is larger than anything. Kept elements stay in their order.

    Args:
        weight: [K, M] of any float dtype; K a multiple of 4 * compress_ratio, M of 4.
        compress_ratio: 2, 3 or 4: patterns 4:8, 4:12 and 4:16.

    Returns:
        The values, [K / compress_ratio, M] of the dtype of `weight`, and the tags, uint16 [K / compress_ratio, M / 4]:
        positions in the group, four to a word, that of the first column in the lowest bits.

    Raises:
        InvalidWeight: another ratio or shape.
    """
    group = _group(compress_ratio)
    _require_array(weight, "weight")
    if weight.ndim != 2 or weight.shape[0] % group or weight.shape[1] % KEPT:
        raise InvalidWeight(
            found=f"weight has shape {weight.shape}",
            expected=f"[K, M], K a multiple of {group} and M of {KEPT}, for compress_ratio={compress_ratio}",
        )
    groups = weight.reshape(-1, group, weight.shape[1])
    magnitude = np.abs(groups.astype(np.float64))
    magnitude[np.isnan(magnitude)] = np.inf
    kept = np.sort(np.argsort(-magnitude, axis=1, kind="stable")[:, :KEPT], axis=1)
    values = np.take_along_axis(groups, kept, axis=1).reshape(-1, weight.shape[1])
    return values, pack(kept.reshape(values.shape))


def expand(values: np.ndarray, tags: np.ndarray, compress_ratio: int) -> np.ndarray:
    """The pruned weight [K, M] of what `compress` returns: zeros where nothing was kept.

    Raises:
        InvalidWeight: another ratio, shapes that do not go together, or a tag beyond its group.
    """
    group = _group(compress_ratio)
    _require_array(values, "values")
    _require_array(tags, "tags")
    rows, columns = values.shape if values.ndim == 2 else (1, 1)
    if rows % KEPT or tags.shape != (rows, columns // KEPT) or columns % KEPT or tags.dtype.kind not in "iu":
        raise InvalidWeight(
            found=f"values have shape {values.shape} and tags {tags.shape} of {tags.dtype}",
            expected=f"[K, M] and [K, M / {KEPT}] of uint16, K and M multiples of {KEPT}",
        )
    positions = unpack(tags).reshape(-1, KEPT, columns)
    if positions.size and positions.max() >= group:
        raise InvalidWeight(found=f"a tag is {positions.max()}", expected=f"positions below {group}")
    dense = np.zeros((rows // KEPT, group, columns), values.dtype)
    np.put_along_axis(dense, positions, values.reshape(-1, KEPT, columns), axis=1)
    return dense.reshape(-1, columns)


def _require_array(array: object, name: str) -> None:
    if not isinstance(array, np.ndarray):
        raise InvalidWeight(found=f"{name} is {describe(array)}", expected="a NumPy array")


def _group(compress_ratio: int) -> int:
    if not isinstance(compress_ratio, (int, np.integer)) or compress_ratio not in RATIOS:
        raise InvalidWeight(found=f"compress_ratio is {compress_ratio!r}", expected="2, 3 or 4")
    return KEPT * compress_ratio
