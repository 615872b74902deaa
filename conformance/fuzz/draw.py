"""Draws random programs: views that overlap, one array for several arguments, all that passes group or rearrange.

Every tile is written as a whole before anything else, so that no value depends on memory nobody wrote.
"""

from __future__ import annotations

from random import Random
from typing import NamedTuple

from .program import HBM, PARTITIONS, Program, Step, Tile

_COLUMNS = (48, 64, 100, 128, 128, 256, 512, 512)
_ROWS = (None, None, None, None, (0, 64), (64, PARTITIONS), (0, 32))
_ELEMENTWISE = ("relu", "square", "copy", "exp", "tanh")
_ROUGH = ("exp", "tanh")  # of these, compiled code and the reference only agree about
_FEW = (1, 4, 7, 9, 17)  # rows or columns of products that are not worth much on their way
_CORNERS = ((0, 0), (PARTITIONS, 512), (100, 333), (1, 0), (0, 16))
_SAME = (*[(0, 1, 2)] * 4, (0, 0, 2), (0, 1, 1), (0, 1, 0), (0, 0, 0))
_WORDS = 128  # columns of tiles of MX elements and scales
_OFFSETS = 4  # columns of the tile of offsets of indirect tensors: 64, or 128 for the Tensor Engine


class View(NamedTuple):
    """Partitions and columns of a tile, by its number."""

    tile: int
    rows: tuple[int, int]
    columns: tuple[int, int]

    @property
    def width(self) -> int:
        return self.columns[1] - self.columns[0]

    @property
    def height(self) -> int:
        return self.rows[1] - self.rows[0]

    def __str__(self) -> str:
        return f"t{self.tile}[{self.rows[0]}:{self.rows[1]}, {self.columns[0]}:{self.columns[1]}]"


def draw(seed: int) -> Program:
    """The program of a seed."""
    return _Drawing(Random(seed)).program()


