"""Every kernel of the gallery against its reference, simulated and compiled, over its table and its search
space."""

from __future__ import annotations

import importlib
import itertools

import numpy as np
import pytest

from kernels import GALLERY, Case
from nkilite.testing import MODES, check, run

MODULES = {name: importlib.import_module(f"kernels.{name}") for name in GALLERY}


def _describe(case: Case) -> str:
    sizes = "-".join(f"{key}{value}" for key, value in case.shape.items())
    return "-".join([sizes, case.dtype, *(f"{key}={value}" for key, value in case.options.items())])


def _check(name: str, case: Case, mode: str, kernel=None, **meta) -> None:
    module = MODULES[name]
    arrays = module.inputs(dtype=case.dtype, seed=1, **case.shape)
    check(
        kernel or getattr(module, name),
        module.reference,
        *arrays,
        modes=(mode,),
        **module.tolerance(**case.shape),
        **{**case.options, **meta},
    )


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(
    ("name", "case"),
    [pytest.param(n, c, id=f"{n}-{_describe(c)}") for n in GALLERY for c in MODULES[n].CASES],
)
def test_matches_reference(name, case, mode):
    _check(name, case, mode)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("case", MODULES["matmul"].CASES, ids=_describe)
def test_matmul_tiled(case, mode):
    blocked_only = MODULES["matmul"].SPACE
    options = {key: value for key, value in case.options.items() if key not in blocked_only}
    _check("matmul", case._replace(options=options), mode, kernel=MODULES["matmul"].matmul_tiled)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("cores", [1, 2])
def test_matmul_on_cores(cores, mode, monkeypatch):
    monkeypatch.setenv("NKILITE_RACES", "error")
    kernel = MODULES["matmul"].matmul_on_cores[cores]
    _check("matmul", Case({"M": 300, "N": 600, "K": 256}, "float32"), mode, kernel=kernel)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", ["softmax", "rmsnorm", "layernorm"])
def test_row_kernels_take_leading_dimensions(name, mode):
    module = MODULES[name]
    x, *vectors = module.inputs(rows=2 * 3 * 50, D=48)
    check(
        getattr(module, name),
        module.reference,
        x.reshape(2, 3, 50, 48),
        *vectors,
        modes=(mode,),
        **module.tolerance(rows=300, D=48),
    )


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("causal", [False, True])
def test_flash_attention_keeps_a_running_maximum(causal, mode):
    """Scores whose exponentials overflow, and whose maximum falls from one block of keys to the next."""
    module = MODULES["flash_attention"]
    q, k, v = module.inputs(heads=1, kv_heads=1, S_q=256, S_k=1152, D=32)
    k[:, :512] *= 200
    check(
        module.flash_attention,
        module.reference,
        q,
        k,
        v,
        modes=(mode,),
        causal=causal,
        KEY_TILES_IN_BLOCK=1,
        rtol=1e-3,  # scores near 1000 carry an absolute error of 1e-4, and exp makes it a relative one
        atol=1e-3,
    )


@pytest.mark.parametrize("mode", MODES)
def test_mamba_forgets_nothing_between_time_tiles(mode):
    """A state that never decays is a running sum over all of time, across tiles and not across batches."""
    module = MODULES["mamba"]
    delta, u, A, B, C = module.inputs(batch=2, channels=3, T=300, S=2)
    delta[:], A[:], B[:], C[:] = 1, 0, 1, 0.5
    (got,) = run(module.mamba, mode, delta, u, A, B, C, SEQ_TILE=64)
    np.testing.assert_allclose(got, np.cumsum(u, axis=2, dtype=np.float64), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("mode", MODES)
def test_adam_moves_by_the_learning_rate_at_first(mode):
    """With empty means the first step is lr against the sign of the gradient, whatever its size."""
    module = MODULES["adam"]
    p, g, m, v = module.inputs(rows=3, D=50)
    got, *_ = run(module.adam, mode, p, 1000 * g, 0 * m, 0 * v, lr=0.25)
    np.testing.assert_allclose(got, p - 0.25 * np.sign(g), rtol=1e-4, atol=1e-4)


# One ragged shape per kernel, larger than the smallest tile in every dimension that is tiled.
SWEPT = {
    "matmul": Case({"M": 200, "N": 600, "K": 256}, "float32"),
    "softmax": Case({"rows": 260, "D": 600}, "float32"),
    "rmsnorm": Case({"rows": 260, "D": 600}, "float32"),
    "layernorm": Case({"rows": 600, "D": 40}, "float32"),
    "flash_attention": Case(
        {"heads": 1, "kv_heads": 1, "S_q": 256, "S_k": 640, "D": 32}, "float32", {"causal": True}
    ),
    "decode_attention": Case(
        {"heads": 4, "kv_heads": 2, "room": 1024, "length": 700, "D": 32}, "float32"
    ),
    "mlp": Case({"tokens": 140, "H": 640, "F": 256}, "float32"),
    "sparse_mlp": Case({"tokens": 130, "H": 256, "F": 256, "ratio": 2}, "float32"),
    "transpose": Case({"M": 300, "N": 270}, "float32"),
    "rope": Case({"batch": 1, "tokens": 150, "heads": 3, "D": 16}, "float32"),
    "swiglu": Case({"rows": 131, "D": 700}, "float32"),
    "mamba": Case({"batch": 1, "channels": 130, "T": 140, "S": 3}, "float32"),
    "adam": Case({"rows": 131, "D": 700}, "float32", {"step": 7}),
}


@pytest.mark.parametrize("name", GALLERY)
def test_any_point_of_the_space_computes_the_same(name):
    """The corners of the space, and each value of each parameter by itself; both extremes also natively."""
    space, swept = MODULES[name].SPACE, SWEPT.get(name, MODULES[name].CASES[0])
    ends = itertools.product(*((values[0], values[-1]) for values in space.values()))
    corners = [dict(zip(space, point, strict=True)) for point in ends]
    singles = [{key: value} for key, values in space.items() for value in values[1:-1]]
    for meta in corners + singles:
        _check(name, swept, "simulate", **meta)
    for meta in (corners[0], corners[-1]):
        _check(name, swept, "compiled", **meta)
