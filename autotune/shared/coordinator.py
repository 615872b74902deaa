"""The end of a shared study that people see: starts it and local workers, keeps its trials, settles and reports."""

from __future__ import annotations

import os
import subprocess
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import IO, Any

from autotune import children
from autotune.context import canonical
from autotune.database import Database, Trial
from autotune.errors import InvalidStorage, StudyMismatch, WorkersLost
from autotune.explore.study import Progress, Result
from autotune.outcome import Outcome, Reason
from autotune.shared.claims import FINISHED, Entries, SharedStudy
from autotune.shared.specification import OTHER_PROGRAM, Specification, require_equal
from autotune.shared.storage import open_storage
from autotune.shared.worker import EXHAUSTED, POLL, URL_VARIABLE, Member
from autotune.space import Configuration

_PROGRAM = "from autotune.shared.worker import main; main()"
RESTARTS = 3  # per worker
DISMISSAL = 5.0  # seconds a worker has to let go of what it was trying


class Crew:
    """Local worker processes; one that is killed is replaced."""

    def __init__(self, url: str, study: str, kernel: str, count: int, database: Path | None) -> None:
        self._url, self._study, self._kernel, self._database = url, study, kernel, database
        self._restarts = RESTARTS * count
        self._idle = False
        self._processes: list[tuple[subprocess.Popen[bytes], IO[bytes]]] = []
        self._wanted = count > 0
        for _ in range(count):
            self._start()

    def _start(self) -> None:
        said = tempfile.TemporaryFile()  # noqa: SIM115, closed when the process has ended
        process = children.start(
            _PROGRAM, self._study, self._kernel, str(self._database or ""), environment={URL_VARIABLE: self._url},
            stdout=said, stderr=said,
        )
        self._processes.append((process, said))

    def keep(self) -> None:
        """Replace workers that were killed.

        Raises:
            WorkersLost: one failed, or they are killed again and again.
        """
        for process, said in [p for p in self._processes if p[0].poll() is not None]:
            self._processes.remove((process, said))
            self._idle = False
            said.seek(0)
            lines = said.read().decode(errors="replace").strip().splitlines()
            said.close()
            if process.returncode > 0:
                raise WorkersLost(study=self._study, problem=lines[-1] if lines else f"status {process.returncode}")
            if process.returncode < 0:
                self._replace(f"signal {-process.returncode} ended them {RESTARTS} times each")
        if self._wanted and not self._processes:
            if self._idle:  # they believed the study over; whoever calls has looked since, and it was not
                self._replace("they stopped before the end")
            self._idle = True

    def _replace(self, problem: str) -> None:
        if not self._restarts:
            raise WorkersLost(study=self._study, problem=problem)
        self._restarts -= 1
        self._start()

    def dismiss(self) -> None:
        """End all workers; what they were trying is left to others."""
        for process, _ in self._processes:
            process.terminate()
        until = time.monotonic() + DISMISSAL
        for process, said in self._processes:
            try:
                process.wait(max(0.1, until - time.monotonic()))
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            said.close()
        self._processes.clear()


