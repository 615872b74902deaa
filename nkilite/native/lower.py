"""Program to native table: micro-kernels for the distinct groups of instructions, and the words the loop walks."""

from __future__ import annotations

import hashlib
from typing import NamedTuple

import numpy as np

from nkilite.codegen import group
from nkilite.codegen.emitter import Emitter
from nkilite.codegen.kernel import CpuOperand, MicroKernel
from nkilite.host.cpu import Host
from nkilite.ir.columns import numbered
from nkilite.ir.digest import identity
from nkilite.ir.program import WORDS_BEFORE_ARGUMENTS, Signature
from nkilite.ir.types import ViewType
from nkilite.native.library import Source
from nkilite.native.meetings import Footprint, Table, footprint, meetings
from nkilite.native.operands import Encoded, Member, Pitches, encode, entries
from nkilite.native.streams import streams
from nkilite.native.walker import MEET, SPLIT, above_width
from nkilite.schedule.panels import Panels
from nkilite.schedule.place import CpuPlacement
from nkilite.schedule.schedule import Schedule
from nkilite.schedule.tree import Tree


class Lowered(NamedTuple):
    """What an executable is made of.

    Attributes:
        sources: distinct micro-kernels.
        table: int64 words; entry = [micro-kernel number, width and flags, operand words of every member...], and for a
            control instruction the distance to where it jumps: past the end of its loop, or to the beginning of the
            body. Flags are for threads and interrupts: see nkilite/native/walker.py.
        entries: word position of every entry.
        firsts: index of the first instruction of every entry.
        threads: beyond that number, threads would not make it faster.
        stack: bytes of scratch on the stack, of the micro-kernel that has most.
        work: rough nanoseconds that a launch spends in each of the micro-kernels on one thread; infinite in a program
            with loops.
        sizes: bytes of their text.
        arenas: whether every thread needs an arena of its own, because entries have owners.
    """

    sources: list[Source]
    table: np.ndarray
    entries: np.ndarray
    firsts: np.ndarray
    threads: int
    stack: int
    work: np.ndarray
    sizes: np.ndarray
    arenas: bool


def lower(schedule: Schedule, placement: CpuPlacement, host: Host) -> Lowered:
    """Write a micro-kernel per distinct group and translate every group to a table entry.

    An instruction in no group is distinct by its signature and row pitches, a group by those of its members and its
    tree.
    """
    encoded = encode(schedule.program, placement)
    table, starts, firsts = entries(schedule, encoded.code)
    made_of, numbers = _distinct(schedule, encoded, firsts)
    sources: list[Source] = []
    footprints: list[Footprint] = []
    by_text: dict[tuple[str, Footprint], int] = {}
    stack = 0
    compiled = np.empty(len(made_of), np.int64)  # numbers of sources
    for i, (members, tree) in enumerate(made_of):
        source, touches, scratch = _written(members, tree, host)
        stack = max(stack, scratch)
        compiled[i] = by_text.setdefault((source.name, touches), len(sources))
        if compiled[i] == len(sources):
            sources.append(source)
            footprints.append(touches)
    table[starts] = compiled[numbers]
    touched = Table(table, starts, footprints)
    flags, threads = meetings(touched)
    owners, busy = streams(schedule.program, firsts, touched, flags, threads)
    if busy:
        flags, threads = flags & ~(SPLIT | MEET), busy
    table[starts + 1] |= above_width(flags, touched.ns, owners)
    sizes = np.array([len(s.text) for s in sources], np.int64)
    work = _work(encoded, touched)
    return Lowered(sources, table, starts, firsts, threads, stack, work, sizes, busy > 0)


def _work(encoded: Encoded, table: Table) -> np.ndarray:
    """What a launch spends in micro-kernels."""
    if any(member.signature.definition.control is not None for member in encoded.members):
        return np.full(len(table.footprints), np.inf)
    return np.bincount(table.number, table.ns, len(table.footprints))


