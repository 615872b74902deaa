"""Calls with numbers that a line repeats: recorded at once, as if each were the first."""

from __future__ import annotations

import math

import numpy as np
import pytest

import nkilite as nki
import nkilite.isa as nisa
import nkilite.language as nl
from nkilite.errors import InvalidOperand, TensorOfLoop
from nkilite.trace.builder import Builder

INPUT = np.zeros((128, 8), np.float32)


def constants(kernel: nki.Kernel[...]) -> list[float]:
    """The numbers of a kernel's memsets, in order."""
    program = kernel.trace(INPUT)
    memsets = [i for i in program if i.signature.name == "memset"]
    return [program.constants[program.code[i.start + i.signature.immediates[0].word]] for i in memsets]


def filled(numbers: list[float], dtype: object = nl.float32) -> nki.Kernel[...]:
    @nki.jit
    def kernel(x):
        tile = nl.ndarray((128, 8), dtype=dtype, buffer=nl.sbuf)
        for number in numbers:
            nisa.memset(tile, number)
        out = nl.ndarray((128, 8), dtype=dtype, buffer=nl.shared_hbm)
        nisa.dma_copy(dst=out, src=tile)
        return out

    return kernel


def test_every_number_is_its_own() -> None:
    numbers = [1, 2.5, 0.0, -0.0, 0, 1.0, True, np.float32(2.5), -0.0, 0.0, math.inf, 2.5] * 3
    found = constants(filled(numbers))
    assert found == numbers
    assert [math.copysign(1, n) for n in found] == [math.copysign(1, n) for n in numbers]


def test_a_wrong_number_is_refused_where_right_ones_were_taken() -> None:
    with pytest.raises(InvalidOperand, match="an int, as dst is int32"):
        filled([1, 2, 1, 2, 1.5], nl.int32).trace(INPUT)
    with pytest.raises(InvalidOperand):
        filled([1, 2, 1, 2, "1"]).trace(INPUT)  # type: ignore[list-item]


def test_operands_may_be_numbers_or_tensors_in_turn() -> None:
    @nki.jit
    def kernel(x):
        tile = nl.load(x)
        column = nl.load(x[:, 0:1])
        for scale in (2.0, column, 3.0, column, 2.0, column):
            nisa.activation(tile, nl.exp, tile, scale=scale)
            nisa.activation_reduce(tile, nl.exp, tile, nl.add, column, scale=scale)
        out = nl.ndarray(x.shape, dtype=x.dtype, buffer=nl.shared_hbm)
        nisa.dma_copy(dst=out, src=tile)
        return out

    text = str(kernel.trace(INPUT))
    slow = pytest.MonkeyPatch()
    with slow.context() as patch:
        patch.setattr(Builder, "remember", lambda *_: None)
        assert str(kernel.trace(INPUT)) == text


def test_a_tile_of_a_loop_that_has_ended_is_refused() -> None:
    @nki.jit
    def kernel(x):
        kept = []

        def body(_):
            kept.append(nl.ndarray((128, 8), dtype=nl.float32, buffer=nl.sbuf))
            nisa.memset(kept[0 if len(kept) == 3 else -1], 1.0)

        for _ in range(3):
            nl.fori_loop(0, 2, body)
        out = nl.ndarray(x.shape, dtype=x.dtype, buffer=nl.shared_hbm)
        nisa.dma_copy(dst=out, src=x)
        return out

    with pytest.raises(TensorOfLoop):
        kernel.trace(INPUT)
