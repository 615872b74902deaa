"""Whatever is spoilt in what passes have decided, the verifier says so."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import nkilite as nki
import nkilite.isa as nisa
import nkilite.language as nl
from nkilite.errors import IrError
from nkilite.schedule.group import Accumulation, Fetch, Forwarded, Group, Held, Relocation, RowPlan, Scratch
from nkilite.schedule.panels import Feed
from nkilite.schedule.pipeline import scheduled
from nkilite.schedule.schedule import Schedule
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
        nisa.tensor_reduce(dst=total, op=nl.add, data=squares, axis=1)
        nisa.tensor_scalar(dst=squares, data=squares, op0=nl.add, operand0=total)
        nisa.activation(dst=scaled, op=nl.exp, data=tile)
        nisa.tensor_tensor(dst=scaled, data1=scaled, data2=every, op=nl.multiply)
        nisa.tensor_tensor(dst=scaled, data1=scaled, data2=squares, op=nl.add)
        nl.store(out[r:r + 128], scaled)
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


SCHEDULES = {kernel: _compiled(kernel) for kernel in (rows, sums, turns)}
PLANS = {rows: RowPlan, sums: Accumulation, turns: Relocation}


def group(kernel: Any) -> tuple[int, Group]:
    """The last group of the kind that a kernel is about."""
    groups = SCHEDULES[kernel].groups
    return max((i, g) for i, g in enumerate(groups) if isinstance(g.plan, PLANS[kernel]))


def replaced(plan: RowPlan, kind: type, make: Any) -> RowPlan:
    """A row plan with the first place of a kind changed."""
    for m, places in enumerate(plan.places):
        for i, place in enumerate(places):
            if isinstance(place, kind):
                changed = (*places[:i], make(place), *places[i + 1:])
                return plan._replace(places=(*plan.places[:m], changed, *plan.places[m + 1:]))
    raise AssertionError(f"no {kind.__name__} in {plan}")


def valued(plan: RowPlan, values: Any) -> RowPlan:
    first, *others = plan.segments
    return plan._replace(segments=(first._replace(values=values(first.values)), *others))


def pieces(plan: Relocation, change: Any) -> Relocation:
    return Relocation(tuple(change(piece) for piece in plan.pieces), plan.private)


def steps(piece: Any, change: Any) -> Any:
    return piece._replace(loops=(change(piece.loops[0]), *piece.loops[1:]))


SPOILT_PLANS = {
    "rows": (rows, lambda p: p._replace(rows=p.rows + 1)),
    "blocks": (rows, lambda p: p._replace(blocks=p.blocks - 1)),
    "each": (rows, lambda p: p._replace(each=3)),
    "no slot": (rows, lambda p: p._replace(slots=())),
    "short slot": (rows, lambda p: p._replace(slots=(64,) * len(p.slots))),
    "moved scratch": (rows, lambda p: replaced(p, Scratch, lambda s: s._replace(byte=s.byte + 64))),
    "no scratch": (rows, lambda p: replaced(p, Scratch, lambda s: None)),
    "held scratch": (rows, lambda p: replaced(p, Scratch, lambda s: Held())),
    "forwarded elsewhere": (rows, lambda p: replaced(p, Forwarded, lambda f: f._replace(byte=f.byte + 4))),
    "forwarded from itself": (rows, lambda p: replaced(p, Forwarded, lambda f: f._replace(member=f.member + 1))),
    "not forwarded": (rows, lambda p: replaced(p, Forwarded, lambda f: None)),
    "skipped": (rows, lambda p: p._replace(skipped=(*p.skipped, len(p.places) - 1))),
    "not skipped": (rows, lambda p: p._replace(skipped=())),
    "segments that overlap": (rows, lambda p: p._replace(segments=(p.segments[0], *p.segments))),
    "a segment's columns": (rows, lambda p: p._replace(segments=(p.segments[0]._replace(columns=64),))),
    "a longer segment": (
        rows, lambda p: p._replace(segments=(*p.segments[:-1], p.segments[-1]._replace(end=p.segments[-1].end + 1)))
    ),
    "values alike": (rows, lambda p: valued(p, lambda values: tuple((0,) * len(v) for v in values))),
    "values apart": (
        rows, lambda p: valued(p, lambda values: tuple(tuple(10 * m + i for i in range(len(v)))
                                                       for m, v in enumerate(values)))
    ),
    "values of fewer": (rows, lambda p: valued(p, lambda values: values[:-1])),
    "streams": (rows, lambda p: p._replace(streams=(1,))),
    "fetches": (rows, lambda p: p._replace(ahead=(Fetch(1, 7),))),
    "fetches too much": (rows, lambda p: p._replace(ahead=tuple(f._replace(first=8) for f in p.ahead))),
    "unread": (rows, lambda p: p._replace(unread=((1, 0),))),
    "carrier": (rows, lambda p: p._replace(carrier=len(p.places) - 1)),
    "fewer places": (rows, lambda p: p._replace(places=p.places[1:])),
    "nonsense": (rows, lambda p: p._replace(places=None)),
    "more matmuls": (sums, lambda p: p._replace(products=p.products + 1)),
    "fewer matmuls": (sums, lambda p: p._replace(products=p.products - 1)),
    "no matmuls": (sums, lambda p: p._replace(products=0)),
    "no sums": (sums, lambda p: p._replace(sums=())),
    "sums elsewhere": (sums, lambda p: p._replace(sums=((0, 0),))),
    "no pieces": (turns, lambda p: Relocation((), p.private)),
    "pieces elsewhere": (turns, lambda p: pieces(p, lambda q: q._replace(to=q.to._replace(bytes=q.to.bytes + 4)))),
    "pieces from elsewhere": (
        turns, lambda p: pieces(p, lambda q: q._replace(origin=q.origin._replace(bytes=q.origin.bytes + 4)))
    ),
    "shorter pieces": (turns, lambda p: pieces(p, lambda q: steps(q, lambda s: s._replace(count=s.count - 1)))),
    "pieces in other steps": (turns, lambda p: pieces(p, lambda q: steps(q, lambda s: s._replace(to=s.origin)))),
    "nothing is private": (turns, lambda p: Relocation(p.pieces, ())),
    "no plan": (turns, lambda p: "nonsense"),
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
    "past the end": (rows, lambda p, g: regrouped(p, g, size=g.size + 100)),
    "a member less": (rows, lambda p, g: regrouped(p, g, size=g.size - 1)),
    "an output is private": (rows, lambda p, g: regrouped(p, g, private=(p.program.outputs[0].id,))),
    "uniform in part": (rows, lambda p, g: setattr(p, "uniform", p.uniform | {g.private[0]})),
    "uniform psum": (sums, lambda p, g: setattr(p, "uniform", frozenset(
        b.id for b in p.program.buffers if b.region is nl.psum))),
    "uniform in panels": (sums, lambda p, g: setattr(p, "uniform", frozenset(p.panels))),
    "uniform nothing": (sums, lambda p, g: setattr(p, "uniform", frozenset([-1]))),
    "rows in panels": (rows, lambda p, g: setattr(p, "panels", {g.private[0]: Feed.vectors})),
    "panels of another feed": (sums, lambda p, g: setattr(p, "panels", dict.fromkeys(p.panels, Feed.moving))),
    "panels of no feed": (sums, lambda p, g: setattr(p, "panels", dict.fromkeys(p.panels, "vectors"))),
    "no panels": (sums, lambda p, g: setattr(p, "panels", {})),
    "panels of outputs": (sums, lambda p, g: p.panels.update({p.program.outputs[0].id: Feed.vectors})),
}


@pytest.fixture
def restored():
    """The schedules as they were, for the next test."""
    kept = {k: (list(p.groups), dict(p.panels), p.uniform) for k, p in SCHEDULES.items()}
    yield
    for kernel, (groups, panels, uniform) in kept.items():
        schedule = SCHEDULES[kernel]
        schedule.groups, schedule.panels, schedule.uniform = groups, panels, uniform


@pytest.mark.parametrize("kernel", SCHEDULES)
def test_what_passes_leave_is_right(kernel) -> None:
    verify_schedule(SCHEDULES[kernel])


@pytest.mark.usefixtures("restored")
@pytest.mark.parametrize("case", SPOILT_PLANS)
def test_spoilt_plans(case) -> None:
    kernel, spoil = SPOILT_PLANS[case]
    schedule = SCHEDULES[kernel]
    number, found = group(kernel)
    plan = spoil(found.plan)
    assert plan != found.plan
    schedule.groups = [*schedule.groups[:number], found._replace(plan=plan), *schedule.groups[number + 1:]]
    with pytest.raises(IrError, match=f"group of {found.size}"):
        verify_schedule(schedule, after="Spoil")


@pytest.mark.usefixtures("restored")
@pytest.mark.parametrize("case", SPOILT_TABLES)
def test_spoilt_tables(case) -> None:
    kernel, spoil = SPOILT_TABLES[case]
    schedule = SCHEDULES[kernel]
    spoil(schedule, group(kernel)[1])
    with pytest.raises(IrError, match="after Spoil"):
        verify_schedule(schedule, after="Spoil")
