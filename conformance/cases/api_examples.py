"""Inputs and references for the examples in the API stubs' docstrings that need them.

Examples that build their own tiles and assert their own results are not listed: they run as they are.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ..case import DEFAULT_TOLERANCE, Tolerance
from . import references as ref

Outputs = Mapping[str, tuple[tuple[int, ...], str]]


@dataclass(frozen=True)
class Example:
    """What a code block needs to run, and what it should compute.

    Attributes:
        parameters: the kernel's parameters; for a fragment, its free names.
        arguments: makes their values, in order.
        reference: expected results, in the order: outputs, then ``results``, or what the kernel returns.
        outputs: free names that are HBM tensors to write, as (shape, dtype of nki.language).
        results: tiles of a fragment to look at.
        kernel: the block's kernel to launch; "" for a fragment.
        function: the block's plain function to launch from a kernel of ours; "" for a fragment.
        mutates: positions of arguments that the kernel writes.
        tolerance: for the comparison.
        refused_on: targets where a typed error is right.
        read: turns the results into what is compared; None takes them as they are.
        name: tells several examples of one block apart.
    """

    parameters: tuple[str, ...] = ()
    arguments: Callable[[], tuple[Any, ...]] = tuple
    reference: Callable[..., Any] | None = None
    outputs: Outputs = field(default_factory=dict)
    results: tuple[str, ...] = ()
    kernel: str = ""
    function: str = ""
    mutates: tuple[int, ...] = ()
    tolerance: Tolerance = DEFAULT_TOLERANCE
    refused_on: frozenset[str] = frozenset()
    read: Callable[[Sequence[Any]], Sequence[Any]] | None = None
    name: str = ""

    @property
    def given(self) -> set[str]:
        """The free names of a fragment that it gives values to."""
        return {*self.parameters, *self.outputs}


def squares(columns: int) -> Example:
    """Fragments that square ``input_tensor`` tile by tile into ``out_tensor``."""
    return Example(
        ("input_tensor",),
        ref.arrays(input_tensor=(128, columns)),
        lambda x: ref.wide(x) ** 2,
        outputs={"out_tensor": ((128, columns), "float32")},
    )


def _gather_arguments() -> tuple[np.ndarray, ...]:
    rows = np.random.default_rng(3).permutation(256)[:64]
    return ref.uniform("data", 256, 96), rows.astype(np.uint32).reshape(64, 1)


def _scatter_arguments() -> tuple[np.ndarray, ...]:
    rows = np.random.default_rng(4).permutation(256)[:64]
    return ref.uniform("src", 64, 96), rows.astype(np.uint32).reshape(64, 1), ref.uniform("out", 256, 96)


def _scattered(source: np.ndarray, indices: np.ndarray, output: np.ndarray) -> np.ndarray:
    wanted = ref.wide(output)
    wanted[indices[:, 0]] = source
    return wanted


def _gather_transpose(columns: int) -> Callable[[], tuple[np.ndarray, ...]]:
    def make() -> tuple[np.ndarray, ...]:
        rows = np.random.default_rng(5).integers(0, 512, size=(128, columns))
        return ref.uniform("table", 512, 128, dtype=ref.BFLOAT16), rows.astype(np.uint32)

    return make


def _gather_transpose_4d() -> tuple[np.ndarray, ...]:
    rows = np.random.default_rng(6).integers(0, 256, size=(128, 1))
    return ref.uniform("table", 256, 1, 4, 64, dtype=ref.BFLOAT16), rows.astype(np.uint32)


def _flat_column_major(indices: np.ndarray) -> np.ndarray:
    return indices.T.reshape(-1)


def _sparse_row() -> tuple[np.ndarray, ...]:
    values = np.random.default_rng(7).integers(0, 2, size=(1, 40)).astype(np.int32)
    return (values,)


def _nonzero_with_count(values: np.ndarray) -> np.ndarray:
    found = np.flatnonzero(values[0])
    padding = np.full(values.shape[1] - len(found), -1)
    return np.concatenate([found, padding, [len(found)]])[None, :]


def _snakes() -> tuple[np.ndarray]:
    """48 distinct values in each 16 partitions."""
    rng = np.random.default_rng(9)
    return (np.concatenate([rng.permutation(48).reshape(16, 3) for _ in range(8)]).astype(ref.BFLOAT16),)


def _topk(snake: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The 8 largest of 42 values in each 16 partitions, ascending, and their numbers."""
    values = ref.wide(snake).reshape(8, 16, 3).transpose(0, 2, 1).reshape(8, 48)[:, :42]
    chosen = np.argsort(values, axis=1, kind="stable")[:, -8:]
    return np.take_along_axis(values, chosen, axis=1), chosen


def _topk_results(results: Sequence[np.ndarray]) -> list[np.ndarray]:
    """What is defined: results are numbered like the values, so that eight fill half of a group's first column."""
    return [result.reshape(8, 16, 8)[:, :8, 0] for result in results]


