"""`jax_neuronx.nki_call`, as programs of 2024 call kernels from JAX: the last parameters are what a kernel writes."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np

from nkilite.beta1.kernel import Beta1Kernel, jit
from nkilite.beta1.language import ndarray, shared_hbm

_Shapes = tuple[tuple[tuple[int, ...], np.dtype[Any]], ...]


def nki_call(func: Callable[..., object], *args: Any, out_shape: Any, grid: Any = None, **_: Any) -> Any:
    """Call a kernel that writes its results to the parameters behind `args`.

    Args:
        func: a function in the Beta-1 dialect, or a kernel.
        args: arrays, of JAX too, also while jax.jit traces.
        out_shape: what is to be written, a `jax.ShapeDtypeStruct` or several: anything with a shape and a dtype.
        grid: of the launch.

    Returns:
        A new array, or a tuple of them where `out_shape` is a tuple or list.

    Source: "Using NKI kernels in JAX" in the guides of Neuron 2.20.
    """
    several = isinstance(out_shape, (tuple, list))
    shapes = tuple((tuple(s.shape), np.dtype(s.dtype)) for s in (out_shape if several else (out_shape,)))
    kernel = _returning(func, shapes)
    results = (kernel if grid is None else kernel[grid])(*args)
    return results if several else results[0]


@functools.lru_cache(maxsize=256)
def _returning(func: Callable[..., object], shapes: _Shapes) -> Beta1Kernel:
    """A kernel that makes what another one writes, and returns it."""

    def kernel(*args: Any) -> tuple[Any, ...]:
        made = tuple(ndarray(shape, dtype=dtype, buffer=shared_hbm) for shape, dtype in shapes)
        func(*args, *made)
        return made

    name = getattr(getattr(func, "func", func), "__name__", "kernel")  # that of a functools.partial
    kernel.__name__ = kernel.__qualname__ = name
    found: Beta1Kernel = jit(kernel)
    return found
