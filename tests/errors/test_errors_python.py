"""Python's operators, statements and values where only tensors or only numbers mean something."""

from __future__ import annotations

import copy
import math
import warnings
from dataclasses import asdict, dataclass

import numpy as np
import pytest
from errors_testing import MODES, Table, X, check, sbuf, stored

import nkilite.isa as nisa
import nkilite.language as nl
from nkilite.errors import (
    InternalError,
    InvalidOperand,
    NkiError,
    NotAnArray,
    NumberTooLarge,
    TensorAsNumber,
    TensorOperator,
    UnsupportedArgument,
    UnsupportedArrayDtype,
)

mistake = Table()


@mistake(TensorOperator, "no operator ==", "nl.equal")
def equal(x):
    if sbuf() == 0:  # here
        return x


@mistake(TensorOperator, "no operator !=", "nl.not_equal")
def unequal(x):
    assert 1.0 != sbuf()  # noqa: SIM300  # here


@mistake(TensorOperator, "no operator ==", "nl.equal")
def equal_tiles(x):
    a, b = sbuf(), sbuf()
    return stored(a if a == b else b)  # here


@mistake(TensorOperator, "no operator ==", "nl.equal")
def among_numbers(x):
    assert sbuf() in (0, 1)  # here


@mistake(TensorOperator, "no operator >", "nl.greater")
def chained(x):
    assert 0 < sbuf() < 1  # here


@mistake(TensorOperator, "no operator +", "nl.add")
def augmented(x):
    tile = sbuf()
    tile += 1  # here


@mistake(TensorOperator, "no operator round()", "nl.floor")
def rounded(x):
    round(sbuf(), 2)  # here


@mistake(TensorOperator, "no operator math.ceil()", "nl.ceil")
def ceiling(x):
    math.ceil(sbuf())  # here


@mistake(TensorAsNumber, "iterate over", "range(t.shape[0])")
def iterated(x):
    for _ in sbuf():  # here
        pass


@mistake(TensorAsNumber, "unpack", "range(t.shape[0])")
def unpacked(x):
    _a, *_b = x  # here


@mistake(TensorAsNumber, "iterate over")
def summed(x):
    sum(sbuf())  # here


@mistake(TensorAsNumber, "length", "t.shape")
def length(x):
    len(x)  # here


@mistake(TensorAsNumber, "container", "nl.equal")
def contains(x):
    assert 1.0 in sbuf()  # here


@mistake(TensorAsNumber, "formatted", "numpy()")
def formatted(x):
    print(f"{sbuf():.3f}")  # here


@mistake(TensorOperator, "no operator np.add")
def summed_by_numpy(x):
    np.sum(sbuf())  # here


@mistake(NumberTooLarge, "fit 64 bits")
def bound_of_many_digits(x):
    nisa.memset(sbuf()[0 : 10**5000], 0)  # here


@mistake(NumberTooLarge, "fit 64 bits")
def shape_of_many_digits(x):
    nl.ndarray((64, 10**5000), dtype=nl.float32, buffer=nl.sbuf)  # here


@mistake(NumberTooLarge, "fit 64 bits")
def pattern_of_many_digits(x):
    nisa.memset(sbuf().ap([[32, 10**5000], [1, 32]]), 0)  # here


@mistake(InvalidOperand, "nisa.iota: channel_multiplier or a step is int 0x", "expected an int32")
def step_of_many_digits(x):
    nisa.iota(sbuf(dtype=nl.int32), [[10**5000, 32]], offset=0)  # here


@mistake(InvalidOperand, "0x1000", "float64 holds")
def huge(x):
    nisa.memset(sbuf(value=None), 1 << 20000)  # here


@mistake(InvalidOperand, "parameters ()", "one argument")
def body_of_none(x):
    nl.fori_loop(0, 3, lambda: None)  # here


@mistake(InvalidOperand, "body_fun", "written in Python")
def body_of_c(x):
    nl.while_loop(nisa.register_alloc(1), len)  # here


