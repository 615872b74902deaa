"""DMA instructions: copies and transposes between HBM and SBUF, with conversion, gather and scatter."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import SupportsIndex

import numpy as np

from nkilite.codegen import move
from nkilite.codegen.kernel import MicroKernel
from nkilite.dtypes import Elements, cast
from nkilite.errors import DtypeMismatch, InvalidOperand, ShapeMismatch, describe
from nkilite.ir.program import Signature
from nkilite.ir.rules import ArgumentsByName
from nkilite.ir.types import IndirectKind, OobMode, ViewType
from nkilite.isa import channels, rules
from nkilite.isa.constants import dge_mode, engine, oob_mode
from nkilite.machine import engine as costs
from nkilite.machine.engine import Cost, Engine
from nkilite.trace.instruction import instruction
from nkilite.trace.tensor import NkiTensor

_oob_error, _dge_unknown, _any_engine = oob_mode.error, dge_mode.unknown, engine.unknown
_DgeMode = dge_mode

_PRIORITIES = range(4)
_ORDERS = {2: (1, 0), 3: (2, 1, 0), 4: (3, 1, 2, 0)}
_HARDWARE_ROWS = (1, 2, 4, 8, 16)
_MOST_COLUMNS = 128  # of a transpose by a descriptor generator
_INDEX_PARTITIONS = range(16, 129, 16)


def _skips_rows(arguments: ArgumentsByName) -> tuple[str, ...]:
    """A gather that skips indices keeps what the destination holds."""
    src = arguments["src"]
    return ("dst",) if arguments["oob_mode"] is OobMode.skip and src.indirection is not None else ()


@instruction(writes=("dst",), updates=_skips_rows, wide=True)
def dma_copy(
    dst: NkiTensor,
    src: NkiTensor,
    priority: SupportsIndex | None = None,
    oob_mode: OobMode = _oob_error,
    dge_mode: dge_mode = _dge_unknown,
    engine: Engine = _any_engine,
    name: str | None = None,
) -> None:
    """Copy `src` to `dst` with the DMA engines: between HBM and SBUF in either direction, or within either.

    Elements are taken in row-major order of both shapes, which may differ (also in partitions) as long as the
    element counts agree. Equal dtypes are copied bit by bit, different ones through float32, to which 64-bit integers
    are not converted.

    A view with a runtime index gathers (as `src`) or scatters (as `dst`): `.ap(vector_offset=)` and
    `.vector_select` give every position of dimension 0 its own index, `.ap(scalar_offset=)` and `.select`
    move the whole view. When several scattered rows have the same index, the last one stays.

    Args:
        dst: HBM or SBUF tensor.
        src: HBM or SBUF tensor; dimensions of stride 0 repeat elements.
        priority: quality-of-service class 0 (highest) to 3, trn3 only; has no effect on results.
        oob_mode: for an index outside its dimension, `nisa.oob_mode.error` raises IndirectOutOfBounds when
            the kernel runs and `skip` transfers nothing for it, leaving `dst` as it is there.
        dge_mode: where descriptors are made: `none` (before the kernel), `swdge` (GpSimd), `hwdge` (trn2 and
            later, equal dtypes), `unknown` (chosen by the compiler). Gathers and scatters by vector need
            swdge or unknown.
        engine: with hwdge, the queue that triggers the transfer: `nisa.engine.sync` or `nisa.engine.scalar`.

    Raises:
        WrongMemory: an operand is in PSUM, which DMA engines do not reach.
        ShapeMismatch: the element counts differ.
        DtypeMismatch: a conversion of packed x4 elements or 64-bit integers, or any conversion with hwdge.
        InvalidOperand, UnsupportedEngine, UnsupportedOnTarget: an option that does not apply.

    Source: nki.isa.dma_copy; the DGE reference; NKI Access Patterns.
    """


@dma_copy.normalize
def _dma_copy_normalize(arguments: dict[str, object], target: object) -> None:
    _name_mode(arguments)


@dma_copy.check
def _dma_copy_check(call: Signature) -> None:
    for operand in ("dst", "src"):
        require_reachable(call, operand)
    if call.dst.size != call.src.size:
        raise ShapeMismatch(
            instruction=rules.instruction_name(call),
            detail=f"dst {call.dst.shape} has {call.dst.size} elements, "
            f"src {call.src.shape} has {call.src.size}",
        )
    rules.require_convertible(call, "dst", "src")
    _require_options(call)
    if call.dge_mode is _DgeMode.hwdge and call.dst.dtype != call.src.dtype:
        raise DtypeMismatch(
            instruction=rules.instruction_name(call),
            detail=f"hwdge moves bytes and cannot convert src {call.src.dtype} to dst {call.dst.dtype}",
            hint="reinterpret one side with .view(dtype), or convert with dge_mode swdge or none.",
        )
    if call.engine not in (None, Engine.unknown):
        rules.require_engine(call, Engine.sync, Engine.scalar)
        if call.dge_mode is not _DgeMode.hwdge:
            raise _invalid(call, "engine", call.engine.name, "no engine unless dge_mode is hwdge")


@dma_copy.reference
def _dma_copy_reference(
    call: Signature, dst: np.ndarray, src: np.ndarray, src_present: np.ndarray | None = None, **_: object
) -> Elements:
    return _keep_absent(call, dst, src.reshape(dst.shape), src, src_present)


def _keep_absent(
    call: Signature, dst: np.ndarray, values: np.ndarray, src: np.ndarray, present: np.ndarray | None,
    axes: tuple[int, ...] | None = None,
) -> Elements:
    """`values`, but what `dst` holds where they come from positions of src that are not present."""
    moved = Elements(values, call.src.dtype)
    if present is None:
        return moved
    mask = np.broadcast_to(present.reshape(-1, *[1] * (src.ndim - 1)), src.shape)
    mask = mask if axes is None else mask.transpose(axes)
    return Elements(np.where(mask.reshape(dst.shape), cast(moved, call.dst.dtype), dst), call.dst.dtype)


@dma_copy.cost
def _dma_copy_cost(call: Signature) -> Cost:
    pieces = max(runs(call.dst), runs(call.src))
    wider = max(call.dst.dtype.itemsize, call.src.dtype.itemsize)
    partitions = [o.partitions for o in (call.dst, call.src) if o.region.on_chip]
    if not partitions:
        # Nothing ties a piece of HBM to one engine, so a long run is shared by all.
        pieces = max(pieces, min(call.target.dma_engines, call.dst.size))
    cost = costs.dma(
        call.target, pieces, call.dst.size * wider / pieces, partitions=min(partitions) if partitions else None,
        to_hbm=not call.dst.region.on_chip,
    )
    return channels.limited(cost, call.target, (call.dst, call.src))


def runs(kind: ViewType) -> int:
    """The number of contiguous pieces of memory a view consists of; every partition is one of its own."""
    rows = kind.region.on_chip or by_vector(kind)
    run = 1
    for n, stride in reversed(list(zip(kind.shape, kind.strides, strict=True))[1 if rows else 0:]):
        if n != 1 and stride != run:
            break
        run *= n
    result: int = kind.size // run
    return result


def row_major(*kinds: ViewType) -> str:
    """The loops of an access rule for tensors whose elements correspond in row-major order: by row if rows do."""
    return "p f" if all(kind.shape[0] == kinds[0].shape[0] for kind in kinds) else "e"


def by_vector(kind: ViewType) -> bool:
    """Whether every position of dimension 0 has its own runtime index."""
    return kind.indirection is not None and kind.indirection.kind is IndirectKind.vector


@dma_copy.access
def _dma_copy_access(call: Signature) -> str:
    loops = row_major(call.dst, call.src)
    return f"{loops}: dst[{loops}] = src[{loops}]"


@dma_copy.lower
def _dma_copy_lower(call: Signature, kernel: MicroKernel) -> None:
    move.move(kernel, "dst", "src")


@instruction(writes=("dst",), updates=_skips_rows)
def dma_transpose(
    dst: NkiTensor,
    src: NkiTensor,
    axes: Sequence[int] | None = None,
    priority: SupportsIndex | None = None,
    dge_mode: dge_mode = _dge_unknown,
    oob_mode: OobMode = _oob_error,
    name: str | None = None,
) -> None:
    """Transpose `src` into `dst` with the DMA engines; its innermost dimension becomes the outermost.

    Args:
        dst: tensor of exactly the transposed shape of src, and its dtype.
        src: 2-D, 3-D or 4-D tensor in HBM or SBUF. With `.ap(vector_offset=)` rows of an HBM tensor are
            gathered first: row i is the one named by entry i of the index tile read column by column.
        axes: (1, 0), (2, 1, 0) or (3, 1, 2, 0) for 2, 3 and 4 dimensions, which is also what None means.
        priority: quality-of-service class 0 (highest) to 3, trn3 only; has no effect on results.
        dge_mode: `unknown`; `hwdge` for a src without vector offset, `none` too in 3-D and 4-D, as nki-library
            passes it; `swdge` with one. hwdge needs trn2, a 2-byte dtype, at most 128 columns and 16 rows (or, in 3-D
            and 4-D, 1, 2, 4, 8 or 16 rows, whose product with the second-to-last dimension is a multiple of 16).
        oob_mode: as for dma_copy; `skip` applies to an indirect src alone.

    An indirect transpose needs trn2; a 2-byte dtype; at most 128 columns; rows in multiples of 16; in 4-D, a
    second or third dimension of size 1; and a 2-D uint32 index tile in SBUF with 16, 32, ... 128 partitions
    (128 when it has more than one column) and at least as many entries as src has rows.

    Raises:
        WrongMemory: an operand is in PSUM; or src in SBUF with a vector offset.
        ShapeMismatch, DtypeMismatch, UnsupportedDtype, InvalidOperand, UnsupportedOnTarget: a rule above is
            broken.

    Source: nki.isa.dma_transpose; the DGE reference; Trainium2 architecture guide, DMA transpose.
    """


@dma_transpose.normalize
def _dma_transpose_normalize(arguments: dict[str, object], target: object) -> None:
    _name_mode(arguments)
    if arguments["axes"] is None and isinstance(arguments["src"], ViewType):
        arguments["axes"] = _ORDERS.get(arguments["src"].ndim)


@dma_transpose.check
def _dma_transpose_check(call: Signature) -> None:
    src, dst = call.src, call.dst
    name = rules.instruction_name(call)
    for operand in ("dst", "src"):
        require_reachable(call, operand)
    order = _ORDERS.get(src.ndim)
    if order is None:
        raise ShapeMismatch(
            instruction=name, detail=f"src has {src.ndim} dimensions, shape {src.shape}; 2 to 4 work"
        )
    if call.axes != order:
        raise _invalid(call, "axes", call.axes, f"{order} for a src of {src.ndim} dimensions")
    wanted = tuple(src.shape[a] for a in order)
    if dst.shape != wanted:
        raise ShapeMismatch(
            instruction=name,
            detail=f"dst has shape {dst.shape}; src {src.shape} transposed by {order} has {wanted}",
        )
    if dst.dtype != src.dtype:
        raise DtypeMismatch(
            instruction=name,
            detail=f"src is {src.dtype} and dst {dst.dtype}; a DMA transpose does not convert",
            hint="convert before or after with nisa.tensor_copy.",
        )
    _require_options(call)
    if src.indirection is None and call.oob_mode is OobMode.skip:
        raise _invalid(call, "oob_mode", "skip", "error, for src has no runtime index")
    if by_vector(src):
        _require_gather_transpose(call, src)
    elif (call.dge_mode is _DgeMode.none and len(src.shape) == 2) or (
        call.dge_mode is _DgeMode.swdge and src.indirection is None
    ):
        raise _invalid(call, "dge_mode", call.dge_mode.name, "unknown or hwdge, for src has no vector_offset")
    elif call.dge_mode is _DgeMode.hwdge:
        _require_hardware_transpose(call, src)


def _require_narrow(call: Signature, src: ViewType, how: str) -> None:
    """The limits that both descriptor generators put on a transpose."""
    rules.require_dtype(call, "src", rules.TWO_BYTES)
    if src.shape[-1] > _MOST_COLUMNS:
        raise ShapeMismatch(
            instruction=rules.instruction_name(call),
            detail=f"{how} takes at most {_MOST_COLUMNS} elements in the last dimension of src; "
            f"it has {src.shape[-1]}",
        )


def _require_hardware_transpose(call: Signature, src: ViewType) -> None:
    _require_narrow(call, src, "a hwdge transpose")
    rows = src.shape[0]
    fits = rows == 16 if src.ndim == 2 else rows in _HARDWARE_ROWS and rows * src.shape[-2] % 16 == 0
    if not fits:
        raise ShapeMismatch(
            instruction=rules.instruction_name(call),
            detail=f"src has shape {src.shape}; a hwdge transpose needs 16 rows in 2-D, and in 3-D and 4-D "
            "1, 2, 4, 8 or 16 rows whose product with the second-to-last dimension is a multiple of 16",
        )


def _require_gather_transpose(call: Signature, src: ViewType) -> None:
    assert src.indirection is not None
    index = src.indirection.index
    rules.require_capability(call, lambda t: t.dma_gather_transpose, "an indirect nisa.dma_transpose")
    rules.require_memory(call, "src", *rules.HBM)
    _require_narrow(call, src, "an indirect transpose")
    problem = ""
    if src.ndim == 4 and src.shape[1] != 1 and src.shape[2] != 1:
        problem = f"src has shape {src.shape}; its second or third dimension must be 1"
    elif src.shape[0] % 16:
        problem = f"src has {src.shape[0]} rows; an indirect transpose needs a multiple of 16"
    elif index.ndim != 2 or index.shape[0] not in _INDEX_PARTITIONS:
        problem = f"the index tile has shape {index.shape}; it needs 2-D and 16, 32, ... 128 partitions"
    elif index.shape[1] > 1 and index.shape[0] != 128:
        problem = f"the index tile has shape {index.shape}; with several columns it needs 128 partitions"
    elif index.size < src.shape[0]:
        problem = f"the index tile has {index.size} entries for {src.shape[0]} rows of src"
    if problem:
        raise ShapeMismatch(instruction=rules.instruction_name(call), detail=problem)
    if index.dtype != "uint32":
        raise DtypeMismatch(
            instruction=rules.instruction_name(call),
            detail=f"the index tile of an indirect transpose is {index.dtype}",
            hint="make it uint32.",
        )


@dma_transpose.reference
def _dma_transpose_reference(
    call: Signature, dst: np.ndarray, src: np.ndarray, src_present: np.ndarray | None = None, **_: object
) -> Elements:
    return _keep_absent(call, dst, src.transpose(call.axes), src, src_present, call.axes)


@dma_transpose.cost
def _dma_transpose_cost(call: Signature) -> Cost:
    cost = costs.dma_transpose(
        call.target, call.src.size * call.src.dtype.itemsize, src_in_sbuf=call.src.region.on_chip,
        partitions=min(call.dst.partitions, call.target.num_partitions),
    )
    return channels.limited(cost, call.target, (call.dst, call.src))


@dma_transpose.access
def _dma_transpose_access(call: Signature) -> str:
    loops = [f"d{i}" for i in range(call.src.ndim)]
    return f"{' '.join(loops)}: dst[{' '.join(loops[a] for a in call.axes)}] = src[{' '.join(loops)}]"


@dma_transpose.lower
def _dma_transpose_lower(call: Signature, kernel: MicroKernel) -> None:
    move.move(kernel, "dst", "src", call.axes)


# --- what both instructions ask -----------------------------------------------------------------------------


def require_reachable(call: Signature, operand: str) -> None:
    """Raise unless a DMA engine reaches the operand, whose index tile must cover its rows."""
    rules.require_memory(call, operand, rules.SBUF, *rules.HBM)
    kind = call.arguments[operand]
    if kind.region.on_chip:
        rules.require_partitions(call, operand)
    indirection = kind.indirection
    if indirection is None:
        return
    entries = kind.shape[0] if by_vector(kind) else 1
    if prod(indirection.index.shape) < entries:
        raise ShapeMismatch(
            instruction=rules.instruction_name(call),
            detail=f"the index of {operand} has shape {indirection.index.shape} for {entries} rows",
        )


def _name_mode(arguments: dict[str, object]) -> None:
    """The member of nisa.dge_mode that public kernels also write as its value."""
    mode = arguments["dge_mode"]
    if type(mode) is int and mode in [member.value for member in _DgeMode]:
        arguments["dge_mode"] = _DgeMode(mode)


def _require_options(call: Signature) -> None:
    """Raise unless priority, oob_mode and dge_mode are values the target and the operands allow."""
    if not isinstance(call.oob_mode, OobMode):
        raise _invalid(call, "oob_mode", describe(call.oob_mode), "a member of nisa.oob_mode")
    if not isinstance(call.dge_mode, _DgeMode):
        raise _invalid(call, "dge_mode", describe(call.dge_mode), "a member of nisa.dge_mode")
    if call.priority is not None:
        rules.require_capability(call, lambda t: t.dma_priority, f"priority of {rules.instruction_name(call)}")
        if call.priority not in _PRIORITIES:
            raise _invalid(call, "priority", describe(call.priority), "an integer from 0 to 3")
    if call.dge_mode is _DgeMode.hwdge:
        rules.require_capability(call, lambda t: t.hardware_dge, "dge_mode.hwdge")
    indexed = by_vector(call.dst) or by_vector(call.src)
    if indexed and call.dge_mode not in (_DgeMode.unknown, _DgeMode.swdge):
        expected = "unknown or swdge, which alone gather and scatter"
        raise _invalid(call, "dge_mode", call.dge_mode.name, expected)


def _invalid(call: Signature, operand: str, found: object, expected: str) -> InvalidOperand:
    return InvalidOperand(
        instruction=rules.instruction_name(call), operand=operand, found=found, expected=expected
    )
