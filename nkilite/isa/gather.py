"""Gathers inside SBUF: in a partition, and in the partitions of a GpSimd core; indirect operands."""

from __future__ import annotations

from collections.abc import Iterator
from typing import SupportsIndex

import numpy as np

from nkilite import dtypes
from nkilite.codegen import gather
from nkilite.codegen.kernel import MicroKernel
from nkilite.dtypes import Elements
from nkilite.errors import DtypeMismatch, FreeSizeExceeded, IndirectOutOfBounds, InvalidOperand, ShapeMismatch
from nkilite.ir.program import Signature
from nkilite.ir.rules import ArgumentsByName
from nkilite.ir.types import MemoryRegion
from nkilite.isa import rules
from nkilite.machine import engine as costs
from nkilite.machine.engine import Cost, Engine
from nkilite.machine.target import Target
from nkilite.trace import indirect
from nkilite.trace.instruction import instruction
from nkilite.trace.tensor import NkiTensor

RUN_LENGTHS = (1, 2, 4, 8, 16, 32)
MAX_INDICES = 4096


@instruction(writes=("dst",), indexed=True, access="p f: dst[p f] data[p e] indices[p f]")
def nc_n_gather(dst: NkiTensor, data: NkiTensor, indices: NkiTensor, name: str | None = None) -> None:
    """In every partition, take the elements of `data` at the positions `indices`, on the GpSimd Engine.

    A position is the row-major index in the partition, from 0. Bits are copied as they are.

    Args:
        dst: SBUF tile of data's dtype with the partitions and elements per partition of `indices`.
        data: SBUF tile of P partitions, in any free shape and dtype.
        indices: uint32 SBUF tile of P partitions.

    Raises:
        WrongMemory: an operand is not in SBUF.
        DtypeMismatch: dst and data have different dtypes.
        UnsupportedDtype: indices is not uint32.
        ShapeMismatch: partitions differ, or the elements per partition of dst and indices do.
        IndirectOutOfBounds: (when it runs) an index is not below the elements per partition of data, which the
            hardware leaves undefined.

    Source: nki.isa.nc_n_gather.
    """


@nc_n_gather.check
def _nc_n_gather_check(call: Signature) -> None:
    rules.require_sbuf(call)
    _require_same_dtype(call, "data")
    rules.require_dtype(call, "indices", (dtypes.uint32,))
    rules.require_same_elements(call, "dst", "indices")
    rules.require_same_partitions(call, "data", "indices")


@nc_n_gather.reference
def _nc_n_gather_reference(call: Signature, dst: np.ndarray, data: np.ndarray, indices: np.ndarray) -> Elements:
    rows, positions = data.reshape(data.shape[0], -1), indices.reshape(indices.shape[0], -1).astype(np.int64)
    _require_inside(call, positions, rows.shape[1])
    return Elements(np.take_along_axis(rows, positions, axis=1).reshape(dst.shape), call.dst.dtype)


@nc_n_gather.cost
def _nc_n_gather_cost(call: Signature) -> Cost:
    return costs.gpsimd_gather(call.target, call.dst.free_size, [rules.cost_operand(call.indices)])


@nc_n_gather.lower
def _nc_n_gather_lower(call: Signature, kernel: MicroKernel) -> None:
    gather.by_element(kernel, "dst", "data", "indices")


@instruction(writes=("dst",), indexed=True)
def local_gather(
    dst: NkiTensor,
    src_buffer: NkiTensor,
    index: NkiTensor,
    num_elem_per_idx: SupportsIndex = 1,
    num_valid_indices: SupportsIndex | None = None,
    name: str | None = None,
) -> None:
    """In every partition, take runs of elements that start at indices shared by 16 partitions, on the GpSimd Engine.

    Each GpSimd core serves 16 neighbouring partitions and takes its indices from the same partitions of `index`:
    index j is at partition ``j % 16`` of them and position ``j // 16``. In each of its partitions, elements
    ``index j`` to ``index j + num_elem_per_idx - 1`` of `src_buffer` become run j of `dst`, positions being row-major
    in the partition. Bits are copied as they are.

    Args:
        dst: SBUF tile of src_buffer's dtype and partitions, with ``num_valid_indices * num_elem_per_idx`` elements per
            partition, in any free shape.
        src_buffer: SBUF tile of P partitions, P a multiple of 16.
        index: uint16 SBUF tile of P partitions.
        num_elem_per_idx: 1, 2, 4, 8, 16 or 32.
        num_valid_indices: indices that each core uses, at most 4096; all of them if None.

    Raises:
        WrongMemory: an operand is not in SBUF.
        DtypeMismatch: dst and src_buffer have different dtypes.
        UnsupportedDtype: index is not uint16.
        ShapeMismatch: partitions differ or are not a multiple of 16, or dst has another number of elements.
        InvalidOperand: num_elem_per_idx or num_valid_indices is something else.
        FreeSizeExceeded: more than 4096 indices per core.
        IndirectOutOfBounds: (when it runs) a run does not lie inside the partition, which the hardware leaves
            undefined.

    Source: nki.isa.local_gather.
    """


