"""What repeated runs of instructions have in common: the same instructions, on buffers that are related alike."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from operator import sub

from nkilite.ir.program import Program
from nkilite.passes.rows import Rows, RowShape


class Patterns:
    """Finds the patterns of runs in the words of a program.

    Runs of the same pattern touch memory alike: what may be done with the rows of one may be done with another's.
    """

    def __init__(self, program: Program, rows: Rows, shapes: Sequence[RowShape | None]) -> None:
        self._code = program.code
        self._widths = [s.n_words for s in program.signatures]
        self._shapes = shapes
        kinds: dict[Hashable, int] = {}
        facts = [(rows.fact(b.id), b.id in program.panels) for b in program.buffers]
        self._kinds = [kinds.setdefault(fact, len(kinds)) for fact in facts]
        # Only differences of offsets matter, but for partitions and where buffers may be the same memory.
        self._movable = [rows.apart(b.id) and not b.region.on_chip for b in program.buffers]
        self._positions: dict[tuple[int, ...], list[int]] = {}

    def of(self, signatures: tuple[int, ...], start: int) -> tuple[tuple[int, ...], Hashable]:
        """The buffers that instructions from a word position on touch, as they are met first, and the pattern."""
        positions = self._positions.get(signatures)
        if positions is None:
            positions = self._positions[signatures] = self._operands(signatures)
        code = self._code
        touched = [code[start + at] for at in positions]
        offsets = [code[start + at + 1] for at in positions]
        bases: dict[int, int] = {}
        for buffer, offset in zip(touched, offsets, strict=True):
            if buffer not in bases:
                bases[buffer] = offset if self._movable[buffer] else 0
        numbers = {buffer: number for number, buffer in enumerate(bases)}
        pattern = (
            signatures, tuple(map(numbers.__getitem__, touched)),
            tuple(map(sub, offsets, map(bases.__getitem__, touched))), tuple(map(self._kinds.__getitem__, bases)),
        )
        return tuple(bases), pattern

    def _operands(self, signatures: tuple[int, ...]) -> list[int]:
        """Words of the operands of consecutive instructions, from the first one's on."""
        positions = []
        start = 0
        for signature in signatures:
            shape = self._shapes[signature]
            assert shape is not None
            positions += [start + operand.word for operand in shape.operands]
            start += self._widths[signature]
        return positions
