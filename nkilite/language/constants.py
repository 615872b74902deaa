"""nki.language.constants: what public kernels of both dialects import of the vendor's module of that name."""

from __future__ import annotations

from nkilite.dtypes import DTypeLike, as_dtype
from nkilite.errors import InvalidOperand, describe

__all__ = ["sizeinbytes"]


def sizeinbytes(dtype: DTypeLike) -> int:
    """Bytes of an element.

    Raises:
        InvalidOperand: no NeuronCore element type is meant.
    """
    try:
        return as_dtype(dtype).itemsize
    except KeyError:
        raise InvalidOperand(
            instruction="sizeinbytes", operand="dtype", found=describe(dtype), expected="an nl dtype"
        ) from None
