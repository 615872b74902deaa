"""Text to Schedule: the inverse of nkilite.schedule.printer. The text of a program alone is an empty schedule's."""

from __future__ import annotations

import re

from nkilite.errors import IrError
from nkilite.ir.parser import Misread, ProgramParser, explained, numbered
from nkilite.ir.program import Program
from nkilite.location import UNKNOWN
from nkilite.schedule.panels import Feed
from nkilite.schedule.schedule import Schedule
from nkilite.schedule.tree import (
    PARTS,
    Dim,
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
    Slice,
    Source,
    Spot,
    Steps,
    Strip,
    Tree,
    Use,
)

_LAYOUT = re.compile(r"layout (?P<ref>%\S+) (?:broadcast|packed (?P<feed>\w+))$")
_GROUP = re.compile(r"group of (?P<size>\d+)(?: keeps (?P<kept>%[^{]*?))? \{$")
_LOOP = re.compile(
    r"for (?P<dim>\w+) (?P<extent>\d+)(?: by (?P<step>\d+))?(?: parallel (?P<parallel>\d+))?"
    r"(?: beside (?P<beside>\d+))? \{$"
)
_OP = re.compile(r"(?P<member>\d+) (?P<name>\w+)\((?P<uses>.*)\)(?P<elided> elided)?"
                 r"(?: (?P<index>\d+) of (?P<of>\d+) by (?P<run>\d+))?$")
_USE = re.compile(
    r"(?P<name>[\w.]+)=(?:#(?P<value>\d+))? ?(?P<place>(?:scratch|source) \d+ \+ -?\d+|register|strip|nowhere)? ?"
    rf"(?:prefetch (?P<first>\d+)\.\.(?P<end>\d+)/{PARTS}(?: \+ (?P<byte>-?\d+))?)? ?"
    r"(?P<nontemporal>nontemporal)? ?(?P<unread>unread)?$"
)
_PAIR = r"\((-?\d+), (-?\d+)\)"
_SPOTS = re.compile(rf"move (\d+) \+ {_PAIR} from (\d+) \+ {_PAIR}")
_STEPS = re.compile(rf", (\d+) at {_PAIR} from {_PAIR}")
_MOVE = re.compile(rf"{_SPOTS.pattern}(?:{_STEPS.pattern})*(?P<nontemporal> nontemporal)?$")


def parse_schedule(text: str) -> Schedule:
    """Read a schedule, with its program, back from its text.

    Raises:
        IrError: the text is malformed; the message names the line.
    """
    parser = _ScheduleParser()
    for number, line in numbered(text):
        with explained(number, line):
            parser.line(number, line)
    return parser.parsed()


class _Block:
    """The lines of a group's tree, which are read when its instructions are known.

    Attributes:
        first: the instruction they stand in front of.
        depth: of the loops that have not ended.
    """

    def __init__(self, first: int, size: int, private: tuple[int, ...]) -> None:
        self.first, self.size, self.private = first, size, private
        self.lines: list[tuple[int, str]] = []
        self.depth = 1


class _ScheduleParser:
    def __init__(self) -> None:
        self._program = ProgramParser()
        self._uniform: set[int] = set()
        self._panels: dict[int, Feed] = {}
        self._blocks: list[_Block] = []

    def line(self, number: int, line: str) -> None:
        said = line.strip()
        if self._blocks and self._blocks[-1].depth:
            block = self._blocks[-1]
            block.depth += said.endswith("{") - (said == "}")
            block.lines.append((number, line))
        elif said.startswith("layout "):
            self._layout(said)
        elif said.startswith("group "):
            self._blocks.append(self._group(said))
        else:
            self._program.line(said)

    def parsed(self) -> Schedule:
        """The schedule, after its last line."""
        program = self._program.parsed()
        if self._blocks and self._blocks[-1].depth:
            raise IrError("the tree of the last group does not end", location=UNKNOWN)
        groups = [Group(b.first, b.size, _Trees(program, b).tree(), b.private) for b in self._blocks]
        return Schedule(program, frozenset(self._uniform), self._panels, groups)

    def _layout(self, line: str) -> None:
        match = _matched(_LAYOUT, line, "layout")
        id = self._program.referenced(match["ref"])
        if match["feed"]:
            self._panels[id] = Feed(match["feed"])
        else:
            self._uniform.add(id)

    def _group(self, line: str) -> _Block:
        match = _matched(_GROUP, line, "group")
        kept = tuple(self._program.referenced(name) for name in (match["kept"] or "").split())
        return _Block(self._program.parsed().count, int(match["size"]), kept)


