"""Tensors with dynamic dimensions: how much of them there is, as instructions that check or cut accesses.

A tensor has the shape of its bounds, and the memory of its sizes. An instruction that accesses it is preceded by
`bounded_index`, and its view moves by the index that this one gives: so none of it is done before the check, whatever
passes make of the program. A `dma_copy` that skips what is out of bounds becomes `dma_copy_within`, whose counts
`bounded_count` computes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import gcd, prod
from typing import NamedTuple

import numpy as np

from nkilite import dtypes
from nkilite.codegen import convert, copy
from nkilite.codegen.emitter import Value
from nkilite.codegen.kernel import CpuOperand, MicroKernel
from nkilite.dtypes import Elements, cast
from nkilite.errors import (
    BeyondDimension,
    InternalError,
    InvalidOperand,
    InvalidView,
    ShapeMismatch,
    UnsupportedError,
    describe,
)
from nkilite.ir import nest
from nkilite.ir.access import Opaque
from nkilite.ir.columns import Columns
from nkilite.ir.definition import Definition
from nkilite.ir.program import Program, Signature
from nkilite.ir.rules import ArgumentsByName
from nkilite.ir.types import BOUNDED, Indirection, IndirectKind, MemoryRegion, OobMode, ViewType, extent
from nkilite.isa import dma, rules
from nkilite.isa.registers import register_value, require_registers
from nkilite.isa.scalars import NkiScalar, new_scalar, scalar_load
from nkilite.machine.engine import Cost, Engine
from nkilite.trace import active, bounded, storage
from nkilite.trace.builder import NkiInstruction
from nkilite.trace.indexing import RuntimeIndex
from nkilite.trace.indirection import reachable
from nkilite.trace.instruction import instruction
from nkilite.trace.register import VirtualRegister
from nkilite.trace.tensor import NkiTensor
from nkilite.trace.view_arguments import require_ints

_SEQUENCER = Opaque("registers are read and written one after another")
_NO_TIME = Cost(Engine.sync)  # what generates descriptors compares with the size on the way
_skip = OobMode.skip
_MOST_ROWS = 1 << 31  # of dimension 0: there is nothing outside of it


def dimension_size(tensor: NkiTensor, dim: int) -> int | NkiScalar:
    """The size of a dimension: a number, or a scalar on the device where it is dynamic.

    Args:
        tensor: an argument of the kernel, or a result with dynamic dimensions, itself and no view of it.
        dim: which dimension; negative ones count from the end.

    Raises:
        InvalidOperand: there is no such dimension, or the tensor is a view.

    Ours; the name is that of the operation in StableHLO (get_dimension_size).
    """
    name = "nl.dimension_size"
    if not isinstance(tensor, NkiTensor):
        raise InvalidOperand(instruction=name, operand="tensor", found=describe(tensor), expected="a tensor")
    require_ints(name, dim=dim)
    if not -tensor.ndim <= dim < tensor.ndim:
        raise InvalidOperand(
            instruction=name, operand="dim", found=dim, expected=f"a dimension of a tensor of shape {tensor.shape}"
        )
    number = dict(tensor.storage.dims).get(dim % tensor.ndim)
    if tensor.storage.dims and (tensor.shape, tensor.strides) != (tensor.storage.shape, tensor.storage.type.strides):
        raise InvalidOperand(
            instruction=name, operand="tensor", found="a view of a tensor with a dynamic dimension",
            expected="the tensor itself",
        )
    return tensor.shape[dim] if number is None else scalar_load(_size(number))


def _size(number: int) -> NkiTensor:
    """The element of the launch's sizes that is one of a dimension."""
    sizes = active.builder("the size of a dimension").sizes
    assert sizes is not None
    return sizes[number : number + 1]


# --- instructions ---------------------------------------------------------------------------------------------------


