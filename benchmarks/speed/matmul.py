"""Matrix products from HBM to HBM against BLAS libraries, and on resident tiles against the peak of the core."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import ml_dtypes
import numpy as np

import nkilite as nki
import nkilite.isa as nisa
import nkilite.language as nl
from benchmarks import limits, peers
from benchmarks.speed.match import Match
from kernels.matmul import inputs, matmul

RESIDENT = 128  # nc_matmuls per launch: the load of the operands disappears in them


@nki.jit
def resident_matmul(stationary, moving):
    """Products of the same two tiles, over and over."""
    left = nl.load(stationary)
    right = nl.load(moving)
    product = nl.ndarray((128, 512), dtype=nl.float32, buffer=nl.psum)
    for i in range(RESIDENT):
        nisa.nc_matmul(dst=product, stationary=left, moving=right, accumulate=i > 0)
    return stored(product)


def stored(product):
    """In a kernel: a PSUM tile as a result."""
    result = nl.ndarray(product.shape, dtype=nl.float32, buffer=nl.sbuf)
    nisa.tensor_copy(dst=result, src=product)
    out = nl.ndarray(product.shape, dtype=nl.float32, buffer=nl.shared_hbm)
    nl.store(out, result)
    return out


def matches(threads: int) -> Iterator[Match]:
    for side in (1024, 2048, 4096):
        yield _float32(side)
    for side in (2048, 4096):
        yield _bfloat16(side)
    if threads == 1:
        yield from _resident()


def _float32(side: int) -> Match:
    lhsT, rhs = inputs(M=side, N=side, K=side)
    others: dict[str, Callable[[], object]] = {"NumPy": lambda: lhsT.T @ rhs}
    torch = peers.library("torch")
    if torch is not None:
        a, b = torch.from_numpy(lhsT.T.copy()), torch.from_numpy(rhs)
        others["torch (MKL)"] = lambda: a @ b
    return Match("matmul float32", f"{side}³", lambda: matmul(lhsT, rhs), others, {"torch (MKL)": 0.92})


def _bfloat16(side: int) -> Match:
    lhsT, rhs = inputs("bfloat16", M=side, N=side, K=side)
    others: dict[str, Callable[[], object]] = {}
    torch = peers.library("torch")
    if torch is not None:
        a_T = torch.from_numpy(lhsT.view(np.int16)).view(torch.bfloat16)
        b = torch.from_numpy(rhs.view(np.int16)).view(torch.bfloat16)
        a, b_T = a_T.t().contiguous(), b.t().contiguous()
        others["torch, its best layout"] = lambda: a @ b_T.t()
        others["torch, [M, K]"] = lambda: a @ b
        others["torch, our [K, M]"] = lambda: a_T.t() @ b
    goals = {"torch, its best layout": 0.85, "torch, our [K, M]": 2.0}
    return Match("matmul bfloat16", f"{side}³", lambda: matmul(lhsT, rhs), others, goals)


def _resident() -> Iterator[Match]:
    flop = 2.0 * 128 * 128 * 512 * RESIDENT
    for dtype, peak, goal in (("float32", limits.fma_peak(flop), 0.87), ("bfloat16", limits.tile_peak(flop), None)):
        if peak is None:
            continue
        kind = np.float32 if dtype == "float32" else ml_dtypes.bfloat16
        left, right = np.ones((128, 128), kind), np.ones((128, 512), kind)
        launcher = resident_matmul.launcher(left, right)
        goals = {} if goal is None else {"peak of the core": goal}
        yield Match(f"nc_matmul {dtype}, resident", "128×128×512", launcher.run, {"peak of the core": peak}, goals)