class _Trees:
    """Reads the tree of one group."""

    def __init__(self, program: Program, block: _Block) -> None:
        starts = program.starts()[block.first : block.first + block.size]
        self._members = [program.signatures[program.code[start]] for start in starts]
        self._lines = block.lines

    def tree(self) -> Tree:
        scratch: tuple[int, ...] = ()
        open_loops: list[tuple[re.Match[str] | None, list[Node]]] = [(None, [])]
        for number, written in self._lines:
            line = written.strip()
            with explained(number, written):
                if line.startswith("scratch "):
                    scratch = tuple(int(word) for word in line.split()[1:])
                elif line == "}":
                    head, body = open_loops.pop()
                    if head is None:
                        return Tree(scratch, tuple(body))
                    open_loops[-1][1].append(_loop(head, body))
                elif line.startswith("for "):
                    open_loops.append((_matched(_LOOP, line, "loop"), []))
                else:
                    open_loops[-1][1].append(_move(line) if line.startswith("move ") else self._op(line))
        raise AssertionError("a block ends with its last line")

    def _op(self, line: str) -> Op:
        match = _matched(_OP, line, "operation")
        member = int(match["member"])
        if member >= len(self._members):
            raise Misread(f"there is no member {member} of {len(self._members)}", match["member"])
        signature = self._members[member]
        if match["name"] != signature.name:
            raise Misread(f"member {member} is {signature.name}, not {match['name']}", match["name"])
        said = dict(_use(part) for part in match["uses"].split(", ") if part)
        uses = tuple(said.pop(operand.name, Use()) for operand in signature.operands)
        if said:
            raise Misread(f"{signature.name} has no operand {next(iter(said))}", f"{next(iter(said))}=")
        cut = None if match["of"] is None else Slice(*(int(match[name]) for name in Slice._fields))
        return Op(member, uses, bool(match["elided"]), cut)


def _matched(pattern: re.Pattern[str], line: str, what: str) -> re.Match[str]:
    match = pattern.match(line)
    if match is None:
        raise Misread(f"malformed {what}", line)
    return match


def _loop(head: re.Match[str], body: list[Node]) -> Loop:
    beside = head["beside"]
    return Loop(
        Dim(head["dim"]), int(head["extent"]), tuple(body), int(head["step"] or 0), int(head["parallel"] or 0),
        None if beside is None else int(beside),
    )


def _use(text: str) -> tuple[str, Use]:
    match = _matched(_USE, text, "operand")
    prefetch = None
    if match["first"] is not None:
        first = int(match["first"])
        prefetch = Prefetch(first, int(match["end"]) - first, int(match["byte"] or 0))
    value = None if match["value"] is None else int(match["value"])
    place = None if match["place"] is None else _place(match["place"])
    return match["name"], Use(place, value, prefetch, bool(match["nontemporal"]), bool(match["unread"]))


def _place(text: str) -> Place:
    simple: dict[str, Place] = {"register": Register(), "strip": Strip(), "nowhere": Nowhere()}
    if text in simple:
        return simple[text]
    kind, number, _, byte = text.split()
    return Scratch(int(number), int(byte)) if kind == "scratch" else Source(int(number), int(byte))


def _move(line: str) -> Move:
    match = _matched(_MOVE, line, "move")
    spots = [int(group) for group in match.groups()[:6]]
    steps = [[int(number) for number in found] for found in _STEPS.findall(line)]
    return Move(
        Spot(spots[0], spots[1], spots[2]), Spot(spots[3], spots[4], spots[5]),
        tuple(Steps(n, (a, b), (c, d)) for n, a, b, c, d in steps), bool(match["nontemporal"]),
    )
