"""The native loop that walks an instruction table on one thread.

An entry of the table is [function, width and flags, words...]: the width in words is the low half of its second word,
the flags are the high half. Above the flags are its weight: about the microseconds it takes, from 1 to HEAVIEST, and
its owner. After a BUDGET of weights the walk asks the watch of the run whether it is to end
(nkilite/codegen/watch.py).
"""

from __future__ import annotations

import numpy as np

from nkilite.codegen import watch
from nkilite.codegen.kernel import STATUS_JUMP
from nkilite.native.library import Source

WIDTH = (1 << 32) - 1  # the bits of an entry's second word that are its width

# Flags of an entry, for threads that share a walk (nkilite/native/sharing.py).
MEET = 1  # all before it is done when it begins
SPLIT = 2  # it does a part of its work per call
LEAD = 4  # its status decides where the walk goes on

WEIGHT_SHIFT = 8  # bits of flags below the weight
HEAVIEST = 255
OWNER_SHIFT = 16  # bits below the owner: the stream of the entry, or 0 (nkilite/native/streams.py)
MOST_OWNERS = (1 << 15) - 1
BUDGET = 256


def above_width(flags: np.ndarray, ns: np.ndarray, owners: np.ndarray | int = 0) -> np.ndarray:
    """What the second words of entries have above the width, given flags, nanoseconds and owner of each."""
    weights = np.clip(ns.astype(np.int64) // 1000, 1, HEAVIEST)
    found: np.ndarray = (owners << OWNER_SHIFT | weights << WEIGHT_SHIFT | flags) << 32
    return found


# Walks from a word position to the end, or until an entry neither succeeds nor jumps; returns 0, or
# status << 48 | word position of that entry. STATUS_JUMP moves by the distance in the entry's last word, which control
# instructions have.
_WALK = f"""
define i64 @nkilite_walk(ptr %table, i64 %start, i64 %count, ptr %bases) {{
entry:
  br label %head
head:
  %at = phi i64 [ %start, %entry ], [ %next, %step ], [ %next, %look ]
  %budget = phi i32 [ {BUDGET}, %entry ], [ %left, %step ], [ {BUDGET}, %look ]
  %more = icmp slt i64 %at, %count
  br i1 %more, label %body, label %done
body:
  %entry_ptr = getelementptr i64, ptr %table, i64 %at
  %function = load ptr, ptr %entry_ptr, align 8
  %width_ptr = getelementptr i8, ptr %entry_ptr, i64 8
  %narrow = load i32, ptr %width_ptr, align 8
  %width = zext i32 %narrow to i64
  %flags_ptr = getelementptr i8, ptr %entry_ptr, i64 12
  %flags = load i32, ptr %flags_ptr, align 4
  %above = lshr i32 %flags, {WEIGHT_SHIFT}
  %weight = and i32 %above, {HEAVIEST}
  %words = getelementptr i8, ptr %entry_ptr, i64 16
  %status = call i32 %function(ptr %words, ptr %bases, i64 0, i64 1)
  %ok = icmp eq i32 %status, 0
  br i1 %ok, label %advance, label %other
advance:
  %past = add i64 %at, %width
  br label %step
step:
  %next = phi i64 [ %past, %advance ], [ %target, %jump ]
  %left = sub i32 %budget, %weight
  %spent = icmp sle i32 %left, 0
  br i1 %spent, label %look, label %head
look:
{watch.look("%bases", "told")}
  %goes_on = icmp eq i32 %told, 0
  br i1 %goes_on, label %head, label %fail
other:
  %jumps = icmp eq i32 %status, {STATUS_JUMP}
  br i1 %jumps, label %jump, label %fail
jump:
  %after = getelementptr i64, ptr %entry_ptr, i64 %width
  %last = getelementptr i8, ptr %after, i64 -8
  %distance = load i64, ptr %last, align 8
  %target = add i64 %at, %distance
  br label %step
fail:
  %reason = phi i32 [ %status, %other ], [ %told, %look ]
  %wide = zext i32 %reason to i64
  %high = shl i64 %wide, 48
  %code = or i64 %high, %at
  ret i64 %code
done:
  ret i64 0
}}
"""

WALK = Source("nkilite_walk", _WALK, ())
