"""A study that several processes work on: claims, leases and outcomes as trials of an optuna storage.

A **claim** is one write: a running trial that holds its configuration from the start. Storages number trials in the
order of their making, so of several claims of one configuration the lowest number counts, whoever looks. While a worker
tries a configuration its claim's **beat** counts up. A claim whose beat has stood still for a lease, by the clock of
whoever watches, is lost: it becomes a failed trial, and its configuration is open to whoever claims it next.

No clock is compared with another machine's, and nothing is asked of a storage but what all of optuna's can do
(heartbeats of its own exist for databases alone). A worker that was only slow finds its claim gone, and its outcome is
dropped.
"""

from __future__ import annotations

import threading
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

from optuna.distributions import BaseDistribution, CategoricalDistribution, IntDistribution
from optuna.exceptions import DuplicatedStudyError, UpdateFinishedTrialError
from optuna.storages import BaseStorage
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState, create_trial

from autotune.context import canonical
from autotune.errors import InvalidStorage, NoSharedStudy, StorageLost
from autotune.outcome import Outcome, Reason
from autotune.shared.storage import reached
from autotune.space import Configuration, Parameter, Space

LEASE = 30.0
BEATS = 5  # of a claim within a lease
RETRIES = 3  # times a configuration may be lost with its worker before it is blamed
APPEARS = 10.0  # seconds a study may take to be described by who creates it

RUNNING, FINISHED = "running", "finished"


@dataclass(frozen=True)
class Entry:
    """One configuration of a shared study, as all its trials tell.

    Attributes:
        number: of the trial that counts: the finished one, else the first claim.
        outcomes: per workload; empty until finished.
        lost: numbers of the trials whose workers were lost, not those that let go of it.
    """

    configuration: Configuration
    number: int
    state: TrialState
    outcomes: tuple[Outcome, ...]
    lost: tuple[int, ...]

    @property
    def finished(self) -> bool:
        return bool(self.outcomes)

    @property
    def open(self) -> bool:
        """Lost with its worker or let go of, and not claimed again."""
        return self.state is TrialState.FAIL

    @property
    def under_way(self) -> bool:
        """Claimed, and neither finished nor lost."""
        return not self.finished and not self.open


Entries = dict[str, Entry]


@dataclass(frozen=True)
class Claim:
    """A configuration taken: the trial's id in the storage, its number, and the entries right after."""

    id: int
    number: int
    entries: Entries


