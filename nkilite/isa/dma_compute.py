"""The DMA instruction that computes: sums of tensors on their way between HBM and SBUF."""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce

import numpy as np

from nkilite.codegen import row_map
from nkilite.codegen.kernel import MicroKernel
from nkilite.dtypes import cast
from nkilite.errors import InvalidOperand, ShapeMismatch, describe
from nkilite.ir.program import Signature
from nkilite.ir.types import OobMode, ViewType
from nkilite.isa import alu, channels, rules
from nkilite.isa.constants import oob_mode
from nkilite.isa.dma import by_vector, require_reachable, row_major, runs
from nkilite.isa.operators import Op
from nkilite.machine import engine as costs
from nkilite.machine.engine import Cost
from nkilite.machine.target import Target
from nkilite.trace.instruction import instruction
from nkilite.trace.tensor import NkiTensor

_oob_error = oob_mode.error
_ADD = alu.TABLE["add"]
_MOST = 16  # sources


def _keeps_rows(arguments: dict[str, object]) -> tuple[str, ...]:
    """A gather that skips indices keeps what the destination holds."""
    gathers = any(isinstance(a, ViewType) and n != "dst" and by_vector(a) for n, a in arguments.items())
    return ("dst",) if gathers and arguments["oob_mode"] is OobMode.skip else ()


@instruction(writes=("dst",), updates=_keeps_rows, lists={"srcs": _MOST})
def dma_compute(
    dst: NkiTensor,
    srcs: Sequence[NkiTensor],
    reduce_op: Op,
    scales: Sequence[float] | None = None,
    unique_indices: bool = True,
    oob_mode: OobMode = _oob_error,
    name: str | None = None,
) -> None:
    """dst = srcs[0] + srcs[1] + ..., elementwise, by the DMA engines, between HBM and SBUF.

    Sources are converted to float32, added in their order, and the sum is rounded to dst's dtype. Elements are taken in
    row-major order of all shapes, which may differ as long as the element counts agree.

    With one index for every position of dimension 0 (`.ap(vector_offset=)`, `.vector_select`), the call adds to rows:

    - dst is an indexed view of HBM, one source is the same view, the other is in SBUF: rows of dst grow (scatter).
    - dst is in SBUF, one source is dst, the other an indexed view of HBM: dst grows by rows (gather).

    Args:
        dst: HBM or SBUF tensor; it may be one of the sources.
        srcs: 2 to 16 HBM or SBUF tensors; with indices 2. The public pages disagree about a single source, whether it
            is copied or added to dst, and it is refused.
        reduce_op: nl.add.
        scales: None, or 1.0 for every source.
        unique_indices: True: no index may occur twice. If one does, the pages leave undefined what its row grows by;
            here, and in nl.atomic_rmw of Beta 1, by all that is meant for it.
        oob_mode: for an index outside its dimension, `nisa.oob_mode.error` raises IndirectOutOfBounds when the kernel
            runs and `skip` leaves the row as it is.

    Raises:
        WrongMemory: an operand is in PSUM, or not where a gather or scatter needs it.
        UnsupportedDtype: a packed x4 dtype.
        ShapeMismatch: element counts differ, or rows with indices.
        InvalidOperand: another number of sources, other scales, repeated indices, an operand with one runtime index for
            the whole view, or a gather or scatter that does not add to its destination.
        UnknownOperator: another reduce_op.

    Source: nki.isa.dma_compute.
    """


@dma_compute.normalize
def _dma_compute_normalize(arguments: dict[str, object], target: Target) -> None:
    arguments["reduce_op"] = alu.lookup(arguments["reduce_op"], "nisa.dma_compute", (_ADD,))


def _sources(call: Signature) -> dict[str, ViewType]:
    return {n: v for n, v in rules.tensors(call).items() if n != "dst"}


@dma_compute.check
def _dma_compute_check(call: Signature) -> None:
    sources = _sources(call)
    if len(sources) < 2:
        raise _invalid(call, "srcs", f"a list of {len(sources)}", f"2 to {_MOST} tensors (dst too, to add to it)")
    for operand, kind in rules.tensors(call).items():
        require_reachable(call, operand)
        rules.require_dtype(call, operand, rules.UNPACKED)
        if kind.indirection is not None and not by_vector(kind):
            found = "a view that one runtime index moves"
            raise _invalid(call, operand, found, "a view whose address is known, or one index per row (vector_offset)")
        if kind.size != call.dst.size:
            raise ShapeMismatch(
                instruction="nisa.dma_compute",
                detail=f"dst {call.dst.shape} has {call.dst.size} elements, "
                f"{call.said(operand)} {kind.shape} has {kind.size}",
            )
    scales = call.scales
    if scales is not None and (not isinstance(scales, tuple) or scales != (1.0,) * len(sources)):
        raise _invalid(call, "scales", describe(scales), f"None, or 1.0 for each of the {len(sources)} sources")
    if not isinstance(call.oob_mode, OobMode):
        raise _invalid(call, "oob_mode", describe(call.oob_mode), "a member of nisa.oob_mode")
    if any(map(by_vector, rules.tensors(call).values())):
        _require_growth(call, sources)
    elif call.oob_mode is OobMode.skip:
        raise _invalid(call, "oob_mode", "skip", "error, for no operand has runtime indices")


