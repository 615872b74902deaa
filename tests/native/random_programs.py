"""Tile programs drawn at random: views that overlap, chains of every kind of instruction that passes group.

A program is data that `run` interprets while it is traced: tiles, steps, and which tiles are stored at the end.
Every tile is written as a whole before anything else, so that no value depends on memory nobody wrote.
"""

from __future__ import annotations

from random import Random
from typing import NamedTuple

import numpy as np

import nkilite.isa as nisa
import nkilite.language as nl

P = 128
HBM = (2 * P, 1024)
_COLUMNS = (48, 64, 100, P, P, 256, 512, 512)
_ROWS = (None, None, None, None, (0, 64), (64, P), (0, 32))
_ELEMENTWISE = ("relu", "square", "copy", "exp", "tanh")


class Tile(NamedTuple):
    """What a program allocates, P partitions each."""

    buffer: str
    columns: int
    dtype: str


class View(NamedTuple):
    """Partitions and columns of a tile, by its number."""

    tile: int
    rows: tuple[int, int]
    columns: tuple[int, int]


class Drawn(NamedTuple):
    """A program: steps are a name and what `_STEPS` takes."""

    tiles: tuple[Tile, ...]
    steps: tuple[tuple, ...]
    stored: tuple[int, ...]


def arguments() -> tuple[np.ndarray, np.ndarray]:
    """Two inputs of every program."""
    draw = np.random.default_rng(0)
    return tuple(draw.uniform(-1, 1, HBM).astype(np.float32) for _ in range(2))


def run(a, b, program):
    """The kernel."""
    tiles = [nl.ndarray((P, t.columns), getattr(nl, t.dtype), getattr(nl, t.buffer)) for t in program.tiles]
    between = nl.ndarray(HBM, dtype=nl.float32, buffer=nl.hbm)
    nisa.dma_copy(dst=between, src=a)

    def at(value):
        if not isinstance(value, View):
            return value
        return tiles[value.tile][slice(*value.rows), slice(*value.columns)]

    for name, *operands in program.steps:
        _STEPS[name]((a, b, between), *map(at, operands))
    outs = []
    for source in (*(tiles[i] for i in program.stored), between):
        if source.buffer == nl.psum:
            copied = nl.ndarray(source.shape, dtype=source.dtype, buffer=nl.sbuf)
            nisa.tensor_copy(dst=copied, src=source)
            source = copied
        outs.append(nl.ndarray(source.shape, dtype=source.dtype, buffer=nl.shared_hbm))
        nisa.dma_copy(dst=outs[-1], src=source)
    return tuple(outs)


def _in_hbm(tensor, corner, shape):
    return tensor[corner[0] : corner[0] + shape[0], corner[1] : corner[1] + shape[1]]


_STEPS = {
    "load": lambda hbm, to, which, corner: nisa.dma_copy(dst=to, src=_in_hbm(hbm[which], corner, to.shape)),
    "put": lambda hbm, source, corner: nisa.dma_copy(dst=_in_hbm(hbm[2], corner, source.shape), src=source),
    "fill": lambda hbm, to, value: nisa.memset(dst=to, value=value),
    "copy": lambda hbm, to, source: nisa.tensor_copy(dst=to, src=source),
    "apply": lambda hbm, to, source, op: nisa.activation(dst=to, op=getattr(nl, op), data=source, scale=0.5),
    "scale": lambda hbm, to, source, by, op: nisa.tensor_scalar(dst=to, data=source, op0=getattr(nl, op), operand0=by),
    "combine": lambda hbm, to, x, y, op: nisa.tensor_tensor(dst=to, data1=x, data2=y, op=getattr(nl, op)),
    "reduce": lambda hbm, to, source, op: nisa.tensor_reduce(dst=to, op=getattr(nl, op), data=source, axis=1),
    "turn": lambda hbm, to, source: nisa.nc_transpose(dst=to, data=source),
    "multiply": lambda hbm, to, left, right, adds: nisa.nc_matmul(to, left, right, accumulate=adds),
}


def draw(seed: int) -> Drawn:
    """The program of a seed."""
    return _Drawing(Random(seed)).program()


