"""The epilogue of matmuls: elementwise instructions after them that take their sums, a few columns at a time."""

from __future__ import annotations

from collections.abc import Collection, Hashable, Sequence
from itertools import chain
from typing import NamedTuple

import numpy as np

from nkilite.ir.columns import Columns
from nkilite.ir.program import Operand
from nkilite.schedule.column_loops import made_before_used, numbered
from nkilite.schedule.lives import Own
from nkilite.schedule.patterns import Patterns
from nkilite.schedule.product import Product
from nkilite.schedule.rows import Access, Rows, elements, in_order, view_shape
from nkilite.schedule.schedule import Schedule
from nkilite.schedule.strips import strip_shape

_MOST = 4  # their code is written for strips of several widths
_FAR = 15  # instructions: more than a group has


class Epilogue(NamedTuple):
    """What follows some matmuls; members are counted from the first of these.

    Attributes:
        values: of every member of it and every operand, a number: equal ones are the same elements.
        strip: (member, operand) pairs that are what the matmuls write, if only the group needs it; else empty.
        registers: (member, operand) pairs that are used in the epilogue alone, and made there.
        private: the buffers of the two, which need no memory.
    """

    values: tuple[tuple[int, ...], ...] = ()
    strip: tuple[tuple[int, int], ...] = ()
    registers: tuple[tuple[int, int], ...] = ()
    private: tuple[int, ...] = ()


class Epilogues:
    """Looks for epilogues in a program: once for all groups of instructions that are alike."""

    def __init__(self, schedule: Schedule, products: Sequence[Product | None]) -> None:
        """`products` are those of the program's signatures."""
        self._schedule, self._program = schedule, schedule.program
        self._rows, self._own = Rows(schedule), Own(self._program)
        self._starts = self._program.starts()
        self._shapes = [
            strip_shape(s) if product is None else None
            for s, product in zip(self._program.signatures, products, strict=True)
        ]
        self._products = products
        self._patterns = Patterns(schedule, [
            (product.dst.word, product.left, product.right) if product else [o.word for o in shape.operands] if shape
            else () for product, shape in zip(products, self._shapes, strict=True)
        ])
        self._ids = Columns.of(self._program).ids
        self._fates = self._lives()
        self._known: dict[Hashable, tuple[Epilogue, list[int]]] = {}

    def _lives(self) -> np.ndarray:
        """For every access, how long its buffer has been used and will be, if instructions can keep it; a byte."""
        touched, at = self._patterns.touched, self._patterns.instruction
        first, last = self._own.first[touched], self._own.last[touched]
        since = np.where(first < 0, _FAR, np.minimum(at - first, _FAR))
        lives: np.ndarray = (since << 4 | np.minimum(last - at, _FAR)).astype(np.uint8)
        return lives

    def of(self, first: int, end: int) -> Epilogue:
        """The epilogue of matmuls onto the same view, given by their positions."""
        ids, last = self._ids, end
        while last < min(end + _MOST, len(ids)) and self._shapes[ids[last]] is not None:
            last += 1
        where = self._patterns.accesses(first, last - first)
        pattern = self._patterns.of(first, last - first)
        key = end - first, ids[first:last].tobytes(), pattern, self._fates[where].tobytes()
        touched = self._patterns.touched[where]
        if key not in self._known:
            found = self._found(first, end)
            self._known[key] = found, [touched.tolist().index(buffer) for buffer in found.private]
        found, places = self._known[key]
        return found._replace(private=tuple(touched[places].tolist())) if places else found

    def _found(self, first: int, end: int) -> Epilogue:
        code, matmuls = self._program.code, self._starts[first:end]
        count, signature = end - first, self._program.signatures[code[matmuls[0]]]
        product = self._products[signature.id]
        assert product is not None
        dst, sources = product.dst, {code[at + word] for at in matmuls for word in (product.left, product.right)}
        shape = view_shape(signature, dst.name)
        (target,) = self._rows.accesses(shape, 0, matmuls[0])
        taken: list[tuple[Access, ...]] = []
        made = {elements(target)}
        last = 0  # those after it have nothing to do with the sums
        for start in self._starts[end : end + _MOST]:
            strip = self._shapes[code[start]]
            if strip is None or strip.rows != shape.rows:
                break
            accesses = tuple(self._rows.accesses(strip, count + len(taken), start))
            operands = self._program.signatures[code[start]].operands
            if not self._takes(operands, accesses, dst, [target, *chain(*taken)], sources):
                break
            taken.append(accesses)
            if any(elements(a) in made for a in accesses if a.operand.reads):
                made.update(elements(a) for a in accesses if a.operand.writes)
                last = len(taken)
        del taken[last:]
        end += last
        uses: dict[int, list[Access]] = {}
        for access in chain(*taken):
            uses.setdefault(access.buffer, []).append(access)
        sums = uses.pop(target.buffer, [])
        mine = self._own.by(target.buffer, first, end) and all(elements(a) == elements(target) for a in sums)
        strips = not product.accumulates and last > 0 and mine and not any(a.operand.writes for a in sums)
        held = [
            buffer for buffer, accesses in uses.items()
            if last > 1 and self._own.by(buffer, first + count, end)
            and made_before_used([(a.member, a) for a in accesses])
        ]
        terms = ((m, target.operand.operand) for m in range(count))
        return Epilogue(
            numbered(taken), (*terms, *((a.member, a.operand.operand) for a in sums)) if strips else (),
            tuple((a.member, a.operand.operand) for buffer in held for a in uses[buffer]),
            (*([target.buffer] if strips else []), *held),
        )

    def _takes(
        self, operands: Sequence[Operand], accesses: Sequence[Access], dst: Operand, known: Sequence[Access],
        sources: Collection[int],
    ) -> bool:
        """Whether columns of an instruction meet the same columns of the matmuls and of other members alone."""
        columns, target = dst.type.free_size, elements(known[0])
        for operand, access in zip(operands, accesses, strict=True):
            if access.buffer in sources or operand.type.free_size not in (1, columns):
                return False
            if operand.writes and (operand.type.free_size == 1 or access.buffer in self._schedule.broadcast):
                return False
            if elements(access) == target and operand.type.dtype != dst.type.dtype:
                return False
        return all(in_order(access, other, dst.type.shape[0], True) for access in accesses for other in known)
