"""Mistakes in the Python around instructions: values that are not numbers yet, unknown names, kernel boundaries."""

from __future__ import annotations

import math

import numpy as np
import pytest
from errors_testing import MODES, Table, X, check, check_hidden_frames, check_location, sbuf, stored

import nkilite as nki
import nkilite.isa as nisa
import nkilite.language as nl
from nkilite.errors import (
    InvalidCall,
    InvalidOperand,
    KernelRecursion,
    NonContiguousArgument,
    NotInKernel,
    RegisterInControlFlow,
    RegisterOperator,
    TensorAsNumber,
    TensorOfLoop,
    TensorOperator,
    UninitializedRead,
    UnknownName,
    UnknownTarget,
    UnsupportedArgument,
    UnsupportedArrayDtype,
)

mistake = Table()


@mistake(TensorAsNumber, "range bound", "compile-time")
def tensor_as_a_range_bound(x):
    range(sbuf((1, 1), nl.int32))  # here


@mistake(TensorAsNumber, "index", "select")
def tensor_as_a_list_index(x):
    [1, 2][sbuf((1, 1), nl.int32)]  # here


@mistake(TensorAsNumber, "int")
def tensor_as_an_int(x):
    int(sbuf((1, 1)))  # here


@mistake(TensorAsNumber, "float", "[P, 1] tile")
def tensor_as_a_float(x):
    math.sqrt(sbuf((1, 1)))  # here


@mistake(InvalidOperand, "nl.sqrt", "int 64", "Python's math")
def number_as_a_tile(x):
    1 / nl.sqrt(64)  # here


@mistake(TensorAsNumber, "slice")
def tensor_as_a_slice_bound(x):
    x[:, 0:sbuf((1, 1), nl.int32)]  # here


@mistake(TensorAsNumber, "a NumPy array", "nki.simulate")
def tensor_as_an_array(x):
    np.asarray(sbuf())  # here


@mistake(RegisterInControlFlow, "condition", "nl.while_loop")
def register_as_a_condition(x):
    register = nisa.register_alloc(3)
    while register:  # here
        pass


@mistake(RegisterInControlFlow, "comparison", "nl.fori_loop")
def register_compared(x):
    if nisa.register_alloc(3) > 2:  # here
        pass


@mistake(RegisterInControlFlow, "int")
def register_as_a_range_bound(x):
    range(nisa.register_alloc(3))  # here


@mistake(RegisterInControlFlow, "bound of nl.static_range")
def register_as_a_bound_of_a_python_loop(x):
    nl.static_range(nisa.register_alloc(3))  # here


@mistake(RegisterOperator, "+", "register_store")
def register_arithmetic(x):
    nisa.register_alloc(3) + 1  # here


@mistake(UninitializedRead, "never written")
def register_without_a_value(x):
    tile = sbuf((1, 1), nl.int32)
    nisa.register_store(tile, nisa.register_alloc())  # here
    return stored(tile)


@mistake(InvalidOperand, "4294967296", "int")
def register_of_a_large_value(x):
    nisa.register_alloc(1 << 32)  # here


@mistake(TensorOfLoop, "data1", "body of a loop", "before the loop")
def tile_of_a_loop_used_after_it(x):
    made = []
    nl.fori_loop(0, 4, lambda i: made.append(sbuf()))
    nisa.tensor_tensor(sbuf(), made[0], sbuf(), op=nl.add)  # here


@mistake(TensorOperator, "+", "nl.add")
def operator(x):
    sbuf() + 1  # here


@mistake(TensorOperator, "*", "nl.multiply")
def operator_of_a_numpy_number(x):
    np.float32(2) * sbuf()  # here


@mistake(TensorOperator, "<", "nl.less")
def comparison(x):
    tile = sbuf()
    while tile < 4:  # here
        pass


@mistake(TensorOperator, "+", "nl.add")
def augmented_assignment(x):
    tile = sbuf()
    tile += 1  # here


@mistake(TensorOperator, "abs()", "nl.abs")
def built_in_function(x):
    abs(sbuf())  # here


