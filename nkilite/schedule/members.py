"""The members of a group, for who checks its tree."""

from __future__ import annotations

from collections.abc import Hashable, Sequence

from nkilite.errors import IrError
from nkilite.schedule.rows import Rows
from nkilite.schedule.schedule import Schedule
from nkilite.schedule.tree import Group


class Members:
    """The members of one group.

    Attributes:
        starts: their word positions.
        memory: of every member, (buffer, byte offset) of its operands.
        private: buffers that the group keeps to itself.
    """

    def __init__(self, schedule: Schedule, group: Group, starts: Sequence[int], rows: Rows, where: str) -> None:
        code = schedule.program.code
        self.schedule, self.program, self.group, self._where = schedule, schedule.program, group, where
        self.starts, self.rows = starts, rows
        self.signatures = [self.program.signatures[code[start]] for start in starts]
        self.memory = [
            [(code[start + o.word], code[start + o.word + 1]) for o in signature.operands]
            for signature, start in zip(self.signatures, starts, strict=True)
        ]
        self.private = frozenset(group.private)

    @property
    def pattern(self) -> Hashable:
        """Equal for groups that are right or wrong alike."""
        memory = tuple(pair for pairs in self.memory for pair in pairs)
        return self.group.tree, self.group.private, tuple(s.id for s in self.signatures), memory

    def fail(self, problem: str) -> IrError:
        """The error for something that is wrong with the group."""
        group, program = self.group, self.program
        line = program.locations[program.code[self.starts[0] + 1]]
        return IrError(f"group of {group.size} from instruction {group.first}: {problem}{self._where}", location=line)

    def need(self, holds: bool, problem: str) -> None:
        if not holds:
            raise self.fail(problem)

    def name(self, member: int, position: int) -> str:
        """An operand, for messages."""
        operand, (buffer, _) = self.signatures[member].operands[position], self.memory[member][position]
        return f"{operand.name} ({self.program.buffers[buffer].label}) of member {member}"
