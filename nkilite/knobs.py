"""Every environment variable nkilite reads, typed and documented in one place.

Values are read when asked for, never at import: kernel files set NEURON_PLATFORM_TARGET_OVERRIDE while they load.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

DEFAULT_TARGET = "trn2"
_TARGET = "NEURON_PLATFORM_TARGET_OVERRIDE"


def target() -> str:
    """NEURON_PLATFORM_TARGET_OVERRIDE: the modelled chip (trn1|inf2|gen2, trn2|gen3, trn3|gen4)."""
    return os.environ.get(_TARGET) or DEFAULT_TARGET


@contextmanager
def overridden_target(name: str) -> Iterator[None]:
    """Make `name` the target inside a `with` block."""
    before = os.environ.get(_TARGET)
    os.environ[_TARGET] = name
    try:
        yield
    finally:
        if before is None:
            del os.environ[_TARGET]
        else:
            os.environ[_TARGET] = before


def cpu() -> str:
    """NKILITE_CPU: the CPU feature level micro-kernels are compiled for.

    "native" (default) uses all the host has; "amx", "avx512", "avx2" and "vector128" name one of its levels.
    """
    return os.environ.get("NKILITE_CPU") or "native"


def tuned() -> str:
    """NKILITE_TUNED: a file of tuned configurations (exported, or a tuner's database) that launches take values for
    omitted parameters from; "" (default) means the defaults in the kernel's signature."""
    return os.environ.get("NKILITE_TUNED", "")


def simulator() -> bool:
    """NKI_SIMULATOR: run every kernel through nki.simulate ("1"), without changing the program that calls it."""
    return os.environ.get("NKI_SIMULATOR", "0") not in ("", "0")


def verify_passes() -> bool:
    """NKILITE_VERIFY: run the IR verifier after every pass ("1"); the test suite turns it on."""
    return os.environ.get("NKILITE_VERIFY", "0") not in ("", "0")
