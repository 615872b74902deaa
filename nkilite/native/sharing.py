"""The native code of a team: threads that share the walk of an instruction table.

A team cuts a walk into *phases*, which begin at the entries flagged MEET, and a phase into *parts*. A part is the same
share of every entry of the phase that splits; an entry with an owner (nkilite/native/streams.py) belongs to one part,
the others to part 0. A phase begins when all parts of the one before it are done: what was written before a meeting can
be read after it. Within a phase the parts do not depend on each other, so it does not matter which member does which
part, or when. Every member has a part of its own, whose data are in its cache; one that waits for longer does a part
whose owner has not come, so that a thread that is late, because it slept or has no core, holds nobody up.

A control instruction, or one at which the host takes over, is flagged MEET and LEAD: it is a phase of its own, and its
status says where the next one begins. A part that fails is not gone on with, and the phase is the last one. Of the
failures then found, the one at the earliest entry, in the lowest part, is what a single thread would have met.
"""

from __future__ import annotations

import ctypes
import platform
from typing import NamedTuple

import numpy as np

from nkilite.codegen.kernel import FAULT_WORDS, HEAD_WORDS, STATUS_JUMP
from nkilite.codegen.watch import LOOK, WATCH
from nkilite.compiled import Instruction, compiled
from nkilite.native.walker import BUDGET, HEAVIEST, LEAD, MEET, OWNER_SHIFT, SPLIT, WEIGHT_SHIFT

#: Words in front of the bases of a part: the word it stopped at, then those that every run has.
STATE_WORDS = 1 + HEAD_WORDS
_RESULT = -8 * STATE_WORDS

_LINE = 128  # bytes: cache lines are fetched in pairs

# A team, in bytes from its address.
_PHASE = 0  # i64: number of the phase; odd between launches. Its low half is a futex
_POSITION = 8  # i64: the word position where it begins
_ARRIVED = _LINE  # i64: parts of it that are done, and above bit 32 the sum of what they say
_SLEEPERS = 2 * _LINE  # i32: members asleep on the phase
_BUSY = 3 * _LINE  # i32: a launch is running
_JOB = 4 * _LINE
_MEMBERS = 5 * _LINE  # a line for each
# A member.
_TICKET = 0  # i32: counts launches that it is to help with; a futex
_ASLEEP = 4  # i32
_NUMBER = 8
_TEAM = 16
_CLAIM = 24  # i64: the last phase for which its part was taken, by it or another member
# A launch, whose number is 0, has its team as a member has; then
_START = 24  # i64: word position
_GIVEN = 32  # the words of its job
# An entry of the table.
_WIDTH, _FLAGS, _WORDS = 8, 12, 16


class Job(NamedTuple):
    """What a team is given, as int64 words.

    Attributes:
        table: address.
        count: word position of its end.
        bases: address of part 0's bases.
        stride: bytes between the bases of consecutive parts, each with STATE_WORDS in front, zero to begin with.
        parts: into which phases are cut; as many members take part.
        spin: looks at memory before a member that waits goes to sleep.
        mode: the launching thread's floating-point control register, which all compute under.
    """

    table: int
    count: int  # type: ignore[assignment]  # tuple.count is of no use here
    bases: int
    stride: int
    parts: int
    spin: int
    mode: int = 0


_WORDS_OF_A_JOB = len(Job._fields)
_TABLE, _COUNT, _BASES, _STRIDE, _PARTS, _SPIN, _MODE = (_JOB + 8 * i for i in range(_WORDS_OF_A_JOB))
_STEAL = 100  # looks before a member that waits does another one's part, at most
_AT = (1 << 48) - 1  # the bits of what stopped a part that are a word position; its status is above

BUSY = -1  # what a launch returns when another launch has the team

# --- what a processor and the system do -----------------------------------------------------------------------------

_load = Instruction("load i64, ptr {0}, align 8", ("ptr",), "i64")
_load_half = Instruction("load i32, ptr {0}, align 4", ("ptr",), "i32")
_store = Instruction("store i64 {1}, ptr {0}, align 8", ("ptr", "i64"), "void")

