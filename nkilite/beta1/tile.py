"""What Beta-1 kernels compute with: tensors in HBM and tiles on chip, indexed by index tensors, assigned to, and joined
by Python operators.

A tile wraps a view of the tracer. Operators, methods that compute and assignment are defined where instructions are
(nkilite/beta1/arithmetic.py, assign.py).
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from math import prod
from sys import getrefcount
from types import FrameType
from typing import NoReturn, cast

import numpy as np

from nkilite.beta1 import select
from nkilite.beta1.index import Index, LoopIndex
from nkilite.beta1.mask import Box, Mask
from nkilite.dtypes import DType, DTypeLike, bool_, float32
from nkilite.errors import IndexOutOfBounds, ShapeMismatch, TensorAsNumber, TensorOperator, UnknownName
from nkilite.ir.types import Buffer, MemoryRegion, ViewType
from nkilite.suggest import unknown_attribute
from nkilite.trace.builder import Builder
from nkilite.trace.indexing import of_tensor
from nkilite.trace.tensor import NkiTensor

_WHOLE = tuple((slice(None),) * ndim for ndim in range(7))  # subscripts that select everything
#: What to use in the place of methods that arrays have and tiles do not.
_METHODS = {
    "T": "use nl.transpose, or nl.load_transpose2d as it is loaded.",
    **{name: f"use nl.{name}." for name in ("copy", "max", "mean", "min", "prod", "sum", "transpose", "var")},
    "item": "the value is not known while the kernel is traced; use a tile of one element as an operand.",
    "to": "use nl.copy with a dtype.",
}
_FOREIGN = "psum written by other engines"


def _references(held: bool, in_place: bool) -> int:
    """The references Python itself holds to a value that is assigned, or added in place, here."""
    seen: list[int] = []

    class Probe:
        def __setitem__(self, key: object, value: object) -> None:
            seen.append(getrefcount(value))

        def __iadd__(self, value: object) -> Probe:
            seen.append(getrefcount(value))
            return self

    probe = Probe()
    kept = object()
    if in_place:
        if held:
            probe += kept
        else:
            probe += object()
    elif held:
        probe[0] = kept
    else:
        probe[0] = object()
    return seen[0]


def _of_temporaries(in_place: bool) -> int:
    """References to a value that no variable holds; 0 where that cannot be told, so that all seem to be held."""
    temporary = _references(False, in_place)
    return temporary if temporary < _references(True, in_place) else 0


#: References to a new tile at the beginning of `__setitem__` and `__iadd__` if nothing else can see the tile. Only then
#: may its instruction write elsewhere instead.
IN_SETITEM, IN_IADD = _of_temporaries(False), _of_temporaries(True)
#: The same if one local variable holds it, which may be as many (from Python 3.14 on).
LOCAL_IN_SETITEM, LOCAL_IN_IADD = _references(True, False), _references(True, True)


def is_local(value: object, frame: FrameType) -> bool:
    """Whether a local variable of a frame holds a value."""
    return any(local is value for local in frame.f_locals.values())


def is_held(references: int, value: object, frame: FrameType) -> bool:
    """Whether something else can see a new tile that a frame assigns, by the references at the beginning of
    `__setitem__`."""
    if IN_SETITEM:
        return references > IN_SETITEM
    return references > LOCAL_IN_SETITEM or is_local(value, frame)



def _of_owner() -> int:
    """References to what only one object has as an attribute, where they are counted here."""
    owner = NkiTensor()
    owner.storage = object()  # type: ignore[assignment]
    return getrefcount(owner.storage)


_OF_OWNER = _of_owner()




def refuse_array() -> NoReturn:
    """What NumPy is told that wants the elements of a tile."""
    raise TensorAsNumber(
        use="a NumPy array", hint="use functions of nl and nisa; while simulating, numpy() shows the values."
    )


class Tile:
    """A tensor in HBM, or a tile in SBUF or PSUM.

    Attributes:
        nki: the tracer's view, made when it is asked for; storage, kind, offset: its buffer, its type, and where in the
            buffer it begins, in bytes. Subclasses may have a view alone.
        made: number of instructions when the one that made this new tile had been recorded, else -1: while no other
            follows, an assignment can let it write elsewhere.
        mask: what positions hold something; None for all.
    """

    __slots__ = ("_nki", "_words", "kind", "made", "mask", "offset", "storage")

    settled = True  # whether it is inside of its tensor, and where it is does not depend on what instructions do
    storage: Buffer
    kind: ViewType
    offset: int
    made: int
    mask: Mask | None
    _nki: NkiTensor | None
    _words: tuple[Builder, int, int, int]  # of an unplaced tile; see there

    # --- attributes -----------------------------------------------------------------------------------------------

    @property
    def nki(self) -> NkiTensor:
        view = self._nki
        if view is None:
            view = self._nki = NkiTensor.of(self.storage, self.kind, self.offset)
        return view

    @property
    def shape(self) -> tuple[int, ...]:
        return self.kind.shape

    @property
    def dtype(self) -> DType:
        return self.kind.dtype

    @property
    def ndim(self) -> int:
        return len(self.shape)

    @property
    def size(self) -> int:
        return prod(self.shape)

    @property
    def itemsize(self) -> int:
        return self.dtype.itemsize

    @property
    def buffer(self) -> MemoryRegion:
        return self.kind.region

    @property
    def name(self) -> str:
        return self.nki.name

    def assert_shape(self, shape: Sequence[int]) -> Tile:
        """This tile, if it has the shape. Raises ShapeMismatch."""
        if tuple(shape) != tuple(self.shape):
            detail = f"the tile has shape {self.shape}, not {tuple(shape)}"
            raise ShapeMismatch(instruction="assert_shape", detail=detail)
        return self

    def numpy(self) -> np.ndarray:
        """The values, while simulating; a copy. Raises TensorAsNumber while a kernel is traced."""
        return self.nki.numpy()

    def __array__(self, *_: object, **__: object) -> NoReturn:
        refuse_array()

    def __contains__(self, _: object) -> NoReturn:
        raise TensorAsNumber(use="a container that `in` looks through", hint="compare on the device, with nl.equal.")

    def __len__(self) -> int:
        return self.shape[0]

    def __bool__(self) -> bool:
        """True, as `if bias:` asks whether there is a tile; the outcome of a comparison is none that Python knows."""
        kind = self.dtype
        if kind is bool_ and self.buffer.on_chip:
            raise TensorAsNumber(
                use="a condition", hint="choose by it with nl.where; `is not None` asks whether there is a tile."
            )
        return True

    def __format__(self, format: str) -> str:
        if format:
            raise TensorAsNumber(use="a number to be formatted", hint="nl.device_print prints it when the kernel runs.")
        return repr(self)

    @classmethod
    def unknown_attribute(cls, name: str) -> UnknownName:
        """The error for an attribute it does not have, in the place of Python's."""
        return unknown_attribute(cls, "tile", name, _METHODS)

    def __matmul__(self, _: object) -> NoReturn:
        raise TensorOperator(symbol="@", function="matmul")

    __rmatmul__ = __matmul__

    def __repr__(self) -> str:
        return repr(self.nki).replace("NkiTensor", "tensor", 1)

    def _refuse(self) -> NoReturn:
        raise TensorAsNumber(
            use="a Python number", hint="index with the tile itself, or pass the value as a compile-time argument."
        )

    __index__ = __int__ = __float__ = _refuse

    # --- views ------------------------------------------------------------------------------------------------------

    def __getitem__(self, key: object) -> Tile:
        """Index with ints, slices, index tensors, nl.ds, or tiles of indices.

        Raises:
            IndexOutOfBounds, EmptySlice, TooManyIndices, InvalidIndex: at once, or for index tensors that leave a
                dimension when an instruction uses the tile without a mask that keeps them inside.
        """
        if key.__class__ is not tuple:
            return self if key is Ellipsis else subscript[0](self, key)
        if key and key[0].__class__ is not slice:
            known = known_part(self, key)
            if known is not None:
                return known
        elif self.mask is None and len(key) == len(self.shape) < len(_WHOLE) and key == _WHOLE[len(key)]:
            return self
        plain, advanced = _kinds(key)
        if plain:
            return self._sliced(key)
        if not advanced:
            return self._mixed(key)
        view = self.nki
        if len(key) != len(view.type.shape):
            return subscript[0](self, key)
        try:
            found = select.select(view, key)
            select.keep(view, key, found)
            return tile(found)
        except select.Outside:
            return Beyond(view, key)

    def _sliced(self, key: tuple[object, ...]) -> Tile:
        """What a subscript of ints and slices selects."""
        try:
            return tile(self.nki[key])
        except IndexOutOfBounds:
            items = select.spread(self.nki, key)
            if items is None:
                raise
            return Beyond(self.nki, items)

    def _mixed(self, key: tuple[object, ...]) -> Tile:
        """What a subscript selects that has slices beside index tensors, or other items."""
        view, hashable = self.nki, select.hashable(key)
        found = known_part(self, hashable)
        if found is not None:
            return found
        made = subscript[0](self, key)
        if made.__class__ is Tile and made.mask is None and select.is_static(key):
            select.keep(view, hashable, made.nki)
        return made

    def __setitem__(self, key: object, value: object) -> None:
        """Copy a tile or a number into the view. See nkilite/beta1/assign.py."""
        if value.__class__ is Unplaced:
            if is_held(getrefcount(value) - 1, value, sys._getframe(1)):
                value.settle()
                value.made = -1
        elif isinstance(value, Tile) and value.made >= 0 and is_held(getrefcount(value), value, sys._getframe(1)):
            value.made = -1
        assign[0](self[key], value)

    def reshape(self, *shape: object, **named: object) -> Tile:
        """The same elements in row-major order under another shape; on chip partitions keep their dimension."""
        wanted = named["shape"] if named else shape[0] if len(shape) == 1 else shape
        return tile(self.nki.reshape(tuple(map(int, wanted)) if isinstance(wanted, (tuple, list)) else wanted))

    def expand_dims(self, axis: int) -> Tile:
        """A view with a dimension of size 1 inserted at `axis`."""
        return tile(self.nki.expand_dim(axis + self.ndim + 1 if axis < 0 else axis))

    def broadcast_to(self, *shape: object) -> Tile:
        """The tile repeated to a shape."""
        return broadcast[0](self, cast("Sequence[int]", shape[0] if len(shape) == 1 else shape))

    def astype(self, dtype: DTypeLike) -> Tile:
        """A copy in SBUF with another dtype."""
        return convert[0](self, dtype)

    def view(self, dtype: DTypeLike) -> Tile:
        """The bits as another dtype."""
        return tile(self.nki.view(dtype))

    def __iter__(self) -> NoReturn:
        raise TensorAsNumber(use="an iterable", hint="loop over a range and index the tensor.")


