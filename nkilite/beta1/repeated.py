"""Operands repeated to the shape of a result, as the vendor's compiler does it for Beta 1 kernels.

Free dimensions of size 1 repeat by a view. One partition reaches the others through the Tensor Engine: "partition-dim
broadcast often requires a separate instruction on TensorE" (public tutorial fused_mamba).
"""

from __future__ import annotations

from nkilite.language import broadcasting
from nkilite.language.shaping import across_partitions
from nkilite.trace.tensor import NkiTensor

__all__ = ["repeated"]


def repeated(x: NkiTensor, shape: tuple[int, ...]) -> NkiTensor:
    """`x` with the given (broadcast) shape: a view, of a new SBUF tile if it has only one of several partitions."""
    if x.type.shape[0] != shape[0]:
        x = across_partitions(x, shape[0])
    return broadcasting.repeat(x, shape)
