"""The native code of a team: threads that share the walk of an instruction table.

A team cuts a walk into *phases*, which begin at the entries flagged MEET, and a phase into *parts*. A part is the same
share of every entry of the phase that splits; an entry with an owner (nkilite/native/streams.py) belongs to one part,
the others to part 0. A phase begins when all parts of the one before it are done: what was written before a meeting can
be read after it. Within a phase the parts do not depend on each other, so it does not matter which member does which
part, or when. Every member has a part of its own, whose
data are in its cache; one that waits for longer does a part whose owner has not come, so that a thread that is late,
because it slept or has no core, holds nobody up.

A control instruction, or one at which the host takes over, is flagged MEET and LEAD: it is a phase of its own, and its
status says where the next one begins. A part that fails is not gone on with, and the phase is the last one. Of the
failures then found, the one at the earliest entry, in the lowest part, is what a single thread would have met.
"""

from __future__ import annotations

import ctypes
import platform
from typing import NamedTuple

from nkilite.codegen import watch
from nkilite.codegen.kernel import FAULT_WORDS, HEAD_WORDS, STATUS_JUMP
from nkilite.native.library import Source
from nkilite.native.walker import BUDGET, LEAD, MEET, OWNER_SHIFT, SPLIT, entry_at

#: Words in front of the bases of a part: the word it stopped at, then those that every run has.
STATE_WORDS = 1 + HEAD_WORDS
_RESULT = -8 * STATE_WORDS
_FAULTS = [-8 * (1 + i) for i in range(FAULT_WORDS)]

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


_FIELD = {name: _JOB + 8 * i for i, name in enumerate(Job._fields)}
_STEAL = 100  # looks before a member that waits does another one's part, at most

BUSY = -1  # what nkilite_launch returns when another launch has the team

def _fields(*names: str) -> str:
    """Loads of the fields of a team's job into values of their names."""
    return "\n".join(
        f"  %{name}_ptr = getelementptr i8, ptr %team, i64 {_FIELD[name]}\n"
        f"  %{name} = load atomic i64, ptr %{name}_ptr monotonic, align 8"
        for name in names
    )


# Does one part of a phase that begins at %position, on a member. The launching one, whose thread alone handles signals,
# asks the run's watch at once, all of them after every BUDGET; once the watch has said no, it does so to everybody.
#
# Returns its status (0 or that of the entry it ended at) above
# bit 48 of the word position after the phase.
_DO_PART = f"""
define private i64 @nkilite_do_part(ptr %team, i64 %member, i64 %position, i64 %part) {{
entry:
{_fields("table", "count", "bases", "stride", "parts")}
  %mode = getelementptr i8, ptr %team, i64 {_FIELD["mode"]}
  call void @nkilite_load_mode(ptr %mode)
  %shift = mul i64 %stride, %part
  %own_bases = add i64 %bases, %shift
  %own = inttoptr i64 %own_bases to ptr
  %first = icmp eq i64 %part, 0
  %words_ptr = inttoptr i64 %table to ptr
  %launches = icmp eq i64 %member, 0
  br i1 %launches, label %look, label %head
head:
  %at = phi i64 [ %position, %entry ], [ %next, %advance ], [ %from, %look ]
  %budget = phi i32 [ {BUDGET}, %entry ], [ %left, %advance ], [ {BUDGET}, %look ]
  %over = icmp sge i64 %at, %count
  br i1 %over, label %end, label %body
look:
  %from = phi i64 [ %position, %entry ], [ %next, %advance ]
{watch.look("%own", "told")}
  %goes_on = icmp eq i32 %told, 0
  br i1 %goes_on, label %head, label %stop
body:
{entry_at("%words_ptr")}
  %next = add i64 %at, %width
  %meet = and i32 %flags, {MEET}
  %meets = icmp ne i32 %meet, 0
  %inside = icmp ne i64 %at, %position
  %ends = and i1 %meets, %inside
  br i1 %ends, label %end, label %work
work:
  %split = and i32 %flags, {SPLIT}
  %splits = icmp ne i32 %split, 0
  %owner = lshr i32 %flags, {OWNER_SHIFT}
  %owned = icmp ne i32 %owner, 0
  br i1 %owned, label %stream, label %share
stream:
  %stream_number = sub i32 %owner, 1
  %wide_number = zext i32 %stream_number to i64
  %whose = urem i64 %wide_number, %parts
  %mine = icmp eq i64 %whose, %part
  br label %decide
share:
  %shares = or i1 %splits, %first
  br label %decide
decide:
  %runs = phi i1 [ %mine, %stream ], [ %shares, %share ]
  br i1 %runs, label %run, label %ran
run:
  %which = select i1 %splits, i64 %part, i64 0
  %of = select i1 %splits, i64 %parts, i64 1
  %code = call i32 %function(ptr %words, ptr %own, i64 %which, i64 %of)
  %bad = icmp ne i32 %code, 0
  br i1 %bad, label %stop, label %ran
ran:
  %lead = and i32 %flags, {LEAD}
  %leads = icmp ne i32 %lead, 0
  br i1 %leads, label %end, label %advance
advance:
  %cost = select i1 %runs, i32 %weight, i32 0
  %left = sub i32 %budget, %cost
  %spent = icmp sle i32 %left, 0
  br i1 %spent, label %look, label %head
stop:
  %reason = phi i32 [ %code, %run ], [ %told, %look ]
  %reached = phi i64 [ %at, %run ], [ %from, %look ]
  %behind = phi i64 [ %next, %run ], [ %from, %look ]
  %wide = zext i32 %reason to i64
  %high = shl i64 %wide, 48
  %where = or i64 %high, %reached
  %result = getelementptr i8, ptr %own, i64 {_RESULT}
  store i64 %where, ptr %result, align 8
  %stopped = or i64 %high, %behind
  ret i64 %stopped
end:
  %after = phi i64 [ %at, %head ], [ %at, %body ], [ %next, %ran ]
  ret i64 %after
}}
"""

