"""Checks trees of loops: every read finds the value that it finds when members run one after another, all at once.

A loop over rows, or over what matmuls sum up, runs its members on some positions after the other, and threads share
it; a loop inside it does the same with columns. That changes nothing if members that touch the same memory, one of
them writing, only do so where they are at the same position of all loops around both (`in_order` in
nkilite/schedule/rows.py). Beside that, whatever a tree puts in a place of the group's own must be found there, and
there alone.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import combinations
from typing import NamedTuple

from nkilite.schedule.column_loops import made_before_used, pipelined, reachable
from nkilite.schedule.members import Members
from nkilite.schedule.panels import WIDTH, Feed
from nkilite.schedule.product import Product, product_of
from nkilite.schedule.rows import (
    Access,
    at_source,
    elements,
    forwards,
    in_order,
    row_shape,
    sides,
    streamable,
    view_shape,
)
from nkilite.schedule.tree import (
    PARTS,
    Dim,
    Loop,
    Nowhere,
    Op,
    Place,
    Register,
    Scratch,
    Source,
    Strip,
    Tree,
    Use,
    operations,
)


class _Touch(NamedTuple):
    """An operand of an operation.

    Attributes:
        loop: the loop over columns around the operation.
        access: what it touches in its buffer, of the columns of the operation.
        seen: that in memory: of what is read where a load would have read it, its source.
    """

    op: Op
    loop: Loop | None
    use: Use
    access: Access
    seen: Access

    @property
    def reads(self) -> bool:
        return self.access.operand.reads

    @property
    def writes(self) -> bool:
        return self.access.operand.writes


def verify_tree(members: Members, tree: Tree) -> None:
    """Check the tree of a group.

    Raises:
        IrError: it is not what its instructions do one after another.
    """
    _Check(members, tree).check()


class _Check:
    def __init__(self, members: Members, tree: Tree) -> None:
        self.members, self.tree, self.need = members, tree, members.need
        self.loop, self.sums = tree.loop, bool(tree.terms)
        self.inner: list[Loop] = []
        product = self._product() if self.sums else None
        self.rows = product.dst.type.shape[0] if product else self.loop.extent
        self.whole = self._members(product)  # of every member, what it touches
        self.touches = list(self._touches())
        self.working = [t for t in self.touches if not t.op.elided]
        self._extents(product)

    def check(self) -> None:
        for touch in self.touches:
            self._usable(touch)
        for one, other in combinations(self.working, 2):
            if one.op is not other.op:
                deep = self.sums or (one.loop is not None and one.loop is other.loop)
                right = in_order(one.seen, other.seen, self.rows, deep)
                self.need(right, f"{self.name(one)} meets other rows or columns of {self.name(other)}")
        self._homes()
        for op in self.tree.members:
            if op.elided:
                self._elided(op)
        for loop in self.inner:
            self._columns(loop)
        self._beside()

    def name(self, touch: _Touch) -> str:
        return self.members.name(touch.op.member, touch.access.operand.operand)

    # --- what there is --------------------------------------------------------------------------------------

    def _members(self, product: Product | None) -> list[tuple[Access, ...]]:
        """What every member touches, row by row; of matmuls, that which they sum up."""
        found, terms = [], len(self.tree.terms)
        for m, (signature, start) in enumerate(zip(self.members.signatures, self.members.starts, strict=True)):
            shape = view_shape(signature, product.dst.name) if product and m < terms else row_shape(signature)
            self.need(shape is not None and shape.rows == self.rows, f"member {m} does not work on {self.rows} rows")
            assert shape is not None
            found.append(tuple(self.members.rows.accesses(shape, m, start)))
        return found

    def _touches(self) -> Iterable[_Touch]:
        for node in self.loop.body:
            loop = node if isinstance(node, Loop) else None
            if loop is not None and loop.dim is Dim.columns:
                self.need(not (loop.step or loop.parallel), "a loop over columns has steps of its own")
                self.inner.append(loop)
            elif loop is not None:
                self.need(self.sums and loop is self.loop.body[0], "it has other loops in a row")
            for op in loop.body if loop else (node,):
                self.need(isinstance(op, Op), "it has other loops in a row")
                assert isinstance(op, Op)
                inside = loop if loop in self.inner else None
                self.need(op.slice is None or inside is not None, f"member {op.member} is cut in no loop over columns")
                for access in self.whole[op.member]:
                    use = op.uses[access.operand.operand]
                    cut, seen = (a.sliced(op.slice) for a in (access, self._seen(access, use)))
                    self.need(cut is not None and seen is not None, f"member {op.member} has no columns {op.slice}")
                    assert cut is not None
                    assert seen is not None
                    yield _Touch(op, inside, use, cut, seen)

    def _seen(self, access: Access, use: Use) -> Access:
        if not isinstance(use.place, Source):
            return access
        member = use.place.member
        self.need(0 <= member < access.member, f"member {access.member} reads where member {member} will have read")
        load, signature = self.whole[member], self.members.signatures[member]
        forwards = self.tree.members[member].elided and signature.access.copies and len(load) == 2
        self.need(forwards, f"member {access.member} reads where member {member} does, which is no load that is elided")
        return at_source(load, access)

    # --- loops ----------------------------------------------------------------------------------------------

    def _product(self) -> Product:
        """The first matmul: all add up in one view, and read nothing that is written beside them."""
        count, panels, members = len(self.tree.terms), self.members.schedule.panels, self.members
        first = product_of(members.signatures[0])
        sources: set[int] = set()
        for m, op in enumerate(self.tree.terms):
            product = product_of(members.signatures[m])
            alike = first is not None and product is not None and product.kinds == first.kinds
            self.need(alike, f"member {m} is no matmul like the first")
            assert product is not None
            self.need(m == 0 or product.joins, f"matmul {m} does not add to what others leave")
            for i, (memory, operand) in enumerate(zip(members.memory[m], members.signatures[m].operands, strict=True)):
                if operand == product.dst:
                    self.need(memory == members.memory[0][i], f"matmul {m} writes another view")
                else:
                    self.need(op.uses[i] == Use(), f"{operand.name} of matmul {m} is elsewhere")
                    sources.add(memory[0])
        packed = all(panels.get(b, Feed.odd) not in (Feed.pairs, Feed.odd) for b in sources)
        self.need(packed, "an operand of a matmul lies in no panels")
        own = {b for memory in members.memory[count:] for b, _ in memory}
        self.need(not own & sources, "its epilogue uses what the matmuls multiply")
        assert first is not None
        return first

    def _extents(self, product: Product | None) -> None:
        """Loops run over all there is, in steps that threads can share."""
        loop, need = self.loop, self.need
        if product is None:
            need(loop.dim is Dim.rows and loop.step > 0 and loop.extent % loop.step == 0, "its steps leave rows")
            steps = loop.extent // loop.step
            need(loop.parallel > 0 and steps % loop.parallel == 0, f"{loop.parallel} of {steps} steps stay together")
            return
        by_rows, terms, columns = loop.dim is Dim.rows, len(self.tree.terms), product.dst.type.free_size
        need(loop.body[0] == Loop(Dim.terms, terms, self.tree.terms), "it has other terms")
        need(loop.extent == (self.rows if by_rows else columns), "its loop over the sums is not whole")
        shared = (loop.step, loop.parallel) == (WIDTH if by_rows else 0, 1)
        need(shared and not self.tree.scratch, "threads do not share its sums, or it has scratch")
        paneled = any(t.writes and t.access.buffer in self.members.schedule.panels for t in self.touches)
        need(not by_rows or (not paneled and self.rows % WIDTH == 0), "threads cannot share its rows")
        for m, signature in enumerate(self.members.signatures[terms:], terms):
            flat = product.dense and all(a.operand.on_chip and a.operand.dense for a in self.whole[m])
            need(flat and signature.access.columns == columns, f"member {m} does not take columns of the sums")
        strip = Strip() in {use.place for use in self.tree.terms[0].uses}
        need(not (strip and product.accumulates), "the sums begin with what is in memory")

    def _columns(self, loop: Loop) -> None:
        """Numbers in a loop over columns are sets of elements, which are reached by the same loops."""
        inside = [t for t in self.working if t.loop is loop]
        for op in loop.body:
            assert isinstance(op, Op)
            sweep = self.members.signatures[op.member].access.sweep
            alike = op.elided or sweep == loop.extent * (op.slice.of if op.slice else 1)
            self.need(alike, f"member {op.member} does not work on {loop.extent} columns, each on its own")
        for one, other in combinations(inside, 2):
            same = elements(one.access) == elements(other.access)
            numbered = one.use.value == other.use.value
            right = same if numbered else not (same and (one.writes or other.writes))
            self.need(right, f"{self.name(one)} and {self.name(other)} are {'not ' * numbered}one value")
        parts = [(t.op.slice, t.seen) for t in inside]
        self.need(reachable(parts, loop.extent), "rows in a loop over columns have gaps at different places")

    def _beside(self) -> None:
        late = [loop for loop in self.inner if loop.beside is not None]
        self.need(self.loop.beside is None and not (late and self.sums), "a loop goes with a member")
        if not late:
            return
        last, beside = late[0], late[0].beside
        body = self.loop.body
        ops = {op.member: op for op in body if isinstance(op, Op) and not op.elided}
        after = body[body.index(last) + 1 :]
        ends = late == self.inner[-1:] and all(isinstance(op, Op) and op.elided for op in after)
        before = beside in ops and body.index(ops[beside]) < body.index(last)
        self.need(ends and before, f"a loop cannot go with member {beside}")
        assert beside is not None
        alike = self.members.signatures[beside].access.sweep == last.extent
        flat = all(t.op.slice is None for t in self.working if t.loop is last)
        first = min(op.member for op in operations(last.body))
        right = pipelined([(t.op.member, t.use, t.seen) for t in self.working], beside, first, last.extent)
        self.need(alike and flat and right, f"a loop cannot work on the rows before those of member {beside}")

    # --- places ---------------------------------------------------------------------------------------------

    def _usable(self, touch: _Touch) -> None:
        """Tiles that lie in another way, and what is said of an operand beside where it is."""
        schedule, use = self.members.schedule, touch.use
        name, buffer = self.name(touch), touch.access.buffer
        self.need(self.sums or buffer not in schedule.panels, f"{name} lies in panels")
        self.need(not (touch.writes and buffer in schedule.broadcast), f"{name} is one row for all")
        valued = touch.loop is not None and not touch.op.elided
        self.need((use.value is not None) == valued, f"{name} has a value for registers, or has none")
        hinted = use.nontemporal or use.unread or use.prefetch is not None
        self.need(not (hinted and (touch.op.elided or self.sums)), f"{name} is left out, or summed up, and hinted at")
        past = touch.writes and streamable(self.whole[touch.op.member][touch.access.operand.operand])
        self.need(past or not use.nontemporal, f"{name} is no store of long rows to HBM")
        fetch = use.prefetch
        whole = fetch is None or (touch.reads and 0 <= fetch.first < fetch.first + fetch.parts <= PARTS)
        self.need(whole, f"{name} cannot be fetched as {fetch} says")
        if use.unread:
            reads = any(t.reads for t in self.working if t.access.buffer == buffer)
            unseen = touch.writes and buffer in self.members.private and not reads
            self.need(unseen, f"{name} is said to be unread")

    def _homes(self) -> None:
        """What is kept in scratch, in registers, in a strip or nowhere is reached by all of the group alike."""
        homes: dict[int, tuple[object, ...]] = {}
        for touch in self.working:
            access, place = touch.access, touch.use.place
            private = access.buffer in self.members.private
            self.need(private == (place is not None), f"{self.name(touch)} is not where its buffer is said to be")
            if place is not None:
                home = self._home(touch, place)
                self.need(homes.setdefault(access.buffer, home) == home, f"{self.name(touch)} is in two places")
        slots = [home[1] for home in homes.values() if home[0] is Scratch]
        self.need(len(slots) == len(set(slots)), "two buffers share scratch")
        for buffer, home in homes.items():
            if home[0] is Register:
                self._held(buffer)

    def _home(self, touch: _Touch, place: Place) -> tuple[object, ...]:
        """Where a buffer is, seen from one of its uses."""
        access, name = touch.access, self.name(touch)
        if isinstance(place, Scratch):
            whole = self.whole[access.member][access.operand.operand]
            pitch = self.tree.scratch[place.slot] if 0 <= place.slot < len(self.tree.scratch) else 0
            fits = place.byte + whole.operand.low >= 0 and place.byte + whole.operand.high <= pitch
            self.need(fits, f"{name} is not within slot {place.slot} of {pitch} bytes")
            return Scratch, place.slot, place.byte - whole.start, access.first, access.step
        if isinstance(place, Source):
            self._forwarded(touch, place)
        elif isinstance(place, Strip):
            taken = self.sums and elements(access) == elements(self.whole[0][0])
            right = taken and touch.writes == (access.member < len(self.tree.terms))
            self.need(right, f"{name} does not take the sums as they are")
        else:
            self.need(isinstance(place, Register), f"{name} is in {place}")
        return type(place), place.member if isinstance(place, Source) else 0

    def _forwarded(self, touch: _Touch, place: Source) -> None:
        """A read where a load would have read it: it reads what that writes, which nobody has changed since."""
        read, name = self.whole[touch.op.member][touch.access.operand.operand], self.name(touch)
        to, _ = sides(self.whole[place.member])
        self.need(place.byte == read.start - to.low, f"{name} is read elsewhere than member {place.member} reads")
        found = forwards(self.whole, place.member, read, self.rows)
        self.need(found, f"{name} is not what member {place.member} loads, or no longer")

    def _held(self, buffer: int) -> None:
        """What never leaves registers is made, before it is used, in the one loop that uses it."""
        uses = [t for t in self.touches if t.access.buffer == buffer]
        name = f"buffer {self.members.program.buffers[buffer].label}"
        alone = uses[0].loop is not None and all(t.loop is uses[0].loop for t in uses)
        self.need(alone, f"{name} is held in registers outside of a loop over columns")
        made = made_before_used([(t.op.member, t.access) for t in uses])
        self.need(made, f"{name} is combined, or read before it is made, and held in registers")

    def _elided(self, op: Op) -> None:
        self.need(not self.sums, f"member {op.member} of sums is elided")
        for touch in (t for t in self.touches if t.op is op):
            gone = touch.access.operand.on_chip
            self.need((touch.use.place == Nowhere()) == gone, f"{self.name(touch)} is left out, but somewhere")
            if not touch.writes:
                continue
            buffer = touch.access.buffer
            self.need(buffer in self.members.private, f"member {op.member} is elided, but others see what it writes")
            for other in self.working:
                if other.access.buffer == buffer and other.reads:
                    place = other.use.place
                    found = isinstance(place, Source) and place.member == op.member
                    self.need(found, f"{self.name(other)} needs what elided member {op.member} writes")
