"""The native code that runs an instruction table: on one thread, or on a team of threads that walk it together.

An entry of the table is [function, width and flags, words...]: the width in words is the low half of its second word,
the flags are the high half. Every member of a team walks the whole table. It does its part of the entries that split;
part 0 does the others. In front of an entry flagged MEET all members meet, and so they do at the end of the table:
what was written before a meeting can be read after it. Between meetings members may be any distance apart.

A control instruction, or one at which the host takes over, is flagged LEAD: part 0 runs it between two meetings, and
all members follow its status. A member whose part fails does nothing more until the next meeting, where all stop.
Of the failures then found, the one at the earliest entry, in the lowest part, is what a single thread would have met:
no member depends on what another one does between two meetings.
"""

from __future__ import annotations

import ctypes
import platform
from typing import NamedTuple

from nkilite.codegen.kernel import FAULT_WORDS, STATUS_JUMP
from nkilite.runtime.library import Source

WIDTH = (1 << 32) - 1  # the bits of an entry's second word that are its width

# Flags of an entry.
MEET = 1  # members meet before it
SPLIT = 2  # each member does a part of it
LEAD = 4  # its status decides where the walk goes on

#: Words in front of the bases of a part: the word it stopped at, then what a failing micro-kernel leaves.
STATE_WORDS = 1 + FAULT_WORDS
_RESULT = -8 * STATE_WORDS
_FAULTS = [-8 * (1 + i) for i in range(FAULT_WORDS)]

_LINE = 128  # bytes: cache lines are fetched in pairs

# A team, and the mailboxes of its workers after it; byte offsets.
_PHASE = 0  # i32: counts meetings; a futex
_SUM = 8  # i64: of what the members brought to the last one
_ARRIVED = _LINE  # i64: members that have arrived, and above bit 32 the sum of what they brought
_SLEEPERS = 2 * _LINE  # i32: members asleep on the phase
_BUSY = 3 * _LINE  # i32: a launch is running
_BOXES = 4 * _LINE
# A mailbox, one line for each worker.
_TICKET = 0  # i32: counts jobs; a futex
_ASLEEP = 4  # i32
_JOB = 8
_PART = 16
_TEAM = 24


class Job(NamedTuple):
    """What a team is given, as int64 words.

    Attributes:
        table: address.
        start, count: word positions where the walk begins and ends.
        bases: address of part 0's bases.
        stride: bytes between the bases of consecutive parts, each with its own STATE_WORDS in front.
        parts: members that walk.
        spin: looks at memory before a member that waits goes to sleep.
        mode: the launching thread's floating-point control register, which its workers compute under.
    """

    table: int
    start: int
    count: int  # type: ignore[assignment]  # tuple.count is of no use here
    bases: int
    stride: int
    parts: int
    spin: int
    mode: int = 0


_FIELD = {name: 8 * i for i, name in enumerate(Job._fields)}

BUSY = -1  # what nkilite_launch returns when another launch has the team

# Walks from a word position to the end, or until an entry neither succeeds nor jumps; returns 0, or
# status << 48 | word position of that entry. STATUS_JUMP moves by the distance in the entry's last word, which control
# instructions have.
_WALK = f"""
define i64 @nkilite_walk(ptr %table, i64 %start, i64 %count, ptr %bases) {{
entry:
  br label %head
head:
  %at = phi i64 [ %start, %entry ], [ %next, %advance ], [ %target, %jump ]
  %more = icmp slt i64 %at, %count
  br i1 %more, label %body, label %done
body:
  %entry_ptr = getelementptr i64, ptr %table, i64 %at
  %function = load ptr, ptr %entry_ptr, align 8
  %width_ptr = getelementptr i8, ptr %entry_ptr, i64 8
  %narrow = load i32, ptr %width_ptr, align 8
  %width = zext i32 %narrow to i64
  %words = getelementptr i8, ptr %entry_ptr, i64 16
  %status = call i32 %function(ptr %words, ptr %bases, i64 0, i64 1)
  %ok = icmp eq i32 %status, 0
  br i1 %ok, label %advance, label %other
advance:
  %next = add i64 %at, %width
  br label %head
other:
  %jumps = icmp eq i32 %status, {STATUS_JUMP}
  br i1 %jumps, label %jump, label %fail
jump:
  %past = getelementptr i64, ptr %entry_ptr, i64 %width
  %last = getelementptr i8, ptr %past, i64 -8
  %distance = load i64, ptr %last, align 8
  %target = add i64 %at, %distance
  br label %head
fail:
  %wide = zext i32 %status to i64
  %high = shl i64 %wide, 48
  %code = or i64 %high, %at
  ret i64 %code
done:
  ret i64 0
}}
"""


