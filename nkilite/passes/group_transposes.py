"""Group transposes with the copy that takes their results from PSUM to a tile in panels: they go there at once."""

from __future__ import annotations

from itertools import accumulate, repeat
from typing import NamedTuple

from nkilite import dtypes
from nkilite.ir.group import Group, Transposition
from nkilite.ir.panels import WIDTH, Feed
from nkilite.ir.program import Operand, Program, Signature
from nkilite.ir.types import BufferKind, MemoryRegion
from nkilite.passes.infer_panels import free_runs
from nkilite.passes.liveness import lifetimes

_DTYPES = frozenset({dtypes.float32, dtypes.bfloat16, dtypes.float16})


class GroupTransposes:
    """Make groups of nc_transposes of one shape into one PSUM tile and the tensor_copy that follows them."""

    def run(self, program: Program) -> Program:
        code, signatures = program.code, program.signatures
        turning, copying = [_transpose(s) for s in signatures], [_copy(s) for s in signatures]
        if not program.panels or not any(turning):
            return program
        lives = lifetimes(program)
        widths = [s.n_words for s in signatures]
        groups: list[Group] = []
        run: list[int] = []  # words at which the transposes begin
        start = 0
        for index in range(program.count):
            number = code[start]
            turn, copy = turning[number], copying[number]
            if turn is not None:
                bank = turn.target.word
                same = run and code[run[0]] == number and code[run[0] + bank] == code[start + bank]
                run = [*run, start] if same else [start]
            elif run:
                found = turning[code[run[0]]]
                if copy is not None and found is not None:
                    bank = code[start + copy.source.word]
                    first = index - len(run)
                    if lives.first[bank] == first and lives.last[bank] == index:
                        columns = _columns(program, run, found, start, copy)
                        if columns is not None:
                            groups.append(Group(first, len(run) + 1, Transposition(columns), (bank,)))
                run = []
            start += widths[number]
        program.groups = sorted([*program.groups, *groups])
        return program


class _Move(NamedTuple):
    """A transpose or a copy between dense rows of free elements: its operands, and how many elements a row has."""

    target: Operand
    source: Operand
    columns: int


def _transpose(signature: Signature) -> _Move | None:
    if signature.name != "nc_transpose":
        return None
    found = _dense(signature, "dst", "data")
    return found if found is not None and found.columns % WIDTH == 0 else None


def _copy(signature: Signature) -> _Move | None:
    if signature.name != "tensor_copy":
        return None
    found = _dense(signature, "dst", "src")
    return found if found is not None and found.target.type.shape[0] == found.source.type.shape[0] else None


def _dense(signature: Signature, target: str, source: str) -> _Move | None:
    written, read = signature.operand(target), signature.operand(source)
    types = written.type, read.type
    if types[0].dtype != types[1].dtype or types[0].dtype not in _DTYPES:
        return None
    runs = [free_runs(t.shape[1:], t.strides[1:]) for t in types]
    if any(t.indirection is not None for t in types) or any(len(r) > 1 for r in runs):
        return None
    return _Move(written, read, runs[0][0][0])


def _columns(program: Program, run: list[int], turn: _Move, start: int, copy: _Move) -> tuple[int, ...] | None:
    """Where the results of the transposes go, if they are all that the copy takes to a tile in panels."""
    code = program.code
    bank = program.buffers[code[start + copy.source.word]]
    into = code[start + copy.target.word]
    if bank.region is not MemoryRegion.psum or bank.kind is not BufferKind.internal or bank.address is not None:
        return None
    if program.panels.get(into, Feed.tiles) is Feed.tiles or program.buffers[into].dtype != copy.target.type.dtype:
        return None
    rows = bank.partition_bytes
    origin = code[start + copy.source.word + 1]
    if turn.target.type.dtype != copy.source.type.dtype or turn.target.type.shape[0] != copy.source.type.shape[0]:
        return None
    columns, size = [], copy.source.type.dtype.itemsize
    for at in run:
        offset = code[at + turn.target.word + 1]
        if offset // rows != origin // rows:
            return None
        columns.append((offset - origin) // size)
    whole = list(accumulate(repeat(turn.columns, len(run) - 1), initial=0))
    return tuple(columns) if sorted(columns) == whole and turn.columns * len(run) == copy.columns else None
