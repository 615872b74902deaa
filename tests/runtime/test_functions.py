"""What a kernel may be made of, and how kernels are named, pickled and copied."""

from __future__ import annotations

import copy
import functools
import pickle
import threading

import numpy as np
import pytest

import nkilite as nki
import nkilite.isa as nisa
import nkilite.language as nl
from nkilite.errors import InvalidOperand, KernelNotPickled

X = np.ones((4, 8), np.float32)


def scaled(x, factor):
    tile = nl.load(x)
    nisa.tensor_scalar(tile, tile, nl.multiply, float(factor))
    out = nl.ndarray(tile.shape, dtype=tile.dtype, buffer=nl.shared_hbm)
    nl.store(out, tile)
    return out


@nki.jit
def double(x):
    return scaled(x, 2.0)


def _logged(function):
    @functools.wraps(function)
    def call(*args):
        return function(*args)

    return call


@_logged
@nki.jit
def decorated(x):
    return scaled(x, 2.0)


def plain(x):
    return scaled(x, 2.0)


class Model:
    kernel: object

    def __init__(self, factor):
        self.factor = factor

    def forward(self, x):
        return scaled(x, self.factor)

    def __call__(self, x):
        return scaled(x, self.factor)

    @nki.jit
    def method(self, x):
        return scaled(x, self.factor)


in_jit = nki.jit(plain)
simulated = nki.simulate(double)
of_partial = nki.jit(functools.partial(scaled, factor=2.0))
of_object = nki.jit(Model(2.0))

KERNELS = {
    "of a module": double, "one core": double[1], "simulated": simulated, "made of a function": in_jit,
    "below a decorator": decorated.__wrapped__, "of a method": nki.jit(Model(2.0).forward), "of a partial": of_partial,
    "of an object": of_object, "a partial of it": functools.partial(double), "scheduled": double.with_schedule([]),
    "simulated partial": nki.simulate(of_partial),
}


@pytest.mark.parametrize("kernel", KERNELS.values(), ids=list(KERNELS))
def test_kernels_are_called_named_pickled_and_copied(kernel) -> None:
    assert kernel(X)[0, 0] == 2.0
    assert repr(kernel)
    for other in (pickle.loads(pickle.dumps(kernel)), copy.copy(kernel), copy.deepcopy(kernel)):
        assert other(X)[0, 0] == 2.0
        assert getattr(other, "simulated", None) == getattr(kernel, "simulated", None)


def test_names_are_those_of_what_is_called() -> None:
    assert pickle.loads(pickle.dumps(double)) is double
    assert pickle.loads(pickle.dumps(Model.method)) is Model.method
    assert [k.__name__ for k in (of_partial, of_object)] == ["scaled", "Model"]
    assert of_partial.location.line == scaled.__code__.co_firstlineno
    assert of_object.location.line == Model.__call__.__code__.co_firstlineno


def test_a_copied_object_has_a_kernel_of_its_own() -> None:
    model = Model(2.0)
    model.kernel = nki.jit(model.forward)
    other = copy.deepcopy(model)
    other.factor = 3.0
    assert (model.kernel(X)[0, 0], other.kernel(X)[0, 0]) == (2.0, 3.0)


def test_kernels_without_a_place_are_not_pickled() -> None:
    local = lambda x: scaled(x, 2.0)  # noqa: E731
    for function in (local, functools.partial(local), functools.lru_cache(plain)):
        inner = nki.jit(function)
        with pytest.raises(KernelNotPickled, match="top level") as caught:
            pickle.dumps(inner)
        assert caught.value.location.file == __file__
        assert copy.deepcopy(inner)(X)[0, 0] == 2.0


def _generator(x):
    yield x


async def _coroutine(x):
    return x


NO_KERNELS = (len, np.exp, int, Model, _generator, _coroutine, functools.partial(_generator), 3, None, "name", dict.get)


@pytest.mark.parametrize("function", NO_KERNELS, ids=range(len(NO_KERNELS)))
@pytest.mark.parametrize("wrap", [nki.jit, nki.simulate])
def test_what_cannot_be_a_kernel_is_refused(function, wrap) -> None:
    if function is None and wrap is nki.jit:
        pytest.skip("nki.jit() is a decorator with options")
    with pytest.raises(InvalidOperand, match=f"nki.{wrap.__name__}: the kernel is") as caught:
        wrap(function)
    assert caught.value.location.file == __file__


def test_a_kernel_without_instructions() -> None:
    assert nki.jit(lambda x: x)(X) is X


def test_a_thread_of_a_kernel_may_launch_another_one() -> None:
    results = []

    @nki.jit
    def outer(x):
        thread = threading.Thread(target=lambda: results.append(double(X)[0, 0]))
        thread.start()
        thread.join(20)
        return scaled(x, 3.0)

    assert outer(X)[0, 0] == 3.0
    assert results == [2.0]
