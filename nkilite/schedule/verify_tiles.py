"""Checks what is said of tiles: which lie in panels, and of which one partition stands for all."""

from __future__ import annotations

from collections.abc import Iterator

from nkilite.errors import IrError
from nkilite.ir.program import Instruction, Operand, Signature
from nkilite.ir.regions import joined
from nkilite.ir.types import Buffer, BufferKind, MemoryRegion
from nkilite.schedule import panels
from nkilite.schedule.moves import shape_of, turned_into_panels
from nkilite.schedule.panels import TILE_DTYPES, TILE_ROWS, WIDTH, Feed
from nkilite.schedule.rows import rows_of
from nkilite.schedule.schedule import Schedule


def verify_tiles(schedule: Schedule, where: str) -> None:
    """Check `panels` and `broadcast`.

    Raises:
        IrError: an instruction does not use a tile as it has to.
    """
    program = schedule.program
    for id in (*schedule.panels, *schedule.broadcast):
        buffer = program.buffers[id] if isinstance(id, int) and 0 <= id < len(program.buffers) else None
        if buffer is None:
            raise IrError(f"buffer {id} of {len(program.buffers)} is in panels or one row for all{where}")
        own = buffer.region is MemoryRegion.sbuf and buffer.kind is BufferKind.internal and buffer.address is None
        if not own or (id in schedule.panels and id in schedule.broadcast):
            raise IrError(f"{buffer.label} cannot be in panels or one row for all{where}", location=buffer.location)
    for instruction in program:
        for operand, buffer, offset in _operands(instruction):
            problem = ""
            if buffer.id in schedule.panels:
                problem = _in_panels(instruction.signature, operand, buffer, offset, schedule.panels[buffer.id])
            elif buffer.id in schedule.broadcast:
                problem = _in_one_row(schedule, instruction, operand, buffer, offset)
            if problem:
                raise IrError(
                    f"{operand.name} of {instruction.signature.name} ({buffer.label}) {problem}{where}",
                    location=instruction.location,
                )
    written = {b.id for instruction in program for o, b, _ in _operands(instruction) if o.writes}
    for id in (*schedule.panels, *schedule.broadcast):
        if id not in written:
            raise IrError(f"{program.buffers[id].label} is never written{where}", location=program.buffers[id].location)


def _operands(instruction: Instruction) -> Iterator[tuple[Operand, Buffer, int]]:
    for operand in instruction.signature.operands:
        yield operand, *instruction.access(operand)


def _in_panels(signature: Signature, operand: Operand, buffer: Buffer, offset: int, feed: Feed) -> str:
    """What is wrong with an operand that lies in panels."""
    kind, size = operand.type, buffer.dtype.itemsize
    if not isinstance(feed, Feed):
        return f"lies in panels for {feed}"
    columns = buffer.partition_bytes // size
    partition, column = divmod(offset // size, columns)
    *outer, (_, step) = joined(zip(kind.shape[1:], kind.strides[1:], strict=True)) or [(1, 1)]
    if kind.dtype != buffer.dtype or not kind.dtype.is_float or kind.indirection is not None:
        return "is not of the type that lies in panels"
    if column % WIDTH or step != 1 or any(s % WIDTH for _, s in outer) or (
        kind.shape[0] > 1 and kind.strides[0] != columns
    ):
        return "does not begin with panels"
    if partition % panels.step(feed) or kind.shape[0] % panels.step(feed):
        return f"has partitions that are not whole in panels for {feed.value}"
    rule = signature.definition.rules.get("panels")
    if operand.writes:
        alone = sum(o.writes for o in signature.operands) == 1 and not operand.reads
        shape = shape_of(signature)
        turned = shape is not None and turned_into_panels(shape)
        suits = signature.access.columns > 0 or signature.access.straight or turned
        return "" if alone and suits else "cannot be written in panels"
    if rule is None or operand.name not in rule(signature) or outer:
        return "cannot be read in panels"
    exact = all(o.type.dtype in TILE_DTYPES for o in signature.operands if o.reads and o.name in rule(signature))
    if exact == (feed is Feed.vectors):
        return f"cannot be read in panels for {feed.value}"
    return f"lies in panels for {feed.value}" if panels.step(feed) == TILE_ROWS and feed.value != operand.name else ""


def _in_one_row(
    schedule: Schedule, instruction: Instruction, operand: Operand, buffer: Buffer, offset: int
) -> str:
    """What is wrong with an operand of which one partition stands for all."""
    signature, kind = instruction.signature, operand.type
    rows, access = rows_of(signature), signature.access
    if not (rows or (access.straight and not operand.writes and kind.indirection is None)) or buffer.partitions < 2:
        return "is not used row by row, but one row for all"
    if not operand.writes:
        return ""
    row = buffer.partition_bytes
    if rows != buffer.partitions or offset >= row or kind.strides[0] * kind.dtype.itemsize != row:
        return "is one row for all, and written in part"
    for other, source, _ in _operands(instruction):
        alike = source.id in schedule.broadcast and source is not buffer
        repeated = access.rows is not None and not access.runs_over(other.name, access.rows)
        if other.reads and not (alike if source.region.on_chip else repeated or other.type.strides[0] == 0):
            return f"is one row for all, but made of rows of {other.name} that may differ"
    return ""
