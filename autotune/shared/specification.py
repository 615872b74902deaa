"""A study in words: what the command line says about it, so that a worker on any machine can rebuild it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

from autotune import children
from autotune.api import objective_named
from autotune.context import Context, digest
from autotune.database import Database
from autotune.errors import StudyMismatch, UntrustedKernel
from autotune.explore.study import TRIALS, Progress, Result, Study
from autotune.measure.timing import Protocol
from autotune.objective import Objective, Workload
from autotune.shared.claims import LEASE
from autotune.sources import space_from, workload_from
from autotune.space import Rule, Space
from nkilite.cli.specs import load_kernel

OTHER_PROGRAM = "another program than where it was started: the kernel, or what it reads, is another"
_BUDGETS = {"trials", "seconds", "timeout", "lease"}
_DIFFERENCES = {
    "kernel": "the kernel", "arguments": "the arguments",
    "objective": "the objective", "target": "the target", "cpu": "the CPU", "nkilite": "the version of nkilite",
}


@dataclass(frozen=True)
class Specification:
    """What is searched, and within which bounds; field by field an option of ``autotune run``.

    Attributes:
        kernel: MODULE:KERNEL or FILE.py:KERNEL.
        shapes, dtype, arguments: of the workloads; arrays are made from a seed, equal on every machine.
        parameters, constraints: of the space; without them it is the kernel's own.
        objective, sampler, seed, trials, seconds: see `autotune.explore.study.Study`.
        timeout: seconds a measured configuration may take.
        model: see `autotune.explore.study.Study`.
        lease: seconds after which a worker that gives no sign of life has lost what it was trying.
    """

    kernel: str
    shapes: tuple[str, ...]
    dtype: str = "float32"
    arguments: tuple[str, ...] = ()
    parameters: tuple[str, ...] = ()
    constraints: tuple[str, ...] = ()
    objective: str = "trn2"
    sampler: str = "tpe"
    seed: int = 0
    trials: int = TRIALS
    seconds: float | None = None
    timeout: float = Protocol.timeout
    lease: float = LEASE
    model: bool = True

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, stored: Mapping[str, Any], study: str) -> Specification:
        """The specification that a study was started with.

        Raises:
            StudyMismatch: the storage holds something else in its place.
        """
        known = {f.name: str(f.type) for f in fields(cls)}
        values: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in stored.items() if k in known}
        for name, value in values.items():
            if not _is_of(value, known[name]):
                raise StudyMismatch(study=study, difference=f"{name} is {value!r} there, which is no {known[name]}")
        return cls(**values)

    def among(self, kernels: Sequence[str], study: str) -> Specification:
        """The same of the kernel that has its name among others, wherever that is: it alone is loaded.

        Raises:
            UntrustedKernel: there is none.
        """
        name = self.kernel.rpartition(":")[2]
        for kernel in kernels:
            if kernel.rpartition(":")[2] == name:
                return replace(self, kernel=kernel)
        raise UntrustedKernel(study=study, kernel=self.kernel, allowed=", ".join(kernels) or "none")

    def load(self) -> tuple[list[Workload], Space]:
        """The workloads and the space.

        Raises:
            UnknownKernel, InvalidShapes, InvalidArgumentSpec, InvalidParameterSpec, InvalidSpace, NoSpace.
        """
        with children.loading():
            kernel = load_kernel(self.kernel)
        workloads = [workload_from(kernel, s, self.dtype, fixed=self.arguments) for s in self.shapes]
        return workloads, space_from(kernel, self.parameters, self.constraints)

    @property
    def label(self) -> str:
        """"modelled", "cpu-measured" or both."""
        return self.make_objective().label

    def search(self, database: Database, resume: bool, on_trial: Callable[[Progress], Any]) -> Result:
        """Search in this process; see `autotune.explore.study.Study.run`."""
        workloads, space = self.load()
        objective = self.make_objective()
        study = Study(
            workloads, objective, space, self.sampler, self.seed, self.trials, self.seconds, database, resume,
            self.model,
        )
        try:
            return study.run(on_trial)
        finally:
            objective.close()

    def make_objective(self) -> Objective:
        """A new objective, to be closed.

        Raises:
            UnknownObjective.
        """
        return objective_named(self.objective, self.seed, Protocol(timeout=self.timeout))

    def study_name(self, identity: Mapping[str, Any]) -> str:
        """The same for the same search, whatever its budget."""
        words = {k: v for k, v in self.to_json().items() if k not in _BUDGETS}
        return f"{self.kernel.rpartition(':')[2]}-{digest([words, identity])}"


def identity(contexts: list[Context], programs: list[str], space: Space) -> dict[str, Any]:
    """What must be equal on all machines, as JSON.

    Args:
        programs: digests of what the default configuration makes of every workload.
    """
    return {"contexts": [c.to_json() for c in contexts], "programs": programs, "space": space_digest(space)}


def _is_of(value: Any, kind: str) -> bool:
    """Whether a value read from JSON is of a field's type."""
    if kind.startswith("tuple"):
        return isinstance(value, tuple) and all(isinstance(v, str) for v in value)
    if value is None:
        return kind.endswith("None")
    types: Any = {"str": str, "int": int, "float": (int, float), "bool": bool}[kind.partition(" ")[0]]
    return isinstance(value, types) and isinstance(value, bool) == (kind == "bool")


def space_digest(space: Space) -> str:
    """Equal for equal spaces, as far as text tells."""
    parameters = [
        [name, [repr(v) for v in p.values], p.ordered, None if p.when is None else p.when.text, repr(p.default)]
        for name, p in space.parameters.items()
    ]
    return digest([parameters, [Rule.of(c).text for c in space.constraints]])


def require_equal(study: str, ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> None:
    """Compare the identity of a study as it is here with the one it was started with.

    Raises:
        StudyMismatch: names the first difference.
    """
    for here, there in zip(ours["contexts"], theirs["contexts"], strict=False):
        for field, name in _DIFFERENCES.items():
            if here[field] != there[field]:
                difference = f"{name}: {here[field]} here, {there[field]} where it was started"
                raise StudyMismatch(study=study, difference=difference)
    if len(ours["contexts"]) != len(theirs["contexts"]):
        raise StudyMismatch(study=study, difference="the workloads are others")
    if ours["programs"] != theirs["programs"]:
        raise StudyMismatch(study=study, difference=f"the default configuration traces to {OTHER_PROGRAM}")
    if ours["space"] != theirs["space"]:
        raise StudyMismatch(study=study, difference="the search space is another than where it was started")