@instruction(writes=("dst",), access=_SEQUENCER, indexed=True, wide=True)
def bounded_index(
    dst: VirtualRegister, index: int | VirtualRegister, size: int | NkiTensor, base: int, step: int, unit: int,
    bound: int, more: int, what: str = "",
) -> None:
    """Give a register the value of an index, if what it leads to is within a dimension.

    That is position (base + index * step) // unit % bound + more of the dimension, the last one of a view.

    Args:
        dst: the register.
        index: the index.
        size: the size of the dimension; where it is dynamic, one int32 in HBM.
        base, step, unit, bound, more: see above; unit and bound are positive.
        what: what accesses which dimension, for messages.

    Raises:
        BeyondDimension: (when the kernel runs) the position is not below the size.
    """


@bounded_index.check
def _bounded_index_check(call: Signature) -> None:
    for operand in ("dst", "index"):  # each of a width of its own
        require_registers(call, operand)
    _require_size(call)


@bounded_index.check_immediates
def _check_immediates(call: Signature, **numbers: object) -> None:
    for name, value in numbers.items():
        if type(value) is not int or not (name in ("unit", "bound")) <= abs(value) < 1 << 53:
            expected = "an int that float64 holds"
            raise InvalidOperand(
                instruction=f"nisa.{call.name}", operand=name, found=describe(value), expected=expected
            )


def _require_size(call: Signature) -> None:
    """Raise unless the size is a number, or one int32 in HBM."""
    if call.is_tensor("size"):
        rules.require_memory(call, "size", *rules.HBM)
        rules.require_dtype(call, "size", (dtypes.int32,))
        if call.size.size != 1 or call.size.indirection is not None:
            raise ShapeMismatch(instruction=f"nisa.{call.name}", detail=f"size has shape {call.size.shape}")


@bounded_index.reference
def _bounded_index_reference(
    call: Signature, dst: np.ndarray, index: np.ndarray, size: np.ndarray, base: float, step: float, unit: float,
    bound: float, more: float, **_: object,
) -> np.ndarray:
    last = _position(register_value(index), base, step, unit, bound) + int(more)
    limit = int(np.reshape(size, -1)[0])
    if not 0 <= last < limit:
        raise BeyondDimension(what=call.what, found=last, limit=limit)
    return np.full((1, 1), register_value(index), call.dst.dtype.numpy)


def _position(index: int, base: float, step: float, unit: float, bound: float) -> int:
    at = int(base) + index * int(step)
    return at if at < 0 else at // int(unit) % int(bound)


@bounded_index.lower
def _bounded_index_lower(call: Signature, kernel: MicroKernel) -> None:
    e = kernel.e
    index, size = _wide(kernel, "index"), _wide(kernel, "size")
    last = e.add(_lower_position(kernel, index), kernel.immediate_i64("more"))
    kernel.fail_unless(e.compare("ult", last, size), size, lambda: last)  # what is negative is large
    dtype = call.dst.dtype
    e.store(index if dtype.is_wide else e.convert("trunc", index, "i32"), kernel.pointer("dst"), align=dtype.itemsize)


def _lower_position(kernel: MicroKernel, index: Value) -> Value:
    e = kernel.e
    at = e.add(kernel.immediate_i64("base"), e.mul(index, kernel.immediate_i64("step")))
    place = e.binary("urem", e.binary("udiv", at, kernel.immediate_i64("unit")), kernel.immediate_i64("bound"))
    return e.select(e.compare("slt", at, 0), at, place)


@instruction(writes=("dst",), access=_SEQUENCER, wide=True)
def bounded_count(
    dst: VirtualRegister, index: int | VirtualRegister, size: NkiTensor, most: int, base: int, step: int, unit: int,
    bound: int,
) -> None:
    """How many positions from (base + index * step) // unit % bound on are within a dynamic dimension: 0 to `most`.

    Args:
        dst: the register.
        index: the index.
        size: the size of the dimension: one int32 in HBM.
        most: how many positions there are.
        base, step, unit, bound: see above; unit and bound are positive.
    """


@bounded_count.check
def _bounded_count_check(call: Signature) -> None:
    for operand in ("dst", "index"):  # each of a width of its own
        require_registers(call, operand)
    _require_size(call)