class Coordinator(Member):
    """A study that is searched by workers, here and elsewhere.

    Args:
        url: of the storage; None makes a journal beside the database, or where there is none in a temporary folder.
        study: its name; None derives one from what is searched, so the same search continues.
        workers: how many to start here; 0 leaves it to those that join.
    """

    def __init__(
        self, url: str | None, specification: Specification, database: Database, study: str | None, workers: int,
        resume: bool,
    ) -> None:
        super().__init__(specification, database, resume=resume)
        self.specification, self.workers = specification, workers
        name = study or specification.study_name(self.identity)
        self._private: Path | None = None
        if url is None:
            beside = Path(tempfile.mkdtemp(prefix="autotune-")) / "db" if database.path is None else database.path
            self._private = Path(f"{beside.absolute()}.{name}.log")
            url = f"journal://{self._private}"
        self.url = url
        self.shared = SharedStudy.create(open_storage(url), name, len(self.objective.figures))

    def close(self) -> None:
        """Release the objective and remove a private journal, whose trials are in the database."""
        self.objective.close()
        if self._private is not None:
            for path in (self._private, Path(f"{self._private}.lock")):
                path.unlink(missing_ok=True)
            if self.database.path is None:
                self._private.parent.rmdir()

    def open(self) -> None:
        """Describe the study to workers.

        Raises:
            StudyMismatch: there is another one of this name.
            InvalidStorage: there is one that autotune did not make.
        """
        there = self.shared.description.get("identity")
        if there is not None:
            require_equal(self.shared.name, self.identity, there)
        elif self.shared.storage.get_n_trials(self.shared.id):
            raise InvalidStorage(url=self.shared.name, problem="a study that autotune did not make")
        if self.resume:
            entries = self.shared.entries()
            for configuration in self._known():
                self._offer(configuration, entries)
        self.shared.describe(
            specification=self.specification.to_json(), identity=self.identity, resumed=self._resumed
        )

    def _offer(self, configuration: Configuration, entries: Entries) -> None:
        """Let the study begin with what the database knows."""
        outcomes: list[Outcome] = []
        for index in range(len(self._contexts)):
            outcome = self._find(index, self._traced(index, configuration))
            if outcome is None:
                return
            outcomes.append(outcome)
            if not outcome.accepted:
                break
        if canonical(configuration) not in entries:
            found = tuple(outcomes)
            self.shared.publish(configuration, found, self._values(found), self._space)

    def _search(self, started: float, on_trial: Callable[[Progress], Any]) -> bool:
        """Watch workers until the budget or the space is spent."""
        self.open()
        crew = Crew(self.url, self.shared.name, self.specification.kernel, self.workers, self.database.path)
        state = FINISHED
        try:
            while True:
                if self.shared.description["state"] == EXHAUSTED:
                    state = EXHAUSTED
                self._collect(self.shared.watch(self.lease), started, on_trial)
                elapsed = time.perf_counter() - started
                if state == EXHAUSTED or self._spent() or (self.seconds is not None and elapsed >= self.seconds):
                    return state == EXHAUSTED
                crew.keep()
                time.sleep(POLL)
        finally:
            try:
                self.shared.finish(state)
            finally:
                crew.dismiss()
            self._collect(self.shared.entries(), started, on_trial)

    def _collect(self, entries: Entries, started: float, on_trial: Callable[[Progress], Any]) -> None:
        """Take in what workers have finished, and store it."""
        for configuration in self._absorb(entries):
            outcomes = entries[canonical(configuration)].outcomes
            self._require_same(configuration, outcomes)
            trials = [Trial(c, configuration, o) for c, o in zip(self._contexts, outcomes, strict=False)]
            self._answered += all(t.key in self.database.trials for t in trials)
            for trial in trials:
                if trial.outcome.reason is not Reason.constraint:  # those belong to the space
                    self.database.add(trial)
            on_trial(self._progress(configuration, started))


    def _require_same(self, configuration: Configuration, outcomes: Sequence[Outcome]) -> None:
        """
        Raises:
            StudyMismatch: a worker has tried another program than this machine traces.
        """
        for index, outcome in enumerate(outcomes):
            if outcome.program and outcome.program != self._traced(index, configuration).program:
                difference = f"a worker traced {canonical(configuration)} to {OTHER_PROGRAM}"
                raise StudyMismatch(study=self.shared.name, difference=difference)


def distribute(
    specification: Specification, storage: str | None = None, *, study: str | None = None, workers: int = 1,
    database: Database | str | os.PathLike[str] | None = None, resume: bool = False,
    on_trial: Callable[[Progress], Any] = lambda progress: None,
) -> Result:
    """Search with several processes, on one machine or many, and report as one.

    Args:
        specification: what is searched.
        storage: a URL, see `autotune.shared.storage`; None makes a private journal beside the database, which is
            removed at the end and continued by the same search if there was none.
        study: see `Coordinator`. Any number of `autotune worker` may join.
        workers: how many to start here.
        database, resume, on_trial: as of `autotune.search`.

    Raises:
        InvalidStorage, MissingExtra, StorageLost, StudyMismatch, WorkersLost, NothingLegal, NestedSearch.
    """
    children.require_none()
    held = database if isinstance(database, Database) else Database(database)
    try:
        coordinator = Coordinator(storage, specification, held, study, workers, resume)
        try:
            return coordinator.run(on_trial)
        finally:
            coordinator.close()
    finally:
        if held is not database:
            held.close()