def tile(view: NkiTensor) -> Tile:
    """A tile over a view."""
    made = Tile()
    made._nki, made.made, made.mask = view, -1, None
    made.storage, made.kind, made.offset = view.storage, view.type, view.byte_offset
    return made


def part(storage: Buffer, kind: ViewType, offset: int) -> Tile:
    """A tile of a type in a buffer, from a byte on; its view is made when it is asked for."""
    made = Tile()
    made._nki, made.made, made.mask = None, -1, None
    made.storage, made.kind, made.offset = storage, kind, offset
    return made


def known_part(x: Tile, key: tuple[object, ...]) -> Tile | None:
    """What a subscript selects of a tile if it has selected something of such a view before; None otherwise."""
    if x.__class__ is not Tile or (x._nki is not None and x._nki.index is not None):
        found = select.find(x.nki, key)
        return None if found is None else tile(found)
    try:
        kind, distance, numbers = select.known[x.kind][key]
    except (KeyError, TypeError):  # new, or with slices in it
        return None
    for position in numbers:
        if key[position].__class__ in select.UNEQUAL:
            return None
    return part(x.storage, kind, x.offset + distance)


class Unplaced(Tile):
    """A new tile that an instruction of its own has made and nothing has used: it has no buffer yet, for most are
    assigned at once. It becomes a tile as others when it gets one.

    Attributes:
        _words: its builder, where the words of the instruction begin, where they have the tile, and the location id
            of the call.
    """

    __slots__ = ()

    @property
    def nki(self) -> NkiTensor:
        return self.settle()

    def settle(self) -> NkiTensor:
        """Its view, in a buffer of its own."""
        builder, start, at, place = self._words
        view = builder.tile(self.kind, "", place)
        builder.words[at] = view.storage.id
        if builder.program.count == self.made:
            builder.last = self.made - 1, start
        builder.unplaced = None
        del self._words
        self.__class__ = Tile  # type: ignore[assignment]
        self._nki, self.storage, self.offset = view, view.storage, 0
        return view

    def placed(self, buffer: Buffer, kind: ViewType, offset: int, accumulate: bool = False) -> bool:
        """Let its instruction write to, or add to, a view of a buffer. Returns whether it does.

        Nothing else may be able to see this tile.
        """
        builder, start, at, _ = self._words
        made = self.kind
        if builder.program.count != self.made:
            return False
        words = builder.words
        key = words[start], kind, accumulate
        try:
            found = builder.placements[key]
        except KeyError:
            found = None
            if _fits(made, kind, accumulate):
                found = builder.elsewhere(builder.program.signatures[words[start]], kind, accumulate)
            builder.placements[key] = found
        if found is None or start + found[1] != at:
            return False
        if kind.region is MemoryRegion.psum:
            if accumulate:
                if buffer.id in foreign(builder):
                    return False
            elif made.region is not MemoryRegion.psum:
                foreign(builder).add(buffer.id)
        words[start] = found[0]
        words[at] = buffer.open_id
        words[at + 1] = offset
        builder.unplaced = None
        return True


