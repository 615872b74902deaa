"""Checks of flash attention: the vendor's samples, and the libraries that took it over."""

from __future__ import annotations

from .check import Check

_SAMPLES = "src/nki_samples/reference/attention.py"
_LIBRARY = "src/neuronx_distributed_inference/modules/sliding_window/attention.py"
_LARGE = "optimum/neuron/models/inference/backend/modules/attention/flash_attention_nki.py"

# q, k and v of heads x positions x columns; position i of q sees k up to i, or the last `window` of these.
_REFERENCE = """
def visible(rows, columns, causal, window):
    i, j = _np.ogrid[:rows, :columns]
    seen = (j <= i) if causal or window > 0 else _np.full((rows, columns), True)
    return seen & (j > i - window) if window > 0 else seen

def attend(q, k, v, scale, causal, window):
    scores = _np.where(visible(q.shape[1], k.shape[1], causal, window), scale * q @ k.swapaxes(1, 2), -_np.inf)
    weights = _np.exp(scores - scores.max(2, keepdims=True))
    return weights / weights.sum(2, keepdims=True) @ v, _np.log(weights.sum(2)) + scores.max(2)

q, k, v, dy = (_np.float64(_random(heads, rows, 128 + n)[..., n:]) for n, (heads, rows) in enumerate({shapes}))
groups = q.shape[0] // k.shape[0]
K, V = k.repeat(groups, 0), v.repeat(groups, 0)
qt, kt, vt = (_np.float32(x.swapaxes(1, 2))[None] for x in (q, k, v))
"""
_FORWARD = _REFERENCE + """
wanted, _ = attend(q, K, V, 128**-0.5, {causal}, {window})
out = flash_fwd[1, k.shape[0]](
    qt, kt, _np.float32(v)[None], None, use_causal_mask={causal}, sliding_window={window}, mixed_precision=False,
    config=FlashConfig(seq_tile_size=512, training=False, should_transpose_v=False),
)
_agree(out[0], wanted, atol=2e-3)
"""
_BACKWARD = _REFERENCE + """
scale = 128**-0.5
out, lse = attend(q, K, V, scale, True, {window})
weights = _np.where(
    visible(q.shape[1], k.shape[1], True, {window}), _np.exp(scale * q @ K.swapaxes(1, 2) - lse[..., None]), 0
)
slopes = weights * (dy @ V.swapaxes(1, 2) - (dy * out).sum(2, keepdims=True)) * scale

def summed(x):
    return x.reshape(k.shape[0], groups, *x.shape[1:]).sum(1).swapaxes(1, 2)

wanted = (slopes @ K).swapaxes(1, 2), summed(slopes.swapaxes(1, 2) @ q), summed(weights.swapaxes(1, 2) @ dy)
tiles = _np.float32(lse.reshape(q.shape[0], -1, 128).swapaxes(1, 2))[None]
turned = (_np.float32(x.swapaxes(1, 2))[None] for x in (out, dy))
found = flash_attn_bwd[1, k.shape[0]](
    qt, kt, vt, *turned, tiles, None, use_causal_mask=True, mixed_precision=False, sliding_window={window}
)
for one, other in zip(found, wanted):
    _agree(one[0], other, atol=2e-3)
"""
_LIBRARY_BODY = _REFERENCE + """
wanted, _ = attend(q, K, V, 128**-0.5, True, {window})
out = flash_fwd[1, k.shape[0]](
    qt, kt, _np.float32(v)[None], use_causal_mask=True, window_size=({window} - 1, -1), mixed_precision=False,
    config=FlashConfig(seq_tile_size=512),
)
_agree(out[0], wanted, atol=2e-3)
"""
_LARGE_BODY = """
q, k, v = (0.3 * _random(2, 1024, 256 + n)[..., n:] for n in range(3))
out = _np.zeros((2, 256, 1024), _np.float32)
flash_fwd_large_d(q.swapaxes(1, 2).copy(), k.swapaxes(1, 2).copy(), v, softmax_scale=0.0625, output=out)
scores = _np.where(_np.tri(1024, dtype=bool), 0.0625 * q @ k.swapaxes(1, 2), -_np.inf)
weights = _np.exp(scores - scores.max(2, keepdims=True))
_agree(out, (weights / weights.sum(2, keepdims=True) @ v).swapaxes(1, 2), atol=2e-2)
"""
_EQUAL, _GROUPED = "((1, 1024),) * 4", "((2, 1024), (1, 1024), (1, 1024), (2, 1024))"
_LONG = "((1, 2048), *((1, 1024),) * 3)"
_BACK, _BACK_GROUPED = "((1, 2048),) * 4", "((2, 2048), (1, 2048), (1, 2048), (2, 2048))"


def _forward(shapes: str, causal: bool, window: int) -> str:
    return _FORWARD.format(shapes=shapes, causal=causal, window=window)


def _backward(shapes: str, window: int) -> str:
    return _BACKWARD.format(shapes=shapes, window=window)


def _library(shapes: str, window: int) -> str:
    return _LIBRARY_BODY.format(shapes=shapes, window=window)


ATTENTION_CHECKS = (
    Check("nki-samples", _SAMPLES, "flash_fwd causal", _forward(_EQUAL, True, -1)),
    Check("nki-samples", _SAMPLES, "flash_fwd full", _forward(_EQUAL, False, -1)),
    Check("nki-samples", _SAMPLES, "flash_fwd grouped", _forward(_GROUPED, True, -1)),
    Check("nki-samples", _SAMPLES, "flash_fwd longer queries", _forward(_LONG, True, -1)),
    Check("nki-samples", _SAMPLES, "flash_fwd window", _forward(_EQUAL, True, 256)),
    Check("nki-samples", _SAMPLES, "flash_attn_bwd causal", _backward(_BACK, -1)),
    Check("nki-samples", _SAMPLES, "flash_attn_bwd grouped, window", _backward(_BACK_GROUPED, 128)),
    Check("neuronx-distributed-inference", _LIBRARY, "flash_fwd causal", _library(_GROUPED, -1)),
    Check("neuronx-distributed-inference", _LIBRARY, "flash_fwd window", _library(_EQUAL, 256)),
    Check("optimum-neuron", _LARGE, "flash_fwd_large_d", _LARGE_BODY),
)
