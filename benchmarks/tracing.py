"""How long tracing and the passes take for an instruction: kernels of both dialects that unroll to many (cpu-measured).

    python -m benchmarks tracing [product ...] [--repeats 5]

Times are processor time of one thread, the best of some repeats after a first one, without compiling anything.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from rich.console import Console
from rich.table import Table

import nkilite
from benchmarks import convolution
from kernels.matmul import matmul
from nkilite import beta1
from nkilite.beta1 import isa as nisa
from nkilite.beta1 import language as nl
from nkilite.passes.pipeline import run_pipeline


@beta1.jit
def product(a, b):
    """a.T @ b, as generated kernels of Beta 1 write it: block dimensions, and index tensors made in every subscript."""
    (K, M), (_, N) = a.shape, b.shape
    out = nl.ndarray((M, N), dtype=a.dtype, buffer=nl.shared_hbm)
    left = nl.ndarray((K // 128, nl.par_dim(128), M), dtype=a.dtype, buffer=nl.sbuf)
    right = nl.ndarray((N // 512, K // 128, nl.par_dim(128), 512), dtype=a.dtype, buffer=nl.sbuf)
    sums = nl.zeros((N // 512, M // 128, nl.par_dim(128), 512), dtype=np.float32, buffer=nl.psum)
    found = nl.ndarray((N // 512, M // 128, nl.par_dim(128), 512), dtype=a.dtype, buffer=nl.sbuf)
    for k in nl.affine_range(K // 128):
        left[k, nl.arange(128)[:, None], nl.arange(M)[None, :]] = nl.load(
            a[128 * k + nl.arange(128)[:, None], nl.arange(M)[None, :]]
        )
    for n in nl.affine_range(N // 512):
        for k in nl.affine_range(K // 128):
            right[n, k, nl.arange(128)[:, None], nl.arange(512)[None, :]] = nl.load(
                b[128 * k + nl.arange(128)[:, None], 512 * n + nl.arange(512)[None, :]]
            )
        for m in nl.affine_range(M // 128):
            for k in nl.affine_range(K // 128):
                sums[n, m, nl.arange(128)[:, None], nl.arange(512)[None, :]] += nisa.nc_matmul(
                    left[k, nl.arange(128)[:, None], 128 * m + nl.arange(128)[None, :]],
                    right[n, k, nl.arange(128)[:, None], nl.arange(512)[None, :]],
                )
            found[n, m, nl.arange(128)[:, None], nl.arange(512)[None, :]] = nl.copy(
                sums[n, m, nl.arange(128)[:, None], nl.arange(512)[None, :]], dtype=a.dtype
            )
            nl.store(
                out[128 * m + nl.arange(128)[:, None], 512 * n + nl.arange(512)[None, :]],
                value=found[n, m, nl.arange(128)[:, None], nl.arange(512)[None, :]],
            )
    return out


@beta1.jit
def ragged(a, b):
    """a.T @ b of any number of columns: the last ones are behind a mask."""
    (K, M), (_, N) = a.shape, b.shape
    out = nl.ndarray((M, N), dtype=a.dtype, buffer=nl.shared_hbm)
    i, m_j, n_j = nl.arange(128)[:, None], nl.arange(128)[None, :], nl.arange(512)[None, :]
    for n in nl.affine_range((N + 511) // 512):
        inside = 512 * n + n_j < N
        for m in nl.affine_range(M // 128):
            total = nl.zeros((128, 512), dtype=np.float32, buffer=nl.psum)
            for k in nl.affine_range(K // 128):
                left = nl.load(a[128 * k + i, 128 * m + m_j])
                right = nl.load(b[128 * k + i, 512 * n + n_j], mask=inside)
                total += nisa.nc_matmul(left[i, m_j], right[i, n_j], mask=inside)
            nl.store(out[128 * m + i, 512 * n + n_j], value=nl.copy(total, dtype=a.dtype), mask=inside)
    return out


@beta1.jit
def adam(theta, slope, first, second):
    """A step of Adam, in which every operation has a tile of its own."""
    rows, columns = theta.shape
    out = nl.ndarray(theta.shape, dtype=theta.dtype, buffer=nl.shared_hbm)
    i, j = nl.arange(128)[:, None], nl.arange(512)[None, :]
    for r in nl.affine_range((rows + 127) // 128):
        for c in nl.affine_range(columns // 512):
            at, inside = (128 * r + i, 512 * c + j), 128 * r + i < rows
            x, g, m, v = (nl.load(t[at], mask=inside) for t in (theta, slope, first, second))
            m = nl.add(nl.multiply(m, 0.9, mask=inside), nl.multiply(g, 0.1, mask=inside), mask=inside)
            squares = nl.multiply(g, g, mask=inside)
            v = nl.add(nl.multiply(v, 0.999, mask=inside), nl.multiply(squares, 0.001, mask=inside), mask=inside)
            root = nisa.activation(op=nl.sqrt, data=v, scale=1000.0, mask=inside)
            step = nl.multiply(m, nisa.reciprocal(nl.add(root, 1e-8, mask=inside), mask=inside), mask=inside)
            nl.store(out[at], value=nl.subtract(x, nl.multiply(step, 0.01, mask=inside), mask=inside), mask=inside)
    return out


class Case(NamedTuple):
    kernel: nkilite.Kernel
    arguments: Callable[[], tuple[np.ndarray, ...]]
    dialect: str


def _operands(K: int, M: int, N: int) -> Callable[[], tuple[np.ndarray, ...]]:
    return lambda: (np.zeros((K, M), np.float32), np.zeros((K, N), np.float32))


CASES = {
    "matmul": Case(matmul, _operands(2048, 2048, 4096), "current"),
    "conv2d": Case(convolution.conv2d, lambda: convolution.operands(8), "current"),
    "product": Case(product, _operands(2048, 2048, 8192), "Beta 1"),
    "ragged": Case(ragged, _operands(2048, 1024, 2900), "Beta 1"),
    "adam": Case(adam, lambda: (np.zeros((4000, 4096), np.float32),) * 4, "Beta 1"),
}


def measured(case: Case, repeats: int) -> tuple[int, float, float]:
    """Instructions, and microseconds for each in tracing and in the passes over the program."""
    arguments = case.arguments()
    times = []
    for _ in range(repeats + 1):
        begin = time.process_time()
        program = case.kernel.trace(*arguments)
        count, traced = program.count, time.process_time()
        run_pipeline(program)
        times.append((traced - begin, time.process_time() - traced))
    trace, passes = (min(column) / count * 1e6 for column in zip(*times[1:], strict=True))
    return count, trace, passes


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks tracing", description=__doc__)
    parser.add_argument("kernels", nargs="*", help=f"those to measure, of {', '.join(CASES)}; by default all")
    parser.add_argument("--repeats", type=int, default=5, help="of which the fastest counts")
    chosen = parser.parse_args()
    table = Table("kernel", "dialect", "instructions", "tracing, us an instruction (cpu-measured)", "passes", box=None)
    for name in chosen.kernels or CASES:
        count, *microseconds = measured(CASES[name], chosen.repeats)
        table.add_row(name, CASES[name].dialect, f"{count:,}", *(f"{value:.2f}" for value in microseconds))
    Console().print(table)


if __name__ == "__main__":
    main()
