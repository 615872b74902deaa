"""The vocabulary of the suite: what a case is, the modes it runs in and what a run can result in."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from enum import Enum
from pathlib import Path
from types import ModuleType
from typing import Any, Protocol

TARGET_VARIABLE = "NEURON_PLATFORM_TARGET_OVERRIDE"
SIMULATOR_VARIABLE = "NKI_SIMULATOR"


class Mode(str, Enum):
    """One way of running a case; the value is its column heading."""

    FILE = "file"
    SIMULATED_FILE = "sim file"
    SIMULATE_TRN2 = "sim trn2"
    COMPILED_TRN2 = "run trn2"
    SIMULATE_TRN3 = "sim trn3"
    COMPILED_TRN3 = "run trn3"
    SIMULATE_OWN = "sim own"
    COMPILED_OWN = "run own"

    @property
    def simulated(self) -> bool:
        return self.value.startswith("sim")

    @property
    def of_file(self) -> bool:
        """Whether the file itself runs, instead of one kernel of it."""
        return self in FILE_MODES

    @property
    def target(self) -> str | None:
        """The target this mode imposes; None leaves the one the file sets through the environment."""
        name = self.value.split()[-1]
        return name if name.startswith("trn") else None


FILE_MODES = (Mode.FILE, Mode.SIMULATED_FILE)
TRN2_MODES = (Mode.SIMULATE_TRN2, Mode.COMPILED_TRN2)
TARGET_MODES = (Mode.SIMULATE_TRN2, Mode.COMPILED_TRN2, Mode.SIMULATE_TRN3, Mode.COMPILED_TRN3)
OWN_MODES = (Mode.SIMULATE_OWN, Mode.COMPILED_OWN)


class Status(str, Enum):
    """The outcome of one case in one mode."""

    PASS = "pass"  # results agree with the reference
    RUNS = "runs"  # ran to the end; the source has nothing to compare
    REFUSED = "refused"  # a typed nkilite error, as the case expects
    FAIL = "FAIL"  # results differ from the reference, or an expected error did not come
    ERROR = "error"  # an exception
    TIMEOUT = "timeout"
    CRASH = "crash"  # the process died
    SKIP = "skip"

    @property
    def good(self) -> bool:
        return self in (Status.PASS, Status.RUNS, Status.REFUSED, Status.SKIP)


class Source(Protocol):
    """Something that can be imported as a module and holds kernels."""

    @property
    def path(self) -> Path:
        """The file of the checkout the code comes from."""
        ...

    @property
    def sets_target(self) -> bool:
        """Whether importing it sets the target through the environment."""
        ...

    def load(self) -> ModuleType:
        """Imports the code, unmodified."""
        ...


@dataclass(frozen=True)
class Tolerance:
    """An element agrees when ``|result - reference| <= atol + rtol * |reference|``."""

    rtol: float = 1e-5
    atol: float = 1e-6


DEFAULT_TOLERANCE = Tolerance()


@dataclass(frozen=True)
class Launch:
    """How a kernel is called and how its results are judged.

    Attributes:
        kernel: name of the kernel in the loaded module.
        arguments: makes fresh positional arguments (NumPy arrays and compile-time values).
        reference: independent result(s) of the same arguments; None when there is nothing to compare.
        tolerance: for the comparison with the reference.
        mutates: positions of arguments whose contents after the call are results, after the returned ones.
        pairs: results after those the reference gives come in (value, expected value) pairs.
        checks_itself: the code asserts its own facts, so finishing is passing.
        options: compile-time keyword arguments, from the loaded module, whose enumerations they may need.
        read: turns the results into what is compared; None takes them as they are.
        host: `kernel` is a function on the host that launches kernels itself.
    """

    kernel: str
    arguments: Callable[[], tuple[Any, ...]] = tuple
    reference: Callable[..., Any] | None = None
    tolerance: Tolerance = DEFAULT_TOLERANCE
    mutates: tuple[int, ...] = ()
    pairs: bool = False
    checks_itself: bool = False
    options: Callable[[ModuleType], Mapping[str, Any]] | None = None
    read: Callable[[Sequence[Any]], Sequence[Any]] | None = None
    host: bool = False


@dataclass(frozen=True)
class Command:
    """A program of the checkout, run as ``python -m ...`` in a process of its own.

    Attributes:
        words: what follows ``python -m``.
        folder: the working directory.
        roots: folders to put on the module search path.
        environment: variables to set.
        failure: a pattern whose presence in the output says that results are wrong, whatever the exit code.
    """

    words: tuple[str, ...]
    folder: Path
    roots: tuple[Path, ...] = ()
    environment: tuple[tuple[str, str], ...] = ()
    failure: str = ""


@dataclass(frozen=True)
class Case:
    """One row of the table.

    Attributes:
        suite: the public repository.
        label: what is run, unique within the source.
        source: where the code comes from.
        launch: None for cases that only have the FILE mode.
        modes: the modes to run.
        refused_on: targets for which a typed error is the right answer ("file" stands for the FILE mode).
        framework: "torch" or "jax" to pass that framework's CPU tensors instead of NumPy arrays.
        command: what the file modes run; None imports the source.
        skip: the reason not to run at all.
        isolation: cases with equal values share a process; defaults to the source's path.
    """

    suite: str
    label: str
    source: Source
    launch: Launch | None = None
    modes: Sequence[Mode] = TARGET_MODES
    refused_on: frozenset[str] = frozenset()
    framework: str = ""
    command: Command | None = None
    skip: str = ""
    isolation: str = ""

    @property
    def id(self) -> str:
        return f"{self.suite}:{self.source.path}:{self.label}"

    def refused_in(self, mode: Mode) -> bool:
        """Whether a typed error is the right answer in a mode."""
        return ("file" if mode is Mode.FILE else mode.target) in self.refused_on

    @property
    def group(self) -> str:
        return self.isolation or str(self.source.path)


@dataclass
class Result:
    """The outcome of one case in one mode, as it travels between processes and into the JSON file."""

    case: str
    mode: Mode
    status: Status
    seconds: float = 0.0
    max_abs_error: float | None = None
    max_rel_error: float | None = None
    error: str = ""
    message: str = ""
    detail: str = field(default="", repr=False)

    def to_json(self) -> dict[str, Any]:
        return asdict(self) | {"mode": self.mode.value, "status": self.status.value}

    @classmethod
    def from_json(cls, record: dict[str, Any]) -> Result:
        return cls(**record | {"mode": Mode(record["mode"]), "status": Status(record["status"])})
