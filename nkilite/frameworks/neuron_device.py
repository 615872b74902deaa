"""A stand-in for torch's device "neuron", made on request: what programs put there stays on the CPU.

torch takes the name for a device without a backend (PrivateUse1), and a mode of torch functions, which sees every call
of torch that a program makes, lets the CPU take its place. Code that torch.compile makes for "neuron" is run as it is.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from types import ModuleType
from typing import TYPE_CHECKING, Any

from nkilite.frameworks.imports import once_imported
from nkilite.later import later

if TYPE_CHECKING:
    import torch
else:
    torch = later("torch")  # that programs bring

_NAME = "neuron"
_TYPES = (_NAME, "privateuseone")


def install() -> None:
    """Let torch have a device of that name, now or when it is imported."""
    once_imported("torch", _install)
    once_imported("torch._dynamo.backends.registry", _install_backend)


def _install() -> None:
    torch.utils.rename_privateuse1_backend(_NAME)
    torch._register_device_module(_NAME, _module())
    torch.accelerator.current_accelerator = lambda *_, **__: None  # it has no streams for torch.compile to look after
    _mode().__enter__()


def _install_backend() -> None:
    registry: Any = sys.modules["torch._dynamo.backends.registry"]
    registry.register_backend(_unchanged, _NAME)


def _unchanged(graph: Callable[..., object], _: Sequence[object], **__: object) -> Callable[..., object]:
    return graph


def _mode() -> Any:
    """A mode that puts the CPU in the place of the device in what torch functions are given."""

    class OnCpu(torch.overrides.TorchFunctionMode):  # type: ignore[misc, unused-ignore]
        def __torch_function__(
            self, func: Callable[..., object], types: object, args: Sequence[object] = (),
            kwargs: Mapping[str, object] | None = None,
        ) -> object:
            numbered = func is torch.Tensor.to  # a number alone is that of a device
            found = [on_cpu(value, numbered) for value in args]
            named = {name: on_cpu(value, name == "device") for name, value in (kwargs or {}).items()}
            if func is torch.device and any(new is not old for new, old in zip(found, args, strict=True)):
                return torch.device("cpu")  # of any number, which the CPU does not have
            return func(*found, **named)

    return OnCpu()


def on_cpu(value: object, numbered: bool = False) -> object:
    """The CPU for the device, however it is written, a number too if it stands where a device does; else the value."""
    if numbered and type(value) is int:
        return torch.device("cpu")
    if isinstance(value, str):
        return torch.device("cpu") if value.partition(":")[0] in _TYPES else value
    return torch.device("cpu") if isinstance(value, torch.device) and value.type in _TYPES else value


def _module() -> ModuleType:
    """`torch.neuron`: one device, which has done everything when a call returns."""
    module = ModuleType(f"torch.{_NAME}")
    vars(module).update(
        is_available=lambda: True, is_initialized=lambda: True, device_count=lambda: 1, current_device=lambda: 0,
        set_device=nothing, synchronize=nothing, empty_cache=nothing, _is_in_bad_fork=lambda: False,
        manual_seed=nothing, manual_seed_all=nothing,  # the CPU has been seeded
    )
    return module


def nothing(*_: object, **__: object) -> None:
    """What has an effect on a device alone: steps, barriers and waits, for results are there when a call returns."""