# Counts a part as done; the last one opens the next phase, or ends the launch.
#
# Memory order. The additions to `arrived` (acq_rel) form one chain that the last member acquires, and its change of
# `phase` is a release that everyone who goes on acquires: what was done in a phase is visible in the next. `arrived`
# and `position` are only written by the last member, while no other has anything to do. Going to sleep: a sleeper
# counts itself and then has the kernel compare the phase, the last member changes the phase and then looks at the
# count; all seq_cst, so either the kernel sees the new phase or the last member sees the sleeper.
_ARRIVE = f"""
define private void @nkilite_arrive(ptr %team, i64 %phase, i64 %position, i64 %done) {{
entry:
{_fields("table", "count", "parts")}
  %arrived = getelementptr i8, ptr %team, i64 {_ARRIVED}
  %status = lshr i64 %done, 48
  %after = and i64 %done, {(1 << 48) - 1}
  %above = shl i64 %status, 32
  %packed = or i64 %above, 1
  %before = atomicrmw add ptr %arrived, i64 %packed acq_rel
  %total = add i64 %before, %packed
  %members = and i64 %total, 4294967295
  %last = icmp eq i64 %members, %parts
  br i1 %last, label %open, label %left
left:
  ret void
open:
  store atomic i64 0, ptr %arrived monotonic, align 8
  %said = lshr i64 %total, 32
  %words = inttoptr i64 %table to ptr
  %entry_ptr = getelementptr i64, ptr %words, i64 %position
  %flags_ptr = getelementptr i8, ptr %entry_ptr, i64 12
  %flags = load i32, ptr %flags_ptr, align 4
  %lead = and i32 %flags, {LEAD}
  %leads = icmp ne i32 %lead, 0
  %two = icmp eq i64 %said, {STATUS_JUMP}
  %jumps = and i1 %leads, %two
  br i1 %jumps, label %jump, label %straight
jump:
  %width_ptr = getelementptr i8, ptr %entry_ptr, i64 8
  %narrow = load i32, ptr %width_ptr, align 8
  %width = zext i32 %narrow to i64
  %past = getelementptr i64, ptr %entry_ptr, i64 %width
  %last_word = getelementptr i8, ptr %past, i64 -8
  %distance = load i64, ptr %last_word, align 8
  %target = add i64 %position, %distance
  br label %go
straight:
  %fine = icmp eq i64 %said, 0
  br i1 %fine, label %go, label %finish
go:
  %next = phi i64 [ %target, %jump ], [ %after, %straight ]
  %more = icmp slt i64 %next, %count
  br i1 %more, label %go_on, label %finish
go_on:
  %position_ptr = getelementptr i8, ptr %team, i64 {_POSITION}
  store atomic i64 %next, ptr %position_ptr monotonic, align 8
  br label %publish
finish:
  br label %publish
publish:
  %step = phi i64 [ 2, %go_on ], [ 1, %finish ]
  %new = add i64 %phase, %step
  %phase_ptr = getelementptr i8, ptr %team, i64 {_PHASE}
  store atomic i64 %new, ptr %phase_ptr seq_cst, align 8
  %sleepers = getelementptr i8, ptr %team, i64 {_SLEEPERS}
  %asleep = load atomic i32, ptr %sleepers seq_cst, align 4
  %someone = icmp ne i32 %asleep, 0
  br i1 %someone, label %wake, label %left
wake:
  call void @nkilite_wake(ptr %phase_ptr)
  ret void
}}
"""

