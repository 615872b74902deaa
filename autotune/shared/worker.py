"""A worker: tries configurations of a shared study, in any process on any machine that reaches its storage."""

from __future__ import annotations

import os
import signal
import socket
import sys
import time
from collections.abc import Sequence
from typing import Any

from autotune import children
from autotune.context import canonical, digest
from autotune.database import Database, open_any
from autotune.explore.study import Study
from autotune.outcome import Outcome, Reason
from autotune.shared.addresses import hidden
from autotune.shared.claims import Claim, Entries, SharedStudy, blamed
from autotune.shared.specification import Specification, identity, require_equal
from autotune.shared.storage import open_storage
from autotune.space import Configuration
from nkilite.errors import NkiError

POLL = 0.1
EXHAUSTED = "exhausted"
URL_VARIABLE = "AUTOTUNE_STORAGE"


class Member(Study):
    """A study whose configurations are tried by several processes; this one takes in what all of them found."""

    shared: SharedStudy

    def __init__(self, specification: Specification, database: Database, **options: Any) -> None:
        workloads, space = specification.load()
        self.lease = specification.lease
        super().__init__(
            workloads, specification.make_objective(), space, specification.sampler,
            options.pop("seed", specification.seed), specification.trials, specification.seconds, database,
            model=specification.model, **options,
        )
        self.objective.ahead = 1  # workers are several already
        programs = [self._traced(i, self.default).program for i in range(len(workloads))]
        self.identity = identity(self._contexts, programs, self._space)

    def _absorb(self, entries: Entries) -> list[Configuration]:
        """Book what is finished and was not known here; returns it."""
        new = [e for key, e in entries.items() if e.finished and key not in self._tried]
        for entry in new:
            self._book(entry.configuration, entry.outcomes)
        return [e.configuration for e in new]


class Worker(Member):
    """Claims a configuration, tries it, tells; until the study is over."""

    def __init__(self, shared: SharedStudy, specification: Specification, database: Database) -> None:
        self.name = f"{socket.gethostname()}-{os.getpid()}"
        seed = int(digest([specification.seed, self.name])[:8], 16)  # equal ones would suggest the same
        super().__init__(specification, database, seed=seed)
        self.shared = shared

    def work(self) -> int:
        """Returns how many configurations were tried here.

        Raises:
            StudyMismatch: what is to be tuned is something else on this machine.
            NotImportable, ReferenceFailed: see `autotune.measure.measured.Measured.prepare`.
        """
        description = self.shared.described()
        require_equal(self.shared.name, self.identity, description["identity"])
        self._resumed = description["resumed"]
        self.objective.prepare(self.workloads, self.default)
        pending, tried = self._opening()[::-1], 0
        while self.shared.running:
            entries = self.shared.watch(self.lease)
            self._absorb(entries)
            if self._spent():
                break
            under_way = [e for e in entries.values() if e.under_way]
            for entry in under_way:
                self._suggester.see(entry.configuration)
            if self._done + len(under_way) >= self.trials:
                time.sleep(POLL)  # those under way may fill the budget
                continue
            configuration = self._next(entries, pending)
            if configuration is not None:
                tried += self._attempt(configuration, entries, pending)
            elif under_way:
                time.sleep(POLL)  # they may get lost
            else:
                self.shared.finish(EXHAUSTED)
        return tried

    def _next(self, entries: Entries, pending: list[Configuration]) -> Configuration | None:
        """What was lost with other workers comes first."""
        lost = next((e for e in entries.values() if e.open), None)
        if lost is not None:
            return lost.configuration
        while pending:
            configuration = pending.pop()
            if canonical(configuration) not in entries:
                return configuration
        return self._suggester.ask()

    def _attempt(self, configuration: Configuration, known: Entries, pending: list[Configuration]) -> bool:
        """Try a configuration unless another worker does; whether it was."""
        rule = self._space.violated(configuration)
        if rule is not None:
            outcome = Outcome(reason=Reason.constraint, detail=rule.text)
            self.shared.publish(configuration, (outcome,), None, self._space)
            self._book(configuration, (outcome,))
            return False
        claim = self.shared.claim(configuration, self._space, self.name, known)
        if claim is None:
            return False
        try:
            if not self._needed(claim):
                self.shared.withdraw(claim)
                pending.append(configuration)
                return False
            with self.shared.kept(claim, self.lease):
                blame = blamed(claim.entries[canonical(configuration)])
                outcomes = self._try(configuration, self._best) if blame is None else (blame,)
            if self.shared.tell(claim, outcomes, self._values(outcomes)):
                self._book(configuration, outcomes)
        except BaseException:
            self.shared.release(claim)
            raise
        return True

    def _needed(self, claim: Claim) -> bool:
        """Whether the budget has room even if all claims before this one are accepted."""
        entries = claim.entries.values()
        before = sum(e.under_way and e.number < claim.number for e in entries)
        return sum(e.finished and e.outcomes[-1].accepted for e in entries) + before < self.trials


def work(
    url: str, kernels: Sequence[str], study: str | None = None, database: str | os.PathLike[str] | None = None
) -> tuple[str, int]:
    """Join a study and work until it is over; returns its name and how many configurations were tried here.

    Args:
        url: of the storage, see `autotune.shared.storage`.
        kernels: MODULE:KERNEL or FILE.py:KERNEL of those that may be run here; the study's is found among them by
            its name. Whoever can write to the storage chooses which, and nothing else that would run.
        study: its name; None takes the last one that is running.
        database: known trials to answer from; it is read only.

    Raises:
        InvalidStorage, MissingExtra, NoSharedStudy, StorageLost, StudyMismatch, UntrustedKernel.
    """
    shared = SharedStudy.join(open_storage(url), study)
    specification = Specification.from_json(shared.described()["specification"], shared.name)
    specification = specification.among(kernels, shared.name)
    known = Database(None)
    if database is not None and os.path.exists(database):
        known.trials.update(open_any(database).trials)
    worker = Worker(shared, specification, known)
    try:
        return shared.name, worker.work()
    finally:
        worker.objective.close()


def main() -> None:
    """Entry point of local workers: study, kernel and database as arguments, the storage in the environment."""
    children.begin()
    study, kernel, database = sys.argv[1:]
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(0))
    try:
        work(os.environ[URL_VARIABLE], [kernel], study, database or None)
    except NkiError as error:
        sys.exit(hidden(f"{type(error).__name__}: {error}"))