def _fields(*names: str) -> str:
    """Loads of a job's fields into values of their names."""
    kinds = {"table": "ptr", "bases": "ptr"}
    return "\n".join(
        f"  %{n}_ptr = getelementptr i8, ptr %job, i64 {_FIELD[n]}\n"
        f"  %{n} = load {kinds.get(n, 'i64')}, ptr %{n}_ptr, align 8"
        for n in names
    )


_WALK_PART = f"""
define void @nkilite_walk_part(ptr %job, i64 %part, ptr %team) {{
entry:
{_fields("table", "start", "count", "bases", "stride", "parts", "spin")}
  %shift = mul i64 %stride, %part
  %own = getelementptr i8, ptr %bases, i64 %shift
  %result = getelementptr i8, ptr %own, i64 {_RESULT}
  store i64 0, ptr %result, align 8
  %first = icmp eq i64 %part, 0
  br label %head
head:
  %at = phi i64 [ %start, %entry ], [ %next, %advance ], [ %target, %jump ]
  %failed = phi i64 [ 0, %entry ], [ %fails, %advance ], [ 0, %jump ]
  %more = icmp slt i64 %at, %count
  br i1 %more, label %body, label %end
body:
  %entry_ptr = getelementptr i64, ptr %table, i64 %at
  %function = load ptr, ptr %entry_ptr, align 8
  %width_ptr = getelementptr i8, ptr %entry_ptr, i64 8
  %narrow = load i32, ptr %width_ptr, align 8
  %width = zext i32 %narrow to i64
  %flags_ptr = getelementptr i8, ptr %entry_ptr, i64 12
  %flags = load i32, ptr %flags_ptr, align 4
  %words = getelementptr i8, ptr %entry_ptr, i64 16
  %meet = and i32 %flags, {MEET}
  %meets = icmp ne i32 %meet, 0
  br i1 %meets, label %meeting, label %work
meeting:
  %stop = call i64 @nkilite_meet(ptr %team, i64 %parts, i64 %spin, i64 %failed)
  %stops = icmp ne i64 %stop, 0
  br i1 %stops, label %done, label %work
work:
  %lead = and i32 %flags, {LEAD}
  %leads = icmp ne i32 %lead, 0
  br i1 %leads, label %led, label %plain
plain:
  %split = and i32 %flags, {SPLIT}
  %splits = icmp ne i32 %split, 0
  %whole = select i1 %splits, i64 %parts, i64 1
  %mine = or i1 %splits, %first
  %idle = icmp ne i64 %failed, 0
  %busy = xor i1 %idle, true
  %runs = and i1 %mine, %busy
  br i1 %runs, label %run, label %advance
run:
  %status = call i32 %function(ptr %words, ptr %own, i64 %part, i64 %whole)
  %bad = icmp ne i32 %status, 0
  br i1 %bad, label %fail, label %advance
fail:
  %code = call i64 @nkilite_stopped(i32 %status, i64 %at)
  store i64 %code, ptr %result, align 8
  br label %advance
advance:
  %fails = phi i64 [ %failed, %plain ], [ 0, %run ], [ 1, %fail ], [ 0, %follow ]
  %next = add i64 %at, %width
  br label %head
led:
  br i1 %first, label %leader, label %verdict
leader:
  %leader_status = call i32 %function(ptr %words, ptr %own, i64 0, i64 1)
  %leader_wide = zext i32 %leader_status to i64
  br label %verdict
verdict:
  %brought = phi i64 [ 0, %led ], [ %leader_wide, %leader ]
  %said = call i64 @nkilite_meet(ptr %team, i64 %parts, i64 %spin, i64 %brought)
  %jumps = icmp eq i64 %said, {STATUS_JUMP}
  br i1 %jumps, label %jump, label %follow
jump:
  %past = getelementptr i64, ptr %entry_ptr, i64 %width
  %last = getelementptr i8, ptr %past, i64 -8
  %distance = load i64, ptr %last, align 8
  %target = add i64 %at, %distance
  br label %head
follow:
  %goes_on = icmp eq i64 %said, 0
  br i1 %goes_on, label %advance, label %leave
leave:
  br i1 %first, label %report, label %done
report:
  %why = trunc i64 %said to i32
  %where = call i64 @nkilite_stopped(i32 %why, i64 %at)
  store i64 %where, ptr %result, align 8
  br label %done
end:
  %last_stop = call i64 @nkilite_meet(ptr %team, i64 %parts, i64 %spin, i64 %failed)
  br label %done
done:
  ret void
}}

define private i64 @nkilite_stopped(i32 %status, i64 %at) {{
  %wide = zext i32 %status to i64
  %high = shl i64 %wide, 48
  %code = or i64 %high, %at
  ret i64 %code
}}
"""

