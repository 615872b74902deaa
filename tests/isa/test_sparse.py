"""nc_matmul_sparse and the pruning of weights: compiled and simulated results against independent NumPy."""

from __future__ import annotations

import re
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from isa_testing import CPU_LEVELS, both, new, outputs, tile

import nkilite as nki
import nkilite.isa as nisa
import nkilite.language as nl
from nkilite import sparsity
from nkilite.errors import (
    DtypeMismatch,
    FreeSizeExceeded,
    IndirectOutOfBounds,
    InvalidOperand,
    InvalidWeight,
    PsumBankExceeded,
    ShapeMismatch,
    UnsupportedDtype,
    UnsupportedOnTarget,
    WrongMemory,
)
from nkilite.machine.target import get_target

BF16, F16 = ml_dtypes.bfloat16, np.float16
F8 = ml_dtypes.float8_e5m2
RATIOS = (2, 3, 4)


@pytest.fixture(params=CPU_LEVELS)
def level(request, monkeypatch):
    """Every CPU level in turn."""
    monkeypatch.setenv("NKILITE_CPU", request.param)
    return request.param


def operands(rng, K, M, N, ratio, dtype=BF16):
    """Small whole numbers, whose products and sums are exact in any order."""
    moving, stationary = (rng.integers(-4, 5, shape).astype(dtype) for shape in ((K, ratio, N), (K, M)))
    return moving, stationary, rng.integers(0, 4 * ratio, (K, M))


def packed(positions):
    words = positions.astype(np.uint16).reshape(positions.shape[0], -1, 4)
    return words[:, :, 0] | words[:, :, 1] << 4 | words[:, :, 2] << 8 | words[:, :, 3] << 12


