"""Run a program in every way, and say where they disagree."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np

import nkilite as nki
from nkilite.errors import InternalError, NkiError
from nkilite.host.cpu import available
from nkilite.native import meetings

from .program import Program, Trust

THREADS = (1, 2, 5)
_PERTURBED = 3  # simulations with inputs that differ by a few of their last bits
_AMPLIFIED = 200  # times what these change is not worth a report


class Way(NamedTuple):
    """How a program is compiled."""

    level: str
    fuse: bool
    hasty: bool = False

    def __str__(self) -> str:
        return f"{self.level}, {'hastily' if self.hasty else 'fused' if self.fuse else 'not fused'}"

    @property
    def optimize(self) -> str:
        """What NKILITE_OPTIMIZE is."""
        return "never" if self.hasty else "always"


class Difference(NamedTuple):
    """What is wrong: how the program ran, and what was found."""

    way: Way
    threads: int
    what: str

    def __str__(self) -> str:
        return f"{self.way}, {self.threads} thread{'s' if self.threads > 1 else ''}: {self.what}"


class Refused(Exception):
    """A simulation says that the program is not a right one."""


def ways() -> list[Way]:
    """All on this CPU."""
    return [Way(level, *how) for level in available() for how in ((True,), (False,), (False, True))]


def differences(program: Program, chosen: list[Way] | None = None) -> Iterator[Difference]:
    """Where compiled code and a simulation, or two ways to run compiled code, disagree.

    Raises:
        Refused: a simulation refuses the program, and compiled code does, too.
    """
    with _settings(NEURON_PLATFORM_TARGET_OVERRIDE=program.target, NKILITE_CACHE="0", NKILITE_CPU="native"):
        expected = _results(program, nki.simulate(program.function(), **program.options), program.arguments())
        by_level: dict[str, list[np.ndarray]] = {}
        refused = None
        for way in chosen or ways():
            kernel = nki.jit(program.function(), **program.options)
            for threads in THREADS:
                if program.rounding is not None:
                    kernel.forget()  # every launch rounds in its own way
                with _settings(
                    NKILITE_CPU=way.level, NKILITE_FUSE=str(int(way.fuse)), NKILITE_NUM_THREADS=str(threads),
                    NKILITE_OPTIMIZE=way.optimize,
                ):
                    found = _results(program, kernel, program.arguments())
                if isinstance(found, str) or isinstance(expected, str):
                    if not _alike(found, expected):
                        yield Difference(way, threads, f"{_said(found)}, simulated {_said(expected)}")
                    refused = expected
                    break
                first = by_level.setdefault(way.level, found)
                problem = _problem(program, found, first, expected)
                if problem:
                    yield Difference(way, threads, problem)
    if isinstance(refused, str):
        raise Refused(refused)


def _results(program: Program, kernel: Any, arguments: list[np.ndarray]) -> list[np.ndarray] | str:
    """What a kernel returns and leaves in its arguments, or the name of the error it raises."""
    try:
        returned = kernel(*arguments)
    except InternalError:
        raise
    except NkiError as error:
        return f"{type(error).__name__}: {str(error).splitlines()[0]}"
    return [np.asarray(array) for array in (*returned, *arguments)]


def _alike(found: list[np.ndarray] | str, expected: list[np.ndarray] | str) -> bool:
    """Whether both are errors of one kind; of several mistakes, each way may meet another one first."""
    both = isinstance(found, str) and isinstance(expected, str)
    return both and str(found).partition(":")[0] == str(expected).partition(":")[0]


def _said(found: list[np.ndarray] | str) -> str:
    return found if isinstance(found, str) else "it runs"


def _problem(
    program: Program, found: list[np.ndarray], first: list[np.ndarray], expected: list[np.ndarray]
) -> str:
    """What is wrong with results, given those of another way on the same level of CPU, and a simulation's."""
    unsure, rounded = [], program.rounding is not None
    for number, (trust, ours, other, theirs) in enumerate(zip(program.trust(), found, first, expected, strict=True)):
        name = program.result(number)
        if ours.tobytes() != other.tobytes():
            return f"{name} is not what another number of threads or fusing makes ({_where(ours, other)})"
        if trust is Trust.bits and not _equal(ours, theirs):
            return f"{name} is not what a simulation makes ({_where(ours, theirs)})"
        if trust is Trust.magnitude and not _close(ours, theirs, rounded):
            unsure.append(number)
    if not unsure:
        return ""
    spread = _spread(program, expected)
    for number in unsure:
        if not _close(found[number], expected[number], rounded, _AMPLIFIED * spread[number]):
            what = f"{_where(found[number], expected[number])}; inputs' last bits change it by {spread[number]:.2g}"
            return f"{program.result(number)} is not close to what a simulation makes ({what})"
    return ""


