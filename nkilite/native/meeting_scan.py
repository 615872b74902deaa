"""Where threads must meet, found by native code: one walk over what the entries of a table touch, in order.

Memory is numbered *atoms*, stretches that no operand begins or ends in. Of every atom the walk keeps who has touched it
since the last meeting: *owners*, each of which leaves every thread bytes of its own, and whether they wrote. A touch
needs a meeting if it or the earlier one writes, and they do not leave the same bytes to the same thread.
"""

from __future__ import annotations

import ctypes
from typing import NamedTuple

import numpy as np

from nkilite.host.cpu import host
from nkilite.native.library import Source, library
from nkilite.native.walker import LEAD

# Owners that are no stripes, as (pieces, step, period, width).
ALONE = (0, 0, 0, 0)  # part 0 does all of the entry
ANYBODY = (-1, -1, 0, 0)  # any thread may touch any of the bytes: not even two of these belong together

_MOST = 8  # owners kept of an atom
_OWNER_WORDS = 5  # of one that is kept: pieces, step, period, low, high; behind them whether it wrote
_SLOT = 8 * (_OWNER_WORDS + 1)


class Job(NamedTuple):
    """What the walk reads and writes, as int64 words: addresses of int64 arrays, and lengths.

    Attributes:
        touches: rows of first atom, the one after the last, twice the number of the owner and 1 if it is written, and
            where the owner's first piece begins.
        owners: rows of pieces, step, period and width.
        ends: for every entry, the number of touches by it and the entries before it.
        flags: of every entry.
        since: of every atom, the meeting since which its owners are those kept; -1 at first.
        kept: how many.
        slots: [_MOST, atoms, _OWNER_WORDS + 1] of them.
        met: the entries before which threads meet are written here.
    """

    touches: int
    owners: int
    ends: int
    flags: int
    since: int
    kept: int
    slots: int
    met: int
    atoms: int
    entries: int


def _fields(*names: str) -> str:
    """Loads of the fields of a job into values of their names."""
    lines = []
    for name in names:
        kind = "i64" if name in ("atoms", "entries") else "ptr"
        lines.append(f"  %{name}_field = getelementptr i8, ptr %job, i64 {8 * Job._fields.index(name)}")
        lines.append(f"  %{name} = load {kind}, ptr %{name}_field, align 8")
    return "\n".join(lines)


def _owner(*names: str) -> str:
    """Loads of the words of owners, each named by its address."""
    words = ("pieces", "step", "period", "low", "high")
    return "\n".join(
        f"  %{name}_{word}_at = getelementptr i8, ptr %{name}, i64 {8 * i}\n"
        f"  %{name}_{word} = load i64, ptr %{name}_{word}_at, align 8"
        for name in names for i, word in enumerate(words)
    )


# Whether two owners are pieces of one: every thread has the same bytes, from the lower beginning to the higher end.
_JOINED = f"""
define private i1 @nkilite_owners_join(ptr %a, ptr %b) {{
{_owner("a", "b")}
  %pieces = icmp eq i64 %a_pieces, %b_pieces
  %step = icmp eq i64 %a_step, %b_step
  %period = icmp eq i64 %a_period, %b_period
  %low = call i64 @llvm.smin.i64(i64 %a_low, i64 %b_low)
  %high = call i64 @llvm.smax.i64(i64 %a_high, i64 %b_high)
  %span = sub i64 %high, %low
  %fits = icmp sle i64 %span, %a_step
  %one = and i1 %pieces, %step
  %two = and i1 %period, %fits
  %joined = and i1 %one, %two
  ret i1 %joined
}}
"""

