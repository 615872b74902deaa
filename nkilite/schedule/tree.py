"""Groups, and the trees that say how a CPU runs them.

A group is some consecutive instructions, its *members*, that are compiled to one micro-kernel and run as one entry of
the native table; instructions in no group run on their own. Its tree is made of loops, operations and moves:

    for rows 128 by 4 parallel 1 {        four partitions at a time go through all that follows
      0 dma_copy(dst=nowhere) elided      a load that need not be made: who needs it reads where it would have read
      1 tensor_reduce(data=source 0 + 0 prefetch 0..8)
      for columns 512 {                   a few columns at a time go through these in registers
        2 tensor_scalar(dst=#0 register, data=#1 source 0 + 0, operand0=#2)
        3 dma_copy(dst=#3 nontemporal, src=#0 register)
      }
    }

Passes make trees, the verifier checks them, the text form has all of them (nkilite/schedule/printer.py), and the
emitter walks them (nkilite/codegen/group.py). Two groups of the same signatures on the same row pitches share a
micro-kernel if their trees are equal. So a tree says everything else that the code depends on, such as which operands
are the same memory, and names no buffer.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import Enum
from typing import NamedTuple

PARTS = 8  # of an operand's row that is fetched ahead


class Group(NamedTuple):
    """Instructions `first` to `first + size - 1` of a program.

    Attributes:
        tree: how they run.
        private: ids of buffers that need no memory, for the group keeps what they hold to itself.
    """

    first: int
    size: int
    tree: Tree
    private: tuple[int, ...] = ()


@dataclass(frozen=True)
class Scratch:
    """In the group's own memory, which has the rows of one step of the loop over rows and serves all steps.

    Attributes:
        slot: which of the tree's `scratch`.
        byte: where in a row of the slot the operand's row begins.
    """

    slot: int
    byte: int


@dataclass(frozen=True)
class Source:
    """Where a DMA load of the group, which is elided, would have read it from.

    Attributes:
        member: the load.
        byte: where in a row of the load's source the operand's row begins.
    """

    member: int
    byte: int


@dataclass(frozen=True)
class Register:
    """In registers alone: made and used up in one loop over columns."""


@dataclass(frozen=True)
class Strip:
    """In the group's own memory, a few columns at a time: the sums that only the epilogue needs."""


@dataclass(frozen=True)
class Nowhere:
    """Not there: its operation is elided."""


Place = Scratch | Source | Register | Strip | Nowhere


@dataclass(frozen=True)
class Prefetch:
    """While an operand is read, a part of its rows of the next step is fetched.

    Attributes:
        first, parts: which of the `PARTS` of what is read of a row.
        byte: so many bytes after that.
    """

    first: int = 0
    parts: int = PARTS
    byte: int = 0


@dataclass(frozen=True)
class Use:
    """An operand of an operation.

    Attributes:
        place: None is where its buffer is.
        value: in a loop over columns, a number: equal numbers are the same elements.
        prefetch: what is fetched while it is read.
        nontemporal: it is stored past the caches.
        unread: what is written is not read.
    """

    place: Place | None = None
    value: int | None = None
    prefetch: Prefetch | None = None
    nontemporal: bool = False
    unread: bool = False


class Slice(NamedTuple):
    """Some columns of a member: of every `of` runs of `run` columns, the one with an index."""

    of: int
    run: int
    index: int  # type: ignore[assignment]  # tuple.index is of no use here


@dataclass(frozen=True)
class Op:
    """A member on what the loops around it leave of its operands.

    Attributes:
        uses: of every tensor operand, in the order of the signature.
        elided: it does nothing: what it writes is not read, not where it writes it, or there already.
        slice: the columns it works on in a loop over columns, which other operations of the member complete; None for
            all.
    """

    member: int
    uses: tuple[Use, ...]
    elided: bool = False
    slice: Slice | None = None


class Dim(Enum):
    """What a loop runs over."""

    rows = "rows"  # of what is written: partitions, or rows in HBM
    columns = "columns"  # elements of a row
    terms = "terms"  # of a sum: its members add up in one place


@dataclass(frozen=True)
class Loop:
    """A loop.

    Attributes:
        extent: all positions of the dimension.
        step: positions of it at a time; 0 for as many as suit the registers of the CPU.
        parallel: threads share the loop, and so many steps stay together; 0 if it runs on one thread.
        beside: the loop works on the step before, while that member works on this one; None if it waits for its turn.
    """

    dim: Dim
    extent: int
    body: tuple[Node, ...]
    step: int = 0
    parallel: int = 0
    beside: int | None = None

    @property
    def terms(self) -> Loop | None:
        """The loop over terms of a sum that it begins with, if it does."""
        first = self.body[0]
        return first if isinstance(first, Loop) and first.dim is Dim.terms else None


class Spot(NamedTuple):
    """A place in the buffer that a member reads or writes: so far from where its own operand begins."""

    member: int
    partitions: int  # 0 off chip
    bytes: int


class Steps(NamedTuple):
    """A loop over elements: trips, and (partitions, bytes) from one to the next in either buffer."""

    count: int  # type: ignore[assignment]  # tuple.count is of no use here
    to: tuple[int, int]
    origin: tuple[int, int]


@dataclass(frozen=True)
class Move:
    """Elements that keep their bits on the way from one buffer to another.

    Attributes:
        loops: in no particular order, as few as possible.
        nontemporal: the target is large and not read, and is stored past the caches.
    """

    to: Spot
    origin: Spot
    loops: tuple[Steps, ...]
    nontemporal: bool


Node = Loop | Op | Move


@dataclass(frozen=True)
class Tree:
    """How the members of a group run.

    Attributes:
        scratch: row pitches, in bytes, of the group's own memory.
        body: one loop, or operations that are all elided and the moves in their place. In a loop that begins with
            terms the other operations (an epilogue) take their sums.
    """

    scratch: tuple[int, ...]
    body: tuple[Node, ...]

    def __post_init__(self) -> None:
        object.__setattr__(self, "_hash", hash((self.scratch, self.body)))  # long to find, and asked for often

    def __hash__(self) -> int:
        found: int = self._hash  # type: ignore[attr-defined]
        return found

    @property
    def loop(self) -> Loop:
        """The loop around everything, where there are no moves."""
        (loop,) = self.body
        assert isinstance(loop, Loop)
        return loop

    @property
    def moves(self) -> tuple[Move, ...]:
        return tuple(node for node in self.body if isinstance(node, Move))

    @property
    def ops(self) -> tuple[Op, ...]:
        """Of every member, in one or more slices."""
        return tuple(operations(self.body))

    @property
    def members(self) -> tuple[Op, ...]:
        """One of every member: its only one, or its first slice."""
        return tuple(op for op in operations(self.body) if op.slice is None or not op.slice.index)

    @property
    def terms(self) -> tuple[Op, ...]:
        """The matmuls that add up in one view; they come first, if there are any."""
        found = self.body[0].terms if isinstance(self.body[0], Loop) else None
        return () if found is None else tuple(operations(found.body))


def operations(nodes: Iterable[Node]) -> Iterator[Op]:
    """All operations of some nodes, in order."""
    for node in nodes:
        if isinstance(node, Op):
            yield node
        elif isinstance(node, Loop):
            yield from operations(node.body)


def column_loops(loop: Loop) -> list[Loop]:
    """The loops over columns in a loop over rows."""
    return [node for node in loop.body if isinstance(node, Loop)]
