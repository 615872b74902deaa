"""Kernels in jax: inside jax.jit, eval_shape, vmap and custom gradients, as calls whose shapes come from a trace.

Arrays that have values go straight to native code. jax itself is never imported from here.
"""

from __future__ import annotations

import sys

import numpy as np

from nkilite.dtypes import as_dtype
from nkilite.errors import ArgumentError
from nkilite.frameworks.calls import take_apart
from nkilite.frameworks.jax_calls import calls
from nkilite.frameworks.outline import traced
from nkilite.location import here
from nkilite.runtime import delegation
from nkilite.runtime.containers import map_leaves
from nkilite.runtime.delegation import Args, Kwargs
from nkilite.runtime.kernel import Kernel
from nkilite.runtime.opaque import Foreign
from nkilite.runtime.results import Result


class WrittenJaxArray(ArgumentError, ValueError):
    template = "kernel {kernel!r} writes its argument {name!r}, and JAX arrays cannot be written."
    remedy = "let the kernel return a new tensor."


class MissingJaxGradient(ArgumentError, ValueError):
    template = "kernel {kernel!r} is differentiated, and has no gradient."
    remedy = "wrap the call in a function with jax.custom_vjp that has one."


class ShardedArgument(ArgumentError, ValueError):
    template = "argument {name!r} of kernel {kernel!r} is spread over {devices} devices."
    remedy = "map the kernel over the shards with jax.shard_map, or gather the array first with jax.device_get."


def wanted(args: Args, kwargs: Kwargs) -> bool:
    """Whether jax has to see a call: one of its arrays has no values yet, or is in several places."""
    jax = sys.modules.get("jax")
    if jax is None:
        return False
    found = []

    def leaf(value: object, _: str) -> object:
        if isinstance(value, jax.Array):
            found.append(isinstance(value, jax.core.Tracer) or len(value.sharding.device_set) > 1)
        return value

    map_leaves([list(args), list(kwargs.values())], leaf)
    return any(found)


def call(kernel: Kernel[...], args: Args, kwargs: Kwargs) -> Foreign:
    """A call in code that jax traces (nkilite/frameworks/jax_calls.py).

    Raises:
        ShardedArgument: an array is spread over devices.
        WrittenJaxArray: the kernel writes an argument.
    """
    jax = sys.modules["jax"]
    taken = take_apart(args, kwargs, list(kernel.signature.parameters), jax.Array, (), ())
    for name, array in zip(taken.names, taken.tensors, strict=True):
        if not isinstance(array, jax.core.Tracer) and len(array.sharding.device_set) > 1:
            raise ShardedArgument(kernel=kernel.__name__, name=name, devices=len(array.sharding.device_set))
    trace = traced(kernel, taken.of([np.empty(t.shape, t.dtype) for t in taken.tensors], ()))
    does, line = trace.outline, here()
    if does.written:
        raise WrittenJaxArray(kernel=kernel.__name__, name=taken.names[does.written[0]])
    shapes = [jax.ShapeDtypeStruct(shape, as_dtype(dtype).numpy) for shape, dtype in does.outputs]
    launch = jax.custom_jvp(calls(kernel, taken.of((), ()), trace, shapes, line))

    def refuse(*_: object) -> Foreign:
        raise MissingJaxGradient(kernel=kernel.__name__, location=line)

    launch.defjvp(refuse)
    return _assembled(does.returned, [*taken.tensors, *launch(*taken.tensors)])


def _assembled(returned: object, arrays: list[Foreign]) -> Foreign:
    """What the kernel returns, of inputs and outputs."""
    jax = sys.modules["jax"]

    def leaf(value: object, _: str) -> Foreign:
        if not isinstance(value, Result):
            return value
        whole = arrays[value.array]
        if value.strides is None:
            return whole
        elements = whole.reshape(-1) if str(whole.dtype) == value.dtype else _as(whole.reshape(-1), value.dtype)
        size = as_dtype(value.dtype).itemsize
        index = np.full(value.shape, value.offset // size)
        for axis, (count, stride) in enumerate(zip(value.shape, value.strides, strict=True)):
            index += (np.arange(count) * (stride // size)).reshape([-1 if a == axis else 1 for a in range(index.ndim)])
        return jax.numpy.take(elements, index)

    return map_leaves(returned, leaf, records=False)


def _as(array: Foreign, dtype: str) -> object:
    """The bits of a dense array as elements of another type."""
    jax = sys.modules["jax"]
    wide, narrow = array.dtype.itemsize, as_dtype(dtype).itemsize
    if wide < narrow:
        array = array.reshape(-1, narrow // wide)
    return jax.lax.bitcast_convert_type(array, as_dtype(dtype).numpy).reshape(-1)


delegation.delegates.append(delegation.Delegate(wanted, call))
