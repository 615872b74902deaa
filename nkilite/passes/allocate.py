"""Give every SBUF and PSUM tile its chip address: (partition, byte), from liveness, around explicit addresses."""

from __future__ import annotations

from contextlib import suppress
from itertools import repeat

import numpy as np

from nkilite.errors import InvalidAddress, MemoryOverflow, PsumBankCrossed
from nkilite.ir.columns import BufferColumns, Columns
from nkilite.ir.program import Program
from nkilite.ir.types import Buffer, MemoryRegion, ViewType, extent
from nkilite.machine.engine import Engine
from nkilite.machine.memory import Overflow, Reservation, plan
from nkilite.machine.target import Target
from nkilite.notices import Notice, give
from nkilite.passes.delay_writes import delay_writes
from nkilite.passes.drain_psum import drain_psum
from nkilite.passes.liveness import accessed
from nkilite.passes.round_stochastically import rounds_stochastically

_LISTED = 12  # live tiles named in an overflow message


class TilesSpilled(UserWarning):
    """Tiles do not fit; the vendor's compiler, which places those of the program, would reorder or spill them."""


class Allocate:
    """Plan SBUF and PSUM; explicit `address=` is honoured, including aliasing, and checked against the memory.

    Where tiles do not fit in the order of the program, last reads of PSUM move to where it is complete
    (nkilite/passes/drain_psum.py), then first writes that read nothing to where their tiles are used
    (nkilite/passes/delay_writes.py); not where rounding is stochastic, which follows that order. Tiles that the
    vendor's compiler places (`Program.placed`) and that still do not fit have no address, with a warning: that
    compiler reorders loops and spills, which changes no result. With `strict` they are an error, too.

    Raises:
        InvalidAddress: an explicit address is outside its memory or misaligned.
        MemoryOverflow: the tiles live at one moment do not fit; lists them.
        PsumBankCrossed: a Tensor Engine result lies in two PSUM banks.
    """

    def __init__(self, strict: bool = False) -> None:
        self._strict = strict
        self.policies: dict[MemoryRegion, str] = {}  # how each memory was planned (nkilite/machine/memory.py)

    def run(self, program: Program) -> Program:
        before = program.code[:], program.names, program.dependencies
        with suppress(MemoryOverflow):
            return self._placed(program)
        for moves in () if rounds_stochastically(program) else (drain_psum, delay_writes):
            if moves(program):
                with suppress(MemoryOverflow):
                    return self._placed(program)
        program.code, program.names, program.dependencies = before
        return self._placed(program, self._strict)

    def _placed(self, program: Program, strict: bool = True) -> Program:
        """The program with addresses.

        Raises:
            MemoryOverflow: the tiles do not fit; not where they are placed by the vendor's compiler, unless `strict`.
        """
        target = program.target
        columns, buffers = Columns.of(program), BufferColumns.of(program)
        first, last = accessed(program, columns)
        used = first >= 0
        for region in (MemoryRegion.sbuf, MemoryRegion.psum):
            psum = region is MemoryRegion.psum
            tiles = used & buffers.within(region)
            fixed = [program.buffers[id] for id in np.flatnonzero(tiles & buffers.fixed).tolist()]
            _check_addresses(fixed, target)
            program.addresses.update((tile.id, tile.address) for tile in fixed if tile.address)
            automatic = np.flatnonzero(tiles & ~buffers.fixed)
            if not len(automatic):
                continue
            automatic = automatic[np.argsort(first[automatic], kind="stable")]
            requests = np.column_stack([buffers.row_bytes[automatic], first[automatic], last[automatic]])
            reserved = [
                Reservation(b.address[1], b.partition_bytes, int(first[b.id]), int(last[b.id]))
                for b in fixed if b.address
            ]
            result = plan(
                requests,
                capacity=target.psum_partition_bytes if psum else target.sbuf_fmax_bytes,
                align=target.psum_min_align if psum else SBUF_ALIGN,
                policy="spread",
                bank=target.psum_bank_bytes if psum else None,
                reserved=reserved,
            )
            if isinstance(result, Overflow):
                placed = [program.buffers[id] for id in automatic.tolist()]
                overflow = _overflow(result, placed, fixed, region, target)
                if strict or not program.placed or requests[:, 0].max() > result.capacity:
                    raise overflow
                _warn(overflow)
                continue
            self.policies[region] = result.policy
            program.addresses.update(zip(automatic.tolist(), zip(repeat(0), result.offsets), strict=True))
        _check_banks(program, columns)
        return program