# Whether two owners are different columns of the same rows.
_APART = f"""
define private i1 @nkilite_owners_apart(ptr %a, ptr %b) {{
entry:
{_owner("a", "b")}
  %same = icmp eq i64 %a_period, %b_period
  %rows = icmp ne i64 %a_period, 0
  %possible = and i1 %same, %rows
  br i1 %possible, label %look, label %no
look:
  %ahead = sub i64 %b_low, %a_low
  %ahead_rest = srem i64 %ahead, %a_period
  %ahead_more = add i64 %ahead_rest, %a_period
  %ahead_negative = icmp slt i64 %ahead_rest, 0
  %to_b = select i1 %ahead_negative, i64 %ahead_more, i64 %ahead_rest
  %behind = sub i64 %a_low, %b_low
  %behind_rest = srem i64 %behind, %a_period
  %behind_more = add i64 %behind_rest, %a_period
  %behind_negative = icmp slt i64 %behind_rest, 0
  %to_a = select i1 %behind_negative, i64 %behind_more, i64 %behind_rest
  %a_last = sub i64 %a_pieces, 1
  %a_reach = mul i64 %a_last, %a_step
  %a_end = add i64 %a_reach, %a_high
  %a_width = sub i64 %a_end, %a_low
  %b_last = sub i64 %b_pieces, 1
  %b_reach = mul i64 %b_last, %b_step
  %b_end = add i64 %b_reach, %b_high
  %b_width = sub i64 %b_end, %b_low
  %after_a = icmp sge i64 %to_b, %a_width
  %after_b = icmp sge i64 %to_a, %b_width
  %apart = and i1 %after_a, %after_b
  ret i1 %apart
no:
  ret i1 false
}}
"""

_SLOT_AT = f"""
  %row = mul i64 %k, %atoms
  %place = add i64 %row, %atom
  %bytes = mul i64 %place, {_SLOT}
  %slot = getelementptr i8, ptr %slots, i64 %bytes
  %wrote_at = getelementptr i8, ptr %slot, i64 {8 * _OWNER_WORDS}"""

# Whether a touch of an atom needs what another thread may have touched since a meeting.
_CONFLICTS = f"""
define private i1 @nkilite_touch_conflicts(ptr %job, i64 %atom, ptr %owner, i64 %writes, i64 %now) {{
entry:
{_fields("since", "kept", "slots", "atoms")}
  %since_atom = getelementptr i64, ptr %since, i64 %atom
  %known = load i64, ptr %since_atom, align 8
  %current = icmp eq i64 %known, %now
  br i1 %current, label %begin, label %no
begin:
  %kept_atom = getelementptr i64, ptr %kept, i64 %atom
  %count = load i64, ptr %kept_atom, align 8
  br label %head
head:
  %k = phi i64 [ 0, %begin ], [ %next, %going ]
  %more = icmp slt i64 %k, %count
  br i1 %more, label %one, label %no
one:
{_SLOT_AT}
  %wrote = load i64, ptr %wrote_at, align 8
  %either = or i64 %wrote, %writes
  %matters = icmp ne i64 %either, 0
  br i1 %matters, label %join, label %going
join:
  %joined = call i1 @nkilite_owners_join(ptr %owner, ptr %slot)
  br i1 %joined, label %going, label %columns
columns:
  %apart = call i1 @nkilite_owners_apart(ptr %owner, ptr %slot)
  br i1 %apart, label %going, label %yes
going:
  %next = add i64 %k, 1
  br label %head
yes:
  ret i1 true
no:
  ret i1 false
}}
"""


def _write(*words: int | str) -> str:
    """Stores of an owner, and whether it wrote, to %slot."""
    return "\n".join(
        f"  %to{i} = getelementptr i8, ptr %slot, i64 {8 * i}\n  store i64 {word}, ptr %to{i}, align 8"
        for i, word in enumerate(words)
    )


