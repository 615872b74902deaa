"""Errors and warnings leave their process, and are copied, as they are."""

from __future__ import annotations

import copy
import importlib
import multiprocessing
import pickle
import pkgutil
import string
import threading
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import suppress

import numpy as np
import pytest

import autotune
import nkilite as nki
import nkilite.language as nl
from nkilite.errors import InternalError, InvalidOperand, NkiError, PartitionLimitExceeded
from nkilite.location import Location

WAYS = {
    "pickled": lambda error: pickle.loads(pickle.dumps(error)),
    "copied": copy.copy,
    "deeply copied": copy.deepcopy,
}


def _load_all() -> None:
    for package in (nki, autotune):
        for module in pkgutil.walk_packages(package.__path__, package.__name__ + "."):
            if not module.name.endswith("__main__"):
                with suppress(ImportError):  # extras that are not installed
                    importlib.import_module(module.name)


def _subclasses(kind: type) -> set[type]:
    return {kind}.union(*(_subclasses(k) for k in kind.__subclasses__()))


def _raised(kind: type[BaseException]) -> BaseException:
    """An instance, made as the class says; of fields that its texts name, each has another text."""
    if not issubclass(kind, NkiError):
        return kind("a {message} with braces")
    fields = {n for text in (kind.template, kind.remedy) for _, n, *_ in string.Formatter().parse(text) if n}
    error = kind(**{name: f"<{name} {{braces}}>" for name in fields})
    error.location = Location("/a/file.py", 12, "kernel")
    return error


def _same(one: BaseException, two: BaseException) -> None:
    assert type(one) is type(two)
    assert str(one) == str(two)
    assert one.args == two.args
    assert vars(one) == vars(two)


def test_every_class_arrives_as_it_was() -> None:
    _load_all()
    ours = ("nkilite.", "autotune.")
    kinds = {kind for kind in _subclasses(Exception) if kind.__module__.startswith(ours)}
    assert len(kinds) > 70
    for kind in kinds:
        error = _raised(kind)
        error.__cause__ = ValueError("below")
        error.__notes__ = ["a note"]
        for way in WAYS.values():
            arrived = way(error)
            _same(error, arrived)
            if isinstance(error, NkiError):
                assert str(arrived.__cause__) == "below"
                assert arrived.location is error.location or arrived.location == error.location


class _Loses(Exception):
    """An exception that pickle takes and cannot give back."""

    def __init__(self, one: int, two: int) -> None:
        super().__init__(one + two)


@pytest.mark.parametrize("value", [threading.Lock(), lambda: None, _Loses(1, 2)], ids=["lock", "lambda", "exception"])
def test_what_cannot_leave_the_process_arrives_as_text(value: object) -> None:
    error = InvalidOperand(instruction="nisa.memset", operand="value", found=value, expected="a number")
    error.__cause__ = _Loses(1, 2)
    arrived = pickle.loads(pickle.dumps(error))
    assert str(arrived) == str(error)
    assert isinstance(arrived.fields["found"], str)
    assert arrived.__cause__ is None
    assert copy.copy(error).fields["found"] is value


@nki.jit
def wrong(x):
    return nl.ndarray((256, 4), dtype=nl.float32, buffer=nl.sbuf)


@nki.jit
def failing(x):
    raise InternalError(type="TypeError", message=_Loses(1, 2)) from _Loses(1, 2)


X = np.ones((4, 8), np.float32)


def test_an_error_crosses_process_pools() -> None:
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=context) as executor:
        with pytest.raises(PartitionLimitExceeded, match=r"test_errors_travel\.py:\d+") as caught:
            executor.submit(wrong, X).result(timeout=60)
        assert caught.value.fields["limit"] == 128
        with pytest.raises(InternalError):
            executor.submit(failing, X).result(timeout=60)


def test_a_line_of_python_itself_is_nobodys_mistake() -> None:
    @nki.jit
    def kernel(x):
        return x

    with ThreadPoolExecutor(1) as pool:
        for arguments in ((np.zeros((2, 2)),), (np.zeros((2, 2), np.float32), 3)):
            error = pool.submit(kernel, *arguments).exception()
            assert isinstance(error, NkiError)
            assert not error.location.line
            assert "thread.py" not in str(error)
