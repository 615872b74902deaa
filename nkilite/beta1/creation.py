"""New tensors of Beta 1: partition dimensions marked by `nl.par_dim`, block dimensions before them, and constants.

Source: nki.language.ndarray, zeros, ones, full, zeros_like, empty_like, rand, shared_constant, shared_identity_matrix.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TypeAlias

import numpy as np

from nkilite import isa as nisa
from nkilite import language
from nkilite.beta1.blocks import Blocks, Tiles
from nkilite.beta1.functional import PSUM, allocated, checked
from nkilite.beta1.grid import shared
from nkilite.beta1.index import Index
from nkilite.beta1.keywords import public
from nkilite.beta1.tile import Tile, tile
from nkilite.beta1.zeros import Zeros
from nkilite.dtypes import DType, DTypeLike, cast
from nkilite.errors import InvalidOperand, describe
from nkilite.ir.types import MemoryRegion
from nkilite.language.creation import as_shape, element_type
from nkilite.language.regions import as_region
from nkilite.trace import active


class par_dim(int):  # the public name
    """`nl.par_dim(128)`: marks the partition dimension of a shape. What stands before it are block dimensions."""

    def __new__(cls, size: object) -> par_dim:
        if isinstance(size, bool) or not isinstance(size, (int, np.integer)):
            raise InvalidOperand(
                instruction="nl.par_dim", operand="size", found=describe(size), expected="an int",
                fix="use // instead of / to compute it" if isinstance(size, float) else "",
            )
        return super().__new__(cls, size)


class Placement:
    """A memory with an allocation function: `ncc.sbuf.mod_alloc(...)`. The planner places tiles all the same."""

    def __init__(self, region: MemoryRegion) -> None:
        self.region = region


ShapeLike: TypeAlias = "int | np.integer | Sequence[int]"
# What arguments of new tensors mean.
_known: dict[tuple[object, ...], tuple[MemoryRegion, DType, tuple[int, ...], tuple[int, ...]]] = {}


def _region(buffer: object) -> MemoryRegion:
    if isinstance(buffer, Placement):
        return buffer.region
    if buffer is None:
        return MemoryRegion.sbuf
    return as_region(getattr(buffer, "region", buffer), "ndarray")


@public
def ndarray(shape: ShapeLike, dtype: DTypeLike, buffer: object = None, name: str = "") -> Tile | Blocks:
    """A new, uninitialized tensor: in SBUF unless `buffer` says otherwise.

    Args:
        shape: sizes; `nl.par_dim(n)` marks the partition dimension, which is the first unless one is marked.
        dtype: an nl dtype, a NumPy type, or a name.
        buffer: a memory, or a placement of nki.compiler.

    Raises:
        InvalidOperand, PartitionLimitExceeded, MemoryOverflow, HbmOverflow: as nl.ndarray of NKI.
    """
    return new_tensor(shape, dtype, buffer, name, "ndarray", None)


def new_tensor(
    given: ShapeLike, dtype: DTypeLike, buffer: object, name: str, function: str, value: float | None
) -> Tile | Blocks:
    """A new tensor, filled unless `value` is None; `function` names it in messages."""
    shape = (given,) if isinstance(given, (int, np.integer)) else tuple(given)
    marked = 0
    for dim, size in enumerate(shape):
        if size.__class__ is par_dim:
            marked = dim
            break
    key = marked, shape, dtype, buffer, function
    try:
        region, kind, sizes, inner = _known[key]
    except (KeyError, TypeError):  # new, or not what it should be: explained below
        region, kind = _region(buffer), element_type(dtype, function)
        sizes = as_shape(shape, function)
        inner = sizes[marked:] if len(sizes) - marked > 1 else (*sizes[marked:], 1)
        if not isinstance(buffer, Placement) and all(isinstance(n, int) for n in shape):
            _known[key] = region, kind, sizes, inner
    if not region.on_chip:
        return _in_hbm(sizes, kind, region, name, value)
    if not marked:
        return _tile(inner, kind, region, value)
    builder = active.builder("nl.ndarray")
    place = builder.place(sys._getframe(1))
    tiles = Tiles(builder, checked(builder, inner, kind, region), place, value is not None)
    if value is not None and not (value == 0 and region is PSUM):
        for number in range(int(np.prod(sizes[:marked]))):
            view = builder.tile(checked(builder, inner, kind, region), "", place)
            nisa.memset(view, value)
            tiles[number] = tile(view)
    return Blocks(sizes[:marked], inner, kind, region, tiles)


_OURS = 3  # _tile, what makes a new tensor, and the public function


def _tile(shape: tuple[int, ...], dtype: DType, region: MemoryRegion, value: float | None) -> Tile:
    view = allocated(shape, dtype, region, _OURS)
    if value is None:
        return tile(view)
    if value == 0 and region is PSUM:
        return Zeros(view)
    nisa.memset(view, value)
    return tile(view)


def _in_hbm(shape: tuple[int, ...], dtype: DType, region: MemoryRegion, name: str, value: float | None) -> Tile:
    builder = active.builder("nl.ndarray")
    place = builder.program.locations[builder.place(sys._getframe(1))]
    found, new = shared(builder, shape, dtype, region, name or "", place)
    if value is not None and new:
        language.creation.fill(found, value)
    return tile(found)


@public
def zeros(
    shape: ShapeLike, dtype: DTypeLike = np.float32, buffer: object = None, name: str = ""
) -> Tile | Blocks:
    """A new tensor of zeros."""
    return new_tensor(shape, dtype, buffer, name, "zeros", 0)


@public
def ones(
    shape: ShapeLike, dtype: DTypeLike = np.float32, buffer: object = None, name: str = ""
) -> Tile | Blocks:
    """A new tensor of ones."""
    return new_tensor(shape, dtype, buffer, name, "ones", 1)


@public
def full(
    shape: ShapeLike, fill_value: float, dtype: DTypeLike = np.float32, buffer: object = None, name: str = ""
) -> Tile | Blocks:
    """A new tensor with every element `fill_value`."""
    return new_tensor(shape, dtype, buffer, name, "full", fill_value)


@public
def zeros_like(
    a: Tile | Blocks, dtype: DTypeLike | None = None, buffer: object = None, name: str = ""
) -> Tile | Blocks:
    """A new tensor of zeros with the shape of `a`, and its dtype and memory unless given."""
    return _like(a, dtype, buffer, name, 0)


@public
def empty_like(
    a: Tile | Blocks, dtype: DTypeLike | None = None, buffer: object = None, name: str = ""
) -> Tile | Blocks:
    """A new tensor with the shape of `a`, and its dtype and memory unless given."""
    return _like(a, dtype, buffer, name, None)


def _like(a: Tile | Blocks, dtype: DTypeLike | None, buffer: object, name: str, value: float | None) -> Tile | Blocks:
    shape = (*a.blocks, par_dim(a.inner[0]), *a.inner[1:]) if isinstance(a, Blocks) else a.shape
    region = a.buffer if buffer is None else buffer
    return new_tensor(shape, a.dtype if dtype is None else dtype, region, name, "zeros_like", value)


@public
def rand(shape: Sequence[int], dtype: DTypeLike = np.float32) -> Tile:
    """A new tile of uniform random values in [0, 1)."""
    return tile(language.rand(tuple(shape), element_type(dtype, "rand")))


@public
def shared_constant(constant: object, dtype: DTypeLike | None = None) -> Tile:
    """An HBM tensor with constant data, converted to `dtype` if given."""
    array = constant.numpy() if isinstance(constant, Index) else np.asarray(constant)
    if dtype is not None:
        array = cast(array, element_type(dtype, "shared_constant"))
    elif array.dtype == np.float64:
        array = array.astype(np.float32)
    elif array.dtype == np.int64:
        array = array.astype(np.int32)
    return tile(language.shared_constant(array))


@public
def shared_identity_matrix(n: int, dtype: DTypeLike = np.uint8) -> Tile:
    """The n x n identity in HBM, as of shared_constant."""
    (size,) = as_shape((n,), "shared_identity_matrix")
    return shared_constant(np.identity(size, np.uint8), dtype)
