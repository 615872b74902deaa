"""What the gallery promises beyond values: its shape as a gallery, and clear refusals."""

from __future__ import annotations

import ast
import importlib
import inspect
import pkgutil

import numpy as np
import pytest

import kernels
import nkilite as nki
from kernels import GALLERY, RANKED
from kernels.tiles import default_depth, flat_blocks, row_blocks, tiles
from nkilite.testing import make

MODULES = {name: importlib.import_module(f"kernels.{name}") for name in (*GALLERY, *RANKED)}


def test_every_module_is_in_the_gallery():
    found = {module.name for module in pkgutil.iter_modules(kernels.__path__)}
    assert found - {"__main__"} == {*GALLERY, *RANKED, "tiles"}


@pytest.mark.parametrize("name", [*GALLERY, *RANKED, "tiles"])
def test_kernels_import_the_public_interface_alone(name):
    tree = ast.parse(inspect.getsource(importlib.import_module(f"kernels.{name}")))
    imported = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    imported |= {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    nkilite = {module for module in imported if module.split(".")[0] == "nkilite"}
    public = ("collectives", "isa", "language", "sparsity", "testing")
    assert nkilite <= {"nkilite", *(f"nkilite.{name}" for name in public)}


@pytest.mark.parametrize("name", MODULES)
def test_tunable_sizes_are_the_keyword_arguments_in_capitals(name):
    module = MODULES[name]
    parameters = inspect.signature(getattr(module, name)).parameters
    tunable = {key: p.default for key, p in parameters.items() if key.isupper()}
    assert set(module.SPACE) == set(tunable)
    for key, values in module.SPACE.items():
        assert list(values) == sorted(set(values))
        assert tunable[key] is None or tunable[key] in values


@pytest.mark.parametrize("name", MODULES)
def test_cases_cover_both_dtypes_and_options_that_exist(name):
    module = MODULES[name]
    assert {"float32", "bfloat16"} <= {case.dtype for case in module.CASES}
    parameters = inspect.signature(getattr(module, name)).parameters
    for case in module.CASES:
        assert set(case.options) <= set(parameters)


@pytest.mark.parametrize("name", GALLERY)
def test_what_it_is_timed_beside_computes_the_same(name):
    module = MODULES[name]
    case = next(case for case in module.CASES if case.dtype == "float32" and not case.options)
    assert set(module.SHOWN) == set(case.shape)
    arrays = module.inputs(dtype=case.dtype, **case.shape)
    found, wanted = module.in_numpy(*arrays), module.reference(*arrays)
    pairs = zip(found, wanted, strict=True) if isinstance(found, tuple) else [(found, wanted)]
    for left, right in pairs:
        np.testing.assert_allclose(left, right, rtol=2e-3, atol=1e-4 * np.abs(right).max())


@pytest.mark.parametrize(("extent", "size"), [(1, 128), (128, 128), (129, 128), (1000, 512)])
def test_tiles_cover_once(extent, size):
    covered = [i for start, length in tiles(extent, size) for i in range(start, start + length)]
    assert covered == list(range(extent))


@pytest.mark.parametrize("depth", [1, 2, 8])
@pytest.mark.parametrize("rows", [1, 127, 128, 129, 1024, 1025, 3000])
def test_row_blocks_cover_once_and_fill_the_partitions(rows, depth):
    blocks = list(row_blocks(rows, depth))
    covered = [i for start, p, d in blocks for i in range(start, start + p * d)]
    assert covered == list(range(rows))
    assert all(p == 128 for _, p, _ in blocks[:-1])
    assert all(d in (1, depth) for _, _, d in blocks)


@pytest.mark.parametrize("columns", [1, 7, 512])
@pytest.mark.parametrize("count", [1, 127, 128, 1000, 128 * 512 + 3])
def test_flat_blocks_cover_once_in_tiles_that_fit(count, columns):
    blocks = list(flat_blocks(count, columns))
    covered = [i for start, p, width in blocks for i in range(start, start + p * width)]
    assert covered == list(range(count))
    assert all(p == 128 and width <= columns for _, p, width in blocks[:-1])
    assert blocks[-1][1] in (1, 128) and blocks[-1][2] <= max(columns, 127)


def test_default_depth_lengthens_short_rows_only():
    assert [default_depth(b) for b in (1, 256, 1024, 2048, 65536)] == [8, 8, 2, 1, 1]


def _matmul(M=128, N=128, K=128, K2=None):
    return make((K, M), "float32"), make((K2 or K, N), "float32")


def _attention(S_q=128, S_k=128, D=64, heads=1, kv_heads=1, dtype="float32"):
    sizes = (heads, S_q, D), (kv_heads, S_k, D), (kv_heads, S_k, D)
    return tuple(make(size, dtype) for size in sizes)


def _decode(heads=2, room=1024, D=64):
    return *_four((heads, D), (2, room, D), (2, room, D)), np.array([[5]], np.int32)


def _mlp(H=128, F=128, H2=None):
    return tuple(make(size, "float32") for size in ((4, H), (H2 or H, F), (H2 or H, F), (F, H2 or H)))


def _sparse_mlp(H=256, rows=128, F=256):
    sizes = (4, H), (rows, F), (rows, F // 4), (rows, F), (rows, F // 4), (F // 2, H), (F // 2, H // 4)
    return tuple(make(size, "float32") for size in sizes)


def _mamba(S=2, T=8):
    sizes = (1, 4, 8), (1, 4, T), (4, S), (1, 2, 8), (1, 2, 8)
    return tuple(make(size, "float32") for size in sizes)


def _four(*shapes):
    return tuple(make(shape, "float32") for shape in shapes)


REFUSALS = [
    ("matmul", _matmul(K=100), {}, "K=100 must be a multiple of 128"),
    ("matmul", _matmul(K2=256), {}, "must agree in K"),
    ("flash_attention", _attention(S_q=100), {}, "S_q=100 and S_k=128 must be multiples of 128"),
    ("flash_attention", _attention(D=256), {}, "D=256 must not exceed 128"),
    ("flash_attention", _attention(heads=3, kv_heads=2), {}, "3 query heads cannot share 2"),
    ("flash_attention", _attention(S_q=256), {"causal": True}, "needs S_k >= S_q"),
    ("flash_attention", _attention(), {"scale": -1.0}, "scale=-1.0 must be positive"),
    ("flash_attention", _attention(dtype="float16"), {}, "needs the range of float32 or bfloat16"),
    ("decode_attention", _decode(room=200), {}, "room=200 must be a multiple of the 256 keys in a block"),
    ("decode_attention", _decode(D=256), {}, "D=256 must not exceed 128"),
    ("decode_attention", _decode(heads=3), {}, "3 query heads cannot share 2"),
    ("decode_attention", _decode(), {"KEY_TILES_IN_BLOCK": 8}, "a block of 1024 keys must not exceed the 512 scores"),
    ("mlp", _mlp(H=100), {}, "H=100 and F=128 must be multiples of 128"),
    ("mlp", _mlp(H2=256), {}, r"must be \[tokens, H\]"),
    ("mlp", _mlp(), {"act": "relu6"}, "act='relu6' is not one of"),
    ("mlp", _mlp(), {"TOKENS_IN_BLOCK": 1024}, "TOKENS_IN_BLOCK=1024 exceeds 512"),
    ("sparse_mlp", _sparse_mlp(H=200, rows=100), {}, "H=200 and F=256 must be multiples of 128 r = 256"),
    ("sparse_mlp", _sparse_mlp(H=512, F=512), {}, r"must be \[H / r, F\]"),
    ("sparse_mlp", _sparse_mlp(), {"act": "relu6"}, "act='relu6' is not one of"),
    ("sparse_mlp", _sparse_mlp(), {"TOKENS_IN_BLOCK": 1024}, "TOKENS_IN_BLOCK=1024 exceeds 512"),
    ("rope", tuple(make(s, "float32") for s in ((1, 4, 1, 3), (4, 1), (4, 1))), {}, "D=3 must be even"),
    ("rope", tuple(make(s, "float32") for s in ((1, 4, 1, 4), (5, 2), (5, 2))), {}, r"found \[5, 2\]"),
    ("swiglu", tuple(make(s, "float32") for s in ((4, 8), (4, 9))), {}, r"gate is \[4, 8\] but up is \[4, 9\]"),
    ("swiglu", tuple(make(s, "float32") for s in ((4, 8), (4, 8))), {"act": "relu"}, "act='relu' is not one of"),
    ("mamba", _mamba(S=3), {}, r"for u of \[1, 4, 8\], found \[1, 4, 8\], \[4, 3\]"),
    ("mamba", _mamba(T=9), {}, r"for u of \[1, 4, 9\]"),
    ("mamba", _mamba(), {"INPUT_ENGINE": "tensor"}, "engine 'tensor' is not one of"),
    ("adam", _four((4, 8), (4, 8), (4, 8), (8, 4)), {}, "must have one shape"),
    ("adam", _four((4, 8), (4, 8), (4, 8), (4, 8)), {"step": 0}, "step=0 must be at least 1"),
]


@pytest.mark.parametrize(("name", "arrays", "options", "message"), REFUSALS)
def test_refuses_with_a_reason(name, arrays, options, message):
    with pytest.raises(AssertionError, match=message):
        nki.simulate(getattr(MODULES[name], name))(*arrays, **options)
