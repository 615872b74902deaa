"""Matmuls as their signatures tell them: operands, and which of them may form a group."""

from __future__ import annotations

from typing import NamedTuple

from nkilite import dtypes
from nkilite.ir.program import Operand, Signature
from nkilite.schedule.infer_panels import free_runs


class Product(NamedTuple):
    """A matmul without runtime indices: its operands, and what those of a group have in common.

    Attributes:
        left, right: words of the stationary and the moving operand.
        dense: free elements of dst follow each other without gaps.
    """

    dst: Operand
    left: int
    right: int
    accumulates: bool
    dense: bool
    kinds: tuple[object, ...]

    @property
    def joins(self) -> bool:
        """Whether it adds to sums that may stay in registers: no matmul has to round them."""
        return self.accumulates and self.dst.type.dtype is dtypes.float32


def product_of(signature: Signature) -> Product | None:
    rule = signature.definition.rules.get("panels")
    factors = rule(signature) if rule is not None else ()
    if len(factors) != 2 or signature.dst.indirection is not None:
        return None
    dst, stationary, moving = (signature.operand(name) for name in ("dst", *factors))
    runs = free_runs(dst.type.shape[1:], dst.type.strides[1:])
    if len(runs) > 1:
        return None
    kinds = dst.type, stationary.type.shape, moving.type.shape
    return Product(dst, stationary.word, moving.word, bool(signature.accumulate), runs[0][1] == 1, kinds)
