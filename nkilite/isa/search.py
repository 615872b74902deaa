"""Searches along each partition by the Vector Engine: max8, nc_find_index8 and nc_match_replace8."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from nkilite import dtypes
from nkilite.codegen import search
from nkilite.codegen.kernel import MicroKernel
from nkilite.dtypes import Elements, cast
from nkilite.errors import FreeSizeExceeded, InvalidOperand, ShapeMismatch
from nkilite.ir.program import Signature
from nkilite.ir.types import ViewType
from nkilite.isa import rules
from nkilite.machine import engine as costs
from nkilite.machine.engine import Cost
from nkilite.trace.instruction import instruction
from nkilite.trace.tensor import NkiTensor

MIN_ELEMENTS, MAX_ELEMENTS = 8, 16384
_DIMENSIONS = 3  # of what is searched, partitions included
_INDICES = (dtypes.uint16, dtypes.uint32)


@instruction(writes=("dst",), access="p: dst[p s] src[p f]")
def max8(dst: NkiTensor, src: NkiTensor, name: str | None = None) -> None:
    """The 8 largest elements of each partition in descending order, on the Vector Engine.

    Equal elements appear as often as they occur. Elements are compared as float32 and rounded to dst's dtype;
    NaN counts as -inf.

    Args:
        dst: SBUF or PSUM tile of shape (P, 8).
        src: SBUF or PSUM tile of P partitions with 8 to 16384 elements each, in any free shape and unpacked
            dtype.

    Raises:
        WrongMemory: an operand is in HBM.
        ShapeMismatch: partitions differ, or dst has not 8 elements per partition.
        InvalidOperand, FreeSizeExceeded: src has fewer than 8 or more than 16384 elements per partition.
        UnsupportedDtype: a packed dtype.

    Source: nki.isa.max8.
    """


@max8.check
def _max8_check(call: Signature) -> None:
    _check(call, "src", "dst")
    rules.require_dimensions(call, "src", _DIMENSIONS)
    rules.require_dimensions(call, "dst", 2, 2)
    rules.require_dtype(call, "dst", rules.UNPACKED)


@max8.reference
def _max8_reference(call: Signature, dst: np.ndarray, src: np.ndarray) -> np.ndarray:
    rows = src.reshape(src.shape[0], -1).astype(np.float32)
    rows = np.where(np.isnan(rows), np.float32("-inf"), rows)
    # Sorting all of a row takes six times as long: first those that are not less than the last one wanted.
    least = np.partition(rows, -search.SLOTS, axis=1)[:, -search.SLOTS, None]
    large = rows >= least
    columns = np.argsort(~large, axis=1, kind="stable")[:, : large.sum(axis=1).max()]
    candidates = np.take_along_axis(np.where(large, rows, np.float32("-inf")), columns, axis=1)
    order = np.argsort(-candidates, axis=1, kind="stable")[:, : search.SLOTS]
    return np.take_along_axis(candidates, order, axis=1)


@max8.cost
def _max8_cost(call: Signature) -> Cost:
    return _cost(call, "src")


@max8.lower
def _max8_lower(call: Signature, kernel: MicroKernel) -> None:
    search.largest(kernel, "dst", "src")


@instruction(writes=("dst",), access="p: dst[p s] data[p f] vals[p s]")
def nc_find_index8(dst: NkiTensor, data: NkiTensor, vals: NkiTensor, name: str | None = None) -> None:
    """Where each of 8 values first occurs in its partition of `data`, on the Vector Engine.

    The position is the row-major index in the partition, from 0. Values are compared as float32. When `vals`
    holds a value several times, its slots get successive occurrences, the lowest slot the first. A slot
    without an occurrence gets all ones: 0xFFFF or 0xFFFFFFFF.

    Args:
        dst: uint16 or uint32 tile of shape (P, 8).
        data: SBUF or PSUM tile of P partitions with 8 to 16384 elements each, in any free shape and unpacked
            dtype.
        vals: tile of P partitions with 8 elements each.

    Raises:
        WrongMemory: an operand is in HBM.
        ShapeMismatch: partitions differ, or dst or vals has not 8 elements per partition.
        InvalidOperand, FreeSizeExceeded: data has fewer than 8 or more than 16384 elements per partition.
        UnsupportedDtype: dst is not uint16 or uint32, or another operand is packed.

    Source: nki.isa.nc_find_index8; for repeated values, its comparison in nki.isa.nc_match_replace8.
    """


@nc_find_index8.check
def _nc_find_index8_check(call: Signature) -> None:
    _check(call, "data", "vals", "dst")
    for operand in ("data", "vals"):
        rules.require_dimensions(call, operand, _DIMENSIONS)
    rules.require_dimensions(call, "dst", 2, 2)
    rules.require_dtype(call, "dst", _INDICES)


@nc_find_index8.reference
def _nc_find_index8_reference(call: Signature, dst: np.ndarray, data: np.ndarray, vals: np.ndarray) -> np.ndarray:
    return _match(data, vals, range(search.SLOTS)).astype(dst.dtype)


@nc_find_index8.cost
def _nc_find_index8_cost(call: Signature) -> Cost:
    return _cost(call, "data")


@nc_find_index8.lower
def _nc_find_index8_lower(call: Signature, kernel: MicroKernel) -> None:
    search.match(kernel, "data", "vals", "dst")


@instruction(writes=("dst", "dst_idx"), access="p: dst[p f] data[p f] vals[p s] dst_idx[p s]")
def nc_match_replace8(
    dst: NkiTensor,
    data: NkiTensor,
    vals: NkiTensor,
    imm: float,
    dst_idx: NkiTensor | None = None,
    name: str | None = None,
) -> None:
    """Copy `data` with the first occurrence of each of 8 values replaced by `imm`, on the Vector Engine.

    Values are compared as float32. When `vals` holds a value several times, its slots get successive
    occurrences, the highest slot the first (the reverse of nc_find_index8). Elements that are not replaced
    keep their bits when dst has data's dtype and are converted through float32 otherwise.

    Args:
        dst: SBUF or PSUM tile with the partitions and elements of `data`; may be `data` itself.
        data: SBUF or PSUM tile of P partitions with 8 to 16384 elements each, in any free shape and unpacked
            dtype.
        vals: tile of P partitions with 8 elements each.
        imm: the number that replaces them, rounded to dst's dtype.
        dst_idx: uint16 or uint32 tile of shape (P, 8) that receives the positions replaced, row-major in the
            partition; all ones for a value that does not occur. None to leave them out.

    Raises:
        WrongMemory: an operand is in HBM.
        ShapeMismatch: partitions or elements differ, or vals or dst_idx has not 8 elements per partition.
        InvalidOperand, FreeSizeExceeded: data has fewer than 8 or more than 16384 elements per partition.
        UnsupportedDtype: dst_idx is not uint16 or uint32, or another operand is packed.

    Source: nki.isa.nc_match_replace8.
    """


@nc_match_replace8.check
def _nc_match_replace8_check(call: Signature) -> None:
    _check(call, "data", "vals", "dst_idx")
    rules.require_same_elements(call, "dst", "data")
    rules.require_dtype(call, "dst", rules.UNPACKED)
    rules.require_dtype(call, "dst_idx", _INDICES)


@nc_match_replace8.reference
def _nc_match_replace8_reference(
    call: Signature,
    dst: np.ndarray,
    data: np.ndarray,
    vals: np.ndarray,
    imm: float,
    dst_idx: np.ndarray | None,
) -> Elements | tuple[Elements, np.ndarray]:
    indices = _match(data, vals, reversed(range(search.SLOTS)))
    elements = Elements(data.reshape(data.shape[0], -1), call.data.dtype)
    replaced = np.array(cast(elements, call.dst.dtype))
    partition, slot = np.nonzero(indices >= 0)
    replaced[partition, indices[partition, slot]] = cast(np.array([imm], np.float32), call.dst.dtype)[0]
    result = Elements(replaced, call.dst.dtype)
    return result if dst_idx is None else (result, indices.astype(dst_idx.dtype))


@nc_match_replace8.cost
def _nc_match_replace8_cost(call: Signature) -> Cost:
    return _cost(call, "data", "dst")


@nc_match_replace8.lower
def _nc_match_replace8_lower(call: Signature, kernel: MicroKernel) -> None:
    indices = "dst_idx" if kernel.has("dst_idx") else None
    search.match(kernel, "data", "vals", indices, "dst", "imm", last_slot_first=True)


# --- shared -------------------------------------------------------------------------------------------------


def _check(call: Signature, searched: str, *eights: str) -> None:
    """Check memories, dtypes and shapes of the tile searched and of the operands of eight elements."""
    rules.require_on_chip(call)
    data = call.arguments[searched]
    rules.require_dtype(call, searched, rules.UNPACKED)
    if data.free_size < MIN_ELEMENTS:
        raise InvalidOperand(
            instruction=rules.instruction_name(call),
            operand=searched,
            found=f"{data.free_size} elements per partition",
            expected=f"{MIN_ELEMENTS} to {MAX_ELEMENTS} elements per partition",
        )
    if data.free_size > MAX_ELEMENTS:
        raise FreeSizeExceeded(
            instruction=rules.instruction_name(call),
            operand=searched,
            found=data.free_size,
            limit=MAX_ELEMENTS,
            target=call.target.name,
        )
    for operand in eights:
        kind = call.arguments[operand]
        if not isinstance(kind, ViewType):
            continue
        if kind.partitions != data.partitions or kind.free_size != search.SLOTS:
            raise ShapeMismatch(
                instruction=rules.instruction_name(call),
                detail=f"{operand} has shape {kind.shape}; it must be ({data.partitions}, {search.SLOTS}): "
                f"{search.SLOTS} elements for each partition of {searched}",
            )
        rules.require_dtype(call, operand, rules.UNPACKED)


def _match(data: np.ndarray, vals: np.ndarray, slots: Iterable[int]) -> np.ndarray:
    """[P, 8] positions, -1 where there is none; slots earlier in `slots` take earlier occurrences."""
    rows = data.reshape(data.shape[0], -1).astype(np.float32)
    wanted = vals.reshape(vals.shape[0], -1).astype(np.float32)
    found = np.full(wanted.shape, -1)
    free = np.ones(rows.shape, bool)
    partitions = np.arange(rows.shape[0])
    for slot in slots:
        equal = (rows == wanted[:, slot, None]) & free
        first = equal.argmax(axis=1)
        matched = equal[partitions, first]
        found[matched, slot] = first[matched]
        free[partitions[matched], first[matched]] = False
    return found


def _cost(call: Signature, *tiles: str) -> Cost:
    operands = [rules.cost_operand(call.arguments[t]) for t in tiles]
    return costs.vector_stream(call.target, call.arguments[tiles[0]].free_size, operands)
