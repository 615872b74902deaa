"""The instruction table as arrays, signature by signature: what passes read that look at every instruction."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from nkilite.ir.program import Program, Signature


class Columns:
    """A program's instructions grouped by signature, as they are now.

    Attributes:
        code: the words of all instructions (a copy).
        starts: the word position of every instruction.
        ids: the signature id of every instruction.
    """

    def __init__(self, program: Program) -> None:
        self._signatures = program.signatures
        self.code = np.array(program.code, np.int64)
        self.starts = np.array(program.starts(), np.int64)
        self.ids = self.code[self.starts]
        self._order = np.argsort(self.ids, kind="stable")
        self._bounds = np.searchsorted(self.ids[self._order], np.arange(len(program.signatures) + 1)).tolist()

    def rows(self, signature: int) -> np.ndarray:
        """The instructions of a signature, in program order."""
        return self._order[self._bounds[signature]:self._bounds[signature + 1]]

    def uses(self) -> Iterator[tuple[Signature, np.ndarray, np.ndarray]]:
        """Every signature in use, with its instructions and their word positions."""
        for signature in self._signatures:
            rows = self.rows(signature.id)
            if len(rows):
                yield signature, rows, self.starts[rows]
