"""Engine and memory summary of a Program: instruction counts, modelled busy time, bytes moved, memory peaks."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from nkilite.ir.columns import BufferColumns, Columns
from nkilite.ir.loops import Loop, repeats
from nkilite.ir.program import Program, Signature
from nkilite.ir.types import MemoryRegion
from nkilite.machine.engine import Engine
from nkilite.machine.memory import peak
from nkilite.machine.target import Target
from nkilite.passes.liveness import accessed

_HBM = (MemoryRegion.private_hbm, MemoryRegion.shared_hbm)


@dataclass(frozen=True)
class Summary:
    """Figures of a kernel launch or of one of its cores. Times and peaks are modelled; counts and bytes are exact.

    A loop counts as often as it runs, or once where the number is only known on the device.

    Attributes:
        target: the modelled chip.
        instructions: number of instructions per engine.
        busy_us: modelled time each engine is busy, in microseconds; engines work in parallel.
        hbm_read_bytes, hbm_write_bytes: what DMA moves from and to HBM.
        sbuf_peak_bytes: most bytes per partition live at once in SBUF.
        psum_peak_banks: most PSUM banks in use at once.
    """

    target: Target
    instructions: dict[Engine, int]
    busy_us: dict[Engine, float]
    hbm_read_bytes: int
    hbm_write_bytes: int
    sbuf_peak_bytes: int
    psum_peak_banks: int


def summarize(program: Program, all_loops: list[Loop] | None = None) -> Summary:
    """Walk the program once; `all_loops` as in `repeats`."""
    columns = Columns.of(program)
    uses = np.bincount(columns.ids, repeats(program, all_loops), len(program.signatures))
    instructions: Counter[Engine] = Counter()
    busy: dict[Engine, float] = {}
    read, written = _identity_bytes([s for s, n in zip(program.signatures, uses, strict=True) if n]), 0
    for signature, count in zip(program.signatures, uses.astype(int).tolist(), strict=True):
        if not count:
            continue
        cost = signature.definition.rule("cost")(signature)
        instructions[cost.engine] += count
        busy[cost.engine] = busy.get(cost.engine, 0.0) + count * cost.busy_ns(program.target) / 1000
        taken, given = hbm_bytes(signature)
        read += count * taken
        written += count * given
    buffers = BufferColumns.of(program)
    first, last = accessed(program, columns)

    def requests(region: MemoryRegion) -> np.ndarray:
        tiles = buffers.within(region) & (first >= 0)
        return np.column_stack([buffers.row_bytes[tiles], first[tiles], last[tiles]])

    bank = program.target.psum_bank_bytes
    psum = requests(MemoryRegion.psum)
    psum[:, 0] = -(-psum[:, 0] // bank) * bank
    return Summary(
        program.target, dict(instructions), busy, read, written, peak(requests(MemoryRegion.sbuf)),
        peak(psum, bank=bank) // bank,
    )


def _identity_bytes(signatures: Sequence[Signature]) -> int:
    """What is read of identity matrices, the moving operands of transposes by the Tensor Engine: one of every dtype.

    Source: profiles of allenkchau/trainium-kernel-fusion (neuronx-cc 2.23), whose attentions read 65,536 bytes beside
    their operands in float32, and 98,304 in bfloat16, where they transpose tiles of both dtypes.
    """
    sizes = {
        data.type.dtype: data.type.dtype.itemsize * s.target.pe_rows * s.target.pe_columns
        for s in signatures if s.name == "nc_transpose" and s.definition.rule("cost")(s).engine is Engine.tensor
        for data in [s.operand("data")]
    }
    return sum(sizes.values())


def added(summaries: Sequence[Summary]) -> Summary:
    """The figures of a launch from those of its cores: peaks are those of a core."""
    first, *others = summaries
    if not others:
        return first
    engines = dict.fromkeys(engine for s in summaries for engine in s.instructions)
    return Summary(
        first.target, {e: sum(s.instructions.get(e, 0) for s in summaries) for e in engines},
        {e: sum(s.busy_us.get(e, 0.0) for s in summaries) for e in engines},
        sum(s.hbm_read_bytes for s in summaries), sum(s.hbm_write_bytes for s in summaries),
        max(s.sbuf_peak_bytes for s in summaries), max(s.psum_peak_banks for s in summaries),
    )


def hbm_bytes(signature: Signature) -> tuple[int, int]:
    """Bytes one instruction reads from and writes to HBM; broadcast dimensions are read once."""
    read = written = 0
    for operand in signature.operands:
        if operand.type.region in _HBM:
            size = operand.type.dtype.itemsize
            for n, stride in zip(operand.type.shape, operand.type.strides, strict=True):
                size *= n if stride else 1
            read += size if operand.reads else 0
            written += size if operand.writes else 0
    return read, written