# All members call it; all return once the last one has arrived, with the sum of the words they brought.
#
# Memory order. What a member wrote before arriving is visible to everybody after the meeting: the additions to
# `arrived` (acq_rel) form one chain that the last member acquires, and its release of `phase` is what the others
# acquire. `sum` and the reset of `arrived` are plain: only the last member writes them, when all others wait, and the
# next one to write them does so after each of those has arrived again, hence has read the sum. The phase read on
# entry cannot change before this member arrives. Going to sleep: a sleeper counts itself and then has the kernel
# compare the phase, the last member changes the phase and then looks at the count; all seq_cst, so either the kernel
# sees the new phase or the last member sees the sleeper.
_MEET = f"""
define i64 @nkilite_meet(ptr %team, i64 %parts, i64 %spin, i64 %word) {{
entry:
  %phase_ptr = getelementptr i8, ptr %team, i64 {_PHASE}
  %sleepers = getelementptr i8, ptr %team, i64 {_SLEEPERS}
  %arrived = getelementptr i8, ptr %team, i64 {_ARRIVED}
  %sum = getelementptr i8, ptr %team, i64 {_SUM}
  %phase = load atomic i32, ptr %phase_ptr monotonic, align 4
  %shifted = shl i64 %word, 32
  %packed = or i64 %shifted, 1
  %before = atomicrmw add ptr %arrived, i64 %packed acq_rel
  %total = add i64 %before, %packed
  %members = and i64 %total, 4294967295
  %last = icmp eq i64 %members, %parts
  br i1 %last, label %open, label %look
open:
  %all = lshr i64 %total, 32
  store i64 %all, ptr %sum, align 8
  store atomic i64 0, ptr %arrived monotonic, align 8
  %old = atomicrmw add ptr %phase_ptr, i32 1 seq_cst
  %asleep = load atomic i32, ptr %sleepers seq_cst, align 4
  %someone = icmp ne i32 %asleep, 0
  br i1 %someone, label %wake, label %opened
wake:
  call void @nkilite_wake(ptr %phase_ptr)
  br label %opened
opened:
  ret i64 %all
look:
  %looks = phi i64 [ 0, %entry ], [ %more_looks, %again ]
  %now = load atomic i32, ptr %phase_ptr acquire, align 4
  %changed = icmp ne i32 %now, %phase
  br i1 %changed, label %met, label %wait
wait:
  %tired = icmp uge i64 %looks, %spin
  br i1 %tired, label %sleep, label %again
again:
  %more_looks = add i64 %looks, 1
  call void @nkilite_pause()
  br label %look
sleep:
  %counted = atomicrmw add ptr %sleepers, i32 1 seq_cst
  call void @nkilite_sleep(ptr %phase_ptr, i32 %phase)
  %uncounted = atomicrmw sub ptr %sleepers, i32 1 monotonic
  %woken = load atomic i32, ptr %phase_ptr acquire, align 4
  %still = icmp eq i32 %woken, %phase
  br i1 %still, label %sleep, label %met
met:
  %result = load i64, ptr %sum, align 8
  ret i64 %result
}}
"""

