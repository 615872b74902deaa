"""Whether contestants compute the same: figures of different work would be worth nothing."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np


def check(ours: Callable[[], object], peers: Mapping[str, Callable[[], object]], tolerance: float) -> None:
    """Compare results; limits of the machine have none.

    Args:
        tolerance: how much they may differ, of the largest element.

    Raises:
        AssertionError: a peer's result is another one.
    """
    expected = _arrays(ours())
    for name, run in peers.items():
        found = _arrays(run())
        if not found:
            continue
        assert len(found) == len(expected), f"{name} returns {len(found)} arrays, we return {len(expected)}"
        for one, other in zip(expected, found, strict=True):
            largest = float(np.max(np.abs(one)))
            error = float(np.max(np.abs(one - other.reshape(one.shape))))
            assert error <= tolerance * largest, f"{name} differs by {error:.3g} where we have up to {largest:.3g}"


def _arrays(result: Any) -> list[np.ndarray]:
    if isinstance(result, (tuple, list)):
        return [array for item in result for array in _arrays(item)]
    if hasattr(result, "float"):  # torch; NumPy does not know its bfloat16
        result = result.float().numpy()
    return [np.asarray(result, np.float32)] if hasattr(result, "shape") else []
