"""Launches of nki-library's kernels around experts: which tokens an expert has, and experts chosen by token."""

from __future__ import annotations

from functools import partial
from types import ModuleType
from typing import Any

import numpy as np

from ..case import Launch, Tolerance
from . import references as ref
from .files import Variant

_EXPERTS, _HIDDEN, _INNER = 8, 512, 256
# Three products in bfloat16 of terms of different signs, rounded in between.
_MIXTURE = Tolerance(rtol=1.6e-2, atol=1.6e-2)


def _sparse(*shape: int) -> np.ndarray:
    rng = np.random.default_rng(11)
    return np.where(rng.random(shape) < 0.2, rng.uniform(0.1, 1, shape), 0).astype(np.float32)


def _indices(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """By column: row numbers of nonzero elements, then -1; and how many they are."""
    result = np.full(values.T.shape, -1)
    counts = np.count_nonzero(values, axis=0)
    for column, found in enumerate(result):
        found[: counts[column]] = np.flatnonzero(values[:, column])
    return result, counts


def _with_count(values: np.ndarray) -> np.ndarray:
    indices, counts = _indices(values.T)
    return np.concatenate([indices, counts[:, None]], axis=1)


def _mixture_arguments(tokens: int, chosen: int) -> tuple[np.ndarray, ...]:
    rng = np.random.default_rng(13)
    experts = np.stack([rng.permutation(_EXPERTS)[:chosen] for _ in range(tokens)]).astype(np.uint32)
    return (
        ref.uniform("tokens", tokens, _HIDDEN, dtype=ref.BFLOAT16),
        ref.uniform("gate and up", _EXPERTS, _HIDDEN, 2, _INNER, dtype=ref.BFLOAT16, low=-0.1, high=0.1),
        ref.uniform("down", _EXPERTS, _INNER, _HIDDEN, dtype=ref.BFLOAT16, low=-0.1, high=0.1),
        ref.uniform("affinities", tokens, _EXPERTS, low=0.1),
        experts,
    )


def _mixture(x: np.ndarray, inner: np.ndarray, outer: np.ndarray, affinities: np.ndarray, experts: np.ndarray) -> Any:
    """Each token's chosen experts, weighed by their affinities."""
    x, inner, outer = ref.wide(x), ref.wide(inner), ref.wide(outer)
    gate, up = (np.einsum("th,ehi->tei", x, inner[:, :, side]) for side in (0, 1))
    results = np.einsum("tei,eih->teh", gate / (1 + np.exp(-gate)) * up, outer)
    rows = np.arange(len(x))[:, None]
    return (results[rows, experts] * affinities[rows, experts][..., None]).sum(axis=1)


def _mixture_options(module: ModuleType) -> dict[str, Any]:
    scaled = module.ExpertAffinityScaleMode.POST_SCALE
    return {"is_all_expert": False, "expert_affinities_scaling_mode": scaled}


VARIANTS: dict[str, list[Variant]] = {
    "core/subkernels/find_nonzero_indices.py": [
        Variant(Launch("find_nonzero_indices", lambda: (_sparse(256, 12),), _indices)),
    ],
    "experimental/benchmark/find_nonzero_indices_with_count.py": [
        Variant(Launch("find_nonzero_indices_with_count", lambda: (_sparse(1, 300),), _with_count)),
    ],
    "core/moe/moe_tkg/moe_tkg.py": [
        Variant(
            Launch("moe_tkg", partial(_mixture_arguments, tokens, 4), _mixture, _MIXTURE, options=_mixture_options),
            f"chosen experts, {tokens} tokens",
        )
        for tokens in (4, 24)
    ],
}
