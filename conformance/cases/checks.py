"""Kernels of small repositories, against the NumPy references beside them or, where there is none, ours.

Each check is appended to the text of its file, whose names it uses, and launches kernels itself.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from ..case import TRN2_MODES, Case, Launch
from ..sources import GeneratedSource
from .attention_checks import ATTENTION_CHECKS
from .check import Check

_HEAD = """

import numpy as _np


def _agree(found, wanted, rtol=1e-4, atol=1e-4):
    _np.testing.assert_allclose(_np.asarray(found, _np.float64), wanted, rtol=rtol, atol=atol)


def _random(*shape, dtype=_np.float32):
    return _np.random.default_rng(sum(shape)).standard_normal(shape).astype(dtype)


def check():
"""


_FUSION, _LINEAR, _QUANTUM = "trainium-kernel-fusion", "trainium-linear-attention", "Trainium-Quantum-Simulator"


_ATTENTION = """
q, k, v = (0.1 * _random(128, 512 + n)[:, n:] for n in range(3))
_agree({kernel}(q, k, v), numpy_attention(q, k, v))
"""
_LAYER = """
x, w, bias = _random(128, 256), 0.05 * _random(256, 512), _random(512)
_agree({call}, {reference}(x, w, bias), atol=1e-2)
"""
_LINEAR_BODY = """
kernel, rows, columns = get_based_attn_kernel(128, 128, 2)
q, k, v = (0.1 * _random(2, rows, columns + n)[..., n:] for n in range(3))
total, share = kernel(q, k, v)
scores = q @ k.swapaxes(1, 2)
weights = _np.tril(1 + scores + scores**2 / 2)
_agree(total, weights @ v)
_agree(share[..., 0], weights.sum(2))
"""
_CHUNKED_BODY = """
kernel, rows, features, columns = (*get_chunked_attn_kernel(128, 256, 64, 2), None)[:4]
q, k, v = 0.1 * _random(2, 128, 256), 0.1 * _random(2, 128, 257)[..., 1:], _random(2, 128, 64)
_agree(kernel(q, k, v), _np.tril(q @ k.swapaxes(1, 2)) @ v)
"""
_SLIDING_BODY = """
kernel, rows, columns, padded, mask = get_sliding_window_kernel(128, 128, 2)
q, k, v = 0.1 * _random(2, rows, columns), _random(2, padded, columns), _random(2, padded, columns + 1)[..., 1:]
out = kernel(q, k, v, mask)
for i, limits in enumerate(mask):
    size, window = limits.shape
    scores = q[:, i * size : (i + 1) * size] @ k[:, i * size : i * size + window].swapaxes(1, 2) + limits
    weights = _np.exp(scores - scores.max(2, keepdims=True))
    wanted = weights / weights.sum(2, keepdims=True) @ v[:, i * size : i * size + window]
    _agree(out[:, i * size : (i + 1) * size], wanted)
"""
_GATE_BODY = """
gate, state = 0.1 * _random(2, 128, 128), _random(2, 128, 1024)
wanted = (gate[0] + 1j * gate[1]) @ (state[0] + 1j * state[1])
_agree(nki_gate_apply(gate, state), [wanted.real, wanted.imag])
"""

_CHECKS = (
    Check(
        _FUSION, "kernels/baseline/attention.py", "baseline_attention",
        _ATTENTION.format(kernel="baseline_attention"),
    ),
    Check(_FUSION, "kernels/fused/attention.py", "fused_attention", _ATTENTION.format(kernel="fused_attention")),
    Check(
        _FUSION, "kernels/baseline/softmax.py", "softmax_kernel",
        "x = _random(256, 1024)\n_agree(softmax_kernel(x), numpy_softmax(x))",
    ),
    Check(
        _FUSION, "kernels/baseline/mlp_gemm.py", "gemm_kernel, gelu_kernel",
        _LAYER.format(call="mlp_baseline(x, w, bias)", reference="mlp_reference"),
    ),
    Check(
        _FUSION, "kernels/fused/mlp.py", "fused_mlp_pwl",
        _LAYER.format(call="mlp_fused(x, w, bias)", reference="numpy_mlp"),
    ),
    Check(
        _FUSION, "kernels/fused/mlp.py", "fused_mlp_taylor",
        _LAYER.format(call="mlp_fused(x, w, bias, mode='taylor')", reference="numpy_mlp"),
    ),
    Check(_LINEAR, "kernels/nki_attention.py", "based attention", _LINEAR_BODY),
    Check(_LINEAR, "kernels/nki_attention_chunked.py", "chunked attention", _CHUNKED_BODY),
    Check(_LINEAR, "kernels/nki_attention_sliding.py", "sliding attention", _SLIDING_BODY),
    Check(_QUANTUM, "nki_gate_apply.py", "nki_gate_apply", _GATE_BODY),
    *ATTENTION_CHECKS,
)
_MARKS = {check.path for check in _CHECKS}


def find(folder: Path) -> Path | None:
    """The root of a checkout of one of the repositories."""
    return folder if any((folder / path).is_file() for path in _MARKS) else None


def cases(root: Path) -> list[Case]:
    """All cases of the checkout."""
    return list(_cases(root))


def _cases(root: Path) -> Iterator[Case]:
    for check in _CHECKS:
        path = root / check.path
        if path.is_file():
            body = "".join(f"    {line}\n" for line in check.body.strip().splitlines())
            text = path.read_text(encoding="utf-8") + _HEAD + body
            source = GeneratedSource(path, f"{check.suite}_{check.label}", text)
            yield Case(check.suite, check.label, source, Launch("check", host=True, checks_itself=True), TRN2_MODES)