bounded_count.check_immediates(_check_immediates)


@bounded_count.reference
def _bounded_count_reference(
    call: Signature, dst: np.ndarray, index: object, size: np.ndarray, most: float, base: float, step: float,
    unit: float,
    bound: float,
) -> np.ndarray:
    rest = int(size.reshape(-1)[0]) - _position(register_value(index), base, step, unit, bound)
    return np.full((1, 1), max(0, min(rest, int(most))), np.int32)


@bounded_count.lower
def _bounded_count_lower(call: Signature, kernel: MicroKernel) -> None:
    e = kernel.e
    rest = e.sub(_wide(kernel, "size"), _lower_position(kernel, _wide(kernel, "index")))
    count = _at_most(kernel, rest, kernel.immediate_i64("most"))
    e.store(e.convert("trunc", count, "i32"), kernel.pointer("dst"), align=4)


def _at_most(kernel: MicroKernel, count: Value, most: int | Value) -> Value:
    """A count between 0 and another one."""
    e = kernel.e
    most = e.i64(most) if isinstance(most, int) else most
    count = e.select(e.compare("slt", count, most), count, most)
    return e.select(e.compare("sgt", count, 0), count, 0)


@bounded_index.cost
@bounded_count.cost
def _bounded_index_cost(call: Signature) -> Cost:
    return _NO_TIME


def _wide(kernel: MicroKernel, name: str) -> Value:
    """The value of a register, of an immediate in its place, or of an integer in memory, as an i64."""
    if not kernel.has(name):
        return kernel.immediate_i64(name)
    dtype = kernel.operands[name].dtype
    value = kernel.e.load(convert.raw_scalar(dtype), kernel.pointer(name), align=dtype.itemsize)
    return value if dtype.is_wide else kernel.e.convert("sext", value, "i64")


@instruction(
    writes=("dst",), updates=lambda arguments: ("dst",), wide=True,
    access=Opaque("how many rows it copies is known on the device"),
)
def dma_copy_within(
    dst: NkiTensor, src: NkiTensor, count: VirtualRegister, other: VirtualRegister | None,
    axes: tuple[int, ...] = (), oob_mode: OobMode = _skip,
) -> None:
    """nisa.dma_copy of the first positions along one or two dimensions; the others of dst stay as they are.

    Args:
        dst: see dma_copy.
        src: of the same shape, but for dimensions of size 1.
        count: how many positions along dimension axes[0] of the side with more dimensions, of src if they have as many.
        other: the same of dimension axes[1], if there are two.
        axes: the dimensions, in order.
        oob_mode: skip.
    """


@dma_copy_within.check
def _dma_copy_within_check(call: Signature) -> None:
    for operand in ("count", "other"):
        require_registers(call, operand)
    axes, wanted = call.axes, 1 + call.is_tensor("other")
    known = range(max(call.src.ndim, call.dst.ndim))
    if type(axes) is not tuple or len({*axes} & {*known}) != wanted or list(axes) != sorted(axes):
        raise InvalidOperand(
            instruction="nisa.dma_copy_within", operand="axes", found=describe(axes), expected=f"{wanted} of the axes"
        )
    dma.dma_copy.definition.rule("check")(_plain_copy(call))
    if _squeezed(call.dst.shape) != _squeezed(call.src.shape):
        raise ShapeMismatch(
            instruction="nisa.dma_copy",
            detail=f"dst has shape {call.dst.shape} and src {call.src.shape}: part of a block with a dynamic dimension "
            "is copied between equal shapes",
        )


def _plain_copy(call: Signature) -> Signature:
    """The dma_copy of the whole block."""
    definition = dma.dma_copy.definition
    options = {p.name: p.default for p in definition.parameters if p.name not in ("dst", "src")}
    arguments = {"dst": call.dst, "src": call.src, **options, "oob_mode": call.oob_mode}
    return Signature(-1, definition, arguments, call.target, ())


