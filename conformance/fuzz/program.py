"""A random program: a kernel as text, step by step, and what is known of the values it makes."""

from __future__ import annotations

import linecache
from collections.abc import Callable
from enum import IntEnum
from typing import Any, NamedTuple

import numpy as np

import nkilite as nki
import nkilite.isa as nisa
import nkilite.language as nl

PARTITIONS = 128
HBM = (2 * PARTITIONS, 1024)
ARGUMENTS = "abc"


class Tile(NamedTuple):
    """What a program allocates, PARTITIONS rows each; those with an `address`, a byte of a partition, may alias."""

    buffer: str
    columns: int
    dtype: str
    address: int | None = None


class Trust(IntEnum):
    """What different ways to run a program agree about."""

    bits = 0
    magnitude = 1
    nothing = 2


class Step(NamedTuple):
    """An instruction as text.

    Attributes:
        writes, reads: what it touches: numbers of tiles, letters of tensors in HBM.
        exact: equal operands make equal results, bit by bit, in whatever way it runs.
        jumps: operands that are almost equal may make quite different results.
        whole: nothing is left of what was there before.
    """

    text: str
    writes: tuple[int | str, ...]
    reads: tuple[int | str, ...]
    exact: bool = True
    jumps: bool = False
    whole: bool = False


class Program(NamedTuple):
    """A kernel of three arguments, all of which it may write.

    Attributes:
        same: of every argument, the first one that is the same array.
        stored: numbers of the tiles that it returns, beside a tensor of its own in HBM.
        rounding: the seed with which engines round stochastically; None to round to nearest.
    """

    target: str
    same: tuple[int, int, int]
    tiles: tuple[Tile, ...]
    steps: tuple[Step, ...]
    stored: tuple[int, ...]
    rounding: int | None = None

    @property
    def options(self) -> dict[str, Any]:
        """Those of `nki.jit` and `nki.simulate`."""
        return {"stochastic_rounding": self.rounding is not None, "rounding_seed": self.rounding}

    @property
    def text(self) -> str:
        """The kernel."""
        lines = ["def kernel(a, b, c):"]
        lines += [f"    t{i} = {_allocation(tile)}" for i, tile in enumerate(self.tiles)]
        lines += [f"    d = nl.ndarray({HBM}, dtype=nl.float32, buffer=nl.hbm)", "    nisa.dma_copy(dst=d, src=a)"]
        lines += [f"    {step.text}" for step in self.steps]
        results = []
        for number in self.stored:
            tile = self.tiles[number]
            shape, source = f"({PARTITIONS}, {tile.columns})", f"t{number}"
            if tile.buffer == "psum":
                source = f"s{number}"
                lines.append(f"    {source} = nl.ndarray({shape}, dtype=nl.{tile.dtype}, buffer=nl.sbuf)")
                lines.append(f"    nisa.tensor_copy(dst={source}, src=t{number})")
            results.append(_result(lines, f"o{number}", shape, tile.dtype, source))
        results.append(_result(lines, "od", str(HBM), "float32", "d"))
        return "\n".join([*lines, f"    return {', '.join(results)},", ""])

    def function(self) -> Callable[..., Any]:
        """The kernel, to be run."""
        text, name = self.text, "<random program>"
        namespace: dict[str, Any] = {"nki": nki, "nisa": nisa, "nl": nl}
        exec(compile(text, name, "exec"), namespace)
        linecache.cache[name] = len(text), None, text.splitlines(True), name
        return namespace["kernel"]

    def arguments(self) -> list[np.ndarray]:
        """Arrays to call it with, fresh ones."""
        draw = np.random.default_rng(0)
        apart = [draw.integers(-64, 64, HBM).astype(np.float32) / 64 for _ in ARGUMENTS]
        return [apart[i] for i in self.same]

    def result(self, number: int) -> str:
        """What a result, or an argument after them, is called."""
        return [*(f"t{i}" for i in self.stored), "d", *ARGUMENTS][number]

    def trust(self) -> list[Trust]:
        """What can be expected of every result, and then of what is in every argument afterwards."""
        known: dict[int | str, Trust] = {}

        def place(name: int | str) -> int | str:
            if isinstance(name, str):
                return ARGUMENTS[self.same[ARGUMENTS.index(name)]] if name in ARGUMENTS else name
            return "window" if self.tiles[name].address is not None else name

        for step in self.steps:
            found = max((known.get(place(name), Trust.bits) for name in step.reads), default=Trust.bits)
            if step.jumps and found:
                found = Trust.nothing
            elif not step.exact:
                found = max(found, Trust.magnitude)
            for name in map(place, step.writes):
                before = Trust.bits if step.whole and name != "window" else known.get(name, Trust.bits)
                known[name] = max(found, before)
        return [known.get(place(name), Trust.bits) for name in (*self.stored, "d", *ARGUMENTS)]


def _allocation(tile: Tile) -> str:
    address = "" if tile.address is None else f", address=(0, {tile.address})"
    return f"nl.ndarray(({PARTITIONS}, {tile.columns}), dtype=nl.{tile.dtype}, buffer=nl.{tile.buffer}{address})"


def _result(lines: list[str], name: str, shape: str, dtype: str, source: str) -> str:
    lines.append(f"    {name} = nl.ndarray({shape}, dtype=nl.{dtype}, buffer=nl.shared_hbm)")
    lines.append(f"    nisa.dma_copy(dst={name}, src={source})")
    return name
