"""Instructions that passes make, and runs of them that replace others, which keep names and dependencies."""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from typing import NamedTuple

from nkilite.ir.definition import REGISTRY
from nkilite.ir.program import IMMEDIATE, Program
from nkilite.ir.types import Buffer, ViewType


class View(NamedTuple):
    """A tensor of an instruction: its type, and its words: a buffer and an offset, and those of its index."""

    type: ViewType
    words: Sequence[int]

    @classmethod
    def columns(cls, buffer: Buffer, rows: int, first: int, count: int) -> View:
        """Some columns of the first rows of a tile of two dimensions."""
        kind = ViewType.of(buffer.region, buffer.dtype, (rows, count), buffer.type.strides)
        return cls(kind, (buffer.id, first * buffer.dtype.itemsize))


def assemble(program: Program, name: str, where: int, **given: object) -> list[int]:
    """The words of an instruction at a location.

    Args:
        given: its arguments: `View`s for tensors, floats for immediates, others as they are; or defaults.
    """
    definition = REGISTRY[name]
    arguments, words = {p.name: given.get(p.name, p.default) for p in definition.parameters}, [0, where]
    for parameter, value in arguments.items():
        if isinstance(value, View):
            arguments[parameter] = value.type
            words += value.words
        elif isinstance(value, float):
            arguments[parameter] = IMMEDIATE
            words.append(program.constant_id(value))
    words[0] = program.signature(definition, arguments).id
    return words


def splice(program: Program, runs: dict[int, list[int]]) -> None:
    """Put other words in the place of instructions.

    Args:
        runs: by the word position of an instruction, the words of one or more instructions; the last of them
            stands for the replaced one (it may be a copy of it) and inherits its name and dependencies.
    """
    if not runs:
        return
    code, new = program.code, array("q")
    widths = [s.n_words for s in program.signatures]
    moved: list[int] = []  # new index of every old instruction
    start = count = copied = 0
    for _ in range(program.count):
        run = runs.get(start)
        if run is not None:
            new.extend(code[copied:start])
            new.extend(run)
            copied = start + widths[code[start]]
            at = widths[run[0]]
            while at < len(run):
                at += widths[run[at]]
                count += 1
        moved.append(count)
        start += widths[code[start]]
        count += 1
    new.extend(code[copied:])
    program.code, program.count = new, count
    program.names = {moved[i]: name for i, name in program.names.items()}
    program.dependencies = [(moved[a], moved[b]) for a, b in program.dependencies]
    program.affine = [[moved[i - 1] + 1 if i else 0 for i in bounds] for bounds in program.affine]