def _squeezed(sizes: Sequence[int]) -> tuple[int, ...]:
    return tuple(n for n in sizes if n != 1)


@dma_copy_within.reference
def _dma_copy_within_reference(
    call: Signature, dst: np.ndarray, src: np.ndarray, count: np.ndarray, other: np.ndarray | None = None,
    src_present: np.ndarray | None = None, **_: object,
) -> Elements:
    shape = _common(call.src.shape, call.dst.shape)
    mask = np.ones(shape, bool)
    for axis, most in zip(call.axes, (count, other), strict=False):
        assert most is not None
        mask &= (np.arange(shape[axis]) < int(most[0, 0])).reshape([-1 if a == axis else 1 for a in range(len(shape))])
    if src_present is not None and not src_present.all():
        mask[...] = False
    moved = Elements(src.reshape(dst.shape), call.src.dtype)
    return Elements(np.where(mask.reshape(dst.shape), cast(moved, call.dst.dtype), dst), call.dst.dtype)


def _common(src: tuple[int, ...], dst: tuple[int, ...]) -> tuple[int, ...]:
    """The shape that the axes count in."""
    return max(src, dst, key=len)


@dma_copy_within.cost
def _dma_copy_within_cost(call: Signature) -> Cost:
    return dma.dma_copy.definition.rule("cost")(_plain_copy(call))


@dma_copy_within.lower
def _dma_copy_within_lower(call: Signature, kernel: MicroKernel) -> None:
    e, shape = kernel.e, _common(call.src.shape, call.dst.shape)
    counts = [
        _at_most(kernel, _wide(kernel, name), shape[axis])
        for name, axis in zip(("count", "other"), call.axes, strict=False)
    ]
    at = [kernel.pointer("dst"), kernel.pointer("src")]
    sides = [_aligned(kernel.operands[name], shape) for name in ("dst", "src")]
    everything = e.compare("eq", counts[0], shape[call.axes[0]])
    if len(counts) == 2:
        everything = e.and_(everything, e.compare("eq", counts[1], shape[call.axes[1]]))
    with e.when(everything):
        _copy(kernel, sides, at)
    with e.when(e.not_(everything)):
        inner = [_without(side, call.axes) for side in sides]

        def descend(level: int, at: list[Value]) -> None:
            if level == len(counts):
                _copy(kernel, inner, at)
                return
            with e.loop(counts[level]) as loop:
                strides = [side.strides[call.axes[level]] for side in sides]
                descend(level + 1, [e.step(p, loop.index, s) for p, s in zip(at, strides, strict=True)])

        descend(0, at)


def _aligned(operand: CpuOperand, shape: tuple[int, ...]) -> CpuOperand:
    """An operand with its dimensions of size 1 where another shape has them."""
    own = [s for n, s in zip(operand.shape, operand.strides, strict=True) if n != 1]
    return operand._replace(shape=shape, strides=tuple(0 if n == 1 else own.pop(0) for n in shape))


def _without(operand: CpuOperand, axes: Sequence[int]) -> CpuOperand:
    """An operand at one position along some axes."""
    kept = [i for i in range(len(operand.shape)) if i not in axes]
    return operand._replace(
        shape=tuple(operand.shape[i] for i in kept) or (1,),
        strides=tuple(operand.strides[i] for i in kept) or (operand.dtype.itemsize,),
    )


def _copy(kernel: MicroKernel, sides: Sequence[CpuOperand], at: list[Value]) -> None:
    dims = nest.unify([side.layout for side in sides])
    assert dims is not None
    copy.nested(kernel, sides[0], sides[1], dims, at)


# --- views ----------------------------------------------------------------------------------------------------------


class _Run(NamedTuple):
    """How a view runs along a dimension: what `bounded_index` asks, without a runtime index or with one.

    Attributes:
        along: the dimension of the view that runs along it, and its step there; None if none does.
    """

    base: int
    step: int
    unit: int
    bound: int
    more: int
    along: tuple[int, int] | None