_get = Instruction("load atomic i64, ptr {0} monotonic, align 8", ("ptr",), "i64")
_put = Instruction("store atomic i64 {1}, ptr {0} monotonic, align 8", ("ptr", "i64"), "void")
_acquire = Instruction("load atomic i64, ptr {0} acquire, align 8", ("ptr",), "i64")
_publish = Instruction("store atomic i64 {1}, ptr {0} seq_cst, align 8", ("ptr", "i64"), "void")
_add = Instruction("atomicrmw add ptr {0}, i64 {1} acq_rel", ("ptr", "i64"), "i64")
_swap = Instruction(
    "{t} = cmpxchg ptr {0}, i64 {1}, i64 {2} acq_rel monotonic\nextractvalue {{ i64, i1 }} {t}, 1",
    ("ptr", "i64", "i64"), "i1",
)
_see_half = Instruction("load atomic i32, ptr {0} seq_cst, align 4", ("ptr",), "i32")
_publish_half = Instruction("store atomic i32 {1}, ptr {0} seq_cst, align 4", ("ptr", "i32"), "void")
_put_half = Instruction("store atomic i32 {1}, ptr {0} monotonic, align 4", ("ptr", "i32"), "void")
_release_half = Instruction("store atomic i32 {1}, ptr {0} release, align 4", ("ptr", "i32"), "void")
_count_half = Instruction("atomicrmw add ptr {0}, i32 1 seq_cst", ("ptr",), "i32")
_uncount_half = Instruction("atomicrmw sub ptr {0}, i32 1 monotonic", ("ptr",), "i32")
_take_half = Instruction(
    "{t} = cmpxchg ptr {0}, i32 0, i32 1 acquire monotonic\nextractvalue {{ i32, i1 }} {t}, 1", ("ptr",), "i1"
)

_modulo = Instruction("urem i32 {0}, {1}", ("i32", "i32"), "i32")  # `%` asks for signs, for every entry
_ask = Instruction("call i32 {0}(ptr {1})", ("ptr", "ptr"), "i32")
_micro_kernel = Instruction(
    "call i32 {0}(ptr {1}, ptr {2}, i64 {3}, i64 {4})", ("ptr", "ptr", "ptr", "i64", "i64"), "i32"
)

# Nanoseconds after which a member asleep in a launch looks up: signals may have gone elsewhere.
_NAP = "@nkilite_nap = private constant { i64, i64 } { i64 0, i64 50000000 }"
_WAIT, _WAKE, _ALL = 128, 129, (1 << 31) - 1  # FUTEX_WAIT_PRIVATE, FUTEX_WAKE_PRIVATE
_CALL = "declare i64 @syscall(i64, ...)"
if platform.machine().lower() in ("aarch64", "arm64"):
    _FUTEX = 98  # the system call's number
    _pause = Instruction("call void @llvm.aarch64.hint(i32 1)", (), "void", ("declare void @llvm.aarch64.hint(i32)",))
    _save_mode = Instruction(
        "{t} = call i64 @llvm.aarch64.get.fpcr()\nstore i64 {t}, ptr {0}, align 8", ("ptr",), "void",
        ("declare i64 @llvm.aarch64.get.fpcr()",),
    )
    _load_mode = Instruction(
        "{t} = load i64, ptr {0}, align 8\ncall void @llvm.aarch64.set.fpcr(i64 {t})", ("ptr",), "void",
        ("declare void @llvm.aarch64.set.fpcr(i64)",),
    )
else:
    _FUTEX = 202
    _pause = Instruction("call void @llvm.x86.sse2.pause()", (), "void", ("declare void @llvm.x86.sse2.pause()",))
    _save_mode, _load_mode = (
        Instruction(f"call void @llvm.x86.sse.{name}(ptr {{0}})", ("ptr",), "void",
                    (f"declare void @llvm.x86.sse.{name}(ptr)",))
        for name in ("stmxcsr", "ldmxcsr")
    )


def _sleeps(most: str, declares: tuple[str, ...]) -> Instruction:
    """To sleep on a futex as long as it has a value, at most for a time."""
    text = f"call i64 (i64, ...) @syscall(i64 {_FUTEX}, ptr {{0}}, i64 {_WAIT}, i32 {{1}}, ptr {most}, ptr null, i64 0)"
    return Instruction(text, ("ptr", "i32"), "i64", declares)


_sleep, _nap = _sleeps("null", (_CALL,)), _sleeps("@nkilite_nap", (_CALL, _NAP))
_wake = Instruction(
    f"call i64 (i64, ...) @syscall(i64 {_FUTEX}, ptr {{0}}, i64 {_WAKE}, i32 {_ALL}, ptr null, ptr null, i64 0)",
    ("ptr",), "i64", (_CALL,),
)

# --- what members do ------------------------------------------------------------------------------------------------


