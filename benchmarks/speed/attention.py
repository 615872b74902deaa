"""Attention forward against torch's scaled_dot_product_attention."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from benchmarks import peers
from benchmarks.speed.match import Match
from kernels.flash_attention import flash_attention, inputs

HEADS, SEQUENCE, D = 8, 4096, 128


def matches(threads: int) -> Iterator[Match]:
    torch = peers.library("torch")
    attend = torch.nn.functional.scaled_dot_product_attention if torch is not None else None
    for dtype in ("float32", "bfloat16"):
        q, k, v = inputs(dtype, heads=HEADS, kv_heads=HEADS, S_q=SEQUENCE, S_k=SEQUENCE, D=D)
        others: dict[str, Callable[[], object]] = {}
        if attend is not None:
            tensors = [_tensor(torch, a)[None] for a in (q, k, v)]
            others["torch SDPA"] = lambda t=tensors: attend(*t)
        yield Match(
            f"flash attention {dtype}", f"{HEADS}×{SEQUENCE}×{D}",
            lambda a=(q, k, v): flash_attention(*a), others, {"torch SDPA": 1.0},
        )


def _tensor(torch: Any, array: np.ndarray) -> Any:
    if array.dtype == np.float32:
        return torch.from_numpy(array)
    return torch.from_numpy(array.view(np.int16)).view(torch.bfloat16)