@mistake(TensorOperator, "np.exp", "nl.exp")
def numpy_function(x):
    np.exp(sbuf())  # here


@mistake(UnknownName, "nki.isa", "tensor_tensr", "nisa.tensor_tensor")
def typo_in_an_instruction(x):
    nisa.tensor_tensr(x, x, x)  # here


@mistake(UnknownName, "nki.language", "'ad'", "nl.add")
def typo_in_a_function(x):
    nl.ad(x, x)  # here


@mistake(UnknownName, "Beta-1", "nl.ds")
def name_of_the_old_dialect(x):
    nl.arange(128)  # here


@mistake(UnknownName, "nki", "'simulat'", "simulate")
def typo_in_a_name_of_nki(x):
    nki.simulat(x)  # here


@mistake(UnknownName, "tensor", "'reshpe'", "reshape")
def typo_in_a_method(x):
    sbuf().reshpe((64, 32))  # here


@mistake(UnknownName, "tensor", "'astype'", "tensor_copy")
def method_of_numpy(x):
    sbuf().astype(nl.bfloat16)  # here


def recursive(x):
    nl.load(x)
    again(x)  # here


again = nki.jit(recursive)


@pytest.mark.parametrize("mode", MODES)
def test_recursion(mode) -> None:
    with pytest.raises(KernelRecursion, match="recursive") as caught:
        MODES[mode](again)(X)
    check_location(caught.value, recursive)
    check_hidden_frames(caught.value)


@nki.jit
def inner(tile):
    nisa.tensor_tensor(tile, tile, tile, op=nl.exp)


@mistake(InvalidCall, "inner", "rows", "inner(tile)")
def nested_kernel_called_wrongly(x):
    inner(rows=x)  # here


@pytest.mark.filterwarnings("ignore:nl.static_range is deprecated")
@mistake.parametrize
def test_mistake(mistake, mode, monkeypatch) -> None:
    check(mistake, mode, monkeypatch)


# --- the user's own exceptions ------------------------------------------------------------------------------------


def divides(x):
    return stored(nl.load(x)), 1 // 0


def asserts(x):
    assert x.shape == (1, 1), "only one element"


def misspells(x):
    return nl.load(y)  # noqa: F821


def calls_its_own_function_wrongly(x):
    def tensor_copy(a):
        return a

    return tensor_copy(b=x)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(
    ("kernel", "error", "text"),
    [
        (divides, ZeroDivisionError, "division"),
        (asserts, AssertionError, "only one element"),
        (misspells, NameError, "'y'"),
        (calls_its_own_function_wrongly, TypeError, "unexpected keyword"),
    ],
)
def test_exceptions_of_the_kernel_stay_as_they_are(mode, kernel, error, text) -> None:
    with pytest.raises(error, match=text) as caught:
        MODES[mode](kernel)(X)
    assert type(caught.value) is error
    check_hidden_frames(caught.value)


@pytest.mark.parametrize("mode", MODES)
def test_errors_are_found_in_helpers_and_callbacks(mode) -> None:
    def body(i):
        sbuf()[:, 40]  # here

    def kernel(x):
        nl.fori_loop(0, 4, body)

    with pytest.raises(IndexError) as caught:
        MODES[mode](kernel)(X)
    check_location(caught.value, body)
    check_hidden_frames(caught.value)


@pytest.mark.parametrize("mode", MODES)
def test_an_error_can_be_handled_in_the_kernel(mode) -> None:
    def kernel(x):
        try:
            x[:, 99]
        except IndexError:
            return stored(nl.load(x))

    np.testing.assert_array_equal(MODES[mode](kernel)(X), X)


@pytest.mark.parametrize("mode", MODES)
def test_a_failed_call_leaves_nothing_behind(mode) -> None:
    @nki.jit
    def kernel(x, wrong):
        tile = nl.load(x)
        return stored(tile[:, 0:99] if wrong else tile)

    for _ in range(2):
        with pytest.raises(IndexError):
            MODES[mode](kernel)(X, True)
        np.testing.assert_array_equal(MODES[mode](kernel)(X, False), X)


