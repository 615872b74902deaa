"""Access rules: which loop of an instruction each dimension of its operands runs over, and what may be done with it.

A rule is a line of text. Names in brackets are loops, one for each dimension of an operand:

    p f: dst[p f] data[p f] bias[p]                elementwise; bias has an element for each p
    m n: dst[m n] stationary[k m] moving[k n]      k is reduced, for nothing that is written has it
    p f: dst[f p] = data[p f]                      a move: dst takes the elements of data, all bits if dtypes agree
    p, f in order: dst[p f] data[p f] initial[p]   a scan along f
    p, f combined: dst[p] data[p f]                a reduction
    p f placed: dst[p f] data[p f]                 elementwise, and different at every position: a mask
    p: dst[p s] data[p f]                          all of f decides about all of s

Before the colon stand the loops of which something is known. *Parallel*: the instruction on a slice of every operand
that has the loop makes that slice of the results. *Sequential* ("in order"): what is written at a position depends on
that position, and on what is read there and before it. *Placed*: as parallel, for who knows at which positions a slice
begins. *Combined*: every position gives something, and results are all
of that under an operator of which any grouping is right; nothing that is written has the loop. Any other loop is
*whole*: all of it may be needed. Loops are *reduced* in what is written without them; a parallel loop combines there.

The last name of an operand takes all dimensions that are left, in row-major order, and dimensions that are one in a
view may have several names. `(n 4)` is a dimension with four neighbours for each n, and `1` one of a single element.
Engine registers are an operand, too, with a row per partition, of which a call uses the first. Where a view has a
runtime index, the rule holds for the elements the index chooses.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from enum import Enum
from functools import cache
from math import prod
from typing import Any, NamedTuple

from nkilite.ir.types import MemoryRegion, ViewType


class Kind(Enum):
    """What positions of a loop have to do with each other."""

    parallel = "parallel"
    sequential = "sequential"
    placed = "placed"
    combined = "combined"
    whole = "whole"


class Opaque(NamedTuple):
    """The rule of an instruction of which nothing may be assumed, and why."""

    reason: str


class Term(NamedTuple):
    """A dimension: positions of a loop, and neighbouring elements for each; no loop for a dimension of fixed size."""

    loop: str
    block: int = 1


class Rule(NamedTuple):
    """An access rule.

    Attributes:
        kinds: of the loops that are not whole.
        operands: their dimensions.
        move: the operand that takes the elements of another, and that one.
    """

    kinds: Mapping[str, Kind]
    operands: Mapping[str, tuple[Term, ...]]
    move: tuple[str, str] | None = None


_NOTHING = Rule({}, {})
_OPERAND = re.compile(r"\s*(=?)\s*(\w+)\[([^\]]*)\]")
_KIND = re.compile(r"((?:\s*\w+)*?)\s*(in order|placed|combined)?\s*")
_KINDS = {None: Kind.parallel, "in order": Kind.sequential, "placed": Kind.placed, "combined": Kind.combined}
_CUT = frozenset({Kind.parallel, Kind.placed})
_TERM = re.compile(r"\s*(?:\((\w+) (\d+)\)|(\d+)|([a-z]\w*))")


@cache
def parse(text: str) -> Rule:
    """The rule that a text states.

    Raises:
        ValueError: it is malformed, or about a loop that no operand has.
    """
    header, colon, body = text.rpartition(":")
    kinds: dict[str, Kind] = {}
    for part in header.split(",") if colon else ():
        said = _KIND.fullmatch(part)
        if said is None:
            raise ValueError(f"access rule {text!r}: {part!r}")
        kinds |= dict.fromkeys(said[1].split(), _KINDS[said[2]])
    operands: dict[str, tuple[Term, ...]] = {}
    move, at = None, 0
    while body[at:].strip():
        found = _OPERAND.match(body, at)
        if found is None or found[2] in operands or (found[1] and len(operands) != 1):
            raise ValueError(f"access rule {text!r}: {body[at:]!r}")
        if found[1]:
            move = next(iter(operands)), found[2]
        operands[found[2]] = _terms(text, found[3])
        at = found.end()
    unused = kinds.keys() - {term.loop for terms in operands.values() for term in terms}
    if unused:
        raise ValueError(f"access rule {text!r}: no operand has {', '.join(sorted(unused))}")
    return Rule(kinds, operands, move)


def _terms(text: str, dimensions: str) -> tuple[Term, ...]:
    terms, at = [], 0
    while dimensions[at:].strip():
        found = _TERM.match(dimensions, at)
        if found is None:
            raise ValueError(f"access rule {text!r}: [{dimensions}]")
        loop, block, fixed, name = found.groups()
        terms.append(Term("", int(fixed)) if fixed else Term(name) if name else Term(loop, int(block)))
        at = found.end()
    return tuple(terms)


class AccessMap:
    """An access rule on the operands of one signature.

    Attributes:
        extents: positions of every loop.
        rows: the parallel loop over dimension 0 of all that is written; what is read has it there as well, or not at
            all. None if there is no such loop.
        sweep: elements of a row, if each is worked on on its own: it depends on the same element of the operands alone,
            and on those that have one for the whole row; else 0.
        sums: what is written with one element per row, which combines what a sweep makes of every element.
        move: as in the rule.
    """

    __slots__ = ("_kinds", "_rule", "extents", "move", "rows", "sums", "sweep")

    def __init__(self, rule: Rule, kinds: Mapping[str, ViewType], written: Sequence[str]) -> None:
        """
        Args:
            kinds: the types of the operands.
            written: names of those that are written.

        Raises:
            ValueError: the rule does not fit the operands.
        """
        self._rule, self._kinds, self.move = rule, kinds, rule.move
        missing = kinds.keys() - rule.operands.keys()
        if missing and rule is not _NOTHING:
            raise ValueError(f"the access rule does not say how {', '.join(sorted(missing))} is used")
        self.extents = _extents(rule, kinds) if rule is not _NOTHING else {}
        self.rows = self._find_rows(written)
        self.sums: frozenset[str] = frozenset()
        self.sweep = self._find_sweep(written)

    @property
    def known(self) -> bool:
        """Whether anything is: not of what opaque instructions do."""
        return self._rule is not _NOTHING

    @property
    def columns(self) -> int:
        """Elements of a row that depend on the same element of the operands alone, and combine into nothing; else 0."""
        return 0 if self.sums else self.sweep

    @property
    def placed(self) -> bool:
        """Whether it needs to know at which positions a slice begins."""
        return Kind.placed in self._rule.kinds.values()

    def kind(self, loop: str) -> Kind:
        return self._rule.kinds.get(loop, Kind.whole)

    def dimensions(self, operand: str) -> tuple[Term, ...]:
        """The dimensions of an operand, as the rule names them."""
        return self._rule.operands.get(operand, ())

    def terms(self, operand: str) -> tuple[Term, ...]:
        """The dimensions of an operand that have more than one element."""
        return tuple(t for t in self.dimensions(operand) if self.extents.get(t.loop, 1) * t.block > 1)

    def runs_over(self, operand: str, loop: str) -> bool:
        return any(term.loop == loop for term in self.dimensions(operand))

    def reduced(self, written: str) -> list[str]:
        """The loops over which what goes to an operand is combined."""
        return [loop for loop, n in self.extents.items() if n > 1 and not self.runs_over(written, loop)]

    def in_place(self, written: str, read: str) -> bool:
        """Whether an operand may be the view that is written: elements are read before the same ones are written."""
        terms = self.terms(written)
        alike = terms == self.terms(read) and bool(self._rule.operands)
        return alike and all(t.loop and self.kind(t.loop) is not Kind.whole for t in terms)

    @property
    def straight(self) -> bool:
        """Whether it moves elements, and keeps their order."""
        return self.move is not None and self.terms(self.move[0]) == self.terms(self.move[1])

    @property
    def order(self) -> tuple[int, ...] | None:
        """The dimensions of what is moved, in the order in which they are written; None for a call that moves nothing.

        Nor does a call move that converts.
        """
        if self.move is None:
            return None
        target, source = self.move
        if self._kinds[target].dtype != self._kinds[source].dtype:
            return None
        if self.straight:
            return tuple(range(self._kinds[source].ndim))
        dims = self._view_dimensions(source)
        if dims is None:
            return None
        return tuple(d for term in self._rule.operands[target] for d in dims[term])

    @property
    def copies(self) -> bool:
        """Whether it moves elements, and keeps their order and their bits."""
        return self.straight and self.order is not None

    def shape(self, operand: str) -> tuple[int, ...]:
        """Elements along every dimension that the rule names."""
        return tuple(self.extents.get(t.loop, 1) * t.block for t in self.dimensions(operand))

    def _view_dimensions(self, operand: str) -> dict[Term, tuple[int, ...]] | None:
        """The dimensions of the view that each of the rule's stands for; None where one has several names."""
        terms, ndim = self._rule.operands[operand], self._kinds[operand].ndim
        if len(terms) > ndim:
            return None
        last = len(terms) - 1
        return {term: tuple(range(last, ndim)) if i == last else (i,) for i, term in enumerate(terms)}

    def _find_rows(self, written: Sequence[str]) -> str | None:
        tiles = [name for name in written if self._kinds[name].region is not MemoryRegion.registers]
        terms = self._rule.operands.get(tiles[0], ()) if tiles else ()
        if not terms or terms[0].block != 1 or self._rule.kinds.get(terms[0].loop) not in _CUT:
            return None
        rows = terms[0].loop
        for name, kind in self._kinds.items():
            own = self._rule.operands[name]
            if not self.runs_over(name, rows):
                if name in written:
                    return None
            elif own[0] != terms[0] or (
                kind.region is not MemoryRegion.registers and kind.shape[0] != self.extents[rows]
            ):
                return None
        return rows

    def _find_sweep(self, written: Sequence[str]) -> int:
        if self.rows is None:
            return 0
        free = {name: self._free(name) for name in self._kinds}
        own = max(free.values(), key=len)
        kinds = {self.kind(term.loop) for term in own}
        if not kinds <= {*_CUT, Kind.combined} or any(term.block != 1 for term in own):
            return 0
        if any(terms not in (own, ()) for terms in free.values()):
            return 0
        self.sums = frozenset(name for name in written if free[name] != own)
        if not self.sums and Kind.combined in self._rule.kinds.values():
            return 0  # one element is combined with nothing: its code takes no part in a loop over columns
        return prod(self.extents[term.loop] for term in own)

    def _free(self, operand: str) -> tuple[Term, ...]:
        return tuple(term for term in self.terms(operand) if term.loop != self.rows)