def _index(view: NkiTensor) -> Indirection | None:
    """What moves a view.

    Raises:
        UnsupportedError: every position has an index of its own.
    """
    moved = view.type.indirection
    if moved is not None and moved.kind is IndirectKind.vector:
        raise UnsupportedError(feature=f"a vector_offset into {view.storage.label}, which has a dynamic dimension")
    return moved


def _of_rows(view: NkiTensor) -> _Run:
    """How to check dimension 0 of the tensor: elements end where its rows end, so the last byte of any view tells."""
    kind, size = view.type, view.type.dtype.itemsize
    moved = _index(view)
    last = view.byte_offset + (extent(kind.shape, kind.strides)[1] + 1) * size - 1
    row = prod(view.storage.shape[1:]) * view.storage.dtype.itemsize
    return _Run(last, 0 if moved is None else moved.stride * size, row, _MOST_ROWS, 0, None)


def _run(view: NkiTensor, axis: int) -> _Run:
    """How a view runs along a dimension of its tensor.

    Raises:
        InvalidView: it does so in no regular way.
    """
    buffer, size = view.storage, view.type.dtype.itemsize
    bound = buffer.shape[axis]
    inner = prod(buffer.shape[axis + 1 :]) * buffer.dtype.itemsize
    outer = inner * bound
    within, more, along = view.byte_offset % inner + size, 0, None
    for dim, (n, stride) in enumerate(zip(view.shape, (s * size for s in view.strides), strict=True)):
        if n == 1 or (axis and stride >= outer and stride % outer == 0):
            continue
        if 0 <= stride < inner:
            within += (n - 1) * stride
        elif stride < 0 or stride % inner or along is not None:
            raise _irregular(view, axis)
        else:
            along, more = (dim, stride // inner), (n - 1) * (stride // inner)
    moved = _index(view)
    step = 0 if moved is None else moved.stride * size
    looked_after = _looked_after(view, axis, step)
    if step < 0 or (axis and step > outer and step % outer) or (step > inner and step % inner and not looked_after):
        raise _irregular(view, axis)
    if moved is not None and step < inner and not looked_after:
        within += (moved.limit - 1) * step
    if within > inner or (axis and moved is None and view.byte_offset % outer // inner + more >= bound):
        raise _irregular(view, axis)
    if axis == 0 or (moved is not None and step < outer < moved.limit * step):  # several indices in one
        return _Run(view.byte_offset, step, inner, bound if axis else _MOST_ROWS, more, along)
    return _Run(view.byte_offset % outer, step if step < outer else 0, inner, _MOST_ROWS, more, along)


def _looked_after(view: NkiTensor, axis: int, step: int) -> bool:
    """Whether what an index does inside of a dimension is a matter of dynamic dimensions further in."""
    buffer = view.storage
    further = (prod(buffer.shape[a + 1 :]) * buffer.dtype.itemsize for a, _ in buffer.dims if a > axis)
    return any(step % inner == 0 for inner in further)


def _irregular(view: NkiTensor, axis: int) -> InvalidView:
    return InvalidView(
        operation=f"a view of {view.storage.label}", reason=f"it mixes dynamic dimension {axis} with others",
        hint="take blocks along it before other views are made.",
    )


def _named(view: NkiTensor, axis: int, number: int) -> str:
    dims = active.builder("a dynamic dimension").dimensions
    name = next(dim.name for dim, place in dims.items() if place == number)
    return f"dimension {axis} ({name}) of {view.storage.label}"


# --- operands -------------------------------------------------------------------------------------------------------


def _checked(
    definition: Definition, function: Callable[..., NkiInstruction], values: tuple[object, ...], name: object
) -> NkiInstruction:
    """Call an instruction with its bounded operands checked or, where it skips what is out of bounds, cut."""
    arguments: ArgumentsByName = {p.name: value for p, value in zip(definition.parameters, values, strict=True)}
    bounded_ones = [n for n, v in arguments.items() if isinstance(v, NkiTensor) and v.type.problem is BOUNDED]
    if definition is dma.dma_copy.definition and arguments["oob_mode"] is OobMode.skip:
        return _copied_within(arguments, bounded_ones, name)
    for operand in bounded_ones:
        arguments[operand] = _checked_view(arguments[operand], f"nisa.{definition.name}: {operand}")
    return function(**arguments, name=name)


def _register(index: NkiTensor | None) -> VirtualRegister:
    """A new register for values like those of an index."""
    dtype = dtypes.int32 if index is None or index.storage.region is not MemoryRegion.registers else index.dtype
    return VirtualRegister(active.builder("an index").allocate(MemoryRegion.registers, (1, 1), dtype))


def _in_register(view: NkiTensor) -> int | VirtualRegister:
    """The runtime index of a view, 0 if it has none."""
    if view.index is None:
        return 0
    if view.index.storage.region is MemoryRegion.registers:
        return VirtualRegister(view.index)
    return scalar_load(view.index)


def _checked_view(view: NkiTensor, what: str) -> NkiTensor:
    """A view whose runtime index comes from a check."""
    runs = [_run(view, axis) if axis else _of_rows(view) for axis, _ in view.storage.dims]
    index = _in_register(view)
    for (axis, number), run in zip(view.storage.dims, runs, strict=True):
        checked = _register(view.index)
        place = f"{what} reaches beyond {_named(view, axis, number)}"
        bounded_index(checked, index, _size(number), *run[:5], what=place)
        index = checked
    assert isinstance(index, VirtualRegister)
    kind, moved = view.type, view.type.indirection
    stride = 1 if moved is None else moved.stride
    limit = 1
    if moved is not None:
        reach = reachable(view.storage, kind.dtype, view.byte_offset, kind.shape, kind.strides, stride)
        limit = max(min(moved.limit, reach), 0)
    return _moved(view, index, stride, limit)


def _moved(view: NkiTensor, index: VirtualRegister, stride: int, limit: int) -> NkiTensor:
    """A view that moves by a register."""
    kind, register = view.type, index.register_tensor
    indirection = Indirection.of(IndirectKind.scalar, register.type, stride, limit)
    type = ViewType.of(kind.region, kind.dtype, kind.shape, kind.strides, indirection)
    return NkiTensor.of(view.storage, type, view.byte_offset, register)


def _copied_within(arguments: ArgumentsByName, bounded_ones: Sequence[str], name: object) -> NkiInstruction:
    """dma_copy of what there is of a block.

    Raises:
        UnsupportedError: both sides have dynamic dimensions, or an option that another instruction would have.
        InvalidView: the block runs along a dynamic dimension in steps, or along more than one of a kind.
    """
    if len(bounded_ones) > 1:
        raise UnsupportedError(feature="nisa.dma_copy with oob_mode.skip between two tensors with dynamic dimensions")
    (side,) = bounded_ones
    view: NkiTensor = arguments[side]
    shape = _common(*(getattr(arguments[name], "shape", ()) for name in ("src", "dst")))
    index = _in_register(view)
    cuts: dict[int, NkiScalar] = {}
    for axis, number in view.storage.dims:
        run = _run(view, axis)
        if run.along is None:  # all of the block, or nothing
            cut, most = next((a for a, n in enumerate(shape) if n != 1), 0), 1
        else:
            dim, step = run.along
            if step != 1:
                raise _irregular(view, axis)
            cut = _same_dimension(view.shape, dim, shape)
            most = view.shape[dim]
        count = new_scalar(dtypes.int32)
        bounded_count(count, index, _size(number), most, *run[:4])
        if run.along is None:
            count = count * cuts.pop(cut, shape[cut])
        cuts[cut] = count
    if len(cuts) > 2:
        raise UnsupportedError(feature="nisa.dma_copy with oob_mode.skip along more than two dynamic dimensions")
    axes = tuple(sorted(cuts))
    counts = [cuts[axis] for axis in axes]
    copied: ArgumentsByName = {**arguments, side: _unchecked(view, index), "axes": axes, "name": name}
    options = {n: copied[n] for n in ("dst", "src", "axes", "name")}
    return dma_copy_within(count=counts[0], other=counts[1] if len(counts) > 1 else None, **options)


def _same_dimension(shape: Sequence[int], dim: int, common: Sequence[int]) -> int:
    """Which dimension of a shape is one of another shape that differs in dimensions of size 1 alone."""
    before = len(_squeezed(shape[:dim]))
    return [axis for axis, n in enumerate(common) if n != 1][before] if before < len(_squeezed(common)) else 0


def _unchecked(view: NkiTensor, index: int | VirtualRegister) -> NkiTensor:
    """A view as it is, for who does not touch what is out of bounds."""
    if isinstance(index, VirtualRegister):
        assert view.type.indirection is not None
        return _moved(view, index, view.type.indirection.stride, view.storage.type.size)
    kind = view.type
    return NkiTensor.of(view.storage, ViewType.of(kind.region, kind.dtype, kind.shape, kind.strides), view.byte_offset)


def _combined(view: NkiTensor, indices: Sequence[RuntimeIndex]) -> tuple[NkiTensor, int]:
    """The register with what several runtime indices, each of a dimension of its own, move a view by, and its stride.

    Raises:
        BeyondDimension: (when the kernel runs) one leaves its dimension, and would be taken for a part of another.
    """
    total: NkiScalar | None = None
    stride = gcd(*(view.strides[dim] for dim, _, _ in indices))
    for dim, value, _ in indices:
        index = value if isinstance(value, VirtualRegister) else scalar_load(value)
        within = new_scalar(dtypes.int64)  # elements of HBM are more than 32 bits count
        what = f"a runtime index of {view.storage.label} leaves dimension {dim}"
        bounded_index(within, index, view.shape[dim], 0, 1, 1, _MOST_ROWS, 0, what=what)
        moved = within * (view.strides[dim] // stride)
        total = moved if total is None else total + moved
    assert total is not None
    return total.register_tensor, stride


def _touched(call: Signature, tensors: dict[str, NkiTensor]) -> dict[str, NkiTensor]:
    """What a `dma_copy_within` that has run has copied; nothing if nothing was there."""
    common = _common(call.src.shape, call.dst.shape)
    names = ("count", "other")[: len(call.axes)]
    cuts = {a: int(storage.read(tensors[n])[0, 0]) for a, n in zip(call.axes, names, strict=True)}
    if not all(cuts.values()):
        return {}
    found = {}
    for name in ("dst", "src"):
        view = tensors[name]
        shape = list(view.shape)
        for axis, count in cuts.items():
            if common[axis] != 1:
                shape[_same_dimension(common, axis, view.shape)] = count
        kind = view.type
        type = ViewType.of(kind.region, kind.dtype, tuple(shape), kind.strides, kind.indirection)
        found[name] = NkiTensor.of(view.storage, type, view.byte_offset, view.index)
    return found


assert dma_copy_within.definition.name == bounded.CUT
bounded.check[0] = _checked
bounded.combine[0] = _combined
bounded.touched[0] = _touched


def assert_checked(program: Program) -> None:
    """That every access to a tensor with dynamic dimensions is one that asks for their sizes: by construction."""
    dynamic = np.array([bool(b.dims) for b in program.buffers])
    if not dynamic.any():
        return
    columns = Columns.of(program)
    ours = (bounded_index.definition, dma_copy_within.definition)
    indices = np.zeros(len(program.buffers), bool)
    for signature, _, starts in columns.uses():
        if signature.definition is bounded_index.definition:
            indices[columns.code[starts + signature.operand("dst").word]] = True
    for signature, _, starts in columns.uses():
        for operand in signature.operands if signature.definition not in ours else ():
            at = starts[dynamic[columns.code[starts + operand.word]]]
            moved = operand.type.indirection is not None
            if len(at) and not (moved and indices[columns.code[at + operand.word + 2]].all()):
                raise InternalError(type="AccessError", message=f"nisa.{signature.name} does not ask for a size")