class _Drawing:
    """A program being drawn; a step that no tiles suit is left out."""

    def __init__(self, random: Random) -> None:
        self._random = random
        self._mx = random.choice((True, False))
        self._usual = random.choice(("float32", "bfloat16"))
        self._tiles: list[Tile] = []
        self._steps: list[Step] = []
        for _ in range(random.randint(3, 9)):
            self._add(self._tile())
        self._plain = len(self._tiles)
        self._sums = self._add(Tile("sbuf", 1, "float32"))
        self._values, self._indices = self._add(Tile("sbuf", 64, "bfloat16")), self._add(Tile("sbuf", 64, "uint32"))
        self._positions = self._add(Tile("sbuf", 101, "int32"))
        self._where = self._add(Tile("sbuf", 1, random.choice(("int64", "int32"))))
        self._offset = 0  # what is in it
        self._words: list[tuple[int, int]] = []
        if self._mx:
            self._columns = self._add(Tile("sbuf", _OFFSETS, random.choice(("int32", "uint16"))))
            self._raw = self._add(Tile("sbuf", 4 * _WORDS, "bfloat16"))
            for dtype in ("float8_e4m3fn_x4", random.choice(("float8_e4m3fn_x4", "float8_e5m2_x4"))):
                self._words.append((self._add(Tile("sbuf", _WORDS, dtype)), self._add(Tile("sbuf", _WORDS, "uint8"))))

    def _add(self, tile: Tile) -> int:
        self._tiles.append(tile)
        return len(self._tiles) - 1

    def _tile(self) -> Tile:
        choose = self._random.choice
        if choose(range(4)) == 0:
            return Tile("psum", choose((128, 256, 512)), "float32")
        columns = choose((48, 100, 128, 128, 256, 512, 512))
        if choose(range(5)) == 0:
            return Tile("sbuf", columns, self._usual, choose((0, 4, 128, 400, 512, 1024, 2048)))
        return Tile("sbuf", columns, choose((self._usual, self._usual, self._usual, "float32")))

    def program(self) -> Program:
        choose = self._random.choice
        count = len(self._tiles)  # those that come later are written where they are made
        for number in range(count):
            self._begin(number)
        kinds = [
            self._move, self._shift, self._within_hbm, self._add_by_dma, self._elementwise, self._elementwise,
            self._reduce, self._turn, self._multiply, self._largest, self._nonzero, self._chain, self._turned,
            self._product, self._multiply_sparse, self._somewhere, self._somewhere_in_a_loop,
        ]
        kinds += [self._quantize, self._multiply_mx, self._indirect, self._indirect_product] if self._mx else []
        for _ in range(self._random.randint(4, 24)):
            choose(kinds)()
        results = [i for i in range(self._where + 1) if choose((True, True, False))]
        return Program(
            "trn3" if self._mx else "trn2", choose(_SAME), tuple(self._tiles), tuple(self._steps), tuple(results),
            choose((None, None, None, 7)),
        )

    def _step(
        self, text: str, writes: object, *reads: object, exact: bool = True, jumps: bool = False, whole: bool = False
    ) -> None:
        """Add an instruction that touches views, tiles by number and tensors by name; other operands do not matter."""
        to, source = (
            tuple(v.tile if isinstance(v, View) else v for v in values if isinstance(v, (View, int, str)))
            for values in (writes if isinstance(writes, list) else [writes], reads)
        )
        self._steps.append(Step(text, to, source, exact, jumps, whole))

    # --- tiles and views --------------------------------------------------------------------------------------

    def _begin(self, number: int) -> None:
        """Write all of a tile."""
        tile, whole = self._tiles[number], self._whole(number)
        words = dict(self._words)
        if number in words:
            self._step(
                f"nisa.quantize_mx(dst=t{number}, src=t{self._raw}, dst_scale=t{words[number]})",
                [number, words[number]], self._raw, jumps=True,
            )
        elif tile.buffer == "sbuf" and tile.dtype in ("float32", "bfloat16") and self._random.choice(range(3)):
            which, corner = self._random.choice("ab"), self._random.choice(_CORNERS[:3])
            self._step(f"nisa.dma_copy(dst={whole}, src={_part(which, corner, whole)})", whole, which, whole=True)
        else:
            value = 0 if "int" in tile.dtype else self._random.choice((0.0, 0.5))
            self._step(f"nisa.memset(dst={whole}, value={value})", whole, whole=True)

    def _whole(self, number: int) -> View:
        return View(number, (0, PARTITIONS), (0, self._tiles[number].columns))

    def _choose_tile(self, columns: int, *, buffer: str = "", dtype: str = "") -> int | None:
        found = [
            i for i, t in enumerate(self._tiles[: self._plain])
            if t.columns >= columns and buffer in ("", t.buffer) and dtype in ("", t.dtype)
        ]
        return self._random.choice(found) if found else None

    def _view(self, tile: int, columns: int, rows: tuple[int, int] | None = None) -> View:
        left = self._tiles[tile].columns - columns
        first = self._random.choice((0, left, self._random.randint(0, left), self._random.randint(0, left) // 16 * 16))
        return View(tile, rows or (0, PARTITIONS), (first, first + columns))

    def _views(self, count: int) -> list[View] | None:
        """Some of one shape; two of one tile are mostly the same or apart."""
        columns, rows = self._random.choice(_COLUMNS), self._random.choice(_ROWS)
        views: list[View] = []
        for _ in range(count):
            tile = self._choose_tile(columns)
            if tile is None:
                return None
            view = self._view(tile, columns, rows)
            near = (v for v in views if v.tile == tile and abs(v.columns[0] - view.columns[0]) < columns)
            views.append(view if self._random.choice(range(4)) == 0 else next(near, view))
        return views

    def _on_psum(self, view: View) -> bool:
        return self._tiles[view.tile].buffer == "psum"

    # --- steps ------------------------------------------------------------------------------------------------

    def _move(self) -> None:
        views = self._views(2)
        if views is None:
            return
        to, source = views
        which, corner = self._random.choice("abcd"), self._random.choice(_CORNERS)
        kind = self._random.choice(("load", "put", "copy", "fill"))
        if kind == "copy":
            self._step(f"nisa.tensor_copy(dst={to}, src={source})", to, source)
        elif kind == "fill":
            self._step(f"nisa.memset(dst={to}, value=1.0)", to)
        elif not self._on_psum(to) and kind == "load":
            self._step(f"nisa.dma_copy(dst={to}, src={_part(which, corner, to)})", to, which)
        elif not self._on_psum(to):
            self._step(f"nisa.dma_copy(dst={_part(which, corner, to)}, src={to})", which, to)

    def _shift(self) -> None:
        """A tile onto itself, some columns further."""
        columns = self._random.choice(_COLUMNS)
        tile = self._choose_tile(columns + 1)
        if tile is not None:
            to, source = (self._view(tile, columns, self._random.choice(_ROWS[:1])) for _ in range(2))
            op = self._random.choice((
                f"nisa.tensor_copy(dst={to}, src={source})",
                f"nisa.tensor_scalar(dst={to}, data={source}, op0=nl.multiply, operand0=0.5)",
            ))
            self._step(op, to, source)

    def _within_hbm(self) -> None:
        """Rows, columns or a square of one tensor to where they may overlap another's, shifted, turned or reversed."""
        choose = self._random.choice
        to, source = choose("abcd"), choose("abcd")
        height, width = choose(((128, 128), (128, 1000), (255, 512), (64, 256), (200, 1024)))
        at, origin = ((choose((0, 1, HBM[0] - height)), choose((0, 3, HBM[1] - width))) for _ in range(2))
        corners = [(min(r, HBM[0] - height), min(c, HBM[1] - width)) for r, c in (at, origin)]
        target = _box(to, corners[0], (height, width))
        kind = choose(("straight", "straight", "turned", "reversed"))
        if kind == "turned":
            side = min(height, width)
            target, read = (_box(n, c, (side, side)) for n, c in zip((to, source), corners, strict=True))
            read += ".permute((1, 0))"
        elif kind == "reversed":
            first = (corners[1][0] + height - 1) * HBM[1] + corners[1][1]
            read = f"{source}.ap([[-{HBM[1]}, {height}], [1, {width}]], {first})"
        else:
            read = _box(source, corners[1], (height, width))
        self._step(f"nisa.dma_copy(dst={target}, src={read})", to, source)

    def _add_by_dma(self) -> None:
        views = self._views(3)
        if views is None or any(map(self._on_psum, views)):
            return
        to, x, y = views
        which, corner = self._random.choice("abcd"), self._random.choice(_CORNERS)
        far = _part(which, corner, to)
        kind = self._random.choice(("tiles", "load", "put"))
        if kind == "tiles":
            self._step(f"nisa.dma_compute(dst={to}, srcs=[{x}, {y}], reduce_op=nl.add)", to, x, y)
        elif kind == "load":
            self._step(f"nisa.dma_compute(dst={to}, srcs=[{far}, {x}], reduce_op=nl.add)", to, which, x)
        else:
            self._step(f"nisa.dma_compute(dst={far}, srcs=[{far}, {x}], reduce_op=nl.add)", which, which, x)

    def _elementwise(self) -> None:
        choose = self._random.choice
        views = self._views(3)
        if views is None:
            return
        to, x, y = views
        kind = choose(("apply", "scale", "combine"))
        if kind == "apply":
            op = choose(_ELEMENTWISE)
            text = f"nisa.activation(dst={to}, op=nl.{op}, data={x}, scale=0.5)"
            self._step(text, to, x, exact=op not in _ROUGH)
        elif kind == "scale":
            by, op = choose((0.5, View(self._sums, x.rows, (0, 1)))), choose(("add", "multiply", "maximum"))
            self._step(f"nisa.tensor_scalar(dst={to}, data={x}, op0=nl.{op}, operand0={by})", to, x, by)
        elif not (self._on_psum(x) and self._on_psum(y)):
            op = choose(("add", "subtract", "multiply", "maximum"))
            self._step(f"nisa.tensor_tensor(dst={to}, data1={x}, data2={y}, op=nl.{op})", to, x, y)

    def _reduce(self) -> None:
        views = self._views(1)
        if views is not None:
            to, op = View(self._sums, views[0].rows, (0, 1)), self._random.choice(("maximum", "add"))
            text = f"nisa.tensor_reduce(dst={to}, op=nl.{op}, data={views[0]}, axis=1)"
            self._step(text, to, views[0], exact=op != "add")

    def _turn(self) -> None:
        columns = self._random.choice((128, 128, 64, 48))
        source = self._choose_tile(columns, buffer="sbuf", dtype="float32")
        target = self._choose_tile(PARTITIONS, buffer="psum")
        if source is None or target is None:
            return
        to, view = self._view(target, PARTITIONS, (0, columns)), self._view(source, columns)
        self._step(f"nisa.nc_transpose(dst={to}, data={view})", to, view)
        self._take_away(to)

    def _multiply(self) -> None:
        choose = self._random.choice
        target, left = self._choose_tile(48, buffer="psum"), self._choose_tile(48, buffer="sbuf")
        if target is None or left is None:
            return
        dtype = self._tiles[left].dtype
        rows = choose((choose(_FEW), *[min(PARTITIONS, self._tiles[left].columns)] * 2))
        columns = choose((choose(_FEW), 48, min(512, self._tiles[target].columns)))
        to = self._view(target, columns, (0, rows))
        adds = choose((True, False))
        for _ in range(self._random.randint(1, 4)):
            pair = [self._choose_tile(n, buffer="sbuf", dtype=dtype) for n in (rows, columns)]
            if pair[0] is not None and pair[1] is not None:
                left_view, right_view = self._view(pair[0], rows), self._view(pair[1], columns)
                text = f"nisa.nc_matmul({to}, {left_view}, {right_view}, accumulate={adds})"
                self._step(text, to, left_view, right_view, exact=False)
                adds = True
        self._take_away(to)

    def _multiply_sparse(self) -> None:
        """A product of a compressed operand, with the bits of what was just loaded for tags."""
        choose = self._random.choice
        target, rows, columns = self._choose_tile(48, buffer="psum"), choose((32, 64, 128)), choose((12, 48, 100, 128))
        if target is None or self._tiles[target].columns < columns:
            return
        moving, stationary = (self._choose_tile(n, buffer="sbuf", dtype="bfloat16") for n in (4 * columns, rows))
        tags = self._loaded("bfloat16", rows // 4)
        if moving is None or stationary is None or tags is None:
            return
        to = self._view(target, columns, (0, rows))
        left, right = self._view(stationary, rows), self._view(moving, 4 * columns)
        adds = choose((True, False))
        text = (
            f"nisa.nc_matmul_sparse({to}, {right}.reshape_dim(1, (4, {columns})), {left}, {tags}.view(nl.uint16), 4, "
            f"accumulate={adds})"
        )
        self._step(text, to, left, right, tags, exact=False, jumps=True)
        self._take_away(to)

    def _take_away(self, source: View) -> None:
        """What usually follows a result in PSUM."""
        tile = self._choose_tile(source.width, buffer="sbuf")
        if tile is None or self._random.choice(range(4)) == 0:
            return
        to = self._view(tile, source.width, source.rows)
        kind = self._random.choice(("copy", "scale", "add", "activation"))
        if kind == "copy":
            self._step(f"nisa.tensor_copy(dst={to}, src={source})", to, source)
        elif kind == "scale":
            self._step(f"nisa.tensor_scalar(dst={to}, data={source}, op0=nl.multiply, operand0=0.01)", to, source)
        elif kind == "add":
            self._step(f"nisa.tensor_tensor(dst={to}, data1={to}, data2={source}, op=nl.add)", to, to, source)
        else:
            self._step(f"nisa.activation(dst={to}, op=nl.copy, data={source}, scale=0.5)", to, source)

    def _fresh(self, columns: int, buffer: str = "sbuf", dtype: str = "float32") -> View:
        """All of a new tile."""
        return self._whole(self._add(Tile(buffer, columns, dtype)))

    def _chain(self) -> None:
        """A load, elementwise instructions on tiles that nothing else uses, and a store."""
        choose = self._random.choice
        columns, which, corner = choose((128, 256, 512)), choose("abcd"), choose(_CORNERS)
        tile = self._fresh(columns, dtype=choose(("float32", "float32", "bfloat16")))
        self._step(f"nisa.dma_copy(dst={tile}, src={_part(which, corner, tile)})", tile, which, whole=True)
        for _ in range(self._random.randint(1, 4)):
            to = choose((tile, self._fresh(columns)))
            kind = choose(("apply", "scale", "combine", "normalize"))
            if kind == "apply":
                op = choose(_ELEMENTWISE)
                text = f"nisa.activation(dst={to}, op=nl.{op}, data={tile}, scale=0.5)"
                self._step(text, to, tile, exact=op not in _ROUGH)
            elif kind == "combine":
                other = self._choose_tile(columns, buffer="sbuf")
                beside = tile if other is None else self._view(other, columns)
                self._step(f"nisa.tensor_tensor(dst={to}, data1={tile}, data2={beside}, op=nl.add)", to, tile, beside)
            else:
                by = self._fresh(1)
                self._step(f"nisa.tensor_reduce(dst={by}, op=nl.maximum, data={tile}, axis=1)", by, tile)
                text = f"nisa.tensor_scalar(dst={to}, data={tile}, op0=nl.subtract, operand0={by})"
                self._step(text, to, tile, by)
            tile = to
        which, corner = choose("abcd"), choose(_CORNERS)
        self._step(f"nisa.dma_copy(dst={_part(which, corner, tile)}, src={tile})", which, tile)

    def _turned(self) -> None:
        """Blocks of HBM transposed by way of tiles that nothing else uses."""
        choose = self._random.choice
        to, source, (row, column) = choose("abcd"), choose("abcd"), choose(((0, 0), (PARTITIONS, 256), (64, 33)))
        for block in range(choose((1, 2, 4))):
            tile, turned, back = self._fresh(128), self._fresh(128, "psum"), self._fresh(128)
            read = _part(source, (row, column + 128 * block), tile)
            self._step(f"nisa.dma_copy(dst={tile}, src={read})", tile, source, whole=True)
            self._step(f"nisa.nc_transpose(dst={turned}, data={tile})", turned, tile)
            self._step(f"nisa.tensor_copy(dst={back}, src={turned})", back, turned)
            self._step(f"nisa.dma_copy(dst={_part(to, (row, 128 * block), back)}, src={back})", to, back)

    def _product(self) -> None:
        """Matmuls of tiles that nothing else uses, and what takes their sums away."""
        choose = self._random.choice
        dtype = choose(("float32", "bfloat16"))
        rows, columns = choose((128, 128, 64, choose(_FEW))), choose((128, 256, 512, choose(_FEW)))
        to = View(self._fresh(columns, "psum").tile, (0, rows), (0, columns))
        for number in range(self._random.randint(1, 4)):
            operands = [self._fresh(n, dtype=dtype) for n in (rows, columns)]
            for operand in operands:
                self._fill(operand)
            left, right = operands
            text = f"nisa.nc_matmul({to}, {left}, {right}, accumulate={number > 0})"
            self._step(text, to, left, right, exact=False)
        if choose(range(3)):
            taken = View(self._fresh(columns).tile, to.rows, to.columns)
            op = choose(_ELEMENTWISE)
            self._step(f"nisa.activation(dst={taken}, op=nl.{op}, data={to}, scale=0.01)", taken, to,
                       exact=op not in _ROUGH)
            which = choose("abcd")
            self._step(f"nisa.dma_copy(dst={_part(which, choose(_CORNERS), taken)}, src={taken})", which, taken)
        else:
            self._take_away(to)

    def _fill(self, operand: View) -> None:
        """Load all of a tile, or transpose blocks of HBM or of another tile into it."""
        choose = self._random.choice
        which, corner, way = choose("abc"), choose(_CORNERS), choose(("load", "load", "transpose", "transpose a tile"))
        dtype = self._tiles[operand.tile].dtype
        if way == "transpose" and dtype != "float32":  # as HBM is, and it does not convert
            way = "transpose a tile"
        if way == "load":
            read = _part(which, corner, operand)
            self._step(f"nisa.dma_copy(dst={operand}, src={read})", operand, which, whole=True)
            return
        width = min(operand.width, PARTITIONS)
        for first in range(0, operand.width, width):
            to = View(operand.tile, operand.rows, (first, first + width))
            block = View(operand.tile, (0, width), operand.rows)
            source = _part(which, corner, block)
            if way == "transpose":
                self._step(f"nisa.dma_transpose(dst={to}, src={source})", to, which, whole=True)
                continue
            block = View(self._fresh(PARTITIONS, dtype=dtype).tile, *block[1:])
            self._step(f"nisa.dma_copy(dst={block}, src={source})", block, which, whole=True)
            self._step(f"nisa.dma_transpose(dst={to}, src={block})", to, block, whole=True)

    def _loaded(self, dtype: str, columns: int) -> View | None:
        """A view of values just loaded, mostly exact: what is chosen by others is not worth comparing."""
        tile = self._choose_tile(columns, buffer="sbuf", dtype=dtype)
        if tile is None or self._tiles[tile].address is not None:
            return None
        view, which = self._view(tile, columns), self._random.choice("ab")
        self._step(f"nisa.dma_copy(dst={self._whole(tile)}, src={_part(which, (0, 0), self._whole(tile))})",
                   tile, which, whole=True)
        if self._random.choice((True, False)):
            self._step(f"nisa.activation(dst={view}, op=nl.relu, data={view}, scale=0.5)", view, view)
        return view

    def _largest(self) -> None:
        k = self._random.choice((5, 16, 40))
        source = self._loaded("bfloat16", self._random.choice((48, 100, 128)))
        if source is not None:
            values, indices = (View(tile, (0, PARTITIONS), (0, k)) for tile in (self._values, self._indices))
            text = f"nisa.topk(val_dst={values}, idx_dst={indices}, src={source}, n={16 * source.width - 3})"
            self._step(text, [values, indices], source, jumps=True)
            self._take_up(values)
            self._take_up(indices)

    def _nonzero(self) -> None:
        width = self._random.choice((48, 64, 100))
        source = self._loaded("float32", width)
        if source is not None:
            to = View(self._positions, (0, PARTITIONS), (0, width + 1))
            self._step(f"nisa.nonzero_with_count(dst={to}, src={source}, index_offset=3, padding_val=-1)", to, source,
                       jumps=True)
            self._take_up(to)

    def _take_up(self, source: View) -> None:
        """Use numbers that a search has found among the others."""
        tile = self._choose_tile(source.width, buffer="sbuf", dtype="float32")
        if tile is not None and self._random.choice((True, False)):
            to = self._view(tile, source.width)
            self._step(f"nisa.tensor_scalar(dst={to}, data={source}, op0=nl.multiply, operand0=0.001)", to, source)

    def _scalar(self, highest: int) -> str:
        """An expression for a scalar between 0 and a number, and what keeps another one in its tile."""
        choose, tile = self._random.choice, f"t{self._where}[0:1, 0:1]"
        if choose((True, False)):
            self._offset = self._random.randint(0, highest)
            view = self._whole(self._where)
            self._step(f"nisa.memset(dst={view}, value={self._offset})", view, whole=True)
        factor, wanted = choose((1, 3, -2)), self._random.randint(0, highest)
        text = f"nisa.scalar_load({tile}) * {factor} + ({wanted - factor * self._offset})"
        if choose((True, False)):
            self._step(f"nisa.scalar_store({tile}, {text})", self._where, self._where)
            self._offset, text = wanted, f"nisa.scalar_load({tile})"
        return text

    def _somewhere(self) -> None:
        """A move to or from where a scalar says, by rows or by elements."""
        views = self._views(1)
        if views is None or self._on_psum(views[0]):
            return
        (view,), which, choose = views, self._random.choice("abcd"), self._random.choice
        pattern, width = f"[[{HBM[1]}, {view.height}], [1, {view.width}]]", HBM[1] - view.width
        if choose((True, False)):
            at = self._scalar(HBM[0] - view.height)
            far = f"{which}.ap({pattern}, {self._random.randint(0, width)}, scalar_offset={at})"
        else:
            at = self._scalar(width)
            far = f"{which}.ap({pattern}, {HBM[1] * choose((0, 3))}, scalar_offset={at}, indirect_dim=1)"
        if choose((True, False)):
            self._step(f"nisa.dma_copy(dst={view}, src={far})", view, which, self._where)
        else:
            self._step(f"nisa.dma_copy(dst={far}, src={view})", which, view, self._where)

    def _somewhere_in_a_loop(self) -> None:
        """Some rows, one after the other, that a loop over scalars counts."""
        tile, which = self._choose_tile(48, buffer="sbuf"), self._random.choice("abcd")
        if tile is None:
            return
        view, turns = self._view(tile, 48, (0, 1)), self._random.randint(0, 4)
        first = self._scalar(HBM[0] - turns - 1)
        far = f"{which}[i, 7:55]"
        add = f"nisa.tensor_scalar(dst={view}, data={view}, op0=nl.add, operand0=0.25)"
        store = f"nisa.dma_copy(dst={far}, src={view})"
        self._step(
            f"nl.fori_loop(s := {first}, s + {turns}, lambda i: [{add}, {store}] and None)", [view, which], view, which,
            self._where,
        )

    def _choice(self, tile: int, group: int) -> tuple[str, int] | None:
        """Columns of a tile that a fresh index chooses, as text, and their number."""
        across, step = self._random.choice(((1, 1), (1, 16), (1, -3), (0, 1), (0, 5), (-1, 2)))
        low = min(0, across) * (PARTITIONS - 1) + min(0, step) * (_OFFSETS - 1)
        high = max(0, across) * (PARTITIONS - 1) + max(0, step) * (_OFFSETS - 1)
        room = self._tiles[tile].columns - 1 - (high - low)
        if room < 0:
            return None
        index, first = self._whole(self._columns), self._random.randint(0, room) - low
        self._step(
            f"nisa.iota(dst={index}, pattern=[[{step}, {_OFFSETS}]], offset={first}, channel_multiplier={across})",
            index, whole=True,
        )
        count = self._random.choice((48, group * _OFFSETS))
        return f"{self._whole(tile)}.indirect({index}, {count})", count

    def _indirect(self) -> None:
        """Columns that an index chooses, read, written, or both."""
        choose = self._random.choice
        tile = self._choose_tile(100)
        chosen = None if tile is None else self._choice(tile, 16)
        if tile is None or chosen is None:
            return
        text, count = chosen
        other = self._choose_tile(count, buffer="sbuf")
        if other is None:
            return
        view, psum = self._view(other, count), self._tiles[tile].buffer == "psum"
        kinds = ["copy", "fetch", "add", "update"] + ([] if psum else ["apply"])
        kind = choose(kinds)
        if kind == "fetch":
            self._step(f"nisa.tensor_copy(dst={view}, src={text})", view, tile)
            return
        self._step({
            "copy": f"nisa.tensor_copy(dst={text}, src={view})",
            "add": f"nisa.tensor_tensor(dst={text}, data1={text}, data2={view}, op=nl.add)",
            "update": f"nisa.tensor_scalar(dst={text}, data={text}, op0=nl.multiply, operand0=0.5)",
            "apply": f"nisa.activation(dst={text}, op=nl.relu, data={view}, scale=0.5)",
        }[kind], tile, tile, view)

    def _indirect_product(self) -> None:
        """A product of columns that an index chooses, some of its own among them."""
        target = self._choose_tile(PARTITIONS, buffer="psum")
        operands = [self._choose_tile(PARTITIONS, buffer="sbuf", dtype="bfloat16") for _ in range(2)]
        if target is None or operands[0] is None or operands[1] is None:
            return
        left, right = operands
        chosen = self._choice(right, 32)
        if chosen is None:
            return
        text, count = chosen
        adds, stationary = self._random.choice((True, False)), self._view(left, PARTITIONS)
        to = self._view(target, count)
        result, reads = str(to), [stationary, right, *([target] if adds else [])]
        scattered = self._random.choice((True, False))
        if scattered and self._tiles[target].columns == self._tiles[right].columns:
            result = text.replace(str(self._whole(right)), str(self._whole(target)), 1)
        self._step(f"nisa.nc_matmul({result}, {stationary}, {text}, accumulate={adds})", to, *reads, exact=False)

    def _quantize(self) -> None:
        words, scales = self._random.choice(self._words)
        columns = self._random.choice((12, 16, 32, 64))
        tile = self._choose_tile(4 * columns, buffer="sbuf", dtype="bfloat16")
        source = self._view(self._raw if tile is None else tile, 4 * columns)
        to = self._view(words, columns)
        scale = View(scales, to.rows, to.columns)
        self._step(f"nisa.quantize_mx(dst={to}, src={source}, dst_scale={scale})", [to, scale], source,
                   jumps=True)

    def _multiply_mx(self) -> None:
        choose = self._random.choice
        target = self._choose_tile(48, buffer="psum")
        if target is None:
            return
        rows, columns = choose((32, 48, 128)), choose((48, 128))
        columns = min(columns, self._tiles[target].columns)
        to = self._view(target, columns, (0, rows))
        adds = choose((True, False))
        for _ in range(self._random.randint(1, 3)):
            operands = []
            for width in (rows, columns):
                words, scales = choose(self._words)
                view = self._view(words, width)
                operands += [view, View(scales, view.rows, view.columns)]
            left, left_scale, right, right_scale = operands
            text = f"nisa.nc_matmul_mx({to}, {left}, {right}, {left_scale}, {right_scale}, accumulate={adds})"
            self._step(text, to, *operands, exact=False)
            adds = True
        self._take_away(to)


def _part(name: str, corner: tuple[int, int], like: View) -> str:
    """A part of a tensor in HBM in the shape of a view."""
    return _box(name, corner, (like.height, like.width))


def _box(name: str, corner: tuple[int, int], shape: tuple[int, int]) -> str:
    row, column = corner
    return f"{name}[{row}:{row + shape[0]}, {column}:{column + shape[1]}]"
