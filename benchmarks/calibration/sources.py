"""The measured kernels, taken unchanged from checkouts of the repositories that publish them.

Each function takes the folder of the checkouts, the name of a family of rows.toml and one of its rows, and returns the
launches that were measured together, each a kernel and its arguments.
"""

from __future__ import annotations

import ast
import importlib.util
import re
import sys
import tempfile
import textwrap
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any
from unittest.mock import patch

import ml_dtypes
import numpy as np

__all__ = ["SOURCES", "Launch"]

Launch = tuple[Callable[..., Any], tuple[Any, ...], dict[str, Any]]

_DTYPES: dict[str, Any] = {"fp32": np.float32, "fp16": np.float16, "bf16": ml_dtypes.bfloat16}
_BETA1 = "import neuronxcc.nki as nki\nimport neuronxcc.nki.isa as nisa\nimport neuronxcc.nki.language as nl\n" \
    "import neuronxcc.nki.typing as nt\nimport numpy as np\nimport math\n\n"


@cache
def _module(path: Path) -> Any:
    """A kernel file, imported."""
    name = "measured_" + re.sub(r"\W", "_", str(path))
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


@cache
def _module_of(text: str) -> Any:
    """A module of this text, which tracebacks can show."""
    with tempfile.NamedTemporaryFile("w", suffix=".py", delete=False) as file:
        file.write(text)
    return _module(Path(file.name))


def optimization_tutorial(folder: Path, _: str, version: int) -> list[Launch]:
    """A version of the matmul of the kernel optimization tutorial, 4096 x 8192 x 8192 float32."""
    text = (folder / "aws-neuron-sdk/nki/guides/tutorials/kernel-optimization.rst").read_text()
    blocks = re.findall(r"\.\. code-block:: python\n\n((?:[ \t]+.*\n|\n)+)", text)
    versions = [textwrap.dedent(b) for b in blocks if "def matrix_multiply_kernel" in b]
    kernel = _module_of(versions[version - 1].replace("buffer=nl.hbm", "buffer=nl.shared_hbm")).matrix_multiply_kernel
    return [(kernel, (np.empty((8192, 4096), np.float32), np.empty((8192, 8192), np.float32)), {})]


def kernel_library(folder: Path, _: str, layout: str) -> list[Launch]:
    """A 2048^3 bf16 matmul of nki-autotune's library."""
    (path,) = (folder / "nki-autotune/kernel_library/matmul" / layout).glob("kernel_hand*mfu.py")
    square = np.empty((2048, 2048), ml_dtypes.bfloat16)
    return [(getattr(_module(path), f"matmul_{layout}_nkigym"), (square, square), {})]


def mamba(folder: Path, _: str, version: str, channels: int, length: int) -> list[Launch]:
    """The fused mamba kernels; v1 was measured with the loops over states and channels exchanged."""
    module = _module(folder / "aws-neuron-sdk/nki/examples/fused_mamba/mamba_nki_kernels.py")
    by_channel, by_state = np.empty((1, channels, length), np.float32), np.empty((1, 16, length), np.float32)
    states = np.empty((channels, 16), np.float32)
    return [(getattr(module, f"mamba_{version}"), (by_channel, by_channel, states, by_state, by_state), {})]


def attention(folder: Path, _: str, kind: str, dtype: str, length: int) -> list[Launch]:
    """Attention with 128 features a head; the baseline passes scores through HBM."""
    module = _module(folder / f"trainium-kernel-fusion/kernels/{kind}/attention.py")
    tensor = np.empty((128, length), _DTYPES[dtype])
    return [(getattr(module, f"{kind}_attention"), (tensor, tensor.copy(), tensor.copy()), {})]


def mlp(folder: Path, _: str, kind: str, dtype: str, m: int, k: int, n: int) -> list[Launch]:
    """gelu(x @ w + bias) in one launch, or in two."""
    kernels = folder / "trainium-kernel-fusion/kernels"
    given = tuple(np.empty(shape, _DTYPES[dtype]) for shape in ((k, m), (k, n), (1, n)))
    if kind == "baseline":
        module = _module(kernels / "baseline/mlp_gemm.py")
        return [(module.gemm_kernel, given, {}), (module.gelu_kernel, (np.empty((m, n), _DTYPES[dtype]),), {})]
    return [(getattr(_module(kernels / "fused/mlp.py"), f"fused_mlp_{kind}"), given, {})]


def vector_add(folder: Path, family: str, kind: str, chunk: int, count: int) -> list[Launch]:
    """The sum of two vectors, with the size of a DMA as the students set it."""
    return _vector_add(folder / ("asst4-trainium2" if "as written" in family else "asst4-trainium"), kind, chunk, count)


