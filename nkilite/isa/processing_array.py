"""The Tensor Engine's array of processing elements: the limits that its matrix multiplications share."""

from __future__ import annotations

import numpy as np

from nkilite.errors import (
    FreeSizeExceeded,
    InvalidOperand,
    PartitionLimitExceeded,
    PsumBankExceeded,
    ShapeMismatch,
)
from nkilite.ir.program import Signature
from nkilite.isa import rules


def normalize_tile(arguments: dict[str, object]) -> None:
    """An unset tile_position or tile_size, which means the whole array, becomes an empty tuple."""
    for name in ("tile_position", "tile_size"):
        arguments[name] = () if arguments[name] is None else arguments[name]


def require_whole(call: Signature) -> None:
    """Raise InvalidOperand for a call with indirect operands that begins at another place of the array."""
    if call.tile_position not in ((), (0, 0)):
        raise InvalidOperand(
            instruction=rules.instruction_name(call), operand="tile_position", found=call.tile_position,
            expected="unset or (0, 0) with NkiTensor.indirect",
        )


def require_sizes(call: Signature, stationary: int, moving: int, all_columns: str = "") -> None:
    """Check the sizes of a product of `stationary` columns with `moving` columns, over the partitions of both.

    Args:
        all_columns: why the call needs every column of the array, if it does.

    Raises:
        InvalidOperand: an impossible tile_position or tile_size.
        PsumBankExceeded: dst does not fit in a bank, where it has to.
        PartitionLimitExceeded, FreeSizeExceeded: partitions or columns are too many for the array or for PSUM.
        ShapeMismatch: the operands' partitions differ, or dst has not the shape of the product.
    """
    rows, columns = _tile(call, all_columns)
    _require_bank(call)
    name, partitions = rules.instruction_name(call), call.stationary.partitions
    if partitions > rows:
        raise PartitionLimitExceeded(what=f"{name}: stationary", found=partitions, limit=rows)
    if partitions != call.moving.partitions:
        raise ShapeMismatch(
            instruction=name,
            detail=f"stationary {call.stationary.shape} has {partitions} partitions and moving "
            f"{call.moving.shape} {call.moving.partitions}: the sum runs over the partitions of both",
        )
    _require_columns(call, "stationary", stationary, columns)
    short = call.dst.dtype.itemsize == 2
    longest = call.target.matmul_moving_fmax_16bit if short else call.target.matmul_moving_fmax_32bit
    _require_columns(call, "moving", moving, longest)
    if (call.dst.partitions, call.dst.free_size) != (stationary, moving):
        raise ShapeMismatch(
            instruction=name,
            detail=f"dst has shape {call.dst.shape}; stationary {call.stationary.shape} and moving "
            f"{call.moving.shape} make {stationary} partitions of {moving} elements",
        )


def _require_columns(call: Signature, operand: str, found: int, limit: int) -> None:
    if found > limit:
        raise FreeSizeExceeded(
            instruction=rules.instruction_name(call), operand=operand, found=found, limit=limit,
            target=call.target.name,
        )


def _require_bank(call: Signature) -> None:
    """Where results may not cross PSUM banks, one bank has to hold them."""
    limit = call.target.psum_bank_bytes
    if not call.target.tensor_results_cross_banks and call.dst.free_bytes > limit:
        raise PsumBankExceeded(
            instruction=rules.instruction_name(call), operand="dst", found=call.dst.free_bytes, limit=limit,
            limit_elements=call.target.psum_bank_fmax,
        )


def _tile(call: Signature, all_columns: str) -> tuple[int, int]:
    """Rows and columns of the array that the call uses.

    Raises:
        InvalidOperand: sizes the array cannot be cut into, or a position that is not a multiple of them.
    """
    whole = (call.target.pe_rows, call.target.pe_columns)
    size, position = (call.arguments.get(name, ()) for name in ("tile_size", "tile_position"))
    if not size and not position:
        return whole
    sizes = call.target.pe_tile_sizes
    if not _pair(size) or any(n not in sizes for n in size):
        raise InvalidOperand(
            instruction=rules.instruction_name(call), operand="tile_size", found=repr(size),
            expected=f"(rows, columns) along with tile_position, each one of {sizes} on {call.target.name}",
        )
    starts = [range(0, w, n) for w, n in zip(whole, size, strict=True)]
    if not _pair(position) or any(p not in s for p, s in zip(position, starts, strict=True)):
        raise InvalidOperand(
            instruction=rules.instruction_name(call), operand="tile_position", found=repr(position),
            expected=f"(row, column), multiples of tile_size {tuple(size)} below {whole[0]}",
        )
    if all_columns and size[1] != whole[1]:
        raise InvalidOperand(
            instruction=rules.instruction_name(call), operand="tile_size", found=repr(size),
            expected=f"{whole[1]} columns {all_columns}",
        )
    return size[0], size[1]


def _pair(value: object) -> bool:
    whole = (int, np.integer)
    return isinstance(value, tuple) and len(value) == 2 and all(isinstance(v, whole) for v in value)
