"""accumulate=None, and reads of memory nothing has written: the same answers when simulated and when compiled."""

from __future__ import annotations

import inspect
import warnings

import numpy as np
import pytest

import nkilite as nki
import nkilite.isa as nisa
import nkilite.language as nl
from nkilite import notices
from nkilite.errors import AccumulateUninitialized, NkiError, UninitializedRead
from nkilite.ir.columns import BufferColumns
from nkilite.ir.coverage import PartlyUninitialized
from nkilite.ir.printer import print_program
from nkilite.passes import follow_writes, plain_writes

MODES = [pytest.param(lambda k: k, id="compiled"), pytest.param(nki.simulate, id="simulate")]
RNG = np.random.default_rng(0)
A = RNG.integers(-4, 5, (128, 64)).astype(np.float32)
B = RNG.integers(-4, 5, (128, 96)).astype(np.float32)


def load(array):
    tile = nl.ndarray(array.shape, dtype=array.dtype, buffer=nl.sbuf)
    nisa.dma_copy(dst=tile, src=array)
    return tile


def evict(psum):
    tile = nl.ndarray(psum.shape, dtype=nl.float32, buffer=nl.sbuf)
    nisa.tensor_copy(dst=tile, src=psum)
    out = nl.ndarray(psum.shape, dtype=nl.float32, buffer=nl.shared_hbm)
    nisa.dma_copy(dst=out, src=tile)
    return out


@pytest.mark.parametrize("mode", MODES)
def test_first_write_overwrites_later_ones_accumulate(mode) -> None:
    @nki.jit
    def kernel(a, b):
        sa, sb = load(a), load(b)
        acc = nl.ndarray((64, 96), dtype=nl.float32, buffer=nl.psum)
        for _ in range(3):
            nisa.nc_matmul(dst=acc, stationary=sa, moving=sb)
        return evict(acc)

    np.testing.assert_array_equal(mode(kernel)(A, B), 3 * (A.T @ B))


@pytest.mark.parametrize("mode", MODES)
def test_regions_of_a_tile_are_followed_separately(mode) -> None:
    @nki.jit
    def kernel(a, b):
        sa, sb = load(a), load(b)
        acc = nl.ndarray((64, 96), dtype=nl.float32, buffer=nl.psum)
        nisa.nc_matmul(dst=acc[:, 0:32], stationary=sa, moving=sb[:, 0:32])
        nisa.nc_matmul(dst=acc[:, 32:96], stationary=sa, moving=sb[:, 32:96])
        nisa.nc_matmul(dst=acc[:, 32:96], stationary=sa, moving=sb[:, 32:96])
        return evict(acc)

    expected = A.T @ B
    expected[:, 32:] *= 2
    np.testing.assert_array_equal(mode(kernel)(A, B), expected)


@pytest.mark.parametrize("mode", MODES)
def test_partly_written_region(mode) -> None:
    @nki.jit
    def kernel(a, b):
        sa, sb = load(a), load(b)
        acc = nl.ndarray((64, 96), dtype=nl.float32, buffer=nl.psum)
        nisa.nc_matmul(dst=acc[0:32, 16:48], stationary=sa[:, 0:32], moving=sb[:, 16:48])
        nisa.nc_matmul(dst=acc, stationary=sa, moving=sb)
        return evict(acc)

    expected = A.T @ B
    expected[0:32, 16:48] *= 2
    np.testing.assert_array_equal(mode(kernel)(A, B), expected)


@pytest.mark.parametrize("mode", MODES)
def test_a_new_tile_at_the_same_address_starts_anew(mode) -> None:
    @nki.jit
    def kernel(a, b):
        sa, sb = load(a), load(b)
        outs = []
        for _ in range(2):
            acc = nl.ndarray((64, 96), dtype=nl.float32, buffer=nl.psum, address=(0, 2048))
            nisa.nc_matmul(dst=acc, stationary=sa, moving=sb)
            outs.append(evict(acc))
        return outs

    for result in mode(kernel)(A, B):
        np.testing.assert_array_equal(result, A.T @ B)


@pytest.mark.parametrize("mode", MODES)
def test_read_of_never_written_tile(mode) -> None:
    @nki.jit
    def kernel(a):
        tile = nl.ndarray((128, 64), dtype=nl.float32, buffer=nl.sbuf, name="lost")
        out = nl.ndarray((128, 64), dtype=nl.float32, buffer=nl.shared_hbm)
        nisa.dma_copy(dst=out, src=tile)  # here
        return out

    with pytest.raises(UninitializedRead, match="lost") as error:
        mode(kernel)(A)
    assert error.value.location.source.endswith("# here")
    assert error.value.location.file == __file__


@pytest.mark.parametrize("mode", MODES)
def test_accumulate_true_needs_a_start(mode) -> None:
    @nki.jit
    def kernel(a, b):
        sa, sb = load(a), load(b)
        acc = nl.ndarray((64, 96), dtype=nl.float32, buffer=nl.psum)
        nisa.nc_matmul(dst=acc, stationary=sa, moving=sb, accumulate=True)
        return evict(acc)

    with pytest.raises(AccumulateUninitialized, match="accumulate=True") as error:
        mode(kernel)(A, B)
    first = inspect.getsourcelines(kernel.function)[1]
    assert error.value.location.line == first + 4