@local_gather.normalize
def _local_gather_normalize(arguments: ArgumentsByName, target: Target) -> None:
    if arguments["num_valid_indices"] is None:
        arguments["num_valid_indices"] = arguments["index"].free_size * target.partitions_per_gpsimd_core


@local_gather.check
def _local_gather_check(call: Signature) -> None:
    rules.require_sbuf(call)
    _require_same_dtype(call, "src_buffer")
    rules.require_dtype(call, "index", (dtypes.uint16,))
    rules.require_same_partitions(call, "src_buffer", "index")
    rules.require_same_partitions(call, "src_buffer", "dst")
    rules.require_whole_cores(call, "src_buffer")
    width, count = call.num_elem_per_idx, call.num_valid_indices
    if type(width) is not int or width not in RUN_LENGTHS:
        raise InvalidOperand(
            instruction="nisa.local_gather", operand="num_elem_per_idx", found=width,
            expected=", ".join(map(str, RUN_LENGTHS)),
        )
    available = call.index.free_size * call.target.partitions_per_gpsimd_core
    if type(count) is not int or not 1 <= count <= available:
        raise InvalidOperand(
            instruction="nisa.local_gather", operand="num_valid_indices", found=count,
            expected=f"1 to {available}, the indices that 16 partitions of index hold",
        )
    if count > MAX_INDICES:
        raise FreeSizeExceeded(
            instruction="nisa.local_gather", operand="the index list of a core", found=count, limit=MAX_INDICES,
            target=call.target.name,
        )
    if call.dst.free_size != count * width:
        raise ShapeMismatch(
            instruction="nisa.local_gather",
            detail=f"dst has {call.dst.free_size} elements per partition; {count} indices of {width} elements are "
            f"{count * width}",
        )


@local_gather.reference
def _local_gather_reference(
    call: Signature, dst: np.ndarray, src_buffer: np.ndarray, index: np.ndarray, **_: object
) -> Elements:
    rows, indices = src_buffer.reshape(src_buffer.shape[0], -1), index.reshape(index.shape[0], -1)
    core, width = call.target.partitions_per_gpsimd_core, call.num_elem_per_idx
    result = np.empty((rows.shape[0], call.num_valid_indices * width), rows.dtype)
    for start in range(0, rows.shape[0], core):
        served = slice(start, start + core)
        chosen = indices[served].reshape(-1, order="F")[: call.num_valid_indices].astype(np.int64)
        _require_inside(call, chosen, rows.shape[1] - width + 1)
        result[served] = rows[served, np.add.outer(chosen, np.arange(width)).reshape(-1)]
    return Elements(result.reshape(dst.shape), call.dst.dtype)


@local_gather.access
def _local_gather_access(call: Signature) -> str:
    core = call.target.partitions_per_gpsimd_core
    return f"g: dst[(g {core}) f] src_buffer[(g {core}) e] index[(g {core}) i]"


@local_gather.cost
def _local_gather_cost(call: Signature) -> Cost:
    return costs.gpsimd_local_gather(
        call.target, call.num_valid_indices, call.num_elem_per_idx, call.dst.dtype.itemsize
    )


@local_gather.lower
def _local_gather_lower(call: Signature, kernel: MicroKernel) -> None:
    core = call.target.partitions_per_gpsimd_core
    gather.by_group(
        kernel, "dst", "src_buffer", "index", core, call.num_valid_indices, call.num_elem_per_idx
    )


@instruction(writes=("dst",), indexed=True)
def tensor_indirection(
    dst: NkiTensor,
    data: NkiTensor,
    index: NkiTensor,
    count: SupportsIndex,
    group: SupportsIndex,
    name: str | None = None,
) -> None:
    """What an operand `data.indirect(index, count)` of an instruction holds.

    Args:
        dst: SBUF or PSUM tile of data's dtype and partitions, with `count` elements per partition.
        data: SBUF or PSUM tile of P partitions, P a multiple of `group`.
        index: int32, uint32 or uint16 SBUF tile of P partitions.
        count: offsets that are used.
        group: partitions whose part of `index`, partition first, has the offsets of all of them.

    Source: nki.language.NkiTensor.indirect.
    """


@instruction(writes=("dst",), updates=lambda arguments: ("dst",), partly_read=("dst",), indexed=True)
def tensor_scatter(
    dst: NkiTensor,
    data: NkiTensor,
    index: NkiTensor,
    count: SupportsIndex,
    group: SupportsIndex,
    name: str | None = None,
) -> None:
    """What an instruction writes to `dst.indirect(index, count)`; of equal offsets, the last one counts.

    Args:
        dst: SBUF or PSUM tile of P partitions, P a multiple of `group`; other elements stay.
        data: SBUF or PSUM tile of dst's dtype and partitions, with `count` elements per partition.
        index: int32, uint32 or uint16 SBUF tile of P partitions.
        count: offsets that are used.
        group: partitions whose part of `index`, partition first, has the offsets of all of them.

    Source: nki.language.NkiTensor.indirect, which does not say what becomes of equal offsets.
    """


