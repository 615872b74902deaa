"""The arguments of one call: bound to the kernel's parameters, arrays found, and a key of what they specialize."""

from __future__ import annotations

import inspect
from collections import OrderedDict
from collections.abc import Callable
from typing import TYPE_CHECKING

from nkilite.errors import InvalidCall
from nkilite.runtime.aliases import same_arrays
from nkilite.runtime.arguments import ArrayArgument, cache_key, map_arrays
from nkilite.runtime.configurations import configured
from nkilite.runtime.containers import map_leaves
from nkilite.runtime.delegation import Args, Kwargs
from nkilite.runtime.dynamic import bound_shapes
from nkilite.runtime.mistaken import explained
from nkilite.runtime.opaque import UserValue
from nkilite.runtime.settings import UNWATCHED, Watch, watch_of
from nkilite.trace.tensor import NkiTensor

if TYPE_CHECKING:
    from nkilite.runtime.kernel import Kernel


class Arguments:
    """Bound arguments with their arrays wrapped as ArrayArguments, those arrays in order, and the key of all.

    Attributes:
        same: which arrays are one, see nkilite/runtime/aliases.py; a part of the key.
        held: what the key holds by identity, by name: it may change.
        watch: what results are looked through for; a part of the key.
        sizes: the array behind those given, where the kernel has dynamic dimensions: their sizes.
        rounding: the last of the arrays, where rounding is stochastic: what the engines begin with.
    """

    __slots__ = ("arrays", "bound", "held", "key", "rounding", "same", "sizes", "values", "watch")

    def __init__(
        self, bound: inspect.BoundArguments, values: dict[str, object], arrays: list[ArrayArgument],
        key: tuple[object, ...], same: tuple[int, ...], held: list[tuple[str, object]],
        rounding: ArrayArgument | None = None, watch: Watch = UNWATCHED, sizes: ArrayArgument | None = None,
    ) -> None:
        self.sizes = sizes
        self.rounding, self.watch = rounding, watch
        self.bound, self.values, self.arrays, self.key, self.same = bound, values, arrays, key, same
        self.held = held

    @property
    def framework(self) -> str:
        """What results are made for: that of the first array."""
        return next((a.framework for a in self.arrays), "numpy")

    @property
    def given(self) -> list[ArrayArgument]:
        """The arrays that the caller passed."""
        ours = (self.sizes is not None) + (self.rounding is not None)
        return self.arrays[: len(self.arrays) - ours]

    @property
    def size_list(self) -> list[int]:
        """The sizes of dynamic dimensions, by their places."""
        return [] if self.sizes is None else self.sizes.numpy.reshape(-1).tolist()

    @property
    def originals(self) -> list[object]:
        """The arrays as the caller passed them."""
        return [a.original for a in self.arrays]

    def detached(self) -> Arguments:
        """Without the memory of arrays: enough to trace the kernel later."""
        arrays: list[ArrayArgument] = []

        def leaf(value: object, _: str) -> object:
            if not isinstance(value, ArrayArgument):
                return value
            arrays.append(value.detached())
            return arrays[-1]

        values = {name: map_leaves(value, leaf) for name, value in self.values.items()}
        bound = inspect.BoundArguments(self.bound.signature, OrderedDict(values))
        sizes, rounding = (None if ours is None else ours.detached() for ours in (self.sizes, self.rounding))
        arrays += (ours for ours in (sizes, rounding) if ours is not None)
        return Arguments(bound, values, arrays, self.key, self.same, self.held, rounding, self.watch, sizes)

    def call(self, function: Callable[..., object], tensors: dict[int, NkiTensor]) -> UserValue:
        """Call the kernel function with tensors (by id of their ArrayArgument) in the place of arrays."""

        def leaf(value: object, _: str) -> UserValue:
            return tensors[id(value)] if isinstance(value, ArrayArgument) else value

        bound = inspect.BoundArguments(self.bound.signature, OrderedDict(self.bound.arguments))
        for name, value in self.values.items():
            bound.arguments[name] = map_leaves(value, leaf)
        try:
            return function(*bound.args, **bound.kwargs)
        except Exception as error:
            mistake = explained(error, bound.arguments, getattr(function, "__name__", "kernel"))
            if mistake is not None:
                raise mistake from None
            raise


def given(kernel: Kernel[...], args: Args, kwargs: Kwargs) -> inspect.BoundArguments:
    """The arguments of a call by name, without defaults.

    Raises:
        InvalidCall: they do not fit the signature.
    """
    try:
        return kernel.signature.bind(*args, **kwargs)
    except TypeError as error:
        problem = f"has {error}" if str(error).startswith("too many") else str(error)
        raise InvalidCall(function=kernel.__name__, problem=problem, signature=kernel.signature) from None


def bind(kernel: Kernel[...], args: Args, kwargs: Kwargs) -> Arguments:
    """The arguments of a call.

    Raises:
        InvalidCall: they do not fit the signature.
        UnsupportedArgument, UnsupportedArrayDtype: a kernel cannot take one of them.
        InvalidDynamicShape: the size of a dynamic dimension is not one.
    """
    bound = given(kernel, args, kwargs)
    bound.arguments.update(configured(kernel, bound.arguments))
    bound.apply_defaults()
    arrays: list[ArrayArgument] = []

    def remember(array: ArrayArgument) -> ArrayArgument:
        arrays.append(array)
        return array

    values = {k: map_arrays(v, k, kernel.__name__, remember) for k, v in bound.arguments.items()}
    sizes = bound_shapes(kernel.__name__, kernel.settings.dynamic_shapes, values)
    held: list[tuple[str, object]] = []
    key = tuple(cache_key(v, k, kernel.__name__, held) for k, v in values.items())
    rounding, watch = kernel.rounder.argument(), watch_of(kernel.settings)
    arrays += (ours for ours in (sizes, rounding) if ours is not None)
    same = same_arrays(arrays)
    key = (*key, same, rounding is not None, watch)
    return Arguments(bound, values, arrays, key, same, held, rounding, watch, sizes)