@dataclass
class SharedStudy:
    """What processes on any machine see of one study.

    Attributes:
        storage: from `autotune.shared.storage.open_storage`; every method raises StorageLost once it is out of reach.
        name: of the optuna study.
        id: the storage's number for it.
    """

    storage: BaseStorage
    name: str
    id: int
    _keys: dict[int, str] = field(default_factory=dict, repr=False)
    _parsed: dict[int, tuple[Outcome, ...]] = field(default_factory=dict, repr=False)
    _beats: dict[int, tuple[Any, float]] = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        self.storage = reached(self.storage)

    @classmethod
    def create(cls, storage: BaseStorage, name: str, figures: int) -> SharedStudy:
        """A new study, or the one of this name."""
        storage = reached(storage)
        try:
            found = storage.create_new_study([StudyDirection.MINIMIZE] * figures, name)
        except DuplicatedStudyError:
            found = storage.get_study_id_from_name(name)
        return cls(storage, name, found)

    @classmethod
    def join(cls, storage: BaseStorage, name: str | None = None) -> SharedStudy:
        """The study of a name, or the last one that is running.

        Raises:
            NoSharedStudy: there is none.
        """
        every = reached(storage).get_all_studies()
        studies = [s for s in every if "specification" in s.user_attrs or s.study_name == name]
        if name is not None:
            studies = [s for s in studies if s.study_name == name]
        else:
            studies = [s for s in studies if s.user_attrs.get("state") == RUNNING]
        if not studies:
            what = "no study is running" if name is None else f"there is no study {name!r}"
            raise NoSharedStudy(problem=what)
        chosen = studies[-1]
        return cls(storage, chosen.study_name, chosen._study_id)

    # --- the study ------------------------------------------------------------------------------------------------

    def describe(self, **description: Any) -> None:
        """Write what workers need to know, and open the study to them."""
        for key, value in description.items():
            self.storage.set_study_user_attr(self.id, key, value)
        self.storage.set_study_user_attr(self.id, "state", RUNNING)

    @property
    def description(self) -> Mapping[str, Any]:
        return self.storage.get_study_user_attrs(self.id)

    def described(self) -> Mapping[str, Any]:
        """The description, once it is there.

        Raises:
            InvalidStorage: the study was not made by autotune.
        """
        until = time.monotonic() + APPEARS
        while "state" not in (found := self.description):
            if time.monotonic() > until:
                raise InvalidStorage(url=self.name, problem="a study that autotune did not make")
            time.sleep(0.1)
        return found

    @property
    def running(self) -> bool:
        return self.description.get("state") == RUNNING

    def finish(self, why: str = FINISHED) -> None:
        """Tell workers to end, after the configuration they are trying."""
        self.storage.set_study_user_attr(self.id, "state", why)

    # --- configurations -------------------------------------------------------------------------------------------

    def entries(self) -> Entries:
        """Every configuration that was claimed, by its canonical text, in the order of numbers."""
        return self._entries(self._trials())

    def watch(self, lease: float) -> Entries:
        """The entries, after claims have failed whose beat has not changed for a lease since this process saw it."""
        trials = self._trials()
        if self._reclaim(trials, lease):
            trials = self._trials()
        return self._entries(trials)

    def claim(self, configuration: Configuration, space: Space, worker: str, known: Entries) -> Claim | None:
        """Take a configuration, or None when another claim of it counts; `known` are the entries seen last."""
        key = canonical(configuration)
        lost = list(known[key].lost) if key in known else []
        retry = {"failed_trial": lost[0], "retry_history": lost} if lost else {}  # optuna's own marks
        params, distributions = _parameters(configuration, space)
        made = self.storage.create_new_trial(
            self.id,
            create_trial(
                state=TrialState.RUNNING, params=params, distributions=distributions,
                user_attrs={"configuration": configuration, "worker": worker}, system_attrs=retry,
            ),
        )
        claim = Claim(made, self.storage.get_trial_number_from_id(made), self.entries())
        if claim.entries[key].number == claim.number:
            return claim
        self.withdraw(claim)
        return None

    def withdraw(self, claim: Claim) -> None:
        """Give up a claim as if it had never been."""
        with suppress(UpdateFinishedTrialError):  # lost in the meantime
            self.storage.set_trial_user_attr(claim.id, "withdrawn", True)
            self.storage.set_trial_state_values(claim.id, TrialState.FAIL)

    def tell(self, claim: Claim, outcomes: Sequence[Outcome], values: tuple[float, ...] | None) -> bool:
        """What became of a claimed configuration; False when the claim was lost, and the outcome with it."""
        try:
            self.storage.set_trial_user_attr(claim.id, "outcomes", [o.to_json() for o in outcomes])
            state = TrialState.PRUNED if values is None else TrialState.COMPLETE
            self.storage.set_trial_state_values(claim.id, state, values)
        except UpdateFinishedTrialError:
            return False
        return True

    def publish(
        self, configuration: Configuration, outcomes: Sequence[Outcome], values: tuple[float, ...] | None, space: Space
    ) -> None:
        """Add a configuration whose outcome needs no claim."""
        params, distributions = _parameters(configuration, space)
        stored = {"configuration": configuration, "outcomes": [o.to_json() for o in outcomes]}
        state = TrialState.PRUNED if values is None else TrialState.COMPLETE
        trial = create_trial(
            state=state, params=params, distributions=distributions, values=values, user_attrs=stored
        )
        self.storage.create_new_trial(self.id, trial)

    # --- leases ---------------------------------------------------------------------------------------------------

    @contextmanager
    def kept(self, claim: Claim, lease: float) -> Iterator[None]:
        """Let a claim's beat count up, from a thread, for as long as the block runs."""
        done = threading.Event()

        def beat() -> None:
            count = 0
            while not done.wait(lease / BEATS):
                count += 1
                try:
                    self.storage.set_trial_user_attr(claim.id, "beat", count)
                except UpdateFinishedTrialError:
                    return  # lost: telling will say so
                except Exception:
                    continue  # the storage is out of reach for now; what stays so, telling reports
                finally:
                    with suppress(StorageLost):
                        self.storage.remove_session()

        thread = threading.Thread(target=beat, name="autotune-beat", daemon=True)
        thread.start()
        try:
            yield
        finally:
            done.set()
            thread.join()

    def release(self, claim: Claim) -> None:
        """Open a claimed configuration to others, without blame."""
        with suppress(UpdateFinishedTrialError):  # lost in the meantime
            self.storage.set_trial_user_attr(claim.id, "released", True)
            self.storage.set_trial_state_values(claim.id, TrialState.FAIL)

    def _reclaim(self, trials: Sequence[FrozenTrial], lease: float) -> int:
        now, failed = time.monotonic(), 0
        running = {t.number: t for t in trials if t.state is TrialState.RUNNING}
        self._beats = {n: seen for n, seen in self._beats.items() if n in running}
        for number, trial in running.items():
            beat = trial.user_attrs.get("beat", 0)
            last, since = self._beats.get(number, (None, now))
            if beat != last:
                self._beats[number] = beat, now
            elif now - since > lease:
                claim = self.storage.get_trial_id_from_study_id_trial_number(self.id, number)
                with suppress(UpdateFinishedTrialError):  # finished, or failed by another watcher
                    failed += self.storage.set_trial_state_values(claim, TrialState.FAIL)
        return failed

    # --- inside ---------------------------------------------------------------------------------------------------

    def _entries(self, trials: Sequence[FrozenTrial]) -> Entries:
        lost: dict[str, list[int]] = defaultdict(list)
        for trial in trials:
            if trial.state is TrialState.FAIL and "released" not in trial.user_attrs:
                lost[self._key(trial)].append(trial.number)
        found: Entries = {}
        for trial in sorted(trials, key=_rank):
            key = self._key(trial)
            if key not in found:
                configuration, gone = trial.user_attrs["configuration"], tuple(lost.get(key, ()))
                found[key] = Entry(configuration, trial.number, trial.state, self._outcomes(trial), gone)
        return dict(sorted(found.items(), key=lambda item: item[1].number))

    def _trials(self) -> list[FrozenTrial]:
        """All trials that were not withdrawn."""
        trials = self.storage.get_all_trials(self.id, deepcopy=False)
        return [t for t in trials if "configuration" in t.user_attrs and "withdrawn" not in t.user_attrs]

    def _key(self, trial: FrozenTrial) -> str:
        if trial.number not in self._keys:
            self._keys[trial.number] = canonical(trial.user_attrs["configuration"])
        return self._keys[trial.number]

    def _outcomes(self, trial: FrozenTrial) -> tuple[Outcome, ...]:
        if trial.state not in (TrialState.COMPLETE, TrialState.PRUNED):
            return ()
        if trial.number not in self._parsed:
            self._parsed[trial.number] = tuple(Outcome.from_json(o) for o in trial.user_attrs["outcomes"])
        return self._parsed[trial.number]


