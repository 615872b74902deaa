"""Checks that the tree of a row group is right: every value is where its readers look for it, whatever runs when."""

from __future__ import annotations

from itertools import combinations

from nkilite.schedule.tree import PARTS, Dim, Loop, Nowhere, Op, Register, Scratch, Source, Tree, Use, column_loops
from nkilite.schedule.verify_columns import verify_held, verify_values
from nkilite.schedule.verify_members import Members, Touch


def verify_rows(members: Members, tree: Tree) -> None:
    """Check a row group.

    Raises:
        IrError: it is not what its instructions do one after another.
    """
    _Rows(members, tree).check()


class _Rows:
    def __init__(self, members: Members, tree: Tree) -> None:
        self.members, self.tree, self.need = members, tree, members.need
        self.loop, self.ops = tree.loop, tree.members
        self.size = len(members.signatures)
        self.working = [op.member for op in self.ops if not op.elided]
        self.loops = column_loops(self.loop)
        self.name = members.name

    def check(self) -> None:
        loop, need = self.loop, self.need
        need(self.members.count > 0, "its members do not all work by row, on equally many")
        whole = loop.dim is Dim.rows and loop.step > 0 and loop.extent == self.members.count
        need(whole and loop.extent % loop.step == 0, f"{loop.extent} by {loop.step} rows of {self.members.count}")
        steps = loop.extent // loop.step
        need(loop.parallel > 0 and steps % loop.parallel == 0, f"{loop.parallel} of {steps} steps stay together")
        for node in loop.body:
            flat = isinstance(node, Op) or (
                isinstance(node, Loop) and node.dim is Dim.columns and all(isinstance(op, Op) for op in node.body)
            )
            need(flat, "it has other loops in a row")
        self._order()
        verify_values(self.members, self.tree.ops, self.loops)
        self._private()
        for op in self.ops:
            if op.elided:
                self._elided(op)
        self._hints()
        self._beside()

    def _touches(self, member: int) -> list[tuple[Touch, Use]]:
        return list(zip(self.members.touches[member], self.ops[member].uses, strict=True))

    def _order(self) -> None:
        """Members are interchanged with rows: row i of one may only meet row i of another."""
        schedule = self.members.schedule
        every = [t for touches in self.members.touches for t in touches]
        for touch in every:
            self.need(touch.buffer not in schedule.panels, f"{self.name(touch)} lies in panels")
            spread = touch.operand.writes and touch.buffer in schedule.broadcast
            self.need(not spread, f"{self.name(touch)} is one row for all")
        for one, other in combinations(every, 2):
            if one.member != other.member and (one.operand.writes or other.operand.writes):
                self.need(
                    self.members.in_step(one, other), f"rows of {self.name(one)} meet others of {self.name(other)}"
                )

    def _private(self) -> None:
        """What is kept in scratch, in registers or nowhere is reached by all of the group in the same way."""
        homes: dict[int, tuple[object, ...]] = {}
        for m in self.working:
            for touch, use in self._touches(m):
                place = use.place
                private = touch.buffer in self.members.private
                self.need(private == (place is not None), f"{self.name(touch)} is not where its buffer is said to be")
                if isinstance(place, Scratch):
                    self._scratch(touch, place)
                    home: tuple[object, ...] = (place.slot, place.byte - touch.start, touch.offset // self._row(touch))
                elif isinstance(place, Source):
                    self._forwarded(touch, place)
                    home = (place.member,)
                elif isinstance(place, Register):
                    home = ()
                else:
                    self.need(place is None, f"{self.name(touch)} is in {place}")
                    continue
                self.need(homes.setdefault(touch.buffer, home) == home, f"{self.name(touch)} is in two places")
        slots = [home[0] for home in homes.values() if len(home) == 3]
        self.need(len(slots) == len(set(slots)), "two buffers share scratch")
        for buffer, home in homes.items():
            if not home:
                verify_held(self.members, self.loops, buffer)

    def _row(self, touch: Touch) -> int:
        result: int = max(self.members.program.buffers[touch.buffer].partition_bytes, 1)
        return result

    def _scratch(self, touch: Touch, place: Scratch) -> None:
        pitch = self.tree.scratch[place.slot] if 0 <= place.slot < len(self.tree.scratch) else 0
        fits = touch.before <= place.byte and place.byte + touch.after <= pitch
        self.need(fits, f"{self.name(touch)} is not within slot {place.slot} of {pitch} bytes")
        same = {t.rows.step for m in self.working for t in self.members.touches[m] if t.buffer == touch.buffer}
        self.need(len(same) == 1, f"{self.name(touch)} has rows that others have not")

    def _forwarded(self, touch: Touch, place: Source) -> None:
        name = self.name(touch)
        load = self.members.signatures[place.member] if 0 <= place.member < touch.member else None
        self.need(
            load is not None and self.ops[place.member].elided and load.access.copies,
            f"{name} is read where member {place.member} would have, which is no load before it",
        )
        touches = self.members.touches[place.member]
        (to,), (source,) = ([t for t in touches if t.operand.writes], [t for t in touches if not t.operand.writes])
        self.need(to.dense and source.dense, f"{name} is read in place, but its rows are not dense")
        inside = touch.start - to.start
        self.need(
            not touch.operand.writes and touch.buffer == to.buffer and touch.rows.step == to.rows.step
            and touch.offset // self._row(touch) == to.offset // self._row(to),
            f"{name} is not what member {place.member} loads",
        )
        self.need(
            place.byte == inside and inside >= touch.before and inside + touch.after <= to.after,
            f"{name} is read {place.byte} bytes from where member {place.member} reads",
        )
        for m in range(place.member + 1, touch.member + 1):
            for other in self.members.touches[m]:
                changed = other.operand.writes and (other.buffer == to.buffer or self.members.meet(other, source))
                self.need(not changed, f"{name} is read in place after member {m} has written there")

    def _elided(self, op: Op) -> None:
        member = op.member
        for touch, use in self._touches(member):
            gone = touch.operand.type.region.on_chip
            self.need((use.place == Nowhere()) == gone, f"{self.name(touch)} is in {use.place}, but left out")
            if not touch.operand.writes:
                continue
            unseen = touch.buffer in self.members.private
            self.need(unseen, f"member {member} is elided, but others see what it writes")
            for reader in self.working:
                for other, read in self._touches(reader):
                    if other.buffer == touch.buffer and other.operand.reads:
                        self.need(
                            isinstance(read.place, Source) and read.place.member == member,
                            f"{self.name(other)} needs what elided member {member} writes",
                        )

    def _hints(self) -> None:
        """What stores past the caches, is fetched ahead, or need not be written."""
        for op in self.ops:
            for touch, use in self._touches(op.member):
                hinted = use.nontemporal or use.unread or use.prefetch is not None
                self.need(not (op.elided and hinted), f"member {op.member} is elided and does something")
                operand, fetch = touch.operand, use.prefetch
                past = operand.writes and not operand.type.region.on_chip
                self.need(past or not use.nontemporal, f"{self.name(touch)} is no store to HBM")
                whole = fetch is None or (operand.reads and 0 <= fetch.first < fetch.first + fetch.parts <= PARTS)
                self.need(whole, f"{self.name(touch)} cannot be fetched as {fetch} says")
                if use.unread:
                    reads = [t for w in self.working for t in self.members.touches[w]
                             if t.buffer == touch.buffer and t.operand.reads]
                    unseen = operand.writes and touch.buffer in self.members.private and not reads
                    self.need(unseen, f"{self.name(touch)} is said to be unread")

    def _beside(self) -> None:
        late = [loop for loop in self.loops if loop.beside is not None]
        if not late:
            return
        last, beside = late[0], late[0].beside
        assert beside is not None
        inside = {op.member for loop in self.loops for op in _operations(loop)}
        first = min((op.member for op in _operations(last)), default=0)
        self.need(
            late == self.loops[-1:] and beside in self.working and beside < first and beside not in inside
            and all(op.elided for op in self.ops[_operations(last)[-1].member + 1 :]),
            f"a loop cannot go with member {beside}",
        )
        alike = any(
            t.operand.reads and t.dense and t.operand.type.free_size == last.extent
            for t in self.members.touches[beside]
        )
        self.need(alike, f"member {beside} does not go through {last.extent} columns")


def _operations(loop: Loop) -> list[Op]:
    return [node for node in loop.body if isinstance(node, Op)]
