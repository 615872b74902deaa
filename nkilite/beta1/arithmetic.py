"""Elementwise functions of tiles, activations, reductions and Python operators, under their Beta-1 signatures.

Each takes `mask=` and `dtype=`, and returns a new tile in SBUF. Source: nki.language at the tags v2.21.0 to v2.26.0 of
the public documentation.
"""

from __future__ import annotations

import builtins
from collections.abc import Callable, Sequence
from typing import cast

import numpy as np

from nkilite import isa as nisa
from nkilite import language
from nkilite.beta1 import functional
from nkilite.beta1 import tile as tiles
from nkilite.beta1.blocks import Blocks
from nkilite.beta1.functional import Absent, allocated, beside, dtype_or, fresh, on_chip, pointwise
from nkilite.beta1.mask import Mask, MaskLike
from nkilite.beta1.remembered import remembered
from nkilite.beta1.repeated import repeated
from nkilite.beta1.selection import limited
from nkilite.beta1.tile import Tile, tile
from nkilite.dtypes import DType, DTypeLike, bool_, float32
from nkilite.errors import InvalidOperand, UnsupportedError, describe
from nkilite.isa.operators import Op
from nkilite.language import broadcasting
from nkilite.language.broadcasting import NUMBERS
from nkilite.trace.tensor import NkiTensor

# --- two operands ---------------------------------------------------------------------------------------------------


def binary(name: str, default: DType | None = None) -> Callable[..., Tile]:
    """The function `nl.<name>(x, y)`; `default` is the dtype of its results, None for that of its operands."""
    op = getattr(language, name)
    label = f"nl.{name}"

    def function(x: object, y: object, dtype: DTypeLike | None = None, mask: MaskLike = None) -> Tile:
        return _binary(op, label, x, y, default if dtype is None else dtype, mask)

    return _published(function, name, f"{op.__doc__} Shapes broadcast; one operand may be a number.")


def _binary(op: Op, label: str, x: object, y: object, dtype: DTypeLike | None, mask: MaskLike) -> Tile:
    if isinstance(y, NUMBERS):
        x = on_chip(x, "x", label)
        kind, number = dtype_or(dtype, _with_number(x.dtype, y, op), label), cast(float, y)
        return pointwise(lambda dst, a: nisa.tensor_scalar(dst, a, op, number), x.shape, kind, mask, (x,))
    if isinstance(x, NUMBERS):
        y = on_chip(y, "y", label)
        kind, number = dtype_or(dtype, _with_number(y.dtype, x, op), label), cast(float, x)
        return pointwise(
            lambda dst, b: nisa.tensor_scalar(dst, b, op, number, reverse0=True), y.shape, kind, mask, (y,)
        )
    x, y = on_chip(x, "x", label), on_chip(y, "y", label)
    one, other = x.shape, y.shape
    shape = one if one == other else broadcasting.common_shape(one, other, label[3:])
    kind = dtype_or(dtype, x.dtype if x.dtype is y.dtype else broadcasting.promote(x.dtype, y.dtype), label)
    return pointwise(lambda dst, a, b: join(op, dst, a, b), shape, kind, mask, (x, y))


def join(op: Op, dst: NkiTensor, a: NkiTensor, b: NkiTensor) -> None:
    """dst = a <op> b, by tensor_scalar where one has one float32 element per partition; shapes broadcast."""
    shape = dst.type.shape
    if a.type.shape == b.type.shape and (a.type.free_size > 1 or shape == a.type.shape):
        nisa.tensor_tensor(dst, a, beside(a, b), op)
    elif a.type.shape == shape and _is_vector(b, shape):
        nisa.tensor_scalar(dst, a, op, _column(b))
    elif b.type.shape == shape and _is_vector(a, shape):
        nisa.tensor_scalar(dst, b, op, _column(a), reverse0=True)
    else:
        nisa.tensor_tensor(dst, repeated(a, shape), repeated(beside(a, b), shape), op)


def _column(x: NkiTensor) -> NkiTensor:
    return x if x.type.ndim == 2 else x.reshape((x.type.shape[0], 1))


def _is_vector(x: NkiTensor, shape: tuple[int, ...]) -> bool:
    return x.type.dtype is float32 and x.type.free_size == 1 and x.type.shape[0] == shape[0]


def _with_number(dtype: DType, number: object, op: Op) -> DType:
    """The dtype of a tile with a number: a fraction makes floats of integers."""
    whole = not isinstance(number, (float, np.floating)) or float(number).is_integer()
    return dtype if whole or not dtype.is_integer else float32


