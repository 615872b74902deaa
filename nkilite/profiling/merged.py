"""Make one instruction of what the iterations of a small loop do, as the vendor's compiler does it.

A loop of `nl.affine_range` has iterations that do not depend on each other, so that the compiler may carry out a
statement for all of them before the next one. Where that is elementwise, or a reduction, and all iterations together
have at most 512 elements in a partition, it is one instruction: two of 192 elements instead of 128 of 3 take a
convolution in one dimension (ucb-bar/autocomp, examples/trn-advanced) from 4,955 to 461 us; with 2048 iterations at
once the loop stays as it is. Only programs that the compiler manages are changed.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterator
from itertools import pairwise
from typing import NamedTuple

import numpy as np

from nkilite.errors import NkiError
from nkilite.ir.columns import Columns
from nkilite.ir.program import Operand, Program, Signature
from nkilite.ir.types import ViewType
from nkilite.machine.engine import Engine
from nkilite.profiling.rewrite import copied

__all__ = ["merged"]

_MOST = 512  # elements in a partition of what becomes one instruction
_NAMES = {"activation", "memset", "reciprocal", "tensor_copy", "tensor_reduce", "tensor_scalar", "tensor_tensor"}
_PER_PARTITION = {"bias", "scale", "operand0", "operand1"}  # operands of one element a partition, for all elements


def merged(program: Program) -> Program:
    """The program with such loops carried out statement by statement; the one given if it has none."""
    if not program.managed or not program.affine:
        return program
    columns = Columns.of(program)
    accesses = np.zeros(len(program.buffers), np.int64)
    for signature, _, starts in columns.uses():
        for operand in signature.operands:
            accesses += np.bincount(columns.code[starts + operand.word], minlength=len(accesses))
    own = copied(program)
    own.buffers, own.open_engines = list(program.buffers), set(program.open_engines)
    replaced: dict[int, tuple[int, np.ndarray, np.ndarray]] = {}  # by first instruction: end, words, where each went
    for rows in _alike(columns, program.affine):
        loop = _Loop(own, columns, rows, accesses)
        if loop.merges:
            words, order = loop.words()
            for run, text in zip(rows, words, strict=True):
                replaced[int(run[0, 0])] = int(run[-1, -1]) + 1, text, order
    return _with(own, columns, replaced) if replaced else program


def _alike(columns: Columns, loops: list[list[int]]) -> Iterator[np.ndarray]:
    """The instructions of innermost loops, as arrays of (loop, iteration, statement) of loops that do the same."""
    groups: dict[tuple[int, bytes], list[np.ndarray]] = {}
    places = columns.code[columns.starts + 1]
    inside = -1
    for bounds in loops:
        inner, inside = inside >= bounds[0], bounds[0]
        steps = {b - a for a, b in pairwise(bounds)}
        if inner or len(bounds) < 3 or len(steps) > 1 or 0 in steps:
            continue
        rows = np.arange(bounds[0], bounds[-1]).reshape(len(bounds) - 1, -1)
        if (places[rows] == places[rows[0]]).all():
            groups.setdefault((len(rows), columns.ids[rows].tobytes()), []).append(rows)
    for found in groups.values():
        yield np.stack(found)


class _Tile(NamedTuple):
    """A tile that every iteration has one of: those of a loop as one buffer."""

    buffers: np.ndarray  # of every (loop, iteration)
    whole: np.ndarray  # of every loop


class _Loop:
    """Loops that do the same.

    Attributes:
        merges: whether a statement becomes one instruction.
    """

    def __init__(self, program: Program, columns: Columns, rows: np.ndarray, accesses: np.ndarray) -> None:
        self._program, self._columns, self._rows, self._accesses = program, columns, rows, accesses
        self._times = rows.shape[1]
        self._every = [[program.signatures[i] for i in ids] for ids in columns.ids[rows[0]]]  # by iteration
        self._signatures = self._every[0]
        self._tiles: dict[int, _Tile] = {}  # by the buffer in the first iteration of the first loop
        self._once: dict[int, np.ndarray] = {}  # tiles that are the same in all iterations: their buffers
        self._single: dict[int, list[int | None]] = {}  # by statement: how its operands move, if it becomes one
        self._invariant: set[int] = set()
        self.merges = self._is_plain() and self._is_legal()
        if self.merges:
            for number in range(len(self._signatures)):
                self._try(number)
            self.merges = bool(self._single)

    def _at(self, number: int, operand: Operand) -> tuple[np.ndarray, np.ndarray]:
        """Buffers and offsets of an operand, by (loop, iteration)."""
        at = self._columns.starts[self._rows[:, :, number]] + operand.word
        return self._columns.code[at], self._columns.code[at + 1]

    def _operands(self) -> Iterator[tuple[int, Operand, np.ndarray, np.ndarray]]:
        for number, signature in enumerate(self._signatures):
            for operand in signature.operands:
                yield number, operand, *self._at(number, operand)

    def _is_plain(self) -> bool:
        """Whether its iterations only compute, on tiles whose places are known, and in the same way."""
        first = [_form(s) for s in self._signatures]
        return all(
            s.definition.rule("cost")(s).engine not in (Engine.dma, Engine.sync)
            and "registers" not in s.arguments and not any(o.type.indirection for o in s.operands)
            for s in self._signatures
        ) and all([_form(s) for s in one] == first for one in self._every)

    def _is_legal(self) -> bool:
        """Whether statements may be carried out one after the other, each for all iterations: what an iteration writes
        of a tile that all share, no other statement touches in another iteration."""
        shared: dict[int, list[tuple[int, Operand, np.ndarray]]] = {}
        for number, operand, buffers, offsets in self._operands():
            if (buffers == buffers[:, :1]).all():
                shared.setdefault(int(buffers[0, 0]), []).append((number, operand, offsets))
            elif not _all_different(buffers):
                return False
        for uses in shared.values():
            statements = {number for number, _, _ in uses}
            if any(operand.writes for _, operand, _ in uses) and len(statements) > 1 and not _apart(uses):
                return False
        return True

    def _local(self, buffers: np.ndarray) -> bool:
        """Whether every iteration has a tile of its own that nothing outside of it touches."""
        if not _all_different(buffers):
            return False
        first = self._program.buffers[buffers[0, 0]]
        kinds = {id(self._program.buffers[b].type) for b in buffers.reshape(-1)}
        inside = sum(int((b == buffers).all()) for _, _, b, _ in self._operands())
        fixed = first.address is not None or len(kinds) > 1
        return not fixed and bool((self._accesses[buffers] == inside).all())

    def _try(self, number: int) -> None:
        """Make a statement one instruction, if it can be."""
        signature = self._signatures[number]
        if signature.name not in _NAMES or any(one[number] is not signature for one in self._every):
            return
        numbers = [self._columns.code[self._columns.starts[self._rows[:, :, number]] + i.word]
                   for i in signature.immediates]
        if any((n != n[:, :1]).any() for n in numbers):
            return
        moves: list[int | None] = []
        for operand in signature.operands:
            buffers, offsets = self._at(number, operand)
            move = self._move(operand, buffers, offsets)
            if move is None and not self._known(buffers):
                return
            moves.append(move)
        reads = [m for o, m in zip(signature.operands, moves, strict=True) if o.reads]
        written = next(o for o in signature.operands if o.writes)
        if all(m == 0 for m in reads) and not written.reads and reads:
            buffers, _ = self._at(number, written)
            if self._known(buffers) and int(buffers[0, 0]) in self._tiles and not self._computed(reads, number):
                self._once[int(buffers[0, 0])] = buffers
                del self._tiles[int(buffers[0, 0])]
                self._invariant.add(number)
            return
        if max(o.type.free_size for o in signature.operands) * self._times > _MOST or any(
            o.writes and (m == 0 or o.reads) for o, m in zip(signature.operands, moves, strict=True)
        ):
            return
        if self._signature(number, moves) is not None:
            self._single[number] = moves

    def _computed(self, reads: list[int | None], number: int) -> bool:
        """Whether a statement reads what the loop writes."""
        written = {int(b[0, 0]) for _, o, b, _ in self._operands() if o.writes}
        mine = {int(self._at(number, o)[0][0, 0]) for o in self._signatures[number].operands if o.reads}
        return bool((written - set(self._once)) & mine)

    def _known(self, buffers: np.ndarray) -> bool:
        """Whether these are tiles of iterations, which become one buffer."""
        first = int(buffers[0, 0])
        if first in self._tiles or first in self._once:
            return True
        if not self._local(buffers):
            return False
        self._tiles[first] = _Tile(buffers, np.empty(0, np.int64))
        return True

    def _move(self, operand: Operand, buffers: np.ndarray, offsets: np.ndarray) -> int | None:
        """Elements from one iteration to the next of an operand in a tile that all share; None for tiles of their own.

        -1 where there is no such number.
        """
        if int(buffers[0, 0]) in self._once:
            return 0
        if (buffers != buffers[:, :1]).any():
            return None if (offsets == offsets[:1, :1]).all() else -1
        steps = np.diff(offsets, axis=1)
        size = operand.type.dtype.itemsize
        step = int(steps[0, 0])
        return step // size if (steps == step).all() and step >= 0 and step % size == 0 else -1

    def _signature(self, number: int, moves: list[int | None]) -> Signature | None:
        """What does a statement for all iterations; None where the hardware does not."""
        signature = self._signatures[number]
        arguments = dict(signature.arguments)
        for operand, move in zip(signature.operands, moves, strict=True):
            kind = operand.type
            if move == 0 and operand.name in _PER_PARTITION and kind.free_size == 1:
                continue
            if move == -1:
                return None
            whole = self._pitch(number, operand) if move is None else move
            scale = self._times if move is None else 1
            arguments[operand.name] = ViewType.of(
                kind.region, kind.dtype, (kind.shape[0], self._times, *kind.shape[1:]),
                (kind.strides[0] * scale, whole, *kind.strides[1:]),
            )
        if "axis" in arguments:
            arguments["axis"] = tuple(a + 1 for a in arguments["axis"])
        try:
            signature.definition.rule("check")(Signature(-1, signature.definition, arguments, signature.target, ()))
        except NkiError:
            return None
        found = self._program.signature(signature.definition, arguments)
        if signature.id in self._program.open_engines:
            self._program.open_engines.add(found.id)
        return found

    def _pitch(self, number: int, operand: Operand) -> int:
        """Elements of a partition of the tile of one iteration."""
        buffers, _ = self._at(number, operand)
        elements: int = self._program.buffers[buffers[0, 0]].type.free_size
        return elements

    def words(self) -> tuple[np.ndarray, np.ndarray]:
        """The words of each of the loops, and where of their instructions each (iteration, statement) went."""
        for first, tile in self._tiles.items():
            like = [self._program.buffers[b] for b in tile.buffers[:, 0]]
            whole = [
                self._program.add_buffer(
                    b.region, (b.shape[0], self._times, *b.shape[1:]), b.dtype, b.name, location=b.location
                ).id for b in like
            ]
            self._tiles[first] = tile._replace(whole=np.array(whole, np.int64))
        parts: list[np.ndarray] = []
        order = np.zeros((self._times, len(self._signatures)), np.int64)
        for number in range(len(self._signatures)):
            alone = number in self._single or number in self._invariant
            for iteration in range(1 if alone else self._times):
                order[slice(None) if alone else iteration, number] = len(parts)
                parts.append(self._instruction(number, iteration))
        return np.concatenate(parts, axis=1), order

    def _instruction(self, number: int, iteration: int) -> np.ndarray:
        """The words of a statement, of one iteration or of all, in each of the loops."""
        signature = self._every[iteration][number]
        starts = self._columns.starts[self._rows[:, iteration, number]]
        words: np.ndarray = self._columns.code[starts[:, None] + np.arange(signature.n_words)]
        arguments, moved = dict(signature.arguments), False
        for operand in signature.operands:
            first = int(self._at(number, operand)[0][0, 0])
            if first in self._once:
                words[:, operand.word] = self._once[first][:, 0]
            elif first in self._tiles:
                tile, kind = self._tiles[first], operand.type
                pitch = self._program.buffers[first].type.free_bytes
                offsets = words[:, operand.word + 1]
                words[:, operand.word] = tile.whole
                words[:, operand.word + 1] = (
                    offsets // pitch * pitch * self._times + offsets % pitch + iteration * pitch
                )
                strides = (kind.strides[0] * self._times, *kind.strides[1:])
                arguments[operand.name] = ViewType.of(kind.region, kind.dtype, kind.shape, strides)
                moved = True
        if number in self._single:
            found = self._signature(number, self._single[number])
            assert found is not None
            words[:, 0] = found.id
        elif moved:
            found = self._program.signature(signature.definition, arguments)
            if signature.id in self._program.open_engines:
                self._program.open_engines.add(found.id)
            words[:, 0] = found.id
        return words


def _form(signature: Signature) -> tuple[object, ...]:
    """What instructions have in common that do the same, the first of which may begin a sum."""
    return signature.definition, signature.n_words, *((o.name, o.word, o.type) for o in signature.operands)


def _all_different(buffers: np.ndarray) -> bool:
    ordered = np.sort(buffers, axis=1)
    return bool((ordered[:, 1:] != ordered[:, :-1]).all())


def _apart(uses: list[tuple[int, Operand, np.ndarray]]) -> bool:
    """Whether what an iteration touches of a tile lies apart from what the others touch."""
    low = np.min([offsets for _, _, offsets in uses], axis=0)
    high = np.max([offsets + _reach(operand) for _, operand, offsets in uses], axis=0)
    steps = np.diff(low, axis=1)
    return bool((steps >= (high - low)[:, :-1]).all())


def _reach(operand: Operand) -> int:
    """Bytes from the first to the last element of an operand in a partition."""
    kind = operand.type
    last = sum((n - 1) * abs(s) for n, s in zip(kind.shape[1:], kind.strides[1:], strict=True))
    return (last + 1) * kind.dtype.itemsize


def _with(program: Program, columns: Columns, replaced: dict[int, tuple[int, np.ndarray, np.ndarray]]) -> Program:
    """The program, changed in place, with other words for stretches of its instructions."""
    starts, code = columns.starts, columns.code
    parts: list[np.ndarray] = []
    moved = np.zeros(len(starts), np.int64)
    at = count = 0
    for begin in sorted(replaced):
        end, words, order = replaced[begin]
        parts += [code[starts[at]:starts[begin]], words]
        moved[at:begin] = np.arange(count, count + begin - at)
        count += begin - at
        moved[begin:end] = count + order.reshape(-1)
        count += int(order.max()) + 1
        at = end
    moved[at:] = np.arange(count, count + len(starts) - at)
    parts.append(code[starts[at]:] if at < len(starts) else code[:0])
    program.code, program.count = array("q", np.concatenate(parts).tobytes()), count + len(starts) - at
    program.names = {int(moved[i]): name for i, name in program.names.items()}
    program.dependencies = [(int(moved[a]), int(moved[b])) for a, b in program.dependencies]
    program.affine = []
    return program