def _equal(ours: np.ndarray, theirs: np.ndarray) -> bool:
    """The same bits, but for which NaN it is."""
    if ours.tobytes() == theirs.tobytes():
        return True
    if ours.dtype.itemsize == 1 or ours.dtype.kind in "iu":
        return False
    return np.array_equal(ours.astype(np.float32), theirs.astype(np.float32), equal_nan=True)


def _close(ours: np.ndarray, theirs: np.ndarray, rounded: bool, spread: float = 0.0) -> bool:
    # Where rounding is stochastic, a last bit decides between neighbours in the narrow dtype a value has come through.
    tolerance = 1e-4 if ours.dtype == np.float32 and not rounded else 5e-2
    ours, theirs = (x.astype(np.float64) for x in (ours, theirs))
    sane = np.isfinite(theirs)
    if (np.isfinite(ours) == sane).mean() < 0.999:
        return not np.isfinite(spread)
    both = sane & np.isfinite(ours)
    most = np.abs(theirs[both]).max(initial=1)
    return bool((np.abs(ours - theirs)[both] <= tolerance * most + tolerance * np.abs(theirs[both]) + spread).all())


def _spread(program: Program, expected: list[np.ndarray]) -> list[float]:
    """By how much each result changes when the inputs do by a few of their last bits."""
    changes = [0.0] * len(expected)
    draw = np.random.default_rng(1)
    for _ in range(_PERTURBED):
        kernel = nki.simulate(program.function(), **program.options)
        arguments = program.arguments()
        for i, array in enumerate(arguments):
            if program.same[i] == i:
                array *= 1 + draw.uniform(-1, 1, array.shape).astype(np.float32) * 2.0**-20
        found = _results(program, kernel, arguments)
        assert not isinstance(found, str)
        for number, (ours, theirs) in enumerate(zip(found, expected, strict=True)):
            if ours.dtype.itemsize == 1:
                continue
            ours, theirs = (x.astype(np.float64) for x in (ours, theirs))
            both = np.isfinite(ours) & np.isfinite(theirs)
            change = np.abs(ours - theirs)[both].max(initial=0.0) if both.mean() > 0.999 else np.inf
            changes[number] = max(changes[number], float(change))
    return changes


def _where(ours: np.ndarray, theirs: np.ndarray) -> str:
    """The first element that differs, and how many do."""
    wrong = np.ascontiguousarray(ours).view(f"u{ours.dtype.itemsize}") != np.ascontiguousarray(theirs).view(
        f"u{ours.dtype.itemsize}"
    )
    at = tuple(map(int, np.argwhere(wrong)[0]))
    return f"{np.count_nonzero(wrong)} of {wrong.size} elements, first {list(at)}: {ours[at]} for {theirs[at]}"


@contextmanager
def _settings(**variables: str) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


@contextmanager
def teams() -> Iterator[None]:
    """Let programs of any size use threads."""
    before = meetings.WAKE_NS, meetings.MEETING_NS
    meetings.WAKE_NS = meetings.MEETING_NS = 0
    try:
        yield
    finally:
        meetings.WAKE_NS, meetings.MEETING_NS = before
