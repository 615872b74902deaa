"""Views of tiles go from partition to partition along dimension 0 alone: anything else is refused, in every form."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import nkilite as nki
import nkilite.isa as nisa
import nkilite.language as nl
from nkilite.errors import IrError, PartitionStrideMismatch, PatternOutOfBounds
from nkilite.ir import parse_program, verify
from nkilite.ir.program import Program
from nkilite.ir.types import ViewType
from nkilite.location import Location
from nkilite.native.compile import compile_program
from nkilite.trace.tensor import NkiTensor

ROWS = 6
Pattern = list[list[int]]


def program(columns: int, offset: int, pattern: Pattern) -> Program:
    """Copies a view of a tile to HBM."""
    counts = [n for _, n in pattern]
    return parse_program(f"""
program copy on trn2
file user.py = "user.py"
buffer %a = input shared_hbm float32[{ROWS}, {columns}]
buffer %out = internal shared_hbm float32{counts}
buffer %tile = internal sbuf float32[{ROWS}, {columns}]
output %out
dma     dma_copy(dst=%tile, src=%a)  ; user.py:7
dma     dma_copy(dst=%out, src=%tile + {offset} {pattern})  ; user.py:8
""")


def places(columns: int, offset: int, pattern: Pattern) -> tuple[np.ndarray, np.ndarray]:
    """Partition and element of what a pattern means on the chip: rows apart, and the same in each."""
    rows, inside = np.array(offset // columns), np.array(offset % columns)
    for dim, (stride, count) in enumerate(pattern):
        step = np.arange(count).reshape([-1 if d == dim else 1 for d in range(len(pattern))])
        rows = rows + (step * (stride // columns) if dim == 0 else 0 * step)
        inside = inside + (0 * step if dim == 0 else step * stride)
    return np.broadcast_arrays(rows, inside)


def wanted(columns: int, offset: int, pattern: Pattern) -> np.ndarray | None:
    """The elements of a pattern, if there are any that an instruction can follow."""
    if pattern[0][1] > 1 and pattern[0][0] % columns:
        return None
    rows, inside = places(columns, offset, pattern)
    if rows.min() < 0 or rows.max() >= ROWS or inside.min() < 0 or inside.max() >= columns:
        return None
    return np.arange(ROWS * columns, dtype=np.float32).reshape(ROWS, columns)[rows, inside]


@settings(max_examples=150, deadline=None)
@given(
    columns=st.sampled_from([4, 8]), offset=st.integers(0, 40),
    first=st.tuples(st.sampled_from([-8, -4, 0, 1, 3, 4, 5, 6, 8, 12, 16]), st.integers(1, 4)),
    free=st.lists(st.tuples(st.integers(-4, 8), st.integers(1, 4)), min_size=1, max_size=2),
)
def test_verifier_accepts_what_follows_partitions_and_nothing_else(
    columns: int, offset: int, first: tuple[int, int], free: list[tuple[int, int]]
) -> None:
    pattern = [list(pair) for pair in (first, *free)]
    want = wanted(columns, offset, pattern)
    try:
        verify(program(columns, offset, pattern))
    except (PartitionStrideMismatch, PatternOutOfBounds) as error:
        assert want is None
        assert (error.location.file, error.location.line) == ("user.py", 8)
    except IrError as error:
        assert "covers bytes" in str(error)
        assert want is None
    else:
        assert want is not None


# Whole lines of the cache apart, and in rows that are placed further apart than they are long.
@pytest.mark.parametrize("columns", [16, 1024])
@pytest.mark.parametrize(("offset", "pattern"), [
    (0, [[1, 3], [1, 4]]), (2, [[1, 1], [1, 4]]), (5, [[-1, 4], [1, 4]]), (1, [[2, 3], [2, 4]]), (3, [[0, 4], [1, 4]]),
], ids=["rows", "row", "reversed", "apart", "repeated"])
def test_what_dma_can_follow_runs(columns: int, offset: int, pattern: Pattern) -> None:
    pattern = [[pattern[0][0] * columns, pattern[0][1]], *pattern[1:]]
    a = np.arange(ROWS * columns, dtype=np.float32).reshape(ROWS, columns)
    out = np.empty([n for _, n in pattern], np.float32)
    compile_program(program(columns, offset * columns, pattern)).executable.run([a, out])
    np.testing.assert_array_equal(out, wanted(columns, offset * columns, pattern))


@pytest.mark.parametrize(("offset", "pattern", "message"), [
    (0, [[20, 4], [1, 4]], "src of nisa.dma_copy|partition stride 20 is not a multiple of 16"),
    (0, [[8, 4], [1, 4]], "partition stride 8 "),
    (8, [[16, 4], [1, 16]], "reaches element 23; tile has 16 in each partition"),
    (0, [[16, 2], [16, 2], [1, 4]], "reaches element 19"),
    (4, [[16, 2], [-1, 6]], "reaches element -1"),
], ids=str)
def test_compiler_refuses_at_the_users_line(offset: int, pattern: Pattern, message: str) -> None:
    with pytest.raises((PartitionStrideMismatch, PatternOutOfBounds), match=message) as caught:
        compile_program(program(16, offset, pattern))
    assert caught.value.location == Location("user.py", 8)


def skewed(tile: Any) -> NkiTensor:
    """What a front end with a mistake makes of a tile: a diagonal."""
    kind = ViewType.of(tile.type.region, tile.dtype, (8, 4), (tile.shape[1] + 1, 1))
    return NkiTensor.of(tile.storage, kind)


@pytest.mark.parametrize("mode", ["compiled", "simulated"])
@pytest.mark.parametrize("copy", [nisa.dma_copy, nisa.tensor_copy])
def test_front_ends_are_not_trusted(mode: str, copy: Any) -> None:
    def kernel(x: Any) -> Any:
        tile, other = (nl.ndarray((16, n), nl.float32, buffer=nl.sbuf) for n in (16, 4))
        nisa.dma_copy(tile, x)
        copy(other[:8], skewed(tile))  # here
        return x

    line = kernel.__code__.co_firstlineno + 3
    run = nki.simulate(kernel) if mode == "simulated" else nki.jit(kernel)
    with pytest.raises(PartitionStrideMismatch, match="partition stride 17 is not a multiple of 16") as caught:
        run(np.zeros((16, 16), np.float32))
    assert caught.value.location.line == line
