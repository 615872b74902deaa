"""Arguments and results of kernels: NumPy, torch and JAX arrays on one side, HBM tensors on the other."""

from __future__ import annotations

import dataclasses
import struct
import sys
from collections import OrderedDict
from collections.abc import Callable, Hashable

import numpy as np

from nkilite.dtypes import DType, as_dtype, from_numpy, numpy_known
from nkilite.errors import UnsupportedArgument, UnsupportedArrayDtype
from nkilite.runtime.constants import is_number
from nkilite.runtime.containers import is_record, map_leaves, state_of
from nkilite.runtime.opaque import Foreign, UserValue

_SUGGESTED = {"float64": "float32", "complex64": "float32 pairs"}


class ArrayArgument:
    """An array a kernel was called with.

    Attributes:
        original: what the caller passed; returned when the kernel returns its input.
        numpy: the same memory as a NumPy array, or a contiguous copy when `copied`.
        framework: "numpy", "torch" or "jax".
        shape: that the kernel is traced for: bounds in the place of the sizes of dynamic dimensions.
        dims: dynamic dimensions, see nkilite.ir.types.Buffer.
        source: what the caller passed as a NumPy array, without a copy.
    """

    __slots__ = ("copied", "dims", "dtype", "framework", "name", "numpy", "original", "shape", "source")

    def __init__(self, name: str, original: object, array: np.ndarray, dtype: DType, framework: str) -> None:
        self.name, self.original, self.dtype, self.framework = name, original, dtype, framework
        self.source = array
        self.shape = tuple(array.shape)
        self.dims: tuple[tuple[int, int], ...] = ()
        self.copied = not array.flags.c_contiguous or not array.flags.aligned
        self.numpy = np.ascontiguousarray(array) if self.copied else array

    @property
    def key(self) -> tuple[object, ...]:
        return ArrayArgument, str(self.dtype), self.shape, self.framework, self.dims

    def detached(self) -> ArrayArgument:
        """Without the memory: enough to trace a kernel."""
        found = object.__new__(ArrayArgument)
        found.name, found.dtype, found.framework, found.shape = self.name, self.dtype, self.framework, self.shape
        found.dims = self.dims
        return found

    @property
    def writable(self) -> bool:
        return not self.copied and self.numpy.flags.writeable and self.framework != "jax"


def as_array(name: str, value: object, kernel: str) -> ArrayArgument | None:
    """The array behind an argument, or None when it is not an array.

    Raises:
        UnsupportedArrayDtype: an element type the chip does not have.
        UnsupportedArgument: a zero-dimensional or empty array, or one that is not in CPU memory.
    """
    if isinstance(value, np.ndarray):
        masked = sys.modules.get("numpy.ma")  # takes a while to load, and without it there are none
        if masked is not None and isinstance(value, masked.MaskedArray):
            raise UnsupportedArgument(name=name, kernel=kernel, type="masked array, whose mask would be lost")
        return _checked(name, value, value, "numpy", kernel)
    module = type(value).__module__
    if module.startswith("torch") and "torch" in sys.modules:
        torch = sys.modules["torch"]
        if isinstance(value, torch.Tensor):
            if value.device.type != "cpu":
                raise UnsupportedArgument(name=name, kernel=kernel, type=f"torch tensor on {value.device}")
            array = _read(lambda: torch_memory(torch, value.detach()), name, value, kernel)
            return _checked(name, value, array, "torch", kernel)
    if module.startswith(("jax", "jaxlib")) and "jax" in sys.modules:
        jax = sys.modules["jax"]
        if isinstance(value, jax.Array):
            return _checked(name, value, _read(lambda: np.asarray(value), name, value, kernel), "jax", kernel)
    return None


def _read(take: Callable[[], np.ndarray], name: str, value: object, kernel: str) -> np.ndarray:
    """The elements of another library's array: sparse, quantized, conjugate, fake and traced ones give none."""
    try:
        return take()
    except Exception as error:
        kind = f"{type(value).__module__}.{type(value).__qualname__}"
        reason = (str(error).splitlines() or [type(error).__name__])[0].rstrip(".")
        raise UnsupportedArgument(
            name=name, kernel=kernel, type=f"{kind} whose elements cannot be taken ({reason})"
        ) from None


def _checked(name: str, original: object, array: np.ndarray, framework: str, kernel: str) -> ArrayArgument:
    try:
        dtype = from_numpy(array.dtype)
    except KeyError:
        raise UnsupportedArrayDtype(
            name=name, dtype=array.dtype, suggestion=_SUGGESTED.get(str(array.dtype), "float32")
        ) from None
    if array.ndim == 0 or array.size == 0:
        fix = "reshape it to (1, 1), or pass the number" if array.size else "pass an array that has elements"
        raise UnsupportedArgument(name=name, kernel=kernel, type=f"{framework} array of shape {array.shape}", fix=fix)
    if dtype.kind == "x":
        array = array.view(dtype.numpy)
    return ArrayArgument(name, original, array, dtype, framework)