# Takes a part of a phase for the calling member; false if it is taken, or the phase is over.
#
# A part is taken by raising its claim to the phase. Every part of a phase is taken before the phase ends, so a member
# that comes too late with the number of an old phase finds the claims at least that high. What else it has read may
# then belong to a later launch: even if it finds a lower claim, of a part that the old phase did not have, it gives up
# because the phase has changed, and a claim that low does not stop anyone.
_CLAIM_PART = f"""
define private i1 @nkilite_claim(ptr %team, i64 %phase, i64 %part) {{
entry:
  %place = mul i64 %part, {_LINE}
  %from = add i64 %place, {_MEMBERS + _CLAIM}
  %claim = getelementptr i8, ptr %team, i64 %from
  %old = load atomic i64, ptr %claim monotonic, align 8
  %free = icmp slt i64 %old, %phase
  br i1 %free, label %take, label %no
take:
  %pair = cmpxchg ptr %claim, i64 %old, i64 %phase acq_rel monotonic
  %taken = extractvalue {{ i64, i1 }} %pair, 1
  br i1 %taken, label %check, label %no
check:
  %phase_ptr = getelementptr i8, ptr %team, i64 {_PHASE}
  %now = load atomic i64, ptr %phase_ptr acquire, align 8
  %same = icmp eq i64 %now, %phase
  ret i1 %same
no:
  ret i1 false
}}
"""

