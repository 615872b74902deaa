"""Moves arrays between NumPy and the CPU tensors of PyTorch and JAX."""

from __future__ import annotations

import importlib
import importlib.util
from typing import Any

import numpy as np
from ml_dtypes import bfloat16

NUMPY = ""


def missing(framework: str) -> bool:
    """Whether a framework is not installed."""
    return framework != NUMPY and importlib.util.find_spec(framework) is None


def to_framework(value: Any, framework: str) -> Any:
    """A NumPy array as a tensor of the framework; other values unchanged."""
    if framework == NUMPY or not isinstance(value, np.ndarray):
        return value
    if framework == "jax":
        return importlib.import_module("jax.numpy").asarray(value)
    torch = importlib.import_module("torch")

    if value.dtype == bfloat16:
        return torch.from_numpy(value.view(np.int16).copy()).view(torch.bfloat16)
    return torch.from_numpy(value.copy())


def from_framework(value: Any, framework: str) -> np.ndarray:
    """A result as a NumPy array.

    Raises:
        TypeError: the result is not a tensor of the framework the kernel was called with.
    """
    if framework == NUMPY:
        if not isinstance(value, np.ndarray):
            raise TypeError(f"called with NumPy arrays, the kernel returned {type(value).__name__}")
        return value
    if framework == "jax":
        if not isinstance(value, importlib.import_module("jax").Array):
            raise TypeError(f"called with JAX arrays, the kernel returned {type(value).__name__}")
        return np.asarray(value)
    torch = importlib.import_module("torch")
    if not isinstance(value, torch.Tensor):
        raise TypeError(f"called with PyTorch tensors, the kernel returned {type(value).__name__}")
    if value.dtype == torch.bfloat16:
        return np.asarray(value.view(torch.int16).numpy()).view(bfloat16)
    return np.asarray(value.numpy())
