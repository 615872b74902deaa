"""Checks that the plan of a row group is right: every value is where its readers look for it, whatever runs when."""

from __future__ import annotations

from itertools import combinations

from nkilite.schedule.group import PARTS, Forwarded, Held, Place, RowPlan, Scratch
from nkilite.schedule.verify_members import Members, Touch


def verify_rows(members: Members, plan: RowPlan) -> None:
    """Check a row group.

    Raises:
        IrError: it is not what its instructions do one after another.
    """
    _Rows(members, plan).check()


class _Rows:
    def __init__(self, members: Members, plan: RowPlan) -> None:
        self.members, self.plan, self.need = members, plan, members.need
        self.size = len(members.signatures)
        self.working = [m for m in range(self.size) if m not in plan.skipped]

    def check(self) -> None:
        plan, need = self.plan, self.need
        need(self.members.count > 0, "its members do not all work by row, on equally many")
        whole = plan.rows > 0 and plan.rows * plan.blocks == self.members.count
        need(whole, f"{plan.blocks} blocks of {plan.rows} rows of {self.members.count}")
        need(plan.each > 0 and plan.blocks % plan.each == 0, f"{plan.each} of {plan.blocks} blocks stay together")
        need(len(plan.places) == self.size, f"places of {len(plan.places)} members")
        need(list(plan.skipped) == sorted(set(plan.skipped) & set(range(self.size))), f"it skips {plan.skipped}")
        for touches, places in zip(self.members.touches, plan.places, strict=True):
            need(len(touches) == len(places), f"places of {len(places)} of {len(touches)} operands")
        self._order()
        self._segments()
        self._private()
        for member in plan.skipped:
            self._skipped(member)
        self._hints()
        self._carrier()

    def _touches(self, member: int) -> list[tuple[Touch, Place | None]]:
        return list(zip(self.members.touches[member], self.plan.places[member], strict=True))

    def _order(self) -> None:
        """Members are interchanged with rows: row i of one may only meet row i of another."""
        schedule = self.members.schedule
        every = [t for touches in self.members.touches for t in touches]
        for touch in every:
            self.need(touch.buffer not in schedule.panels, f"{self._name(touch)} lies in panels")
            spread = touch.operand.writes and touch.buffer in schedule.uniform
            self.need(not spread, f"{self._name(touch)} is one row for all")
        for one, other in combinations(every, 2):
            if one.member != other.member and (one.operand.writes or other.operand.writes):
                self.need(
                    self.members.in_step(one, other), f"rows of {self._name(one)} meet others of {self._name(other)}"
                )

    def _segments(self) -> None:
        end = 0
        for segment in self.plan.segments:
            self.need(
                end <= segment.first < segment.end <= self.size and len(segment.values) == segment.end - segment.first,
                f"a segment of members {segment.first} to {segment.end - 1}",
            )
            end = segment.end
            known: list[tuple[int, Touch]] = []
            for m, values in zip(range(segment.first, segment.end), segment.values, strict=True):
                if m in self.plan.skipped:
                    self.need(not values, f"member {m} is skipped and has values in a segment")
                    continue
                touches = self.members.touches[m]
                self.need(
                    self.members.signatures[m].columns == segment.columns and all(t.dense for t in touches),
                    f"member {m} does not work on {segment.columns} columns, each on its own",
                )
                self.need(len(values) == len(touches), f"member {m} has {len(values)} values for its operands")
                known += zip(values, touches, strict=True)
            for (value, one), (number, other) in combinations(known, 2):
                if value == number:
                    self.need(one.same(other), f"{self._name(one)} and {self._name(other)} are not one value")
                elif one.operand.writes or other.operand.writes:
                    self.need(
                        one.member == other.member or self.members.rows_apart(one, other),
                        f"{self._name(one)} and {self._name(other)} are one value",
                    )

    def _private(self) -> None:
        """What is kept in scratch, in registers or nowhere is reached by all of the group in the same way."""
        homes: dict[int, tuple[object, ...]] = {}
        for m in self.working:
            for touch, place in self._touches(m):
                private = touch.buffer in self.members.private
                self.need(private == (place is not None), f"{self._name(touch)} is not where its buffer is said to be")
                if isinstance(place, Scratch):
                    self._scratch(touch, place)
                    home: tuple[object, ...] = (place.slot, place.byte - touch.start, touch.offset // self._row(touch))
                elif isinstance(place, Forwarded):
                    self._forwarded(touch, place)
                    home = (place.member,)
                elif isinstance(place, Held):
                    home = ()
                else:
                    self.need(place is None, f"{self._name(touch)} is in {place}")
                    continue
                self.need(homes.setdefault(touch.buffer, home) == home, f"{self._name(touch)} is in two places")
        slots = [home[0] for home in homes.values() if len(home) == 3]
        self.need(len(slots) == len(set(slots)), "two buffers share scratch")
        for buffer, home in homes.items():
            if not home:
                self._held(buffer)

    def _row(self, touch: Touch) -> int:
        return max(self.members.program.buffers[touch.buffer].partition_bytes, 1)

    def _scratch(self, touch: Touch, place: Scratch) -> None:
        pitch = self.plan.slots[place.slot] if 0 <= place.slot < len(self.plan.slots) else 0
        fits = touch.before <= place.byte and place.byte + touch.after <= pitch
        self.need(fits, f"{self._name(touch)} is not within slot {place.slot} of {pitch} bytes")
        same = {t.rows.step for m in self.working for t in self.members.touches[m] if t.buffer == touch.buffer}
        self.need(len(same) == 1, f"{self._name(touch)} has rows that others have not")

    def _forwarded(self, touch: Touch, place: Forwarded) -> None:
        name = self._name(touch)
        load = self.members.signatures[place.member] if 0 <= place.member < touch.member else None
        self.need(
            load is not None and place.member in self.plan.skipped and load.access.copies,
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

    def _held(self, buffer: int) -> None:
        """A value that never leaves registers is made, before it is used, in the one segment that uses it."""
        uses = [t for m in self.working for t in self.members.touches[m] if t.buffer == buffer]
        segment = next((s for s in self.plan.segments if s.first <= uses[0].member < s.end), None)
        self.need(
            segment is not None and all(segment.first <= t.member < segment.end for t in uses),
            f"{self._name(uses[0])} is held in registers outside of a segment",
        )
        assert segment is not None
        made: set[int] = set()
        for touch in sorted(uses, key=lambda t: (t.member, not t.operand.reads)):
            value = segment.values[touch.member - segment.first][touch.position]
            self.need(value in made or not touch.operand.reads, f"{self._name(touch)} is read before it is made")
            made.add(value)

    def _skipped(self, member: int) -> None:
        for touch in self.members.touches[member]:
            if not touch.operand.writes:
                continue
            unseen = touch.buffer in self.members.private
            self.need(unseen, f"member {member} is skipped, but others see what it writes")
            for reader in self.working:
                for use, place in self._touches(reader):
                    if use.buffer == touch.buffer and use.operand.reads:
                        self.need(
                            isinstance(place, Forwarded) and place.member == member,
                            f"{self._name(use)} needs what skipped member {member} writes",
                        )

    def _hints(self) -> None:
        """What stores past the caches, is fetched ahead, or need not be written."""
        for m in self.plan.streams:
            self.need(
                m in self.working and any(t.operand.writes and not t.operand.type.region.on_chip
                                          for t in self.members.touches[m]),
                f"member {m} stores nothing in HBM that could go past the caches",
            )
        for fetch in self.plan.ahead:
            self.need(
                fetch.member in self.working and 0 <= fetch.operand < len(self.plan.places[fetch.member])
                and self.members.touches[fetch.member][fetch.operand].operand.reads
                and 0 <= fetch.first < fetch.first + fetch.parts <= PARTS,
                f"it fetches ahead {tuple(fetch)}",
            )
        for m, position in self.plan.unread:
            known = m in self.working and 0 <= position < len(self.plan.places[m])
            self.need(known, f"operand {position} of member {m} is said to be unread")
            touch = self.members.touches[m][position]
            reads = [t for w in self.working for t in self.members.touches[w]
                     if t.buffer == touch.buffer and t.operand.reads]
            self.need(
                touch.operand.writes and touch.buffer in self.members.private and not reads,
                f"{self._name(touch)} is said to be unread",
            )

    def _carrier(self) -> None:
        carrier, segments = self.plan.carrier, self.plan.segments
        if carrier is None:
            return
        last = segments[-1] if segments else None
        self.need(
            last is not None and carrier in self.working and carrier < last.first
            and all(m < last.end for m in self.working) and not any(s.first <= carrier < s.end for s in segments),
            f"its last segment cannot go with member {carrier}",
        )
        assert last is not None
        alike = any(
            t.operand.reads and t.dense and t.operand.type.free_size == last.columns
            for t in self.members.touches[carrier]
        )
        self.need(alike, f"member {carrier} does not go through {last.columns} columns")

    def _name(self, touch: Touch) -> str:
        buffer = self.members.program.buffers[touch.buffer]
        return f"{touch.operand.name} ({buffer.label}) of member {touch.member}"
