"""Numbers that code is written for without knowing them: it is right for all that answer the questions it has asked.

A `Size` stands for an integer in code being written. Arithmetic with it gives other sizes; what compares it, or needs
to know it, asks a question, and the answer is noted. So the record of a writer is a `Form`: the arithmetic, the
questions with their answers, and the sizes that the code takes as arguments. Any numbers with the same answers lead a
writer the same way; they share the code, and differ in its arguments.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    _Integer = int  # it stands where there would be one
else:
    _Integer = object

_ARITHMETIC: tuple[Callable[[int, int], int], ...] = (
    operator.add, operator.sub, operator.mul, operator.floordiv, operator.mod, operator.and_, operator.lt, operator.eq,
)
_ADD, _SUBTRACT, _MULTIPLY, _DIVIDE, _REMAINDER, _AND, _LESS, _EQUAL = range(len(_ARITHMETIC))
_ASKED = len(_ARITHMETIC)


class Form(NamedTuple):
    """What code that was written for sizes depends on.

    Attributes:
        constants: numbers that the writer has put in.
        steps: [operation, one, other] in the order they were made: sizes are numbered, those given first, then the
            constants, then the result of every arithmetic step. The last operation asks whether a size is a constant.
        arguments: the sizes that the code takes.
    """

    constants: tuple[int, ...]
    steps: tuple[tuple[int, int, int], ...]
    arguments: tuple[int, ...]

    def fit(self, given: Sequence[int]) -> list[int] | None:
        """The arguments of the code for other numbers; None if it is not right for them."""
        values = [*given, *self.constants]
        add = values.append
        for operation, one, other in self.steps:
            if operation == _ASKED:
                if values[one] != values[other]:
                    return None
            else:
                add(_ARITHMETIC[operation](values[one], values[other]))
        return [values[number] for number in self.arguments]


class Sizes:
    """The record of a writer."""

    def __init__(self, given: Sequence[int]) -> None:
        self._given = len(given)
        self._steps: list[tuple[int, Size, Size]] = []
        self._made: dict[tuple[int, int, int], Size] = {}
        self._constants: dict[int, Size] = {}
        self._asked: set[int] = set()
        self._arguments: dict[int, tuple[int, int]] = {}  # their places and values, by number
        self._count = 0
        self._closed = False
        self.given = tuple(self._size(value) for value in given)

    def _size(self, value: int) -> Size:
        self._count += 1
        return Size(self, self._count - 1, value)

    def constant(self, value: int) -> Size:
        found = self._constants.get(value)
        if found is None:
            found = self._constants[value] = self._size(value)
        return found

    def made(self, operation: int, one: Size, other: Size) -> Size:
        assert not self._closed, "the code is complete: nothing may have kept a size"
        key = operation, one.number, other.number
        found = self._made.get(key)
        if found is None:
            found = self._made[key] = self._size(int(_ARITHMETIC[operation](one.value, other.value)))
            self._steps.append((operation, one, other))
        return found

    def ask(self, size: Size) -> int:
        """What a size is: the code is right for no other."""
        if size.number not in self._asked:
            assert not self._closed, "the code is complete: nothing may have kept a size"
            self._asked.add(size.number)
            self._steps.append((_ASKED, size, self.constant(size.value)))
        return size.value

    def argument(self, size: Size) -> int:
        """The place of a size among the arguments of the code."""
        return self._arguments.setdefault(size.number, (len(self._arguments), size.value))[0]

    @property
    def arguments(self) -> list[int]:
        """Their values here."""
        return [value for _, value in self._arguments.values()]

    def form(self) -> Form:
        """What the code depends on, complete."""
        self._closed = True
        first = (*self.given, *self._constants.values())
        order = {size.number: place for place, size in enumerate(first)}
        steps = []
        for operation, one, other in self._steps:
            steps.append((operation, order[one.number], order[other.number]))
            if operation != _ASKED:
                order[self._made[operation, one.number, other.number].number] = len(order)
        return Form(tuple(self._constants), tuple(steps), tuple(order[number] for number in self._arguments))


def unknown(numbers: Iterable[object]) -> bool:
    """Whether some of them are sizes, so that what is made of them is for one writer."""
    return Size in map(type, numbers)


class Size(_Integer):
    """A number that is not known; see above. Nothing that outlives the writer may keep one."""

    __slots__ = ("number", "sizes", "value")

    def __init__(self, sizes: Sizes, number: int, value: int) -> None:
        self.sizes, self.number, self.value = sizes, number, value

    def _with(self, operation: int, other: int, turned: bool = False) -> Size:
        if type(other) is not Size:
            if not isinstance(other, int):
                return NotImplemented
            other = self.sizes.constant(int(other))
        one, other = (other, self) if turned else (self, other)
        return self.sizes.made(operation, one, other)

    def __add__(self, other: int) -> Size:
        return self if type(other) is int and other == 0 else self._with(_ADD, other)

    def __radd__(self, other: int) -> Size:
        return self if type(other) is int and other == 0 else self._with(_ADD, other, True)

    def __sub__(self, other: int) -> Size:
        return self._with(_SUBTRACT, other)

    def __rsub__(self, other: int) -> Size:
        return self._with(_SUBTRACT, other, True)

    def __mul__(self, other: int) -> Size:
        return self if type(other) is int and other == 1 else self._with(_MULTIPLY, other)

    def __rmul__(self, other: int) -> Size:
        return self if type(other) is int and other == 1 else self._with(_MULTIPLY, other, True)

    def __floordiv__(self, other: int) -> Size:
        return self if type(other) is int and other == 1 else self._with(_DIVIDE, other)

    def __rfloordiv__(self, other: int) -> Size:
        return self._with(_DIVIDE, other, True)

    def __mod__(self, other: int) -> Size:
        return self._with(_REMAINDER, other)

    def __rmod__(self, other: int) -> Size:
        return self._with(_REMAINDER, other, True)

    def __divmod__(self, other: int) -> tuple[Size, Size]:
        return self // other, self % other

    def __rdivmod__(self, other: int) -> tuple[Size, Size]:
        return other // self, other % self

    def __and__(self, other: int) -> Size:
        return self._with(_AND, other)

    def __neg__(self) -> Size:
        return 0 - self

    def __pos__(self) -> Size:
        return self

    def _asked(self, operation: int, other: int, turned: bool = False) -> bool:
        found = self._with(operation, other, turned)
        return bool(self.sizes.ask(found)) if type(found) is Size else found  # type: ignore[return-value]

    def __eq__(self, other: object) -> bool:
        return self._asked(_EQUAL, other) is True  # type: ignore[arg-type]

    def __ne__(self, other: object) -> bool:
        return not self == other

    def __lt__(self, other: int) -> bool:
        return self._asked(_LESS, other)

    def __gt__(self, other: int) -> bool:
        return self._asked(_LESS, other, True)

    def __le__(self, other: int) -> bool:
        return not self._asked(_LESS, other, True)

    def __ge__(self, other: int) -> bool:
        return not self._asked(_LESS, other)

    def __bool__(self) -> bool:
        return self != 0

    def __index__(self) -> int:
        return self.sizes.ask(self)

    __int__ = __index__

    def __hash__(self) -> int:
        return hash(int(self))

    def __getattr__(self, name: str) -> object:
        if not hasattr(int, name):
            raise AttributeError(name)
        return getattr(int(self), name)

    def __str__(self) -> str:
        return str(int(self))

    def __format__(self, spec: str) -> str:
        return format(int(self), spec)

    def __repr__(self) -> str:
        return f"Size({self.value})"


def _known(name: str) -> Callable[..., object]:
    """An operation of the number itself, which has to be known for it."""

    def operation(size: Size, *others: object) -> object:
        return getattr(int(size), name)(*others)

    operation.__name__ = name
    return operation


for _name in dir(int):  # all others that an integer has
    if _name.startswith("__") and _name not in vars(Size) and not hasattr(object, _name):
        setattr(Size, _name, _known(_name))
