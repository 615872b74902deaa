"""`jax_neuronx.nki_call`, as programs of 2024 call kernels from JAX: the last parameters are what a kernel writes."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import numpy as np

from nkilite.beta1.blocks import Blocks
from nkilite.beta1.kernel import Beta1Kernel, jit
from nkilite.beta1.language import ndarray, shared_hbm
from nkilite.beta1.tile import Tile
from nkilite.runtime.options import check_vendor


class Shaped(Protocol):
    """What has a shape and a dtype, such as jax.ShapeDtypeStruct."""

    @property
    def shape(self) -> Sequence[int]: ...
    @property
    def dtype(self) -> np.dtype: ...


_Shapes = tuple[tuple[tuple[int, ...], np.dtype], ...]


def nki_call(
    func: Callable[..., object], *args: object, out_shape: Shaped | Sequence[Shaped], grid: object = None,
    **options: object,
) -> Any:
    """Call a kernel that writes its results to the parameters behind `args`.

    Args:
        func: a function in the Beta-1 dialect, or a kernel.
        args: arrays, of JAX too, also while jax.jit traces.
        out_shape: what is to be written, a `jax.ShapeDtypeStruct` or several: anything with a shape and a dtype.
        grid: of the launch.
        options: of the vendor's compiler; they have no meaning here.

    Raises:
        UnknownKeyword: no release has had such an option.

    Returns:
        A new array, or a tuple of them where `out_shape` is a tuple or list.

    Source: "Using NKI kernels in JAX" in the guides of Neuron 2.20.
    """
    check_vendor("jax_neuronx.nki_call", options)
    several = isinstance(out_shape, Sequence)
    listed = out_shape if isinstance(out_shape, Sequence) else (out_shape,)
    shapes = tuple((tuple(s.shape), np.dtype(s.dtype)) for s in listed)
    kernel = _returning(func, shapes)
    results = (kernel if grid is None else kernel[grid])(*args)
    return results if several else results[0]


@functools.lru_cache(maxsize=256)
def _returning(func: Callable[..., object], shapes: _Shapes) -> Beta1Kernel:
    """A kernel that makes what another one writes, and returns it."""

    def kernel(*args: object) -> tuple[Tile | Blocks, ...]:
        made = tuple(ndarray(shape, dtype=dtype, buffer=shared_hbm) for shape, dtype in shapes)
        func(*args, *made)
        return made

    name = getattr(getattr(func, "func", func), "__name__", "kernel")  # that of a functools.partial
    kernel.__name__ = kernel.__qualname__ = name
    found: Beta1Kernel = jit(kernel)
    return found
