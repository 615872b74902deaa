"""The memory of the tuner: an append-only file of JSON lines, one per finished trial or chosen configuration.

A record is written by a single `write` to a file opened with O_APPEND, so several processes may share a database and a
kill at any moment loses at most the line that was being written. Such a torn line is left behind as a line of its own
and skipped by readers. After a kill the kernel still writes what was appended; `fsync` guards against loss of power:
"second" (default) at most once per second and when closed, "always" after every record, "never".
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from autotune.context import Context, canonical, versions
from autotune.errors import InvalidDatabase
from autotune.outcome import Outcome
from autotune.space import Configuration

FORMAT = 2
_FIRST = b'{"configuration":'  # keys are sorted
DEFAULT_PATH = "autotune.jsonl"

Fsync = Literal["second", "always", "never"]


@dataclass(frozen=True)
class Trial:
    """One configuration in one context and what became of it."""

    context: Context
    configuration: Configuration
    outcome: Outcome

    @property
    def key(self) -> tuple[str, str]:
        """Of what was tried: the program, or the configuration if there is none."""
        return self.context.id, self.outcome.program or canonical(self.configuration)


@dataclass(frozen=True)
class Point:
    """A configuration on the front, with its figures in the order of the objective's names."""

    configuration: Configuration
    values: tuple[float, ...]


@dataclass(frozen=True)
class Choice:
    """The configuration a finished study chose for a context, with its figure and that of the default.

    Attributes:
        value, default_value: in the unit of the objective's first figure; the default's is None where it is not legal.
        ties: configurations statistically as good.
        front: of several figures, every configuration that no other was better than in all of them.
        program: digest of the program it makes the kernel trace to.
    """

    context: Context
    configuration: Configuration
    value: float
    default_value: float | None = None
    ties: tuple[Configuration, ...] = ()
    front: tuple[Point, ...] = ()
    program: str = ""