@remembered
def divide(x: object, y: object, dtype: DTypeLike | None = None, mask: MaskLike = None) -> Tile:
    """x / y, as x times the reciprocal of y."""
    if isinstance(y, NUMBERS):
        with np.errstate(all="ignore"):
            return multiply(x, float(np.float64(1) / y), dtype, mask)
    y = on_chip(y, "y", "nl.divide")
    other = y.dtype if isinstance(x, NUMBERS) else broadcasting.promote(cast(Tile, x).dtype, y.dtype)
    kind = dtype_or(dtype, other, "nl.divide")
    if isinstance(x, NUMBERS) and x == 1:
        return pointwise(nisa.reciprocal, y.shape, kind, mask, (y,))
    inverse = pointwise(nisa.reciprocal, y.shape, float32, mask, (y,))
    return multiply(x, inverse, kind, mask)


@remembered
def negative(x: object, dtype: DTypeLike | None = None, mask: MaskLike = None) -> Tile:
    """-x."""
    return multiply(x, -1, dtype, mask)


@remembered
def logical_not(x: object, dtype: DTypeLike = bool_, mask: MaskLike = None) -> Tile:
    """1 where x is zero, else 0."""
    return _binary(language.equal, "nl.logical_not", x, 0, dtype, mask)


@remembered
def invert(x: object, dtype: DTypeLike | None = None, mask: MaskLike = None) -> Tile:
    """~x of an integer tile; of a bool tile, what is false."""
    if on_chip(x, "x", "nl.invert").dtype is bool_:
        return logical_not(x, bool_ if dtype is None else dtype, mask)
    return _binary(language.invert, "nl.invert", x, 0, dtype, mask)


# --- one operand ----------------------------------------------------------------------------------------------------


def unary(name: str) -> Callable[..., Tile]:
    """The function `nl.<name>(x)`, by the instruction that nkilite.language uses."""
    op = getattr(language, name)
    label = f"nl.{name}"
    activation = op.__module__.endswith(".activations") and name != "reciprocal"

    def emit(dst: NkiTensor, x: NkiTensor) -> None:
        if activation:
            nisa.activation(dst, op, x)
        else:
            nisa.tensor_copy(dst, op(x, dst.type.dtype))

    def function(x: object, dtype: DTypeLike | None = None, mask: MaskLike = None) -> Tile:
        x = on_chip(x, "x", label)
        kind = dtype_or(dtype, x.dtype, label)
        if activation or isinstance(mask, Mask) or mask is False:
            return pointwise(emit, x.shape, kind, mask, (x,))
        return fresh(op(x.nki, kind))

    return _published(function, name, op.__doc__ or "")


# --- reductions -----------------------------------------------------------------------------------------------------


def axes_of(axis: object, ndim: int, function: str) -> tuple[int, ...]:
    """Axes as ascending free dimensions.

    Raises:
        InvalidOperand: they are none.
    """
    given = tuple(axis) if isinstance(axis, (tuple, list)) else (axis,)
    whole = builtins.all(isinstance(a, (int, np.integer)) and -ndim <= a < ndim for a in given)
    axes = tuple(sorted(int(a) % ndim for a in given)) if whole else ()
    if not axes or axes[0] == 0 or len(set(axes)) != len(axes):
        raise InvalidOperand(
            instruction=function, operand="axis", found=describe(axis),
            expected=f"free dimensions of a tile of {ndim} dimensions: 1 to {ndim - 1}",
        )
    return axes


def reduced(
    emit: Callable[[NkiTensor, NkiTensor, tuple[int, ...]], object], op: Op, x: Tile, axis: object, dtype: DType,
    mask: MaskLike,
    keepdims: bool, function: str,
) -> Tile:
    """The result of a reduction along free dimensions.

    Args:
        emit: called with the view to write, the view to read with the reduced dimensions last, and their numbers.
        op: the operator it reduces by, which passes over what a mask of no rectangle leaves out.
    """
    shape = x.shape
    axes = axes_of(axis, len(shape), function)
    kept = tuple(d for d in range(len(shape)) if d not in axes)
    full = tuple(1 if d in axes else n for d, n in enumerate(shape))
    result_shape = full if keepdims else tuple(shape[d] for d in kept) if len(kept) > 1 else (shape[0], 1)
    if mask is not None and mask is not True and not isinstance(mask, Mask) and functional.is_false(mask):
        return Absent(result_shape, dtype, functional.SBUF)
    box, view = None, None
    if isinstance(mask, Mask):
        found = limited(x, mask, op, function)
        if found is None:
            return Absent(result_shape, dtype, functional.SBUF)
        view, box = found
    if box is None or builtins.all(len(box[d]) == shape[d] for d in kept):
        result = allocated(result_shape, dtype)
    else:
        result = functional.cleared(result_shape, dtype)
    view = x.nki if view is None else view
    target = result.reshape(full)
    if box is not None:
        target = target[tuple(slice(0, 1) if d in axes else slice(r.start, r.stop) for d, r in enumerate(box))]
    last = tuple(range(len(kept), len(shape)))
    emit(target, view if axes == last else view.permute((*kept, *axes)), last)
    return fresh(result, mask if isinstance(mask, Mask) and _leaves_out(mask, shape, axes, result_shape) else None)


