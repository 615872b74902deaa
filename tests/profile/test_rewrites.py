"""What the `compiler` order may change in the program: where open copies run, where broadcasts are read, who turns
tiles over, which memory a content has, and who makes descriptors."""

from __future__ import annotations

import numpy as np
import pytest

import nkilite as nki
import nkilite.isa as nisa
import nkilite.language as nl
from nkilite import beta1
from nkilite.beta1 import isa as beta1_nisa
from nkilite.beta1 import language as beta1_nl
from nkilite.ir.types import MemoryRegion
from nkilite.profiling.benchmark import benchmark

X = np.zeros((1, 512), np.float32)


def copies(x, engine):
    out = nl.ndarray((128, 512), dtype=x.dtype, buffer=nl.shared_hbm)
    a, b = (nl.ndarray((128, 512), dtype=x.dtype, buffer=nl.sbuf) for _ in range(2))
    nisa.memset(dst=a, value=0.0)
    for _ in range(10):
        nisa.tensor_copy(dst=b, src=a, engine=engine)
        nisa.tensor_copy(dst=a, src=b, engine=engine)
    nisa.dma_copy(dst=out, src=a)
    return out


def shares(engine, target: str, order: str = "compiler") -> dict[str, int]:
    engines = nki.profile(copies, X, engine, target=target, order=order).engines
    return {name: engines[name].instructions for name in ("Vector", "Scalar")}


def test_open_copies_are_shared_by_vector_and_scalar() -> None:
    found = shares(nisa.engine.unknown, "trn2")
    assert found["Vector"] + found["Scalar"] == 21
    assert min(found.values()) >= 8


def test_a_chosen_engine_is_kept_and_so_is_program_order() -> None:
    assert shares(nisa.engine.vector, "trn2") == {"Vector": 21, "Scalar": 0}
    assert shares(nisa.engine.unknown, "trn2", "program") == {"Vector": 21, "Scalar": 0}
    assert shares(nisa.engine.unknown, "trn1") == {"Vector": 21, "Scalar": 0}  # no tensor_copy on its Scalar Engine


@beta1.jit
def scaled(x, op):
    out = beta1_nl.ndarray(x.shape, dtype=x.dtype, buffer=beta1_nl.shared_hbm)
    tile = beta1_nl.load(x)
    total = beta1_nl.copy(tile)
    for i in range(6):
        total = beta1_nl.add(total, op(tile, 2.0 + i))
    beta1_nl.store(out, total)
    return out


@pytest.mark.parametrize("target", ["trn1", "trn2"])
def test_products_with_numbers_are_activations_where_a_compiler_chooses(target) -> None:
    x = np.empty((128, 512), np.float32)

    def counts(op, order="compiler"):
        engines = nki.profile(scaled, x, op, target=target, order=order).engines
        return engines["Vector"].instructions, engines["Scalar"].instructions

    vector, scalar = counts(beta1_nl.multiply)
    assert vector + scalar == 13
    assert scalar >= 4
    assert counts(beta1_nl.maximum)[1] <= 1  # but for the copy
    assert counts(beta1_nl.multiply, "program")[1] == 0


def broadcast(x, columns, keep):
    out = nl.ndarray((128, 512), dtype=x.dtype, buffer=nl.shared_hbm)
    row = nl.load(x)
    wide = nl.broadcast_to(row[:, :columns], (128, columns))
    result = nl.ndarray((128, columns), dtype=x.dtype, buffer=nl.sbuf)
    nisa.tensor_tensor(dst=result, data1=result_of(columns), data2=wide, op=nl.add)
    nisa.dma_copy(dst=out[:, :columns], src=wide if keep else result)
    return out


def result_of(columns):
    tile = nl.ndarray((128, columns), dtype=nl.float32, buffer=nl.sbuf)
    nisa.memset(dst=tile, value=1.0)
    return tile


def region_of_sum(keep: bool) -> MemoryRegion:
    program = nki.profile(broadcast, X, 512, keep, target="trn1").program
    return next(i.signature for i in program if i.signature.name == "tensor_tensor").arguments["data2"].region


