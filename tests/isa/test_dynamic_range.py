"""Python loops over nl.dynamic_range: their bodies run once, to their end, and nothing else runs over them."""

from __future__ import annotations

import contextlib
import inspect

import pytest
from isa_testing import BOUNDS, MODES, both, element, outputs

import nkilite as nki
import nkilite.isa as nisa
import nkilite.language as nl
from nkilite import errors

dynamic = pytest.mark.filterwarnings("ignore:nl.dynamic_range")


@dynamic
@pytest.mark.parametrize("make", [nisa.register_alloc, nisa.scalar_load])
@pytest.mark.parametrize(("lower", "upper", "step"), BOUNDS)
def test_python_runs_the_body_of_a_dynamic_range_once(make, lower, upper, step) -> None:
    bodies = []

    def kernel(first, last):
        rows = nl.zeros((1, 16), dtype=nl.int32)
        count = nl.zeros((1, 1), dtype=nl.int32)
        for i in nl.dynamic_range(make(first), make(last), step):
            bodies.append(i)
            value = nl.ndarray((1, 1), dtype=nl.int32)
            nisa.register_store(value, i)
            nisa.tensor_copy(rows[:, nl.ds(nisa.scalar_load(count), 1)], value)
            nisa.tensor_scalar(count, count, op0=nl.add, operand0=1)
        return outputs(rows, count)

    nki.jit(kernel).trace(element(lower), element(upper))
    assert len(bodies) == 1
    seen, count = both(kernel, element(lower), element(upper))
    expected = list(range(lower, upper, step))
    assert count[0, 0] == len(expected)
    assert seen[0, : len(expected)].tolist() == expected


@dynamic
def test_dynamic_ranges_nest() -> None:
    def kernel(x):
        total = nl.zeros((1, 1), dtype=nl.int32)
        end = nisa.scalar_load(x)
        for i in nl.dynamic_range(end):
            for _ in nl.dynamic_range(i, end):
                nisa.tensor_scalar(total, total, op0=nl.add, operand0=1)
        return outputs(total)

    (total,) = both(kernel, element(5))
    assert total[0, 0] == 15


def left_by_break(x):
    for _ in nl.dynamic_range(nisa.register_alloc(x)):  # here
        break
    return outputs(nl.load(x))


def left_by_return(x):
    for _ in nl.dynamic_range(nisa.register_alloc(x)):  # here
        return outputs(nl.load(x))


def left_while_it_unrolls(x):
    for i in nl.dynamic_range(3):  # here
        if i == 1:
            break
    return outputs(nl.load(x))


def left_by_an_exception(x):
    with contextlib.suppress(KeyError):
        for _ in nl.dynamic_range(nisa.register_alloc(x)):  # here
            raise KeyError
    return outputs(nl.load(x))


@dynamic
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("kernel", [left_by_break, left_by_return, left_while_it_unrolls, left_by_an_exception])
def test_a_dynamic_range_goes_on_to_its_end(mode, kernel) -> None:
    with pytest.raises(errors.LoopLeft, match="nl.while_loop") as caught:
        mode(kernel)(element(3))
    lines, first = inspect.getsourcelines(kernel)
    assert caught.value.location.line == first + next(i for i, line in enumerate(lines) if "# here" in line)


def doubled(turns):
    for i in turns:
        yield i * 2


TAKERS = {
    "list": list, "zip": lambda turns: [i for _, i in zip(range(2), turns, strict=False)], "iter": iter,
    "enumerate": lambda turns: [i for _, i in enumerate(turns)], "comprehension": lambda turns: [i * 2 for i in turns],
    "generator": lambda turns: list(doubled(turns)), "expression": lambda turns: max(i * 2 for i in turns),
    "unpacked": lambda turns: [*turns], "in": lambda turns: 7 in turns,
}


@dynamic
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("registers", [False, True])
@pytest.mark.parametrize("take", TAKERS.values(), ids=TAKERS)
def test_a_dynamic_range_is_for_a_for_statement(mode, registers, take) -> None:
    def kernel(x):
        turns = nl.dynamic_range(nisa.register_alloc(x) if registers else 3)
        take(turns)
        return outputs(nl.load(x))

    with pytest.raises(errors.LoopTaken, match="list, zip or enumerate"):
        mode(kernel)(element(3))


# A body that takes more instructions of Python than one byte counts.
LONG = "\n".join([
    "def add_often(turns, total):",
    "    for _ in turns:",
    *["        nisa.tensor_scalar(total, total, op0=nl.add, operand0=1)"] * 24,
    "    else:",
    "        nisa.tensor_scalar(total, total, op0=nl.add, operand0=1000)",
])


@dynamic
@pytest.mark.parametrize("bound", [nisa.register_alloc, lambda x: 3])
def test_a_dynamic_range_may_run_twice_with_a_long_body_and_else(bound) -> None:
    names = {"nisa": nisa, "nl": nl}
    exec(compile(LONG, "long body", "exec"), names)
    add_often = names["add_often"]

    def kernel(x):
        total = nl.zeros((1, 1), dtype=nl.int32)
        turns = nl.dynamic_range(bound(x))
        add_often(turns, total)
        for _ in turns:
            if total is not None:
                nisa.tensor_scalar(total, total, op0=nl.add, operand0=100)
                continue
        return outputs(total)

    (total,) = both(kernel, element(3))
    assert total[0, 0] == 3 * 24 + 1000 + 300


@dynamic
def test_the_tensors_of_a_dynamic_range_end_with_it() -> None:
    def kernel(x):
        for _ in nl.dynamic_range(nisa.register_alloc(x)):
            inside = nl.load(x)
        return outputs(inside)

    for mode in (nki.jit, nki.simulate):
        with pytest.raises(errors.TensorOfLoop):
            mode(kernel)(element(1))
