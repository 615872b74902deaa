"""Loop nests visit the same elements in the same order as NumPy's row-major order."""

from __future__ import annotations

from itertools import product
from math import prod

from hypothesis import given
from hypothesis import strategies as st

from nkilite.ir import nest


def addresses(shape: tuple[int, ...], strides: tuple[int, ...]) -> list[int]:
    return [sum(i * s for i, s in zip(index, strides, strict=True)) for index in product(*map(range, shape))]


def walked(dims: list[nest.Dim], operand: int) -> list[int]:
    return addresses(tuple(d.count for d in dims), tuple(d.strides[operand] for d in dims))


@st.composite
def split_shapes(draw) -> tuple[list[tuple[int, ...]], list[tuple[int, ...]]]:
    """Several shapes of one element count, made by merging neighbouring factors, with arbitrary strides."""
    factors = draw(st.lists(st.integers(1, 4), min_size=1, max_size=5))
    shapes, strides = [], []
    for _ in range(draw(st.integers(1, 3))):
        shape = [factors[0]]
        for factor in factors[1:]:
            if draw(st.booleans()):
                shape[-1] *= factor
            else:
                shape.append(factor)
        shapes.append(tuple(shape))
        strides.append(tuple(draw(st.sampled_from([-8, 0, 4, 12, 64, 100])) for _ in shape))
    return shapes, strides


@given(split_shapes())
def test_unify_keeps_the_order_of_elements(case) -> None:
    shapes, strides = case
    dims = nest.unify(list(zip(shapes, strides, strict=True)))
    assert dims is not None
    for operand, (shape, stride) in enumerate(zip(shapes, strides, strict=True)):
        assert walked(dims, operand) == addresses(shape, stride)


@given(split_shapes(), st.integers(1, 16))
def test_reordering_covers_the_same_pairs(case, least: int) -> None:
    shapes, strides = case
    dims = nest.unify(list(zip(shapes, strides, strict=True)))
    assert dims is not None
    moved = nest.contiguous_last(dims, [4] * len(shapes), least)
    before = sorted(zip(*(walked(dims, o) for o in range(len(shapes))), strict=True))
    after = sorted(zip(*(walked(moved, o) for o in range(len(shapes))), strict=True))
    assert before == after


def test_boundaries_that_do_not_nest() -> None:
    assert nest.unify([((3, 4), (20, 4)), ((4, 3), (16, 4))]) is None


def test_dense_operands_become_one_loop() -> None:
    dims = nest.unify([((128, 4, 32), (512, 128, 4)), ((128, 128), (512, 4))])
    assert dims == [nest.Dim(128 * 128, (4, 4))]
    assert prod(d.count for d in dims) == 128 * 128