def test_a_broadcast_is_read_from_psum_where_every_consumer_can() -> None:
    assert region_of_sum(keep=False) is MemoryRegion.psum
    assert region_of_sum(keep=True) is MemoryRegion.sbuf  # DMA does not reach PSUM


def test_program_order_times_the_program_as_written() -> None:
    kinds = {}
    for order in ("program", "compiler"):
        program = nki.profile(broadcast, X, 512, False, target="trn1", order=order).program
        kinds[order] = [i.signature.name for i in program]
    assert kinds["program"].count("activation") == 1
    assert kinds["compiler"].count("activation") == 0


def invariant(x, repeats, stored):
    out = nl.ndarray((128, 512), dtype=x.dtype, buffer=nl.shared_hbm)
    a, total = result_of(512), result_of(512)
    for i in range(repeats):
        doubled = nl.ndarray((128, 512), dtype=x.dtype, buffer=nl.sbuf)
        nisa.tensor_scalar(dst=doubled, data=a, op0=nl.multiply, operand0=2.0, name="doubled")
        nisa.tensor_tensor(dst=total, data1=total, data2=doubled, op=nl.add)
        if stored:
            nisa.dma_copy(dst=out, src=doubled)
        if i == repeats // 2 and stored is None:
            nisa.memset(dst=a, value=3.0)
    nisa.dma_copy(dst=out, src=total)
    return out


def doubled(repeats: int, stored: bool | None, order: str = "compiler") -> int:
    names = nki.profile(invariant, X, repeats, stored, target="trn2", order=order).program.names
    return list(names.values()).count("doubled")


def test_what_is_computed_again_from_the_same_values_is_computed_once() -> None:
    assert doubled(6, stored=False) == 1
    assert doubled(6, stored=None) == 2  # its input changes half-way
    assert doubled(6, stored=True) == 6  # results that leave the chip are kept apart
    assert doubled(6, stored=False, order="program") == 6


# --- tiles that are turned over ---------------------------------------------------------------------------------------


@beta1.jit
def flipped(x, loads, stores):
    rows, columns = x.shape
    shape = (rows, columns) if stores else (columns, rows)
    out = beta1_nl.ndarray(shape, dtype=x.dtype, buffer=beta1_nl.shared_hbm)
    for first in range(0, columns, 128):
        width = min(128, columns - first)
        if loads:
            tile = beta1_nl.load_transpose2d(x[:, first:first + width])
        else:
            tile = beta1_nl.ndarray((width, rows), dtype=x.dtype, buffer=beta1_nl.sbuf)
            tile[...] = 1.0
        if stores:
            p, f = beta1_nl.arange(width)[:, None], beta1_nl.arange(rows)[None, :]
            beta1_nl.store(out[f, first + p], tile)
        else:
            beta1_nl.store(out[first:first + width, :], tile)
    return out


