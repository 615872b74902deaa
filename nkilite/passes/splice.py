"""Replace instructions of a program by runs of instructions, keeping names and dependencies."""

from __future__ import annotations

from array import array

from nkilite.ir.program import Program


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
