"""nki.typing of Beta 1: `tensor` annotates parameters, and `tensor[[128, 512], nl.float32]` stands for an argument.

Such a stand-in has a shape and a dtype but no values: nki.benchmark and nki.profile, which model kernels, take it.
"""

from __future__ import annotations

from typing import NoReturn

from nkilite.beta1.tile import Tile
from nkilite.dtypes import as_dtype
from nkilite.errors import InvalidOperand, UnsupportedError, describe
from nkilite.profiling.benchmark import Shaped
from nkilite.trace.tensor import NkiTensor

__path__: list[str] = []  # a package, so that imports below it reach the finder of nkilite.compat

__all__ = ["immutable", "mutable", "mutable_tensor", "scalar", "tensor"]


class _TensorType(type):
    """`isinstance(x, nt.tensor)` asks for tensors of a kernel; indexing makes a stand-in or an annotation."""

    def __instancecheck__(cls, value: object) -> bool:
        return isinstance(value, (Tile, NkiTensor))

    def __getitem__(cls, key: object) -> Shaped:
        keys = key if isinstance(key, tuple) else (key,)
        if len(keys) == 2 and isinstance(keys[0], (list, tuple)):
            try:
                return Shaped(tuple(keys[0]), as_dtype(keys[1]))
            except KeyError:
                raise InvalidOperand(
                    instruction="nt.tensor", operand="dtype", found=describe(keys[1]), expected="an nl dtype"
                ) from None
        shape = tuple(keys[0]) if len(keys) == 1 and isinstance(keys[0], (list, tuple)) else keys
        return Shaped(shape, None)


class tensor(metaclass=_TensorType):  # the public name
    """A tensor."""


class mutable_tensor(metaclass=_TensorType):  # the public name
    """A tensor the kernel writes."""


class scalar(metaclass=_TensorType):  # the public name
    """A scalar.

    Raises:
        UnsupportedError: when called, for a number that a tile holds, with which loops go on or masks are made.
    """

    def __new__(cls, *_: object) -> NoReturn:
        raise UnsupportedError(feature="nt.scalar, a number known on the device alone, in loops and masks")


mutable, immutable = mutable_tensor, tensor
