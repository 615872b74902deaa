"""The memories tensors live in, and questions about them."""

from __future__ import annotations

from nkilite.errors import InvalidOperand
from nkilite.ir.types import MemoryRegion

__all__ = [
    "MemoryRegion",
    "hbm",
    "is_hbm",
    "is_on_chip",
    "is_psum",
    "is_sbuf",
    "private_hbm",
    "psum",
    "sbuf",
    "shared_hbm",
]

sbuf = MemoryRegion.sbuf
psum = MemoryRegion.psum
private_hbm = MemoryRegion.private_hbm
shared_hbm = MemoryRegion.shared_hbm


class _DeviceMemory:
    """`nl.hbm`. A tensor made in it is in private HBM, which it is documented to mean; it equals shared HBM as well.

    Kernels of different releases ask `argument.buffer == nl.hbm` or `argument.buffer == nl.shared_hbm`.
    """

    def __eq__(self, other: object) -> bool:
        return other is self or is_hbm(other)

    def __hash__(self) -> int:
        return hash(private_hbm)

    def __repr__(self) -> str:
        return "nl.hbm"


hbm: object = _DeviceMemory()

_PUBLIC = (sbuf, psum, private_hbm, shared_hbm)


def as_region(buffer: object, function: str) -> MemoryRegion:
    """Check a `buffer` argument.

    Raises:
        InvalidOperand: it is not a memory; strings stopped being accepted in NKI 0.3.
    """
    if buffer is hbm:
        return private_hbm
    if isinstance(buffer, MemoryRegion) and buffer in _PUBLIC:
        return buffer
    known = isinstance(buffer, str) and buffer in ("sbuf", "psum", "hbm", "private_hbm", "shared_hbm")
    raise InvalidOperand(
        instruction=f"nl.{function}",
        operand="buffer",
        found=repr(buffer),
        expected="nl.sbuf, nl.psum, nl.hbm, nl.private_hbm or nl.shared_hbm",
        fix=f"write buffer=nl.{buffer}" if known else "",
    )


def is_sbuf(buffer: object) -> bool:
    """Whether `buffer` is the state buffer."""
    return buffer is sbuf


def is_psum(buffer: object) -> bool:
    """Whether `buffer` is PSUM, where the Tensor Engine accumulates."""
    return buffer is psum


def is_on_chip(buffer: object) -> bool:
    """Whether `buffer` is SBUF or PSUM."""
    return buffer is sbuf or buffer is psum


def is_hbm(buffer: object) -> bool:
    """Whether `buffer` is device memory, private or shared."""
    return buffer is private_hbm or buffer is shared_hbm or buffer is hbm