def resolve(stated: str | Opaque | None, kinds: Mapping[str, ViewType], written: Sequence[str]) -> AccessMap:
    """The map of a call, given what its rule states."""
    return AccessMap(parse(stated) if isinstance(stated, str) else _NOTHING, kinds, written)


def _extents(rule: Rule, kinds: Mapping[str, ViewType]) -> dict[str, int]:
    """Positions of the loops, by what the operands that have a dimension for each name say, and then the others."""
    found: dict[str, int] = {}
    tiles = [(rule.operands[n], k) for n, k in kinds.items() if k.region is not MemoryRegion.registers]
    for terms, kind in sorted(tiles, key=lambda tile: len(tile[0]) > tile[1].ndim):
        whole = min(len(terms), kind.ndim) - 1  # dimensions with a name each, before the last
        for term, size in zip(terms[:whole], kind.shape, strict=False):
            _settle(found, [term], size)
        _settle(found, terms[max(whole, 0):], prod(kind.shape[max(whole, 0):]))
    return found


def _settle(found: dict[str, int], terms: Sequence[Term], size: int) -> None:
    """Take note of the loops that run over so many elements; of several unknown ones the first takes all."""
    known = prod(found.get(term.loop, 1) * term.block for term in terms)
    for term in terms:
        if term.loop and term.loop not in found:
            found[term.loop] = size // max(known, 1)
            known *= max(found[term.loop], 1)
    if prod(found.get(term.loop, 1) * term.block for term in terms) != size:
        names = " ".join(f"{t.loop}={found.get(t.loop, 1)}" for t in terms)
        raise ValueError(f"the access rule has {names} where an operand has {size}")


def by_rows(elementwise: bool) -> Callable[..., str | Opaque]:
    """The rule of instructions that work on each row on its own, read off the sizes of the operands of a call.

    Args:
        elementwise: on each element of a row, too; operands with one element per row are used for all of it.
    """

    def rule(call: Any) -> str | Opaque:
        kinds = {name: kind for name, kind in call.arguments.items() if isinstance(kind, ViewType)}
        tiles = {n: k for n, k in kinds.items() if k.region is not MemoryRegion.registers}
        if len({k.shape[0] for k in tiles.values()}) != 1:
            return Opaque("operands have different rows")
        columns = {k.free_size for k in tiles.values()} - {1}
        if len(columns) > 1 or not elementwise:
            return "p: " + " ".join(f"{name}[p {name}_free]" for name in kinds)
        terms = {n: "p f" if n in tiles and k.free_size > 1 else "p" for n, k in kinds.items()}
        return ("p f: " if columns else "p: ") + " ".join(f"{name}[{own}]" for name, own in terms.items())

    return rule
