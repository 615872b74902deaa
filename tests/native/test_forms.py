"""Micro-kernels that know no sizes serve all instructions of their kind, of any program and process: equal bits."""

from __future__ import annotations

from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import nkilite as nki
import nkilite.isa as nisa
import nkilite.language as nl
from conformance.fuzz.differ import Way, differences
from conformance.fuzz.draw import draw
from nkilite.errors import IndirectOutOfBounds
from nkilite.ir.sizes import Sizes
from nkilite.native import cache, forms
from nkilite.native.cache import CacheWarning
from nkilite.native.library import Library
from nkilite.native.log import Log


def norm(x, scale=2.0):
    """Loads, a reduction, arithmetic with broadcasting, an activation and a store, 128 rows at a time."""
    out = nl.ndarray(x.shape, dtype=x.dtype, buffer=nl.shared_hbm)
    for row in range(0, x.shape[0], 128):
        rows = min(128, x.shape[0] - row)
        tile = nl.load(x[row : row + rows])
        total = nl.ndarray((rows, 1), dtype=nl.float32, buffer=nl.sbuf)
        nisa.tensor_reduce(total, nl.add, tile, axis=1)
        nisa.activation(total, nl.rsqrt, total, scale=scale)
        nisa.tensor_scalar(tile, tile, nl.multiply, total)
        nisa.dma_copy(dst=out[row : row + rows], src=tile)
    return out


def sums(x):
    """Sums of rows: of exponentials on their way, of every other element, and of all, halved and turned."""
    rows, columns = x.shape
    out = nl.ndarray((rows, columns + 3), dtype=nl.float32, buffer=nl.shared_hbm)
    tile, powers = nl.load(x), nl.ndarray((rows, columns), dtype=x.dtype, buffer=nl.sbuf)
    total = nl.ndarray((rows, 3), dtype=nl.float32, buffer=nl.sbuf)
    nisa.activation_reduce(powers, nl.exp, tile, nl.add, total[:, 0:1])
    nisa.tensor_reduce(total[:, 1:2], nl.add, tile[:, ::2], axis=1)
    nisa.tensor_reduce(total[:, 2:3], nl.maximum, tile, axis=1)
    nisa.tensor_scalar(tile[:, ::2], tile[:, ::2], nl.multiply, 0.5)
    nisa.tensor_tensor(powers, powers, tile, nl.add)
    nisa.dma_copy(dst=out[:, :columns], src=powers)
    nisa.dma_copy(dst=out[:, columns:], src=total)
    return out


