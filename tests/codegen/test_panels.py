"""Tiles in panels: what is put there, that every access sees the same values, and groups of matmuls that add up."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest

import nkilite as nki
import nkilite.isa as nisa
import nkilite.language as nl
from nkilite.host.cpu import Products, available
from nkilite.schedule.panels import Feed, panels
from nkilite.schedule.pipeline import scheduled

BF16, E5M2 = ml_dtypes.bfloat16, ml_dtypes.float8_e5m2
DTYPES = [np.float32, np.float16, BF16, E5M2]


@pytest.fixture(params=list(available()))
def level(request, monkeypatch):
    monkeypatch.setenv("NKILITE_CPU", request.param)
    return request.param


def integers(shape, dtype, seed=0) -> np.ndarray:
    """Small integers: products and sums are exact in every order."""
    return np.random.default_rng(seed).integers(-3, 4, shape).astype(dtype)


def passed(kernel, *arrays):
    """The schedule after all passes."""
    return scheduled(nki.jit(kernel).trace(*arrays))


def run_both(kernel, *arrays) -> np.ndarray:
    """The compiled result, which must be the simulated one bit by bit."""
    expected = np.asarray(nki.simulate(kernel)(*arrays))
    found = np.asarray(nki.jit(kernel)(*arrays))
    np.testing.assert_array_equal(found.astype(np.float32), expected.astype(np.float32))
    return found


def load(x, shape=None):
    tile = nl.ndarray(shape or x.shape, dtype=x.dtype, buffer=nl.sbuf)
    nisa.dma_copy(tile, x.reshape(tile.shape))
    return tile


def store(tile):
    if tile.buffer is nl.psum:
        moved = nl.ndarray(tile.shape, dtype=tile.dtype, buffer=nl.sbuf)
        nisa.tensor_copy(moved, tile)
        tile = moved
    out = nl.ndarray(tile.shape, dtype=tile.dtype, buffer=nl.shared_hbm)
    nisa.dma_copy(out, tile)
    return out


def product(stationary, moving, **options):
    dst = nl.ndarray((stationary.shape[1], moving.shape[1]), dtype=nl.float32, buffer=nl.psum)
    nisa.nc_matmul(dst, stationary, moving, **options)
    return dst


def plain(a, b):
    return store(product(load(a), load(b)))


def feeds(kernel, *arrays) -> list[Feed]:
    return list(passed(kernel, *arrays).panels.values())


# --- inference ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("dtype", "rows", "expected"),
    [
        (np.float32, 128, [Feed.vectors, Feed.vectors]),
        (np.float16, 128, [Feed.vectors, Feed.vectors]),
        (BF16, 128, [Feed.stationary, Feed.moving]),
        (E5M2, 96, [Feed.stationary, Feed.moving]),
        (BF16, 100, [Feed.pairs, Feed.pairs]),
        (BF16, 99, [Feed.odd, Feed.odd]),
    ],
)
def test_operands_that_only_matmuls_read_are_put_in_panels(dtype, rows, expected):
    assert feeds(plain, integers((rows, 64), dtype), integers((rows, 96), dtype)) == expected


def test_a_tile_in_both_roles_has_no_order_for_the_tile_unit():
    def kernel(a):
        tile = load(a)
        return store(product(tile, tile))

    assert feeds(kernel, integers((64, 64), BF16)) == [Feed.pairs]
    assert panels(Feed.pairs, 64, Products.tiles) is None
    assert panels(Feed.pairs, 64, Products.pairs) == panels(Feed.moving, 64, Products.tiles)
    assert feeds(kernel, integers((64, 64), np.float32)) == [Feed.vectors]


def keeps(reason):
    """A kernel with an access that knows nothing of panels, or a tile they cannot hold."""

    def kernel(a, b):
        if reason == "address":
            tile = nl.ndarray(a.shape, dtype=a.dtype, buffer=nl.sbuf, address=(0, 0))
            first = nl.ndarray(a.shape, dtype=a.dtype, buffer=nl.sbuf, address=(0, 0))
            nisa.memset(first, 0.0)
            nisa.dma_copy(tile, a)
        else:
            tile = load(a)
        if reason == "address":
            return store(product(tile, load(b))), store(first)
        out = product(tile[:, 8:40] if reason == "between panels" else tile, load(b))
        if reason == "read":
            copy = nl.ndarray(a.shape, dtype=a.dtype, buffer=nl.sbuf)
            nisa.tensor_copy(copy, tile)
            return store(out), store(copy)
        if reason == "written":
            nisa.tensor_scalar(dst=tile, data=tile, op0=nl.add, operand0=1.0)
            return store(out), store(product(tile, load(b)))
        return store(out), store(out)

    return kernel


@pytest.mark.parametrize("reason", ["address", "between panels", "read", "written"])
@pytest.mark.parametrize("dtype", [np.float32, BF16])
def test_other_accesses_keep_a_tile_in_rows(level, reason, dtype):
    a, b = integers((64, 64), dtype), integers((64, 48), dtype, 1)
    kernel = keeps(reason)
    schedule = passed(kernel, a, b)
    assert len(schedule.panels) == (2 if reason == "written" else 1)
    expected, found = nki.simulate(kernel)(a, b), nki.jit(kernel)(a, b)
    for left, right in zip(found, expected, strict=True):
        np.testing.assert_array_equal(left.astype(np.float32), right.astype(np.float32))


def test_an_operand_of_mixed_products_stays_in_rows():
    """The tile unit takes bfloat16 by bfloat16, not bfloat16 by float16."""

    def kernel(a, b, c):
        tile = load(a)
        return store(product(tile, load(b))), store(product(tile, load(c)))

    schedule = passed(kernel, integers((64, 64), BF16), integers((64, 64), BF16), integers((64, 64), np.float16))
    assert sorted(f.name for f in schedule.panels.values()) == ["moving", "vectors"]


# --- values -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", DTYPES, ids=lambda d: np.dtype(d).name)
@pytest.mark.parametrize(
    "shape",
    [
        (128, 128, 512), (32, 16, 16), (64, 200, 100), (128, 1, 512), (96, 33, 7), (128, 128, 1), (17, 30, 50),
        (18, 40, 33),
    ],
    ids=str,
)
def test_products(level, dtype, shape):
    k, m, n = shape
    a, b = integers((k, m), dtype), integers((k, n), dtype, 1)
    if m > 128:
        a = a[:, :128]
    found = run_both(plain, a, b)
    np.testing.assert_array_equal(found, a.astype(np.float64).T @ b.astype(np.float64))


@pytest.mark.parametrize("left", DTYPES[1:], ids=lambda d: np.dtype(d).name)
@pytest.mark.parametrize("right", DTYPES[1:], ids=lambda d: np.dtype(d).name)
def test_mixed_dtypes(level, left, right):
    run_both(plain, integers((64, 40), left), integers((64, 70), right, 1))


@pytest.mark.parametrize("dtype", [np.float32, BF16], ids=lambda d: np.dtype(d).name)
def test_slices_of_stacked_tiles(level, dtype):
    """[128, n, W] tiles filled by one DMA and read in slices that begin with a panel."""

    def kernel(a, b):
        stack = nl.ndarray((128, 3, 64), dtype=a.dtype, buffer=nl.sbuf)
        nisa.dma_copy(stack, a.reshape_dim(0, (3, 128)).permute((1, 0, 2)))
        other = nl.ndarray((128, 3, 96), dtype=b.dtype, buffer=nl.sbuf)
        nisa.dma_copy(other, b.reshape_dim(0, (3, 128)).permute((1, 0, 2)))
        dst = nl.ndarray((32, 80), dtype=nl.float32, buffer=nl.psum)
        for i in range(3):
            nisa.nc_matmul(dst, stack[:, i, 16:48], other[:, i, 16:96], accumulate=i > 0)
        return store(dst)

    a, b = integers((384, 64), dtype), integers((384, 96), dtype, 1)
    schedule = passed(kernel, a, b)
    assert len(schedule.panels) == 2
    assert [len(g.tree.terms) for g in schedule.groups if g.tree.terms] == [3]
    found = run_both(kernel, a, b)
    np.testing.assert_array_equal(found, (a.astype(np.float64).T @ b.astype(np.float64))[16:48, 16:])


@pytest.mark.parametrize("dtype", [np.float32, np.float16, BF16], ids=lambda d: np.dtype(d).name)
def test_tiles_filled_piece_by_piece(level, dtype):
    """By partitions, by columns, from another shape, transposed, and on chip with rounding."""

    def kernel(a, b, wide):
        tile = nl.ndarray((64, 96), dtype=a.dtype, buffer=nl.sbuf)
        nisa.dma_copy(tile[0:32, 0:48], a[0:32, 0:48])
        nisa.dma_copy(tile[32:64, 0:48], a[0:48, 32:64].permute((1, 0)))
        single = load(wide)
        nisa.tensor_copy(tile[:, 48:96], single[:, 0:48])
        other = nl.ndarray((64, 4, 32), dtype=b.dtype, buffer=nl.sbuf)
        nisa.dma_copy(other, b.reshape((64, 2, 64)))
        return store(product(tile, other.reshape((64, 128))))

    a, b = integers((64, 96), dtype), integers((64, 128), dtype, 1)
    wide = np.random.default_rng(2).normal(size=(64, 48)).astype(np.float32)
    schedule = passed(kernel, a, b, wide)
    assert len(schedule.panels) == 2
    expected, found = np.asarray(nki.simulate(kernel)(a, b, wide)), np.asarray(nki.jit(kernel)(a, b, wide))
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("dtype", [np.float32, BF16], ids=lambda d: np.dtype(d).name)
def test_columns_beside_a_slice_do_not_matter(level, dtype):
    """The rest of a tile, and of its last panel, may hold anything."""

    def kernel(a, b):
        left, right = load(a), load(b)
        return store(product(left[:, 0:20], right[:, 32:67]))

    a, b = integers((32, 40), dtype), integers((32, 70), dtype, 1)
    a[:, 20:], b[:, :32], b[:, 67:] = np.nan, np.inf, np.nan
    found = run_both(kernel, a, b)
    np.testing.assert_array_equal(found, a[:, :20].astype(np.float64).T @ b[:, 32:67].astype(np.float64))


# --- written by elementwise instructions --------------------------------------------------------------------


def scaled(dst, x, scale):
    nisa.tensor_scalar(dst, x, nl.multiply, scale)


def rectified(dst, x, scale):
    nisa.activation(dst, nl.relu, x, scale=scale)


def moved(dst, x, scale):
    nisa.tensor_copy(dst, x)


def computed(write, dtype):
    """A product of two tiles that an elementwise instruction makes of what is in PSUM."""

    def kernel(a, b):
        scale = nl.ndarray((a.shape[0], 1), dtype=nl.float32, buffer=nl.sbuf)
        nisa.memset(scale, 3.0)
        tiles = []
        for x in (a, b):
            tile = nl.ndarray(x.shape, dtype=dtype, buffer=nl.sbuf)
            psum = nl.ndarray(x.shape, dtype=nl.float32, buffer=nl.psum)
            nisa.tensor_copy(psum, load(x))
            write(tile, psum, scale)
            tiles.append(tile)
        return store(product(*tiles))

    return kernel


@pytest.mark.parametrize("dtype", [nl.float32, nl.float16, nl.float8_e5m2], ids=str)
@pytest.mark.parametrize("shape", [(64, 40, 200), (48, 17, 70)], ids=str)
@pytest.mark.parametrize("write", [scaled, rectified, moved], ids=lambda f: f.__name__)
def test_elementwise_instructions_write_panels(level, write, dtype, shape):
    k, m, n = shape
    a, b = integers((k, m), np.float32), integers((k, n), np.float32, 1)
    kernel = computed(write, dtype)
    assert len(passed(kernel, a, b).panels) == 2
    run_both(kernel, a, b)


def test_what_elementwise_instructions_make_of_loads_stays_in_rows(level):
    """They go by rows with the loads."""

    def kernel(a, b):
        tile = nl.ndarray(a.shape, dtype=a.dtype, buffer=nl.sbuf)
        scaled(tile, load(a), 3.0)
        return store(product(tile, load(b)))

    a, b = integers((64, 64), np.float32), integers((64, 96), np.float32, 1)
    assert len(passed(kernel, a, b).panels) == 1
    run_both(kernel, a, b)


def layers(write, dtype, again=False):
    """A product of what `write` makes of a product, into a stack of tiles."""

    def kernel(a, b, c):
        left, right, third = load(a), load(b), load(c)
        scale = nl.ndarray((a.shape[1], 1), dtype=nl.float32, buffer=nl.sbuf)
        nisa.memset(scale, 1.0)
        hidden = nl.ndarray((a.shape[1], 2, b.shape[1]), dtype=dtype, buffer=nl.sbuf)
        for i in range(2):
            write(hidden[:, i, :], product(left, right), scale)
        dst = nl.ndarray((b.shape[1], c.shape[1]), dtype=nl.float32, buffer=nl.psum)
        for i in range(2):
            nisa.nc_matmul(dst, hidden[:, i, :], third, accumulate=i > 0)
        if again:
            write(hidden[:, 0, :], dst, scale)
            return store(product(hidden[:, 0, :], third))
        return store(dst)

    return kernel


@pytest.mark.parametrize("dtype", [nl.float32, nl.bfloat16], ids=str)
@pytest.mark.parametrize("width", [32, 112])
@pytest.mark.parametrize("write", [scaled, moved], ids=lambda f: f.__name__)
def test_an_epilogue_writes_packed_tiles(level, write, width, dtype, monkeypatch):
    monkeypatch.setenv("NKILITE_NUM_THREADS", "3")
    source = np.float32 if dtype is nl.float32 else BF16
    a, b, c = (integers((64, n), source, seed) // 2 for seed, n in enumerate((64, width, 80)))
    kernel = layers(write, dtype)
    schedule = passed(kernel, a, b, c)
    assert len(schedule.panels) == 4
    sizes = [(len(g.tree.terms), g.size) for g in schedule.groups if g.tree.terms]
    assert sizes == [(1, 2), (1, 2), (2, 3)]
    run_both(kernel, a, b, c)


@pytest.mark.parametrize("dtype", [np.float32, BF16], ids=lambda d: np.dtype(d).name)
def test_what_the_matmuls_read_is_not_written_before_they_are_done(level, dtype):
    kernel = layers(scaled, nl.float32 if dtype is np.float32 else nl.bfloat16, again=True)
    a, b, c = (integers((64, 64), dtype, seed) // 3 for seed in range(3))
    schedule = passed(kernel, a, b, c)
    sizes = [(len(g.tree.terms), g.size) for g in schedule.groups if g.tree.terms]
    assert len(schedule.panels) == 4 and sizes == [(1, 2), (1, 2), (2, 2), (1, 2)]
    run_both(kernel, a, b, c)


# --- groups -------------------------------------------------------------------------------------------------


def chain(flags, between=None, dst_slices=None):
    """Matmuls one after the other onto slices of one PSUM tile."""

    def kernel(a, b):
        lefts = [load(a[i]) for i in range(len(flags))]
        rights = [load(b[i]) for i in range(len(flags))]
        dst = nl.ndarray((64, 128), dtype=nl.float32, buffer=nl.psum)
        nisa.memset(dst, 1.0)
        seen = nl.ndarray((64, 128), dtype=nl.float32, buffer=nl.sbuf)
        nisa.memset(seen, 0.0)
        for i, flag in enumerate(flags):
            if i == between:
                nisa.tensor_copy(seen, dst)
            start = dst_slices[i] if dst_slices else 0
            nisa.nc_matmul(dst[:, start : start + 64], lefts[i], rights[i], accumulate=flag)
        both = nl.ndarray((64, 256), dtype=nl.float32, buffer=nl.sbuf)
        nisa.tensor_copy(both[:, 0:128], seen)
        nisa.tensor_copy(both[:, 128:256], dst)
        return store(both)

    return kernel


GROUPS = {
    "overwriting": (chain([False, True, True, True]), [4]),
    "adding": (chain([True, True, True]), [3]),
    "restarting": (chain([True, True, False, True, True, False]), [2, 3]),
    "long": (chain([False] + [True] * 10), [8, 3]),
    "read in between": (chain([False, True, True, True], between=2), [2, 2]),
    "moving on": (chain([False, True, False, True, True], dst_slices=[0, 0, 64, 64, 0]), [2, 2]),
    "overlapping": (chain([True, True, True, True], dst_slices=[0, 32, 32, 0]), [2]),
}


@pytest.mark.parametrize("dtype", [np.float32, np.float16, BF16], ids=lambda d: np.dtype(d).name)
@pytest.mark.parametrize("case", list(GROUPS))
def test_groups(level, case, dtype):
    kernel, sizes = GROUPS[case]
    a, b = integers((11, 96, 64), dtype), integers((11, 96, 64), dtype, 1)
    schedule = passed(kernel, a, b)
    found = [len(g.tree.terms) for g in schedule.groups if g.tree.terms and g.size > 1]
    assert found == sizes
    run_both(kernel, a, b)


@pytest.mark.parametrize("shape", [(128, 512), (33, 130), (16, 1), (100, 48)], ids=str)
@pytest.mark.parametrize("dtype", [np.float32, BF16], ids=lambda d: np.dtype(d).name)
def test_group_shapes(level, shape, dtype):
    m, n = shape

    def kernel(a, b):
        dst = nl.ndarray((m, n), dtype=nl.float32, buffer=nl.psum)
        for i in range(4):
            nisa.nc_matmul(dst, load(a[i]), load(b[i]), accumulate=i > 0)
        return store(dst)

    run_both(kernel, integers((4, 64, m), dtype), integers((4, 64, n), dtype, 1))


def test_loaded_between_matmuls_is_no_group_but_the_same_sum(level):
    """Loads between the matmuls keep them apart; a group has nothing else inside."""

    def kernel(a, b):
        lefts, rights = [load(a[i]) for i in range(3)], [load(b[i]) for i in range(3)]
        dst = nl.ndarray((64, 64), dtype=nl.float32, buffer=nl.psum)
        for i in range(3):
            if i == 2:
                nisa.dma_copy(rights[0], b[1])
            nisa.nc_matmul(dst, lefts[i], rights[0 if i == 2 else i], accumulate=i > 0)
        return store(dst)

    a, b = integers((3, 64, 64), BF16), integers((3, 64, 64), BF16, 1)
    assert [len(g.tree.terms) for g in passed(kernel, a, b).groups if g.tree.terms] == [2, 1]
    run_both(kernel, a, b)


@pytest.mark.parametrize("threads", ["1", "2", "3"])
@pytest.mark.parametrize("dtype", [np.float32, BF16], ids=lambda d: np.dtype(d).name)
def test_same_bits_on_any_number_of_threads(threads, dtype, monkeypatch):
    """Parts of a product are panels of columns, each summed in one order."""

    def kernel(a, b):
        stacks = []
        for x in (a, b):
            stack = nl.ndarray((128, 4, x.shape[1]), dtype=x.dtype, buffer=nl.sbuf)
            nisa.dma_copy(stack, x.reshape_dim(0, (4, 128)).permute((1, 0, 2)))
            stacks.append(stack)
        out = nl.ndarray((128, 512), dtype=nl.float32, buffer=nl.sbuf)
        for _ in range(4):
            dst = nl.ndarray((128, 512), dtype=nl.float32, buffer=nl.psum)
            for i in range(4):
                nisa.nc_matmul(dst, stacks[0][:, i, :], stacks[1][:, i, :], accumulate=i > 0)
            nisa.tensor_copy(out, dst)
        return store(out)

    rng = np.random.default_rng(0)
    a, b = (rng.normal(size=(512, n)).astype(dtype) for n in (128, 512))
    monkeypatch.setenv("NKILITE_NUM_THREADS", "1")
    alone = np.asarray(nki.jit(kernel)(a, b))
    monkeypatch.setenv("NKILITE_NUM_THREADS", threads)
    np.testing.assert_array_equal(np.asarray(nki.jit(kernel)(a, b)), alone)


# --- transposes on their way to panels --------------------------------------------------------------------------


def turned(chunks, order, spoil=""):
    """[c, n * r] tile of transposed chunks [r, c], made in an order, and other tiles to be seen."""
    rows, columns = chunks[0].shape
    bank = nl.ndarray((columns, len(chunks), rows), dtype=chunks[0].dtype, buffer=nl.psum)
    tile = nl.ndarray((columns, len(chunks) * rows), dtype=chunks[0].dtype, buffer=nl.sbuf)
    seen = [bank] if spoil == "read after" else []
    if spoil == "written before":
        nisa.memset(bank, 0.0)
    for i in order:
        nisa.nc_transpose(bank[:, i, :], chunks[i], engine=nisa.engine.tensor)
        if spoil == "interrupted" and i == order[0]:
            seen.append(nl.ndarray((32, 32), dtype=nl.float32, buffer=nl.sbuf))
            nisa.memset(seen[0], 0.0)
    nisa.tensor_copy(tile.reshape_dim(1, (len(chunks), rows)), bank)
    return tile, seen


def turning(role, order=(0, 1, 2), spoil=""):
    def kernel(x, y):
        data = load(x)
        rows = x.shape[1] // len(order)
        tile, seen = turned([data[:, i * rows:(i + 1) * rows] for i in range(len(order))], order, spoil)
        other = load(y)
        left, right = (tile[:, :min(128, tile.shape[1])], other) if role == "stationary" else (other, tile)
        results = [store(product(left, right))]
        for other in seen:
            copy = nl.ndarray(other.shape, dtype=other.dtype, buffer=nl.sbuf)
            nisa.tensor_copy(copy, other)
            results.append(store(copy))
        return results[0] if len(results) == 1 else tuple(results)

    return kernel


def transpositions(kernel, *arrays) -> list[int]:
    """Of every group of moves, its instructions."""
    return [g.size for g in passed(kernel, *arrays).groups if g.tree.moves]


@pytest.mark.parametrize("role", ["stationary", "moving"])
@pytest.mark.parametrize("dtype", [np.float32, np.float16, BF16], ids=lambda d: np.dtype(d).name)
@pytest.mark.parametrize("shape", [(32, 96), (16, 96), (128, 192), (48, 120), (32, 21)], ids=str)
def test_transposes_go_to_panels_at_once(level, role, dtype, shape):
    x, y = integers(shape, dtype), integers((shape[1] // 3, 64), dtype, 1)
    order = (2, 0, 1)
    assert transpositions(turning(role, order), x, y) == [5]
    run_both(turning(role, order), x, y)


@pytest.mark.parametrize("spoil", ["written before", "read after", "interrupted"])
def test_transposes_that_others_see_stay_in_psum(level, spoil):
    x, y = integers((32, 96), BF16), integers((32, 64), BF16, 1)
    kernel = turning("stationary", spoil=spoil)
    assert transpositions(turning("stationary"), x, y) == [5] and 5 not in transpositions(kernel, x, y)
    expected, found = nki.simulate(kernel)(x, y), nki.jit(kernel)(x, y)
    for left, right in zip(*(r if isinstance(r, tuple) else (r,) for r in (found, expected)), strict=True):
        np.testing.assert_array_equal(left.astype(np.float32), right.astype(np.float32))


def test_transposes_of_rows_that_fill_no_panel_stay_in_psum(level):
    x, y = integers((24, 96), np.float32), integers((32, 64), np.float32, 1)
    assert not transpositions(turning("stationary"), x, y)
    run_both(turning("stationary"), x, y)


def turned_by_dma(source):
    """A product of what dma_transpose writes, blocks of columns at a time, from HBM or from another tile."""

    def kernel(x, y):
        tile = nl.ndarray((x.shape[1], 2, x.shape[0] // 2), dtype=x.dtype, buffer=nl.sbuf)
        half = x.shape[0] // 2
        for i in range(2):
            rows = x[i * half : (i + 1) * half, :]
            nisa.dma_transpose(tile[:, i, :], load(rows) if source == "sbuf" else rows)
        dst = nl.ndarray((half, y.shape[1]), dtype=nl.float32, buffer=nl.psum)
        other = load(y)
        for i in range(2):
            nisa.nc_matmul(dst, tile[:, i, :], other, accumulate=i > 0)
        return store(dst)

    return kernel


@pytest.mark.parametrize("source", ["sbuf", "hbm"])
@pytest.mark.parametrize(
    ("dtype", "shape", "packed"),
    [
        (np.float32, (64, 128), True), (BF16, (256, 128), True), (BF16, (64, 96), True), (BF16, (32, 50), True),
        (BF16, (32, 51), True), (BF16, (48, 128), False),
    ],
    ids=str,
)
def test_dma_transposes_fill_panels(level, source, dtype, shape, packed):
    """Where blocks fill whole panels; then the matmuls of them are one group."""
    x, y = integers(shape, dtype), integers((shape[1], 64), dtype, 1)
    schedule = passed(turned_by_dma(source), x, y)
    assert (len(schedule.panels) == 2) == packed
    run_both(turned_by_dma(source), x, y)
