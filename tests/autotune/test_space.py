"""Spaces: kinds of parameters, conditions, constraints, inference, the command line's notation, mistakes."""

from __future__ import annotations

import importlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

import nkilite as nki
from autotune.errors import InvalidParameterSpec, InvalidSpace, NoSpace, UnknownParameter
from autotune.explore.samplers import BEST, Suggester
from autotune.space import Space, choice, infer, integers, parse_parameter, powers_of_two


def test_kinds_of_parameters() -> None:
    assert tuple(integers(2, 9, 3).values) == (2, 5, 8)
    assert powers_of_two(3, 40).values == (4, 8, 16, 32)
    assert powers_of_two(1, 1).values == (1,)
    assert choice([1, 2, 8]).ordered
    assert not choice([2, 1]).ordered
    assert not choice(["a", "b"]).ordered
    assert not choice([False, True]).ordered


@given(st.integers(1, 1000), st.integers(0, 1000))
def test_powers_of_two_are_those_in_the_range(low: int, more: int) -> None:
    wanted = tuple(1 << n for n in range(12) if low <= 1 << n <= low + more)
    if wanted:
        assert powers_of_two(low, low + more).values == wanted
    else:
        with pytest.raises(InvalidSpace):
            powers_of_two(low, low + more)


def test_conditional_parameters_are_absent_where_they_do_not_apply() -> None:
    space = Space({
        "MODE": ["a", "b"],
        "DEPTH": choice([1, 2], when={"MODE": "b"}),
        "INNER": choice([5, 6], when=lambda DEPTH: DEPTH == 2),
    })
    assert list(space) == [
        {"MODE": "a"},
        {"MODE": "b", "DEPTH": 1},
        {"MODE": "b", "DEPTH": 2, "INNER": 5},
        {"MODE": "b", "DEPTH": 2, "INNER": 6},
    ]
    assert space.size == 8
    assert space.complete({"MODE": "b", "DEPTH": 2, "INNER": 6}) == {"MODE": "b", "DEPTH": 2, "INNER": 6}
    assert space.complete({"MODE": "a", "DEPTH": 2}) == {"MODE": "a"}
    assert space.positions({"MODE": "b", "DEPTH": 2}) == (1, 1, -1)


def test_constraints_name_themselves() -> None:
    def fits_psum(A, B):
        """A times B tiles fit PSUM."""
        return A * B <= 8

    space = Space({"A": [1, 2, 4], "B": [1, 2, 4]}, constraints=[fits_psum, "A != 4 or max(A, B) > 9", {"B": [1, 2]}])
    assert space.violated({"A": 1, "B": 1}) is None
    assert space.violated({"A": 4, "B": 4}).text == "A times B tiles fit PSUM"
    assert space.violated({"A": 4, "B": 1}).text == "A != 4 or max(A, B) > 9"
    assert space.violated({"A": 1, "B": 4}).text == "B in [1, 2]"
    assert space.violated({"A": 4}) is None


def test_neighbours_differ_in_one_parameter() -> None:
    space = Space({"N": [1, 2, 4, 8], "MODE": ["a", "b", "c"]})
    near = list(space.neighbours({"N": 4, "MODE": "b"}))
    assert near == [
        {"N": 1, "MODE": "b"}, {"N": 2, "MODE": "b"}, {"N": 8, "MODE": "b"},
        {"N": 4, "MODE": "a"}, {"N": 4, "MODE": "c"},
    ]


def test_neighbours_of_a_size_are_beside_it_half_and_twice_of_it_and_the_ends() -> None:
    space = Space({"N": integers(1, 100)})
    assert [c["N"] for c in space.neighbours({"N": 20})] == [1, 10, 19, 21, 40, 100]
    assert [c["N"] for c in space.neighbours({"N": 1})] == [2, 100]
    assert [c["N"] for c in space.neighbours({"N": 100})] == [1, 50, 99]


