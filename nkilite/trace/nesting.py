"""The loops of the kernel being built: where they begin and end in the instruction table, and how they nest."""

from __future__ import annotations


class Nesting:
    """Loops by number, which counts their beginnings.

    Attributes:
        innermost: number of the innermost open loop, or None outside of loops.
    """

    __slots__ = ("_begins", "_ends", "_parents", "innermost")

    def __init__(self) -> None:
        self.innermost: int | None = None
        self._begins: list[int] = []
        self._ends: list[int | None] = []
        self._parents: list[int | None] = []

    def __len__(self) -> int:
        return len(self._begins)

    def begin(self, index: int) -> None:
        """Instruction `index` has begun a loop."""
        self._begins.append(index)
        self._ends.append(None)
        self._parents.append(self.innermost)
        self.innermost = len(self) - 1

    def end(self, index: int) -> None:
        """Instruction `index` has ended the innermost loop."""
        assert self.innermost is not None
        self._ends[self.innermost] = index
        self.innermost = self._parents[self.innermost]

    def rewind(self, count: int, innermost: int | None) -> None:
        """Forget the loops after the first `count`."""
        del self._begins[count:], self._ends[count:], self._parents[count:]
        self.innermost = innermost

    def around(self, index: int) -> list[int]:
        """The loops whose body an instruction belongs to, innermost first."""
        return [n for n in range(len(self) - 1, -1, -1) if self._begins[n] < index and not self._ended(n, index)]

    def _ended(self, number: int, index: int) -> bool:
        end = self._ends[number]
        return end is not None and end < index
