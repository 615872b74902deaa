"""The micro-kernel of a group, its tree walked; or of an instruction in no group."""

from __future__ import annotations

from collections.abc import Sequence

from nkilite.codegen import accumulation, moves, rows
from nkilite.codegen.epilogue import packs, write_packed
from nkilite.codegen.kernel import MicroKernel
from nkilite.schedule.tree import Kind, Tree


def write(members: Sequence[MicroKernel], tree: Tree | None) -> None:
    """Write the code of members, in order and on one emitter, as their tree says; None for one on its own."""
    if tree is None:
        (kernel,) = members
        if packs(kernel):
            write_packed(kernel)
        else:
            kernel.call.definition.rule("lower")(kernel.call, kernel)
        return
    for op in tree.ops:
        names = (o.name for o in members[op.member].call.operands)
        members[op.member].private |= {n for n, use in zip(names, op.uses, strict=True) if use.place is not None}
    if tree.kind is Kind.rows:
        rows.write(members, tree)
    elif tree.kind is Kind.sums:
        accumulation.write(members, tree)
    else:
        moves.write(members, tree.moves)
