"""Functions of numbers and arrays: machine code does what Python does, bit for bit, and refuses what it cannot."""

from __future__ import annotations

import ctypes
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nkilite.compiled import Compiled, Floats, Instruction, Ints, NotTranslatable, compiled, function

SMALL = st.integers(-50, 50)
FACTOR = 3
HALF = 0.5


@compiled
def divided(numbers: Ints, results: Ints, count: int) -> int:
    """Rounding, bits, and a loop variable that outlives its loop."""
    for i in range(count):
        number, divisor = numbers[2 * i], numbers[2 * i + 1]
        if divisor:
            results[4 * i], results[4 * i + 1] = number // divisor, number % divisor
        results[4 * i + 2] = (number << 3) ^ (number >> 1) | ~divisor & 7
        results[4 * i + 3] = (number * number).bit_length() + min(number, divisor, FACTOR) - max(number, divisor)
    return -i


@compiled
def chosen(numbers: Floats, results: Floats, count: int) -> float:
    """Conditions, nested loops and floating-point arithmetic."""
    total, seen = 0.0, 0
    for i in range(0, count, 2):
        at = numbers[i]
        if at != at or not -20 < at <= 20:
            results[i] = HALF if at > 0 or (at < -30 and seen > 1) else -at / 3
            continue
        seen += 1
        while at > 1:
            at -= 1 + seen
            if at < -1:
                break
        else_value = float(int(at * 2)) + 0.1 * seen
        results[i] += else_value
        total += results[i] * at + truth(seen == 3, i)
    return total


@compiled
def truth(known: bool, number: int) -> int:
    if known:
        return number
    elif number > 4:
        return 2
    return known + FACTOR


def both(function: Compiled[..., Any], *args: Any) -> Any:
    """What a function returns and leaves in its arrays: as machine code, after the same was seen in Python."""
    given = [a.copy() if isinstance(a, np.ndarray) else a for a in args]
    lists = [a.tolist() if isinstance(a, np.ndarray) else a for a in args]
    found, expected = function(*given), function(*lists)
    for array, values in zip(given, lists, strict=True):
        if isinstance(array, np.ndarray):
            assert repr(array.tolist()) == repr(values)
    assert repr(found) == repr(expected)
    return found


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(SMALL, SMALL), min_size=1, max_size=8))
def test_ints_are_those_of_python(pairs: list[tuple[int, int]]) -> None:
    numbers = np.array(pairs, np.int64).reshape(-1)
    both(divided, numbers, np.zeros(4 * len(pairs), np.int64), len(pairs))


@settings(max_examples=60, deadline=None)
@given(st.lists(st.floats(-40, 40) | st.just(math.nan), max_size=9))
def test_floats_and_branches_are_those_of_python(numbers: list[float]) -> None:
    both(chosen, np.array(numbers, np.float64), np.zeros(len(numbers)), len(numbers))


load = Instruction("load i64, ptr {0}, align 8", ("ptr",), "i64")
load_half = Instruction("load i32, ptr {0}, align 4", ("ptr",), "i32")
store = Instruction("store i64 {1}, ptr {0}, align 8", ("ptr", "i64"), "void")
swap = Instruction(
    "{t} = cmpxchg ptr {0}, i64 {1}, i64 {2} acq_rel monotonic\nextractvalue {{ i64, i1 }} {t}, 1",
    ("ptr", "i64", "i64"), "i1",
)
turned = Instruction("call i32 @llvm.bswap.i32(i32 {0})", ("i32",), "i32", ("declare i32 @llvm.bswap.i32(i32)",))


@compiled
def in_memory(address: int, before: int, after: int) -> int:
    if not swap(address, before, after):
        return -load_half(address)
    store(address + 8, turned(after))
    return load(address + 8)


def test_instructions_that_python_does_not_have() -> None:
    memory = np.array([1 << 32 | 7, 0], np.int64)
    call = ctypes.CFUNCTYPE(ctypes.c_int64, *[ctypes.c_int64] * 3)(in_memory.address)
    assert call(memory.ctypes.data, 5, 6) == -7
    assert call(memory.ctypes.data, 1 << 32 | 7, 1 << 40 | 1) == 1 << 24
    assert memory.tolist() == [1 << 40 | 1, 1 << 24]
    with pytest.raises(TypeError, match="no meaning in Python"):
        in_memory(memory.ctypes.data, 0, 0)


