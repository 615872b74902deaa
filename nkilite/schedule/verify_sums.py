"""Checks that matmuls grouped with what follows them add up in one place, and that only followers need the sums."""

from __future__ import annotations

from itertools import chain

from nkilite.schedule.group import Accumulation
from nkilite.schedule.panels import WIDTH, Feed
from nkilite.schedule.verify_members import Members, Touch


def verify_sums(members: Members, plan: Accumulation) -> None:
    """Check a group of matmuls and their followers.

    Raises:
        IrError: it is not what its instructions do one after another.
    """
    need, size = members.need, len(members.signatures)
    need(0 < plan.products <= size, f"{plan.products} matmuls among {size} members")
    target, sources = _products(members, plan)
    followers = members.touches[plan.products:]
    rows, columns = target.operand.type.shape[0], target.operand.type.free_size
    for signature, touches in zip(members.signatures[plan.products:], followers, strict=True):
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
                not (touch.operand.writes and touch.buffer in members.schedule.uniform),
                f"{signature.name} writes a tile that is one row for all",
            )
    every = [target, *chain.from_iterable(followers)]
    for i, one in enumerate(every):
        for other in every[i + 1:]:
            writes = one.operand.writes or other.operand.writes
            if writes and one.member != other.member and not one.same(other):
                need(not members.meet(one, other), f"members {one.member} and {other.member} meet in other columns")
    _taken(members, plan, target, followers)
    if plan.by_rows:
        paneled = any(t.operand.writes and t.buffer in members.schedule.panels for t in chain(*members.touches))
        need(not paneled and rows % WIDTH == 0, "threads cannot share its rows")


def _products(members: Members, plan: Accumulation) -> tuple[Touch, set[int]]:
    """The view that the matmuls write, and the buffers that they read."""
    need, panels = members.need, members.schedule.panels
    first: Touch | None = None
    kinds, sources = set(), set()
    for number, signature in enumerate(members.signatures[: plan.products]):
        need(signature.name == "nc_matmul", f"member {number} is no matmul")
        touches = {t.operand.name: t for t in members.touches[number]}
        target, operands = touches["dst"], [touches["stationary"], touches["moving"]]
        first = first or target
        same = (target.buffer, target.offset, target.operand.type) == (first.buffer, first.offset, first.operand.type)
        need(same and target.operand.type.indirection is None, f"matmul {number} writes another view")
        need(number == 0 or signature.accumulate is True, f"matmul {number} does not accumulate")
        kinds.add(tuple(t.operand.type.shape for t in operands))
        sources |= {t.buffer for t in operands}
        packed = all(panels.get(t.buffer, Feed.tiles) is not Feed.tiles for t in operands)
        need(packed, f"an operand of matmul {number} lies in no panels")
    need(len(kinds) == 1, "its matmuls have operands of different shapes")
    assert first is not None
    return first, sources


def _taken(members: Members, plan: Accumulation, target: Touch, followers: list[list[Touch]]) -> None:
    """Sums that are never in memory are made by the matmuls, from nothing, for their followers alone."""
    need = members.need
    if not plan.sums:
        need(not members.private, "it keeps buffers to itself, but puts the sums into memory")
        return
    need(members.private == {target.buffer}, "it keeps other buffers to itself than that of the sums")
    need(not members.signatures[0].accumulate, "the sums begin with what is in memory")
    uses = {
        (m, touch.position) for m, touches in enumerate(followers) for touch in touches if touch.buffer == target.buffer
    }
    need(set(plan.sums) == uses, f"followers use the sums at {sorted(uses)}, not at {sorted(plan.sums)}")
    for m, position in uses:
        touch = followers[m][position]
        need(touch.same(target) and not touch.operand.writes, f"follower {m} does not take the sums as they are")
