"""What the figures were taken on."""

from __future__ import annotations

import os
import platform
from importlib import metadata
from typing import Any

from benchmarks.peers import cores
from nkilite.host.cpu import host

_LIBRARIES = ("nkilite", "llvmlite", "numpy", "torch", "numba", "jax")


def describe() -> dict[str, Any]:
    """Processor, cores, load and versions."""
    return {
        "processor": _processor(), "cores": cores(), "level": host().level, "system": platform.platform(),
        "load": [round(x, 2) for x in os.getloadavg()],
        "versions": {name: v for name in _LIBRARIES if (v := _version(name)) is not None},
    }


def _processor() -> str:
    try:
        with open("/proc/cpuinfo") as file:
            return next(line.split(":", 1)[1].strip() for line in file if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None
