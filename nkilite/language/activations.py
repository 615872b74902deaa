"""Functions of one tile that the Scalar Engine computes directly.

Each takes a tile in SBUF or PSUM and returns a new SBUF tile of the same shape, of `dtype` if given, else of
the dtype of `x`. Each is also the operator of that name for nisa.activation. Source: the public pages
nki.language.<function>.
"""

from __future__ import annotations

from collections.abc import Callable

from nkilite import isa as nisa
from nkilite.dtypes import DTypeLike
from nkilite.errors import WrongMemory
from nkilite.ir.types import MemoryRegion
from nkilite.language.broadcasting import output, require_tile
from nkilite.trace.tensor import NkiTensor

__all__ = [
    "abs",
    "erf",
    "erf_dx",
    "exp",
    "gelu",
    "gelu_apprx_sigmoid",
    "gelu_apprx_sigmoid_dx",
    "gelu_apprx_tanh",
    "gelu_dx",
    "log",
    "mish",
    "reciprocal",
    "relu",
    "rsqrt",
    "sigmoid",
    "sign",
    "silu",
    "silu_dx",
    "softplus",
    "sqrt",
    "square",
    "tanh",
]


def unary(op: Callable[..., object], x: NkiTensor, dtype: DTypeLike | None) -> NkiTensor:
    """A new SBUF tile `op(x)` by nisa.activation."""
    x = require_tile(x, "x", op.__name__)
    result = output(x.shape, dtype, x.dtype, op.__name__)
    nisa.activation(result, op=op, data=x)
    return result


def abs(x: NkiTensor, dtype: DTypeLike | None = None) -> NkiTensor:
    """|x|."""
    return unary(abs, x, dtype)


def square(x: NkiTensor, dtype: DTypeLike | None = None) -> NkiTensor:
    """x * x."""
    return unary(square, x, dtype)


def sign(x: NkiTensor, dtype: DTypeLike | None = None) -> NkiTensor:
    """-1, 0 or 1: the sign of x."""
    return unary(sign, x, dtype)


def exp(x: NkiTensor, dtype: DTypeLike | None = None) -> NkiTensor:
    """e to the power of x."""
    return unary(exp, x, dtype)


def log(x: NkiTensor, dtype: DTypeLike | None = None) -> NkiTensor:
    """Natural logarithm."""
    return unary(log, x, dtype)


def sqrt(x: NkiTensor, dtype: DTypeLike | None = None) -> NkiTensor:
    """Square root."""
    return unary(sqrt, x, dtype)


def rsqrt(x: NkiTensor, dtype: DTypeLike | None = None) -> NkiTensor:
    """1 / sqrt(x) of an SBUF tile, on the GpSimd Engine, the more precise of the two that can.

    Raises:
        WrongMemory: x is in PSUM, which GpSimd does not reach; nisa.activation does.
    """
    x = require_tile(x, "x", "rsqrt")
    if x.buffer is MemoryRegion.psum:
        raise WrongMemory(
            instruction="nl.rsqrt", operand="x", found="PSUM", allowed="SBUF",
            hint="nisa.activation(dst, nl.rsqrt, x) reads PSUM, and nisa.tensor_copy moves x to SBUF",
        )
    result = output(x.shape, dtype, x.dtype, "rsqrt")
    nisa.tensor_scalar(result, x, op0=rsqrt, operand0=0)
    return result


def reciprocal(x: NkiTensor, dtype: DTypeLike | None = None) -> NkiTensor:
    """1 / x, by nisa.reciprocal on the Vector Engine, the more precise of the two that can."""
    x = require_tile(x, "x", "reciprocal")
    result = output(x.shape, dtype, x.dtype, "reciprocal")
    nisa.reciprocal(result, x)
    return result


def tanh(x: NkiTensor, dtype: DTypeLike | None = None) -> NkiTensor:
    """Hyperbolic tangent."""
    return unary(tanh, x, dtype)


def sigmoid(x: NkiTensor, dtype: DTypeLike | None = None) -> NkiTensor:
    """1 / (1 + exp(-x))."""
    return unary(sigmoid, x, dtype)


def relu(x: NkiTensor, dtype: DTypeLike | None = None) -> NkiTensor:
    """max(x, 0)."""
    return unary(relu, x, dtype)


def gelu(x: NkiTensor, dtype: DTypeLike | None = None) -> NkiTensor:
    """x times the normal distribution function at x."""
    return unary(gelu, x, dtype)


def gelu_dx(x: NkiTensor, dtype: DTypeLike | None = None) -> NkiTensor:
    """Derivative of gelu."""
    return unary(gelu_dx, x, dtype)


def gelu_apprx_tanh(x: NkiTensor, dtype: DTypeLike | None = None) -> NkiTensor:
    """gelu, approximated with tanh."""
    return unary(gelu_apprx_tanh, x, dtype)


def gelu_apprx_sigmoid(x: NkiTensor, dtype: DTypeLike | None = None) -> NkiTensor:
    """gelu, approximated as x * sigmoid(1.702 x)."""
    return unary(gelu_apprx_sigmoid, x, dtype)


def gelu_apprx_sigmoid_dx(x: NkiTensor, dtype: DTypeLike | None = None) -> NkiTensor:
    """Derivative of gelu_apprx_sigmoid."""
    return unary(gelu_apprx_sigmoid_dx, x, dtype)


def silu(x: NkiTensor, dtype: DTypeLike | None = None) -> NkiTensor:
    """x * sigmoid(x)."""
    return unary(silu, x, dtype)


def silu_dx(x: NkiTensor, dtype: DTypeLike | None = None) -> NkiTensor:
    """Derivative of silu."""
    return unary(silu_dx, x, dtype)


def softplus(x: NkiTensor, dtype: DTypeLike | None = None) -> NkiTensor:
    """log(1 + exp(x))."""
    return unary(softplus, x, dtype)


def mish(x: NkiTensor, dtype: DTypeLike | None = None) -> NkiTensor:
    """x * tanh(softplus(x))."""
    return unary(mish, x, dtype)


def erf(x: NkiTensor, dtype: DTypeLike | None = None) -> NkiTensor:
    """Error function."""
    return unary(erf, x, dtype)


def erf_dx(x: NkiTensor, dtype: DTypeLike | None = None) -> NkiTensor:
    """Derivative of erf."""
    return unary(erf_dx, x, dtype)
