"""nki.simulator: the function behind nki.simulate, which test harnesses and serving libraries call.

Source: the public page on the simulator of vllm-neuron, and how nki-library's test harness calls it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from nkilite.runtime.kernel import Kernel, jit, simulate

__all__ = ["simulate_kernel"]


def simulate_kernel(
    kernel: Callable[..., object], args: Sequence[object] = (), kwargs: Mapping[str, object] | None = None,
    lnc: int | None = None, _lnc: int | None = None,
) -> Any:
    """Run a kernel by NumPy reference semantics: nki.simulate(kernel[lnc])(*args, **kwargs).

    Args:
        kernel: a kernel, or a function to make one of.
        args, kwargs: its arguments.
        lnc: how many cores, also as `_lnc`; by default as the kernel, or NEURON_LOGICAL_NC_CONFIG, says.

    Raises:
        InvalidGrid: there are no so many cores.
    """
    cores = _lnc if lnc is None else lnc
    launched = kernel if cores is None else (kernel if isinstance(kernel, Kernel) else jit(kernel))[cores]
    return simulate(launched)(*args, **(kwargs or {}))
