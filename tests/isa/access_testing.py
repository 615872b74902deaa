"""Calls of every instruction on plain arrays, for proving what their access rules claim."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from nkilite import dtypes
from nkilite.dtypes import DType, Elements
from nkilite.ir.access import Kind
from nkilite.ir.definition import REGISTRY, Role
from nkilite.ir.program import IMMEDIATE, Signature
from nkilite.ir.types import MemoryRegion, ViewType
from nkilite.machine.registers import REGISTERS
from nkilite.machine.target import get_target

Arrays = dict[str, np.ndarray]
_WORDS = 1 << 32  # registers of random numbers have all bits


class Tile(NamedTuple):
    """A tensor argument; integers in it are from `low` to `below` - 1."""

    shape: tuple[int, ...]
    dtype: DType
    region: MemoryRegion = MemoryRegion.sbuf
    low: int = 0
    below: int = 7

    @property
    def psum(self) -> Tile:
        return self._replace(region=MemoryRegion.psum)

    @property
    def hbm(self) -> Tile:
        return self._replace(region=MemoryRegion.shared_hbm)


class Call:
    """A checked call of an instruction and the values of its arguments."""

    def __init__(self, name: str, given: Mapping[str, Any], target: str = "trn2", seed: int = 0) -> None:
        definition, rng = REGISTRY[name], np.random.default_rng(seed)
        self.numbers: dict[str, float] = {}
        self.arrays: Arrays = {}
        arguments: dict[str, Any] = {}
        for p in definition.parameters:
            value = given.get(p.name, None if p.default is inspect.Parameter.empty else p.default)
            if isinstance(value, Tile):
                self.arrays[p.name] = values(value, rng, 1 << 3 * seed)
                value = ViewType.dense(value.region, value.dtype, value.shape)
            elif p.role in (Role.immediate, Role.scalar_or_tensor) and value is not None:
                self.numbers[p.name], value = float(value), IMMEDIATE
            arguments[p.name] = value
        if "normalize" in definition.rules:
            definition.rules["normalize"](arguments, get_target(target))
        registers = definition.registers(arguments)
        if registers is not None:
            file = REGISTERS[registers]
            arguments["registers"] = ViewType.dense(MemoryRegion.registers, file.dtype, (128, file.columns))
            self.arrays["registers"] = values(Tile((128, file.columns), file.dtype, below=_WORDS), rng)
        self.signature = Signature(-1, definition, arguments, get_target(target), ())
        definition.rule("check")(self.signature)

    @property
    def written(self) -> list[str]:
        return [o.name for o in self.signature.operands if o.writes]

    @property
    def read(self) -> list[str]:
        return [o.name for o in self.signature.operands if o.reads]

    @property
    def tiles_written(self) -> list[str]:
        return [name for name in self.written if name != "registers"]

    def runs_over_written(self, loop: str) -> bool:
        """Whether results have an element for every position of a loop."""
        return any(self.signature.access.runs_over(operand, loop) for operand in self.written)

    def results(self, arrays: Arrays, **changed: object) -> Arrays:
        """What the reference rule makes of arrays, which may be smaller than those of the call."""
        types = {**self.signature.arguments, **changed}
        for name, array in arrays.items():
            if name != "registers":
                types[name] = ViewType.dense(types[name].region, types[name].dtype, array.shape)
        smaller = Signature(-1, self.signature.definition, types, self.signature.target, ())
        copies = {name: array.copy() for name, array in arrays.items()}
        found = smaller.definition.rule("reference")(smaller, **{**types, **self.numbers, **copies})
        found = found if isinstance(found, tuple) and not isinstance(found, Elements) else (found,)
        return {
            name: dtypes.cast(result, types[name].dtype).reshape(arrays[name].shape)
            for name, result in zip(self.written, found, strict=True)
        }

    def loops(self, kind: Kind) -> list[tuple[str, int]]:
        """Those of a kind that have several positions, and how many."""
        access = self.signature.access
        return [(loop, n) for loop, n in access.extents.items() if access.kind(loop) is kind and n > 1]

    def cut(self, operand: str, array: np.ndarray, loop: str, first: int, end: int) -> np.ndarray:
        """The part of an operand at some positions of a loop, one dimension for each that the rule names."""
        access = self.signature.access
        if not access.runs_over(operand, loop):
            return array
        if operand == "registers":  # a call uses the first ones
            return np.roll(array, -first, axis=0)
        for axis, term in enumerate(access.dimensions(operand)):
            if term.loop == loop:
                array = array.reshape(access.shape(operand))
                array = array[(slice(None),) * axis + (slice(first * term.block, end * term.block),)]
        return array

    def same_part(self, operand: str, part: np.ndarray, whole: np.ndarray, loop: str, first: int, end: int) -> None:
        """Require that what was made of a part is that part of what is made of the whole, bit by bit.

        Results that do not run over the loop combine all of it.
        """
        if not self.signature.access.runs_over(operand, loop):
            return
        expected = self.cut(operand, whole, loop, first, end)
        if operand == "registers":
            part, expected = part[: end - first], expected[: end - first]
        same_bits(part, expected, f"{self} {operand} at {loop} {first}:{end}")

    def __str__(self) -> str:
        return str(self.signature)


def values(tile: Tile, rng: np.random.Generator, scale: int = 1) -> np.ndarray:
    """Numbers that operators are defined for, and whose products have sums without a rounding error.

    Args:
        scale: of those that are no integers.
    """
    dtype = tile.dtype
    if dtype.kind == "x":
        return rng.integers(56, 64, (*tile.shape, dtype.itemsize), np.uint8).view(dtype.numpy)[..., 0]
    if dtype.is_integer:
        return rng.integers(tile.low, tile.below, tile.shape).astype(dtype.numpy)
    return dtypes.cast((rng.integers(1, 12, tile.shape) / 4 * scale).astype(np.float32), dtype)


def bits(array: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(array).view(f"u{array.dtype.itemsize}")


def same_bits(got: np.ndarray, expected: np.ndarray, what: str) -> None:
    np.testing.assert_array_equal(bits(got).reshape(-1), bits(expected).reshape(-1), err_msg=what)
