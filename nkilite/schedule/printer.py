"""Schedule to text: that of the program (nkilite/ir/printer.py), with what was decided between its lines.

In front of the instructions, how tiles lie: one partition for all, which hold the same, or packed for what matmuls make
of them (nkilite/schedule/panels.py):

    layout %sb3 broadcast
    layout %sb9 packed stationary

In front of the first instruction of a group, its tree (nkilite/schedule/tree.py), and the buffers that need no memory:

    group of 6 keeps %sb2 %sb5 {
      scratch 16512
      for rows 128 by 1 parallel 1 {
        0 dma_copy(dst=nowhere) elided
        1 tensor_reduce(dst=scratch 0 + 0, data=source 0 + 0 prefetch 0..1/8 + 14336)
        for columns 4096 beside 1 {
          2 tensor_scalar(dst=#0 register, data=#1 source 0 + 0, operand0=#2 scratch 0 + 0)
          ...

An operand that is not named is where its buffer is, and nothing else is said of it. Elements that go elsewhere are

    move 2 + (0, 0) from 0 + (0, 0), 64 at (1, 0) from (0, 4), 32 at (0, 4) from (1, 0) nontemporal

which is a place relative to where the operand of a member begins, in (partitions, bytes), on either side, and the same
for every loop.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from nkilite.ir.printer import Printer
from nkilite.ir.program import Signature
from nkilite.schedule.schedule import Schedule
from nkilite.schedule.tree import (
    PARTS,
    Group,
    Loop,
    Move,
    Node,
    Nowhere,
    Op,
    Place,
    Prefetch,
    Register,
    Scratch,
    Source,
    Strip,
    Use,
)


def print_schedule(schedule: Schedule) -> str:
    """A program and its schedule as text."""
    return _SchedulePrinter(schedule).text()


class _SchedulePrinter(Printer):
    def __init__(self, schedule: Schedule) -> None:
        super().__init__(schedule.program)
        self._schedule = schedule
        self._groups = {group.first: group for group in schedule.groups}
        self._starts = schedule.program.starts()

    def about(self) -> Iterator[str]:
        buffers = self._schedule.program.buffers
        for id in sorted(self._schedule.broadcast):
            yield f"layout {self.reference(buffers[id])} broadcast"
        for id, feed in sorted(self._schedule.panels.items()):
            yield f"layout {self.reference(buffers[id])} packed {feed.value}"

    def before(self, index: int) -> Iterator[str]:
        group = self._groups.get(index)
        return iter(()) if group is None else self._group(group)

    def _group(self, group: Group) -> Iterator[str]:
        program = self._schedule.program
        kept = " ".join(self.reference(program.buffers[id]) for id in group.private)
        yield f"group of {group.size}{f' keeps {kept}' if kept else ''} {{"
        if group.tree.scratch:
            yield f"  scratch {' '.join(map(str, group.tree.scratch))}"
        starts = self._starts[group.first : group.first + group.size]
        members = [program.signatures[program.code[start]] for start in starts]
        for node in group.tree.body:
            for line in _node(node, members):
                yield f"  {line}"
        yield "}"


def _node(node: Node, members: Sequence[Signature]) -> Iterator[str]:
    if isinstance(node, Op):
        yield _op(node, members[node.member])
    elif isinstance(node, Move):
        yield _move(node)
    else:
        yield _head(node)
        for inner in node.body:
            for line in _node(inner, members):
                yield f"  {line}"
        yield "}"


def _head(loop: Loop) -> str:
    parts = [f"for {loop.dim.value} {loop.extent}"]
    if loop.step:
        parts.append(f"by {loop.step}")
    if loop.parallel:
        parts.append(f"parallel {loop.parallel}")
    if loop.beside is not None:
        parts.append(f"beside {loop.beside}")
    return " ".join([*parts, "{"])


def _op(op: Op, signature: Signature) -> str:
    uses = ((o.name, _use(use)) for o, use in zip(signature.operands, op.uses, strict=True))
    said = ", ".join(f"{name}={use}" for name, use in uses if use)
    cut = f" {op.slice.index} of {op.slice.of} by {op.slice.run}" if op.slice else ""
    return f"{op.member} {signature.name}({said}){' elided' if op.elided else ''}{cut}"


def _use(use: Use) -> str:
    parts = [] if use.value is None else [f"#{use.value}"]
    if use.place is not None:
        parts.append(_place(use.place))
    if use.prefetch is not None:
        parts.append(_prefetch(use.prefetch))
    if use.nontemporal:
        parts.append("nontemporal")
    if use.unread:
        parts.append("unread")
    return " ".join(parts)


def _place(place: Place) -> str:
    if isinstance(place, Scratch):
        return f"scratch {place.slot} + {place.byte}"
    if isinstance(place, Source):
        return f"source {place.member} + {place.byte}"
    return {Register: "register", Strip: "strip", Nowhere: "nowhere"}[type(place)]


def _prefetch(what: Prefetch) -> str:
    apart = f" + {what.byte}" if what.byte else ""
    return f"prefetch {what.first}..{what.first + what.parts}/{PARTS}{apart}"


def _move(move: Move) -> str:
    to, origin = move.to, move.origin
    parts = [f"move {to.member} + {to[1:]} from {origin.member} + {origin[1:]}"]
    parts += [f"{n} at {there} from {here}" for n, there, here in move.loops]
    return ", ".join(parts) + (" nontemporal" if move.nontemporal else "")