def vector_add_by(folder: Path, _: str, owner: str, kind: str, chunk: int, count: int) -> list[Launch]:
    """The same, of other students."""
    return _vector_add(folder / f"{owner}-asst4-trainium2", kind, chunk, count)


def _vector_add(checkout: Path, kind: str, chunk: int, count: int) -> list[Launch]:
    constant = "ROW_CHUNK" if kind == "tiled" else "FREE_DIM"
    text = re.sub(
        rf"^( +){constant} = \d+\b", rf"\g<1>{constant} = {chunk}", _course_kernels(checkout), flags=re.MULTILINE
    )
    shape = (count,) if kind == "stream" or checkout.name.endswith("2") else (count, 1)
    vector = np.empty(shape, np.float32)
    return [(getattr(_module_of(text), f"vector_add_{kind}"), (vector, vector.copy()), {})]


def transpose(folder: Path, _: str, size: int) -> list[Launch]:
    """A square float32 matrix, transposed in tiles of 128 by the Tensor Engine."""
    return _transpose(folder / "asst4-trainium2", size)


def transpose_by(folder: Path, _: str, owner: str, size: int) -> list[Launch]:
    """The same, of other students."""
    return _transpose(folder / f"{owner}-asst4-trainium2", size)


def _transpose(checkout: Path, size: int) -> list[Launch]:
    kernel = _module_of(_course_kernels(checkout)).matrix_transpose
    return [(kernel, (np.empty((size, size), np.float32),), {})]


def convolution(folder: Path, _: str, checkout: str, dtype: str, pool: int) -> list[Launch]:
    """A convolution of 3 x 3 over 256 channels of 224 x 224, with bias and perhaps maximum pooling."""
    kernel = _module_of(_course_kernels(folder / checkout, "part2/conv2d.py")).fused_conv2d_maxpool
    image, weights = np.empty((1, 256, 224, 224), _DTYPES[dtype]), np.empty((256, 256, 3, 3), _DTYPES[dtype])
    return [(kernel, (image, weights, np.empty(256, _DTYPES[dtype])), {"pool_size": pool})]


def _course_kernels(checkout: Path, file: str = "part1/kernels.py") -> str:
    """A file of a course's assignment, with the name that its memory has today."""
    text = (checkout / file).read_text().replace("buffer=nl.hbm", "buffer=nl.shared_hbm")
    return text.replace("logging.disable(logging.OFF)", "")


def gemm_chain(folder: Path, _: str, step: int) -> list[Launch]:
    """A step in the search for a faster 4096 x 8192 x 8192 bf16 matmul."""
    kernel = _step(folder / "autocomp/examples/trn-tutorial/2_gemm_trace.py", step)
    lhs, rhs = np.empty((8192, 4096), ml_dtypes.bfloat16), np.empty((8192, 8192), ml_dtypes.bfloat16)
    return [(kernel, (lhs, rhs), {})]


def conv1d_chain(folder: Path, _: str, step: int) -> list[Launch]:
    """A step in the search for a faster depthwise convolution of three taps."""
    kernel = _step(folder / "autocomp/examples/trn-advanced/4_conv1d_trace.py", step)
    given = np.empty((8, 512, 1, 2048), np.float32), np.empty((512, 1, 1, 3), np.float32)
    return [(kernel, given, {"padding": ((0, 0), (1, 1))})]


def attention_chain(folder: Path, _: str, step: int) -> list[Launch]:
    """A step in the search for a faster attention over 4096 positions, bf16."""
    kernel = _step(folder / "autocomp/examples/trn-tutorial/4_attention_trace.py", step)
    tensor = np.empty((128, 4096), ml_dtypes.bfloat16)
    return [(kernel, (tensor, tensor.copy(), tensor.copy()), {})]


def sd_attention_chain(folder: Path, _: str, step: int) -> list[Launch]:
    """A step in the search for a faster attention of Stable Diffusion, 4096 positions of 64 features, float32."""
    kernel = _step(folder / "autocomp/examples/trn-tutorial/5_sd_attention_trace.py", step)
    tensor = np.empty((4096, 64), np.float32)
    return [(kernel, (tensor, tensor.copy(), tensor.copy()), {})]


def mamba_chain(folder: Path, _: str, step: int) -> list[Launch]:
    """A step in the search for a faster selective scan."""
    kernel = _step(folder / "autocomp/examples/trn-tutorial/3_mamba_trace.py", step)
    by_channel, by_state = np.empty((1, 256, 2048), np.float32), np.empty((1, 16, 2048), np.float32)
    return [(kernel, (by_channel, by_channel.copy(), np.empty((256, 16), np.float32), by_state, by_state.copy()), {})]