class _Drawing:
    """A program being drawn; a step that no tiles suit is left out."""

    def __init__(self, random: Random) -> None:
        self._random = random
        usual = random.choice(("float32", "bfloat16"))
        self._tiles = [self._tile(usual) for _ in range(random.randint(3, 9))]
        self._sums = len(self._tiles)  # one column, for reductions
        self._tiles.append(Tile("sbuf", 1, "float32"))
        self._steps: list[tuple] = []

    def _tile(self, usual: str) -> Tile:
        choose = self._random.choice
        if choose(range(4)) == 0:
            return Tile("psum", choose((P, 256, 512)), "float32")
        return Tile("sbuf", choose((48, 100, P, P, 256, 512, 512)), choose((usual, usual, usual, "float32")))

    def program(self) -> Drawn:
        choose = self._random.choice
        for number in range(len(self._tiles)):
            whole = self._view(number, self._tiles[number].columns)
            if self._tiles[number].buffer == "sbuf" and choose(range(3)):
                self._steps.append(("load", whole, choose((0, 1)), choose(((0, 0), (P, 16), (100, 333)))))
            else:
                self._steps.append(("fill", whole, choose((0.0, 0.5))))
        kinds = (self._move, self._elementwise, self._elementwise, self._reduce, self._turn, self._multiply)
        for _ in range(self._random.randint(4, 24)):
            choose(kinds)()
        stored = [i for i in range(len(self._tiles)) if choose((True, True, False))]
        return Drawn(tuple(self._tiles), tuple(self._steps), tuple(stored))

    def _choose_tile(self, columns: int, *, buffer: str = "", dtype: str = "") -> int | None:
        found = [
            i for i, t in enumerate(self._tiles[: self._sums])
            if t.columns >= columns and buffer in ("", t.buffer) and dtype in ("", t.dtype)
        ]
        return self._random.choice(found) if found else None

    def _view(self, tile: int, columns: int, rows: tuple[int, int] | None = None) -> View:
        left = self._tiles[tile].columns - columns
        first = self._random.choice((0, left, self._random.randint(0, left), self._random.randint(0, left) // 16 * 16))
        return View(tile, rows or (0, P), (first, first + columns))

    def _views(self, count: int) -> list[View] | None:
        """Some of one shape; two of one tile are the same or apart."""
        columns, rows = self._random.choice(_COLUMNS), self._random.choice(_ROWS)
        views: list[View] = []
        for _ in range(count):
            tile = self._choose_tile(columns)
            if tile is None:
                return None
            view = self._view(tile, columns, rows)
            same = next((v for v in views if v.tile == tile and abs(v.columns[0] - view.columns[0]) < columns), view)
            views.append(same)
        return views

    def _on_psum(self, view: View) -> bool:
        return self._tiles[view.tile].buffer == "psum"

    def _move(self) -> None:
        views = self._views(2)
        if views is None:
            return
        to, source = views
        corner = self._random.choice(((0, 0), (P, 512), (100, 333)))
        kind = self._random.choice(("load", "put", "copy", "fill"))
        if kind == "copy":
            self._steps.append(("copy", to, source))
        elif kind == "fill":
            self._steps.append(("fill", to, 1.0))
        elif not self._on_psum(to):
            self._steps.append(("load", to, self._random.choice((0, 1, 2)), corner) if kind == "load" else
                               ("put", to, corner))

    def _elementwise(self) -> None:
        choose = self._random.choice
        views = self._views(3)
        if views is None:
            return
        to, x, y = views
        kind = choose(("apply", "scale", "combine"))
        if kind == "apply":
            self._steps.append(("apply", to, x, choose(_ELEMENTWISE)))
        elif kind == "scale":
            by = choose((0.5, View(self._sums, x.rows, (0, 1))))
            self._steps.append(("scale", to, x, by, choose(("add", "multiply", "maximum"))))
        elif not (self._on_psum(x) and self._on_psum(y)):
            self._steps.append(("combine", to, x, y, choose(("add", "subtract", "multiply", "maximum"))))

    def _reduce(self) -> None:
        views = self._views(1)
        if views is not None:
            to = View(self._sums, views[0].rows, (0, 1))
            self._steps.append(("reduce", to, views[0], self._random.choice(("maximum", "add"))))

    def _turn(self) -> None:
        columns = self._random.choice((P, P, 64, 48))
        source, target = self._choose_tile(columns, buffer="sbuf", dtype="float32"), self._choose_tile(P, buffer="psum")
        if source is None or target is None:
            return
        to = self._view(target, P, (0, columns))
        self._steps.append(("turn", to, self._view(source, columns)))
        self._take_away(to)

    def _multiply(self) -> None:
        choose = self._random.choice
        target, left = self._choose_tile(48, buffer="psum"), self._choose_tile(48, buffer="sbuf")
        if target is None or left is None:
            return
        dtype = self._tiles[left].dtype
        rows = min(P, self._tiles[left].columns)
        columns = choose((48, min(512, self._tiles[target].columns)))
        to = self._view(target, columns, (0, rows))
        adds = choose((True, False))
        for _ in range(self._random.randint(1, 4)):
            pair = self._choose_tile(rows, buffer="sbuf", dtype=dtype), self._choose_tile(columns, buffer="sbuf",
                                                                                            dtype=dtype)
            if pair[0] is not None and pair[1] is not None:
                self._steps.append(("multiply", to, self._view(pair[0], rows), self._view(pair[1], columns), adds))
                adds = True
        self._take_away(to)

    def _take_away(self, source: View) -> None:
        """What usually follows a result in PSUM."""
        columns = source.columns[1] - source.columns[0]
        tile = self._choose_tile(columns, buffer="sbuf")
        if tile is None or self._random.choice(range(4)) == 0:
            return
        to = self._view(tile, columns, source.rows)
        self._steps.append(self._random.choice((
            ("copy", to, source), ("scale", to, source, 0.01, "multiply"), ("combine", to, to, source, "add"),
            ("apply", to, source, "copy"),
        )))
