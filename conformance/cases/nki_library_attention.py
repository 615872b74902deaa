"""Launches of nki-library's attention kernels, forward and backward, and of its rotary embeddings."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..case import Launch, Tolerance
from . import references as ref
from .files import Variant

_HEAD = 64
_SCALE = _HEAD**-0.5
# attention_cte multiplies in bfloat16, whatever its inputs.
_FORWARD = Tolerance(rtol=1e-2, atol=5e-3)


def _softmax(scores: np.ndarray, causal: bool) -> np.ndarray:
    if causal:
        scores = np.where(np.tri(*scores.shape[-2:]) > 0, scores, -np.inf)
    weights = np.exp(scores - scores.max(axis=-1, keepdims=True))
    return weights / weights.sum(axis=-1, keepdims=True)


def _attend(q: np.ndarray, k: np.ndarray, v: np.ndarray, causal: bool) -> np.ndarray:
    """q [heads, queries, d]; k and v [1, keys, d] are shared by all heads."""
    return _softmax(_SCALE * ref.wide(q) @ ref.wide(k).swapaxes(1, 2), causal) @ ref.wide(v)


def _operands(keys: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    return ref.uniform("q", 2, 256, _HEAD), ref.uniform("k", 1, keys, _HEAD), ref.uniform("v", 1, keys, _HEAD)


def _keys_transposed(keys: int) -> tuple[np.ndarray, ...]:
    q, k, v = _operands(keys)
    return q, np.ascontiguousarray(k.swapaxes(1, 2)), v


def _queries_transposed(keys: int) -> tuple[np.ndarray, ...]:
    q, k, v = _operands(keys)
    return np.ascontiguousarray(q.swapaxes(1, 2)), k, v


def _transposed_layouts(q: np.ndarray, k: np.ndarray, v: np.ndarray) -> np.ndarray:
    return _attend(q.swapaxes(1, 2), k, v, causal=True).swapaxes(1, 2)


def _full(q: np.ndarray, k: np.ndarray, v: np.ndarray) -> np.ndarray:
    return _attend(q, k.swapaxes(1, 2), v, causal=False)


def _causal(q: np.ndarray, k: np.ndarray, v: np.ndarray) -> np.ndarray:
    return _attend(q, k.swapaxes(1, 2), v, causal=True)


class _Backward:
    """Attention of one head, [d, sequence] as the kernel takes it, and its derivatives."""

    def __init__(self, causal: bool) -> None:
        self.causal = causal
        self._q, self._k, self._v, self._dy = (ref.uniform(n, 1, 1, _HEAD, 256) for n in ("q", "k", "v", "dy"))

    def arguments(self) -> tuple[np.ndarray, ...]:
        q, k, v, _ = self._rows()
        scores = _SCALE * q @ k.T
        weights = _softmax(scores, self.causal)
        total = (scores[:, 0] - np.log(weights[:, 0])).astype(np.float32)  # key 0 is visible to every query
        output = (weights @ v).T.astype(np.float32)[None, None]
        return self._q, self._k, self._v, output, self._dy, total.reshape(1, 1, 2, 128).swapaxes(2, 3)

    def gradients(self, *_: np.ndarray) -> tuple[np.ndarray, ...]:
        q, k, v, dy = self._rows()
        weights = _softmax(_SCALE * q @ k.T, self.causal)
        d_weights = dy @ v.T
        d_scores = _SCALE * weights * (d_weights - (weights * d_weights).sum(axis=-1, keepdims=True))
        return tuple(g.T[None, None] for g in (d_scores @ k, d_scores.T @ q, weights.T @ dy))

    def _rows(self) -> tuple[np.ndarray, ...]:
        return tuple(ref.wide(x[0, 0]).T for x in (self._q, self._k, self._v, self._dy))

    def launch(self) -> Launch:
        options = {"use_causal_mask": self.causal, "mixed_precision": True}
        return Launch(
            "attention_bwd", self.arguments, self.gradients, Tolerance(1e-4, 1e-5), options=lambda module: options
        )


def _rotated(first: np.ndarray, second: np.ndarray, cos: np.ndarray, sin: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    turned = (ref.wide(first) + 1j * ref.wide(second)) * (ref.wide(cos) + 1j * ref.wide(sin))
    return turned.real, turned.imag


def _angles(*shape: int) -> np.ndarray:
    return ref.uniform("angles", *shape, low=0.0, high=6.0)


def _rope_arguments(batch: int) -> tuple[np.ndarray, ...]:
    """x [d, batch, heads, sequence], tables [d / 2, batch, sequence]."""
    angles = _angles(_HEAD // 2, batch, 96)
    return ref.uniform("x", _HEAD, batch, 2, 96), np.cos(angles), np.sin(angles)


def _rope_halves(x: np.ndarray, cos: np.ndarray, sin: np.ndarray) -> np.ndarray:
    half = len(x) // 2
    return np.concatenate(_rotated(x[:half], x[half:], cos[:, :, None], sin[:, :, None]))


def _rope_pairs(x: np.ndarray, cos: np.ndarray, sin: np.ndarray) -> np.ndarray:
    out = np.empty(x.shape)
    out[0::2], out[1::2] = _rotated(x[0::2], x[1::2], cos[:, :, None], sin[:, :, None])
    return out


def _rope_hf_arguments() -> tuple[np.ndarray, ...]:
    """Queries, keys, room for the results, and tables [batch, sequence, d] with each angle twice."""
    q, k = ref.uniform("q", 2, 2, 256, _HEAD), ref.uniform("k", 2, 1, 256, _HEAD)
    angles = np.concatenate([_angles(2, 256, _HEAD // 2)] * 2, axis=-1)
    return q, k, np.zeros_like(q), np.zeros_like(k), np.cos(angles), np.sin(angles)


def _rope_hf(q: np.ndarray, k: np.ndarray, _: Any, __: Any, cos: np.ndarray, sin: np.ndarray) -> list[np.ndarray]:
    half = _HEAD // 2
    tables = cos[:, None, :, :half], sin[:, None, :, :half]
    return [np.concatenate(_rotated(x[..., :half], x[..., half:], *tables), axis=-1) for x in (q, k)]


VARIANTS: dict[str, list[Variant]] = {
    "core/attention/attention_cte.py": [
        Variant(
            Launch(
                "attention_cte", lambda: _keys_transposed(512), _full, _FORWARD,
                options=lambda module: {"scale": _SCALE, "causal_mask": False},
            ),
            "full",
        ),
        Variant(
            Launch(
                "attention_cte", lambda: _keys_transposed(256), _causal, _FORWARD,
                options=lambda module: {"scale": _SCALE},
            ),
            "causal",
        ),
        Variant(
            Launch(
                "attention_cte", lambda: _queries_transposed(256), _transposed_layouts, _FORWARD,
                options=lambda module: {"scale": _SCALE, "tp_q": False, "tp_k": True, "tp_out": True},
            ),
            "transposed layouts",
        ),
    ],
    "core/attention/attention_bwd.py": [
        Variant(_Backward(causal=False).launch(), "full"), Variant(_Backward(causal=True).launch(), "causal"),
    ],
    "core/embeddings/rope.py": [
        Variant(Launch("RoPE", lambda: _rope_arguments(2), _rope_halves)),
        Variant(
            Launch(
                "RoPE", lambda: _rope_arguments(2), _rope_pairs, options=lambda module: {"contiguous_layout": False}
            ),
            "interleaved",
        ),
        Variant(
            Launch(
                "RoPE", lambda: _rope_arguments(1), _rope_pairs,
                options=lambda module: {"contiguous_layout": False, "relayout_in_sbuf": True},
            ),
            "interleaved, in SBUF",
        ),
    ],
    "core/embeddings/rope_hf.py": [Variant(Launch("rope_hf", _rope_hf_arguments, _rope_hf))],
}