def _fits(made: ViewType, dst: ViewType, accumulate: bool) -> bool:
    """Whether what an instruction writes to a tile of its own it can write, or add, to a view."""
    if made.shape[0] != dst.shape[0] or made.free_size != dst.free_size or not dst.region.on_chip:
        return False
    if accumulate:
        return dst.region is MemoryRegion.psum and made.dtype is float32 and dst.dtype is float32
    return made.dtype is dst.dtype or made.dtype is float32


def foreign(builder: Builder) -> set[int]:
    """The numbers of the PSUM tiles that other engines than the Tensor Engine have written."""
    constants: dict[str, set[int]] = builder.constants  # type: ignore[assignment]
    found = constants.get(_FOREIGN)
    if found is None:
        found = constants[_FOREIGN] = set()
    return found


def has_other_views(x: Tile, holders: int) -> bool:
    """Whether what a tile is a view of is seen through others, too, apart from those who hold it anyway."""
    return getrefcount(x.nki) > _OF_OWNER or getrefcount(x.storage) > _OF_OWNER + holders + 1  # its view has it, too


class Beyond(Tile):
    """A subscript whose index tensors leave the tensor; a mask has to keep them inside."""

    __slots__ = ("base", "key")
    settled = False

    def __init__(self, base: NkiTensor, key: tuple[object, ...]) -> None:
        self.base, self.key, self.made, self.mask = base, key, -1, None

    @property
    def nki(self) -> NkiTensor:
        try:
            return select.select(self.base, self.key)
        except select.Outside as found:
            dim, low, high = found.args
            size = self.base.shape[dim]
            index = high if high >= size else low
            raise IndexOutOfBounds(index=index, dim=dim, size=size, of=of_tensor(self.base)) from None

    @property
    def shape(self) -> tuple[int, ...]:
        return select.selected_shape(self.base, self.key)

    @property
    def dtype(self) -> DType:
        return self.base.dtype

    @property
    def buffer(self) -> MemoryRegion:
        return self.base.buffer

    def __repr__(self) -> str:
        return f"a subscript of {self.base.storage.label} that a mask has to keep inside"

    def cut(self, box: Box) -> NkiTensor:
        """The view of the positions in a box. Raises IndexOutOfBounds where they leave the tensor, too."""
        return Beyond(self.base, select.narrowed(self.key, box)).nki


