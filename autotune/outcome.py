"""What became of one configuration: a figure, or a typed reason why there is none."""

from __future__ import annotations

import enum
import re
import traceback
from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from typing import Any

from nkilite.errors import ArgumentError, MemoryOverflow, NkiError, NkiValidationError, TracingError, UnsupportedError


class Reason(str, enum.Enum):
    """Why a configuration has no figure. The values are what the database stores."""

    constraint = "constraint"
    divisibility = "divisibility"
    assertion = "assertion"
    capacity = "capacity"
    hardware_limit = "hardware limit"
    argument = "argument"
    tracing = "tracing"
    unsupported = "unsupported"
    exception = "exception"
    wrong_result = "wrong result"
    crash = "crash"
    timeout = "timeout"
    hopeless = "hopeless"

    @property
    def early(self) -> bool:
        """Found by tracing or before, so nothing was compiled."""
        return self not in (Reason.wrong_result, Reason.crash, Reason.timeout, Reason.hopeless)


ADVICE = {
    Reason.constraint: "loosen the constraints of the space",
    Reason.divisibility: "offer block sizes that divide the shapes, or pad the shapes",
    Reason.assertion: "read the kernel's assertions above and offer values that meet them",
    Reason.capacity: "offer smaller blocks: the tiles of every configuration exceed SBUF or PSUM",
    Reason.hardware_limit: "offer smaller tiles: every configuration breaks a limit of the hardware",
    Reason.argument: "check the shapes and dtypes the kernel is tuned on",
    Reason.tracing: "the kernel itself cannot be traced on these shapes: run it once with its defaults",
    Reason.unsupported: "the kernel uses what nkilite does not run: see docs/compatibility.md",
    Reason.exception: "the kernel fails on these shapes: run it once with its defaults",
    Reason.wrong_result: "check the kernel against its reference with its defaults",
    Reason.crash: "run the kernel once with its defaults to see the crash",
    Reason.timeout: "raise the time limit of a trial, or tune on smaller shapes",
    Reason.hopeless: "raise the early-stop factor",
}

_DIVIDES = re.compile(r"divis|divid|multiple of|\bmod\b|%")


@dataclass(frozen=True)
class Outcome:
    """The end of one trial on one workload.

    Attributes:
        value: microseconds, modelled or cpu-measured as the objective says; None when rejected.
        reason: set exactly when `value` is None.
        detail: the first lines of the error that rejected it.
        low, high: 20th and 80th percentile of repeated measurements.
        figures: further modelled figures, such as sbuf_peak_bytes.
        seconds: how long the trial took.
        program: digest of the program that the kernel traced to; "" if it could not be traced.
    """

    value: float | None = None
    reason: Reason | None = None
    detail: str = ""
    low: float | None = None
    high: float | None = None
    figures: dict[str, float] = field(default_factory=dict)
    seconds: float = 0.0
    program: str = ""

    @property
    def accepted(self) -> bool:
        return self.value is not None

    def to_json(self) -> dict[str, Any]:
        """As the database stores it: fields that say nothing are left out."""
        stored = {k: v for k, v in asdict(self).items() if v not in (None, "", {}, 0.0)}
        if self.reason is not None:
            stored["reason"] = self.reason.value
        return stored

    @classmethod
    def from_json(cls, stored: dict[str, Any]) -> Outcome:
        fields = dict(stored)
        if "reason" in fields:
            fields["reason"] = Reason(fields["reason"])
        return cls(**fields)


def rejection(error: BaseException, seconds: float = 0.0) -> Outcome:
    """The outcome of a configuration whose trace raised `error`."""
    return Outcome(reason=classify(error), detail=_detail(error), seconds=seconds)


def classify(error: BaseException) -> Reason:
    """The reason an exception of the kernel or of nkilite stands for."""
    if isinstance(error, AssertionError):
        return Reason.divisibility if _DIVIDES.search(f"{error} {_raising_line(error)}") else Reason.assertion
    if isinstance(error, MemoryOverflow):
        return Reason.capacity
    if isinstance(error, NkiValidationError):
        return Reason.hardware_limit
    if isinstance(error, ArgumentError):
        return Reason.argument
    if isinstance(error, TracingError):
        return Reason.tracing
    if isinstance(error, UnsupportedError):
        return Reason.unsupported
    return Reason.exception


_DETAIL_LINES = 3


def _detail(error: BaseException) -> str:
    lines = str(error).splitlines() or [""]
    if not isinstance(error, NkiError):
        frames = traceback.extract_tb(error.__traceback__)
        where = f" at {frames[-1].filename}:{frames[-1].lineno}" if frames else ""
        lines[0] = f"{type(error).__name__}: {lines[0] or _raising_line(error)}{where}"
    return "\n".join(lines[:_DETAIL_LINES])


def _raising_line(error: BaseException) -> str:
    frames = traceback.extract_tb(error.__traceback__)
    return (frames[-1].line or "") if frames else ""


@dataclass(frozen=True)
class Rejections:
    """How many configurations fell to each reason, most frequent first, with one example of each."""

    counts: dict[Reason, int]
    examples: dict[Reason, str]

    @classmethod
    def of(cls, outcomes: Iterable[Outcome]) -> Rejections:
        counts: Counter[Reason] = Counter()
        examples: dict[Reason, str] = {}
        for outcome in outcomes:
            if outcome.reason is not None:
                counts[outcome.reason] += 1
                examples.setdefault(outcome.reason, outcome.detail)
        return cls(dict(counts.most_common()), examples)

    @property
    def total(self) -> int:
        return sum(self.counts.values())

    def __str__(self) -> str:
        rows = []
        for reason, count in self.counts.items():
            first = self.examples[reason].splitlines()
            rows.append(f"  {count:>6}  {reason.value:<15} e.g. {first[0] if first else ''}")
        return "\n".join(rows)

    @property
    def advice(self) -> str:
        """What to change, from the most frequent reason."""
        return ADVICE[next(iter(self.counts))] if self.counts else "offer at least one configuration"