def test_large_inputs_run_as_machine_code_and_leave_the_same() -> None:
    given, results = np.arange(8), [np.zeros(16, np.int64) for _ in range(2)]
    assert divided.run(4, given, results[0], 4) == divided.run(10**9, given, results[1], 4) == -3
    assert (results[0] == results[1]).all()


def test_an_array_of_another_kind_is_refused() -> None:
    with pytest.raises(TypeError, match="contiguous array of int64"):
        divided(np.zeros(4), np.zeros(8, np.int64), 2)
    with pytest.raises(TypeError, match="contiguous array of int64"):
        divided(np.zeros(8, np.int64)[::2], np.zeros(8, np.int64), 2)


@compiled
def powers(numbers: Ints, count: int) -> int:
    return numbers[0] ** count


@compiled
def endless(numbers: Ints) -> int:
    for number in numbers:
        return number
    return 0


@compiled
def half_open(numbers: Ints) -> int:
    if numbers[0]:
        return 1


@compiled
def mixed(numbers: Ints) -> int:
    found = 1
    found = numbers[0] / 2
    return found


@pytest.mark.parametrize(
    ("function", "what"),
    [(powers, "Pow of ints"), (endless, "a loop over anything but a range"),
     (half_open, "a function that may end without its result"), (mixed, "double where i64 is wanted")],
)
def test_what_has_no_translation_is_refused(function: Compiled[..., Any], what: str) -> None:
    with pytest.raises(NotTranslatable, match=rf"{function.__name__}, line \d+: {what} has no translation"):
        function(np.ones(3, np.int64), *([1] if function is powers else []))


class _Kept:
    """Keeps machine code as the disk cache does."""

    made_by = "these sources"

    def __init__(self) -> None:
        self.entries: dict[tuple[str, str], bytes] = {}

    def get(self, name: str, key: str) -> bytes | None:
        return self.entries.get((name, key))

    def put(self, name: str, key: str, content: bytes) -> None:
        self.entries[name, key] = content


def test_machine_code_is_kept_for_other_processes(monkeypatch):
    import llvmlite.binding  # noqa: F401  what is kept is asked for once LLVM is there

    kept = _Kept()
    monkeypatch.setattr(function, "keeper", [kept])
    numbers = np.array([3, 0, -7, 2, 9, -4, 1, 1], np.int64)

    def results(made: Compiled[..., Any], items: int) -> list[int]:
        found = np.zeros(16, np.int64)
        assert made.run(items, numbers, found, 4) == -3
        return list(found)

    wanted = results(Compiled(divided.python), 1)
    assert not kept.entries  # as Python
    for items in (10**9, 10**4, 10**9):  # optimized; as it is at hand; nothing new
        assert results(Compiled(divided.python), items) == wanted
        assert len(kept.entries) == 1
    kept.entries.clear()
    grown = Compiled(divided.python)
    for count, items in enumerate((10**4, 10**9), 1):  # compiled soon, and well once that has paid
        assert results(grown, items) == wanted
        assert len(kept.entries) == count
    monkeypatch.setattr(function, "_compiled", None)  # from here on nothing is compiled
    assert results(Compiled(divided.python), function.WORTH_LOADING + 1) == wanted
    monkeypatch.setitem(divided.python.__globals__, "FACTOR", 4)
    other = Compiled(divided.python)
    results(other, function.WORTH_LOADING + 1)
    assert not other._made  # that of another number is not used


def test_equal_names_at_equal_lines_of_other_files_are_other_functions(monkeypatch, tmp_path):
    monkeypatch.setattr(function, "keeper", [_Kept()])
    keys = set()
    for name, module, result in (("a", "one", 1), ("b", "one", 2), ("c", "nkilite.one", 1), ("d", "nkilite.two", 1)):
        file = tmp_path / f"{name}.py"
        file.write_text(f"def same(x: 'Ints') -> int:\n    return {result}\n")
        scope: dict[str, Any] = {"__name__": module}
        exec(compile(file.read_text(), str(file), "exec", dont_inherit=True), scope)
        keys.add(function._key(Compiled(scope["same"]), True))
    assert len(keys) == 4


def test_python_calls_python():
    assert truth._plain.__globals__ is not truth.python.__globals__
    calling = chosen._plain
    assert calling.__globals__["truth"] is truth._plain
    assert calling([0.5, 30.0, 2.5, -1.0], [0.0] * 4, 4) == chosen.python([0.5, 30.0, 2.5, -1.0], [0.0] * 4, 4)
