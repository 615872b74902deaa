"""Group matmuls that add up in one PSUM view, so that the CPU keeps sums in registers and fetches operands ahead."""

from __future__ import annotations

from typing import NamedTuple

from nkilite.ir.group import Accumulation, Group
from nkilite.ir.program import Program, Signature

_LONGEST = 8  # matmuls of a group: operands of more leave the cache before they are used again


class GroupMatmuls:
    """Make groups of consecutive matmuls onto the same view, of operands in panels, all but the first accumulating."""

    def run(self, program: Program) -> Program:
        code, packed = program.code, program.panels
        products = [_product(s) for s in program.signatures]
        widths = [s.n_words for s in program.signatures]
        groups: list[Group] = []
        run: tuple | None = None  # what the members have in common
        first = start = 0
        for index in range(program.count):
            number = code[start]
            product = products[number]
            key = None
            if product and code[start + product.stationary] in packed and code[start + product.moving] in packed:
                key = code[start + product.dst], code[start + product.dst + 1], product.kinds
            adds = product is not None and product.accumulates
            if key is None or key != run or not adds or index - first == _LONGEST:
                _close(groups, first, index, run)
                first, run = index, key
            start += widths[number]
        _close(groups, first, program.count, run)
        program.groups = sorted([*program.groups, *groups])
        return program


def _close(groups: list[Group], first: int, end: int, run: tuple | None) -> None:
    if run is not None and end - first > 1:
        groups.append(Group(first, end - first, Accumulation()))


class _Product(NamedTuple):
    """A matmul without runtime indices: the words of its operands, and what those of a group have in common."""

    dst: int
    stationary: int
    moving: int
    accumulates: bool
    kinds: tuple


def _product(signature: Signature) -> _Product | None:
    if signature.name != "nc_matmul" or signature.dst.indirection is not None:
        return None
    dst, stationary, moving = (signature.operand(name) for name in ("dst", "stationary", "moving"))
    kinds = dst.type, stationary.type.shape, moving.type.shape
    return _Product(dst.word, stationary.word, moving.word, bool(signature.accumulate), kinds)