_TORCH_BITS = {"bfloat16": "int16", "float8_e4m3fn": "int8", "float8_e5m2": "int8"}


def torch_memory(torch: Foreign, tensor: Foreign) -> np.ndarray:
    name = str(tensor.dtype).removeprefix("torch.")
    bits = _TORCH_BITS.get(name)
    array: np.ndarray = (tensor if bits is None else tensor.view(getattr(torch, bits))).numpy()
    return array if bits is None else array.view(as_dtype(name).numpy)


def to_framework(array: np.ndarray, dtype: DType, framework: str) -> UserValue:
    """A result array as the framework of the kernel's inputs."""
    if framework == "torch":
        torch = sys.modules["torch"]
        name = str(dtype)
        if name in _TORCH_BITS:
            return torch.from_numpy(array.view(_TORCH_BITS[name])).view(getattr(torch, name))
        return torch.from_numpy(array)
    if framework == "jax":
        jax = sys.modules["jax"]
        if not dtype.is_wide:
            return jax.numpy.asarray(array)
        wide = jax.enable_x64 if hasattr(jax, "enable_x64") else jax.experimental.enable_x64  # of older releases
        with wide(True):  # or 64-bit integers lose half their bits
            return jax.numpy.asarray(array)
    return array.view(numpy_known(dtype)) if dtype.kind == "x" else array


def map_arrays(value: object, name: str, kernel: str, replace: Callable[[ArrayArgument], object]) -> UserValue:
    """Copy an argument with every array inside tuples, lists, dicts and records replaced.

    Raises:
        UnsupportedArgument: an array a kernel cannot be called with.
    """

    def leaf(value: object, name: str) -> object:
        array = as_array(name, value, kernel)
        return value if array is None else replace(array)

    return map_leaves(value, leaf, name)


_EXACT = frozenset((int, bool, str, bytes, type(None), type(...)))  # told apart by type and equality
_float_bits = struct.Struct("<d").pack


def cache_key(value: UserValue, name: str, kernel: str, held: list[tuple[str, object]]) -> Hashable:
    """What a specialized kernel depends on in an argument: shapes and dtypes of arrays, values of everything else.

    Equal keys mean the same to whatever a kernel asks: -0.0 is not 0.0, True is not 1, and one NaN is not another.
    What is not recognized by its value is recognized by identity, and appended to `held`: it may change, and so may
    the classes of records.

    Raises:
        UnsupportedArgument: a value whose identity cannot be told (an iterator, a file, ...).
    """
    kind = type(value)
    if kind in _EXACT:
        return kind, value
    if kind is float:
        return kind, _float_bits(value)
    if kind is complex:
        return kind, _float_bits(value.real), _float_bits(value.imag)
    if isinstance(value, ArrayArgument):
        return value.key
    if kind in (tuple, list, set, frozenset):
        return kind, tuple(cache_key(v, f"{name}[{i}]", kernel, held) for i, v in enumerate(value))
    if kind in (dict, OrderedDict):
        return kind, tuple(
            (cache_key(k, f"a key of {name}", kernel, held), cache_key(v, f"{name}[{k!r}]", kernel, held))
            for k, v in value.items()
        )
    if kind is slice:
        return kind, tuple(cache_key(v, name, kernel, held) for v in (value.start, value.stop, value.step))
    if kind is range:
        return kind, value.start, value.stop, value.step
    if is_number(value):
        return kind, str(value.dtype), value.tobytes()
    if is_record(value):
        held.append((name, kind))
        return kind, tuple((k, cache_key(v, f"{name}.{k}", kernel, held)) for k, v in state_of(value).items())
    if not _is_lasting(value):
        raise UnsupportedArgument(name=name, kernel=kernel, type=kind.__name__)
    held.append((name, value))
    return kind, _Held(value)


def _is_lasting(value: object) -> bool:
    """Whether a trace leaves an object what it is, as far as its class tells: iterators and the like are used up."""
    if callable(value) or isinstance(value, (np.dtype, dict, list, tuple, set, int, str)):
        return True
    try:
        hash(value)
    except TypeError:
        return dataclasses.is_dataclass(value)
    return not hasattr(value, "__next__")


class _Held:
    """Compares by identity, and keeps the value alive so that no other object takes it."""

    __slots__ = ("value",)

    def __init__(self, value: object) -> None:
        self.value = value

    def __hash__(self) -> int:
        return id(self.value)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Held) and self.value is other.value
