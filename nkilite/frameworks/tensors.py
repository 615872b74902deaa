"""torch's tensors in warm launches; torch itself is never imported from here."""

from __future__ import annotations

import functools
import math
import sys
from collections.abc import Callable, Hashable
from types import ModuleType
from typing import TYPE_CHECKING

from nkilite.dtypes import as_dtype
from nkilite.frameworks.imports import once_imported
from nkilite.runtime.arguments import torch_memory
from nkilite.runtime.foreign import Library, libraries
from nkilite.runtime.opaque import Foreign
from nkilite.runtime.recycler import RECYCLED, new_array
from nkilite.runtime.results import Result

if TYPE_CHECKING:
    from torch import Tensor


def torch_library(torch: ModuleType) -> Library:
    """How native code and torch share memory."""
    strided, cpu = torch.strided, torch.device("cpu")
    wrapped = torch._C._functorch.is_functorch_wrapped_tensor
    dispatched, overridden = torch._C._len_torch_dispatch_stack, torch._C._len_torch_function_stack
    differentiates = torch.is_grad_enabled

    def look(tensor: Tensor) -> Hashable | None:
        if (
            not tensor.is_cpu or tensor.layout is not strided or dispatched() or overridden()
            or (tensor.requires_grad and differentiates()) or wrapped(tensor) or tensor.is_conj() or tensor.is_neg()
        ):
            return None
        return tensor.dtype, tensor.shape

    def address(tensor: Tensor) -> int:
        return tensor.data_ptr() if tensor.is_contiguous() else -1

    def memory(tensor: Tensor) -> Foreign:
        return torch_memory(torch, tensor.detach())

    def maker(shape: tuple[int, ...], dtype: str) -> Callable[[], object] | None:
        kind = getattr(torch, dtype, None)
        if kind is None:
            return None
        size = as_dtype(dtype).itemsize
        if math.prod(shape) * size < RECYCLED:
            return functools.partial(torch.empty, shape, dtype=kind, device=cpu)
        words = as_dtype({1: "int8", 2: "int16", 4: "int32"}[size]).numpy
        return lambda: torch.from_numpy(new_array(shape, words)).view(kind)

    return Library(look, address, memory, maker, viewed)


def viewed(tensor: Tensor, result: Result) -> Foreign:
    """What a kernel returns of a tensor it was given or made."""
    if result.strides is None:
        return tensor
    size = as_dtype(result.dtype).itemsize
    elements = tensor.view(getattr(sys.modules["torch"], result.dtype))
    return elements.as_strided(result.shape, [s // size for s in result.strides], result.offset // size)


def _add_torch() -> None:
    torch = sys.modules["torch"]
    libraries[torch.Tensor] = libraries[torch.nn.Parameter] = torch_library(torch)


once_imported("torch", _add_torch)
