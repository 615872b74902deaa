"""The text of schedules: what each pass decides about a program that is text, and that everything is read back."""

from __future__ import annotations

import re
from contextlib import suppress

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import nkilite as nki
import nkilite.language as nl
from conformance.fuzz.draw import draw
from nkilite.errors import IrError, NkiError
from nkilite.host.cpu import host
from nkilite.native.lower import lower
from nkilite.schedule.parser import parse_schedule
from nkilite.schedule.pipeline import PIPELINE, scheduled
from nkilite.schedule.place import place
from nkilite.schedule.printer import print_schedule
from nkilite.schedule.schedule import Schedule
from nkilite.schedule.verifier import verify_schedule

HEAD = """\
program kernel on trn2
buffer %x = input shared_hbm float32[128, 4096]
buffer %y = input shared_hbm float32[128, 512]
buffer %out = internal shared_hbm float32[128, 4096]
buffer %product = internal shared_hbm float32[128, 512]
buffer %a = internal sbuf float32[128, 4096]
buffer %b = internal sbuf float32[128, 4096]
buffer %left = internal sbuf float32[128, 128]
buffer %right = internal sbuf float32[128, 512]
buffer %back = internal sbuf float32[128, 128]
buffer %row = internal sbuf float32[128, 512]
buffer %result = internal sbuf float32[128, 512]
buffer %sum = internal psum float32[128, 512]
buffer %turned = internal psum float32[128, 128]
output %out
output %product
"""
LOADS = """\
dma     dma_copy(dst=%left, src=%x [[4096, 128], [1, 128]])
dma     dma_copy(dst=%right, src=%y)
"""
MOVES = """\
dma     dma_copy(dst=%left, src=%x [[4096, 128], [1, 128]])
tensor  nc_transpose(dst=%turned, data=%left, engine=Engine.tensor)
vector  tensor_copy(dst=%back, src=%turned, engine=Engine.vector)
dma     dma_copy(dst=%product [[512, 128], [1, 128]], src=%back)
"""

# Pass, instructions, and what it makes of them.
PASSES = {
    "what nobody reads is not run": (
        "EliminateDeadCode",
        LOADS + "scalar  activation(dst=%left, op=act.exp, data=%left, scale=1.0)\n"
        "dma     dma_copy(dst=%product, src=%right)\n",
        "dma     dma_copy(dst=%right, src=%y)\n"
        "dma     dma_copy(dst=%product, src=%right)\n",
    ),
    "an operand that is overwritten is copied": (
        "StageOverlaps",
        "vector  tensor_copy(dst=%a [[4096, 128], [1, 16]], src=%a + 8 [[4096, 128], [1, 16]], engine=Engine.vector)\n",
        "vector  tensor_copy(dst=%sb13, src=%a + 8 [[4096, 128], [1, 16]], engine=Engine.vector)\n"
        "vector  tensor_copy(dst=%a [[4096, 128], [1, 16]], src=%sb13, engine=Engine.vector)\n",
    ),
    "one row for all partitions": (
        "FindBroadcast",
        "dma     dma_copy(dst=%row, src=%y [[0, 128], [1, 512]])\n",
        "layout %row broadcast\n"
        "dma     dma_copy(dst=%row, src=%y [[0, 128], [1, 512]])\n",
    ),
    "operands of matmuls are packed": (
        "InferPanels",
        LOADS + "tensor  nc_matmul(dst=%sum, stationary=%left, moving=%right, accumulate=False)\n",
        "layout %left packed vectors\nlayout %right packed vectors\n"
        + LOADS + "tensor  nc_matmul(dst=%sum, stationary=%left, moving=%right, accumulate=False)\n",
    ),
    "an epilogue takes sums that are never in memory": (
        "GroupMatmuls",
        "layout %left packed vectors\nlayout %right packed vectors\n" + LOADS +
        "tensor  nc_matmul(dst=%sum, stationary=%left, moving=%right, accumulate=False)\n"
        "scalar  activation(dst=%result, op=act.relu, data=%sum, scale=1.0)\n"
        "dma     dma_copy(dst=%product, src=%result)\n",
        "layout %left packed vectors\nlayout %right packed vectors\n" + LOADS +
        "group of 2 keeps %sum {\n"
        "  for columns 512 parallel 1 {\n"
        "    for terms 1 {\n"
        "      0 nc_matmul(dst=strip)\n"
        "    }\n"
        "    1 activation(data=strip)\n"
        "  }\n"
        "}\n"
        "tensor  nc_matmul(dst=%sum, stationary=%left, moving=%right, accumulate=False)\n"
        "scalar  activation(dst=%result, op=act.relu, data=%sum, scale=1.0)\n"
        "dma     dma_copy(dst=%product, src=%result)\n",
    ),
    "a load, a transpose and a store are one move": (
        "GroupMoves",
        MOVES,
        "group of 4 keeps %left %back %turned {\n"
        "  0 dma_copy(dst=nowhere) elided\n"
        "  1 nc_transpose(dst=nowhere, data=nowhere) elided\n"
        "  2 tensor_copy(dst=nowhere, src=nowhere) elided\n"
        "  3 dma_copy(src=nowhere) elided\n"
        "  move 3 + (0, 0) from 0 + (0, 0), 128 at (0, 4) from (0, 16384), 128 at (0, 2048) from (0, 4)\n"
        "}\n" + MOVES,
    ),
    "a few rows at a time": (
        "Fuse",
        "dma     dma_copy(dst=%a, src=%x)\n"
        "scalar  activation(dst=%b, op=act.exp, data=%a, scale=1.0)\n"
        "dma     dma_copy(dst=%out, src=%b)\n",
        "group of 3 keeps %b %a {\n"
        "  for rows 128 by 1 parallel 1 {\n"
        "    0 dma_copy(dst=nowhere) elided\n"
        "    for columns 4096 {\n"
        "      1 activation(dst=#0 register, data=#1 source 0 + 0)\n"
        "      2 dma_copy(dst=#2, src=#0 register)\n"
        "    }\n"
        "  }\n"
        "}\n"
        "dma     dma_copy(dst=%a, src=%x)\n"
        "scalar  activation(dst=%b, op=act.exp, data=%a, scale=1.0)\n"
        "dma     dma_copy(dst=%out, src=%b)\n",
    ),
}