def test_half_of_the_suggestions_after_the_start_are_beside_the_best() -> None:
    space = Space({"A": integers(1, 30), "B": integers(1, 30)})
    suggester = Suggester(space, "tpe", seed=0, trials=30)
    accepted: list[tuple[float, dict]] = []
    beside = 0
    for done in range(40):
        found = suggester.ask()
        assert found is not None and found not in [c for _, c in accepted]
        best = sorted(accepted, key=lambda a: a[0])[:BEST]
        beside += done >= 10 and any(found in space.neighbours(c) for _, c in best)
        cost = float((found["A"] - 17) ** 2 + (found["B"] - 3) ** 2)
        suggester.tell(found, (cost,))
        accepted.append((cost, found))
    assert beside >= 15
    assert min(accepted, key=lambda a: a[0])[0] <= 2


def test_defaults_come_from_the_parameter_then_the_signature(kernel) -> None:
    space = Space({"CHUNK": choice([32, 64], default=32), "COPIES": [2, 3]})
    assert space.default(kernel.signature) == {"CHUNK": 32, "COPIES": 1}


def test_inference(kernel) -> None:
    inferred = infer(kernel)
    assert inferred.parameters["CHUNK"].values == (1, 2, 4, 8, 16, 32, 64, 128, 256)
    assert inferred.parameters["COPIES"].values == (1, 2, 4)
    assert "factor" not in inferred.parameters
    matmul = importlib.import_module("kernels.matmul")
    assert {n: p.values for n, p in infer(matmul.matmul).parameters.items()} == matmul.SPACE
    with pytest.raises(NoSpace) as caught:
        infer(matmul.matmul_tiled)
    assert caught.value.location.source == "def matmul_tiled(lhsT, rhs):"


def test_inference_of_flags_and_odd_defaults() -> None:
    @nki.jit
    def kernel(x, SIZE=3, FLAG=True, NAME="n", other=4):
        return x

    parameters = infer(kernel).parameters
    assert {n: p.values for n, p in parameters.items()} == {"SIZE": (1, 2, 3, 4, 8), "FLAG": (False, True)}


@pytest.mark.parametrize(
    ("spec", "name", "values"),
    [
        ("A=1,2,4", "A", (1, 2, 4)),
        ("A=x,y", "A", ("x", "y")),
        ("A=True,None", "A", (True, None)),
        ("A=1..4", "A", (1, 2, 3, 4)),
        ("A=2..64:20", "A", (2, 22, 42, 62)),
        ("TILES=pow2:2..16", "TILES", (2, 4, 8, 16)),
    ],
)
def test_notation_of_the_command_line(spec: str, name: str, values: tuple) -> None:
    found, parameter = parse_parameter(spec)
    assert (found, tuple(parameter.values)) == (name, values)


@pytest.mark.parametrize("spec", ["A", "A=", "=1", "A=4..1", "A=1..x", "A=1,1", "A=pow2:0..4", "A=1..9:0"])
def test_unreadable_parameters(spec: str) -> None:
    with pytest.raises(InvalidParameterSpec, match="write NAME=1,2,4"):
        parse_parameter(spec)


@pytest.mark.parametrize(
    ("parameters", "constraints", "problem"),
    [
        ({}, (), "no parameters"),
        ({"A": []}, (), "no values"),
        ({"A": [1, 1]}, (), "repeat"),
        ({"A": 3}, (), "not a collection"),
        ({"A": [object()]}, (), "is not a number"),
        ({"A": choice([1], when={"B": 1}), "B": [1]}, (), "must stand before it"),
        ({"A": [1]}, ["A <"], "not an expression"),
        ({"A": [1]}, ["A < B"], r"names \['B'\]"),
    ],
)
def test_mistakes(parameters: dict, constraints: list, problem: str) -> None:
    with pytest.raises(InvalidSpace, match=problem):
        Space(parameters, constraints)


def test_default_must_be_a_value() -> None:
    with pytest.raises(InvalidSpace, match="default 3"):
        choice([1, 2], default=3)


def test_parameters_must_be_the_kernels(kernel) -> None:
    with pytest.raises(UnknownParameter, match=r"'TILES'.*'scaled'"):
        Space({"TILES": [1]}).fitting(kernel)
