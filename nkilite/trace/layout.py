"""Pure shape and stride arithmetic behind tensor views; knows nothing of tensors."""

from __future__ import annotations

from math import prod

from nkilite.ir.types import contiguous_strides


def merge(shape: tuple[int, ...], strides: tuple[int, ...]) -> int | None:
    """The stride of one dimension that replaces all given ones, or None when memory does not allow it."""
    expected: int | None = None
    innermost = 0
    for size, stride in zip(reversed(shape), reversed(strides), strict=True):
        if size == 1:
            continue
        if expected is None:
            innermost = stride
        elif stride != expected:
            return None
        expected = stride * size
    return innermost if expected is not None else (strides[-1] if strides else 1)


def reshape_strides(
    shape: tuple[int, ...], strides: tuple[int, ...], new_shape: tuple[int, ...]
) -> tuple[int, ...] | None:
    """Strides that view (shape, strides) as `new_shape` without a copy, or None when that is impossible."""
    if prod(shape) == 0:
        return contiguous_strides(new_shape)
    old = [(n, s) for n, s in zip(shape, strides, strict=True) if n != 1]
    result: list[int] = [0] * len(new_shape)
    i = 0
    j = 0
    while i < len(old):
        # The smallest run of old dimensions whose product is also a product of new dimensions.
        i_end, j_end = i + 1, j
        old_size = old[i][0]
        new_size = 1
        while True:
            while new_size < old_size and j_end < len(new_shape):
                new_size *= new_shape[j_end]
                j_end += 1
            if new_size == old_size:
                break
            if i_end >= len(old):
                return None
            old_size *= old[i_end][0]
            i_end += 1
        stride = merge(tuple(n for n, _ in old[i:i_end]), tuple(s for _, s in old[i:i_end]))
        if stride is None:
            return None
        for k in range(j_end - 1, j - 1, -1):
            result[k] = stride
            stride *= new_shape[k]
        i, j = i_end, j_end
    # Trailing dimensions of size 1 may have any stride.
    for k in range(j, len(new_shape)):
        result[k] = 1
    return tuple(result)


def infer_size(shape: tuple[int, ...], total: int) -> tuple[int, ...] | None:
    """Replace a single -1 in `shape` so that its product is `total`; None when that is impossible."""
    if shape.count(-1) > 1 or any(n < -1 for n in shape):
        return None
    if -1 in shape:
        known = -prod(shape)
        if known == 0 or total % known:
            return None
        shape = tuple(total // known if n == -1 else n for n in shape)
    return shape if prod(shape) == total else None