# Helps with a launch until it ends, or returns at once if there is none or it has too few parts for this member.
#
# A member that had to do another one's part tries the next time without waiting: as long as some have no core, the
# others do not lose time on each phase.
_HELP = f"""
define private void @nkilite_help(ptr %team, i64 %member) {{
entry:
  %phase_ptr = getelementptr i8, ptr %team, i64 {_PHASE}
  %position_ptr = getelementptr i8, ptr %team, i64 {_POSITION}
  %sleepers = getelementptr i8, ptr %team, i64 {_SLEEPERS}
  br label %top
top:
  %trust = phi i64 [ {_STEAL}, %entry ], [ %kept_trust, %look ], [ {_STEAL}, %awake ], [ %trusted, %do ]
  %phase = load atomic i64, ptr %phase_ptr acquire, align 8
  %odd = and i64 %phase, 1
  %between = icmp ne i64 %odd, 0
  br i1 %between, label %leave, label %launched
launched:
{_fields("parts", "spin")}
  %needed = icmp slt i64 %member, %parts
  br i1 %needed, label %own, label %leave
own:
  %mine = call i1 @nkilite_claim(ptr %team, i64 %phase, i64 %member)
  br i1 %mine, label %do, label %waiting
waiting:
  %short = icmp slt i64 %spin, %trust
  %patience = select i1 %short, i64 %spin, i64 %trust
  br label %look
look:
  %looks = phi i64 [ 0, %waiting ], [ %more_looks, %again ]
  %kept_trust = phi i64 [ %trust, %waiting ], [ %new_trust, %again ]
  %now = load atomic i64, ptr %phase_ptr acquire, align 8
  %same = icmp eq i64 %now, %phase
  br i1 %same, label %still, label %top
still:
  %late = icmp eq i64 %looks, %patience
  br i1 %late, label %other, label %none
other:
  %i = phi i64 [ 0, %still ], [ %next, %not_this ]
  %any = icmp slt i64 %i, %parts
  br i1 %any, label %try, label %none
try:
  %stolen = call i1 @nkilite_claim(ptr %team, i64 %phase, i64 %i)
  br i1 %stolen, label %do, label %not_this
not_this:
  %next = add i64 %i, 1
  br label %other
none:
  %new_trust = phi i64 [ %kept_trust, %still ], [ {_STEAL}, %other ]
  %tired = icmp sge i64 %looks, %spin
  br i1 %tired, label %sleep, label %again
again:
  %more_looks = add i64 %looks, 1
  call void @nkilite_pause()
  br label %look
sleep:
  %futex = trunc i64 %phase to i32
  %counted = atomicrmw add ptr %sleepers, i32 1 seq_cst
  call void @nkilite_sleep(ptr %phase_ptr, i32 %futex, ptr @nkilite_nap)
  %uncounted = atomicrmw sub ptr %sleepers, i32 1 monotonic
  %launches = icmp eq i64 %member, 0
  br i1 %launches, label %ask, label %awake
ask:
{_fields("bases")}
  %first_bases = inttoptr i64 %bases to ptr
{watch.look("%first_bases", "told")}
  br label %awake
awake:
  br label %top
do:
  %part = phi i64 [ %member, %own ], [ %i, %try ]
  %trusted = phi i64 [ %trust, %own ], [ 0, %try ]
  %begins = load atomic i64, ptr %position_ptr monotonic, align 8
  %done = call i64 @nkilite_do_part(ptr %team, i64 %member, i64 %begins, i64 %part)
  call void @nkilite_arrive(ptr %team, i64 %phase, i64 %begins, i64 %done)
  br label %top
leave:
  ret void
}}
"""

# A worker thread, for ever: waits for a ticket, helps, and waits again.
#
# Memory order. The launcher publishes the job by the phase, so a ticket only says that it is time to look. Sleeping is
# agreed on as in a phase: `asleep` then ticket here, ticket then `asleep` there, all seq_cst.
_WORK = f"""
define ptr @nkilite_work(ptr %box) {{
entry:
  %asleep = getelementptr i8, ptr %box, i64 {_ASLEEP}
  %number_ptr = getelementptr i8, ptr %box, i64 {_NUMBER}
  %number = load i64, ptr %number_ptr, align 8
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
  call void @nkilite_sleep(ptr %box, i32 %seen, ptr null)
  store atomic i32 0, ptr %asleep monotonic, align 4
  br label %look
work:
  call void @nkilite_help(ptr %team, i64 %number)
{_fields("spin")}
  br label %rest
}}
"""

_COPY_FAULT = "\n".join(
    f"  %from{i} = getelementptr i8, ptr %own, i64 {at}\n"
    f"  %to{i} = getelementptr i8, ptr %first_base, i64 {at}\n"
    f"  %fault{i} = load i64, ptr %from{i}, align 8\n"
    f"  store i64 %fault{i}, ptr %to{i}, align 8"
    for i, at in enumerate(_FAULTS)
)

