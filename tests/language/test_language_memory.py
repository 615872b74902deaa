"""New tensors, loads and stores, assignment, constants, matrices and shapes."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest
from language_testing import floats, run_both

import nkilite as nki
import nkilite.isa as nisa
import nkilite.language as nl
from nkilite import errors


def both(kernel, *arrays):
    compiled, simulated = nki.jit(kernel)(*arrays), nki.simulate(kernel)(*arrays)
    np.testing.assert_array_equal(compiled, simulated)
    return compiled


def refused(make, error, match):
    """Calls `make` in a kernel and checks class, message and line of the error."""

    def kernel():
        make()

    with pytest.raises(error, match=match) as caught:
        nki.jit(kernel)()
    assert caught.value.location.file == __file__
    assert caught.value.location.line == make.__code__.co_firstlineno


@pytest.mark.parametrize("buffer", [nl.sbuf, nl.psum, nl.shared_hbm, nl.private_hbm])
@pytest.mark.parametrize("dtype", [nl.float32, nl.bfloat16, nl.int32, nl.uint8])
def test_fills(buffer, dtype):
    def kernel():
        t = nl.full((5, 7), 3, dtype, buffer=buffer)
        output = nl.ndarray((5, 7), dtype, buffer=nl.shared_hbm)
        if nl.is_psum(buffer):
            t = nl.copy(t)
        nisa.dma_copy(output, t)
        return output

    np.testing.assert_array_equal(both(kernel), np.full((5, 7), 3, dtype.numpy))


@pytest.mark.parametrize("shape", [(1,), (3,), (129,), (300, 1000), (7, 11, 13, 17), (128 * 2048 + 5,)])
def test_fills_of_hbm_of_any_size(shape):
    def kernel():
        return nl.ones(shape, nl.float32, buffer=nl.shared_hbm)

    np.testing.assert_array_equal(both(kernel), np.ones(shape, np.float32))


def test_likes():
    def kernel(x):
        t = nl.load(x)
        a = nl.zeros_like(t)
        b = nl.empty_like(t, dtype=nl.bfloat16, buffer=nl.psum)
        assert (a.shape, a.dtype, a.buffer) == (t.shape, t.dtype, t.buffer)
        assert (b.shape, b.dtype, b.buffer) == (t.shape, nl.bfloat16, nl.psum)
        output = nl.ndarray(x.shape, x.dtype, nl.shared_hbm)
        nl.store(output, a)
        return output

    assert not both(kernel, np.ones((4, 5), np.float32)).any()


@pytest.mark.parametrize(
    ("make", "error", "match"),
    [
        (lambda: nl.ndarray((200, 4), nl.float32), errors.PartitionLimitExceeded, "200 partitions.*128"),
        (lambda: nl.ndarray((4, 4097), nl.float32, nl.psum), errors.MemoryOverflow, "PSUM.*16388.*16384"),
        (lambda: nl.ndarray((4, 60000), nl.float32), errors.MemoryOverflow, "SBUF.*240000.*229376"),
        (lambda: nl.ndarray((128,), nl.float32), errors.InvalidOperand, r"at least two.*\n.*\n.*\n.*\(128, 1\)"),
        (lambda: nl.ndarray((4, 4), "float64"), errors.InvalidOperand, "dtype is 'float64'.*bfloat16"),
        (lambda: nl.ndarray((4, 4), np.complex64), errors.InvalidOperand, "dtype is .*complex64"),
        (lambda: nl.ndarray((4, 4), nl.float32, buffer="sbuf"), errors.InvalidOperand, r"(?s)'sbuf'.*buffer=nl.sbuf"),
        (lambda: nl.ndarray((4, 4), nl.float32, buffer=None), errors.InvalidOperand, "buffer is None"),
        (lambda: nl.ndarray(4, nl.float32), errors.InvalidOperand, "shape is int 4"),
        (lambda: nl.ndarray((4, 0), nl.float32), errors.InvalidOperand, r"shape is \(4, 0\)"),
        (lambda: nl.ndarray((4, 8 / 2), nl.float32), errors.InvalidOperand, r"(?s)shape is \(4, 4.0\).*use //"),
        (lambda: nl.ndarray((4, 4), nl.float32, address=64), errors.InvalidOperand, "address is 64"),
        (lambda: nl.ndarray((4, 4), nl.float32, address=(126, 0)), errors.InvalidAddress, "126..129 of 128"),
        (lambda: nl.ndarray((4, 4), nl.float32, nl.psum, address=(0, 2)), errors.InvalidAddress, "multiple of 4"),
        (lambda: nl.ndarray((4, 4), nl.float32, nl.hbm, address=(0, 0)), errors.InvalidOperand, "HBM"),
        (lambda: nl.zeros((4, 4), "nonsense"), errors.InvalidOperand, "nonsense"),
        (lambda: nl.load(nl.zeros((4, 4), nl.float32)), errors.InvalidOperand, "SBUF; expected a tensor in HBM"),
        (lambda: nl.shared_identity_matrix(129), errors.InvalidOperand, "129; expected an int from 1 to 128"),
        (lambda: nl.shared_constant(3.0), errors.InvalidOperand, "float 3.0"),
        (lambda: nl.shared_constant("missing.npy"), errors.InvalidOperand, "'missing.npy', which cannot be loaded"),
        (lambda: nl.shared_constant(np.zeros(3)), errors.InvalidOperand, "float64"),
        (lambda: nl.transpose(nl.zeros((4, 4, 4), nl.float32)), errors.InvalidOperand, "two-dimensional"),
        (lambda: nl.broadcast_to(nl.zeros((4, 3), nl.float32), (4, 6)), errors.ShapeMismatch, r"\(4, 3\).*\(4, 6\)"),
        (lambda: nl.matmul(nl.zeros((4, 3), nl.float32), nl.zeros((4, 3), nl.float32)), errors.ShapeMismatch, "x @ y"),
        (lambda: nl.device_print(1, nl.zeros((4, 3), nl.float32)), errors.InvalidOperand, "a string"),
    ],
)  # fmt: skip
def test_refusals(make, error, match):
    refused(make, error, match)


@pytest.mark.parametrize("byte", [1, 2, 3])
@pytest.mark.parametrize("dtype", [np.float32, ml_dtypes.bfloat16, np.int32])
def test_tiles_in_sbuf_begin_at_any_byte(byte, dtype, rng):
    """sbuf_min_align is 1 on every target."""
    x, at = floats(rng, 130, 33).astype(dtype)[:128], byte

    def tile(shape):
        nonlocal at
        made = nl.ndarray(shape, x.dtype, nl.sbuf, address=(0, at))
        at += shape[1] * x.dtype.itemsize + 1
        return made

    def kernel(x, column):
        nonlocal at
        at = byte
        a, b, most, picked = tile((128, 33)), tile((128, 34)), tile((128, 1)), tile((128, 1))
        index = nl.ndarray((1, 1), nl.int32, nl.sbuf, address=(0, at))
        nisa.dma_copy(index, column)
        nisa.dma_copy(a, x)
        nisa.tensor_scalar(b[:, 1:], a, op0=nl.multiply, operand0=2)
        nisa.tensor_tensor(a, a, b[:, 1:], nl.add)
        nisa.tensor_reduce(most, nl.maximum, a, axis=1)
        nisa.tensor_copy(picked, a[:, nl.ds(nisa.scalar_load(index), 1)])
        output = nl.ndarray((128, 35), x.dtype, buffer=nl.shared_hbm)
        for first, one in ((0, a), (33, most), (34, picked)):
            nisa.dma_copy(output[:, first : first + one.shape[1]], one)
        return output

    both(kernel, x, np.array([[7]], np.int32))


def test_outside_a_kernel():
    with pytest.raises(errors.NotInKernel, match=r"nl\.ndarray was called outside a kernel"):
        nl.ndarray((4, 4), nl.float32)


def test_load_and_store_convert(rng):
    x = floats(rng, 20, 30)
    assert run_both(lambda t: t, x.astype(ml_dtypes.bfloat16)).dtype == ml_dtypes.bfloat16

    def kernel(x):
        t = nl.load(x, dtype=nl.bfloat16)
        output = nl.ndarray(x.shape, nl.float32, nl.shared_hbm)
        nl.store(output, t)
        return output

    np.testing.assert_array_equal(both(kernel, x), x.astype(ml_dtypes.bfloat16).astype(np.float32))


def test_load_of_one_dimension():
    def kernel(x):
        t = nl.load(x)
        assert t.shape == (20, 1)
        output = nl.ndarray(x.shape, nl.float32, nl.shared_hbm)
        nl.store(output, t)
        return output

    np.testing.assert_array_equal(both(kernel, np.arange(20, dtype=np.float32)), np.arange(20))


def test_transposes(rng):
    x = floats(rng, 40, 100)

    def kernel(x):
        output = nl.ndarray((100, 40), nl.float32, nl.shared_hbm)
        nl.store(output, nl.load_transpose2d(x))
        return output

    np.testing.assert_array_equal(both(kernel, x), x.T)
    np.testing.assert_array_equal(run_both(nl.transpose, x), x.T)
    np.testing.assert_array_equal(run_both(lambda t: nl.transpose(t, dtype=nl.float16), x), x.T.astype(np.float16))


def test_load_transpose2d_ignores_dimensions_of_one_at_the_end(rng):
    def kernel(x):
        tile = nl.load_transpose2d(x.reshape((5, 7, 1, 1)))
        output = nl.ndarray((7, 5), x.dtype, buffer=nl.shared_hbm)
        nl.store(output, tile)
        return output

    x = floats(rng, 5, 7)
    np.testing.assert_array_equal(both(kernel, x), x.T)


@pytest.mark.parametrize("transpose_x", [False, True])
def test_matmul(transpose_x, rng):
    x, y = floats(rng, 40, 60), floats(rng, 60, 200)
    left = np.ascontiguousarray(x.T) if transpose_x else x
    got = run_both(lambda a, b: nl.matmul(a, b, transpose_x=transpose_x), left, y, atol=1e-4)
    np.testing.assert_allclose(got, x.astype(np.float64) @ y, rtol=1e-4, atol=1e-4)


def test_assignment(rng):
    def kernel(x):
        t = nl.ndarray((8, 12), nl.float32)
        t[...] = 2.0
        t[:, 0:6] = nl.load(x)[:, 6:12]
        output = nl.ndarray((8, 12), nl.float32, nl.shared_hbm)
        output[...] = 5
        output[0:4] = t[0:4]
        output[:, 11] = 7
        return output

    x = floats(rng, 8, 12)
    want = np.full((8, 12), 5, np.float32)
    want[:4] = 2
    want[:4, :6] = x[:4, 6:]
    want[:, 11] = 7
    np.testing.assert_array_equal(both(kernel, x), want)


def test_assignment_of_nonsense():
    def kernel():
        t = nl.ndarray((8, 12), nl.float32)
        t[...] = "zero"

    with pytest.raises(errors.InvalidOperand, match="value is str 'zero'; expected a tensor or a number") as caught:
        nki.jit(kernel)()
    assert caught.value.location.line == kernel.__code__.co_firstlineno + 2


@pytest.mark.parametrize("as_file", [False, True])
def test_constants(as_file, tmp_path, rng):
    data = floats(rng, 6, 9)
    np.save(tmp_path / "data.npy", data)
    source = str(tmp_path / "data.npy") if as_file else data.T.copy().T  # Fortran order

    def kernel(x):
        c = nl.shared_constant(source)
        assert c is nl.shared_constant(data)
        assert c.buffer is nl.shared_hbm
        output = nl.ndarray((6, 9), nl.float32, nl.shared_hbm)
        nl.store(output, nl.add(nl.load(x), nl.load(c)))
        return output

    np.testing.assert_array_equal(both(kernel, np.ones((6, 9), np.float32)), data + 1)


def test_identity_matrix_is_shared():
    def kernel():
        a = nl.shared_identity_matrix(40, nl.bfloat16)
        assert a is nl.shared_identity_matrix(40, dtype=nl.bfloat16)
        assert a is not nl.shared_identity_matrix(40, dtype=nl.float32)
        into = nl.ndarray((40, 40), nl.bfloat16)
        assert nl.shared_identity_matrix(40, dst=into) is into
        output = nl.ndarray((40, 40), nl.float32, nl.shared_hbm)
        nl.store(output, into)
        return output

    np.testing.assert_array_equal(both(kernel), np.eye(40))


def test_broadcast_to(rng):
    x = floats(rng, 8, 1, 5)
    np.testing.assert_array_equal(run_both(lambda t: nl.broadcast_to(t, (8, 4, 5)), x), np.broadcast_to(x, (8, 4, 5)))
    np.testing.assert_array_equal(
        run_both(lambda t: nl.broadcast_to(t, (70, 5)), x[:1, 0]), np.broadcast_to(x[:1, 0], (70, 5))
    )

    def kernel():
        t = nl.zeros((4, 5), nl.float32)
        assert nl.broadcast_to(t, (4, 5)) is t
        assert nl.expand_dims(t, 1).shape == (4, 1, 5)
        assert nl.expand_dims(t, -1).shape == (4, 5, 1)

    nki.simulate(kernel)()


@pytest.mark.parametrize("mode", [nki.jit, nki.simulate], ids=["compiled", "simulate"])
def test_device_print(mode, capsys):
    def kernel(x):
        out = nl.ndarray(x.shape, x.dtype, buffer=nl.shared_hbm)
        tile = nl.load(x)
        nl.device_print("column", tile[:, 1:2])

        def body(i):
            nl.store(out, nl.add(tile, tile))
            nl.device_print("out", out[1, 0:2])

        nl.fori_loop(0, 2, body)
        return out

    x = np.arange(6, dtype=np.float32).reshape(2, 3)
    launch = mode(kernel)
    for _ in range(2):
        np.testing.assert_array_equal(launch(x), 2 * x)
        assert capsys.readouterr().out == "column [[1.]\n [4.]]\nout [6. 8.]\nout [6. 8.]\n"
