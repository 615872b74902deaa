"""Looking at values while a kernel runs."""

from __future__ import annotations

from nkilite.errors import InvalidOperand, UnsupportedError
from nkilite.trace.tensor import NkiTensor

__all__ = ["device_print"]


def device_print(print_prefix: str, tensor: NkiTensor) -> None:
    """Print a prefix and the values of a tensor in SBUF or HBM, under nki.simulate.

    Source: public page nki.language.device_print.

    Raises:
        UnsupportedError: the kernel is being compiled; run it with nki.simulate to see values.
    """
    if not isinstance(print_prefix, str):
        raise InvalidOperand(
            instruction="nl.device_print",
            operand="print_prefix",
            found=repr(print_prefix),
            expected="a string",
        )
    if tensor.storage.data is None:
        raise UnsupportedError(
            feature="nl.device_print in a compiled kernel", fix="run it with nki.simulate(kernel)(...)"
        )
    print(print_prefix, tensor.numpy())