# Runs a job on a team from a word position on: tells it, helps, and returns as nkilite_walk does, with the fault of the
# part that failed in front of part 0's bases. Returns BUSY, having done nothing, if another launch has the team.
#
# The job is written between launches, when no member acts on what it reads of it, and published by the phase.
_LAUNCH = f"""
define i64 @nkilite_launch(ptr %team, ptr %job, i64 %start) {{
entry:
  %busy = getelementptr i8, ptr %team, i64 {_BUSY}
  %taken = cmpxchg ptr %busy, i32 0, i32 1 acquire monotonic
  %free = extractvalue {{ i32, i1 }} %taken, 1
  br i1 %free, label %copy, label %refuse
refuse:
  ret i64 {BUSY}
copy:
  %word = phi i64 [ 0, %entry ], [ %next_word, %copy ]
  %byte = mul i64 %word, 8
  %from = getelementptr i8, ptr %job, i64 %byte
  %value = load i64, ptr %from, align 8
  %to_byte = add i64 %byte, {_JOB}
  %to = getelementptr i8, ptr %team, i64 %to_byte
  store atomic i64 %value, ptr %to monotonic, align 8
  %next_word = add i64 %word, 1
  %copied = icmp eq i64 %next_word, {len(Job._fields)}
  br i1 %copied, label %begin, label %copy
begin:
{_fields("bases", "stride", "parts")}
  %mode = getelementptr i8, ptr %team, i64 {_FIELD["mode"]}
  call void @nkilite_save_mode(ptr %mode)
  %position_ptr = getelementptr i8, ptr %team, i64 {_POSITION}
  store atomic i64 %start, ptr %position_ptr monotonic, align 8
  %phase_ptr = getelementptr i8, ptr %team, i64 {_PHASE}
  %phase = load atomic i64, ptr %phase_ptr monotonic, align 8
  %new = add i64 %phase, 1
  store atomic i64 %new, ptr %phase_ptr seq_cst, align 8
  br label %calling
calling:
  %worker = phi i64 [ 1, %begin ], [ %next_worker, %called ]
  %calls = icmp slt i64 %worker, %parts
  br i1 %calls, label %call, label %help
call:
  %place = mul i64 %worker, {_LINE}
  %from_members = add i64 %place, {_MEMBERS}
  %box = getelementptr i8, ptr %team, i64 %from_members
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
help:
  call void @nkilite_help(ptr %team, i64 0)
  %first_base = inttoptr i64 %bases to ptr
  br label %reading
reading:
  %part = phi i64 [ 0, %help ], [ %next_part, %kept ]
  %first_code = phi i64 [ 0, %help ], [ %kept_code, %kept ]
  %first_at = phi i64 [ {(1 << 48) - 1}, %help ], [ %kept_at, %kept ]
  %reads = icmp slt i64 %part, %parts
  br i1 %reads, label %read, label %end
read:
  %shift = mul i64 %stride, %part
  %own = getelementptr i8, ptr %first_base, i64 %shift
  %result_ptr = getelementptr i8, ptr %own, i64 {_RESULT}
  %code = load i64, ptr %result_ptr, align 8
  %at = and i64 %code, {(1 << 48) - 1}
  %status = lshr i64 %code, 48
  %jumped = icmp eq i64 %status, {STATUS_JUMP}
  %stopped = icmp ne i64 %code, 0
  %earlier = icmp slt i64 %at, %first_at
  %is_first = and i1 %stopped, %earlier
  %not_jump = xor i1 %jumped, true
  %better = and i1 %is_first, %not_jump
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

_NAP = 50_000_000  # nanoseconds after which a member asleep in a launch looks up: signals may have gone elsewhere
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

@nkilite_nap = private constant {{ i64, i64 }} {{ i64 0, i64 {_NAP} }}

define private void @nkilite_sleep(ptr %futex, i32 %value, ptr %most) {{
  %done = call i64 (i64, ...) @syscall(i64 {_FUTEX}, ptr %futex, i64 {_WAIT}, i32 %value, ptr %most, ptr null, i64 0)
  ret void
}}

define private void @nkilite_wake(ptr %futex) {{
  %done = call i64 (i64, ...) @syscall(i64 {_FUTEX}, ptr %futex, i64 {_WAKE}, i32 {_ALL}, ptr null, ptr null, i64 0)
  ret void
}}
"""

#: Compiled together: the first one calls functions of the other.
TEAM = (
    Source("nkilite_launch", _LAUNCH, ()),
    Source(
        "nkilite_work", "\n".join((_WORK, _HELP, _CLAIM_PART, _DO_PART, _ARRIVE, _SYSTEM)),
        ("declare i64 @syscall(i64, ...)", *_INTRINSICS),
    ),
)


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
    """Address of a member; the argument of nkilite_work for those other than the launching thread, number 0."""
    return team + _MEMBERS + _LINE * number


def _set(address: int, value: int) -> None:
    ctypes.c_int64.from_address(address).value = value
