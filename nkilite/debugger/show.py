"""Values of a tile as text: the elements, statistics of them, and where they are not finite."""

from __future__ import annotations

import numpy as np

_ROWS, _COLUMNS = 32, 64  # cells of a map at most
_ELEMENTS = 64  # shown of each dimension's ends, at most so many in total before elements are left out
_DIGITS = 6


def values(array: np.ndarray) -> str:
    """The elements, those in the middle of large tiles left out."""
    plain = array if array.dtype.kind in "biuf" else array.astype(np.float32)
    return np.array2string(plain, threshold=_ELEMENTS, edgeitems=3, precision=_DIGITS, max_line_width=110)


def statistics(array: np.ndarray) -> str:
    """Smallest, largest and mean of what is finite, and how much is not, in a line."""
    if array.dtype.kind in "biu":
        return f"min {array.min()}, max {array.max()}, {int((array == 0).sum())} of {array.size} are 0"
    single = array.astype(np.float64)
    finite = single[np.isfinite(single)]
    text = ""
    if finite.size:
        text = f"min {finite.min():.6g}, max {finite.max():.6g}, mean {finite.mean():.6g}, std {finite.std():.6g}"
    found = {"NaN": np.isnan(single), "inf": single == np.inf, "-inf": single == -np.inf}
    counts = [f"{int(mask.sum())} {name}" for name, mask in found.items() if mask.any()]
    if counts:
        first = np.argwhere(~np.isfinite(single))[0].tolist()
        counts.append(f"first at {first}")
    return ", ".join(filter(None, [text, *counts]))


def nan_map(array: np.ndarray) -> str:
    """Partitions down, elements across: N for a cell with NaN in it, I with an infinity, a point for all others."""
    single = array.astype(np.float32).reshape(array.shape[0] if array.ndim else 1, -1)
    down, across = (-(-n // most) for n, most in zip(single.shape, (_ROWS, _COLUMNS), strict=True))
    lines = []
    for top in range(0, single.shape[0], down):
        line = ""
        for left in range(0, single.shape[1], across):
            cell = single[top : top + down, left : left + across]
            line += "N" if np.isnan(cell).any() else "I" if np.isinf(cell).any() else "."
        lines.append(f"{top:4} {line}")
    return "\n".join([*lines, f"     a cell is {down} x {across} elements"])
