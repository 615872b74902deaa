"""The matrix-product micro-kernel: its size, what it is made of, and the register transposes beside it."""

from __future__ import annotations

import ctypes
import re

import llvmlite.binding as llvm
import ml_dtypes
import numpy as np
import pytest

import nkilite as nki
import nkilite.isa as nisa
import nkilite.language as nl
from nkilite.codegen import transpose
from nkilite.codegen.emitter import Emitter, Value
from nkilite.host.cpu import Products
from nkilite.machine.target import get_target
from nkilite.native.library import Source, library, module_text, target_machine
from nkilite.native.lower import lower
from nkilite.passes.pipeline import run_passes, run_pipeline
from nkilite.schedule.eliminate_dead_code import EliminateDeadCode
from nkilite.schedule.pipeline import PIPELINE
from nkilite.schedule.place import place
from nkilite.schedule.schedule import Schedule
from nkilite.schedule.verifier import verify_schedule
from nkilite.trace import active
from nkilite.trace.builder import TraceBuilder


def micro_kernel(host, k: int, m: int, n: int, dtype: str = "float32", **options):
    """The source of the nc_matmul of one shape."""
    builder = TraceBuilder("one", get_target("trn2"))
    with active.activate(builder):
        left = nl.ndarray((k, m), dtype, buffer=nl.sbuf)
        right = nl.ndarray((k, n), dtype, buffer=nl.sbuf)
        nisa.memset(left, 0)
        nisa.memset(right, 0)
        nisa.nc_matmul(nl.ndarray((m, n), nl.float32, buffer=nl.psum), left, right, **options)
    builder.close()
    kept = [kind for kind in PIPELINE if kind is not EliminateDeadCode]  # nobody reads the product
    schedule = run_passes(kept, Schedule(run_pipeline(builder.program)), verify_schedule, None)
    (source,) = (s for s in lower(schedule, place(schedule), host).sources if s.name.startswith("nc_matmul"))
    return source


def assembly(host, source) -> str:
    module = llvm.parse_assembly(module_text([source]))
    module.verify()
    return target_machine(host).emit_assembly(module)


def inner_loop(text: str) -> list[str]:
    """The instructions of the loop body with the most multiply-adds."""
    blocks = re.split(r"^(?:\S+:|[ \t]+(?:j\w+|b|b\.\w+|cbn?z)\b).*$", text, flags=re.MULTILINE)
    block = max(blocks, key=lambda b: len(re.findall(r"\s(vfmadd|vmulps|mulps|fmla)", b)))
    return [
        line.strip()
        for line in block.splitlines()
        if line.strip() and not line.strip().startswith((".", "#"))
    ]


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float8_e5m2"])
def test_nothing_is_called(cpu, dtype):
    text = assembly(cpu, micro_kernel(cpu, 96, 100, 77, dtype))
    assert not re.search(r"^\s+(call\w*|bl)\s", text, re.MULTILINE)


@pytest.mark.parametrize(
    ("dtype", "shape", "exact"),
    [
        ("bfloat16", (128, 128, 512), True),
        ("float8_e4m3", (128, 20, 33), True),
        ("float16", (128, 128, 512), False),
        ("float32", (128, 128, 512), False),
        ("bfloat16", (128, 128, 1), True),
        ("bfloat16", (1, 3, 2), True),
    ],
)
def test_tile_unit_and_dot_products_take_what_bfloat16_represents(cpu, dtype, shape, exact):
    text = assembly(cpu, micro_kernel(cpu, *shape, dtype))
    tiles, pairs = (cpu.products is products and exact for products in (Products.tiles, Products.pairs))
    assert ("tdpbf16ps" in text) == tiles
    assert text.count("ldtilecfg") == text.count("tilerelease") == tiles
    assert ("vdpbf16ps" in text) == pairs


SIDES = (1, 2, 3, 4, 5, 7, 8, 9, 16, 17, 128)