def _gather_flattened_arguments() -> tuple[np.ndarray, ...]:
    columns = np.random.default_rng(8).integers(0, 512, size=(128, 512))
    return ref.uniform("data", 128, 512), columns.astype(np.uint32)


def _copied_prefix(bound: np.ndarray, count: int, data: np.ndarray) -> np.ndarray:
    wanted = np.zeros((1, count))
    wanted[:, : bound[0, 0]] = data[:, : bound[0, 0]]
    return wanted


_UNIT = Tolerance(rtol=1e-5, atol=1e-5)

EXAMPLES: dict[str, Example] = {
    "nl.copy[0]": Example(
        ("x_tensor", "y_tensor"),
        ref.arrays(x=(128, 128), y=(128, 512)),
        ref.matmul_transposed,
        results=("result",),
        tolerance=ref.rounding(ref.FLOAT32, scale=4),
    ),
    "nl.softmax[0]": Example(results=("result",), reference=lambda: np.full((128, 512), 1 / 512)),
    "nl.rms_norm[0]": Example(results=("result",), reference=lambda: np.ones((128, 512)), tolerance=_UNIT),
    "nl.gather_flattened[0]": Example(
        ("data_tensor", "indices_tensor"),
        _gather_flattened_arguments,
        lambda data, indices: np.take_along_axis(data, indices.astype(np.int64), axis=1),
        outputs={"actual_tensor": ((128, 512), "float32")},
    ),
    "nl.affine_range[0]": squares(2048),
    "nl.sequential_range[0]": squares(2048),
    "nl.static_range[0]": squares(2048),
    "nl.dynamic_range[0]": squares(512),
    "nisa.VirtualRegister[0]": squares(512),
    "nl.fori_loop[1]": Example(
        ("ub_input", "N", "data"),
        lambda: (np.array([[5]], dtype=np.int32), 8, ref.uniform("data", 1, 8)),
        _copied_prefix,
        outputs={"output": ((1, 8), "float32")},
    ),
    "nl.while_loop[1]": Example(
        ("data", "count_input"),
        lambda: (np.array([[1.5]], dtype=np.float32), np.array([[6]], dtype=np.int32)),
        lambda data, count: ref.wide(data) * count,
        results=("acc",),
    ),
    "nl.shared_identity_matrix[0]": Example(
        ("expected_tensor",),
        lambda: (np.eye(128, dtype=np.float32),),
        lambda expected: expected,
        outputs={"actual_tensor": ((128, 128), "float32")},
    ),
    # 0.5 +- 0.5 is all that can be said of a uniform random tile elementwise.
    "nl.rand[0]": Example(
        results=("a",), reference=lambda: np.full((128, 512), 0.5), tolerance=Tolerance(rtol=0.0, atol=0.5)
    ),
    "nisa.dma_copy[0]": Example(
        kernel="indirect_gather_kernel",
        arguments=_gather_arguments,
        reference=lambda data, rows: data[rows[:, 0]],
    ),
    "nisa.dma_copy[1]": Example(
        kernel="indirect_scatter_kernel", arguments=_scatter_arguments, reference=_scattered
    ),
    "nisa.nc_matmul[0]": Example(
        kernel="nc_matmul_accumulate_kernel",
        arguments=ref.arrays(lhs=(512, 128), rhs=(512, 512)),
        reference=ref.matmul_transposed,
        tolerance=ref.rounding(ref.FLOAT32, scale=8),
    ),
    "nisa.dma_transpose[0]": Example(
        kernel="gather_transpose_kernel",
        arguments=_gather_transpose(1),
        reference=lambda table, rows: table[_flat_column_major(rows)].T,
    ),
    "nisa.dma_transpose[1]": Example(
        kernel="gather_transpose_2d_kernel",
        arguments=_gather_transpose(2),
        reference=lambda table, rows: table[_flat_column_major(rows)].T,
    ),
    "nisa.dma_transpose[2]": Example(
        kernel="gather_transpose_4d_kernel",
        arguments=_gather_transpose_4d,
        reference=lambda table, rows: table[_flat_column_major(rows)].transpose(3, 1, 2, 0),
    ),
    "nisa.activate2[0]": Example(
        kernel="activate2_scale_bias_kernel",
        arguments=ref.arrays(x=(128, 512)),
        reference=lambda x: ref.gelu(2.0 * ref.wide(x) + 0.5),
    ),
    "nisa.nonzero_with_count[1]": Example(
        ("in_tensor",), _sparse_row, _nonzero_with_count, function="nonzero_with_count_kernel",
        refused_on=frozenset({"trn2", "trn3"}),  # it returns nl.hbm, an error since NKI 0.3
    ),
    "nisa.topk[0]": Example(
        ("in_tensor",), _snakes, _topk, function="topk_kernel", read=_topk_results
    ),
    "nl.NkiTensor.__getitem__[0]": Example(("i",), lambda: (16,)),
}  # fmt: skip
