"""nkilite: NKI kernels on any CPU.

`@nkilite.jit` compiles a kernel to native code, `nkilite.simulate` runs it eagerly by the reference rule of
each instruction. The modules nkilite.language, nkilite.isa, nkilite.typing and nkilite.collectives have the
names of the public nki package; `nkilite.compat.install()` lets kernels import them under those names.
"""

import importlib as _importlib
import typing as _typing
from typing import Any as _Any

from nkilite import collectives, errors, gpsimd, isa, language, sparsity, typing
from nkilite.dimensions import Dim
from nkilite.dtypes import DType as dtype
from nkilite.frameworks import jax as _jax  # noqa: F401  kernels become what jax and torch can trace
from nkilite.frameworks import torch as _torch  # noqa: F401
from nkilite.language import NkiTensor as tensor
from nkilite.machine.target import target_identity, target_names
from nkilite.runtime.configurations import register as register_configurations
from nkilite.runtime.former import baremetal, simulate_kernel
from nkilite.runtime.kernel import Kernel, jit, program_digest, simulate
from nkilite.runtime.kernel import simulate as cpu_simulate
from nkilite.runtime.portable import Portable
from nkilite.runtime.ranks import ranks
from nkilite.suggest import unknown_name as _unknown_name

__version__ = "0.1.0"

__all__ = [
    "Dim",
    "Kernel",
    "Portable",
    "baremetal",
    "benchmark",
    "collectives",
    "cpu_simulate",
    "dtype",
    "errors",
    "gpsimd",
    "isa",
    "jit",
    "language",
    "profile",
    "program_digest",
    "ranks",
    "register_configurations",
    "simulate",
    "simulate_kernel",
    "sparsity",
    "target_identity",
    "target_names",
    "tensor",
    "typing",
]

if _typing.TYPE_CHECKING:
    from nkilite.profiling.benchmark import benchmark
    from nkilite.profiling.profile import profile
else:  # a checker that sees it believes that every name exists
    _ON_FIRST_USE = {"benchmark": "nkilite.profiling.benchmark", "profile": "nkilite.profiling.profile"}

    def __getattr__(name: str) -> _Any:
        if name in _ON_FIRST_USE:  # what launches do not need
            found = globals()[name] = getattr(_importlib.import_module(_ON_FIRST_USE[name]), name)
            return found
        if name.startswith("__"):
            raise AttributeError(name)
        raise _unknown_name("nki", "nki", name, __all__, {})
