"""Looking at values while a kernel runs."""

from __future__ import annotations

from nkilite.isa import debugging
from nkilite.trace.tensor import NkiTensor

__all__ = ["device_print"]


def device_print(print_prefix: str, tensor: NkiTensor) -> None:
    """Print a prefix and the values of a tensor in SBUF or HBM each time the kernel gets to this line.

    Simulated and compiled kernels both print when they run, not when they are traced.

    Args:
        print_prefix: printed in front of the values.
        tensor: any tensor or view without a runtime index.

    Raises:
        InvalidOperand: print_prefix is not a string.
        InvalidView: the tensor has a runtime index.
        WrongMemory: the tensor is in PSUM.

    Source: nki.language.device_print.
    """
    debugging.device_print(print_prefix, tensor)