@tensor_indirection.check
@tensor_scatter.check
def _tensor_indirection_check(call: Signature) -> None:
    rules.require_on_chip(call)
    _require_same_dtype(call, "data")
    rules.require_memory(call, "index", MemoryRegion.sbuf)
    rules.require_dtype(call, "index", (dtypes.int32, dtypes.uint32, dtypes.uint16))
    rules.require_same_partitions(call, "data", "index")
    rules.require_same_partitions(call, "data", "dst")
    if call.data.partitions % call.group:
        raise ShapeMismatch(
            instruction="NkiTensor.indirect",
            detail=f"a tile has {call.data.partitions} partitions, of which {call.group} share offsets on this engine",
        )
    available = call.index.free_size * call.group
    if call.count > available:
        raise InvalidOperand(
            instruction="NkiTensor.indirect", operand="num_elem", found=call.count,
            expected=f"1 to {available}, the offsets that {call.group} partitions of index hold",
        )


def _offsets(call: Signature, index: np.ndarray, limit: int) -> Iterator[tuple[slice, np.ndarray]]:
    """The partitions of every group, and the columns that are chosen in them."""
    offsets = index.reshape(index.shape[0], -1).astype(np.uint32)
    for start in range(0, index.shape[0], call.group):
        served = slice(start, start + call.group)
        chosen = offsets[served].reshape(-1, order="F")[: call.count].astype(np.int64)
        _require_inside(call, chosen, limit)
        yield served, chosen


@tensor_indirection.reference
def _tensor_indirection_reference(
    call: Signature, dst: np.ndarray, data: np.ndarray, index: np.ndarray, **_: object
) -> Elements:
    rows = data.reshape(data.shape[0], -1)
    result = np.empty((rows.shape[0], call.count), rows.dtype)
    for served, chosen in _offsets(call, index, rows.shape[1]):
        result[served] = rows[served, chosen]
    return Elements(result.reshape(dst.shape), call.dst.dtype)


@tensor_scatter.reference
def _tensor_scatter_reference(
    call: Signature, dst: np.ndarray, data: np.ndarray, index: np.ndarray, **_: object
) -> Elements:
    rows, values = dst.reshape(dst.shape[0], -1).copy(), data.reshape(data.shape[0], -1)
    for served, chosen in _offsets(call, index, rows.shape[1]):
        for i, column in enumerate(chosen):
            rows[served, column] = values[served, i]
    return Elements(rows.reshape(dst.shape), call.dst.dtype)


@tensor_indirection.access
def _tensor_indirection_access(call: Signature) -> str:
    return f"g: dst[(g {call.group}) f] data[(g {call.group}) e] index[(g {call.group}) i]"


@tensor_scatter.access
def _tensor_scatter_access(call: Signature) -> str:
    return f"g: dst[(g {call.group}) e] data[(g {call.group}) f] index[(g {call.group}) i]"


@tensor_indirection.cost
@tensor_scatter.cost
def _tensor_indirection_cost(call: Signature) -> Cost:
    return costs.gpsimd_local_gather(call.target, call.count, 1, call.dst.dtype.itemsize)


@tensor_indirection.lower
def _tensor_indirection_lower(call: Signature, kernel: MicroKernel) -> None:
    gather.by_group(kernel, "dst", "data", "index", call.group, call.count, 1)


@tensor_scatter.lower
def _tensor_scatter_lower(call: Signature, kernel: MicroKernel) -> None:
    gather.to_group(kernel, "dst", "data", "index", call.group, call.count)


def _group(engine: Engine) -> int:
    """How many partitions share offsets. Source: nki.language.NkiTensor.indirect."""
    return 32 if engine is Engine.tensor else 16


def _gather(operand: indirect.IndirectTensor, tile: NkiTensor, engine: Engine) -> None:
    tensor_indirection(tile, operand.tensor, operand.index, operand.count, _group(engine))


def _scatter(operand: indirect.IndirectTensor, tile: NkiTensor, engine: Engine) -> None:
    tensor_scatter(operand.tensor, tile, operand.index, operand.count, _group(engine))


indirect.gather[0] = _gather
indirect.scatter[0] = _scatter


# --- shared -------------------------------------------------------------------------------------------------


def _require_same_dtype(call: Signature, source: str) -> None:
    found = call.arguments[source].dtype
    if call.dst.dtype != found:
        raise DtypeMismatch(
            instruction=rules.instruction_name(call), detail=f"dst is {call.dst.dtype} and {source} {found}",
            hint="elements are gathered bit by bit: allocate dst with the dtype of what is gathered.",
        )


def _require_inside(call: Signature, positions: np.ndarray, limit: int) -> None:
    outside = positions[positions >= limit]
    if outside.size:
        raise IndirectOutOfBounds(instruction=rules.instruction_name(call), found=int(outside[0]), limit=limit)