def _leaves_out(mask: Mask, shape: tuple[int, ...], axes: tuple[int, ...], result: tuple[int, ...]) -> bool:
    """Whether a mask of what is reduced leaves out results, too, and can be told of them."""
    if len(axes) + 1 < len(shape):
        return True
    return len(result) == len(shape) and not mask.positions(shape).any(axes).all()


def reduction(name: str, op_name: str) -> Callable[..., Tile]:
    """The function `nl.<name>(x, axis)`."""
    op = getattr(language, op_name)
    label = f"nl.{name}"

    def emit(dst: NkiTensor, x: NkiTensor, axes: tuple[int, ...]) -> None:
        nisa.tensor_reduce(dst, op, x, axis=axes)

    def function(
        x: object, axis: object, dtype: DTypeLike | None = None, mask: MaskLike = None, keepdims: bool = False
    ) -> Tile:
        x = on_chip(x, "x", label)
        return reduced(emit, op, x, axis, dtype_or(dtype, x.dtype, label), mask, keepdims, label)

    return _published(function, name, getattr(language, name).__doc__ or "")


@remembered
def all(x: object, axis: object, dtype: DTypeLike = bool_, mask: MaskLike = None) -> Tile:
    """1 where every element along `axis` is nonzero, else 0."""
    x = on_chip(x, "x", "nl.all")

    def emit(dst: NkiTensor, data: NkiTensor, axes: tuple[int, ...]) -> None:
        nisa.tensor_reduce(dst, language.logical_and, data, axis=axes)

    return reduced(emit, language.logical_and, x, axis, dtype_or(dtype, bool_, "nl.all"), mask, False, "nl.all")


@remembered
def mean(
    x: object, axis: object, dtype: DTypeLike | None = None, mask: MaskLike = None, keepdims: bool = False
) -> Tile:
    """Arithmetic mean along `axis`, summed and divided in float32."""
    x = on_chip(x, "x", "nl.mean")
    total = sum(x, axis, float32, mask, keepdims)
    return multiply(total, _share(x, axis, mask, total, "nl.mean"), dtype_or(dtype, x.dtype, "nl.mean"))


def _share(x: Tile, axis: object, mask: MaskLike, total: Tile, function: str) -> object:
    """One over the number of elements along `axis` that take part: a number, or a tile like `total`."""
    axes = axes_of(axis, x.ndim, function)
    if not isinstance(mask, Mask):
        return 1.0 / int(np.prod([x.shape[a] for a in axes]))
    counts = mask.positions(x.shape).sum(axes)
    counts = np.where(counts == 0, builtins.max(1, int(counts.max())), counts)
    if np.all(counts == counts.flat[0]):
        return 1.0 / int(counts.flat[0])
    shares = allocated(total.shape, float32)
    nisa.dma_copy(shares, language.shared_constant((1.0 / counts).astype(np.float32).reshape(total.shape)))
    return tiles.tile(shares)


@remembered
def var(x: object, axis: object, dtype: DTypeLike | None = None, mask: MaskLike = None) -> Tile:
    """Population variance along `axis`; reduced dimensions are kept."""
    x = on_chip(x, "x", "nl.var")
    distance = subtract(x, mean(x, axis, float32, mask, keepdims=True), float32, mask)
    squares = square(distance, float32)
    total = sum(squares, axis, float32, mask, keepdims=True)
    return multiply(total, _share(x, axis, mask, total, "nl.var"), dtype_or(dtype, x.dtype, "nl.var"))


@remembered
def softmax(
    x: object, axis: object, dtype: DTypeLike | None = None, compute_dtype: DTypeLike | None = None,
    mask: MaskLike = None
) -> Tile:
    """exp(x) divided by its sum along `axis`, shifted by the maximum against overflow."""
    x = on_chip(x, "x", "nl.softmax")
    largest = max(x, axis, float32, mask, keepdims=True)
    powers = exp(subtract(x, largest, float32, mask), dtype_or(compute_dtype, float32, "nl.softmax"))
    total = sum(powers, axis, float32, mask, keepdims=True)
    return multiply(powers, reciprocal(total), dtype_or(dtype, x.dtype, "nl.softmax"), mask)


