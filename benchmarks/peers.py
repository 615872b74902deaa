"""The libraries nkilite is compared with: which are here, and how many threads they use."""

from __future__ import annotations

import functools
import importlib
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any

_OURS = "NKILITE_NUM_THREADS"


@functools.cache
def library(name: str) -> ModuleType | None:
    """An optional library, or None where it is not installed."""
    try:
        return importlib.import_module(name)
    except ImportError:
        return None


def cores() -> int:
    """Cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@contextmanager
def our_threads(count: int) -> Iterator[None]:
    """Let nkilite use `count` threads."""
    before = os.environ.get(_OURS)
    os.environ[_OURS] = str(count)
    try:
        yield
    finally:
        if before is None:
            del os.environ[_OURS]
        else:
            os.environ[_OURS] = before


@contextmanager
def threads(count: int) -> Iterator[None]:
    """Let nkilite and every peer use `count` threads."""
    torch, pools, numba = library("torch"), library("threadpoolctl"), library("numba")
    if numba is not None:  # first, for as it starts it gives OpenMP, which torch uses, every core
        numba.set_num_threads(min(count, numba.config.NUMBA_NUM_THREADS))
    held = pools.threadpool_limits(count) if pools is not None else None
    if torch is not None:
        torch.set_num_threads(count)
    try:
        with our_threads(count):
            yield
    finally:
        if held is not None:
            held.restore_original_limits()


def compiled(function: Callable[..., Any], *arguments: Any) -> Callable[..., Any] | None:
    """torch.compile of a function, warmed up on arguments; None where that does not work on this machine."""
    torch = library("torch")
    if torch is None:
        return None
    fast = torch.compile(function, dynamic=False)
    try:
        fast(*arguments)
    except Exception as error:  # no compiler, no headers: torch has many ways to say so
        print(f"torch.compile does not work here: {type(error).__name__}")
        return None
    return fast


def jitted(function: Callable[..., Any], *arguments: Any) -> Callable[..., Any] | None:
    """jax.jit of a function whose call waits for the result; None where JAX is not installed.

    JAX takes its threads from the process's cores once and for all, so it takes part on all cores only.
    """
    jax = library("jax")
    if jax is None:
        return None
    fast = jax.jit(function)
    fast(*arguments).block_until_ready()
    return lambda *values: fast(*values).block_until_ready()
