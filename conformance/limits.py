"""How long a case may take: in processor time, so that outcomes do not depend on what else a machine does."""

from __future__ import annotations

import math
import resource
import signal

WAITS = 5  # on the clock, it may take so many times as long
GRACE = 60.0  # seconds on the clock beyond that

OUT_OF_TIME = -signal.SIGXCPU  # the return code of a process that used up what it was allowed


class OutOfTime(Exception):
    """A program that did not come to its end within the time of a case."""


def allow(seconds: float) -> None:
    """Lets this process use ``seconds`` more of processor time, and what it starts afterwards as much at least.

    The system ends it after that, also within compiled code.
    """
    usage = resource.getrusage(resource.RUSAGE_SELF)
    limit = math.ceil(usage.ru_utime + usage.ru_stime + seconds)
    _, hard = resource.getrlimit(resource.RLIMIT_CPU)
    resource.setrlimit(resource.RLIMIT_CPU, (limit if hard == resource.RLIM_INFINITY else min(limit, hard), hard))


def on_the_clock(seconds: float) -> float:
    """The seconds that a case allowed ``seconds`` of processor time may take."""
    return WAITS * seconds + GRACE
