"""Group matmuls that add up in one PSUM view, so that the CPU keeps sums in registers and fetches operands ahead."""

from __future__ import annotations

from nkilite.ir.group import Accumulation, Group
from nkilite.ir.program import Program, Signature

_LONGEST = 8  # matmuls of a group: operands of more leave the cache before they are used again


class GroupMatmuls:
    """Make groups of consecutive matmuls onto the same view, of operands in panels, all but the first accumulating."""

    def run(self, program: Program) -> Program:
        code = program.code
        words = [_words(s) for s in program.signatures]
        widths = [s.n_words for s in program.signatures]
        groups: list[Group] = []
        run: tuple | None = None  # what the members have in common
        first = start = 0
        for index in range(program.count):
            signature = program.signatures[code[start]]
            found = words[signature.id]
            key: tuple | None = None
            if found is not None and all(code[start + word] in program.panels for word in found[1:]):
                dst = start + found[0]
                key = code[dst], code[dst + 1], signature.dst, signature.stationary.shape, signature.moving.shape
            joins = key is not None and key == run and signature.accumulate and index - first < _LONGEST
            if not joins:
                _close(groups, first, index, run)
                first, run = index, key
            start += widths[signature.id]
        _close(groups, first, program.count, run)
        program.groups = sorted([*program.groups, *groups])
        return program


def _close(groups: list[Group], first: int, end: int, run: tuple | None) -> None:
    if run is not None and end - first > 1:
        groups.append(Group(first, end - first, Accumulation()))


def _words(signature: Signature) -> tuple[int, int, int] | None:
    """Where the words of dst and of the operands of a matmul without runtime indices are."""
    if signature.name != "nc_matmul" or signature.dst.indirection is not None:
        return None
    return tuple(signature.operand(name).word for name in ("dst", "stationary", "moving"))  # type: ignore[return-value]