# Notes that an atom is touched. One that has too many owners is anybody's.
_TOUCH = f"""
define private void @nkilite_touch(ptr %job, i64 %atom, ptr %owner, i64 %writes, i64 %now) {{
entry:
{_fields("since", "kept", "slots", "atoms")}
  %since_atom = getelementptr i64, ptr %since, i64 %atom
  %kept_atom = getelementptr i64, ptr %kept, i64 %atom
  %known = load i64, ptr %since_atom, align 8
  %current = icmp eq i64 %known, %now
  %had = load i64, ptr %kept_atom, align 8
  %count = select i1 %current, i64 %had, i64 0
  store i64 %now, ptr %since_atom, align 8
  br label %head
head:
  %k = phi i64 [ 0, %entry ], [ %next, %going ]
  %some_wrote = phi i64 [ %writes, %entry ], [ %all_wrote, %going ]
{_SLOT_AT}
  %more = icmp slt i64 %k, %count
  br i1 %more, label %one, label %new
one:
  %wrote = load i64, ptr %wrote_at, align 8
  %all_wrote = or i64 %some_wrote, %wrote
  %joined = call i1 @nkilite_owners_join(ptr %owner, ptr %slot)
  br i1 %joined, label %widen, label %going
going:
  %next = add i64 %k, 1
  %full = icmp eq i64 %next, {_MOST}
  br i1 %full, label %crowd, label %head
widen:
{_owner("owner", "slot")}
  %low = call i64 @llvm.smin.i64(i64 %owner_low, i64 %slot_low)
  %high = call i64 @llvm.smax.i64(i64 %owner_high, i64 %slot_high)
  %writing = or i64 %wrote, %writes
  store i64 %low, ptr %slot_low_at, align 8
  store i64 %high, ptr %slot_high_at, align 8
  store i64 %writing, ptr %wrote_at, align 8
  ret void
new:
  call void @llvm.memcpy.p0.p0.i64(ptr %slot, ptr %owner, i64 {8 * _OWNER_WORDS}, i1 false)
  store i64 %writes, ptr %wrote_at, align 8
  %with = add i64 %k, 1
  store i64 %with, ptr %kept_atom, align 8
  ret void
crowd:
  call void @nkilite_anybody(ptr %slots, i64 %atom, i64 %all_wrote)
  store i64 1, ptr %kept_atom, align 8
  ret void
}}

define private void @nkilite_anybody(ptr %slots, i64 %atom, i64 %wrote) {{
  %bytes = mul i64 %atom, {_SLOT}
  %slot = getelementptr i8, ptr %slots, i64 %bytes
{_write(*ANYBODY[:3], 0, 0, "%wrote")}
  ret void
}}
"""


def _all_touches(name: str, work: str, before: str, after: str, carried: str) -> str:
    """Blocks that go through the atoms of the touches %begin to %end of an entry; `work` ends in a branch to
    %{name}_going."""
    return f"""
{name}:
  %{name}_i = phi i64 [ %begin, %{before} ], [ %{name}_next, %{name}_done ]
  %{name}_more = icmp slt i64 %{name}_i, %end
  br i1 %{name}_more, label %{name}_touch, label %{after}
{name}_touch:
  %{name}_touch_at = getelementptr [4 x i64], ptr %touches, i64 %{name}_i
  %{name}_first = load i64, ptr %{name}_touch_at, align 8
  %{name}_last_at = getelementptr i8, ptr %{name}_touch_at, i64 8
  %{name}_last = load i64, ptr %{name}_last_at, align 8
  %{name}_what_at = getelementptr i8, ptr %{name}_touch_at, i64 16
  %{name}_what = load i64, ptr %{name}_what_at, align 8
  %{name}_low_at = getelementptr i8, ptr %{name}_touch_at, i64 24
  %{name}_low = load i64, ptr %{name}_low_at, align 8
  %{name}_writes = and i64 %{name}_what, 1
  %{name}_number = lshr i64 %{name}_what, 1
  %{name}_owner = getelementptr [4 x i64], ptr %owners, i64 %{name}_number
  %{name}_width_at = getelementptr i8, ptr %{name}_owner, i64 24
  %{name}_width = load i64, ptr %{name}_width_at, align 8
  %{name}_high = add i64 %{name}_low, %{name}_width
  call void @llvm.memcpy.p0.p0.i64(ptr %owner, ptr %{name}_owner, i64 24, i1 false)
  store i64 %{name}_low, ptr %owner_low_at, align 8
  store i64 %{name}_high, ptr %owner_high_at, align 8
  br label %{name}_head
{name}_head:
  %{name}_atom = phi i64 [ %{name}_first, %{name}_touch ], [ %{name}_atom_next, %{name}_going ]
  %{name}_any = icmp slt i64 %{name}_atom, %{name}_last
  br i1 %{name}_any, label %{name}_work, label %{name}_done
{name}_work:
{work.format(arguments=f"ptr %job, i64 %{name}_atom, ptr %owner, i64 %{name}_writes, i64 {carried}")}
{name}_going:
  %{name}_atom_next = add i64 %{name}_atom, 1
  br label %{name}_head
{name}_done:
  %{name}_next = add i64 %{name}_i, 1
  br label %{name}"""


