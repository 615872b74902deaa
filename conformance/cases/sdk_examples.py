"""The kernels under the documentation's ``examples/``: how each file's kernels are called and judged."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from ..case import Case, Launch, Mode
from ..sources import FileSource
from . import references as ref
from .files import Variant, file_cases, variants
from .matmul import matmul_launches
from .programs import script_case

_BROKEN = {
    "layout-dynamic-loop.py": "not valid Python: a parenthesis is missing",
    "layout-loop.py": "decorated by torch_neuronx.nki_jit of an older release",
}


def example_cases(suite: str, examples: Path) -> Iterator[Case]:
    """The kernels of every file, and every file that is a script run as one."""
    for name, launches in _launches().items():
        if (path := examples / name).is_file():
            yield from file_cases(suite, path, launches)
    for name, reason in _BROKEN.items():
        if (path := examples / name).is_file():
            yield Case(suite, "tensor_exp_kernel_", FileSource(path), modes=(Mode.FILE,), skip=reason)
    for path in sorted(examples.rglob("*.py")):
        text = path.read_text(encoding="utf-8")
        if "__main__" in text or "nki.simulate(" in text:
            yield script_case(suite, path, modes=(Mode.FILE,))


def _launches() -> dict[str, list[Variant]]:
    half, brain = ref.FLOAT16, ref.BFLOAT16
    getting_started = _add("nki_tensor_add_kernel", (4, 3), half)
    mamba = [_mamba(version) for version in ("v1", "v2", "v3")]
    return {
        "getting_started_baremetal.py": variants(getting_started),
        "getting_started_torch.py": variants(getting_started, "torch"),
        "getting_started_jax.py": variants(getting_started, "jax"),
        "simulate/nki_simulate_example.py": variants(_add("add_kernel", (128, 512), ref.FLOAT32)),
        "tensor_addition/tensor_addition_nki_kernels.py": [
            *variants(_add("nki_tensor_add", (256, 1024), ref.FLOAT32), "torch", "jax"),
            *variants(_add("nki_tensor_add", (256, 1024), brain), note="bf16"),
        ],
        "transpose2d/transpose2d_nki_kernels.py": [
            *variants(_transpose(np.dtype(np.int8)), "torch", note="int8"),
            *variants(_transpose(ref.FLOAT32), "jax"),
        ],
        "average_pool2d/average_pool2d_nki_kernels.py": [
            *variants(_pool("tensor_avgpool_kernel", ref.FLOAT32, ref.average_pool), "jax"),
            *variants(_pool("tensor_avgpool_kernel", half, ref.average_pool), note="fp16"),
            *variants(_pool("tensor_avgpool_kernel", brain, ref.average_pool), "torch", note="bf16"),
        ],
        "matrix_multiplication/matrix_multiplication_nki_kernels.py": [
            *(variant for launch in matmul_launches(ref.FLOAT32) for variant in variants(launch)),
            *(variant for launch in matmul_launches(brain) for variant in variants(launch, "torch", note="bf16")),
        ],
        "fused_mamba/mamba_nki_kernels.py": [
            *variants(mamba[0], "torch"),
            *(variant for launch in mamba[1:] for variant in variants(launch)),
        ],
        "index-case-1.py": variants(_split(brain), "torch"),
        "index-case-3.py": variants(_pool("tensor_maxpool_kernel_", brain, ref.max_pool), "torch"),
        "layout-pass.py": variants(_exponential(128), "torch"),
        # The file shows a mistake: 256 rows do not fit the 128 partitions of a tile.
        "layout-violation.py": [
            Variant(replace(_exponential(256), reference=None), refused_on=frozenset({"trn2", "trn3"}))
        ],
    }


def _add(kernel: str, shape: tuple[int, int], dtype: np.dtype[Any]) -> Launch:
    def arguments() -> tuple[Any, ...]:
        return ref.uniform("a", *shape, dtype=dtype), ref.uniform("b", *shape, dtype=dtype)

    return Launch(kernel, arguments, ref.add, ref.rounding(dtype))


def _exponential(rows: int) -> Launch:
    def arguments() -> tuple[Any, ...]:
        return (ref.uniform("x", rows, 512, dtype=ref.BFLOAT16),)

    return Launch("tensor_exp_kernel_", arguments, lambda x: np.exp(ref.wide(x)), ref.rounding(ref.BFLOAT16))


def _pool(kernel: str, dtype: np.dtype[Any], reference: Callable[..., np.ndarray]) -> Launch:
    def arguments() -> tuple[Any, ...]:
        return ref.uniform("image", 32, 12, 18, dtype=dtype), 3

    return Launch(kernel, arguments, reference, ref.rounding(dtype))


def _transpose(dtype: np.dtype[Any]) -> Launch:
    def arguments() -> tuple[Any, ...]:
        return np.arange(5 * 12).reshape(5, 12).astype(dtype), (3, 4)

    return Launch("tensor_transpose2D_kernel_", arguments, ref.transpose_rows)


def _split(dtype: np.dtype[Any]) -> Launch:
    def arguments() -> tuple[Any, ...]:
        return (np.arange(4 * 37).reshape(4, 37).astype(dtype),)

    return Launch("tensor_split_kernel_", arguments, lambda x: (ref.wide(x)[:, 0::2], ref.wide(x)[:, 1::2]))


def _mamba(version: str) -> Launch:
    batch, channels, steps, states = 1, 256, 1024, 4

    def arguments() -> tuple[Any, ...]:
        return (
            ref.uniform("delta", batch, channels, steps, low=0.05, high=1.0),
            ref.uniform("u", batch, channels, steps),
            ref.uniform("A", channels, states, low=-1.5, high=-0.1),
            ref.uniform("B", batch, states, steps),
            ref.uniform("C", batch, states, steps),
        )

    return Launch(f"mamba_{version}", arguments, ref.selective_scan, ref.Tolerance(rtol=1e-4, atol=1e-4))
