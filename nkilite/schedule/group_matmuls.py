"""Group matmuls that add up in one PSUM view with the instructions that take their sums away.

The CPU then keeps sums in registers or the nearest cache, and fetches operands and results ahead.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise

import numpy as np

from nkilite import knobs
from nkilite.ir.columns import BufferColumns, Columns
from nkilite.ir.program import Signature
from nkilite.schedule.column_loops import ColumnLoop, Step, nested
from nkilite.schedule.epilogues import Epilogue, Epilogues
from nkilite.schedule.panels import WIDTH, Feed
from nkilite.schedule.product import Product, product_of
from nkilite.schedule.rows import row_shape
from nkilite.schedule.schedule import Schedule
from nkilite.schedule.tree import Dim, Group, Loop, Op, Place, Register, Strip, Tree, Use

_LONGEST = 8  # matmuls of a group: operands of more leave the cache before they are used again


class GroupMatmuls:
    """Make groups of consecutive matmuls onto the same view, of operands in panels, all but the first accumulating.

    Those on their own too, if something follows them.
    """

    def run(self, schedule: Schedule) -> Schedule:
        program = schedule.program
        groups: list[Group] = []
        trees: dict[tuple[object, ...], Tree] = {}
        epilogues: Epilogues | None = None
        starts = program.starts()
        products = [product_of(s) for s in program.signatures]
        written = [[o.word for o in s.operands if o.writes] for s in program.signatures]
        for first, end, product in _runs(schedule, products):
            found = Epilogue()
            if epilogues is None and knobs.fuse():
                epilogues = Epilogues(schedule, products)
            if epilogues is not None and product.dense:
                found = epilogues.of(first, end)
            size = end - first + len(found.values)
            by_rows = epilogues is not None and _by_rows(schedule, product, written, starts[first : first + size + 1])
            if size > 1 or by_rows:
                key = tuple(program.code[at] for at in starts[first : first + size]), found[:-1], by_rows
                if key not in trees:
                    signatures = [program.signatures[id] for id in key[0]]
                    trees[key] = _tree(signatures, product, found, by_rows)
                groups.append(Group(first, size, trees[key], found.private))
        schedule.groups = sorted([*schedule.groups, *groups])
        return schedule


def _tree(signatures: Sequence[Signature], product: Product, found: Epilogue, by_rows: bool) -> Tree:
    """How matmuls and what follows them run: columns, or rows, of the sums at a time, which threads share."""
    count, values = len(signatures) - len(found.values), found.values
    rows, columns = product.dst.type.shape[0], product.dst.type.free_size
    places: dict[tuple[int, int], Place] = dict.fromkeys(found.strip, Strip())
    places.update(dict.fromkeys(found.registers, Register()))
    ops = [
        Op(m, tuple(Use(places.get((m, i))) for i in range(len(s.operands)))) for m, s in enumerate(signatures)
    ]
    # Members that have no elements in common are better off one after another.
    together = sum(len(set(own)) for own in values) > len(set().union(*values))
    steps = tuple(Step(m, None, (), own) for m, own in enumerate(values, count))
    nodes = nested(ops, [ColumnLoop(count, len(ops), columns, steps)] if together else [])
    body = Loop(Dim.terms, count, nodes[:count]), *nodes[count:]
    loop = Loop(Dim.rows, rows, body, WIDTH, 1) if by_rows else Loop(Dim.columns, columns, body, parallel=1)
    return Tree((), (loop,))


def _by_rows(
    schedule: Schedule, product: Product, written: Sequence[Sequence[int]], starts: Sequence[int]
) -> bool:
    """Whether threads should share rows of a group's result, that of the instructions at `starts` but the last.

    `written` has the words of what signatures write.

    So they do where the next instruction takes the sums up by row. Else they share the longer side, for each reads all
    of the other one.
    """
    rows, columns = product.dst.type.shape[0], product.dst.type.free_size
    if rows % WIDTH or rows == WIDTH or columns < WIDTH:
        return False
    program = schedule.program
    code, last, panels = program.code, starts[-1], schedule.panels
    for start in starts[:-1]:
        for word in written[code[start]]:
            if code[start + word] in panels:
                return False  # these panels are filled by columns
    if rows >= columns:
        return True
    if len(starts) == 1:
        return False
    signature = program.signatures[code[last]]
    return row_shape(signature) is not None and any(
        o.reads and code[last + o.word] == code[starts[0] + product.dst.word] for o in signature.operands
    )


def _runs(schedule: Schedule, products: Sequence[Product | None]) -> Iterator[tuple[int, int, Product]]:
    """First and end of matmuls that add up, and what is known of the first."""
    program = schedule.program
    columns = Columns.of(program)
    packed = [b for b, feed in schedule.panels.items() if feed not in (Feed.pairs, Feed.odd)]
    in_panels = BufferColumns.of(program).chosen(packed)
    kinds: dict[tuple[object, ...], int] = {}
    found: list[np.ndarray] = []
    for signature, rows, starts in columns.uses():
        product = products[signature.id]
        if product is not None:
            kind = kinds.setdefault(product.kinds, len(kinds))
            dst, left, right = (columns.code[starts + word] for word in (product.dst.word, product.left, product.right))
            offset = columns.code[starts + product.dst.word + 1]
            facts = rows, dst, offset, np.full(len(rows), kind), np.full(len(rows), product.joins)
            found.append(np.stack(facts)[:, in_panels[left] & in_panels[right]])
    if not found:
        return
    together = np.concatenate(found, axis=1)
    rows, *same, adds = together[:, np.argsort(together[0])]
    goes_on = (np.diff(rows) == 1) & (adds[1:] == 1)
    for fact in same:
        goes_on &= fact[1:] == fact[:-1]
    begins = np.flatnonzero(np.append(True, ~goes_on)).tolist() if len(rows) else []
    for begin, end in pairwise([*begins, len(rows)]):
        for at in range(begin, end, _LONGEST):
            first = int(rows[at])
            product = products[columns.ids[first]]
            assert product is not None
            yield first, first + min(_LONGEST, end - at), product