@compiled
def member(box: int) -> int:
    """What a thread does, given its member or a launch: one function, so that all is one module."""
    number, team = _load(box + _NUMBER), _load(box + _TEAM)
    return _work(team, number, box) if number else _launch(team, box + _GIVEN, _load(box + _START))


@compiled
def _launch(team: int, job: int, start: int) -> int:
    """Run a job on a team from a word position on: tell it, help, and return as nkilite_walk does, with the fault of
    the part that failed in front of part 0's bases; BUSY, having done nothing, if another launch has the team.

    The job is written between launches, when no member acts on what it reads of it, and published by the phase.
    """
    if not _take_half(team + _BUSY):
        return BUSY
    for word in range(_WORDS_OF_A_JOB):
        _put(team + _JOB + 8 * word, _load(job + 8 * word))
    _save_mode(team + _MODE)
    _put(team + _POSITION, start)
    _publish(team + _PHASE, _get(team + _PHASE) + 1)
    bases, stride, parts = _get(team + _BASES), _get(team + _STRIDE), _get(team + _PARTS)
    for worker in range(1, parts):
        box = team + _MEMBERS + _LINE * worker
        _count_half(box + _TICKET)
        if _see_half(box + _ASLEEP):
            _wake(box + _TICKET)
    _help(team, 0)
    first, first_at = 0, _AT
    for part in range(parts):
        own = bases + stride * part
        code = _load(own + _RESULT)
        if code != 0 and code & _AT < first_at and code >> 48 != STATUS_JUMP:
            first, first_at = code, code & _AT
            for word in range(1, FAULT_WORDS + 1):
                _store(bases - 8 * word, _load(own - 8 * word))
    _release_half(team + _BUSY, 0)
    return first


@compiled
def _work(team: int, number: int, box: int) -> int:
    """What a worker thread does, for ever: wait for a ticket, help, and wait again.

    Memory order. The launcher publishes the job by the phase, so a ticket only says that it is time to look. Sleeping
    is agreed on as in a phase: `asleep` then ticket here, ticket then `asleep` there, all seq_cst.
    """
    seen, patience, looks = 0, 0, 0
    while True:
        ticket = _see_half(box + _TICKET)
        if ticket != seen:
            _help(team, number)
            seen, patience, looks = ticket, _get(team + _SPIN), 0
        elif looks < patience:
            looks += 1
            _pause()
        else:
            _publish_half(box + _ASLEEP, 1)
            _sleep(box + _TICKET, seen)
            _put_half(box + _ASLEEP, 0)
    return 0


@compiled
def _help(team: int, member: int) -> None:
    """Help with a launch until it ends; with none, and with one that has too few parts for this member, not at all.

    A member that had to do another one's part tries the next time without waiting: as long as some have no core, the
    others do not lose time on each phase.
    """
    trust = _STEAL
    while True:
        phase = _acquire(team + _PHASE)
        if phase & 1:
            return
        parts, spin = _get(team + _PARTS), _get(team + _SPIN)
        if member >= parts:
            return
        part = -1
        if _claim(team, phase, member):
            part = member
        else:
            looks, patience = 0, min(spin, trust)
            while _acquire(team + _PHASE) == phase:
                if looks == patience:
                    part = _stolen(team, phase, parts)
                    trust = 0 if part >= 0 else _STEAL
                    if part >= 0:
                        break
                if looks >= spin:
                    _rest(team, phase, member)
                    trust = _STEAL
                    break
                looks += 1
                _pause()
        if part >= 0:
            position = _get(team + _POSITION)
            _arrive(team, phase, position, _do_part(team, member, position, part))


@compiled
def _rest(team: int, phase: int, member: int) -> None:
    """Sleep until a phase ends. The launching thread wakes now and then to ask the run's watch."""
    _count_half(team + _SLEEPERS)
    _nap(team + _PHASE, phase)
    _uncount_half(team + _SLEEPERS)
    if member == 0:
        watch = _load(_get(team + _BASES) + WATCH)
        _ask(_load(watch + LOOK), watch)


@compiled
def _stolen(team: int, phase: int, parts: int) -> int:
    """A part of a phase that nobody had come for; -1 if there is none."""
    for part in range(parts):
        if _claim(team, phase, part):
            return part
    return -1