def test_tiles_are_true() -> None:
    def kernel(x):
        tile = sbuf()
        assert tile
        assert tile is not None
        assert (tile or None) is tile
        return stored(nl.load(x))

    for launch in MODES.values():
        launch(kernel)(X)


# --- the call of a kernel -----------------------------------------------------------------------------------------


def copied(x, other=None):
    return stored(nl.load(x))


def calls(launch):
    launch(copied)()  # here


def test_missing_kernel_argument() -> None:
    for launch in MODES.values():
        with pytest.raises(InvalidCall, match=r"copied.*'x'") as caught:
            calls(launch)
        check_location(caught.value, calls)
        assert "copied(x, other=None)" in str(caught.value)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(
    ("value", "error", "says"),
    [
        (np.zeros((4, 4)), UnsupportedArrayDtype, ("float64", "float32")),
        (np.zeros((4, 4), np.complex64), UnsupportedArrayDtype, ("complex64", "float32 pairs")),
        (np.zeros((4, 4), complex), UnsupportedArrayDtype, ("complex128",)),
        (np.array([["a"]]), UnsupportedArrayDtype, ("<U1",)),
        (np.array([[None]]), UnsupportedArrayDtype, ("object",)),
        (np.zeros((0, 4), np.float32), UnsupportedArgument, ("(0, 4)", "has elements")),
        (np.array(1, np.float32), UnsupportedArgument, ("shape ()", "reshape it")),
        ((i for i in range(3)), UnsupportedArgument, ("generator",)),
    ],
)
def test_what_a_kernel_cannot_take(mode, value, error, says) -> None:
    with pytest.raises(error) as caught:
        MODES[mode](copied)(X, value)
    message = str(caught.value)
    assert type(caught.value) is error
    for text in ("'other'", *says, "fix:", __file__):
        assert text in message
    check_hidden_frames(caught.value)


def fills(x):
    nisa.dma_copy(x, sbuf())  # here
    return x


@pytest.mark.parametrize("mode", MODES)
def test_inputs_that_cannot_be_written(mode) -> None:
    frozen = X.copy()
    frozen.flags.writeable = False
    for array, says in ((frozen, "read-only"), (X.T.copy().T, "not contiguous"), (np.flip(X), "not contiguous")):
        before = array.copy()
        with pytest.raises(NonContiguousArgument, match=says) as caught:
            MODES[mode](fills)(array)
        check_location(caught.value, fills)
        check_hidden_frames(caught.value)
        np.testing.assert_array_equal(array, before)


@pytest.mark.parametrize("mode", MODES)
def test_inputs_of_any_layout_are_read_rightly(mode) -> None:
    swapped = X.astype(">f4")
    for array in (X[::2], X[:, ::-1], np.asfortranarray(X), np.broadcast_to(X[:1], (64, 32))):
        np.testing.assert_array_equal(MODES[mode](copied)(array), array)
    try:
        result = MODES[mode](copied)(swapped)
    except UnsupportedArrayDtype:
        return
    np.testing.assert_array_equal(result, X)


def test_outside_a_kernel() -> None:
    def function():
        nl.zeros((64, 4), nl.float32)  # here

    with pytest.raises(NotInKernel, match=r"nl\.ndarray.*outside a kernel") as caught:
        function()
    check_location(caught.value, function)


def test_instruction_outside_a_kernel() -> None:
    def function():
        nisa.memset(None, 0)  # here

    with pytest.raises(NotInKernel, match=r"(?s)nki\.isa\.memset.*nki\.jit") as caught:
        function()
    check_location(caught.value, function)


def test_unknown_target(monkeypatch) -> None:
    monkeypatch.setenv("NEURON_PLATFORM_TARGET_OVERRIDE", "trn0")
    for launch in MODES.values():
        with pytest.raises(UnknownTarget, match=r"trn0.*trn1.*trn2.*trn3"):
            launch(copied)(X)


def test_what_is_not_a_function() -> None:
    for launch in MODES.values():
        with pytest.raises(InvalidOperand, match=r"int 3; expected a function"):
            launch(3)
