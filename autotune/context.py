"""What a result belongs to: the kernel, the arguments, the objective, the machine and the versions.

Two trials are the same trial when their contexts are equal and their configurations make the kernel trace to the same
program. The search space is not part of it, so a value added to a space leaves earlier trials valid.
"""

from __future__ import annotations

import hashlib
import json
import platform
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cache, cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

import nkilite as nki
import nkilite.isa as nisa
import nkilite.language as nl
from nkilite.later import later

if TYPE_CHECKING:
    import importlib.metadata as packages
else:
    packages = later("importlib.metadata")

_DIGITS = 16
_ON_CPU = {"cpu", "error"}


@dataclass(frozen=True)
class Context:
    """Everything but the configuration that a trial's outcome depends on.

    Attributes:
        kernel: its qualified name, with the cores of a launch on several: ``module:kernel[2]``.
        arguments: by name, ["array", shape, dtype] or ["value", text] of every argument that is not tuned.
        objective: names of figures, separated by commas.
        target: the chip whose limits the trace was checked against.
        cpu: the CPU model and instruction level where anything is measured, else "".
        nkilite: its version; the compiler and the timing model come with it.
    """

    kernel: str
    arguments: dict[str, list[Any]]
    objective: str
    target: str
    cpu: str
    nkilite: str

    @cached_property
    def id(self) -> str:
        """The same for equal contexts on every machine."""
        return digest(asdict(self))

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def digest(value: Any) -> str:
    """A short hash of a JSON value that does not depend on the order of its keys."""
    return hashlib.sha256(canonical(value).encode()).hexdigest()[:_DIGITS]


def canonical(value: Any) -> str:
    """JSON with sorted keys and no spaces; values JSON does not have become their text."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), default=str)


def describe_arguments(arguments: Mapping[str, Any]) -> dict[str, list[Any]]:
    """Arguments as a Context holds them; arrays inside containers are described within the text."""
    return {name: _describe(value) for name, value in arguments.items()}


def _describe(value: Any) -> list[Any]:
    if hasattr(value, "shape") and hasattr(value, "dtype"):
        return ["array", [int(n) for n in value.shape], str(value.dtype).removeprefix("torch.")]
    if isinstance(value, (list, tuple)):
        return ["value", canonical([_describe(v) for v in value])]
    name = getattr(value, "__qualname__", None)
    return ["value", name if name is not None and callable(value) else repr(value)]


def context_of(kernel: Any, arguments: Mapping[str, Any], tuned: Any, objective: str, target: str) -> Context:
    """The context of a kernel bound to arguments, those named in `tuned` left out."""
    fixed = {n: v for n, v in arguments.items() if n not in tuned}
    cpu = f"{cpu_model()} {cpu_level()}" if _ON_CPU & {*objective.split(",")} else ""
    return Context(
        f"{kernel.__module__}:{kernel.launched_name}" if kernel.__module__ != "__main__" else kernel.launched_name,
        describe_arguments(fixed), objective, nki.target_identity(target), cpu, nki.__version__,
    )


@cache
def cpu_model() -> str:
    """The name of this machine's processor."""
    try:
        with open("/proc/cpuinfo") as lines:
            for line in lines:
                if line.startswith(("model name", "Hardware", "CPU part")):
                    return line.split(":", 1)[1].strip()
    except OSError:
        pass  # not Linux
    return platform.processor() or platform.machine()


@cache
def cpu_level() -> str:
    """The instruction level kernels are compiled for here, found by compiling the smallest one."""
    @nki.jit
    def smallest(x: Any) -> Any:
        out = nl.ndarray(x.shape, dtype=x.dtype, buffer=nl.shared_hbm)
        nisa.dma_copy(dst=out, src=x)
        return out

    return str(smallest.compile(np.zeros((1, 1), np.float32)).host.level)


@cache
def versions() -> dict[str, str]:
    """Versions recorded with every trial, for people; Context.nkilite alone decides whether it still counts."""
    found = {"python": ".".join(map(str, sys.version_info[:3])), "nkilite": nki.__version__}
    for package in ("llvmlite", "numpy", "optuna"):
        try:
            found[package] = packages.version(package)
        except packages.PackageNotFoundError:
            continue
    return found