# A worker thread, for ever: waits for a ticket in its mailbox, does its part of the job, and waits again.
#
# Memory order. The launcher writes the job and then the ticket (seq_cst, hence a release), which the worker acquires.
# Sleeping is agreed on as in a meeting: `asleep` then ticket here, ticket then `asleep` there, all seq_cst. The job is
# only read before the worker's last meeting, so the launcher may reuse it after that.
_WORK = f"""
define ptr @nkilite_work(ptr %box) {{
entry:
  %asleep = getelementptr i8, ptr %box, i64 {_ASLEEP}
  %job_ptr = getelementptr i8, ptr %box, i64 {_JOB}
  %part_ptr = getelementptr i8, ptr %box, i64 {_PART}
  %part = load i64, ptr %part_ptr, align 8
  %team_ptr = getelementptr i8, ptr %box, i64 {_TEAM}
  %team = load ptr, ptr %team_ptr, align 8
  br label %rest
rest:
  %seen = phi i32 [ 0, %entry ], [ %ticket, %work ]
  %patience = phi i64 [ 0, %entry ], [ %spin, %work ]
  br label %look
look:
  %looks = phi i64 [ 0, %rest ], [ %more_looks, %again ], [ %looks, %sleep ]
  %ticket = load atomic i32, ptr %box seq_cst, align 4
  %called = icmp ne i32 %ticket, %seen
  br i1 %called, label %work, label %wait
wait:
  %tired = icmp uge i64 %looks, %patience
  br i1 %tired, label %sleep, label %again
again:
  %more_looks = add i64 %looks, 1
  call void @nkilite_pause()
  br label %look
sleep:
  store atomic i32 1, ptr %asleep seq_cst, align 4
  call void @nkilite_sleep(ptr %box, i32 %seen)
  store atomic i32 0, ptr %asleep monotonic, align 4
  br label %look
work:
  %job = load ptr, ptr %job_ptr, align 8
{_fields("spin")}
  %mode = getelementptr i8, ptr %job, i64 {_FIELD["mode"]}
  call void @nkilite_load_mode(ptr %mode)
  call void @nkilite_walk_part(ptr %job, i64 %part, ptr %team)
  br label %rest
}}
"""

_COPY_FAULT = "\n".join(
    f"  %from{i} = getelementptr i8, ptr %own, i64 {at}\n"
    f"  %to{i} = getelementptr i8, ptr %bases, i64 {at}\n"
    f"  %fault{i} = load i64, ptr %from{i}, align 8\n"
    f"  store i64 %fault{i}, ptr %to{i}, align 8"
    for i, at in enumerate(_FAULTS)
)

# Runs a job on a team: calls the workers, does part 0, and returns as nkilite_walk does, with the fault of the part
# that failed in front of part 0's bases. Returns BUSY, having done nothing, if another launch has the team.
_LAUNCH = f"""
define i64 @nkilite_launch(ptr %team, ptr %job) {{
entry:
  %busy = getelementptr i8, ptr %team, i64 {_BUSY}
  %taken = cmpxchg ptr %busy, i32 0, i32 1 acquire monotonic
  %free = extractvalue {{ i32, i1 }} %taken, 1
  br i1 %free, label %begin, label %refuse
refuse:
  ret i64 {BUSY}
begin:
{_fields("bases", "stride", "parts")}
  %mode = getelementptr i8, ptr %job, i64 {_FIELD["mode"]}
  call void @nkilite_save_mode(ptr %mode)
  br label %calling
calling:
  %worker = phi i64 [ 1, %begin ], [ %next_worker, %called ]
  %calls = icmp slt i64 %worker, %parts
  br i1 %calls, label %call, label %walk
call:
  %place = mul i64 %worker, {_LINE}
  %from_boxes = add i64 %place, {_BOXES}
  %box = getelementptr i8, ptr %team, i64 %from_boxes
  %job_ptr = getelementptr i8, ptr %box, i64 {_JOB}
  store ptr %job, ptr %job_ptr, align 8
  %ticket = atomicrmw add ptr %box, i32 1 seq_cst
  %asleep_ptr = getelementptr i8, ptr %box, i64 {_ASLEEP}
  %asleep = load atomic i32, ptr %asleep_ptr seq_cst, align 4
  %sleeps = icmp ne i32 %asleep, 0
  br i1 %sleeps, label %wake, label %called
wake:
  call void @nkilite_wake(ptr %box)
  br label %called
called:
  %next_worker = add i64 %worker, 1
  br label %calling
walk:
  call void @nkilite_walk_part(ptr %job, i64 0, ptr %team)
  br label %reading
reading:
  %part = phi i64 [ 0, %walk ], [ %next_part, %kept ]
  %first_code = phi i64 [ 0, %walk ], [ %kept_code, %kept ]
  %first_at = phi i64 [ {(1 << 48) - 1}, %walk ], [ %kept_at, %kept ]
  %reads = icmp slt i64 %part, %parts
  br i1 %reads, label %read, label %end
read:
  %shift = mul i64 %stride, %part
  %own = getelementptr i8, ptr %bases, i64 %shift
  %result_ptr = getelementptr i8, ptr %own, i64 {_RESULT}
  %code = load i64, ptr %result_ptr, align 8
  %at = and i64 %code, {(1 << 48) - 1}
  %failed = icmp ne i64 %code, 0
  %earlier = icmp slt i64 %at, %first_at
  %better = and i1 %failed, %earlier
  br i1 %better, label %take, label %kept
take:
{_COPY_FAULT}
  br label %kept
kept:
  %kept_code = phi i64 [ %first_code, %read ], [ %code, %take ]
  %kept_at = phi i64 [ %first_at, %read ], [ %at, %take ]
  %next_part = add i64 %part, 1
  br label %reading
end:
  store atomic i32 0, ptr %busy release, align 4
  ret i64 %first_code
}}
"""