class Database:
    """Trials and choices in a file, or in memory alone when `path` is None.

    Attributes:
        trials: by (context id, digest of the program), and those that could not be traced by (context id, canonical
            configuration); the first record of a trial counts.
        choices: the last choice of each context id.
        damaged: lines that could not be read, such as the last one before a kill.
    """

    def __init__(self, path: str | os.PathLike[str] | None, fsync: Fsync = "second") -> None:
        self.path = None if path is None else Path(path)
        self.fsync: Fsync = fsync
        self.trials: dict[tuple[str, str], Trial] = {}
        self.choices: dict[str, Choice] = {}
        self.damaged = 0
        self._contexts: dict[str, Context] = {}
        self._read_to = 0
        self._descriptor: int | None = None
        self._synced = time.monotonic()
        self.refresh()

    def __enter__(self) -> Database:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __len__(self) -> int:
        return len(self.trials)

    def find(self, context: Context, program: str) -> Outcome | None:
        """The outcome of a trial of this program that was finished before."""
        found = self.trials.get((context.id, program))
        return found.outcome if found is not None else None

    def add(self, trial: Trial) -> None:
        """Append a finished trial."""
        if trial.key in self.trials:
            return
        self.trials[trial.key] = trial
        self._append(_record(trial))

    def choose(self, choice: Choice) -> None:
        """Append the outcome of a study; it takes the place of the context's earlier choice."""
        self.choices[choice.context.id] = choice
        self._append(_record(choice))

    def refresh(self) -> None:
        """Read what was appended to the file since the last time, by this process or others.

        Raises:
            InvalidDatabase: the file cannot be read, or holds something else than records.
        """
        if self.path is None or not self.path.exists():
            return
        try:
            with self.path.open("rb") as file:
                file.seek(self._read_to)
                data = file.read()
        except OSError as error:
            raise InvalidDatabase(path=self.path, problem=error.strerror or str(error)) from None
        end = data.rfind(b"\n") + 1
        if self._read_to == 0 and data and not data.startswith(_FIRST):
            raise InvalidDatabase(path=self.path, problem="it does not begin with a record")
        self._absorb(data[:end].splitlines())
        self._read_to += end

    def _absorb(self, lines: Iterable[bytes]) -> None:
        for line in lines:
            if not line.strip():
                continue
            try:
                record = self._parse(json.loads(line))
            except (ValueError, KeyError, TypeError):
                self.damaged += 1
                continue
            if isinstance(record, Trial):
                self.trials.setdefault(record.key, record)
            else:
                self.choices[record.context.id] = record

    def _parse(self, stored: dict[str, Any]) -> Trial | Choice:
        if stored["format"] != FORMAT:
            raise ValueError(stored["format"])
        made = Context(**stored["context"])
        context = self._contexts.setdefault(made.id, made)
        if stored["kind"] == "trial":
            return Trial(context, stored["configuration"], Outcome.from_json(stored["outcome"]))
        return Choice(
            context, stored["configuration"], stored["value"], stored.get("default_value"), tuple(stored["ties"]),
            tuple(Point(p["configuration"], tuple(p["values"])) for p in stored.get("front", ())),
            stored["program"],
        )

    def _append(self, record: dict[str, Any]) -> None:
        if self.path is None:
            return
        line = canonical(record).encode() + b"\n"
        if self._descriptor is None:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._descriptor = os.open(self.path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o644)
            size = os.fstat(self._descriptor).st_size
            if size and os.pread(self._descriptor, 1, size - 1) != b"\n":
                line = b"\n" + line  # ends the line another run was killed in
        written = os.write(self._descriptor, line)
        while written < len(line):  # a full disk or a signal; readers skip the pieces if we die here
            written += os.write(self._descriptor, line[written:])
        now = time.monotonic()
        if self.fsync == "always" or (self.fsync == "second" and now - self._synced > 1):
            os.fsync(self._descriptor)
            self._synced = now

    def close(self) -> None:
        """Make what was appended durable and close the file; a later append opens it again."""
        if self._descriptor is not None:
            if self.fsync != "never":
                os.fsync(self._descriptor)
            os.close(self._descriptor)
            self._descriptor = None

    # --- exchange ---------------------------------------------------------------------------------------------

    def of_kernel(self, name: str = "") -> Iterator[Context]:
        """Every context with trials or a choice whose kernel's name contains `name`."""
        seen: set[str] = set()
        records: tuple[Trial | Choice, ...] = (*self.trials.values(), *self.choices.values())
        for record in records:
            if name in record.context.kernel and record.context.id not in seen:
                seen.add(record.context.id)
                yield record.context

    def best(self, context: Context) -> Choice | None:
        """The chosen configuration of a context, or the best trial where no study has finished."""
        return next(iter(self.ranked(context)), None)

    def ranked(self, context: Context) -> list[Choice]:
        """The chosen configuration of a context, or all trials where no study has finished, best first."""
        chosen = self.choices.get(context.id)
        if chosen is not None:
            return [chosen]
        done = [
            (t.outcome.value, canonical(t.configuration), t)
            for t in self.trials.values()
            if t.context.id == context.id and t.outcome.value is not None
        ]
        done.sort(key=lambda item: item[:2])
        return [Choice(context, t.configuration, value, program=t.outcome.program) for value, _, t in done]

    def export(self, path: str | os.PathLike[str], kernel: str = "") -> int:
        """Write the best configuration of every context as readable JSON; returns how many."""
        found = [c for context in self.of_kernel(kernel) if (c := self.best(context)) is not None]
        found.sort(key=lambda c: canonical(c.context.to_json()))
        document = {"format": FORMAT, "configurations": [_record(c) for c in found]}
        Path(path).write_text(json.dumps(document, indent=2, sort_keys=True) + "\n")
        return len(found)

    def load(self, path: str | os.PathLike[str]) -> int:
        """Append the configurations of an export; returns how many were new.

        Raises:
            InvalidDatabase: the file is not an export.
        """
        try:
            records = [self._parse(r) for r in json.loads(Path(path).read_text())["configurations"]]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise InvalidDatabase(path=path, problem=str(error)) from None
        new = [r for r in records if isinstance(r, Choice) and self.choices.get(r.context.id) != r]
        for choice in new:
            self.choose(choice)
        return len(new)


def open_any(path: str | os.PathLike[str]) -> Database:
    """A database from its own file, or an export read into memory.

    Raises:
        InvalidDatabase: it is neither.
    """
    file = Path(path)
    if file.suffix == ".json":
        database = Database(None)
        database.load(file)
        return database
    return Database(file)


def _record(item: Trial | Choice) -> dict[str, Any]:
    common = {"format": FORMAT, "context": item.context.to_json(), "configuration": item.configuration}
    if isinstance(item, Trial):
        return {**common, "kind": "trial", "outcome": item.outcome.to_json(), "versions": versions()}
    record = {
        **common, "kind": "choice", "value": item.value, "default_value": item.default_value, "ties": list(item.ties),
        "program": item.program, "versions": versions(),
    }
    if item.front:
        record["front"] = [{"configuration": p.configuration, "values": list(p.values)} for p in item.front]
    return record