def _require_growth(call: Signature, sources: dict[str, ViewType]) -> None:
    """Check a call with indices: a scatter into HBM or a gather from it, that adds to what is there."""
    if not call.unique_indices:
        raise _invalid(call, "unique_indices", "False", "True, for rows that an index repeats cannot be added to")
    same = [name for name, kind in sources.items() if kind is call.dst]
    if len(sources) != 2 or not same:
        raise _invalid(
            call, "srcs", f"{len(sources)} sources", "two with runtime indices, of which one is the same view as dst"
        )
    (other,) = [name for name in sources if name != same[0]]
    scatters = by_vector(call.dst)
    rules.require_memory(call, "dst", *(rules.HBM if scatters else (rules.SBUF,)))
    rules.require_memory(call, other, *((rules.SBUF,) if scatters else rules.HBM))
    if scatters and by_vector(sources[other]):
        raise _invalid(call, other, "a view with runtime indices, as is dst", "rows in their order")
    if sources[other].shape[0] != call.dst.shape[0]:
        raise ShapeMismatch(
            instruction="nisa.dma_compute",
            detail=f"dst {call.dst.shape} has {call.dst.shape[0]} rows, {call.said(other)} "
            f"{sources[other].shape} has {sources[other].shape[0]}: with runtime indices rows are added",
        )


def _invalid(call: Signature, operand: str, found: str, expected: str) -> InvalidOperand:
    return InvalidOperand(instruction="nisa.dma_compute", operand=call.said(operand), found=found, expected=expected)


@dma_compute.reference
def _dma_compute_reference(
    call: Signature, dst: np.ndarray, dst_rows: np.ndarray | None = None, **given: np.ndarray
) -> np.ndarray:
    with np.errstate(over="ignore", invalid="ignore"):
        if dst_rows is not None and len(np.unique(dst_rows)) < len(dst_rows):
            return _grown(call, dst, dst_rows, given)
        total = reduce(np.add, (given[name].astype(np.float32).reshape(dst.shape) for name in _sources(call)))
    for name in _sources(call):
        present = given.get(f"{name}_present")
        if present is not None and not by_vector(call.dst):
            total = np.where(present.reshape(-1, *[1] * (dst.ndim - 1)), cast(total, call.dst.dtype), dst)
    result: np.ndarray = total
    return result


def _grown(call: Signature, dst: np.ndarray, rows: np.ndarray, given: dict[str, np.ndarray]) -> np.ndarray:
    """A scatter whose indices repeat: a row grows by all that is meant for it, one after the other."""
    (added,) = (given[name] for name, kind in _sources(call).items() if kind is not call.dst)
    added = added.astype(np.float32).reshape(dst.shape)
    now: dict[int, np.ndarray] = {}
    result = np.empty_like(dst)
    for position, row in enumerate(rows.tolist()):
        before = now.get(row, dst[position])
        now[row] = result[position] = cast(before.astype(np.float32) + added[position], call.dst.dtype)
    return result


@dma_compute.access
def _dma_compute_access(call: Signature) -> str:
    loops = row_major(*rules.tensors(call).values())
    return f"{loops}: dst[{loops}] {' '.join(f'{name}[{loops}]' for name in _sources(call))}"


@dma_compute.cost
def _dma_compute_cost(call: Signature) -> Cost:
    pieces, moved = 0, 0
    for kind in _sources(call).values():
        pieces += max(runs(call.dst), runs(kind))
        moved += kind.size * max(call.dst.dtype.itemsize, kind.dtype.itemsize)
    partitions = [kind.partitions for kind in rules.tensors(call).values() if kind.region.on_chip]
    if not partitions:
        # Nothing ties a piece of HBM to one engine, so a long run is shared by all.
        pieces = max(pieces, min(call.target.dma_engines, call.dst.size))
    cost = costs.dma(call.target, pieces, moved / pieces, partitions=min(partitions) if partitions else None)
    return channels.limited(cost, call.target, rules.tensors(call).values())


@dma_compute.lower
def _dma_compute_lower(call: Signature, kernel: MicroKernel) -> None:
    row_map.map(kernel, "dst", list(_sources(call)), lambda e, *values: reduce(e.add, values))
