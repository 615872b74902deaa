"""Whether results are the expected ones, and how far off.

Every candidate is compared, often for longer than it runs, so arrays pass through the caches once, block by block.
What decides and what is reported in words is `nkilite.testing.compare`; it is asked where a block is not within the
tolerance or the expected values are not all finite.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Any

import numpy as np

from nkilite.testing import MismatchError, compare, tolerance

BLOCK = 1 << 14  # elements; a handful of float64 blocks fit in the second-level cache


class Expected:
    """One output as it should be: of the reference, in the type that outputs of `dtype` are compared in."""

    def __init__(self, values: np.ndarray, dtype: Any) -> None:
        self.exact = np.dtype(dtype).kind in "iub"
        self.values = np.ascontiguousarray(values, dtype if self.exact else np.float64)

    @cached_property
    def finite(self) -> bool:
        return bool(np.isfinite(self.values).all())

    @cached_property
    def rms(self) -> float:
        """Root mean square of the finite values."""
        finite = self.values if self.finite else self.values[np.isfinite(self.values)]
        return float(np.sqrt(np.mean(np.square(finite, dtype=np.float64)))) if finite.size else 0.0


class Reference:
    """Compares outputs with those of a reference.

    Args:
        outputs: the reference's.
        inputs: dtypes of the kernel's arrays.
        reduction: see `nkilite.testing.tolerance`.
        overrides: `rtol` and `atol` that take the place of the tolerance's own.
    """

    def __init__(
        self, outputs: Sequence[np.ndarray], inputs: Sequence[Any], reduction: int, overrides: dict[str, float]
    ) -> None:
        self._outputs, self._inputs = outputs, inputs
        self._reduction, self._overrides = reduction, overrides
        self._expected: dict[tuple[int, Any], Expected] = {}

    def error(self, got: Sequence[np.ndarray]) -> float:
        """The largest relative error of all outputs.

        Raises:
            MismatchError: they are not what is expected.
        """
        if len(got) != len(self._outputs):
            raise MismatchError(f"{len(got)} outputs, expected {len(self._outputs)}")
        return max((self._error(index, ours) for index, ours in enumerate(got)), default=0.0)

    def _error(self, index: int, ours: np.ndarray) -> float:
        key = index, ours.dtype
        if key not in self._expected:
            self._expected[key] = Expected(self._outputs[index], ours.dtype)
        expected = self._expected[key]
        rtol, per_rms = tolerance(ours.dtype, inputs=self._inputs, reduction=self._reduction)
        rtol, atol = self._overrides.get("rtol", rtol), self._overrides.get("atol", per_rms * expected.rms)
        if expected.finite and ours.shape == expected.values.shape:
            worst = _within(ours, expected, rtol, atol)
            if worst is not None:
                return worst
        compare(ours, expected.values, rtol=rtol, atol=atol, what=f"output {index}")
        return relative_error(ours, expected.values, expected.rms)


def _within(got: np.ndarray, expected: Expected, rtol: float, atol: float) -> float | None:
    """The largest relative error of finite values, or None where one is beyond the tolerance."""
    ours, right, worst = np.ascontiguousarray(got).reshape(-1), expected.values.reshape(-1), 0.0
    with np.errstate(invalid="ignore", over="ignore", divide="ignore"):
        for begin in range(0, ours.size, BLOCK):
            block = slice(begin, begin + BLOCK)
            wanted = right[block].astype(np.float64, copy=False)
            error = ours[block].astype(np.float64)
            np.abs(np.subtract(error, wanted, out=error), out=error)
            size = np.abs(wanted)
            if not (error <= atol + rtol * size).all():  # nor is what is no number
                return None
            np.maximum(size, expected.rms, out=size)
            worst = max(worst, float(np.divide(error, size, out=error, where=error > 0).max()))
    return worst


def relative_error(got: np.ndarray, wanted: np.ndarray, rms: float) -> float:
    """The largest difference, relative to what is wanted or to the root mean square where that is larger."""
    finite = np.isfinite(wanted.astype(np.float64))  # whether the others agree, `compare` has seen
    right = wanted[finite].astype(np.float64)
    difference = np.abs(got[finite].astype(np.float64) - right)
    relative = np.divide(difference, np.maximum(np.abs(right), rms), out=difference, where=difference > 0)
    return float(np.max(relative, initial=0.0))


def identical(one: np.ndarray, other: np.ndarray) -> bool:
    """Whether two arrays of one shape and dtype are equal bit by bit."""
    left, right = (np.ascontiguousarray(a).reshape(-1).view(np.uint8) for a in (one, other))
    words = left.size // 8 * 8
    same = np.array_equal(left[:words].view(np.uint64), right[:words].view(np.uint64))
    return same and np.array_equal(left[words:], right[words:])