def nkibench(folder: Path, _: str, problem: str) -> list[Launch]:
    """A kernel of NKIBench with the inputs of its reference, whose values do not matter."""
    bench = folder / "AccelOpt/NKIBench"
    (kernel,), (reference,) = (list((bench / kind).glob(f"{problem}_[A-Z]*.py")) for kind in ("kernels", "reference"))
    module = _module(reference)
    with patch.object(np.random, "normal", lambda loc=0.0, scale=1.0, size=None: np.empty(size)):
        given = module.transform_to_nki_inputs(module.get_inputs())
    return [(_module(kernel).kernel, tuple(given), {})]


_LABS = "trainium-agent-labs/projects"
_QWEN = {"gate_up": (4096, 256, 6144), "q_proj": (4096, 256, 2048)}  # K, M, N
_WIDE = {"tokens": (2048, 4096), "heads": (32768, 128)}


def chipboost_matmul(folder: Path, _: str, kernel: str, caps: str, case: str, cores: int = 1) -> list[Launch]:
    """A bf16 matmul of Qwen3-8B at 256 tokens, or both, with blocks of so many tiles (M, N, K) at most."""
    text = (folder / _LABS / f"03-chipboost/kernels/{kernel}.py").read_text()
    for cap in caps.split():
        text = re.sub(rf"^TILES_IN_BLOCK_{cap[0].upper()} = \d+", rf"TILES_IN_BLOCK_{cap[0].upper()} = {cap[1:]}", text,
                      flags=re.MULTILINE)
    function = _module_of(text).nki_matmul_tiled_
    sizes = [_QWEN[case]] if case in _QWEN else list(_QWEN.values())
    return [
        (function[cores] if cores > 1 else function,
         (np.empty((k, m), ml_dtypes.bfloat16), np.empty((k, n), ml_dtypes.bfloat16)), {})
        for k, m, n in sizes
    ]


def chipboost_rows(folder: Path, _: str, kernel: str, *shape: int) -> list[Launch]:
    """RMSNorm of a bf16 matrix, or a copy of it; without a shape, of the two that were measured together."""
    module = _module(folder / _LABS / f"03-chipboost/kernels/{kernel}.py")
    shapes = [shape] if shape else list(_WIDE.values())
    if kernel.startswith("copy"):
        return [(module.copy_floor, (np.empty(s, ml_dtypes.bfloat16),), {}) for s in shapes]
    return [
        (module.qwen3_rmsnorm, (np.empty(s, ml_dtypes.bfloat16), np.empty((1, s[1]), ml_dtypes.bfloat16)), {})
        for s in shapes
    ]


def tile_attention(folder: Path, _: str, kernel: str, positions: int, features: int) -> list[Launch]:
    """float32 attention of one tile."""
    module = _module(folder / "trainium-agent-labs/attention" / f"{kernel}.py")
    tensor = np.empty((positions, features), np.float32)
    return [(module.nki_attention_, (tensor, tensor.copy(), tensor.copy()), {})]


def heads_attention(
    folder: Path, _: str, kernel: str, positions: int, heads: int, features: int, cores: int = 1
) -> list[Launch]:
    """float32 attention of one tile for each of some heads."""
    function = _module(folder / "trainium-agent-labs/attention" / f"{kernel}.py").nki_mha_
    tensor = np.empty((positions, heads, features), np.float32)
    return [(function[cores] if cores > 1 else function, (tensor, tensor.copy(), tensor.copy()), {})]


def _step(path: Path, number: int) -> Any:
    """The kernel of one step of a trace: an expression of nested candidates, each with its code."""
    found: list[str] = []
    at: ast.expr | None = ast.parse(path.read_text().strip(), mode="eval").body
    while isinstance(at, ast.Call):
        fields = {k.arg: k.value for k in at.keywords}
        found.append(ast.literal_eval(fields["code"]))
        at = fields["parent"]
    module = _module_of(_BETA1 + found[::-1][number])
    return module.test


SOURCES: dict[str, Callable[..., list[Launch]]] = {
    f.__name__: f
    for f in (
        optimization_tutorial, kernel_library, mamba, attention, mlp, vector_add, vector_add_by, transpose,
        transpose_by, convolution, gemm_chain, conv1d_chain, attention_chain, sd_attention_chain, mamba_chain,
        nkibench, chipboost_matmul, chipboost_rows, tile_attention, heads_attention,
    )
}