@pytest.fixture
def written(new_process, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The instructions for which micro-kernels are written, in a process that knows none."""
    monkeypatch.setenv("NKILITE_OPTIMIZE", "never")
    new_process()
    found: list[str] = []
    original = forms._write

    def write(member, *others):
        found.append(member.signature.name)
        return original(member, *others)

    monkeypatch.setattr(forms, "_write", write)
    return found


def values(*shape: int) -> np.ndarray:
    return np.random.default_rng(len(shape)).random(shape, np.float32) + np.float32(0.5)


def well(kernel, monkeypatch, *arrays) -> np.ndarray:
    """What good code computes."""
    monkeypatch.setenv("NKILITE_OPTIMIZE", "always")
    found = nki.jit(kernel)(*arrays)
    monkeypatch.setenv("NKILITE_OPTIMIZE", "never")
    return found


def test_other_sizes_take_the_same_code(written, monkeypatch) -> None:
    nki.jit(norm)(values(128, 512))
    assert set(written) == {"dma_copy", "tensor_reduce", "activation", "tensor_scalar"}
    written.clear()
    for shape in ((256, 512), (64, 768), (128, 384), (192, 256), (300, 1000), (45, 31), (7, 5)):
        x = values(*shape)
        np.testing.assert_array_equal(nki.jit(norm)(x), well(norm, monkeypatch, x))
    assert not written


@pytest.mark.parametrize("dtype", [np.float32, ml_dtypes.bfloat16])
def test_what_is_left_of_rows_takes_the_same_code(written, monkeypatch, dtype) -> None:
    nki.jit(sums)(values(128, 512).astype(dtype))
    written.clear()
    for shape in ((128, 510), (100, 130), (128, 30), (3, 6)):
        x = values(*shape).astype(dtype)
        np.testing.assert_array_equal(nki.jit(sums)(x), well(sums, monkeypatch, x))
    assert not written


def test_psum_takes_the_code_of_sbuf(written, monkeypatch) -> None:
    def maxima(x):
        out = nl.ndarray((x.shape[0], 2), dtype=x.dtype, buffer=nl.shared_hbm)
        for place, buffer in enumerate((nl.sbuf, nl.psum)):
            tile = nl.ndarray(x.shape, dtype=x.dtype, buffer=buffer)
            nisa.tensor_copy(tile, nl.load(x))
            found = nl.ndarray((x.shape[0], 1), dtype=x.dtype, buffer=nl.sbuf)
            nisa.tensor_reduce(found, nl.maximum, tile, axis=1)
            nisa.dma_copy(dst=out[:, place : place + 1], src=found)
        return out

    x = values(128, 256)
    np.testing.assert_array_equal(nki.jit(maxima)(x), well(maxima, monkeypatch, x))
    assert written.count("tensor_copy") == written.count("tensor_reduce") == 1


@settings(max_examples=12, deadline=None)
@given(rows=st.integers(1, 300), columns=st.integers(1, 200), scale=st.sampled_from((0.5, 2.0)))
def test_any_size_computes_the_same_bits(rows, columns, scale) -> None:
    x = values(rows, columns)
    for kernel, arguments in ((norm, (x, scale)), (sums, (x[:128],))):
        results = []
        with pytest.MonkeyPatch.context() as patch:
            for setting in ("never", "always"):
                patch.setenv("NKILITE_OPTIMIZE", setting)
                results.append(nki.jit(kernel)(*arguments))
        np.testing.assert_array_equal(*results)


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_any_program(seed) -> None:
    assert not list(differences(draw(seed), [Way("native", True), Way("native", False, True)]))


def test_an_edited_kernel_in_another_process_writes_what_is_new(written, disk, new_process, monkeypatch) -> None:
    nki.jit(norm)(values(128, 512))
    written.clear()

    def edited(x):
        tile = nl.load(x)
        nisa.tensor_scalar(tile, tile, nl.add, 1.0)
        total = nl.ndarray((x.shape[0], 1), dtype=nl.float32, buffer=nl.sbuf)
        nisa.tensor_reduce(total, nl.add, tile, axis=1)
        nisa.tensor_scalar(tile, tile, nl.multiply, total)
        out = nl.ndarray(x.shape, dtype=x.dtype, buffer=nl.shared_hbm)
        nisa.dma_copy(dst=out, src=tile)
        return out

    new_process()
    compiled: list[str] = []
    original = Library._compile
    monkeypatch.setattr(
        Library, "_compile",
        lambda self, units: original(self, [u for u in units if not compiled.extend(s.name for s in u)]),
    )
    x = values(64, 256)
    found = nki.jit(edited)(x)
    assert written == ["tensor_scalar"]
    assert len([name for name in compiled if not name.startswith("nkilite_")]) == 1
    np.testing.assert_array_equal(found, well(edited, monkeypatch, x))


def test_a_signal_handler_may_launch_kernels_while_code_is_written(written, monkeypatch) -> None:
    original, found = forms._write, []

    def interrupted(*arguments):
        if not found:
            found.append(None)
            found[0] = nki.jit(norm)(values(64, 256))
        return original(*arguments)

    monkeypatch.setattr(forms, "_write", interrupted)
    x, y = values(128, 512), values(64, 256)
    np.testing.assert_array_equal(nki.jit(norm)(x), well(norm, monkeypatch, x))
    np.testing.assert_array_equal(found[0], well(norm, monkeypatch, y))


def drop_object_code() -> None:
    """From the disk cache: what is known of micro-kernels remains."""
    disk = cache.store()
    for entry in list(disk.entries()):
        if entry.label == "code":
            log = Log(disk, entry.shelf, entry.label, entry.path.rpartition("-")[2])
            records = list(log._whole(Path(entry.path).read_bytes()))
            disk.replace(entry.path, [r for r in records if len(log._unpacked(r).keys) == 1])
        else:
            Path(entry.path).unlink()


def test_code_that_has_gone_is_written_again(written, disk, new_process) -> None:
    expected = nki.jit(norm)(values(128, 512))
    count = len(written)
    written.clear()
    drop_object_code()
    new_process()
    np.testing.assert_array_equal(nki.jit(norm)(values(128, 512)), expected)
    assert len(written) == count


def test_code_that_goes_while_it_is_used_is_not_missed(written, disk, new_process, monkeypatch) -> None:
    nki.jit(norm)(values(128, 512))
    (kernel,) = (entry for entry in cache.store().entries() if entry.shelf == cache.KERNELS)
    Path(kernel.path).unlink()
    new_process()
    nki.jit(norm)(values(128, 512))  # takes it from disk, without its text
    drop_object_code()
    x = values(256, 512)
    for _ in range(2):
        np.testing.assert_array_equal(nki.jit(norm)(x), well(norm, monkeypatch, x))
        new_process()


def test_damaged_entries_are_made_anew(written, disk, new_process) -> None:
    expected = nki.jit(norm)(values(128, 512))
    written.clear()
    for entry in list(cache.store().entries()):
        if entry.label == "code":
            Path(entry.path).write_bytes(b"nkilite2 of something else that is longer than a head")
        elif entry.shelf == cache.KERNELS:
            Path(entry.path).unlink()
    new_process()
    with pytest.warns(CacheWarning):
        np.testing.assert_array_equal(nki.jit(norm)(values(128, 512)), expected)
    assert written


def test_an_index_out_of_bounds_is_at_its_line(written) -> None:
    @nki.jit
    def gathered(x, index):
        at = nl.load(index)
        tile = nl.ndarray((index.shape[0], x.shape[1]), dtype=x.dtype, buffer=nl.sbuf)
        nisa.dma_copy(dst=tile, src=x.ap([[x.shape[1], index.shape[0]], [1, x.shape[1]]], vector_offset=at))  # here
        out = nl.ndarray(tile.shape, dtype=x.dtype, buffer=nl.shared_hbm)
        nisa.dma_copy(dst=out, src=tile)
        return out

    x = values(50, 16)
    for count in (4, 9):
        index = np.arange(count, dtype=np.int32)[:, None] * 3
        np.testing.assert_array_equal(gathered(x, index), x[index[:, 0]])
    index[5] = 50
    with pytest.raises(IndirectOutOfBounds) as caught:
        gathered(x, index)
    assert "# here" in caught.value.location.source


def test_code_is_right_for_all_that_answer_its_questions() -> None:
    sizes = Sizes((96, 7, 3))
    n, m, k = sizes.given
    whole = n // 32 * 32
    assert not whole < n
    assert m - k > 2
    assert sizes.argument(whole) == 0
    assert sizes.argument(n * m) == 1
    assert sizes.argument(whole) == 0
    form = sizes.form()
    assert sizes.arguments == [96, 672]
    assert form.fit((96, 7, 3)) == [96, 672]
    assert form.fit((640, 9, 1)) == [640, 5760]
    assert form.fit((97, 7, 3)) is None
    assert form.fit((96, 4, 3)) is None


def test_what_needs_to_know_a_size_is_right_for_no_other() -> None:
    sizes = Sizes((5, 6))
    n, m = sizes.given
    assert list(range(n)) == [0, 1, 2, 3, 4]
    assert f"{m}" == "6"
    assert sizes.form().fit((5, 6)) == []
    assert sizes.form().fit((4, 6)) is None
    assert sizes.form().fit((5, 7)) is None


OPERATIONS = sorted(name for name in dir(int) if name.startswith("__") and not hasattr(object, name))


@pytest.mark.parametrize("name", [*OPERATIONS, "__eq__", "__lt__", "__ge__", "__hash__", "__str__", "bit_length"])
def test_a_size_does_what_its_number_does(name) -> None:
    for n, m in ((12, 5), (5, 12), (4, 2)):
        sizes = Sizes((n, m))
        one, other = sizes.given
        takes = [()] if name in UNARY else [(other,), (m,)]
        for others in takes:
            found = getattr(one, name)(*others)
            expected = getattr(n, name)(*([m] if others else []))
            if isinstance(found, tuple):
                assert tuple(map(int, found)) == expected
            elif isinstance(found, float | str | bool) or found is NotImplemented:
                assert found is NotImplemented or found == expected
            else:
                assert int(found) == expected
        assert sizes.form().fit((n, m)) is not None


UNARY = {
    "__abs__", "__bool__", "__ceil__", "__float__", "__floor__", "__getnewargs__", "__hash__", "__index__", "__int__",
    "__invert__", "__neg__", "__pos__", "__round__", "__str__", "__trunc__", "bit_length",
}
