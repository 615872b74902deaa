"""Programs shared by threads compute the same bits whatever the number of threads and however they are scheduled."""

from __future__ import annotations

import importlib
import itertools
import random

import numpy as np
import pytest
from team_testing import SCHEDULES, Trial, every_program_has_a_team, flags

import nkilite.isa as nisa
import nkilite.language as nl
from kernels import GALLERY, Case
from nkilite.native.walker import MEET, SPLIT
from nkilite.testing import make

PARTS = (2, 3, 5, 8)
MODULES = {name: importlib.import_module(f"kernels.{name}") for name in GALLERY}


@pytest.fixture(autouse=True)
def _team(monkeypatch):
    every_program_has_a_team(monkeypatch)
    monkeypatch.setenv("NKILITE_NUM_THREADS", "1")


def _describe(value) -> str:
    if isinstance(value, Case):
        return "-".join([*(f"{k}{v}" for k, v in value.shape.items()), value.dtype, *map(str, value.options)])
    return str(value)


@pytest.mark.parametrize(
    ("name", "case"), [(n, c) for n in GALLERY for c in MODULES[n].CASES], ids=_describe
)
def test_gallery(name, case, monkeypatch):
    arrays = MODULES[name].inputs(dtype=case.dtype, seed=1, **case.shape)
    trial = Trial(getattr(MODULES[name], name), *arrays, **case.options)
    for parts, schedule in zip(PARTS, itertools.cycle(SCHEDULES)):
        assert trial.loops or trial.slowly(parts, schedule), (parts, schedule)
        assert trial.threaded(parts, monkeypatch), parts


def test_a_missing_meeting_shows():
    arrays = MODULES["matmul"].inputs(M=256, N=512, K=256)
    trial = Trial(MODULES["matmul"].matmul, *arrays)
    assert (flags(trial.executable) & SPLIT).any()
    assert trial.slowly(2, "last part first")
    assert not trial.slowly(2, "last part first", meet=False)


def test_matmuls_and_what_takes_their_sums_away_follow_each_other():
    """Threads have the same columns of all of them; one meeting separates them from the loads before."""
    arrays = MODULES["matmul"].inputs(M=256, N=1024, K=512)
    lowered = Trial(MODULES["matmul"].matmul, *arrays, TILES_IN_BLOCK_K=2).executable.image.lowered
    numbers = lowered.table[lowered.entries]
    matmuls = np.array(["nc_matmul" in lowered.sources[i].name for i in numbers])
    meet = np.array([flag & MEET != 0 for flag in lowered.table[lowered.entries + 1] >> 32])
    assert matmuls.sum() == 8
    assert not meet[1:][matmuls[1:] & matmuls[:-1]].any()
    assert meet[1:][matmuls[1:] & ~matmuls[:-1]].all()


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_tiles_in_panels_that_elementwise_instructions_write(dtype, monkeypatch):
    """On their own and after matmuls; threads have strips of columns, which the next matmul needs all of."""

    def kernel(x, w):
        tiles = []
        for source in (x, w):
            rows = nl.ndarray(source.shape, dtype=source.dtype, buffer=nl.sbuf)
            nisa.dma_copy(rows, source)
            tile = nl.ndarray(source.shape, dtype=source.dtype, buffer=nl.sbuf)
            psum = nl.ndarray(source.shape, dtype=nl.float32, buffer=nl.psum)
            nisa.tensor_copy(psum, rows)
            nisa.tensor_scalar(tile, psum, nl.multiply, 0.5)
            tiles.append(tile)
        for _ in range(2):
            sums = nl.ndarray(x.shape, dtype=nl.float32, buffer=nl.psum)
            nisa.nc_matmul(sums, tiles[1], tiles[0])
            nisa.activation(tiles[0], nl.tanh, sums)
        result = nl.ndarray(x.shape, dtype=nl.float32, buffer=nl.sbuf)
        last = nl.ndarray(x.shape, dtype=nl.float32, buffer=nl.psum)
        nisa.nc_matmul(last, tiles[1], tiles[0])
        nisa.tensor_copy(result, last)
        out = nl.ndarray(x.shape, dtype=nl.float32, buffer=nl.shared_hbm)
        nisa.dma_copy(out, result)
        return out

    trial = Trial(kernel, make((128, 352), dtype, 1), make((128, 128), dtype, 2))
    for parts in PARTS:
        for schedule in SCHEDULES:
            assert trial.slowly(parts, schedule), (parts, schedule)
        assert trial.threaded(parts, monkeypatch), parts


# --- random programs ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_threads_keep_their_rows_of_attention(dtype):
    """From Q K^T to the product with V; they only meet where these have come, and tiles for others begin."""
    arrays = MODULES["flash_attention"].inputs(dtype, heads=1, kv_heads=1, S_q=512, S_k=2048, D=128)
    trial = Trial(MODULES["flash_attention"].flash_attention, *arrays)
    meet = flags(trial.executable) & MEET != 0
    assert 16 * meet.sum() < len(meet), meet.sum()
    assert trial.slowly(3, "last part first")


