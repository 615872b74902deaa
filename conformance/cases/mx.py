"""The microscaling (MX) matrix multiplications of the MX deep dive, which nki-samples carries too."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import numpy as np
from ml_dtypes import float4_e2m1fn, float8_e4m3fn, float8_e5m2

from ..case import Launch
from . import references as ref
from .files import Variant

FILE = "mx_kernels.py"
_K, _M, _N = 128, 128, 512  # a full stationary and moving tile; each element packs four values
_ELEMENTS: dict[str, tuple[Any, int]] = {  # type of an element, its largest exponent
    "float8_e4m3fn_x4": (float8_e4m3fn, 8),
    "float8_e5m2_x4": (float8_e5m2, 15),
    "float4_e2m1fn_x4": (float4_e2m1fn, 2),
}
_MADE_ON_DEVICE = ("float8_e4m3fn_x4", "float8_e5m2_x4")
_TOLERANCE = ref.Tolerance(rtol=8e-3, atol=8e-2)


def mx_variants(path: Path, refused_on: frozenset[str]) -> list[Variant]:
    """The launches of the kernels a file defines, for every element type."""
    text = path.read_text(encoding="utf-8")
    launches = [(_offline(packed), packed) for packed in _ELEMENTS]
    launches += [(_on_device(packed, packed), packed) for packed in _MADE_ON_DEVICE]
    launches += [(_on_device("float4_e2m1fn_x4", "float8_e5m2_x4"), "float4_e2m1fn, float8_e5m2")]
    launches += [(launch, packed) for packed in _MADE_ON_DEVICE for launch in _strided(packed)]
    return [
        Variant(launch, note.removesuffix("_x4"), refused_on=refused_on)
        for launch, note in launches if f"def {launch.kernel}(" in text
    ]


def _offline(packed: str) -> Launch:
    def arguments() -> tuple[Any, ...]:
        stationary, moving = _operands()
        return *_packed(stationary, packed), *_packed(moving, packed), _dtype(packed)

    def reference(*_: Any) -> np.ndarray:
        stationary, moving = _operands()
        return _contract(_round_trip(stationary, packed), _round_trip(moving, packed))

    return Launch("kernel_offline_quantized_mx_matmul", arguments, reference, _TOLERANCE)


def _on_device(left: str, right: str) -> Launch:
    """The stationary operand is quantized by the host, the moving one by the kernel."""

    def arguments() -> tuple[Any, ...]:
        stationary, moving = _operands()
        return *_packed(stationary, left), moving, _dtype(left), _dtype(right)

    def reference(*_: Any) -> np.ndarray:
        stationary, moving = _operands()
        return _contract(_round_trip(stationary, left), _round_trip(moving, right))

    return Launch("kernel_on_device_quantize_matmul_mx", arguments, reference, _TOLERANCE)


def _strided(packed: str) -> list[Launch]:
    """Operands in HBM have four blocks of rows, whose elements interleave on chip."""

    def rows(name: str, columns: int) -> np.ndarray:
        return ref.uniform(name, 4 * _K, columns, dtype=ref.BFLOAT16)

    def interleaved(operand: np.ndarray) -> np.ndarray:
        return operand.reshape(4, _K, -1).transpose(1, 2, 0).reshape(_K, -1)

    def reference(stationary: np.ndarray, moving: np.ndarray, *_: Any) -> np.ndarray:
        return _contract(*(_round_trip(interleaved(operand), packed) for operand in (stationary, moving)))

    names = ("kernel_copy_strided_quantize_matmul_mx", "kernel_copy_strided_quantize_matmul_mx_packed_scale")
    return [
        Launch(name, lambda: (rows("st", _M), rows("mv", _N), _dtype(packed)), reference, _TOLERANCE) for name in names
    ]


def _operands() -> tuple[np.ndarray, np.ndarray]:
    """Unquantized operands; each run of four in the free dimension becomes one packed element."""
    stationary, moving = (
        ref.uniform(name, _K, 4 * columns, dtype=ref.BFLOAT16) for name, columns in (("st", _M), ("mv", _N))
    )
    return stationary, moving


def _dtype(packed: str) -> Any:
    return getattr(importlib.import_module("nki.language"), packed)


def quantize(values: np.ndarray, packed: str) -> tuple[np.ndarray, np.ndarray]:
    """Elements and block exponents of groups of 8 partitions x 4 neighbours.

    The block scale is 2 ** (floor(log2(largest magnitude)) - (largest element exponent - 1)).
    """
    element, largest = _ELEMENTS[packed]
    groups = ref.wide(values).reshape(values.shape[0] // 8, 8, -1, 4)
    exponents = np.floor(np.log2(np.abs(groups).max(axis=(1, 3)))) - (largest - 1)
    scaled = groups / np.exp2(exponents)[:, None, :, None]
    return scaled.reshape(values.shape).astype(np.float32).astype(element), exponents


def _packed(values: np.ndarray, packed: str) -> tuple[np.ndarray, np.ndarray]:
    """What the host hands to a kernel: four elements per integer, and biased exponents."""
    elements, exponents = quantize(values, packed)
    codes = elements.view(np.uint8)
    if packed.startswith("float4"):
        codes = codes[:, ::2] | codes[:, 1::2] << 4
    words = codes.view(np.uint16 if packed.startswith("float4") else np.uint32)
    return words, (exponents + 127).astype(np.uint8)


def _round_trip(values: np.ndarray, packed: str) -> np.ndarray:
    """The values after quantization, as (partition, packed element, position in it)."""
    elements, exponents = quantize(values, packed)
    scale = np.repeat(np.repeat(np.exp2(exponents), 8, axis=0), 4, axis=1)
    return (elements.astype(np.float64) * scale).reshape(values.shape[0], -1, 4)


def _contract(stationary: np.ndarray, moving: np.ndarray) -> np.ndarray:
    """Sums over the partitions and over the four values of a packed element."""
    left, right = (operand.transpose(0, 2, 1).reshape(-1, operand.shape[1]) for operand in (stationary, moving))
    return left.T @ right
