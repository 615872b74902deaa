"""Inputs and references for the kernels that the guides define, by page and name of the kernel."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from ..blocks import Analysis
from . import references as ref
from .api_examples import Example, squares


def entries(page: str, analysis: Analysis) -> list[Example]:
    """The examples to make of one code block of a page."""
    known: Mapping[str, Example] = _BY_NAME.get(page, {})
    names = analysis.kernels or analysis.functions
    found = [known[name] for name in names if name in known]
    # A tutorial shows the head of a kernel first: without results there is nothing to run yet.
    found = [entry for entry in found if entry.reference is None or entry.mutates or analysis.returns]
    return found or [
        example for names, example in _BY_NAMES.get(page, []) if names == {*analysis.free, *analysis.binds}
    ]


def _rows(*shape: int) -> np.ndarray:
    return ref.uniform("A", *shape)


_ADD = Example(
    name="nki_tensor_add_kernel",
    kernel="nki_tensor_add_kernel",
    arguments=ref.arrays(a=(96, 300), b=(96, 300)),
    reference=ref.add,
)

_BY_NAME: dict[str, dict[str, Example]] = {
    "nki-language-guide.rst": {
        "nki_tensor_add_kernel": _ADD,
        "example_kernel": Example(
            name="example_kernel",
            kernel="example_kernel",
            arguments=lambda: (ref.uniform("a", 512, 512, dtype=ref.FLOAT16),),
        ),
        "relu_kernel": Example(
            name="relu_kernel",
            kernel="relu_kernel",
            arguments=lambda: (ref.uniform("a", 256, 512), np.zeros((256, 512), np.float32)),
            reference=lambda a, _: np.maximum(a, 0.0),
            mutates=(1,),
        ),
        "scale_kernel": Example(
            name="scale_kernel",
            kernel="scale_kernel",
            arguments=lambda: (ref.uniform("a", 256, 512), np.zeros((256, 512), np.float32)),
            reference=lambda a, _: 0.5 * ref.wide(a),
            mutates=(1,),
        ),
    },
    "quickstart-implement-run-kernel.rst": {"nki_tensor_add_kernel": _ADD},
    "nki-aps.rst": {
        "scalar_dynamic_select": Example(
            ("A",), lambda: (_rows(4, 128, 512),), lambda a: a[3], function="scalar_dynamic_select"
        ),
        "gather_rows": Example(("A",), lambda: (_rows(128, 512),), lambda a: a[0::2], function="gather_rows"),
        "indirect_vector_dynamic_dma": Example(
            ("A",), lambda: (_rows(128, 512),), lambda a: a[0::2], function="indirect_vector_dynamic_dma"
        ),
    },
}

_BLOCKS = Example(
    ("input_tensor",), lambda: (ref.uniform("input_tensor", 512, 512),), lambda x: ref.wide(x) + 2,
    outputs={"out_tensor": ((512, 512), "float32")},
)

# By all the names that a block uses or binds at its top level.
_BY_NAMES: dict[str, list[tuple[set[str], Example]]] = {
    "nki-dynamic-loops.rst": [
        ({"input_tensor", "out_tensor", "result", "tile", "_", "nl", "nisa"}, squares(512)),
        ({"input_tensor", "out_tensor", "result", "tile", "i", "start", "stop", "nl", "nisa"}, _BLOCKS),
    ],
}
