"""Whatever is spoilt in what passes have decided, the verifier says so."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest

import nkilite as nki
import nkilite.isa as nisa
import nkilite.language as nl
from nkilite.errors import IrError
from nkilite.schedule.panels import Feed
from nkilite.schedule.parser import parse_schedule
from nkilite.schedule.pipeline import scheduled
from nkilite.schedule.printer import print_schedule
from nkilite.schedule.schedule import Schedule
from nkilite.schedule.tree import Group
from nkilite.schedule.verifier import verify_schedule


def rows(x, gain):
    """Row groups with all that a plan may have."""
    out = nl.ndarray(x.shape, dtype=x.dtype, buffer=nl.shared_hbm)
    every = nl.ndarray((128, x.shape[1]), dtype=nl.float32, buffer=nl.sbuf)
    nisa.dma_copy(dst=every, src=gain.ap([[0, 128], [1, x.shape[1]]]))
    for r in range(0, x.shape[0], 128):
        tile, squares, scaled = (nl.ndarray((128, x.shape[1]), dtype=nl.float32, buffer=nl.sbuf) for _ in range(3))
        total = nl.ndarray((128, 1), dtype=nl.float32, buffer=nl.sbuf)
        nisa.dma_copy(dst=tile, src=x[r:r + 128])
        nisa.tensor_scalar(dst=squares, data=tile, op0=nl.multiply, operand0=0.5)
        nisa.tensor_tensor(dst=squares, data1=squares, data2=tile, op=nl.multiply)
        nisa.tensor_reduce(dst=total, op=nl.subtract, data=squares, axis=1)  # from the first: in no loop over columns
        nisa.tensor_scalar(dst=squares, data=squares, op0=nl.add, operand0=total)
        nisa.activation(dst=scaled, op=nl.exp, data=tile)
        nisa.tensor_tensor(dst=scaled, data1=scaled, data2=every, op=nl.multiply)
        nisa.tensor_tensor(dst=scaled, data1=scaled, data2=squares, op=nl.add)
        nl.store(out[r:r + 128], scaled)
    return out


def combined(x, gain):
    """Loops over columns that combine rows, and take members in parts."""
    tile, total = nl.load(x[0:128]), nl.ndarray((128, 1), dtype=nl.float32, buffer=nl.sbuf)
    product, turned = (nl.ndarray((128, 32, 2, 64), dtype=nl.float32, buffer=nl.sbuf) for _ in range(2))
    nisa.tensor_scalar(dst=product, data=tile.reshape(product.shape), op0=nl.multiply, operand0=0.5)
    nisa.tensor_tensor(dst=turned[:, :, 0], data1=product[:, :, 0], data2=product[:, :, 1], op=nl.subtract)
    nisa.tensor_tensor(dst=turned[:, :, 1], data1=product[:, :, 1], data2=product[:, :, 0], op=nl.add)
    whole = nl.ndarray((128, 4096), dtype=nl.float32, buffer=nl.sbuf)
    nisa.tensor_scalar(dst=whole, data=turned.reshape((128, 4096)), op0=nl.add, operand0=1.0)
    nisa.tensor_reduce(dst=total, op=nl.subtract, data=whole, axis=1)
    again, last = (nl.ndarray((128, n), dtype=nl.float32, buffer=nl.sbuf) for n in (4096, 1))
    nisa.tensor_scalar(dst=again, data=whole, op0=nl.multiply, operand0=total)
    nisa.tensor_reduce(dst=last, op=nl.add, data=again, axis=1)
    nisa.tensor_scalar(dst=whole, data=again, op0=nl.subtract, operand0=last)
    nisa.activation(dst=whole, op=nl.exp, data=whole)
    out = nl.ndarray(whole.shape, dtype=x.dtype, buffer=nl.shared_hbm)
    nl.store(out, whole)
    return out


def sums(x, gain):
    """Tiles in panels, matmuls that add up, and what takes their sums."""
    out = nl.ndarray((256, 512), dtype=x.dtype, buffer=nl.shared_hbm)
    for r in range(0, 256, 128):
        psum = nl.ndarray((128, 512), dtype=nl.float32, buffer=nl.psum)
        pairs = [[nl.ndarray((128, n), dtype=nl.float32, buffer=nl.sbuf) for n in (128, 512)] for _ in range(2)]
        for k, (left, right) in enumerate(pairs):
            nisa.dma_copy(dst=left, src=x[128 * k:128 * k + 128, r:r + 128])
            nisa.dma_copy(dst=right, src=x[128 * k:128 * k + 128, 512:1024])
        for k, (left, right) in enumerate(pairs):
            nisa.nc_matmul(psum, left, right, accumulate=k > 0)
        result = nl.ndarray((128, 512), dtype=nl.float32, buffer=nl.sbuf)
        nisa.activation(dst=result, op=nl.relu, data=psum)
        nl.store(out[r:r + 128], result)
    return out


def turns(x, gain):
    """A transpose from HBM to HBM by way of tiles."""
    out = nl.ndarray((256, 128), dtype=x.dtype, buffer=nl.shared_hbm)
    for c in range(0, 256, 128):
        tile, back = (nl.ndarray((128, 128), dtype=nl.float32, buffer=nl.sbuf) for _ in range(2))
        psum = nl.ndarray((128, 128), dtype=nl.float32, buffer=nl.psum)
        nisa.dma_copy(dst=tile, src=x[0:128, c:c + 128])
        nisa.nc_transpose(dst=psum, data=tile)
        nisa.tensor_copy(dst=back, src=psum)
        nisa.dma_copy(dst=out[c:c + 128], src=back)
    return out


def _compiled(kernel: Any) -> Schedule:
    arrays = np.ones((512, 4096), np.float32), np.ones((1, 4096), np.float32)
    return scheduled(nki.jit(kernel).trace(*arrays))


SCHEDULES = {kernel: _compiled(kernel) for kernel in (rows, combined, sums, turns)}


def group(kernel: Any) -> tuple[int, Group]:
    """The last group like those that a kernel is about."""
    wanted = kernel is sums, kernel is turns
    groups = SCHEDULES[kernel].groups
    return max((i, g) for i, g in enumerate(groups) if (bool(g.tree.terms), bool(g.tree.moves)) == wanted)


# What is written instead of the first place in the text of that group's tree at which a pattern is found.
SPOILT_TREES = {
    "more rows": (rows, r"rows 128", "rows 129"),
    "fewer rows": (rows, r"rows 128", "rows 64"),
    "a step that leaves rows": (rows, r"by \d+", "by 3"),
    "no step": (rows, r" by \d+", ""),
    "together": (rows, r"parallel 1", "parallel 3"),
    "on one thread": (rows, r" parallel 1", ""),
    "rows that are columns": (rows, r"for rows", "for columns"),
    "no slot": (rows, r"scratch [\d ]+\n", ""),
    "short slot": (rows, r"scratch [\d ]+\n", "scratch 64 64\n"),
    "moved scratch": (rows, r"=scratch 0 \+ 0", "=scratch 0 + 64"),
    "no scratch": (rows, r"data=scratch 0 \+ 0", ""),
    "scratch in registers": (rows, r"data=scratch 0 \+ 0", "data=register"),
    "read elsewhere": (rows, r"source 0 \+ 0", "source 0 + 4"),
    "read where another member does": (rows, r"source 0 \+ 0", "source 1 + 0"),
    "not read in place": (rows, r"data=#(\d+) source 0 \+ 0", r"data=#\1"),
    "elided": (rows, r"(\d tensor_reduce\(.*\))", r"\1 elided"),
    "not elided": (rows, r" elided", ""),
    "elided, but there": (rows, r"dst=nowhere", ""),
    "columns": (rows, r"columns \d+", "columns 64"),
    "a member too few": (rows, r" *\d dma_copy\(dst=nowhere\) elided\n", ""),
    "values alike": (rows, r"dst=#\d+ register, data=#(\d+)", r"dst=#\1 register, data=#\1"),
    "values apart": (rows, r"(columns(?:.*\n)+?.*?)=#\d+ register", r"\1=#77 register"),
    "no values": (rows, r"=#\d+", "="),
    "values outside": (rows, r"data=scratch", "data=#0 scratch"),
    "nontemporal on chip": (rows, r"(tensor_reduce\(dst=scratch 1 \+ 0)", r"\1 nontemporal"),
    "prefetch of what is written": (rows, r"(tensor_reduce\(dst=scratch 1 \+ 0)", r"\1 prefetch 0..8/8"),
    "prefetch of too much": (rows, r"prefetch \d\.\.8/8", "prefetch 1..9/8"),
    "unread": (rows, r"(data=scratch 0 \+ 0)", r"\1 unread"),
    "a sum in registers": (combined, r"dst=#(\d+) scratch 0 \+ 0", r"dst=#\1 register"),
    "a sum that is read": (combined, r"(7 tensor_reduce\(.*\)\n) *}\n *for columns \d+ {\n", r"\1"),
    "half of a member": (combined, r" *\d \w+\(.*\) 1 of 2 by 64\n", ""),
    "halves of other sizes": (combined, r"1 of 2 by 64", "1 of 2 by 32"),
    "the same half": (combined, r"1 of 2 by 64", "0 of 2 by 64"),
    "halves that are one value": (combined, r"(dst=#)\d+(.*1 of 2)", r"\g<1>0\2"),
    "beside itself": (rows, r"(columns \d+) ((?:.*\n)+  }\n)", r"\1 beside 7 \2"),
    "more matmuls": (sums, r"terms 2", "terms 3"),
    "an epilogue among the terms": (sums, r"    }\n( *2 activation.*\n)", r"\1    }\n"),
    "a term in the epilogue": (sums, r"( *1 nc_matmul.*\n) *}\n", r"    }\n\1"),
    "sums in memory": (sums, r"data=strip", ""),
    "sums elsewhere": (sums, r"dst=strip", ""),
    "results in registers": (sums, r"activation\(", "activation(dst=register, "),
    "fewer columns": (sums, r"(columns|rows) \d+", r"\1 16"),
    "scratch of sums": (sums, r"(  for)", r"  scratch 64\n\1"),
    "no move": (turns, r" *move .*\n", ""),
    "moves elsewhere": (turns, r"move (\d+) \+ \(0, 0\)", r"move \1 + (0, 4)"),
    "moves from elsewhere": (turns, r"from (\d+) \+ \(0, 0\)", r"from \1 + (0, 4)"),
    "fewer moves": (turns, r", (\d)\d+ at", r", \1 at"),
    "moves in other steps": (turns, r"at (\(.*?\)) from \(.*?\)", r"at \1 from \1"),
    "a tile that is nowhere and needed": (turns, r"src=nowhere", ""),
    "a move that runs": (turns, r" elided", ""),
}


def regrouped(schedule: Schedule, old: Group, **changes: Any) -> None:
    """Change a group of a schedule."""
    schedule.groups = [g._replace(**changes) if g is old else g for g in schedule.groups]


SPOILT_TABLES = {
    "private of others": (rows, lambda p, g: regrouped(p, g, private=p.groups[0].private)),
    "private of nobody": (rows, lambda p, g: regrouped(p, g, private=(len(p.program.buffers),))),
    "nothing private": (sums, lambda p, g: regrouped(p, g, private=())),
    "twice": (rows, lambda p, g: setattr(p, "groups", [*p.groups, g])),
    "out of order": (rows, lambda p, g: setattr(p, "groups", p.groups[::-1])),
    "before the program": (rows, lambda p, g: regrouped(p, g, first=-1)),
    "of nothing": (rows, lambda p, g: regrouped(p, g, size=0)),
    "no tree": (rows, lambda p, g: regrouped(p, g, tree=None)),
    "past the end": (rows, lambda p, g: regrouped(p, g, size=g.size + 100)),
    "a member less": (rows, lambda p, g: regrouped(p, g, size=g.size - 1)),
    "an output is private": (rows, lambda p, g: regrouped(p, g, private=(p.program.outputs[0].id,))),
    "uniform in part": (rows, lambda p, g: setattr(p, "broadcast", p.broadcast | {g.private[0]})),
    "uniform psum": (sums, lambda p, g: setattr(p, "broadcast", frozenset(
        b.id for b in p.program.buffers if b.region is nl.psum))),
    "uniform in panels": (sums, lambda p, g: setattr(p, "broadcast", frozenset(p.panels))),
    "uniform nothing": (sums, lambda p, g: setattr(p, "broadcast", frozenset([-1]))),
    "rows in panels": (rows, lambda p, g: setattr(p, "panels", {g.private[0]: Feed.vectors})),
    "panels of another feed": (sums, lambda p, g: setattr(p, "panels", dict.fromkeys(p.panels, Feed.moving))),
    "panels of no feed": (sums, lambda p, g: setattr(p, "panels", dict.fromkeys(p.panels, "vectors"))),
    "no panels": (sums, lambda p, g: setattr(p, "panels", {})),
    "panels of outputs": (sums, lambda p, g: p.panels.update({p.program.outputs[0].id: Feed.vectors})),
}


@pytest.fixture
def restored():
    """The schedules as they were, for the next test."""
    kept = {k: (list(p.groups), dict(p.panels), p.broadcast) for k, p in SCHEDULES.items()}
    yield
    for kernel, (groups, panels, uniform) in kept.items():
        schedule = SCHEDULES[kernel]
        schedule.groups, schedule.panels, schedule.broadcast = groups, panels, uniform


@pytest.mark.parametrize("kernel", SCHEDULES)
def test_what_passes_leave_is_right(kernel) -> None:
    verify_schedule(SCHEDULES[kernel])


@pytest.mark.parametrize("case", SPOILT_TREES)
def test_spoilt_trees(case) -> None:
    kernel, pattern, instead = SPOILT_TREES[case]
    number, found = group(kernel)
    parts = re.split(r"^(group .*?^}\n)", print_schedule(SCHEDULES[kernel]), flags=re.M | re.S)
    tree = parts[2 * number + 1]
    parts[2 * number + 1] = re.sub(pattern, instead, tree, count=1)
    assert parts[2 * number + 1] != tree, tree
    with pytest.raises(IrError, match=f"group of {found.size}.* after Spoil"):
        verify_schedule(parse_schedule("".join(parts)), after="Spoil")


@pytest.mark.usefixtures("restored")
@pytest.mark.parametrize("case", SPOILT_TABLES)
def test_spoilt_tables(case) -> None:
    kernel, spoil = SPOILT_TABLES[case]
    schedule = SCHEDULES[kernel]
    spoil(schedule, group(kernel)[1])
    with pytest.raises(IrError, match="after Spoil"):
        verify_schedule(schedule, after="Spoil")