@remembered
def rms_norm(
    x: object, w: object, axis: object, n: int, epsilon: float = 1e-6, dtype: DTypeLike | None = None,
    compute_dtype: DTypeLike | None = None,
    mask: MaskLike = None
) -> Tile:
    """x / sqrt(sum(x^2) / n + epsilon) * w."""
    x = on_chip(x, "x", "nl.rms_norm")
    compute = dtype_or(compute_dtype, float32, "nl.rms_norm")
    squares = sum(square(x, float32, mask), axis, float32, mask, keepdims=True)
    scale = rsqrt(add(multiply(squares, 1.0 / n), epsilon))
    return multiply(multiply(x, scale, compute, mask), w, dtype_or(dtype, x.dtype, "nl.rms_norm"), mask)


# --- the functions by name ------------------------------------------------------------------------------------------


def _published(function: Callable[..., Tile], name: str, doc: str) -> Callable[..., Tile]:
    function.__name__ = function.__qualname__ = name
    function.__doc__ = doc
    return remembered(function)


add, subtract, multiply, maximum, minimum, power = (
    binary(n) for n in ("add", "subtract", "multiply", "maximum", "minimum", "power")
)
bitwise_and, bitwise_or, bitwise_xor, left_shift, right_shift = (
    binary(n) for n in ("bitwise_and", "bitwise_or", "bitwise_xor", "left_shift", "right_shift")
)
equal, not_equal, less, less_equal, greater, greater_equal, logical_and, logical_or, logical_xor = (
    binary(n, bool_) for n in (
        "equal", "not_equal", "less", "less_equal", "greater", "greater_equal", "logical_and", "logical_or",
        "logical_xor",
    )
)
abs, square, sign, exp, log, sqrt, rsqrt, tanh, sigmoid, relu, reciprocal = (
    unary(n) for n in (
        "abs", "square", "sign", "exp", "log", "sqrt", "rsqrt", "tanh", "sigmoid", "relu", "reciprocal",
    )
)
gelu, gelu_dx, gelu_apprx_tanh, gelu_apprx_sigmoid, silu, silu_dx, softplus, mish, erf, erf_dx = (
    unary(n) for n in (
        "gelu", "gelu_dx", "gelu_apprx_tanh", "gelu_apprx_sigmoid", "silu", "silu_dx", "softplus", "mish", "erf",
        "erf_dx",
    )
)
ceil, floor, trunc, sin, cos, tan, arctan = (
    unary(n) for n in ("ceil", "floor", "trunc", "sin", "cos", "tan", "arctan")
)
sum, max, min, prod = (
    reduction(n, op) for n, op in (("sum", "add"), ("max", "maximum"), ("min", "minimum"), ("prod", "multiply"))
)


def remainder(name: str) -> Callable[..., Tile]:
    """nl.mod or nl.fmod."""
    op = getattr(language, name)

    def function(x: object, y: object, dtype: DTypeLike | None = None, mask: MaskLike = None) -> Tile:
        if mask is not None and mask is not True and not isinstance(mask, Mask) and functional.is_false(mask):
            shape = cast(Tile, x if isinstance(x, Tile) else y).shape
            return Absent(shape, dtype_or(dtype, float32, f"nl.{name}"), functional.SBUF)
        if not isinstance(mask, Mask):
            return fresh(op(x.nki if isinstance(x, Tile) else x, y.nki if isinstance(y, Tile) else y, dtype))
        operands = [t for t in (x, y) if isinstance(t, Tile)]

        def emit(dst: NkiTensor, *views: NkiTensor) -> None:
            left = iter(views)
            nisa.tensor_copy(dst, op(*(next(left) if isinstance(t, Tile) else t for t in (x, y)), dst.type.dtype))

        one, other = operands[0], operands[-1]
        shape = broadcasting.common_shape(one.shape, other.shape, name)
        kind = dtype_or(dtype, broadcasting.promote(one.dtype, other.dtype), f"nl.{name}")
        return pointwise(emit, shape, kind, mask, operands)

    return _published(function, name, op.__doc__ or "")


mod, fmod = remainder("mod"), remainder("fmod")


Operand = Tile | Blocks


# --- Python operators -----------------------------------------------------------------------------------------------