@pytest.mark.parametrize(("loads", "stores"), [(True, False), (False, True), (True, True)])
@pytest.mark.parametrize("dtype", [np.float32, np.float16])
@pytest.mark.parametrize("shape", [(256, 200), (130, 130)])
def test_the_tensor_engine_turns_tiles_over_for_a_compiler(loads, stores, dtype, shape) -> None:
    x = np.empty(shape, dtype)
    found, plain = (nki.profile(flipped, x, loads, stores, target="trn1", order=o) for o in ("compiler", "program"))
    transposes = found.engines["Tensor"].instructions
    assert transposes == (loads + stores) * 2 * -(-shape[0] // 128)
    assert plain.engines["Tensor"].instructions == 0
    identity = 128 * 128 * x.itemsize
    assert found.hbm_read_bytes == plain.hbm_read_bytes + identity
    assert found.hbm_write_bytes == plain.hbm_write_bytes
    assert found.dma_utilization * found.latency_us < plain.dma_utilization * plain.latency_us / 4


# --- contents of tiles ------------------------------------------------------------------------------------------------


@beta1.compiler.skip_middle_end_transformations
@beta1.jit
def refilled(x, outside, partly):
    out = beta1_nl.ndarray(x.shape, dtype=x.dtype, buffer=beta1_nl.shared_hbm)
    tile = beta1_nl.ndarray((128, 512), dtype=x.dtype, buffer=beta1_nl.sbuf)
    result = beta1_nl.ndarray((128, 512), dtype=x.dtype, buffer=beta1_nl.sbuf)
    for i in range(x.shape[0] // 128):
        if not outside:
            tile = beta1_nl.ndarray((128, 512), dtype=x.dtype, buffer=beta1_nl.sbuf)
            result = beta1_nl.ndarray((128, 512), dtype=x.dtype, buffer=beta1_nl.sbuf)
        here, width = slice(128 * i, 128 * i + 128), 511 if partly and i else 512
        beta1_nisa.dma_copy(dst=tile[:, :width], src=x[here, :width])
        result[...] = beta1_nisa.activation(op=beta1_nl.exp, data=tile)
        beta1_nisa.dma_copy(dst=out[here], src=result)
    return out


def test_a_tile_that_is_filled_again_is_another_one() -> None:
    x = np.empty((20 * 128, 512), np.float32)
    one, many = (nki.profile(refilled, x, outside, False, target="trn2") for outside in (True, False))
    assert one.latency_us == many.latency_us
    assert len(one.program) == len(many.program)
    partly = nki.profile(refilled, x, True, True, target="trn2")  # what is left of the one before may be read
    in_order = nki.profile(refilled, x, True, False, target="trn2", order="program")
    assert min(partly.latency_us, in_order.latency_us) > 1.5 * one.latency_us


def test_kernels_of_later_dialects_run_as_written() -> None:
    @nki.jit
    def kernel(x):
        out = nl.ndarray(x.shape, dtype=x.dtype, buffer=nl.shared_hbm)
        tile = nl.ndarray((128, 512), dtype=x.dtype, buffer=nl.sbuf)
        for i in range(x.shape[0] // 128):
            nisa.dma_copy(dst=tile, src=x[128 * i:128 * i + 128])
            nisa.dma_copy(dst=out[128 * i:128 * i + 128], src=tile)
        return out

    found = nki.profile(kernel, np.empty((20 * 128, 512), np.float32), target="trn2")
    assert np.all(np.diff(found.timeline.start[::2]) > 1300)  # every load waits for the store before it


# --- descriptors ------------------------------------------------------------------------------------------------------


@nki.jit
def small_loads(x, mode):
    out = nl.ndarray((128, x.shape[1]), dtype=x.dtype, buffer=nl.shared_hbm)
    tile = nl.ndarray((128, x.shape[1]), dtype=x.dtype, buffer=nl.sbuf)
    for i in range(x.shape[1]):
        nisa.dma_copy(dst=tile[:, i:i + 1], src=x[:, i:i + 1], dge_mode=mode)
    nisa.dma_copy(dst=out, src=tile)
    return out


def test_the_compiler_makes_descriptors_if_it_is_told_to(capsys) -> None:
    x, unknown, hardware = np.empty((128, 200), np.float32), nisa.dge_mode.unknown, nisa.dge_mode.hwdge

    def latency(mode, **options):
        return nki.profile(small_loads, x, mode, target="trn2", **options).latency_us

    generated, ready = latency(unknown), latency(unknown, disable_dge=True)
    assert generated > 200 * 0.6 > 3 * (ready - 15)
    assert latency(nisa.dge_mode.none) == pytest.approx(ready, rel=0.05)
    assert latency(hardware, disable_dge=True) == latency(hardware)
    timed = benchmark(small_loads, additional_compile_opt="--verbose=35 --disable-dge")
    with nki.knobs.overridden_target("trn2"):
        timed(x, unknown)
    assert timed.benchmark_result.nc_latency.get_latency_percentile(50) == ready
    assert "modelled" in capsys.readouterr().out
