"""Turn tiles over on the Tensor Engine where a kernel asks of DMA to exchange partitions and columns.

The vendor's compiler moves rows as they lie in HBM and transposes them by products with an identity matrix: what it
prints of programs whose inputs lie the other way has such transposes (`nc_matmul(..., is_transpose=True)` into tiles
named "pftranspose"; aws-neuron-sdk, issues 1015 and 1043). This does the same to the program that is timed.
"""

from __future__ import annotations

from collections.abc import Iterator

from nkilite.ir.columns import Columns
from nkilite.ir.program import Operand, Program, Signature
from nkilite.ir.types import MemoryRegion, ViewType
from nkilite.machine.engine import Engine
from nkilite.passes.splice import View, splice
from nkilite.profiling.rewrite import copied, words

__all__ = ["turned"]

_Step = tuple[str, dict[str, object]]  # an instruction and its arguments


def turned(program: Program) -> Program:
    """The program of a compiler that manages it, with such transfers by rows; the one given if it has none."""
    flips = [s for s in program.signatures if _flips(s)] if program.managed else []
    columns = Columns.of(program)
    if not any(len(columns.rows(s.id)) for s in flips):
        return program
    program = copied(program)
    program.buffers, program.open_engines = list(program.buffers), set(program.open_engines)
    runs: dict[int, list[int]] = {}
    for signature in flips:
        for start in columns.starts[columns.rows(signature.id)].tolist():
            runs[start] = _by_rows(program, signature, start)
    splice(program, runs)
    return program


def _flips(signature: Signature) -> bool:
    """Whether a DMA exchanges the two dimensions of a matrix between HBM and SBUF, of which partitions are one."""
    if signature.name != "dma_copy" or any(o.type.indirection for o in signature.operands):
        return False
    tile, matrix = _sides(signature)
    if tile.type.region is not MemoryRegion.sbuf or matrix.type.region.on_chip or tile.type.ndim != 2:
        return False
    kind, (beside, below) = matrix.type, matrix.type.strides[-2:] if matrix.type.ndim == 2 else (0, 0)
    narrow = tile.type.dtype.itemsize == 1 or kind.shape != tile.type.shape
    return beside == 1 and below > 1 and min(kind.shape) > 1 and not narrow


def _sides(signature: Signature) -> tuple[Operand, Operand]:
    """The operand on chip and that in HBM."""
    dst, src = signature.operand("dst"), signature.operand("src")
    return (dst, src) if dst.type.region.on_chip else (src, dst)


def _by_rows(program: Program, signature: Signature, start: int) -> list[int]:
    """Words that move the rows of a matrix and turn them over, as many at a time as the Tensor Engine takes."""
    given = program.code[start:start + signature.n_words].tolist()
    tile, matrix = _sides(signature)
    location, loads = given[1], matrix.reads
    found: list[int] = []
    for first, count in _blocks(tile.type.shape[1], program.target.pe_rows):
        here = _cut(tile.type, (tile.type.shape[0], count), first, given[tile.word:tile.word + 2])
        rows = _cut(matrix.type, (matrix.type.shape[0], count), first, given[matrix.word:matrix.word + 2])
        rows = rows._replace(type=_transposed(rows.type))
        upright = _tile(program, MemoryRegion.sbuf, rows.type.shape, tile, location)
        across = here.type.shape if loads else rows.type.shape
        bank = _tile(program, MemoryRegion.psum, across, tile, location)
        data, result = (upright, here) if loads else (here, upright)
        steps: list[_Step] = [
            ("nc_transpose", {"dst": bank, "data": data, "engine": Engine.tensor}),
            ("tensor_copy", {"dst": result, "src": bank, "engine": Engine.vector}),
        ]
        ends = {"dst": upright, "src": rows} if loads else {"dst": rows, "src": upright}
        steps.insert(0 if loads else len(steps), ("dma_copy", {**signature.arguments, **ends}))
        for name, arguments in steps:
            found += words(program, name, location, **arguments)
    return found


def _blocks(size: int, step: int) -> Iterator[tuple[int, int]]:
    for first in range(0, size, step):
        yield first, min(step, size - first)


def _cut(kind: ViewType, shape: tuple[int, ...], first: int, place: list[int]) -> View:
    """Columns of an operand, from one on."""
    view = ViewType.of(kind.region, kind.dtype, shape, kind.strides)
    return View(view, (place[0], place[1] + first * kind.strides[1] * kind.dtype.itemsize))


def _transposed(kind: ViewType) -> ViewType:
    return ViewType.of(kind.region, kind.dtype, kind.shape[::-1], kind.strides[::-1])


def _tile(program: Program, region: MemoryRegion, shape: tuple[int, ...], like: Operand, location: int) -> View:
    buffer = program.add_buffer(region, shape, like.type.dtype, location=program.locations[location])
    return View(buffer.type, (buffer.id, 0))
