"""What the elements of a row are combined to: vectors that take turns, folded to one element at the end.

The order depends on the number of elements and on the CPU alone. It is the same whether an instruction goes over a row
on its own or in a loop over columns, with others.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import NamedTuple

from nkilite.codegen.emitter import BITS, Emitter, Loop, Value

TURNS = 4  # what an instruction that does nothing else has: the latency of a combination at two loads per cycle

Combine = Callable[[Emitter, Value, Value], Value]


class Combination(NamedTuple):
    """How elements are combined.

    Attributes:
        combine: associative and commutative operator of lanes.
        scalar, identity: the type of lanes, and the operand that `combine` ignores.
        turns: vectors that are combined independently, which covers the latency of `combine`.
    """

    combine: Combine
    scalar: str
    identity: float
    turns: int = 1

    def only(self, e: Emitter, value: Value, inside: Value | None) -> Value:
        """A value, with what is ignored in lanes that are not inside."""
        if inside is None:
            return value
        return e.select(inside, value, self.identity)

    def together(self, e: Emitter, vectors: Sequence[Value]) -> Value:
        """Vectors combined to one lane."""
        vectors = list(vectors)
        while len(vectors) > 1:
            half = (len(vectors) + 1) // 2
            low, high = vectors[:half], vectors[half:]
            vectors = [self.combine(e, *pair) for pair in zip(low, high, strict=False)] + low[len(high) :]
        return e.fold(vectors[0], functools.partial(self.combine, e))


class Sum:
    """The vectors of one row being combined: values go to them in turn.

    Attributes:
        vectors: in the order in which their turns come.
    """

    def __init__(self, e: Emitter, what: Combination, lanes: int, vectors: Sequence[Value] = ()) -> None:
        self._e, self._what, self._lanes = e, what, lanes
        self.vectors = list(vectors) or [e.const(what.scalar, what.identity, lanes)] * what.turns
        self._taken = 0

    def take(self, value: Value) -> None:
        """Combine with a value of as many lanes, or fewer."""
        first, *others = self.vectors
        self.vectors = [*others, self._what.combine(self._e, first, self._widen(value))]
        self._taken += 1

    @contextmanager
    def inside(self, loop: Loop, trips: int) -> Iterator[None]:
        """Take values in the body of a loop; none has been taken before it."""
        at = len(loop.values)
        self.vectors = [loop.enter(vector) for vector in self.vectors]
        yield
        self.vectors = loop.leave(at, self.vectors)
        self._taken *= trips

    def result(self) -> Value:
        """Everything taken: a vector of one lane."""
        turns = self._what.turns
        turned = -self._taken % turns
        vectors = [*self.vectors[turned:], *self.vectors[:turned]][: max(1, min(self._taken, turns))]
        return self._what.together(self._e, vectors)

    def _widen(self, value: Value) -> Value:
        """Fill a value up to all lanes with what is ignored."""
        if value.lanes == self._lanes:
            return value
        fill = self._e.const(self._what.scalar, self._what.identity, value.lanes)
        return self._e.shuffle(value, fill, [min(lane, value.lanes) for lane in range(self._lanes)])


class Slots:
    """The same in code that knows no sizes: vectors are in memory, and so is whose turn it is."""

    def __init__(self, e: Emitter, what: Combination, lanes: int) -> None:
        self._e, self._what, self._lanes = e, what, lanes
        ignored = e.const(what.scalar, what.identity, lanes)
        bytes = lanes * BITS[what.scalar] // 8
        vectors = e.scratch(what.turns * bytes)
        self._places = [e.offset(vectors, turn * bytes) for turn in range(what.turns)]
        self._turn, self._bytes = e.scratch(8), bytes
        for place in self._places:
            e.store(ignored, place)
        e.store(e.i64(0), self._turn)

    def take(self, value: Value) -> None:
        """Combine with a value of as many lanes."""
        e, turn = self._e, self._e.load("i64", self._turn)
        place = e.step(self._places[0], turn, self._bytes)
        e.store(self._what.combine(e, e.load(self._what.scalar, place, self._lanes), value), place)
        e.store(e.and_(e.add(turn, 1), self._what.turns - 1), self._turn)

    def inside(self, loop: Loop, trips: int) -> AbstractContextManager[None]:
        """Take values in the body of a loop."""
        return nullcontext()

    def result(self) -> Value:
        """Everything taken: a vector of one lane."""
        e, what = self._e, self._what
        return what.together(e, [e.load(what.scalar, place, self._lanes) for place in self._places])