@compiled
def _claim(team: int, phase: int, part: int) -> bool:
    """Take a part of a phase for the calling member; false if it is taken, or the phase is over.

    A part is taken by raising its claim to the phase. Every part of a phase is taken before the phase ends, so a member
    that comes too late with the number of an old phase finds the claims at least that high. What else it has read may
    then belong to a later launch: even if it finds a lower claim, of a part that the old phase did not have, it gives
    up because the phase has changed, and a claim that low does not stop anyone.
    """
    claim = team + _MEMBERS + _LINE * part + _CLAIM
    old = _get(claim)
    if old >= phase or not _swap(claim, old, phase):
        return False
    return _acquire(team + _PHASE) == phase


@compiled
def _do_part(team: int, member: int, position: int, part: int) -> int:
    """Do one part of a phase that begins at a position; the status (0 or that of the entry it ended at) above the
    bits of the word position after the phase.

    The launching member, whose thread alone handles signals, asks the run's watch at once, all of them after every
    BUDGET; once the watch has said no, it does so to everybody.
    """
    table, count, parts = _get(team + _TABLE), _get(team + _COUNT), _get(team + _PARTS)
    own = _get(team + _BASES) + _get(team + _STRIDE) * part
    watch = _load(own + WATCH)
    _load_mode(team + _MODE)
    at, budget = position, 0 if member == 0 else BUDGET
    while True:
        if budget <= 0:
            told = _ask(_load(watch + LOOK), watch)
            if told:
                _store(own + _RESULT, told << 48 | at)
                return told << 48 | at
            budget = BUDGET
        if at >= count:
            return at
        entry = table + 8 * at
        flags = _load_half(entry + _FLAGS)
        if flags & MEET and at != position:
            return at
        after, owner, splits = at + _load_half(entry + _WIDTH), flags >> OWNER_SHIFT, flags & SPLIT
        if _modulo(owner - 1, parts) == part if owner else splits or part == 0:
            code = _micro_kernel(
                _load(entry), entry + _WORDS, own, part if splits else 0, parts if splits else 1
            )
            if code:
                _store(own + _RESULT, code << 48 | at)
                return code << 48 | after
            budget -= flags >> WEIGHT_SHIFT & HEAVIEST
        if flags & LEAD:
            return after
        at = after
    return 0


@compiled
def _arrive(team: int, phase: int, position: int, done: int) -> None:
    """Count a part as done; the last one opens the next phase, or ends the launch.

    Memory order. The additions to `arrived` (acq_rel) form one chain that the last member acquires, and its change of
    `phase` is a release that everyone who goes on acquires: what was done in a phase is visible in the next. `arrived`
    and `position` are only written by the last member, while no other has anything to do. Going to sleep: a sleeper
    counts itself and then has the kernel compare the phase, the last member changes the phase and then looks at the
    count; all seq_cst, so either the kernel sees the new phase or the last member sees the sleeper.
    """
    one = done >> 48 << 32 | 1
    total = _add(team + _ARRIVED, one) + one
    if total & (1 << 32) - 1 != _get(team + _PARTS):
        return
    _put(team + _ARRIVED, 0)
    said, after = total >> 32, done & _AT
    entry = _get(team + _TABLE) + 8 * position
    if said == STATUS_JUMP and _load_half(entry + _FLAGS) & LEAD:
        said, after = 0, position + _load(entry + 8 * _load_half(entry + _WIDTH) - 8)
    goes_on = said == 0 and after < _get(team + _COUNT)
    if goes_on:
        _put(team + _POSITION, after)
    _publish(team + _PHASE, phase + (2 if goes_on else 1))
    if _see_half(team + _SLEEPERS):
        _wake(team + _PHASE)


def new_team(address: int, members: int) -> None:
    """Make zeroed memory of `team_bytes(members)` a team that no launch uses."""
    _set(address + _PHASE, 1)
    for number in range(members):
        member = member_address(address, number)
        _set(member + _NUMBER, number)
        _set(member + _TEAM, address)


def team_bytes(members: int) -> int:
    """Memory of a team that can have so many members."""
    return _MEMBERS + _LINE * members


def member_address(team: int, number: int) -> int:
    """Address of a member; what `member` takes for those other than the launching thread, number 0."""
    return team + _MEMBERS + _LINE * number


def launch_words(team: int, job: np.ndarray, start: int) -> np.ndarray:
    """A launch of a job (the words of a `Job`) from a word position of its table on, as `member` takes it."""
    return np.concatenate([np.array([0, 0, team, start], np.int64), job])


def _set(address: int, value: int) -> None:
    ctypes.c_int64.from_address(address).value = value
