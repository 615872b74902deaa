"""Schedules with something changed in them, right or wrong, and what comes out when they are run."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from random import Random
from typing import Any

import numpy as np

from nkilite.dtypes import as_dtype
from nkilite.host.cpu import host
from nkilite.native.executable import Executable
from nkilite.native.image import image_of
from nkilite.native.lower import lower
from nkilite.native.walker import LEAD, SPLIT
from nkilite.schedule.panels import Feed
from nkilite.schedule.place import place
from nkilite.schedule.schedule import Schedule
from nkilite.schedule.tree import (
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
    Strip,
    Tree,
    Use,
    operations,
)

_MICRO_KERNEL = ctypes.CFUNCTYPE(ctypes.c_int32, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64, ctypes.c_int64)
_PARTS = 3
_LONGEST = 8  # instructions that are put in a new group


def results(schedule: Schedule, arguments: Sequence[np.ndarray]) -> list[bytes]:
    """What a program without loops of the device leaves in its arguments and outputs, run by some threads of which the
    last one is always ahead: after each entry they wait for each other, as members of a group do not."""
    level = host()
    placement = place(schedule, level.products)
    image = image_of(schedule.program, placement, lower(schedule, placement, level), level.level)
    executable = Executable(image, level)
    arrays = [np.array(a) for a in arguments] + [np.zeros(o.shape, as_dtype(o.dtype).numpy) for o in image.outputs]
    workspace = executable.begin(arrays)
    ctypes.memset(int(workspace.bases[0]), 0xA5, image.arena_bytes)
    workspace.clear()
    for at in image.lowered.entries.tolist():
        flags = int(executable.table[at + 1]) >> 32
        assert not flags & LEAD
        parts = _PARTS if flags & SPLIT else 1
        function, words = _MICRO_KERNEL(int(executable.table[at])), executable.table.ctypes.data + 8 * (at + 2)
        for part in reversed(range(parts)):
            assert function(words, workspace.address, part, parts) == 0
    return [array.tobytes() for array in arrays]


def mutants(schedule: Schedule, seed: int) -> Iterator[tuple[str, Schedule]]:
    """Endlessly many, each with one thing changed, and what it was."""
    random = Random(seed)
    while True:
        name = random.choice([*_TREES] * 4 + [*_SCHEDULES] + ["a new group"] * 2)
        if name in _SCHEDULES:
            changed = _SCHEDULES[name](schedule, random)
        else:
            changed = _with_tree(schedule, random, name)
        if changed is not None and not _alike(changed, schedule):
            yield name, changed


def _alike(one: Schedule, other: Schedule) -> bool:
    return (one.groups, one.panels, one.broadcast) == (other.groups, other.panels, other.broadcast)


def _regrouped(schedule: Schedule, first: int, end: int, *new: Group) -> Schedule:
    """With other groups in the place of those that have some of the instructions."""
    kept = [g for g in schedule.groups if g.first + g.size <= first or end <= g.first]
    return replace(schedule, groups=sorted([*kept, *new], key=lambda g: g.first))


# --- changes of a tree --------------------------------------------------------------------------------------


def _with_tree(schedule: Schedule, random: Random, name: str) -> Schedule | None:
    if not schedule.groups:
        return None
    group = random.choice(schedule.groups)
    tree = _TREES[name](group.tree, random)
    if tree is None or tree == group.tree:
        return None
    return _regrouped(schedule, group.first, group.first + group.size, group._replace(tree=tree))


def _changed(nodes: Sequence[Node], change: Callable[[Node], Sequence[Node]]) -> tuple[Node, ...]:
    """Nodes with others in the place of each, the innermost first."""
    found: list[Node] = []
    for node in nodes:
        inner = replace(node, body=_changed(node.body, change)) if isinstance(node, Loop) else node
        found += change(inner)
    return tuple(found)


def _used(op: Op, change: Callable[[Use], Use]) -> Op:
    """An operation with its uses changed."""
    return replace(op, uses=tuple(change(use) for use in op.uses))


def _in_uses(nodes: Sequence[Node], change: Callable[[Use], Use]) -> tuple[Node, ...]:
    return _changed(nodes, lambda node: [_used(node, change) if isinstance(node, Op) else node])


def _nodes(nodes: Sequence[Node]) -> list[Node]:
    return [n for node in nodes for n in [node, *(_nodes(node.body) if isinstance(node, Loop) else [])]]


def _one(tree: Tree, random: Random, kind: type[Any], change: Callable[[Any], Sequence[Node]]) -> Tree | None:
    """A tree with one of its nodes of a kind changed."""
    those = [n for n in _nodes(tree.body) if isinstance(n, kind)]
    if not those:
        return None
    chosen = random.choice(those)
    done = False

    def once(node: Node) -> Sequence[Node]:
        nonlocal done
        if done or node != chosen:
            return [node]
        done = True
        return change(node)

    return Tree(tree.scratch, _changed(tree.body, once))


def _loop(tree: Tree, random: Random) -> Tree | None:
    number = random.choice((0, 1, 2, 3, 8, 16, 32, 64))

    def change(loop: Loop) -> list[Node]:
        field = random.choice(("extent", "step", "parallel", "dim", "beside"))
        if field == "dim":
            return [replace(loop, dim=random.choice(tuple(Dim)))]
        if field == "beside":
            return [replace(loop, beside=None if loop.beside is not None else number % 8)]
        if field == "extent":
            return [replace(loop, extent=random.choice((number, loop.extent // 2, loop.extent * 2)))]
        return [replace(loop, **{field: number})]

    return _one(tree, random, Loop, change)


def _place(tree: Tree, random: Random, old: Place | None) -> Place | None:
    byte = random.choice((0, 0, 4, 8, 64, 128, 256, 2048))
    if isinstance(old, Scratch) and random.random() < 0.5:
        return random.choice((Scratch(old.slot, old.byte + byte), Scratch(random.randrange(4), old.byte)))
    if isinstance(old, Source) and random.random() < 0.5:
        return random.choice((Source(old.member, old.byte + byte), Source(random.randrange(8), old.byte)))
    return random.choice((None, Register(), Strip(), Nowhere(), Scratch(random.randrange(4), byte), Source(0, byte)))


def _use(tree: Tree, random: Random) -> Tree | None:
    def change(op: Op) -> list[Node]:
        uses = list(op.uses)
        if not uses:
            return [op]
        i = random.randrange(len(uses))
        field = random.choice(("place", "place", "value", "value", "prefetch", "nontemporal", "unread"))
        new: dict[str, object] = {
            "place": _place(tree, random, uses[i].place),
            "value": random.choice((None, random.randrange(6))),
            "prefetch": random.choice((None, Prefetch(0, 1, 64), Prefetch())),
        }
        uses[i] = replace(uses[i], **{field: new.get(field, not getattr(uses[i], field))})
        return [replace(op, uses=tuple(uses))]

    return _one(tree, random, Op, change)


def _values(tree: Tree, random: Random) -> Tree | None:
    """Two numbers in a loop over columns become one, everywhere."""
    values = sorted({u.value for op in tree.ops for u in op.uses if u.value is not None})
    if len(values) < 2:
        return None
    one, other = random.sample(values, 2)
    return Tree(tree.scratch, _in_uses(tree.body, lambda u: replace(u, value=other) if u.value == one else u))


def _home(tree: Tree, random: Random) -> Tree | None:
    """All that is in one place is in another."""
    places = list({use.place for op in tree.ops for use in op.uses if use.place is not None})
    if not places:
        return None
    old = random.choice(places)
    new = random.choice([*places, *(_place(tree, random, old) for _ in range(3))])
    return Tree(tree.scratch, _in_uses(tree.body, lambda u: replace(u, place=new) if u.place == old else u))


def _elided(tree: Tree, random: Random) -> Tree | None:
    return _one(tree, random, Op, lambda op: [replace(op, elided=not op.elided)])


def _slice(tree: Tree, random: Random) -> Tree | None:
    cut = Slice(2, random.choice((16, 32, 64)), random.randrange(2))
    return _one(tree, random, Op, lambda op: [replace(op, slice=None if op.slice else cut)])


def _twice(tree: Tree, random: Random) -> Tree | None:
    return _one(tree, random, object, lambda node: [node] * random.choice((0, 2)))


def _swapped(tree: Tree, random: Random) -> Tree | None:
    def change(loop: Loop) -> list[Node]:
        body = list(loop.body)
        if len(body) > 1:
            i = random.randrange(len(body) - 1)
            body[i : i + 2] = reversed(body[i : i + 2])
        return [replace(loop, body=tuple(body))]

    return _one(tree, random, Loop, change)


def _exchanged(tree: Tree, random: Random) -> Tree | None:
    """Two operations change places."""
    ops = list(tree.ops)
    if len(ops) < 2:
        return None
    one, other = random.sample(ops, 2)
    return Tree(tree.scratch, _changed(tree.body, lambda n: [other if n == one else one if n == other else n]))


def _unrolled(tree: Tree, random: Random) -> Tree | None:
    """What is in a loop comes instead of it."""

    def plain(node: Node) -> Node:
        return _used(node, lambda u: replace(u, value=None)) if isinstance(node, Op) else node

    return _one(tree, random, Loop, lambda loop: [plain(node) for node in loop.body])


def _split(tree: Tree, random: Random) -> Tree | None:
    def change(loop: Loop) -> list[Node]:
        at = random.randrange(1, len(loop.body)) if len(loop.body) > 1 else 0
        return [replace(loop, body=part) for part in (loop.body[:at], loop.body[at:]) if part]

    return _one(tree, random, Loop, change)


def _joined(tree: Tree, random: Random) -> Tree | None:
    """Loops that follow each other become one; what is between them, too."""

    def change(loop: Loop) -> list[Node]:
        inner = [i for i, n in enumerate(loop.body) if isinstance(n, Loop)]
        if len(inner) < 2:
            return [loop]
        i = random.randrange(len(inner) - 1)
        begin, end = inner[i], inner[i + 1] + 1
        ops = tuple(operations(loop.body[begin:end]))
        first, last = loop.body[begin], loop.body[end - 1]
        assert isinstance(first, Loop)
        assert isinstance(last, Loop)
        shift = 1 + max((u.value or 0 for op in ops for u in op.uses), default=0)
        late = set(operations(last.body))

        def apart(use: Use) -> Use:
            return use if use.value is None else replace(use, value=use.value + shift)

        ops = tuple(_used(op, apart) if op in late else op for op in ops)
        return [replace(loop, body=(*loop.body[:begin], replace(first, body=ops), *loop.body[end:]))]

    return _one(tree, random, Loop, change)


def _pitch(tree: Tree, random: Random) -> Tree | None:
    if not tree.scratch:
        return None
    pitches = list(tree.scratch)
    pitches[random.randrange(len(pitches))] = random.choice((4, 64, 128, 1024))
    return Tree(tuple(pitches), tree.body)


def _move(tree: Tree, random: Random) -> Tree | None:
    number = random.choice((-4, 1, 2, 4, 64, 128))

    def change(move: Move) -> list[Node]:
        side = random.choice(("to", "origin", "loops", "loops", "nontemporal"))
        if side == "nontemporal":
            return [replace(move, nontemporal=not move.nontemporal)]
        if side != "loops":
            spot = getattr(move, side)
            field = random.choice(spot._fields)
            return [replace(move, **{side: spot._replace(**{field: getattr(spot, field) + number})})]
        loops = list(move.loops)
        if not loops:
            return [move]
        i = random.randrange(len(loops))
        field = random.choice(loops[i]._fields)
        old = getattr(loops[i], field)
        new = old // 2 if field == "count" else (old[0], old[1] + number) if random.random() < 0.7 else old[::-1]
        loops[i] = loops[i]._replace(**{field: new})
        return [replace(move, loops=tuple(loops))]

    return _one(tree, random, Move, change)


_TREES: dict[str, Callable[[Tree, Random], Tree | None]] = {
    "a loop": _loop,
    "a use": _use,
    "values": _values,
    "a home": _home,
    "what is elided": _elided,
    "a slice": _slice,
    "a node twice or not": _twice,
    "order": _swapped,
    "two operations": _exchanged,
    "a loop less": _unrolled,
    "a loop in two": _split,
    "two loops in one": _joined,
    "a pitch": _pitch,
    "a move": _move,
}


# --- changes of groups and tables ---------------------------------------------------------------------------


def _plain(schedule: Schedule, first: int, end: int) -> list[Op]:
    """Instructions as members of a group, nothing said of their operands."""
    program = schedule.program
    starts = program.starts()[first:end]
    signatures = [program.signatures[program.code[s]] for s in starts]
    return [Op(m, (Use(),) * len(s.operands)) for m, s in enumerate(signatures)]


def _shifted(node: Node, by: int) -> Node:
    """A node of a group in front of which there are members more."""
    if isinstance(node, Move):
        to, origin = (spot._replace(member=spot.member + by) for spot in (node.to, node.origin))
        return replace(node, to=to, origin=origin)
    if isinstance(node, Loop):
        beside = None if node.beside is None else node.beside + by
        return replace(node, body=tuple(_shifted(n, by) for n in node.body), beside=beside)

    def shifted(use: Use) -> Use:
        place = use.place
        return replace(use, place=replace(place, member=place.member + by)) if isinstance(place, Source) else use

    return replace(_used(node, shifted), member=node.member + by)


def _grown(schedule: Schedule, random: Random) -> Schedule | None:
    """A group has the instruction before it or after it, too, in its loop or beside it."""
    if not schedule.groups:
        return None
    group = random.choice(schedule.groups)
    end = group.first + group.size
    body = group.tree.body
    deep = isinstance(body[0], Loop) and random.random() < 0.8
    inner = body[0].body if deep and isinstance(body[0], Loop) else body
    if random.random() < 0.5:
        if end >= schedule.program.count:
            return None
        (op,) = _plain(schedule, end, end + 1)
        inner = (*inner, replace(op, member=group.size))
        group = group._replace(size=group.size + 1)
    else:
        if not group.first:
            return None
        (op,) = _plain(schedule, group.first - 1, group.first)
        inner = (op, *(_shifted(n, 1) for n in inner))
        group = group._replace(first=group.first - 1, size=group.size + 1)
    whole = (replace(body[0], body=inner),) if deep and isinstance(body[0], Loop) else inner
    group = group._replace(tree=Tree(group.tree.scratch, whole))
    return _regrouped(schedule, group.first, group.first + group.size, group)


def _merged(schedule: Schedule, random: Random) -> Schedule | None:
    """Two groups that follow each other become one."""
    pairs = [(a, b) for a, b in zip(schedule.groups, schedule.groups[1:]) if a.first + a.size == b.first]
    if not pairs:
        return None
    one, other = random.choice(pairs)
    slots = len(one.tree.scratch)

    def moved(use: Use) -> Use:
        place = use.place
        return replace(use, place=replace(place, slot=place.slot + slots)) if isinstance(place, Scratch) else use

    late = _in_uses([_shifted(n, one.size) for n in other.tree.body], moved)
    body = (*one.tree.body, *late)
    first, last = body[0], late[0]
    if isinstance(first, Loop) and isinstance(last, Loop) and random.random() < 0.9:
        body = (replace(first, body=(*first.body, *last.body)),)
    tree = Tree((*one.tree.scratch, *other.tree.scratch), body)
    size = one.size + other.size
    return _regrouped(
        schedule, one.first, one.first + size, Group(one.first, size, tree, (*one.private, *other.private))
    )


def _made(schedule: Schedule, random: Random) -> Schedule | None:
    """Some instructions become a group, whether they go together or not."""
    program = schedule.program
    size = min(random.randint(1, _LONGEST), program.count)
    first = random.randrange(program.count - size + 1)
    starts = program.starts()
    at = [starts[i] for i in range(first, first + size)]
    signatures = [program.signatures[program.code[s]] for s in at]
    touched: dict[int, list[tuple[int, int]]] = {}
    ops = _plain(schedule, first, first + size)
    for m, (s, start) in enumerate(zip(signatures, at, strict=True)):
        for i, o in enumerate(s.operands):
            touched.setdefault(program.code[start + o.word], []).append((m, i))
    outside = {
        program.code[start + o.word]
        for n, start in enumerate(starts)
        if not first <= n < first + size
        for o in program.signatures[program.code[start]].operands
    }
    scratch, private = [], []
    for id, places in touched.items():
        buffer = program.buffers[id]
        if id in outside or not buffer.region.on_chip or random.random() < 0.3:
            continue
        row = max(buffer.partition_bytes, 1)
        kind = random.choice(("scratch", "register"))
        for m, i in places:
            offset = program.code[at[m] + signatures[m].operands[i].word + 1]
            home: Place = Scratch(len(scratch), offset % row) if kind == "scratch" else Register()
            uses = list(ops[m].uses)
            uses[i] = replace(uses[i], place=home)
            ops[m] = replace(ops[m], uses=tuple(uses))
        if kind == "scratch":
            scratch.append(-(-row // 64) * 64)
        private.append(id)
    rows = random.choice([o.type.shape[0] for s in signatures for o in s.operands] or [1])
    body = _in_loops(schedule, random, ops, at, random.random() < 0.6)
    step = random.choice([n for n in range(1, rows + 1) if rows % n == 0])
    if random.random() < 0.2:
        body = _terms(random, signatures, body)
        columns = random.choice([o.type.free_size for s in signatures for o in s.operands] or [1])
        loop = random.choice((Loop(Dim.columns, columns, body, 0, 1), Loop(Dim.rows, rows, body, 16, 1)))
    else:
        loop = Loop(Dim.rows, rows, body, step, 1)
    group = Group(first, size, Tree(tuple(scratch), (loop,)), tuple(private))
    return _regrouped(schedule, first, first + size, group)


def _terms(random: Random, signatures: Sequence[Any], body: Sequence[Node]) -> tuple[Node, ...]:
    ops = list(operations(body))
    count = max(1, sum(s.name == "nc_matmul" for s in signatures))
    strip = random.random() < 0.5

    def plain(use: Use) -> Use:
        return replace(use, value=None, place=Strip() if strip and use.place is not None else use.place)

    ops = [replace(_used(op, plain), slice=None) for op in ops]
    return (Loop(Dim.terms, count, tuple(ops[:count])), *ops[count:])


def _in_loops(
    schedule: Schedule, random: Random, ops: Sequence[Op], at: Sequence[int], columns: bool
) -> tuple[Node, ...]:
    """Operations, some of them in a loop over columns, with values as the words of their operands suggest."""
    program = schedule.program
    if not columns:
        return tuple(ops)
    begin = random.randrange(len(ops))
    end = random.randint(begin + 1, len(ops))
    numbers: dict[tuple[object, ...], int] = {}
    inside, widths = [], []
    for op in ops[begin:end]:
        signature = program.signatures[program.code[at[op.member]]]
        uses = []
        for use, o in zip(op.uses, signature.operands, strict=True):
            buffer, offset = (program.code[at[op.member] + o.word + i] for i in range(2))
            key = buffer, offset, o.type.free_size if random.random() < 0.5 else o.type
            uses.append(replace(use, value=numbers.setdefault(key, len(numbers))))
            widths.append(o.type.free_size)
        inside.append(replace(op, uses=tuple(uses)))
    return (*ops[:begin], Loop(Dim.columns, max(widths, default=1), tuple(inside)), *ops[end:])


def _kept(schedule: Schedule, random: Random) -> Schedule | None:
    """A group keeps a buffer more or less to itself."""
    if not schedule.groups:
        return None
    group = random.choice(schedule.groups)
    if group.private and random.random() < 0.5:
        private = tuple(b for b in group.private if b != random.choice(group.private))
    else:
        private = (*group.private, random.randrange(len(schedule.program.buffers)))
    return _regrouped(schedule, group.first, group.first + group.size, group._replace(private=private))


def _resized(schedule: Schedule, random: Random) -> Schedule | None:
    if not schedule.groups:
        return None
    group = random.choice(schedule.groups)
    changed = group._replace(**random.choice(({"size": group.size - 1}, {"first": group.first + 1})))
    return _regrouped(schedule, group.first, group.first + group.size, changed)


def _packed(schedule: Schedule, random: Random) -> Schedule | None:
    panels = dict(schedule.panels)
    if panels and random.random() < 0.7:
        id = random.choice(list(panels))
        if random.random() < 0.5:
            del panels[id]
            return replace(schedule, panels=panels)
    else:
        id = random.randrange(len(schedule.program.buffers))
    panels[id] = random.choice(list(Feed))
    return replace(schedule, panels=panels)


def _broadcast(schedule: Schedule, random: Random) -> Schedule | None:
    id = random.randrange(len(schedule.program.buffers))
    return replace(schedule, broadcast=schedule.broadcast ^ {id})


_SCHEDULES: dict[str, Callable[[Schedule, Random], Schedule | None]] = {
    "a member more": _grown, "two groups in one": _merged, "a new group": _made, "what is kept": _kept,
    "a member less": _resized, "packed tiles": _packed, "one row for all": _broadcast,
}