@mistake(NotAnArray, "argument 'x' of kernel 'list_as_array' is list [[1.0]]", "a tensor.shape", arrays=([[1.0]],))
def list_as_array(x):
    stored(sbuf(x.shape))  # here


@mistake(NotAnArray, "argument 'x'", "is tuple (1.0, 2.0)", arrays=((1.0, 2.0),))
def tuple_as_operand(x):
    nl.load(x)  # here


@mistake(NotAnArray, "argument 'x'", "a tensor[...]", arrays=([1.0, 2.0],))
def list_sliced(x):
    nl.load(x[0:1, :])  # here


@mistake(NotAnArray, "argument 'bias'", "is None", arrays=(X, None, None))
def none_as_array(x, scale, bias):
    assert scale is None
    sbuf(bias.shape)  # here


@mistake(NotAnArray, "argument 'x[1]'", "is float 2.5", arrays=([X, 2.5],))
def number_in_a_list(x):
    sbuf(x[1].shape)  # here


@mistake.parametrize
def test_mistakes(mistake, mode, monkeypatch):
    check(mistake, mode, monkeypatch)


@dataclass
class Config:
    tile: object
    size: int = 2


@pytest.mark.parametrize("mode", MODES)
def test_what_kernels_rely_on(mode):
    def kernel(x, bias=None):
        a, b, register = nl.load(x), nl.load(x), nisa.register_alloc(1)
        assert [a == None, a != None, None in (a,), register == None] == [False, True, False, False]  # noqa: E711
        assert [bool(a), not a, a == a, b in [a, b], [a, b].index(b), {a: 1}[a]] == [True, False, True, True, 1, 1]
        assert a in [b, a]
        assert copy.deepcopy(a) is a is copy.copy(a)
        assert asdict(Config(a))["tile"] is a
        assert f"{a}" == str(a)
        return stored(a)

    x = np.ones((64, 32), np.float32)  # kernels of other tests write to X
    assert np.array_equal(MODES[mode](kernel)(x), x)


ODD = {
    "object": np.ones((4, 8), object), "strings": np.full((4, 8), "a"), "structured": np.ones((4, 8), [("a", "f4")]),
    "dates": np.zeros((4, 8), "M8[s]"), "masked": np.ma.masked_array(np.ones((4, 8), np.float32), True),
    "big-endian": np.ones((4, 8), ">f4"), "complex": np.ones((4, 8), np.complex64), "0-d": np.array(1.0, np.float32),
    "empty": np.ones((0, 8), np.float32), "void": np.ones((4, 8), "V4"), "longdouble": np.ones((4, 8), np.longdouble),
}


@pytest.mark.parametrize("array", ODD.values(), ids=list(ODD))
@pytest.mark.parametrize("mode", MODES)
def test_arrays_a_kernel_cannot_take(mode, array):
    with pytest.raises((UnsupportedArgument, UnsupportedArrayDtype), match="argument 'x'"):
        MODES[mode](lambda x: stored(nl.load(x)))(array)


@pytest.mark.parametrize("mode", MODES)
def test_arrays_of_odd_kinds_that_work(mode, tmp_path):
    mapped = np.memmap(tmp_path / "x", np.float32, "w+", shape=(4, 8))
    mapped[...] = 3
    frozen = np.ones((4, 8), np.float32)
    frozen.flags.writeable = False
    for array in (mapped, frozen, np.broadcast_to(np.float32(1), (4, 8)), frozen[::-1, ::2]):
        assert np.array_equal(MODES[mode](lambda x: stored(nl.load(x)))(array), array)


def test_tensors_of_torch_that_have_no_elements():
    torch = pytest.importorskip("torch")
    x = torch.ones(4, 8)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # quantized tensors are deprecated
        quantized = torch.quantize_per_tensor(x, 0.1, 0, torch.qint8)
    odd = [x.to_sparse(), quantized, torch.conj(x + 1j)]
    for tensor in odd:
        for mode in MODES.values():
            with pytest.raises(NkiError) as caught:
                mode(lambda x: stored(nl.load(x)))(tensor)
            assert not isinstance(caught.value, InternalError)
