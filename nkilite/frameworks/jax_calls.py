"""How compiled jax code calls a kernel: natively through XLA's foreign function interface, or back into Python.

jax itself is never imported from here.
"""

from __future__ import annotations

import ctypes
import functools
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from nkilite.errors import ArgumentError
from nkilite.frameworks.calls import Call
from nkilite.frameworks.outline import Traced
from nkilite.host.cpu import host
from nkilite.ir.digest import digest
from nkilite.ir.rank import current
from nkilite.later import later
from nkilite.location import Location
from nkilite.native import xla, xla_handler
from nkilite.native.cores import Cores
from nkilite.native.executable import Executable
from nkilite.native.tiers import Hasty
from nkilite.runtime.kernel import Kernel
from nkilite.runtime.opaque import Foreign
from nkilite.runtime.specialization import executable_of

if TYPE_CHECKING:
    from jax.extend import core
    from jax.interpreters import batching, mlir
else:
    core, batching, mlir = later("jax.extend.core"), later("jax.interpreters.batching"), later("jax.interpreters.mlir")

_TARGET = "nkilite"


class SeveralDevices(ArgumentError, ValueError):
    template = "kernel {kernel!r} is called in jax.jit over {devices} devices, where its arguments would be gathered."
    remedy = "map the kernel over the shards with jax.shard_map."


class ShardedInJit(ArgumentError, ValueError):
    template = "an argument of kernel {kernel!r} has the sharding {sharding}, and would be gathered."
    remedy = "map the kernel over the shards with jax.shard_map, or reshard the argument with jax.sharding.reshard."


def calls(kernel: Kernel[...], taken: Call, does: Traced, shapes: Sequence[Foreign], line: Location) -> Foreign:
    """What calls a kernel on arrays that jax traces; returns a list of new arrays.

    Args:
        taken: the call, without tensors.
        does: what a trace of it found.
        shapes: of the new arrays.
    """
    jax = sys.modules["jax"]
    guard = _guard()
    if _native(jax) and _plain(does):
        program = xla.Program(functools.partial(_compiled, kernel.__name__, does), does.order)
        run = jax.ffi.ffi_call(_TARGET, shapes, vmap_method="sequential")
        attributes = {"number": np.int64(program.number), "process": np.int64(xla.process())}
        return lambda *arrays: run(*guard.bind(*arrays, kernel=kernel.__name__, line=line), **attributes)
    call_back = functools.partial(jax.pure_callback, _Host(kernel, taken), shapes, vmap_method="sequential")
    return lambda *arrays: call_back(*guard.bind(*arrays, kernel=kernel.__name__, line=line))


def _compiled(kernel: str, does: Traced) -> Executable | Cores:
    found = executable_of(kernel, does.programs, digest(*does.programs), host())[0]
    assert not isinstance(found, Hasty), "nobody is told of a better one"
    return found


class _Host:
    """What a callback runs when the values are there."""

    def __init__(self, kernel: Kernel[...], taken: Call) -> None:
        self._kernel, self._call = kernel, taken

    def __call__(self, *arrays: object) -> list[np.ndarray]:
        args, kwargs = self._call.of([np.asarray(a) for a in arrays], ()).arguments()
        return self._kernel.outputs(*args, **kwargs)


def _plain(does: Traced) -> bool:
    """Whether a program takes the arrays of the call alone, and nobody looks at what it has found when it ends."""
    return all(len(p.inputs) == len(does.order) and not p.watch for p in does.programs)


def _native(jax: Foreign) -> bool:
    """Whether compiled code runs on this CPU and can call ours; ranks are known to the thread that traces alone."""
    return current().count == 1 and jax.default_backend() == "cpu" and _registered(jax)


@functools.cache
def _registered(jax: object) -> bool:
    """Register the handler with XLA, if jaxlib has the interface that it is for."""
    ffi = getattr(jax, "ffi", None)
    version = None if ffi is None else _version(Path(ffi.include_dir()))
    if ffi is None or version is None or version[0] != xla_handler.MAJOR:
        return False
    function = ctypes.CFUNCTYPE(ctypes.c_void_p, ctypes.c_void_p)(xla.handler(version[1]))
    ffi.register_ffi_target(_TARGET, ffi.pycapsule(function), platform="cpu")
    return True


def _version(include: Path) -> tuple[int, int] | None:
    """The version of the interface that jaxlib was built with, as its header says."""
    try:
        text = (include / "xla/ffi/api/c_api.h").read_text()
    except OSError:
        return None
    found = [re.search(rf"#define XLA_FFI_API_{part} (\d+)", text) for part in ("MAJOR", "MINOR")]
    return None if None in found else tuple(int(match[1]) for match in found if match)  # type: ignore[return-value]


@functools.cache
def _guard() -> Foreign:
    """A primitive that hands arrays on, and refuses to gather them from several devices."""
    guard = core.Primitive("nki_arguments")
    guard.multiple_results = True

    def abstract(*avals: object, kernel: str, line: Location) -> Sequence[object]:
        for aval in avals:
            spec = getattr(getattr(aval, "sharding", None), "spec", ())
            if any(axis is not None for axis in spec):
                raise ShardedInJit(kernel=kernel, sharding=spec, location=line)
        return avals

    def lower(ctx: Foreign, *arrays: object, kernel: str, line: Location) -> Sequence[Foreign]:
        devices = _automatic_devices(ctx.module_context.axis_context)
        if devices > 1:
            raise SeveralDevices(kernel=kernel, devices=devices, location=line)
        return arrays

    guard.def_impl(lambda *arrays, **_: arrays)
    guard.def_abstract_eval(abstract)
    mlir.register_lowering(guard, lower)
    batching.primitive_batchers[guard] = lambda arrays, dims, **options: (guard.bind(*arrays, **options), dims)
    return guard


def _automatic_devices(context: object) -> int:
    """How many devices XLA would spread code over by itself: those of axes that no shard_map has taken."""
    mesh = getattr(context, "mesh", None)
    if mesh is None:
        return getattr(context, "num_devices", 1)
    manual: frozenset[str] = getattr(context, "manual_axes", frozenset())
    return int(np.prod([size for name, size in mesh.shape.items() if name not in manual], dtype=np.int64))
