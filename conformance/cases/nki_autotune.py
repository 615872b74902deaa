"""nki-autotune: the tuned kernels of ``kernel_library/``, at the one size each accepts."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from ..case import Case, Launch, Tolerance
from . import references as ref
from .files import Variant, file_cases

SUITE = "nki-autotune"
_SIZE = 2048
# Sums of 2048 products of uniform values have a deviation of 15. They are accumulated over blocks of K in
# bfloat16, with one rounding per block and one of the result.
_TOLERANCE = Tolerance(rtol=1.6e-2, atol=0.25)
_FOLDERS: dict[str, tuple[str, Callable[..., np.ndarray], Tolerance]] = {
    "matmul/lhsT_rhs": ("matmul_lhsT_rhs_nkigym", ref.matmul_transposed, _TOLERANCE),
    "matmul/lhs_rhs": ("matmul_lhs_rhs_nkigym", ref.matmul, _TOLERANCE),
    # Rows normalized to unit mean square: results have a deviation of 26, rescaled once per block of K.
    "rmsnorm_matmul": ("rmsnorm_matmul_online", ref.rms_norm_matmul, Tolerance(rtol=2e-2, atol=1.0)),
}


def find(folder: Path) -> Path | None:
    """The kernel library's folder."""
    library = folder / "kernel_library"
    return library if library.is_dir() and (folder / "nkigym").is_dir() else None


def cases(root: Path) -> list[Case]:
    """All cases of the library."""
    return list(_cases(root))


def _cases(root: Path) -> Iterator[Case]:
    for folder, (kernel, reference, tolerance) in _FOLDERS.items():
        for path in sorted((root / folder).glob("*.py")):
            yield from file_cases(SUITE, path, [Variant(Launch(kernel, _operands, reference, tolerance))])


def _operands() -> tuple[np.ndarray, ...]:
    return tuple(ref.uniform(name, _SIZE, _SIZE, dtype=ref.BFLOAT16) for name in ("lhs", "rhs"))