def products(left, right, turn):
    """In a kernel: sums of two products of many shapes, one onto a view with gaps."""
    terms, k, _ = left.shape
    results = []
    for number, m in enumerate(SIDES):
        n = SIDES[(4 * number + turn) % len(SIDES)]
        pairs = []
        for term in range(terms):
            pairs.append((nl.ndarray((k, m), left.dtype, nl.sbuf), nl.ndarray((k, n), right.dtype, nl.sbuf)))
            nisa.dma_copy(pairs[term][0], left[term, :, :m])
            nisa.dma_copy(pairs[term][1], right[term, :, :n])
        gap = n % 2 == 0 and m < 9
        sums = nl.ndarray((m, 2, n // 2 + 1) if gap else (m, n), nl.float32, nl.psum)
        view = sums[:, :, : n // 2] if gap else sums
        for term, (a, b) in enumerate(pairs):
            nisa.nc_matmul(view, a, b, accumulate=term > 0)
        result = nl.ndarray(view.shape, nl.float32, nl.sbuf)
        nisa.tensor_copy(result, view)
        results.append(nl.ndarray(view.shape, nl.float32, nl.shared_hbm))
        nisa.dma_copy(results[-1], result)
    return tuple(results)


@pytest.mark.parametrize(("k", "turn"), [(1, 5), (2, 6), (31, 1), (127, 2), (128, 3), (128, 4)])
def test_bits_do_not_depend_on_how_it_is_compiled(cpu, k, turn, monkeypatch):
    """Nor do the sums of matmuls that are grouped differ from those of single ones, whatever tiles are cut."""
    if cpu.products is Products.vectors:
        pytest.skip("such a CPU multiplies all dtypes in one way")
    draw = np.random.default_rng(k)
    left, right = (draw.standard_normal((2, k, 128)).astype(ml_dtypes.bfloat16) for _ in range(2))
    monkeypatch.setenv("NKILITE_CPU", cpu.level)
    found = []
    for optimize, fuse in (("always", "1"), ("always", "0"), ("never", "1")):
        monkeypatch.setenv("NKILITE_OPTIMIZE", optimize)
        monkeypatch.setenv("NKILITE_FUSE", fuse)
        found.append([result.view(np.uint32) for result in nki.jit(products)(left, right, turn)])
    for other in found[1:]:
        for one, another in zip(found[0], other, strict=True):
            np.testing.assert_array_equal(one, another)


def test_code_size_does_not_depend_on_the_contraction(cpu):
    sizes = {len(micro_kernel(cpu, k, 128, 512).text.splitlines()) for k in (2, 64, 128)}
    assert len(sizes) == 1


def test_code_stays_small(cpu):
    """Compile time follows the number of IR lines; an odd shape has four block variants instead of one."""
    assert len(micro_kernel(cpu, 128, 120, 512).text.splitlines()) < 280
    assert len(micro_kernel(cpu, 128, 127, 511).text.splitlines()) < 900


def test_sums_stay_in_registers(cpu):
    body = inner_loop(assembly(cpu, micro_kernel(cpu, 128, 120, 512)))
    stores = [line for line in body if re.match(r"v?mov[au]ps\s+%[xyz]mm\d+, .*\(", line)]
    assert not stores, stores


def test_micro_kernel_uses_the_widest_vectors(cpu):
    register = {512: "zmm", 256: "ymm", 128: "xmm"}[cpu.vector_bits] if cpu.level != "neon" else "v"
    block = {"amx": 24, "avx512_bf16": 24, "avx512": 24, "avx2": 12, "vector128": 8, "neon": 24}[cpu.level]
    body = inner_loop(assembly(cpu, micro_kernel(cpu, 128, 120, 512)))
    products = [line for line in body if re.match(r"(vfmadd|v?mulps|fmla)", line)]
    assert len(products) == block
    assert all(register in line for line in products)


@pytest.mark.parametrize(("scalar", "numpy"), [("float", np.float32), ("i16", np.uint16), ("i8", np.uint8)])
@pytest.mark.parametrize("side", [1, 2, 4, 8, 16])
def test_register_transpose(cpu, scalar, numpy, side):
    e = Emitter(cpu)
    size = np.dtype(numpy).itemsize
    source, target = Value("%source", "ptr"), Value("%target", "ptr")
    rows = [e.load(scalar, e.offset(source, i * side * size), side) for i in range(side)]
    for i, column in enumerate(transpose.registers(e, rows)):
        e.store(column, e.offset(target, i * side * size))
    e.ret(0)
    name = f"transpose_{scalar}_{side}"
    text = f"define i32 @{name}(ptr %source, ptr %target) {{\nentry:\n{e.body()}\n}}\n"
    address = library(cpu).addresses([Source(name, text, tuple(e.declarations.values()))])[name]
    values = np.arange(side * side, dtype=numpy).reshape(side, side)
    result = np.zeros_like(values)
    ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p)(address)(
        values.ctypes.data, result.ctypes.data
    )
    np.testing.assert_array_equal(result, values.T)
