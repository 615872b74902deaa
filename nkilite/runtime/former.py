"""Names of nki in older releases: simulate_kernel and baremetal."""

from __future__ import annotations

import functools
from collections.abc import Callable

from nkilite.deprecation import deprecated
from nkilite.runtime.kernel import jit, simulate
from nkilite.runtime.opaque import UserValue
from nkilite.runtime.options import check_vendor

__all__ = ["baremetal", "simulate_kernel"]


def simulate_kernel(kernel: Callable[..., object], *args: object, **kwargs: object) -> UserValue:
    """Run a kernel by NumPy reference semantics: nki.simulate(kernel)(*args, **kwargs)."""
    deprecated("nki.simulate_kernel(kernel, ...)", "nki.simulate(kernel)(...)")
    return simulate(kernel)(*args, **kwargs)


def baremetal(kernel: Callable[..., object] | None = None, **options: UserValue) -> UserValue:
    """A kernel that runs without a framework, as every kernel does: `@nki.baremetal`, or with options for files.

    Options (save_neff_name, save_trace_name, additional_compile_opt, artifacts_dir) have no meaning here.

    Raises:
        UnknownKeyword: no release has had such an option.
    """
    check_vendor("nki.baremetal", options)
    if kernel is None:
        return functools.partial(baremetal, **options)
    deprecated("nki.baremetal", "nki.jit")
    return jit(kernel)
