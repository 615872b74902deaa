"""Launches of nki-library's kernels besides attention: projections, normalization, convolution, loss, scans, top-k."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from functools import partial
from types import ModuleType
from typing import Any

import numpy as np

from ..case import Launch, Tolerance
from . import references as ref
from .files import Variant

# Operands in bfloat16 and sums in float32: what is left is one rounding of intermediate and final results.
_BFLOAT16 = Tolerance(rtol=1.6e-2, atol=1.6e-2)
# float8_e4m3 has three bits of mantissa.
_FLOAT8 = Tolerance(rtol=2.0**-4, atol=2.0**-6)


def _cumsum(x: np.ndarray) -> np.ndarray:
    return np.cumsum(ref.wide(x), axis=-1)


def _first_maximum(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return x.max(axis=-1, keepdims=True), x.argmax(axis=-1)[..., None]


def _distinct(*shape: int) -> np.ndarray:
    """Whole numbers in random order, so that the largest are unique."""
    rng = np.random.default_rng(7)
    return np.stack([rng.permutation(shape[-1]) for _ in range(shape[0])]).astype(np.float32)


def _largest(x: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    order = np.argsort(-x, axis=-1)[:, :k]
    return np.take_along_axis(x, order, axis=-1), order


def _topk_options(module: ModuleType, shape: tuple[int, int], k: int) -> dict[str, Any]:
    utils = importlib.import_module(f"{module.__name__}_utils")
    base = utils.create_topk_config(shape, np.float32, k, sorted=True, num_programs=1)
    return {"config": utils.create_rotational_topk_config(shape, base)}


def _projection_arguments(layout: str) -> tuple[np.ndarray, ...]:
    """Attention output, batch 2, 3 heads of 64, with weights and bias to 512 features."""
    sizes = {"b": 2, "n": 3, "d": 64, "s": 256 if layout == "bnds" else 4}
    attention = ref.uniform("attention", *(sizes[axis] for axis in layout), dtype=ref.BFLOAT16)
    weight = ref.uniform("weight", 192, 512, dtype=ref.BFLOAT16, low=-0.1, high=0.1)
    return attention, weight, ref.uniform("bias", 1, 512, dtype=ref.BFLOAT16)


def _project(layout: str, attention: np.ndarray, weight: np.ndarray, bias: np.ndarray) -> np.ndarray:
    heads = ref.wide(weight).reshape(3, 64, 512)
    return np.einsum(f"{layout},ndh->bsh", ref.wide(attention), heads) + ref.wide(bias)


def _depthwise(image: np.ndarray, weights: np.ndarray, stride: int = 1) -> np.ndarray:
    """Every channel [batch, channel, 1, width] with its own filter [channel, 1, 1, size]."""
    windows = np.lib.stride_tricks.sliding_window_view(ref.wide(image), weights.shape[-1], axis=-1)
    return np.einsum("nchws,cs->nchw", windows[..., ::stride, :], ref.wide(weights[:, 0, 0]))


def _convolution(
    x: np.ndarray, filters: np.ndarray, bias: np.ndarray, stride: int = 1, padding: tuple[int, int] = (0, 0),
    dilation: int = 1,
) -> np.ndarray:
    """x [batch, channel in, width], filters [size, channel in, channel out]."""
    padded = np.pad(ref.wide(x), ((0, 0), (0, 0), padding))
    reach = dilation * (len(filters) - 1) + 1
    windows = np.lib.stride_tricks.sliding_window_view(padded, reach, axis=-1)[:, :, ::stride, ::dilation]
    return np.einsum("bilk,kio->bol", windows, ref.wide(filters)) + ref.wide(bias)[None, :, None]


def _logits() -> tuple[np.ndarray, np.ndarray]:
    targets = np.random.default_rng(3).integers(0, 4096, 64).astype(np.int32)
    return ref.uniform("logits", 64, 4096, low=-4, high=4), targets


def _loss(logits: np.ndarray, targets: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    total = np.log(np.exp(ref.wide(logits)).sum(axis=-1))
    return total - logits[np.arange(len(targets)), targets], total


def _loss_gradient(logits: np.ndarray, targets: np.ndarray, _: np.ndarray) -> np.ndarray:
    gradient = np.exp(ref.wide(logits) - _loss(logits, targets)[1][:, None])
    gradient[np.arange(len(targets)), targets] -= 1
    return gradient / len(targets)


def _backward_arguments() -> tuple[np.ndarray, ...]:
    logits, targets = _logits()
    return logits, targets, _loss(logits, targets)[1].astype(np.float32)


def _loss_options(module: ModuleType) -> dict[str, Any]:
    return {"positions_per_batch": 16, "chunk_size": 2048, "dtype": module.nl.float32}


def _rms_norm(x: np.ndarray, gain: np.ndarray) -> np.ndarray:
    x = ref.wide(x)
    return x / np.sqrt(np.mean(x * x, axis=-1, keepdims=True) + 1e-6) * ref.wide(gain)


def _hidden(rows: int) -> tuple[np.ndarray, np.ndarray]:
    x = ref.uniform("hidden", 1, rows, 512, dtype=ref.BFLOAT16)
    return x, ref.uniform("gain", 512, dtype=ref.BFLOAT16, low=0.5, high=1.5)


def _dequantized(results: Sequence[Any]) -> list[np.ndarray]:
    """Rows end in the four bytes of their float32 scale."""
    (packed,) = results
    scales = np.ascontiguousarray(packed[..., -4:]).view(np.float32)
    return [ref.wide(packed[..., :-4]) * scales]


def _qkv_arguments(rows: int) -> tuple[np.ndarray, np.ndarray]:
    return _hidden(rows)[0], ref.uniform("qkv", 512, 384, dtype=ref.BFLOAT16, low=-0.05, high=0.05)


def _normalized_qkv(x: np.ndarray, weights: np.ndarray) -> np.ndarray:
    return _rms_norm(x, _hidden(1)[1]) @ ref.wide(weights)


def _norm_options(module: ModuleType) -> dict[str, Any]:
    return {"fused_norm_type": module.NormType.RMS_NORM, "gamma_norm_weights": _hidden(1)[1][None]}


VARIANTS: dict[str, list[Variant]] = {
    "core/cumsum/cumsum.py": [Variant(Launch("cumsum", ref.arrays(x=(130, 2100)), _cumsum, Tolerance(1e-5, 1e-3)))],
    "core/max/cascaded_max.py": [Variant(Launch("cascaded_max", ref.arrays(x=(2, 4, 8192)), _first_maximum))],
    "core/topk/rotational_topk.py": [
        Variant(
            Launch(
                "rotational_topk", lambda: (_distinct(2, 4096),), lambda x: _largest(x, 8),
                options=lambda module: _topk_options(module, (2, 4096), 8),
            )
        )
    ],
    "core/rmsnorm/rmsnorm_quant.py": [
        Variant(
            Launch(
                "rmsnorm_quant_kernel", lambda: _hidden(200), _rms_norm, _FLOAT8,
                options=lambda module: {"kargs": module.RmsNormQuantKernelArgs()}, read=_dequantized,
            )
        )
    ],
    "core/qkv/qkv.py": [
        Variant(Launch("qkv", lambda: _qkv_arguments(256), ref.matmul, _BFLOAT16)),
        Variant(Launch("qkv", lambda: _qkv_arguments(4), ref.matmul, _BFLOAT16), "token generation"),
        Variant(
            Launch("qkv", lambda: _qkv_arguments(256), _normalized_qkv, _BFLOAT16, options=_norm_options), "rmsnorm"
        ),
    ],
    "core/output_projection/output_projection_cte/output_projection_cte.py": [
        Variant(
            Launch(
                "output_projection_cte", lambda: _projection_arguments("bnds"), lambda *a: _project("bnds", *a),
                _BFLOAT16,
            )
        )
    ],
    "core/output_projection/output_projection_tkg.py": [
        Variant(
            Launch(
                "output_projection_tkg", lambda: _projection_arguments("dbns"),
                lambda *a: _project("dbns", *a).reshape(8, 512), _BFLOAT16,
            )
        )
    ],
    "experimental/conv/depthwise_conv1d.py": [
        Variant(
            Launch(
                "depthwise_conv1d_implicit_gemm", ref.arrays(image=(2, 4, 1, 40), weights=(4, 1, 1, 5)), _depthwise,
                options=lambda module: {"feature_group_count": 4},
            )
        ),
        Variant(
            Launch(
                "depthwise_conv1d_implicit_gemm", ref.arrays(image=(2, 4, 1, 40), weights=(4, 1, 1, 5)),
                partial(_depthwise, stride=2),
                options=lambda module: {"feature_group_count": 4, "stride": (1, 2)},
            ),
            "stride 2",
        ),
    ],
    "experimental/conv/conv1d.py": [
        Variant(
            Launch(
                "conv1d", ref.arrays(x=(2, 96, 70), filters=(3, 96, 130), bias=(130,)), _convolution,
                Tolerance(1e-5, 1e-4),
            )
        ),
        Variant(
            Launch(
                "conv1d", ref.arrays(x=(2, 96, 70), filters=(3, 96, 130), bias=(130,)),
                partial(_convolution, stride=2, padding=(2, 1), dilation=2), Tolerance(1e-5, 1e-4),
                options=lambda module: {"stride": 2, "padding": (2, 1), "dilation": 2},
            ),
            "strided, padded, dilated",
        ),
    ],
    "experimental/loss/cross_entropy.py": [
        Variant(Launch("cross_entropy_forward", _logits, _loss, options=_loss_options)),
        Variant(
            Launch(
                "cross_entropy_backward", _backward_arguments, _loss_gradient,
                options=lambda module: {**_loss_options(module), "inplace": False},
            )
        ),
    ],
}
