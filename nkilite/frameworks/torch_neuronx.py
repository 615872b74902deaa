"""What `import torch_neuronx` finds: the spellings with which public code makes kernels operators of torch."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterable

import nkilite as nki
from nkilite.runtime.kernel import Kernel, jit
from nkilite.runtime.opaque import Foreign

__all__ = ["nki", "nki_op", "wrap_nki"]


def nki_op(
    name: str, function: Callable[..., object] | None = None, /, *, mutates_args: str | Iterable[str] = (),
    **options: object
) -> Foreign:
    """Make a function that calls kernels an operator of torch, for `torch.compile`, `torch.export` and training.

    What the function returns for tensors without memory is found by calling it on such tensors: kernels can do that.

    Args:
        name: of the operator, "namespace::name".
        function: takes and returns tensors, with type annotations; a decorator without it.
        mutates_args: names of the arguments it writes, or "unknown".
        options: those of `torch.library.custom_op`.

    Returns:
        What `torch.library.custom_op` returns; it has `register_autograd`.

    Source: the public guides of torch-neuronx.
    """
    written = mutates_args if isinstance(mutates_args, str) else tuple(mutates_args)

    def register(function: Callable[..., object]) -> object:
        library = importlib.import_module("torch.library")
        operator = library.custom_op(name, function, mutates_args=written, **options)
        operator.register_fake(function)
        library.impl(name, "cpu", function)  # by itself, for kernels may return what they write; custom_op forbids it
        return operator

    return register if function is None else register(function)


def wrap_nki(kernel: Callable[..., object]) -> Kernel[...]:
    """A kernel that can be called in a graph of torch, `wrap_nki(kernel)[lnc](...)`; here every kernel can."""
    found: Kernel[...] = jit(kernel)
    return found