def _distinct(
    schedule: Schedule, encoded: Encoded, firsts: np.ndarray
) -> tuple[list[tuple[list[Member], Tree | None]], np.ndarray]:
    """What distinct entries are made of, members and tree, as they are met first; and the number of each entry's."""
    labels = encoded.kinds[firsts]
    made_of: list[tuple[list[Member], Tree | None]] = [([member], None) for member in encoded.members]
    trees: dict[Tree, int] = {}
    identities: dict[int, int] = {}  # equal trees are mostly the same object, and long to compare
    known: dict[tuple[int, bytes], int] = {}
    for run, entry in zip(schedule.groups, np.searchsorted(firsts, [g.first for g in schedule.groups]), strict=True):
        if id(run.tree) not in identities:
            identities[id(run.tree)] = trees.setdefault(run.tree, len(trees))
        kinds = encoded.kinds[run.first : run.first + run.size]
        key = identities[id(run.tree)], kinds.tobytes()
        if key not in known:
            known[key] = len(made_of)
            made_of.append(([encoded.members[kind] for kind in kinds.tolist()], run.tree))
        labels[entry] = known[key]
    found, first, numbers = numbered(labels)
    order = np.argsort(first)
    return [made_of[found[i]] for i in order.tolist()], np.argsort(order)[numbers]


def cpu_strides(kind: ViewType, row: int, pitch: int) -> tuple[int, ...]:
    """Byte strides of a view whose buffer has `row` bytes per partition, placed `pitch` bytes apart."""
    strides = [s * kind.dtype.itemsize for s in kind.strides]
    if kind.region.on_chip and row:
        strides[0] = strides[0] // row * pitch
    return tuple(strides)


_KEPT = 1 << 9  # micro-kernels, of some 10 KB
_kept: dict[tuple[object, ...], tuple[Source, Footprint, int]] = {}


def _written(members: list[Member], tree: Tree | None, host: Host) -> tuple[Source, Footprint, int]:
    """A micro-kernel, written once for all programs of this process, and for all cores of one."""
    key = host, tree, tuple((s.definition.rule("lower"), identity(s), pitches) for s, pitches in members)
    found = _kept.get(key)
    if found is None:
        found = _micro_kernel(members, tree, host)
        if len(_kept) >= _KEPT:
            _kept.pop(next(iter(_kept)), None)  # threads may do so at once
        _kept[key] = found
    return found


def _micro_kernel(members: list[Member], tree: Tree | None, host: Host) -> tuple[Source, Footprint, int]:
    """Write the code of a single instruction, or of a group's tree; with the bytes of its scratch."""
    e = Emitter(host)
    kernels = []
    first_word = 0
    for signature, pitches in members:
        kernels.append(MicroKernel(signature, host, cpu_operands(signature, pitches), e, first_word))
        first_word += signature.n_words - WORDS_BEFORE_ARGUMENTS
    group.write(kernels, tree)
    return source_of(kernels[0]), footprint(kernels), e.stack


def source_of(kernel: MicroKernel) -> Source:
    """The function that has been written for a micro-kernel, named after its text."""
    body = kernel.text("@")
    digest = hashlib.sha256(f"{kernel.host.level}:{body}".encode()).hexdigest()[:20]
    name = f"{kernel.call.name}_{digest}"
    return Source(name, body.replace("@@(", f"@{name}(", 1), tuple(kernel.e.declarations.values()))


def cpu_operands(signature: Signature, pitches: Pitches) -> dict[str, CpuOperand]:
    """The tensor arguments of one signature on one placement."""
    operands: dict[str, CpuOperand] = {}
    rows = signature.access.rows
    by_name = dict(zip((o.name for o in sorted(signature.operands, key=lambda o: o.word)), pitches, strict=True))
    for operand in signature.operands:
        kind = operand.type
        row, pitch = by_name[operand.name]
        panels = pitch if isinstance(pitch, Panels) else None
        pitch = row if isinstance(pitch, Panels) else pitch
        size = kind.dtype.itemsize
        index_stride = kind.indirection.stride * size if kind.indirection else 0
        if kind.region.on_chip and row and index_stride % row == 0:
            index_stride = index_stride // row * pitch
        strides = cpu_strides(kind, row, pitch)
        if rows is not None and kind.shape[0] == 1 and not signature.access.runs_over(operand.name, rows):
            strides = 0, *strides[1:]  # in a group, the one row serves all of them
        operands[operand.name] = CpuOperand(
            operand.name, kind.dtype, kind.shape, strides, kind.region, kind.indirection,
            index_stride, panels=panels, pitch=pitch if kind.region.on_chip else 0,
        )
    return operands