_WAIT, _WAKE, _ALL = 128, 129, (1 << 31) - 1  # FUTEX_WAIT_PRIVATE, FUTEX_WAKE_PRIVATE
if platform.machine().lower() in ("aarch64", "arm64"):
    _FUTEX = 98  # the system call's number
    _PAUSE = "call void @llvm.aarch64.hint(i32 1)"
    _SAVE = "%value = call i64 @llvm.aarch64.get.fpcr()\n  store i64 %value, ptr %mode, align 8"
    _LOAD = "%value = load i64, ptr %mode, align 8\n  call void @llvm.aarch64.set.fpcr(i64 %value)"
    _INTRINSICS = (
        "declare void @llvm.aarch64.hint(i32)", "declare i64 @llvm.aarch64.get.fpcr()",
        "declare void @llvm.aarch64.set.fpcr(i64)",
    )
else:
    _FUTEX = 202
    _PAUSE = "call void @llvm.x86.sse2.pause()"
    _SAVE = "call void @llvm.x86.sse.stmxcsr(ptr %mode)"
    _LOAD = "call void @llvm.x86.sse.ldmxcsr(ptr %mode)"
    _INTRINSICS = (
        "declare void @llvm.x86.sse2.pause()", "declare void @llvm.x86.sse.stmxcsr(ptr)",
        "declare void @llvm.x86.sse.ldmxcsr(ptr)",
    )

_SYSTEM = f"""
define private void @nkilite_pause() {{
  {_PAUSE}
  ret void
}}

define private void @nkilite_save_mode(ptr %mode) {{
  {_SAVE}
  ret void
}}

define private void @nkilite_load_mode(ptr %mode) {{
  {_LOAD}
  ret void
}}

define private void @nkilite_sleep(ptr %futex, i32 %value) {{
  %done = call i64 (i64, ...) @syscall(i64 {_FUTEX}, ptr %futex, i64 {_WAIT}, i32 %value, ptr null, ptr null, i64 0)
  ret void
}}

define private void @nkilite_wake(ptr %futex) {{
  %done = call i64 (i64, ...) @syscall(i64 {_FUTEX}, ptr %futex, i64 {_WAKE}, i32 {_ALL}, ptr null, ptr null, i64 0)
  ret void
}}
"""

WALK = Source("nkilite_walk", _WALK, ())

#: Compiled together: the first two call functions of the last one.
TEAM = (
    Source("nkilite_launch", _LAUNCH, ()),
    Source("nkilite_work", _WORK, ()),
    Source(
        "nkilite_walk_part", "\n".join((_WALK_PART, _MEET, _SYSTEM)),
        ("declare i64 @syscall(i64, ...)", *_INTRINSICS),
    ),
)


def team_bytes(members: int) -> int:
    """Memory of a team and its mailboxes, zeroed to begin with."""
    return _BOXES + _LINE * members


def mailbox(team: int, part: int) -> int:
    """Address of the mailbox of the worker for a part (1, 2, ...), filled in; the argument of nkilite_work."""
    box = team + _BOXES + _LINE * part
    for offset, value in ((_PART, part), (_TEAM, team)):
        ctypes.c_int64.from_address(box + offset).value = value
    return box
