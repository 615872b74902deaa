"""Checks that matmuls of a group add up in one place, and that only their epilogue needs what it keeps."""

from __future__ import annotations

from itertools import chain

from nkilite.schedule.panels import WIDTH, Feed
from nkilite.schedule.tree import Dim, Loop, Register, Strip, Tree
from nkilite.schedule.verify_columns import verify_held, verify_values
from nkilite.schedule.verify_members import Members, Touch


def verify_sums(members: Members, tree: Tree) -> None:
    """Check a group of matmuls and their epilogue.

    Raises:
        IrError: it is not what its instructions do one after another.
    """
    need, size = members.need, len(members.signatures)
    count = len(tree.terms)
    need(0 < count <= size, f"{count} matmuls among {size} members")
    target, sources = _products(members, count)
    epilogue = members.touches[count:]
    rows, columns = target.operand.type.shape[0], target.operand.type.free_size
    for signature, touches in zip(members.signatures[count:], epilogue, strict=True):
        alike = target.dense and signature.access.columns == columns
        need(alike, f"{signature.name} does not take columns of the sums")
        for touch in touches:
            kind = touch.operand.type
            loop = signature.access.rows
            own = loop is not None and signature.access.runs_over(touch.operand.name, loop)
            fits = kind.region.on_chip and touch.dense and kind.shape[0] == (rows if own else 1)
            need(fits, f"{signature.name} is not on the rows of the sums")
            need(touch.buffer not in sources, f"{signature.name} uses what the matmuls multiply")
            need(
                not (touch.operand.writes and touch.buffer in members.schedule.broadcast),
                f"{signature.name} writes a tile that is one row for all",
            )
    every = [target, *chain.from_iterable(epilogue)]
    for i, one in enumerate(every):
        for other in every[i + 1:]:
            writes = one.operand.writes or other.operand.writes
            if writes and one.member != other.member and not one.same(other):
                need(not members.meet(one, other), f"members {one.member} and {other.member} meet in other columns")
    _taken(members, tree, target, epilogue)
    outer, inner = tree.loop, tree.loop.body[0]
    assert isinstance(inner, Loop)
    by_rows = outer.dim is Dim.rows
    whole = (outer.extent, inner.extent) == (rows if by_rows else columns, count)
    shared = (outer.step, outer.parallel) == (WIDTH if by_rows else 0, 1)
    need(whole and shared and not tree.scratch, "a loop over the sums is not whole")
    if by_rows:
        paneled = any(t.operand.writes and t.buffer in members.schedule.panels for t in chain(*members.touches))
        need(not paneled and rows % WIDTH == 0, "threads cannot share its rows")


def _products(members: Members, count: int) -> tuple[Touch, set[int]]:
    """The view that the matmuls write, and the buffers that they read."""
    need, panels = members.need, members.schedule.panels
    first: Touch | None = None
    kinds, sources = set(), set()
    for number, signature in enumerate(members.signatures[:count]):
        need(signature.name == "nc_matmul", f"member {number} is no matmul")
        touches = {t.operand.name: t for t in members.touches[number]}
        target, operands = touches["dst"], [touches["stationary"], touches["moving"]]
        first = first or target
        same = (target.buffer, target.offset, target.operand.type) == (first.buffer, first.offset, first.operand.type)
        need(same and target.operand.type.indirection is None, f"matmul {number} writes another view")
        need(number == 0 or signature.accumulate is True, f"matmul {number} does not accumulate")
        kinds.add(tuple(t.operand.type.shape for t in operands))
        sources |= {t.buffer for t in operands}
        packed = all(panels.get(t.buffer, Feed.odd) not in (Feed.pairs, Feed.odd) for t in operands)
        need(packed, f"an operand of matmul {number} lies in no panels")
    need(len(kinds) == 1, "its matmuls have operands of different shapes")
    assert first is not None
    return first, sources


def _taken(members: Members, tree: Tree, target: Touch, epilogue: list[list[Touch]]) -> None:
    """Sums that are never in memory are made by the matmuls, from nothing, for the epilogue alone."""
    need, ops = members.need, tree.ops
    need(all(use.place in (None, Register(), Strip()) for op in ops for use in op.uses), "an operand is elsewhere")
    need(not any(op.elided for op in ops), "a member is elided")
    loops = [node for node in tree.loop.body[1:] if isinstance(node, Loop)]
    need(all(loop.dim is Dim.columns and loop.beside is None for loop in loops), "its epilogue has other loops")
    verify_values(members, ops, loops)
    strip, held = (
        {(op.member, i) for op in ops for i, use in enumerate(op.uses) if use.place == place}
        for place in (Strip(), Register())
    )
    uses = {(t.member, t.position): t for touches in epilogue for t in touches}
    for buffer in members.private - {target.buffer}:
        verify_held(members, loops, buffer)
    kept = {place for place, t in uses.items() if t.buffer in members.private - {target.buffer}}
    need(held == kept, f"it keeps {sorted(kept)} to itself, and has {sorted(held)} in registers")
    need(bool(strip) == (target.buffer in members.private), "the sums are in memory, or need none")
    if not strip:
        return
    need(not members.signatures[0].accumulate, "the sums begin with what is in memory")
    products = {(t.member, t.position) for op in tree.terms for t in members.touches[op.member] if t.operand.writes}
    taken = {place: t for place, t in uses.items() if t.buffer == target.buffer}
    need(strip == taken.keys() | products, f"the sums are used at {sorted(taken)}, and in a strip at {sorted(strip)}")
    for (m, _), touch in taken.items():
        need(touch.same(target) and not touch.operand.writes, f"member {m} does not take the sums as they are")