def _random_kernel(seed: int):
    """Moves between tiles that alias, in rows and across rows, whole and in part; sums, products, transposes."""

    def kernel(x, w):
        draw = random.Random(seed)
        rows, columns = x.shape
        out = nl.ndarray((3 * rows, columns), dtype=nl.float32, buffer=nl.shared_hbm)
        scratch = nl.ndarray((rows, columns), dtype=nl.float32, buffer=nl.private_hbm)
        if draw.random() < 0.5:
            step = draw.choice([0, columns * 2, columns * 4])
            tiles = [nl.ndarray((rows, columns), dtype=nl.float32, buffer=nl.sbuf, address=(0, i * step))
                     for i in range(4)]
        else:
            tiles = [nl.ndarray((rows, columns), dtype=nl.float32, buffer=nl.sbuf) for _ in range(4)]
        weight = nl.ndarray((rows, rows), dtype=nl.float32, buffer=nl.sbuf, address=(0, 16 * columns))
        nisa.dma_copy(weight, w)
        nisa.dma_copy(scratch, x)
        for tile in tiles:
            nisa.dma_copy(tile, x)
        for _ in range(draw.randrange(5, 25)):
            a, b, c = (draw.choice(tiles) for _ in range(3))
            half = draw.randrange(2)
            left = slice(half * columns // 2, (half + 1) * columns // 2)
            top, bottom = (slice(h * (rows // 2), (h + 1) * (rows // 2)) for h in (half, 1 - half))
            match draw.randrange(9):
                case 0:
                    nisa.tensor_tensor(a, b, c, nl.add)
                case 1:
                    nisa.tensor_scalar(a[:, left], b[:, left], nl.multiply, 0.5)
                case 2:
                    nisa.dma_copy(a[top], b[bottom])
                case 3:
                    psum = nl.ndarray((rows, columns), dtype=nl.float32, buffer=nl.psum)
                    nisa.nc_matmul(psum, weight, a)
                    nisa.nc_matmul(psum, weight, b, accumulate=True)
                    nisa.tensor_copy(c, psum)
                case 4:
                    column = nl.ndarray((rows, 1), dtype=nl.float32, buffer=nl.sbuf)
                    nisa.tensor_reduce(column, nl.maximum, a, axis=1)
                    nisa.tensor_scalar(b, c, nl.subtract, column)
                case 5:
                    nisa.dma_copy(scratch[top], a[top])
                case 6:
                    nisa.dma_copy(a, scratch)
                case 7:
                    part = draw.randrange(3)
                    nisa.dma_copy(out[part * rows : (part + 1) * rows], a)
                case 8:
                    nisa.activation(a[: rows // 2], nl.tanh, b[: rows // 2])  # engines start at 0, 32, 64 and 96
        for i, tile in enumerate(tiles[:3]):
            nisa.dma_copy(out[i * rows : (i + 1) * rows], tile)
        return out

    return kernel


@pytest.mark.parametrize("fuse", ["0", "1"])
@pytest.mark.parametrize("seed", range(24))
def test_random_programs(seed, fuse, monkeypatch):
    monkeypatch.setenv("NKILITE_FUSE", fuse)
    draw = np.random.default_rng(seed)
    rows, columns = [(128, 512), (64, 96), (128, 200), (33, 129)][seed % 4]
    x = draw.standard_normal((rows, columns)).astype(np.float32)
    w = draw.standard_normal((rows, rows)).astype(np.float32) / rows
    trial = Trial(_random_kernel(seed), x, w)
    for parts in PARTS:
        for schedule in SCHEDULES:
            assert trial.slowly(parts, schedule), (parts, schedule)
        assert trial.threaded(parts, monkeypatch), parts


@pytest.mark.parametrize("grouped", [False, True])
@pytest.mark.parametrize("columns", [128, 57, 16])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_transposes_split(columns, dtype, grouped):
    """By rows of what they write on chip, by a few lines of what a group of them reads from HBM."""

    def kernel(x):
        out = nl.ndarray(x.shape[::-1], dtype=x.dtype, buffer=nl.shared_hbm)
        tile = nl.ndarray(x.shape, dtype=x.dtype, buffer=nl.sbuf)
        turned = nl.ndarray(x.shape[::-1], dtype=x.dtype, buffer=nl.psum)
        nisa.dma_copy(tile, x)
        if not grouped:
            nisa.tensor_scalar(dst=tile, data=tile, op0=nl.multiply, operand0=1.0)
        nisa.nc_transpose(turned, tile, engine=nisa.engine.tensor)
        result = nl.ndarray(x.shape[::-1], dtype=x.dtype, buffer=nl.sbuf)
        if grouped:
            nisa.tensor_copy(result, turned)
        else:
            nisa.tensor_scalar(dst=result, data=turned, op0=nl.multiply, operand0=1.0)
        nisa.dma_copy(out, result)
        return out

    x = make((100, columns), dtype, 3)
    trial = Trial(kernel, x)
    entries = trial.executable.image.lowered.firsts
    turns = 0 if grouped else list(entries).index(2)
    unit = 128 // np.dtype(x.dtype).itemsize if grouped else 16
    assert bool(flags(trial.executable)[turns] & SPLIT) == (columns > unit)
    assert trial.expected[-1] == np.ascontiguousarray(np.asarray(x).T).tobytes()
    for parts in PARTS:
        for schedule in SCHEDULES:
            assert trial.slowly(parts, schedule), (parts, schedule)
