"""Homework of a course in parallel computing: vector additions and transposes, and a fused convolution and pooling."""

from __future__ import annotations

import ast
import zlib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np

from ..case import TRN2_MODES, Case, Launch, Tolerance
from . import references as ref
from .files import Variant, file_cases

SUITE = "asst4-trainium"
_SIZES = {"naive": 128, "tiled": 2560}  # others take 128 rows of 2, 100, 200, ... columns at a time
# Files by their checksum: what is said of their kernel by whoever wrote it, or by running it.
_UNFINISHED = {
    0x0CCB927C: "the assignment's starting point, which raises",
    0x5484F4B9: "adds no bias and does not pool",
    0x879D52B9: "reshapes partitions, and takes 256 of them",
    0xD0A767A5: "adds no bias; pools with nl.max of two tiles",
    0x2497A04B: "the assignment's starting point, which raises",
    0xD2BE82A8: "adds no bias and does not pool",
    0xA4401E15: "adds no bias, does not pool, and mixes up channels beyond 128",
    0x41646384: "writes nothing",
}
# The result has another shape than the output.
_UNPOOLED = {0xF48ADD64, 0xB340D038, 0xEBB5571D, 0xD35E7E61, 0x53FCEC06, 0x9609C42F, 0xCBA7EA01}
_TOO_MANY = "ROW_CHUNK = 256"  # a step of the assignment, whose lesson is the limit of 128 partitions
_CONVOLUTION = "fused_conv2d_maxpool"
# The kernels add up in float32 and in an order of their own, over up to 2304 products of numbers in [0, 1).
_TOLERANCE = Tolerance(rtol=1e-5, atol=1e-2)


def find(folder: Path) -> Path | None:
    """The checkout's root."""
    path = folder / "part2" / "conv2d.py"
    return folder if path.is_file() and _CONVOLUTION in path.read_text(encoding="utf-8") else None


def cases(root: Path) -> list[Case]:
    """All cases of the checkout."""
    return [case for path in sorted(root.rglob("*.py")) for case in _cases(path)]


def _cases(path: Path) -> Iterator[Case]:
    text, checksum = path.read_text(encoding="utf-8", errors="replace"), zlib.crc32(path.read_bytes())
    refused = frozenset({"trn2"}) if _TOO_MANY in text else frozenset()
    variants = [variant for name in _functions(path) for variant in _variants(name, refused)]
    for case in file_cases(SUITE, path, variants, TRN2_MODES):
        pooled = _UNPOOLED if case.label.endswith("pool 2") else frozenset()
        reason = _UNFINISHED.get(checksum, "does not pool" if checksum in pooled else "")
        yield replace(case, skip=f"unfinished: {reason}") if reason and _CONVOLUTION in case.label else case


def _functions(path: Path) -> list[str]:
    try:
        tree = ast.parse(path.read_text(encoding="utf-8", errors="replace"))
    except SyntaxError:
        return []
    return [node.name for node in tree.body if isinstance(node, ast.FunctionDef)]


def _variants(name: str, refused: frozenset[str]) -> Iterator[Variant]:
    if name == _CONVOLUTION:
        for channels, outputs, pool in ((128, 128, 1), (256, 256, 1), (128, 256, 2)):
            yield Variant(_convolution(channels, outputs, pool), f"{channels} to {outputs}, pool {pool}")
    elif name.startswith("matrix_transpose"):
        launch = Launch(name, lambda: (ref.uniform("m", 2048, 2048),), np.transpose)
        yield Variant(launch)
    elif name.startswith("vector_add_") and not name.endswith("_bad"):
        size = _SIZES.get(name.removeprefix("vector_add_"), 256000)
        launch = Launch(name, ref.arrays(a=(size,), b=(size,)), ref.add, read=lambda out: [out[0].reshape(-1)])
        yield Variant(launch, refused_on=refused if name.endswith("tiled") else frozenset())


def _convolution(channels: int, outputs: int, pool: int) -> Launch:
    def arguments() -> tuple[np.ndarray, ...]:
        image = ref.uniform("X", 2, channels, 32, 16, low=0)
        return image, ref.uniform("W", outputs, channels, 3, 3, low=0), ref.uniform("bias", outputs, low=0), pool

    return Launch(_CONVOLUTION, arguments, _convolve, _TOLERANCE)


def _convolve(image: np.ndarray, weights: np.ndarray, bias: np.ndarray, pool: int) -> np.ndarray:
    """Convolution without padding, plus a bias per channel, then the largest of each square of ``pool``."""
    height, width = image.shape[2] - weights.shape[2] + 1, image.shape[3] - weights.shape[3] + 1
    out = np.zeros((image.shape[0], weights.shape[0], height, width)) + ref.wide(bias)[None, :, None, None]
    for i, j in np.ndindex(weights.shape[2:]):
        taps = np.tensordot(ref.wide(weights[:, :, i, j]), ref.wide(image[:, :, i : i + height, j : j + width]), (1, 1))
        out += taps.swapaxes(0, 1)
    if pool == 1:
        return out
    return out.reshape(*out.shape[:2], height // pool, pool, width // pool, pool).max(axis=(3, 5))
