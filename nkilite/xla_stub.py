"""A stand-in for torch_xla and torch_neuronx, made on request: scripts that move tensors to a device stay on the CPU.

`xm.xla_device()` and torch's device "neuron" are the CPU, a step marker does nothing, and `torch_neuronx.trace` returns
the function it is given.
Kernels without a gradient detach their results, with a warning, where they otherwise refuse arguments that require one.
Anything else of these packages says that it is the vendor's when it is used.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from nkilite.beta1.jax_call import nki_call
from nkilite.beta1.kernel import jit
from nkilite.beta1.vendor import VendorModules, VendorName
from nkilite.frameworks import custom_op, neuron_device, torch_neuronx
from nkilite.frameworks.neuron_device import nothing
from nkilite.frameworks.torch import detach_without_gradient
from nkilite.later import later

if TYPE_CHECKING:
    import torch
else:
    torch = later("torch")  # that scripts bring

_PACKAGES = ("torch_xla", "torch_neuronx")

_SPELLINGS: dict[str, object] = {name: getattr(torch_neuronx, name) for name in torch_neuronx.__all__}
#: Modules that only name what nkilite has, so that they are there without a request, too.
SPELLINGS: dict[str, dict[str, object]] = {
    "torch_neuronx": {"nki_jit": jit, **_SPELLINGS},
    "torch_neuronx.nki_hop": _SPELLINGS,
    "torch_neuronx.xla_impl": {"custom_op": custom_op},
    "torch_neuronx.xla_impl.ops": {"nki_jit": jit},
    "libtorch_neuronx_lite": {},
    "libtorch_neuronx_lite.nki": {},
    "libtorch_neuronx_lite.nki.nki_hop": _SPELLINGS,
    "jax_neuronx": {"nki_call": nki_call},
}


def install() -> None:
    """Make `import torch_xla` and `import torch_neuronx` find the stand-ins, and torch have a device "neuron"."""
    if _STUBS in sys.meta_path:
        return
    for name in [n for n in sys.modules if n.split(".")[0] in _PACKAGES]:
        del sys.modules[name]
    sys.meta_path.insert(0, _STUBS)
    detach_without_gradient()
    neuron_device.install()


def _cpu(*_: object, **__: object) -> object:
    return torch.device("cpu")


def _seed() -> int:
    return int(torch.initial_seed() % (1 << 31))


def _seeded(seed: int, *_: object, **__: object) -> None:
    torch.manual_seed(seed)


def _zero(*_: object, **__: object) -> int:
    """The number of the only process, everywhere."""
    return 0


def _one(*_: object, **__: object) -> int:
    """How many processes there are."""
    return 1


def _true(*_: object, **__: object) -> bool:
    return True


def _reduced(
    kind: str, inputs: torch.Tensor | Sequence[torch.Tensor], scale: float = 1.0, *_: object, **__: object
) -> torch.Tensor | None:
    """What one process has in common with itself: a tensor; tensors of a list are scaled where they are."""
    if isinstance(inputs, torch.Tensor):
        return inputs * scale
    for tensor in inputs:
        tensor.mul_(scale)
    return None


def _scattered(
    kind: str, input: torch.Tensor, scale: float, scatter_dim: int, shard_count: int, *_: object,
    output: torch.Tensor | None = None, **__: object,
) -> torch.Tensor:
    """The part of one of one process: all of it."""
    return input * scale if output is None else output.copy_(input * scale)


def _gathered(value: object, *_: object, **__: object) -> object:
    return value


def _agreed(tag: str, data: object, reduce: Callable[[list[object]], object]) -> object:
    return reduce([data])


def _closure(closure: Callable[..., object], args: Sequence[object] = (), *_: object, **__: object) -> None:
    """What waits for the end of a step runs now: values are there."""
    closure(*args)


def _spawned(function: Callable[..., object], args: Sequence[object] = (), *_: object, **__: object) -> None:
    """Processes that a script would start are this one."""
    function(0, *args)


def _unchanged(given: object, *_: object, **__: object) -> object:
    """A function that is not compiled; a loader whose batches stay where they are."""
    return given


_XLA_MODEL: dict[str, object] = {
    "xla_device": _cpu,
    "mark_step": nothing,
    "wait_device_ops": nothing,
    "rendezvous": nothing,
    "get_ordinal": _zero,
    "get_local_ordinal": _zero,
    "xrt_world_size": _one,
    "is_master_ordinal": _true,
    **{f"REDUCE_{kind.upper()}": kind for kind in ("sum", "mul", "and", "or", "min", "max")},
    "all_reduce": _reduced,
    "reduce_scatter": _scattered,
    "all_gather": _gathered,
    "mesh_reduce": _agreed,
    "add_step_closure": _closure,
    "get_rng_state": _seed,
    "set_rng_state": _seeded,
    "xla_device_hw": lambda *_: "CPU",
    "optimizer_step": lambda optimizer, *_, **__: optimizer.step(),
    "master_print": print,
    "save": lambda *args, **_: torch.save(*args),
}
_NAMES: dict[str, dict[str, object]] = {
    "torch_xla": {
        "device": _cpu, "sync": nothing, "step": contextlib.nullcontext, "launch": _spawned, "manual_seed": _seeded,
        "_XLAC": VendorName("torch_xla._XLAC"), "__version__": "2.0",
    },
    "torch_xla.core.xla_model": _XLA_MODEL,
    "torch_xla.experimental": {"eager_mode": nothing},
    "torch_xla.distributed.xla_multiprocessing": {"spawn": _spawned},
    "torch_xla.distributed.parallel_loader": {"MpDeviceLoader": _unchanged},
    "torch_xla.runtime": {
        "world_size": _one, "global_ordinal": _zero, "local_ordinal": _zero, "device_type": lambda *_: "CPU",
    },
    **SPELLINGS,
    "torch_neuronx": {
        "trace": _unchanged, "synchronize": nothing, "_lazy_init": nothing, "__version__": "2.0",
        **SPELLINGS["torch_neuronx"],
    },
}
_STUBS = VendorModules(*_PACKAGES, known=_NAMES)
