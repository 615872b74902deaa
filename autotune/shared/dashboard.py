"""Studies in a browser, by optuna-dashboard: those of a storage, or the trials of a database as studies in memory."""

from __future__ import annotations

import os
from collections import defaultdict
from typing import TYPE_CHECKING, Any

from optuna.distributions import CategoricalDistribution
from optuna.storages import BaseStorage, InMemoryStorage
from optuna.study import StudyDirection
from optuna.trial import TrialState, create_trial

from autotune.context import Context
from autotune.database import DEFAULT_PATH, Database, Trial, open_any
from autotune.errors import InvalidDatabase, MissingExtra
from autotune.shared.storage import open_storage, quiet
from nkilite.later import later

if TYPE_CHECKING:  # an extra
    import optuna_dashboard
else:
    optuna_dashboard = later("optuna_dashboard")

PORT = 8080


def show(url: str | None, database: str | os.PathLike[str] | None, host: str, port: int) -> None:
    """Serve the pages until the process ends.

    Raises:
        MissingExtra: optuna-dashboard is not installed.
        InvalidStorage, InvalidDatabase: there is nothing to show.
    """
    try:
        run_server = optuna_dashboard.run_server
    except ImportError as error:
        raise MissingExtra(extra="dashboard", what="the dashboard", problem=error) from None
    if url is not None:
        storage = open_storage(url)
    else:
        path = DEFAULT_PATH if database is None else database
        if not os.path.exists(path):
            raise InvalidDatabase(path=path, problem="there is no such file")
        storage = as_storage(open_any(path))
    run_server(storage, host=host, port=port)


def as_storage(database: Database) -> BaseStorage:
    """One study per context: kernel, arguments, objective."""
    quiet()
    storage = InMemoryStorage()
    trials: dict[str, list[Trial]] = defaultdict(list)
    for trial in database.trials.values():
        trials[trial.context.id].append(trial)
    for held in trials.values():
        context = held[0].context
        study = storage.create_new_study([StudyDirection.MINIMIZE], f"{_title(context)} [{context.id}]")
        for key, value in context.to_json().items():
            storage.set_study_user_attr(study, key, value)
        values: dict[str, dict[str, Any]] = defaultdict(dict)
        for trial in held:
            for name, value in trial.configuration.items():
                values[name].setdefault(repr(value), value)
        offered = {n: CategoricalDistribution(_in_order(list(v.values()))) for n, v in values.items()}
        for trial in held:
            outcome = trial.outcome
            storage.create_new_trial(
                study,
                create_trial(
                    state=TrialState.COMPLETE if outcome.accepted else TrialState.PRUNED, value=outcome.value,
                    params=trial.configuration, distributions={n: offered[n] for n in trial.configuration},
                    user_attrs=outcome.to_json(),
                ),
            )
    return storage


def _title(context: Context) -> str:
    arrays = ["x".join(map(str, a[1])) for a in context.arguments.values() if a[0] == "array"]
    return f"{context.kernel} {' '.join(arrays)} {context.objective}"


def _in_order(values: list[Any]) -> list[Any]:
    numbers = all(isinstance(v, (int, float)) for v in values)
    return sorted(values) if numbers else sorted(values, key=repr)