def _operator(function: Callable[..., Tile], swapped: bool = False) -> Callable[[Operand, object], object]:
    def operator(self: Operand, other: object) -> object:
        if not isinstance(other, (Tile, Blocks, *NUMBERS)):
            return NotImplemented
        return function(other, self) if swapped else function(self, other)

    return remembered(operator)


def _floor_divide(x: object, y: object) -> Tile:
    quotient = divide(x, y, float32)
    return floor(quotient, cast(Tile, x if isinstance(x, Tile) else y).dtype)


_OPERATORS: dict[str, Callable[..., Tile]] = {
    "add": add, "sub": subtract, "mul": multiply, "truediv": divide, "pow": power, "and": bitwise_and,
    "or": bitwise_or, "xor": bitwise_xor, "lshift": left_shift, "rshift": right_shift, "mod": mod,
    "floordiv": _floor_divide,
}
_COMPARISONS: dict[str, Callable[..., Tile]] = {
    "lt": less, "le": less_equal, "gt": greater, "ge": greater_equal, "eq": equal, "ne": not_equal,
}
_UNARY: dict[str, Callable[..., Tile]] = {
    "neg": negative, "pos": lambda x: x, "abs": abs, "invert": invert,
}
for _class in (Tile, Blocks):
    for _name, _function in (_OPERATORS | _COMPARISONS).items():
        setattr(_class, f"__{_name}__", _operator(_function))
    for _name, _function in _OPERATORS.items():
        setattr(_class, f"__r{_name}__", _operator(_function, swapped=True))
    for _name, _function in _UNARY.items():
        setattr(_class, f"__{_name}__", (lambda function: lambda self: function(self))(_function))
    _class.__hash__ = object.__hash__  # type: ignore[method-assign]


_UFUNCS = {
    "absolute": abs, "true_divide": divide, "remainder": mod, "bitwise_not": invert, "invert": invert,
    "negative": negative, "logical_not": logical_not, "divide": divide, "floor_divide": _floor_divide,
}


def _ufunc(self: Operand, ufunc: np.ufunc, method: str, *inputs: object, **options: object) -> object:
    name = ufunc.__name__
    found = _UFUNCS.get(name) or globals().get(name)
    function = cast("Callable[..., Tile] | None", found)
    if method == "reduce" and name in ("add", "maximum", "minimum", "multiply"):
        along: dict[str, Callable[..., Tile]] = {"add": sum, "maximum": max, "minimum": min, "multiply": prod}
        return along[name](*inputs, **{k: v for k, v in options.items() if k in ("axis", "dtype", "keepdims")})
    if function is None or method != "__call__":
        raise UnsupportedError(feature=f"np.{name}{'' if method == '__call__' else '.' + method} of tiles")
    return function(*inputs, **{k: v for k, v in options.items() if k == "dtype"})


#: What functions of NumPy that are no ufuncs mean for tiles.
functions_of_numpy: dict[Callable[..., object], Callable[..., Tile]] = {
    np.sum: sum, np.max: max, np.min: min, np.prod: prod, np.mean: mean, np.var: var, np.all: all,
    np.amax: max, np.amin: min,
}


def _function_of_numpy(
    self: Operand, function: Callable[..., object], types: object, args: Sequence[object], kwargs: dict[str, object]
) -> object:
    found = functions_of_numpy.get(function)
    if found is None:
        raise UnsupportedError(feature=f"np.{function.__name__} of tiles")
    return found(*args, **kwargs)


for _class in (Tile, Blocks):
    _class.__array_ufunc__ = _ufunc  # type: ignore[union-attr]
    _class.__array_function__ = _function_of_numpy  # type: ignore[union-attr]


@remembered
def broadcast_to(src: object, shape: Sequence[int]) -> Tile:
    """A new SBUF tile with `src` repeated to a shape."""
    if isinstance(src, Tile) and not src.buffer.on_chip:
        view = src.nki
        sizes = tuple(map(int, shape))
        while view.ndim < len(sizes):
            view = view.expand_dim(0)
        for dim, size in enumerate(sizes):
            view = view if view.shape[dim] == size else view.broadcast(dim, size)
        return tile(view)
    src = on_chip(src, "src", "nl.broadcast_to")
    sizes = tuple(map(int, shape))
    view = src.nki
    while view.ndim < len(sizes):
        view = view.expand_dim(1)
    while view.ndim > len(sizes) and 1 in view.shape[1:]:
        view = view.squeeze_dim(view.shape.index(1, 1))
    return fresh(language.broadcast_to(view, sizes))


tiles.broadcast[0] = broadcast_to