def blamed(entry: Entry) -> Outcome | None:
    """The outcome of a configuration that was lost with its workers too often."""
    if len(entry.lost) <= RETRIES:
        return None
    return Outcome(reason=Reason.crash, detail=f"{len(entry.lost)} workers were lost while they tried it")


def _rank(trial: FrozenTrial) -> tuple[int, int]:
    """Finished trials count before claims, claims before lost ones; then the lowest number."""
    order = {TrialState.COMPLETE: 0, TrialState.PRUNED: 0, TrialState.FAIL: 2}
    return order.get(trial.state, 1), trial.number


def _parameters(configuration: Configuration, space: Space) -> tuple[dict[str, Any], dict[str, BaseDistribution]]:
    """Values for dashboards; those of a default outside the space stand in the user attributes alone."""
    within = {n: v for n, v in configuration.items() if v in space.parameters[n].values}
    return within, {n: _distribution(space.parameters[n]) for n in within}


def _distribution(parameter: Parameter) -> BaseDistribution:
    values = parameter.values
    if parameter.ordered and len(values) > 1 and all(type(v) is int for v in values):
        steps = {b - a for a, b in pairwise(values)}
        if len(steps) == 1:
            return IntDistribution(values[0], values[-1], step=steps.pop())
        if values[0] > 0 and {b / a for a, b in pairwise(values)} == {2.0}:
            return IntDistribution(values[0], values[-1], log=True)
    return CategoricalDistribution(values)