class Gathered(Beyond):
    """A subscript with a tile of indices."""

    __slots__ = ()

    @property
    def nki(self) -> NkiTensor:
        return gather[0](self.base, self.key, None)

    @property
    def shape(self) -> tuple[int, ...]:
        return self.nki.shape

    def cut(self, box: Box) -> NkiTensor:
        return gather[0](self.base, self.key, box)


def cut(x: Tile, box: Box) -> NkiTensor:
    """The view of a tile's positions in a box, which may have other ranges where the tile has size 1."""
    if isinstance(x, Beyond):
        return x.cut(box)
    view = x.nki
    if len(box) != view.ndim:
        box = (*box[:1], *(range(1),) * (view.ndim - len(box)), *box[1:])
    return view[tuple(slice(0, 1) if n == 1 else slice(r.start, r.stop) for n, r in zip(view.shape, box, strict=True))]


def _undefined(*_: object) -> NoReturn:
    raise AssertionError("nkilite.beta1 was not imported")


def _kinds(key: tuple[object, ...]) -> tuple[bool, bool]:
    """Whether a subscript has only ints and slices, and whether only index tensors and ints from 0 on."""
    plain = advanced = True
    for k in key:
        kind = k.__class__
        if kind is Index:
            plain = False
        elif kind is int or kind is LoopIndex:
            if cast(int, k) < 0:
                advanced = False
        elif kind is slice:
            advanced = False
        else:
            return False, False
    return plain, advanced


# Set by the modules that know the instructions.
subscript: list[Callable[[Tile, object], Tile]] = [_undefined]
assign: list[Callable[[Tile, object], None]] = [_undefined]
gather: list[Callable[[NkiTensor, tuple[object, ...], Box | None], NkiTensor]] = [_undefined]
broadcast: list[Callable[[Tile, Sequence[int]], Tile]] = [_undefined]
convert: list[Callable[[Tile, DTypeLike], Tile]] = [_undefined]