@pytest.mark.parametrize("case", PASSES)
def test_what_a_pass_decides(case) -> None:
    name, before, after = PASSES[case]
    (kind,) = (kind for kind in PIPELINE if kind.__name__ == name)
    schedule = parse_schedule(HEAD + before)
    verify_schedule(schedule)
    schedule = kind().run(schedule)
    verify_schedule(schedule, after=name)
    head = ("program", "buffer", "output")
    lines = print_schedule(schedule).splitlines(True)
    assert "".join(line for line in lines if not line.startswith(head)) == after


def test_every_pass_has_a_test() -> None:
    assert {name for name, _, _ in PASSES.values()} == {kind.__name__ for kind in PIPELINE}


def same_again(schedule: Schedule) -> None:
    """A schedule is read back from its text as it was, and makes the same code."""
    text = print_schedule(schedule)
    again = parse_schedule(text)
    assert print_schedule(again) == text
    assert (again.broadcast, again.panels, again.groups) == (schedule.broadcast, schedule.panels, schedule.groups)
    programs = again.program, schedule.program
    facts = [(p.name, p.cores, p.addresses, p.names, p.affine, p.renames, p.fresh) for p in programs]
    assert facts[0] == facts[1]
    lie = [[(b.id, b.name, b.shape, b.dims, b.address, b.loop) for b in p.buffers] for p in programs]
    assert lie[0] == lie[1]
    level = host()
    ours, theirs = (lower(s, place(s, level.products), level) for s in (schedule, again))
    assert ours.sources == theirs.sources
    assert (ours.table == theirs.table).all()


@given(seed=st.integers(0, 1 << 30))
@settings(max_examples=15, deadline=None)
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_any_schedule_is_read_back(seed) -> None:
    program = draw(seed)
    with pytest.MonkeyPatch.context() as patch, suppress(NkiError):  # some programs are there to be refused
        patch.setenv("NEURON_PLATFORM_TARGET_OVERRIDE", program.target)
        same_again(scheduled(nki.jit(program.function()).trace(*program.arguments())))


@pytest.mark.parametrize(
    ("pattern", "instead", "said"),
    [
        (r"for rows", "for rowes", "'rowes' is not a valid Dim"),
        (r"for rows 128", "for rows", "malformed loop"),
        (r"elided", "left out", "malformed operation"),
        (r"source 0", "source", "malformed operand"),
        (r"1 activation", "7 activation", "there is no member 7 of 3"),
        (r"1 activation", "1 tensor_copy", "member 1 is activation, not tensor_copy"),
        (r"data=#1", "date=#1", "activation has no operand date"),
        (r"keeps %b", "keeps %c", "%?c"),
        (r"^}\n", "", "malformed operation|does not end"),
    ],
)
def test_malformed_trees_name_the_line(pattern, instead, said) -> None:
    text = HEAD + PASSES["a few rows at a time"][2]
    assert re.search(pattern, text, re.M)
    spoilt = re.sub(pattern, instead, text, count=1, flags=re.M)
    with pytest.raises(IrError, match=said):
        parse_schedule(spoilt)


@nki.jit
def watched(x):
    out = nl.ndarray(x.shape, dtype=x.dtype, buffer=nl.shared_hbm)
    nl.store(out, nl.log(nl.load(x)))
    return out


@pytest.mark.parametrize("fatal", [False, True])
def test_checks_for_nan_are_read_back(fatal, monkeypatch) -> None:
    monkeypatch.setenv("NKILITE_NAN", "error" if fatal else "warn")
    traced = watched.trace(np.ones((128, 512), np.float32))
    assert traced.watch
    same_again(Schedule(traced))
    schedule = scheduled(traced)
    assert schedule.program.checks
    same_again(schedule)
    again = parse_schedule(print_schedule(schedule)).program
    facts = "watch", "fatal", "watched", "managed", "cores"
    assert [getattr(again, fact) for fact in facts] == [getattr(schedule.program, fact) for fact in facts]
    ours, theirs = ([(*c[:4], c.location.line) for c in p.checks] for p in (again, schedule.program))
    assert ours == theirs