_CHECK = _all_touches(
    "check", "  %conflict = call i1 @nkilite_touch_conflicts({arguments})\n"
    "  br i1 %conflict, label %meet, label %check_going", "follower", "note", "%now",
)
_NOTE = _all_touches(
    "noting", "  call void @nkilite_touch({arguments})\n  br label %noting_going", "note", "next", "%then",
)

# Returns the number of meetings.
_SCAN = f"""
define i64 @nkilite_meetings(ptr %job) {{
entry:
  %owner = alloca [{_OWNER_WORDS} x i64], align 8
  %owner_low_at = getelementptr i8, ptr %owner, i64 24
  %owner_high_at = getelementptr i8, ptr %owner, i64 32
{_fields("touches", "owners", "ends", "flags", "met", "entries")}
  br label %head
head:
  %at = phi i64 [ 0, %entry ], [ %after, %next ]
  %begin = phi i64 [ 0, %entry ], [ %end, %next ]
  %now = phi i64 [ 0, %entry ], [ %since_then, %next ]
  %more = icmp slt i64 %at, %entries
  br i1 %more, label %body, label %done
body:
  %end_at = getelementptr i64, ptr %ends, i64 %at
  %end = load i64, ptr %end_at, align 8
  %flags_at = getelementptr i64, ptr %flags, i64 %at
  %flag = load i64, ptr %flags_at, align 8
  %lead = and i64 %flag, {LEAD}
  %leads = icmp ne i64 %lead, 0
  %met_at = getelementptr i64, ptr %met, i64 %now
  %count = add i64 %now, 1
  br i1 %leads, label %alone, label %follower
alone:
  store i64 %at, ptr %met_at, align 8
  br label %next
follower:
  br label %check
{_CHECK}
meet:
  store i64 %at, ptr %met_at, align 8
  br label %note
note:
  %then = phi i64 [ %now, %check ], [ %count, %meet ]
  br label %noting
{_NOTE}
next:
  %since_then = phi i64 [ %count, %alone ], [ %then, %noting ]
  %after = add i64 %at, 1
  br label %head
done:
  ret i64 %now
}}
"""

SCAN = Source(
    "nkilite_meetings", "".join((_SCAN, _CONFLICTS, _TOUCH, _JOINED, _APART)),
    (
        "declare i64 @llvm.smin.i64(i64, i64)", "declare i64 @llvm.smax.i64(i64, i64)",
        "declare void @llvm.memcpy.p0.p0.i64(ptr, ptr, i64, i1)",
    ),
)


def scan(flags: np.ndarray, ends: np.ndarray, touches: np.ndarray, owners: np.ndarray, atoms: int) -> np.ndarray:
    """The entries before which threads meet. Arrays are int64, in C order.

    Args:
        flags, ends, touches, owners: see Job.
        atoms: how many there are.
    """
    for array in (flags, ends, touches, owners):
        assert array.dtype == np.int64
        assert array.flags.c_contiguous
    since, kept, met = np.full(atoms, -1, np.int64), np.empty(atoms, np.int64), np.empty(len(flags), np.int64)
    slots = np.empty((_MOST, atoms, _OWNER_WORDS + 1), np.int64)
    addresses = [a.ctypes.data for a in (touches, owners, ends, flags, since, kept, slots, met)]
    job = np.array(Job._make([*addresses, atoms, len(flags)]), np.int64)
    found = library(host()).addresses([SCAN], quickly={SCAN.name})[SCAN.name]
    function = ctypes.CFUNCTYPE(ctypes.c_int64, ctypes.c_void_p)(found)
    return met[: function(job.ctypes.data)]