@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize("mode", MODES)
def test_padding_left_undefined_is_a_warning(mode) -> None:
    @nki.jit
    def kernel(a):
        tile = nl.ndarray((128, 64), dtype=nl.float32, buffer=nl.sbuf)
        nisa.dma_copy(dst=tile[:, 0:32], src=a[:, 0:32])
        other = nl.ndarray((128, 64), dtype=nl.float32, buffer=nl.sbuf)
        nisa.tensor_copy(dst=other, src=tile)
        out = nl.ndarray((128, 32), dtype=nl.float32, buffer=nl.shared_hbm)
        nisa.dma_copy(dst=out, src=other[:, 0:32])
        return out

    with pytest.warns(PartlyUninitialized, match="never written"):
        result = mode(kernel)(A)
    np.testing.assert_array_equal(result, A[:, :32])


# --- what is followed, and what is known at a glance ----------------------------------------------------------------


@nki.jit
def scrambled(a, b, seed):
    """Writes, sums and reads of whole tiles and of parts, again and again the same on some of them."""
    choose = np.random.default_rng(seed)
    sa, sb = load(a), load(b)
    out = nl.ndarray((64, 96), dtype=nl.float32, buffer=nl.shared_hbm)
    for _ in range(3):
        choices = choose.integers(0, 5, 5)
        for _ in range(int(choose.integers(1, 4))):
            acc = nl.ndarray((64, 96), dtype=nl.float32, buffer=nl.psum)
            tile = nl.ndarray((64, 96), dtype=nl.float32, buffer=nl.sbuf)

            def act(choice, low, high, acc=acc, tile=tile):
                if choice == 0:
                    nisa.nc_matmul(acc[:, low:high], sa, sb[:, low:high])
                elif choice == 1:
                    nisa.memset(acc[:, low:high], 1.0)
                elif choice == 2:
                    nisa.tensor_copy(tile[:, low:high], acc[:, low:high])
                elif choice == 3:
                    nisa.nc_matmul(acc, sa, sb, accumulate=bool(seed % 2))
                else:
                    nisa.tensor_copy(acc[:, low:high], tile[:, low:high])

            for i, choice in enumerate(choices.tolist()):
                if seed % 3 == 0 and i == 2:
                    nl.fori_loop(0, 2, lambda _, choice=choice: act(choice, 0, 96))
                else:
                    low = 32 * int(choose.integers(0, 3))
                    act(choice, *((0, 96) if i % 2 else (low, min(96, low + 32 * int(choose.integers(1, 4))))))
            nisa.dma_copy(out, tile)
    return out


def outcome(program) -> tuple[str, list[str]]:
    """The text after the pass, or its error, and what it warned of."""
    with warnings.catch_warnings(record=True) as given, pytest.MonkeyPatch.context() as patch:
        warnings.simplefilter("always")
        patch.setattr(notices, "_given", set())  # which are given once
        try:
            text = print_program(follow_writes.FollowWrites().run(program))
        except NkiError as error:
            text = str(error)
    return text, [str(w.message) for w in given]


@nki.jit
def in_pieces(a, pieces):
    tile = nl.ndarray((128, 64), dtype=nl.float32, buffer=nl.sbuf)
    for low, high, step in pieces:
        nisa.dma_copy(dst=tile[:, low:high:step], src=a[:, low:high:step])
    other = nl.ndarray((128, 64), dtype=nl.float32, buffer=nl.sbuf)
    nisa.tensor_copy(dst=other, src=tile)
    nisa.memset(tile[:, 60:64], 0.0)  # too late
    out = nl.ndarray((128, 64), dtype=nl.float32, buffer=nl.shared_hbm)
    nisa.dma_copy(dst=out, src=other)
    return out


@pytest.mark.parametrize(
    ("pieces", "known"),
    [
        ([(0, 32, 1), (32, 64, 1)], True), ([(40, 64, 1), (0, 48, 1)], True), ([(0, 32, 1), (36, 64, 1)], False),
        ([(4, 64, 1)], False), ([(0, 60, 1)], False), ([(0, 64, 2), (1, 64, 2)], False),
    ],
)
def test_pieces_of_columns_that_are_the_whole_need_not_be_followed(pieces, known) -> None:
    program = in_pieces.trace(A, pieces)
    tile = next(b.id for b in program.buffers if b.region.on_chip)
    assert plain_writes.plain_writes(program).plain[tile] == known


@pytest.mark.parametrize("seed", range(60))
def test_following_everything_finds_the_same(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    def nothing_is_plain(program):
        found = plain_writes.plain_writes(program)
        held = ~BufferColumns.of(program).internal
        return found._replace(plain=held, asked=np.ones_like(held))

    quick = outcome(scrambled.trace(A, B, seed))
    monkeypatch.setattr(follow_writes, "plain_writes", nothing_is_plain)
    assert outcome(scrambled.trace(A, B, seed)) == quick