def expected(moving, stationary, positions, ratio):
    """The dense product of the expanded operand: float64 [M, N]; elements with one place add up."""
    K, M = stationary.shape
    dense = np.zeros((K * ratio, M))
    for p in range(K):
        for m in range(M):
            dense[p // 4 * 4 * ratio + positions[p, m], m] += float(stationary[p, m])
    return dense.T @ moving.reshape(K * ratio, -1).astype(np.float64)


def product(moving, stationary, tag, ratio, **options):
    out = new((stationary.shape[1], moving.shape[2]), buffer=nl.psum)
    nisa.nc_matmul_sparse(out, moving, stationary, tag, ratio, **options)
    return out


def kernel(moving, stationary, tag, ratio=4):
    return outputs(product(tile(moving), tile(stationary), tile(tag), ratio))


@pytest.mark.parametrize(("shape", "ratio"), [((128, 128, 512), 4), ((4, 4, 1), 2), ((68, 36, 131), 3)], ids=str)
def test_product(level, ratio, shape):
    rng = np.random.default_rng(ratio)
    moving, stationary, positions = operands(rng, *shape, ratio)

    def run(m, s, t):
        return kernel(m, s, t, ratio)

    (got,) = both(run, moving, stationary, packed(positions))
    np.testing.assert_array_equal(got, expected(moving, stationary, positions, ratio))


@settings(max_examples=8, deadline=None)
@given(data=st.data())
def test_any_shape_and_dtype(data):
    ratio, K, M = data.draw(st.sampled_from(RATIOS)), data.draw(st.integers(1, 32)), data.draw(st.integers(1, 32))
    N, seed = data.draw(st.integers(1, 300)), data.draw(st.integers(0, 2**16))
    left, right = (data.draw(st.sampled_from([BF16, F16, F8])) for _ in range(2))
    adds = data.draw(st.booleans())
    moving, stationary, positions = operands(np.random.default_rng(seed), 4 * K, 4 * M, N, ratio, left)
    stationary = stationary.astype(right)

    def run(m, s, t):
        m, s, t = tile(m), tile(s), tile(t)
        out = product(m, s, t, ratio)
        if adds:
            nisa.nc_matmul_sparse(out, m, s, t, ratio)
        return outputs(out)

    (got,) = both(run, moving, stationary, packed(positions))
    np.testing.assert_array_equal(got, expected(moving, stationary, positions, ratio) * (2 if adds else 1))


def test_access_patterns():
    """Views of larger tiles, reversed columns, several free dimensions, into columns of a larger tile."""
    moving, stationary, positions = operands(np.random.default_rng(5), 64, 48, 2 * 60, 4)

    def run(m, s, t):
        big, wide, words = new((64, 4, 130), nl.bfloat16), new((64, 100), nl.bfloat16), new((64, 20), nl.uint16)
        nisa.memset(big, 0)
        nisa.dma_copy(big[:, :, 3:123], m)
        nisa.dma_copy(wide[:, 1:97:2], s)
        nisa.dma_copy(words[:, 5:17], t)
        out = new((48, 3, 120), buffer=nl.psum)
        nisa.memset(out, 7.0)
        nisa.nc_matmul_sparse(
            out[:, 1], big[:, :, 3:123].reshape_dim(2, (2, 60)), wide[:, 1:97:2], words[:, 5:17], 4, accumulate=False
        )
        return outputs(out)

    (got,) = both(run, moving, stationary, packed(positions))
    np.testing.assert_array_equal(got[:, 1], expected(moving, stationary, positions, 4))
    assert (got[:, ::2] == 7).all()


@pytest.mark.parametrize("run", [nki.simulate, nki.jit], ids=["simulate", "compiled"])
def test_drafted_form(run):
    """Without dst: the sums are a new tile."""
    moving, stationary, positions = operands(np.random.default_rng(3), 128, 128, 64, 4)

    def kernel(moving, stationary, tag):
        x, w, t = tile(moving), tile(stationary), tile(tag)
        every = [
            nisa.nc_matmul_sparse(x, w, t, 4), nisa.nc_matmul_sparse(x, w, tag=t, compress_ratio=4),
            nisa.nc_matmul_sparse(moving=x, stationary=w, tag=t, compress_ratio=4, name="by name"),
        ]
        return outputs(*every)

    found = run(kernel)(moving, stationary, packed(positions))
    for one in found:
        np.testing.assert_array_equal(one, expected(moving, stationary, positions, 4))

    def wrong(moving, stationary, tag):
        nisa.nc_matmul_sparse(tile(moving), 3, tile(tag), 4)

    with pytest.raises(InvalidOperand, match="stationary is int 3") as caught:
        run(wrong)(moving, stationary, packed(positions))
    assert caught.value.location.line == wrong.__code__.co_firstlineno + 1


def test_accumulates_beside_dense_products_and_in_loops():
    moving, stationary, positions = operands(np.random.default_rng(1), 32, 64, 96, 3)

    def run(m, s, t):
        m, s, t = tile(m), tile(s), tile(t)
        out = new((64, 96), buffer=nl.psum)
        nisa.nc_matmul(out, s, m[:, 0])

        def again(_):
            nisa.nc_matmul_sparse(out, m, s, t, 3, accumulate=True)

        nl.fori_loop(0, 3, again)
        return outputs(out)

    (got,) = both(run, moving, stationary, packed(positions))
    dense = stationary.T.astype(np.float64) @ moving[:, 0].astype(np.float64)
    np.testing.assert_array_equal(got, dense + 3 * expected(moving, stationary, positions, 3))


def test_bfloat16_results_on_trn3(monkeypatch):
    monkeypatch.setenv("NEURON_PLATFORM_TARGET_OVERRIDE", "trn3")
    moving, stationary, positions = operands(np.random.default_rng(2), 16, 16, 40, 2)

    def run(m, s, t):
        out = new((16, 40), nl.bfloat16, nl.psum)
        nisa.nc_matmul_sparse(out, tile(m), tile(s), tile(t), 2)
        return outputs(out)

    (got,) = both(run, moving, stationary, packed(positions))
    np.testing.assert_array_equal(got, expected(moving, stationary, positions, 2).astype(BF16))


def test_what_no_tag_chooses_is_not_multiplied():
    """Infinities and NaN beside the chosen rows leave no trace, as zeros of a dense operand would."""
    moving = np.full((4, 4, 16), np.nan, BF16)
    moving[1, 2] = 3
    (got,) = both(kernel, moving, np.ones((4, 4), BF16), packed(np.full((4, 4), 6)))
    np.testing.assert_array_equal(got, np.full((4, 16), 12.0))


@pytest.mark.parametrize("run", [nki.simulate, nki.jit], ids=["simulate", "compiled"])
def test_tag_outside_of_its_group(run):
    moving, stationary, positions = operands(np.random.default_rng(3), 8, 12, 5, 2)
    positions[6, 9], positions[7, 0] = 8, 15

    def wrong(m, s, t):
        return kernel(m, s, t, 2)

    with pytest.raises(IndirectOutOfBounds, match=r"nc_matmul_sparse: .* 8 is not in \[0, 8\)") as caught:
        run(wrong)(moving, stationary, packed(positions))
    assert "nisa.nc_matmul_sparse(out" in caught.value.location.source


def test_threads_share_columns(monkeypatch):
    monkeypatch.setenv("NKILITE_THREADS", "2")
    moving, stationary, positions = operands(np.random.default_rng(4), 128, 128, 500, 4)
    (got,) = both(kernel, moving, stationary, packed(positions))
    np.testing.assert_array_equal(got, expected(moving, stationary, positions, 4))


# --- errors -------------------------------------------------------------------------------------------------


def _mistakes():

    yield ShapeMismatch, "multiples of 4", {"stationary": (8, 6)}
    yield ShapeMismatch, "multiples of 4", {"stationary": (6, 8)}
    yield ShapeMismatch, r"takes \[partitions, 4, columns\]", {"moving": (8, 2, 16)}
    yield ShapeMismatch, r"takes \[partitions, 4, columns\]", {"moving": (8, 64)}
    yield ShapeMismatch, "8 partitions of 2 words", {"tag": (8, 8)}
    yield ShapeMismatch, "partitions of both", {"moving": (12, 4, 16)}
    yield ShapeMismatch, "dst has shape", {"dst": (8, 12)}
    yield InvalidOperand, "patterns 4:8, 4:12 and 4:16", {"ratio": 5}
    yield InvalidOperand, "patterns 4:8, 4:12 and 4:16", {"ratio": 4.0}
    yield UnsupportedDtype, "tag is float32|uint16", {"tag_dtype": nl.int16}
    yield UnsupportedDtype, "float32", {"moving_dtype": nl.float32}
    yield DtypeMismatch, "tfloat32 only goes with itself", {"moving_dtype": nl.tfloat32}
    yield WrongMemory, "dst", {"buffer": nl.sbuf}
    yield PsumBankExceeded, "2064 bytes", {"moving": (8, 4, 516), "dst": (8, 516)}
    yield FreeSizeExceeded, "132.*128", {"stationary": (8, 132), "tag": (8, 33)}
    yield UnsupportedOnTarget, "needs trn2", {"target": "trn1"}
    yield UnsupportedDtype, "float8_e5m2", {"moving_dtype": nl.float8_e5m2, "target": "trn3"}



@pytest.mark.parametrize(("error", "says", "change"), list(_mistakes()))
def test_mistakes(error, says, change, monkeypatch):
    change = {
        "moving": (8, 4, 16), "stationary": (8, 8), "tag": (8, 2), "dst": (8, 16), "ratio": 4, "buffer": nl.psum,
        "moving_dtype": nl.bfloat16, "tag_dtype": nl.uint16, "target": "trn2", **change,
    }
    monkeypatch.setenv("NEURON_PLATFORM_TARGET_OVERRIDE", change["target"])

    def wrong(x):
        moving, stationary = new(change["moving"], change["moving_dtype"]), new(change["stationary"], nl.bfloat16)
        tag = new(change["tag"], change["tag_dtype"])
        nisa.nc_matmul_sparse(new(change["dst"], buffer=change["buffer"]), moving, stationary, tag, change["ratio"])
        return x

    for run in (nki.jit, nki.simulate):
        with pytest.raises(error, match=says) as caught:
            run(wrong)(np.zeros((4, 4), np.float32))
        assert "nisa.nc_matmul_sparse" in caught.value.location.source


@pytest.mark.parametrize("number", [1, 3, 4, 8])
def test_calls_with_other_numbers_of_operands(number):
    def wrong(x):
        nisa.nc_matmul_sparse(*[tile(x)] * number)
        return x

    with pytest.raises(nki.errors.NkiError) as caught:
        nki.jit(wrong)(np.zeros((4, 4), np.float32))
    assert "nisa.nc_matmul_sparse(" in caught.value.location.source


# --- pruning ------------------------------------------------------------------------------------------------


@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_pruning_keeps_the_largest(data):
    ratio, groups, columns = (data.draw(st.integers(*ends)) for ends in ((2, 4), (1, 5), (1, 5)))
    seed, dtype = data.draw(st.integers(0, 2**16)), data.draw(st.sampled_from([np.float32, BF16, F8]))
    weight = np.random.default_rng(seed).standard_normal((groups * 4 * ratio, 4 * columns)).astype(dtype)
    values, tags = sparsity.compress(weight, ratio)
    assert (values.dtype, tags.dtype) == (dtype, np.uint16)
    pruned = sparsity.expand(values, tags, ratio)
    assert ((pruned == weight) | (pruned == 0)).all()
    for group in range(groups):
        rows = slice(group * 4 * ratio, (group + 1) * 4 * ratio)
        for column in range(4 * columns):
            found = np.sort(np.abs(pruned[rows, column].astype(np.float64)))
            largest = np.sort(np.abs(weight[rows, column].astype(np.float64)))[-4:]
            np.testing.assert_array_equal(found[-4:], largest)
            assert not found[:-4].any()


def test_pruning_of_ties_and_nan():
    weight = np.zeros((8, 4), np.float32)
    weight[:, 0], weight[6, 1], weight[2, 1] = 1, np.nan, -np.inf
    values, tags = sparsity.compress(weight, 2)
    assert (tags & 15).ravel().tolist() == [0, 1, 2, 3]
    assert (tags >> 4 & 15).ravel().tolist() == [0, 1, 2, 6]
    np.testing.assert_array_equal(sparsity.expand(values, tags, 2)[:, 1], weight[:, 1])


@pytest.mark.parametrize(("call", "says"), [
    (lambda: sparsity.compress(np.zeros((12, 4)), 2), r"K a multiple of 8"),
    (lambda: sparsity.compress(np.zeros((8, 6)), 2), "M of 4"),
    (lambda: sparsity.compress(np.zeros((8, 4)), 5), "expected 2, 3 or 4"),
    (lambda: sparsity.compress(np.zeros((8, 4)), 2.0), "expected 2, 3 or 4"),
    (lambda: sparsity.compress([[1.0] * 4] * 8, 2), "weight is list"),
    (lambda: sparsity.expand(np.zeros(8), np.zeros((4, 1), np.uint16), 2), r"\[K, M / 4\]"),
    (lambda: sparsity.expand(np.zeros((4, 4)), np.zeros((4, 1)), 2), "of float64"),
    (lambda: sparsity.expand(np.zeros((8, 4)), np.zeros((8, 2), np.uint16), 2), r"\[K, M / 4\]"),
    (lambda: sparsity.expand(np.zeros((4, 4)), np.full((4, 1), 9, np.uint16), 2), "a tag is 9; expected positions"),
])  # fmt: skip
def test_pruning_refuses(call, says):
    with pytest.raises(InvalidWeight, match=says) as caught:
        call()
    assert caught.value.location.file == __file__


# --- the model, and the page --------------------------------------------------------------------------------


@pytest.mark.parametrize("ratio", RATIOS)
@pytest.mark.parametrize("speedup", [4, 2.5])
def test_modelled_gain_is_the_compression_up_to_what_the_target_says(ratio, speedup, tmp_path):
    chip = tmp_path / "chip.toml"
    chip.write_text(f'inherits = "trn2"\ntensor_warmup_ns = 0\nmatmul_sparse_speedup = {speedup}\n')

    def dense(x, w, t):
        x, w, out = tile(x), tile(w), new((128, 512), buffer=nl.psum)
        for i in range(ratio):
            nisa.nc_matmul(out, w, x[:, i])
        return outputs(out)

    def sparse(x, w, t):
        x, w, t, out = tile(x), tile(w), tile(t), new((128, 512), buffer=nl.psum)
        nisa.nc_matmul_sparse(out, x, w, t, ratio)
        return outputs(out)

    arrays = np.zeros((128, ratio, 512), BF16), np.zeros((128, 128), BF16), np.zeros((128, 32), np.uint16)
    slow, fast = (nki.profile(nki.jit(kernel), *arrays, target=str(chip)) for kernel in (dense, sparse))
    assert slow.flops == ratio * fast.flops
    assert slow.engines["Tensor"].busy_us / fast.engines["Tensor"].busy_us == pytest.approx(min(ratio, speedup))


def test_published_peak():
    chip = get_target("trn2")
    assert chip.matmul_flops_per_ns("bfloat16") / 1000 * chip.matmul_sparse_speedup == pytest.approx(316, rel=0.02)


def test_examples(tmp_path, capsys):
    """What docs/sparsity.md shows is what its example prints."""
    page = (Path(__file__).parents[2] / "docs" / "sparsity.md").read_text()
    blocks = re.findall(r"```python\n(.*?)```", page, re.S)
    assert blocks
    script = tmp_path / "example.py"
    script.write_text("\n".join(blocks))
    exec(compile(script.read_text(), str(script), "exec"), {"__name__": "example"})
    shown = re.findall(r"```text\n(.*?)```", page, re.S)[0]
    assert capsys.readouterr().out.strip() == shown.strip()