def _warn(overflow: MemoryOverflow) -> None:
    lacks = "{memory} of {target} lacks {missing} bytes per partition for {what}".format(**overflow.fields)
    message = f"{lacks}: the vendor's compiler, which places the tiles of this kernel, would reorder loops or spill"
    give(Notice(message, TilesSpilled, overflow.location.file, overflow.location.line, once=True))


SBUF_ALIGN = 32  # a tile start that suits every engine; the hardware minimum is a byte


def _check_banks(program: Program, columns: Columns) -> None:
    """Raise PsumBankCrossed where a Tensor Engine result crosses a PSUM bank and the target does not allow it."""
    if program.target.tensor_results_cross_banks:
        return
    bank = program.target.psum_bank_bytes
    pitch = np.maximum(BufferColumns.of(program).row_bytes, 1)
    base = np.zeros(len(pitch), np.int64)
    bytes_of = (byte for _, byte in program.addresses.values())
    base[list(program.addresses)] = np.fromiter(bytes_of, np.int64, len(program.addresses))
    for signature, _, starts in columns.uses():
        dst = next((o for o in signature.operands if o.writes and o.type.region is MemoryRegion.psum), None)
        if dst is None or signature.definition.rule("cost")(signature).engine is not Engine.tensor:
            continue
        low, high = extent(dst.type.shape[1:], dst.type.strides[1:])
        size = dst.type.dtype.itemsize
        buffers, offsets = columns.code[starts + dst.word], columns.code[starts + dst.word + 1]
        begin = base[buffers] + offsets % pitch[buffers]
        first, last = begin + low * size, begin + (high + 1) * size - 1
        crossing = np.flatnonzero(first // bank != last // bank)
        if len(crossing):
            k = int(crossing[0])
            raise PsumBankCrossed(
                instruction=signature.title, tile=_name(program.buffers[buffers[k]]), first=int(first[k]),
                last=int(last[k]), limit=bank, target=program.target.name,
                location=program.locations[columns.code[starts[k] + 1]],
            )


def _check_addresses(tiles: list[Buffer], target: Target) -> None:
    """Check explicit addresses; those that are alike once."""
    known: set[tuple[ViewType, tuple[int, int] | None]] = set()
    for tile in tiles:
        if (tile.type, tile.address) not in known:
            check_address(tile, target)
            known.add((tile.type, tile.address))


def check_address(tile: Buffer, target: Target) -> None:
    """Raise InvalidAddress unless an explicit address lies inside its memory and is aligned."""
    assert tile.address is not None
    partition, byte = tile.address
    psum = tile.region is MemoryRegion.psum
    capacity = target.psum_partition_bytes if psum else target.sbuf_fmax_bytes
    align = target.psum_min_align if psum else target.sbuf_min_align
    problem = ""
    if partition < 0 or partition + tile.partitions > target.num_partitions:
        problem = f"needs partitions {partition}..{partition + tile.partitions - 1} of {target.num_partitions}"
    elif byte < 0 or byte + tile.partition_bytes > capacity:
        problem = f"needs bytes {byte}..{byte + tile.partition_bytes - 1} of the {capacity} in a partition"
    elif byte % align:
        problem = f"is not a multiple of {align} bytes"
    if problem:
        raise InvalidAddress(
            memory=str(tile.region).upper(), address=tile.address, tile=_name(tile), problem=problem,
            location=tile.location,
        )


def _overflow(
    found: Overflow, tiles: list[Buffer], fixed: list[Buffer], region: MemoryRegion, target: Target
) -> MemoryOverflow:
    failed = tiles[found.index]
    live = [tiles[i] for i in found.live] + [fixed[i] for i in found.reservations]
    live.sort(key=lambda b: -b.partition_bytes)
    lines = [f"  {b.partition_bytes:>8} bytes  {_name(b)}  {b.location}" for b in live[:_LISTED]]
    if len(live) > _LISTED:
        rest = sum(b.partition_bytes for b in live[_LISTED:])
        lines.append(f"  {rest:>8} bytes  in {len(live) - _LISTED} more tiles")
    return MemoryOverflow(
        memory=str(region).upper(), target=target.name, what=_name(failed), need=failed.partition_bytes,
        live=found.live_bytes + found.reserved_bytes, capacity=found.capacity, missing=found.missing,
        tiles="\n".join(lines), location=failed.location,
    )


def _name(tile: Buffer) -> str:
    return f"{tile.label} {tile.dtype} {list(tile.shape)}"
