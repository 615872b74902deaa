"""Elementwise kernels, as a user would write them, against what torch.compile makes of the same formula."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

import nkilite as nki
import nkilite.isa as nisa
import nkilite.language as nl
from benchmarks import peers
from benchmarks.speed.match import Match
from kernels import adam, rope, swiglu

ROWS = COLUMNS = 4096


@nki.jit
def activate(x, op):
    """One activation function over a matrix, 128 rows at a time."""
    out = nl.ndarray(x.shape, dtype=x.dtype, buffer=nl.shared_hbm)
    for row in range(0, x.shape[0], nl.tile_size.pmax):
        tile = nl.load(x[row : row + nl.tile_size.pmax])
        nisa.activation(dst=tile, op=op, data=tile)
        nl.store(out[row : row + nl.tile_size.pmax], tile)
    return out


def matches(threads: int) -> Iterator[Match]:
    size = f"{ROWS}×{COLUMNS}"
    x = np.random.default_rng(0).standard_normal((ROWS, COLUMNS), np.float32)
    for name, op in (("gelu", nl.gelu), ("silu", nl.silu)):
        yield _match(name, size, lambda op=op: activate(x, op), (x,))
    arrays = swiglu.inputs(rows=ROWS, D=COLUMNS)
    yield _match("swiglu", size, lambda: swiglu.swiglu(*arrays), arrays)
    arrays = rope.inputs(batch=1, tokens=4096, heads=32, D=128)
    yield _match("rope", "1×4096×32×128", lambda: rope.rope(*arrays), arrays)
    arrays = adam.inputs(rows=ROWS, D=COLUMNS)
    yield _match("adam step", size, lambda: adam.adam(*arrays, step=10), arrays)


def _match(work: str, size: str, ours: Callable[[], object], arrays: tuple[Any, ...]) -> Match:
    torch = peers.library("torch")
    others: dict[str, Callable[[], object]] = {}
    if torch is not None:
        formula = _formulas(torch)[work]
        tensors = [torch.from_numpy(a) for a in arrays]
        others["torch"] = lambda: formula(*tensors)
        fast = peers.compiled(formula, *tensors)
        if fast is not None:
            others["torch.compile"] = lambda: fast(*tensors)
    return Match(work, size, ours, others, {"torch": 2.0, "torch.compile": 1.0})


def _formulas(torch: Any) -> dict[str, Callable[..., Any]]:
    """What the kernels compute, as one writes it in torch."""

    def swiglu(gate: Any, up: Any) -> Any:
        return torch.nn.functional.silu(gate) * up

    def rope(x: Any, cos: Any, sin: Any) -> Any:
        first, second = x.chunk(2, -1)
        cos, sin = cos[None, :, None], sin[None, :, None]
        return torch.cat((first * cos - second * sin, second * cos + first * sin), -1)

    def adam(p: Any, g: Any, m: Any, v: Any) -> Any:
        """Step 10, with the default rates of kernels.adam."""
        m = 0.9 * m + (1 - 0.9) * g
        v = 0.999 * v + (1 - 0.999) * g * g
        p = p - 1e-3 * (m / (1 - 0.9**10)) / ((v / (1 - 0.999**10)).sqrt() + 1e-8)
        return p, m, v

    functional = torch.nn.functional
    return {"gelu": functional.gelu, "silu": functional.silu, "swiglu": swiglu, "rope": rope, "adam step": adam}
