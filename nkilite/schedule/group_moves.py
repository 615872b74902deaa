"""Group copies and transposes that follow each other: elements go straight to where the last of them leaves them."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from typing import NamedTuple

import numpy as np

from nkilite.ir.accesses import Spaces
from nkilite.ir.columns import BufferColumns, Columns
from nkilite.ir.regions import apart
from nkilite.passes.liveness import lifetimes
from nkilite.schedule import tree as trees
from nkilite.schedule.lives import never_read
from nkilite.schedule.moves import Axis, Move, Shape, behind, on_lines, shape_of, split, writable
from nkilite.schedule.schedule import Schedule
from nkilite.schedule.tree import Group, Nowhere, Op, Spot, Steps, Tree, Use

_LEAST_ALONE = 256 << 10  # bytes of a transposing DMA that pays for a group of its own, which threads share
_LONGEST = 1024  # members


class GroupMoves:
    """Make groups of moves, transposes among them, between which tiles are only filled to be read by the next one.

    Such tiles need no memory. A group ends where none is left that a later move reads.
    """

    def run(self, schedule: Schedule) -> Schedule:
        program = schedule.program
        shapes = [shape_of(s) for s in program.signatures]
        if any(shape is not None and shape.turns for shape in shapes):
            groups = _Grouping(schedule, shapes).groups()
            schedule.groups = sorted([*schedule.groups, *groups])
        return schedule


class _Member(NamedTuple):
    """A move of a program.

    Attributes:
        number: of the instruction.
        signature: its number.
        target, source: buffer, and the byte of its line (nkilite/ir/regions.py).
    """

    number: int
    signature: int
    shape: Shape
    target: tuple[int, int]
    source: tuple[int, int]


class _Grouping:
    """The groups of one program."""

    def __init__(self, schedule: Schedule, shapes: list[Shape | None]) -> None:
        self._schedule, self._program = schedule, schedule.program
        program = self._program
        self._shapes = shapes
        columns = Columns.of(program)
        self._lives = lifetimes(program, columns)
        self._streams = never_read(program)
        buffers = BufferColumns.of(program)
        self._spaces = Spaces(program)
        self._plain = buffers.internal & ~buffers.fixed & ~buffers.chosen(schedule.broadcast)
        self._passing = (self._plain & buffers.on_chip & ~buffers.chosen(schedule.panels)).tolist()
        self._plans: dict[tuple[object, ...], Tree | None] = {}

    def groups(self) -> Iterator[Group]:
        for run in self._runs():
            for forward in (True, False):
                left: list[list[_Member]] = []
                for unit, passing in self._units(run, forward):
                    group = self._group(unit, passing)
                    if group is not None:
                        yield group
                    elif forward:
                        left.append(unit)
                if not forward or not left:
                    break
                run = [member for unit in left for member in unit]

    def _runs(self) -> Iterator[list[_Member]]:
        """Moves that follow each other, outside of other groups."""
        columns = Columns.of(self._program)
        free = np.ones(self._program.count, bool)
        for group in self._schedule.groups:
            free[group.first : group.first + group.size] = False
        found = []
        for signature, rows, starts in columns.uses():
            shape = self._shapes[signature.id]
            if shape is not None:
                facts = [rows]
                for operand in (shape.target, shape.source):
                    buffer, offset = (columns.code[starts + operand.word + i] for i in range(2))
                    facts += [buffer, self._spaces.line(buffer, offset)]
                move = np.stack(facts)
                found.append(move[:, free[rows] & self._plain[move[1]]])
        moves = np.concatenate(found, axis=1)
        moves = moves[:, np.argsort(moves[0])]
        ids = columns.ids[moves[0]].tolist()
        members = [
            _Member(number, id, shape, (into, to), (source, origin))
            for id, (number, into, to, source, origin) in zip(ids, moves.T.tolist(), strict=True)
            if (shape := self._shapes[id]) is not None
        ]
        ends = (np.flatnonzero(np.diff(moves[0]) != 1) + 1).tolist()
        for begin, end in pairwise([0, *ends, len(members)]):
            if members[begin:end]:
                yield members[begin:end]

    def _units(self, run: list[_Member], forward: bool) -> Iterator[tuple[list[_Member], set[int]]]:
        """The shortest parts of a run that share no tile, and the tiles that pass elements on within each.

        Args:
            forward: whether tiles that are loaded from HBM are among them.
        """
        first, last = self._lives
        begin, until = 0, -1
        passing: set[int] = set()
        for position, member in enumerate(run):
            buffer = member.target[0]
            loaded = not member.shape.source.type.region.on_chip
            begins = first[buffer] == member.number and last[buffer] <= run[-1].number
            if self._passing[buffer] and begins and (forward or not loaded):
                until = max(until, last[buffer])
                passing.add(buffer)
            if until <= member.number or position == len(run) - 1 or run[position + 1].number != member.number + 1:
                yield run[begin : position + 1], passing
                begin, until, passing = position + 1, -1, set()

    def _group(self, unit: list[_Member], passing: set[int]) -> Group | None:
        if len(unit) > _LONGEST or not (passing or (len(unit) == 1 and _large_alone(unit[0].shape))):
            return None
        if not any(m.shape.turns for m in unit):
            return None
        if any(self._lives.last[b] > unit[-1].number for b in passing):
            return None
        order: dict[int, int] = {}  # buffers as the unit meets them, and what units of the same plan have in common
        origins: list[int] = []
        key: list[object] = []
        for member in unit:
            key.append(member.signature)
            for buffer, byte in (member.target, member.source):
                number = order.setdefault(buffer, len(order))
                if number == len(origins):
                    origins.append(byte)
                    key += buffer in passing, self._streams[buffer], self._schedule.panels.get(buffer)
                key += number, byte - origins[number]
        found = tuple(key)
        if found not in self._plans:
            self._plans[found] = self._plan(unit, passing)
        plan = self._plans[found]
        return Group(unit[0].number, len(unit), plan, tuple(sorted(passing))) if plan is not None else None

    def _plan(self, unit: list[_Member], passing: set[int]) -> Tree | None:
        """From where to where elements go; None if that is hard to say, or takes more than a plan can."""
        known: dict[int, list[Move]] = {}  # what has been moved to each buffer
        for member in unit:
            (into, to), (source, origin) = member.target, member.source
            rows = [int(self._spaces.row[buffer]) for buffer in (into, source)]
            move = Move(source, origin, to, member.shape.size, on_lines(member.shape.axes, *rows))
            moves = [move] if source not in known else behind(move, known[source])
            if moves is None or not _record(known.setdefault(into, []), moves):
                return None
        finals = {buffer: moves for buffer, moves in known.items() if buffer not in passing}
        if not finals:  # nothing leaves the unit: its last tiles are written for nobody
            return None
        if any(move.source in finals or move.source in passing for moves in finals.values() for move in moves):
            return None
        writers: dict[int, tuple[int, int]] = {}
        readers: dict[int, tuple[int, int]] = {}
        for number, member in enumerate(unit):
            writers.setdefault(member.target[0], (number, member.target[1]))
            readers.setdefault(member.source[0], (number, member.source[1]))
        pieces = []
        for buffer, moves in finals.items():
            for piece in self._pieces(buffer, moves, writers[buffer], readers):
                if not writable(self._schedule, buffer, piece, moves[0].size):
                    return None
                pieces.append(piece)
        return Tree((), (*(self._elided(number, m, passing) for number, m in enumerate(unit)), *pieces))

    def _elided(self, number: int, member: _Member, passing: set[int]) -> Op:
        """A member, in whose place elements go elsewhere, and its operands that need no memory."""
        buffers = {member.shape.target.name: member.target[0], member.shape.source.name: member.source[0]}
        gone = (buffers.get(o.name) in passing for o in self._program.signatures[member.signature].operands)
        return Op(number, tuple(Use(Nowhere()) if private else Use() for private in gone), elided=True)

    def _pieces(
        self, buffer: int, moves: list[Move], writer: tuple[int, int], readers: dict[int, tuple[int, int]]
    ) -> Iterator[trees.Move]:
        for move in _joined(moves):
            reader = readers[move.source]
            yield trees.Move(
                Spot(writer[0], *split(move.to - writer[1])), Spot(reader[0], *split(move.origin - reader[1])),
                tuple(Steps(n, split(to), split(origin)) for n, to, origin in _loops(move)), self._streams[buffer],
            )


def _loops(move: Move) -> list[Axis]:
    """The loops of a move, those that continue others joined with them."""
    loops: list[Axis] = []
    for axis in sorted(move.axes, key=lambda a: (a.to, a.origin)):
        for i, inner in enumerate(loops):
            if (axis.to, axis.origin) == (inner.count * inner.to, inner.count * inner.origin):
                loops[i] = inner._replace(count=inner.count * axis.count)
                break
        else:
            loops.append(axis)
    return loops


def _large_alone(shape: Shape) -> bool:
    """Whether a transpose from or to HBM is worth sharing among threads."""
    kind = shape.target.type
    on_chip = kind.region.on_chip and shape.source.type.region.on_chip
    return not on_chip and kind.size * shape.size >= _LEAST_ALONE


def _record(before: list[Move], moves: list[Move]) -> bool:
    """Take note of moves to a buffer; False if they write over parts of others there."""
    again = {move.place for move in moves}
    before[:] = [move for move in before if move.place not in again]
    known = [(move.to, move.written) for move in before]
    for move in moves:
        here = move.written
        if not all(apart(here, there, to - move.to) for to, there in known):
            return False
        known.append((move.to, here))
    before += moves
    return True


def _joined(moves: list[Move]) -> list[Move]:
    """Moves that follow each other at equal distances on both sides as one with one more loop."""
    while True:
        result: list[Move] = []
        at = 0
        while at < len(moves):
            first, end = moves[at], at + 1
            alike = [first]
            step = None
            while end < len(moves) and moves[end]._replace(to=0, origin=0) == first._replace(to=0, origin=0):
                here = moves[end].to - alike[-1].to, moves[end].origin - alike[-1].origin
                if min(here) < 0 or (step is not None and here != step):
                    break
                step = here
                alike.append(moves[end])
                end += 1
            if step is not None:
                first = first._replace(axes=(Axis(len(alike), *step), *first.axes))
            result.append(first)
            at = end
        if len(result) == len(moves):
            return moves
        moves = result
