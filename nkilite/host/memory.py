"""The memory of the CPUs that code is made for, as far as it decides how that is written."""

from __future__ import annotations

LINE = 64  # bytes of a cache line
ALIASING = 4096  # rows this many bytes apart compete for the same sets of the nearest cache
NEAR = 64 << 10  # bytes that fit a large L1 or a corner of L2
LARGE = 4 << 20  # bytes of which little is left in the caches when they are needed again
