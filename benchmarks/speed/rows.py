"""Normalizations along rows, which are as fast as memory at best."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator
from typing import Any

from benchmarks import limits, peers
from benchmarks.speed.match import Match

ROWS = COLUMNS = 4096
_OVER_COPY = {"softmax": 1.3, "rmsnorm": 1.1, "layernorm": 1.2}  # times as long as a copy, at most


def matches(threads: int) -> Iterator[Match]:
    for name, slower in _OVER_COPY.items():
        module = importlib.import_module(f"kernels.{name}")
        arrays = module.inputs(rows=ROWS, D=COLUMNS)
        kernel = getattr(module, name)
        numpy = module.in_numpy
        others: dict[str, Callable[[], object]] = {"NumPy": lambda f=numpy, a=arrays: f(*a)}
        if threads == 1:  # NumPy's copy has one thread
            others["streaming copy"] = limits.streaming_copy((ROWS, COLUMNS))
        others |= _torch(name, arrays) | _numba(name, arrays)
        if threads == peers.cores():
            others |= _jax(name, arrays)
        goals = {"streaming copy": 1 / slower, "torch": 2.0}
        yield Match(name, f"{ROWS}×{COLUMNS}", lambda k=kernel, a=arrays: k(*a), others, goals)


def _numba(name: str, arrays: tuple[Any, ...]) -> dict[str, Callable[[], object]]:
    if peers.library("numba") is None:
        return {}
    function = getattr(importlib.import_module("benchmarks.speed.numba_rows"), name)
    return {"numba": lambda: function(*arrays)}


def _jax(name: str, arrays: tuple[Any, ...]) -> dict[str, Callable[[], object]]:
    jax = peers.library("jax")
    if jax is None:
        return {}

    def normalized(x: Any, epsilon: float) -> Any:
        return x * jax.lax.rsqrt(jax.numpy.mean(x * x, -1, keepdims=True) + epsilon)

    functions: dict[str, Callable[..., Any]] = {
        "softmax": jax.nn.softmax,
        "rmsnorm": lambda x, gamma: normalized(x, 1e-6) * gamma,
        "layernorm": lambda x, gamma, beta: normalized(x - x.mean(-1, keepdims=True), 1e-5) * gamma + beta,
    }
    values = [jax.numpy.asarray(a) for a in arrays]
    fast = peers.jitted(functions[name], *values)
    return {} if fast is None else {"JAX": lambda: fast(*values)}


def _torch(name: str, arrays: tuple[Any, ...]) -> dict[str, Callable[[], object]]:
    torch = peers.library("torch")
    if torch is None:
        return {}
    f = torch.nn.functional
    x, *rest = (torch.from_numpy(a) for a in arrays)
    functions: dict[str, Callable[..., Any]] = {
        "softmax": lambda x: f.softmax(x, -1),
        "rmsnorm": lambda x, gamma: f.rms_norm(x, (COLUMNS,), gamma, 1e-6),
        "layernorm": lambda x, gamma, beta: f.layer_norm(x, (COLUMNS,), gamma, beta, 1e-5),
    }
    eager = functions[name]
    found: dict[str, Callable[[], object]] = {"torch": lambda: eager(x, *rest)}
    fast = peers.compiled(eager, x, *rest)
    if fast is not None:
        found["torch.compile"] = lambda: fast(x, *rest)
    return found
