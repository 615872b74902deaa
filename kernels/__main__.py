"""`python -m kernels`: run the gallery end to end and show answers, speed and what each kernel asks of the chip.

Every kernel is traced, checked, compiled for this CPU, run, and compared with its float64 reference; then it and the
idiomatic float32 NumPy formula beside it are timed in turns.
"""

from __future__ import annotations

import importlib
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from kernels import GALLERY
from nkilite.isa import engine
from nkilite.profiling import summarize
from nkilite.testing import check

ROUNDS = 5
WIDTH = 140  # columns the tables need; logs have no width of their own


def softmax(x):
    e = np.exp(x - x.max(axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True)


def rmsnorm(x, gamma):
    return x / np.sqrt(np.mean(x * x, axis=-1, keepdims=True) + np.float32(1e-6)) * gamma


def layernorm(x, gamma, beta):
    centred = x - x.mean(axis=-1, keepdims=True)
    return centred / np.sqrt(np.mean(centred * centred, axis=-1, keepdims=True) + np.float32(1e-5)) * gamma + beta


def attention(q, k, v):
    return softmax(q @ k.transpose(0, 2, 1) / np.float32(np.sqrt(q.shape[-1]))) @ v


def mlp(x, w_gate, w_up, w_down):
    gate = x @ w_gate
    return (gate / (1 + np.exp(-gate)) * (x @ w_up)) @ w_down


def rope(x, cos, sin):
    half = x.shape[-1] // 2
    first, second, c, s = x[..., :half], x[..., half:], cos[None, :, None], sin[None, :, None]
    return np.concatenate((first * c - second * s, first * s + second * c), axis=-1)


def swiglu(gate, up):
    return gate / (1 + np.exp(-gate)) * up


def mamba(delta, u, A, B, C):
    state, y = np.zeros((*u.shape[:2], A.shape[1]), np.float32), np.empty_like(u)
    for t in range(u.shape[2]):
        state *= np.exp(delta[:, :, t, None] * A)
        state += (delta[:, :, t] * u[:, :, t])[:, :, None] * B[:, None, :, t]
        y[:, :, t] = np.einsum("bcs,bs->bc", state, C[:, :, t])
    return y


def adam(p, g, m, v):
    m = np.float32(0.9) * m + np.float32(0.1) * g
    v = np.float32(0.999) * v + np.float32(0.001) * g * g
    return p - np.float32(1e-3) * (m / np.float32(0.1)) / (np.sqrt(v / np.float32(0.001)) + np.float32(1e-8)), m, v


# The sizes shown, and the same computation as one would write it in NumPy.
SHOWN: dict[str, tuple[dict[str, int], Callable[..., Any]]] = {
    "matmul": ({"M": 1024, "N": 1024, "K": 1024}, lambda lhsT, rhs: lhsT.T @ rhs),
    "softmax": ({"rows": 2048, "D": 2048}, softmax),
    "rmsnorm": ({"rows": 2048, "D": 2048}, rmsnorm),
    "layernorm": ({"rows": 2048, "D": 2048}, layernorm),
    "flash_attention": ({"heads": 2, "kv_heads": 2, "S_q": 1024, "S_k": 1024, "D": 128}, attention),
    "mlp": ({"tokens": 512, "H": 512, "F": 1024}, mlp),
    "transpose": ({"M": 2048, "N": 2048}, lambda x: np.ascontiguousarray(x.T)),
    "rope": ({"batch": 1, "tokens": 1024, "heads": 16, "D": 128}, rope),
    "swiglu": ({"rows": 2048, "D": 2048}, swiglu),
    "mamba": ({"batch": 1, "channels": 256, "T": 1024, "S": 16}, mamba),
    "adam": ({"rows": 2048, "D": 1024}, adam),
}


def main() -> int:
    """Show the table; the exit status is 1 if a result is wrong."""
    console = Console(width=max(Console().width, WIDTH))
    answers = Table(title="Answers and speed on this CPU (float32, cpu-measured)")
    for heading in ("kernel", "sizes", "result", "first call", "compiled", "NumPy", "NumPy / compiled"):
        answers.add_column(heading, justify="left" if heading in ("kernel", "sizes", "result") else "right")
    chip = Table(title="What the kernels ask of a trn2 NeuronCore (counts exact, times modelled)")
    for heading in ("kernel", "Tensor", "Vector", "Scalar", "GpSimd", "DMA", "HBM read", "written", "SBUF peak", "PSUM",
                    "busiest engine"):
        chip.add_column(heading, justify="left" if heading in ("kernel", "busiest engine") else "right")
    wrong = 0
    for name in GALLERY:
        module = importlib.import_module(f"kernels.{name}")
        sizes, peer = SHOWN[name]
        arrays = module.inputs(dtype="float32", **sizes)
        kernel = getattr(module, name)
        started = time.perf_counter()
        kernel(*arrays)
        first = time.perf_counter() - started
        verdict = "correct"
        try:
            check(kernel, module.reference, *arrays, modes=("compiled",), **module.tolerance(**sizes))
        except AssertionError as mismatch:
            wrong += 1
            verdict = "WRONG"
            console.print(f"{name}: {mismatch}")
        ours, numpy = _in_turns(lambda k=kernel, a=arrays: k(*a), lambda p=peer, a=arrays: p(*a))
        answers.add_row(name, " ".join(f"{k}={v}" for k, v in sizes.items()), verdict, f"{first * 1e3:.0f} ms",
                        f"{ours * 1e3:.2f} ms", f"{numpy * 1e3:.2f} ms", f"{numpy / ours:.1f}")
        _add_chip_row(chip, name, summarize(kernel.compile(*arrays).program))
    console.print(answers)
    console.print(chip)
    return 1 if wrong else 0


def _in_turns(ours: Callable[[], Any], theirs: Callable[[], Any]) -> tuple[float, float]:
    """Median seconds of two functions called alternately."""
    seconds: tuple[list[float], list[float]] = ([], [])
    theirs()
    for _ in range(ROUNDS):
        for function, found in zip((ours, theirs), seconds, strict=True):
            started = time.perf_counter()
            function()
            found.append(time.perf_counter() - started)
    return float(np.median(seconds[0])), float(np.median(seconds[1]))


def _add_chip_row(table: Table, name: str, summary: Any) -> None:
    shown = (engine.tensor, engine.vector, engine.scalar, engine.gpsimd, engine.dma)
    counts = [summary.instructions.get(e, 0) for e in shown]
    busiest, time_us = max(summary.busy_us.items(), key=lambda item: item[1])
    table.add_row(
        name, *map(str, counts), _bytes(summary.hbm_read_bytes), _bytes(summary.hbm_write_bytes),
        _bytes(summary.sbuf_peak_bytes) + "/partition", f"{summary.psum_peak_banks} banks",
        f"{busiest.name} {time_us:.0f} µs",
    )


def _bytes(count: int) -> str:
    return f"{count / 2**20:.1f} MiB" if count >= 2**20 else f"{count / 2**10:.1f} KiB"


if __name__ == "__main__":
    sys.exit(main())
